package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lowly are processes of a user without rights, in a network of their own whose ports below 1024 are reserved.
type lowly struct {
	t      *testing.T
	binary *os.File // the way to it is closed to others
	dir    string
	caps   []uintptr
	home   chan func() // runs on the thread that is in that network
}

func newLowly(t *testing.T) *lowly {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	binary, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	l := &lowly{t: t, binary: binary, dir: openFolder(t), home: make(chan func())}
	moved := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		moved <- syscall.Unshare(syscall.CLONE_NEWNET)
		for f := range l.home {
			f()
		}
	}()
	t.Cleanup(func() { close(l.home); binary.Close() })
	if err := <-moved; err != nil {
		t.Skip("no network of our own: ", err)
	}
	return l
}

// there calls f on the thread in the network.
func (l *lowly) there(f func() error) {
	l.t.Helper()
	done := make(chan error)
	l.home <- func() { done <- f() }
	if err := <-done; err != nil {
		l.t.Fatal(err)
	}
}

func (l *lowly) command(name, config string) *exec.Cmd {
	l.t.Helper()
	path := filepath.Join(l.dir, "awe4lb.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		l.t.Fatal(err)
	}
	c := command(name, "--config", path)
	c.Path, c.ExtraFiles, c.Dir = "/proc/self/fd/3", []*os.File{l.binary}, "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: l.caps}
	return c
}

// check returns what it says.
func (l *lowly) check(config string) (code int, said string) {
	l.t.Helper()
	c := l.command("check", config)
	var out bytes.Buffer
	c.Stderr = &out
	l.there(c.Start)
	timer := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Wait()
	return c.ProcessState.ExitCode(), out.String()
}

// run returns what it ends with by itself, or 0 once it is ready, and what it says.
func (l *lowly) run(config string) (code int, said string) {
	l.t.Helper()
	c := l.command("run", config)
	out, err := c.StderrPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	l.there(c.Start)
	timer := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	for s := bufio.NewScanner(out); s.Scan(); said += s.Text() + "\n" {
		if strings.Contains(s.Text(), "msg=ready") {
			_ = c.Process.Signal(syscall.SIGTERM)
		}
	}
	_ = c.Wait()
	return c.ProcessState.ExitCode(), said
}

// TestCheckPorts: a port that run may not bind is told by check, and only then.
func TestCheckPorts(t *testing.T) {
	l := newLowly(t)
	config := func(bind, more string) string {
		return "[log]\nlevel = \"info\"\n[admin]\nbind = \"\"\n" + more + "[frontends.f]\n" + bind + "\npool = \"p\"\n[pools.p]\nbackends = [{ address = \"192.0.2.1:80\" }]\n"
	}
	const (
		v4, v6, high = `bind = ["0.0.0.0:1024-1026", "0.0.0.0:1021-1023"]`, `bind = ["[::]:443"]`, `bind = ["0.0.0.0:1024", "[::]:0", "0.0.0.0:0"]`
		udp          = `bind = ["0.0.0.0:53"]` + "\nprotocol = \"udp\""
		hint         = ": bind: permission denied (a port below %d needs root or CAP_NET_BIND_SERVICE)\n"
	)
	f := func(what, text, want string) {
		t.Helper()
		code, said := l.check(text)
		if want == "" {
			if code != 0 {
				t.Errorf("%s: check ends with %d: %s", what, code, said)
			}
		} else if code != 1 || !strings.Contains(said, "awe4lb.toml:"+want) || !strings.Contains(said, ": 1 problem\n") {
			t.Errorf("%s: check ends with %d: %s; want %q", what, code, said, want)
		}
		if code, said := l.run(text); (code != 0) != (want != "") {
			t.Errorf("%s: run ends with %d: %s", what, code, said)
		}
	}
	below := func(n int) string { return fmt.Sprintf(hint, n) }
	f("a range", config(v4, ""), "6: frontends.f.bind[1]: 0.0.0.0:1021"+below(1024))
	f("IPv6", config(v6, ""), "6: frontends.f.bind[0]: [::]:443"+below(1024))
	f("udp", config(udp, ""), "6: frontends.f.bind[0]: 0.0.0.0:53"+below(1024))
	f("nothing low", config(high, ""), "")
	f("the admin", strings.Replace(config(high, ""), `bind = ""`, `bind = "0.0.0.0:99"`+"\n"+`tokens.x = { token = "0123456789abcdef", role = "read" }`, 1), "4: admin.bind: 0.0.0.0:99"+below(1024))

	l.caps = []uintptr{10} // CAP_NET_BIND_SERVICE
	for _, bind := range []string{v4, v6, udp} {
		f("with the capability", config(bind, ""), "")
	}
	l.caps = nil
	l.there(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("443"), 0o644)
	})
	for _, bind := range []string{v4, v6} {
		f("with a lower limit", config(bind, ""), "")
	}
	f("below the lower limit", config(udp, ""), "6: frontends.f.bind[0]: 0.0.0.0:53"+below(443))
	l.there(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("1100"), 0o644)
	})
	f("with a higher limit", config(`bind = ["0.0.0.0:1099"]`, ""), "6: frontends.f.bind[0]: 0.0.0.0:1099"+below(1100))

	// Where the file says who to become, root is to start it.
	if code, said := l.check(config(v6, "[engine]\nuser = \"nobody\"\n")); code != 0 {
		t.Errorf("with engine.user: check ends with %d: %s", code, said)
	}
}
