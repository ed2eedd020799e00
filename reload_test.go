package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// descriptors returns the number of open descriptors of the process.
func (in *instance) descriptors() int {
	in.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", in.cmd.Process.Pid))
	if err != nil {
		in.t.Fatal(err)
	}
	return len(names)
}

// TestRefusedReloadsLeaveNothingOpen: log files that a reload has opened are closed when the reload is refused.
func TestRefusedReloadsLeaveNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	logs := filepath.Join(t.TempDir(), "own.log")
	text := toml(lbtest.Refused(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	in.write(fmt.Sprintf("[log]\noutput = %q\naccess = { output = %q }\n", logs, logs+".access") +
		strings.Replace(text, "127.0.0.1:0\"]", taken.Addr().String()+"\"]", 1))
	refuse := func() {
		if code, body := get(t, "POST", url+"/api/v1/reload"); code != 409 {
			t.Fatalf("%d %s; want 409", code, body)
		}
	}
	refuse() // the first opens what the admin needs too
	before := in.descriptors()
	for range 10 {
		refuse()
	}
	if n := in.descriptors(); n > before {
		t.Errorf("%d descriptors, were %d", n, before)
	}
}

// TestStatusDuringAReload: the admin answers while a reload takes its time.
func TestStatusDuringAReload(t *testing.T) {
	text := toml(lbtest.Echo(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	finish := in.stuckReload(func() { in.signal(syscall.SIGHUP) })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for _, path := range []string{"/api/v1/status", "/metrics", "/healthz"} {
			if code, body := get(t, "GET", url+path); code != 200 {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
	}()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		t.Error("no answer while a reload is at work")
	}
	finish(text)
	<-answered
	in.wantLog("msg=reloaded")
	if _, m := get(t, "GET", url+"/metrics"); !strings.Contains(m, `awe4lb_config_reloads_total{result="ok"} 1`) {
		t.Error("the reload was not counted")
	}
}

// TestReloadWhileDraining is refused, and nobody but the caller hears of it: neither the log nor systemd, to which READY
// after STOPPING would mean a service that goes on.
func TestReloadWhileDraining(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	in := startInstance(t, toml(lbtest.Echo(t), admin0), "NOTIFY_SOCKET="+path)
	url := in.adminURL()
	c := dial(t, in.address("f"))
	ask(t, c, "open")
	in.signal(syscall.SIGTERM)
	in.wantLog("msg=\"draining")
	code, body := get(t, "POST", url+"/api/v1/reload")
	if code != 409 || !strings.Contains(body, "draining") {
		t.Errorf("%d %s; want 409", code, body)
	}
	if _, m := get(t, "GET", url+"/metrics"); !strings.Contains(m, `awe4lb_config_reloads_total{result="failed"} 0`) ||
		!strings.Contains(m, "awe4lb_config_last_reload_success 1") {
		t.Error("counted as a failed reload")
	}
	c.Close()
	in.wantExit(0)
	if strings.Contains(in.log(), "level=ERROR") {
		t.Error("logged as an error")
	}
	var heard []string
	b := make([]byte, 4096)
	_ = manager.SetReadDeadline(time.Now().Add(time.Second)) // all of it is there: the process has ended
	for len(heard) < 9 {
		n, err := manager.Read(b)
		if err != nil {
			break
		}
		heard = append(heard, string(b[:n]))
		if heard[len(heard)-1] == "STOPPING=1" {
			_ = manager.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
	}
	if want := []string{"READY=1", "STOPPING=1"}; !slices.Equal(heard, want) {
		t.Errorf("systemd heard %q; want %q", heard, want)
	}
}

// TestReloadAnswersOfTheHost: what this host does not have is a conflict, and what it does not let us open cannot be
// processed; neither is a fault of the server.
func TestReloadAnswersOfTheHost(t *testing.T) {
	text := toml(lbtest.Refused(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	for _, tc := range []struct {
		text string
		code int
		want string
	}{
		{text + "source = [\"192.0.2.1\"]\n", 409, "pools.p.source[0]: 192.0.2.1: "},
		{strings.Replace(text, "address = ", "address = \"[fe80::1%nowhere]:1\" }, { address = ", 1), 409, `pools.p.backends[0].address: [fe80::1%nowhere]:1: no interface`},
		{"[log]\noutput = \"/nonexistent/x.log\"\n" + text, 422, "awe4lb.toml:2: log.output: open /nonexistent/x.log: no such file or directory"},
		{"[log.access]\noutput = \"/nonexistent/y.log\"\n" + text, 422, "awe4lb.toml:2: log.access.output: open /nonexistent/y.log: no such file or directory"},
	} {
		in.write(tc.text)
		var p struct {
			Status int
			Detail string
		}
		code, body := get(t, "POST", url+"/api/v1/reload")
		if err := json.Unmarshal([]byte(body), &p); err != nil || code != tc.code || p.Status != code ||
			!strings.Contains(p.Detail, tc.want) || !strings.HasSuffix(p.Detail, "; the running configuration stays") {
			t.Errorf("%d %s; want %d and %s", code, body, tc.code, tc.want)
		}
	}
}

// TestReloadsUnderTraffic reloads a process a hundred times by SIGHUP, with backends, policy and a log file changing,
// while clients come and go. No request fails, the one connection that lives through all of it is not disturbed, and the
// process has as many descriptors as before.
func TestReloadsUnderTraffic(t *testing.T) {
	const reloads = 100
	backends := []string{lbtest.Echo(t), lbtest.Echo(t)}
	dir := t.TempDir()
	text := func(i int) string {
		return fmt.Sprintf("[log.access]\noutput = %q\n", filepath.Join(dir, fmt.Sprint("access.", i%3))) +
			toml(backends[i%2], admin0) + fmt.Sprintf("policy = %q\n", []string{"random", "roundrobin", "leastconn"}[i%3])
	}
	in := startInstance(t, text(0))
	address, url := in.address("f"), in.adminURL()
	long := dial(t, address)
	ask(t, long, "begin")
	get(t, "GET", url+"/metrics") // its connection stays open
	before := in.descriptors()

	stop := make(chan struct{})
	var served atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.WriteString(c, "question")
				_ = c.(*net.TCPConn).CloseWrite()
				if b, err := io.ReadAll(c); err != nil || string(b) != "question" {
					t.Errorf("got %q, %v", b, err)
				}
				c.Close()
				served.Add(1)
			}
		})
	}
	for i := 1; i <= reloads && !t.Failed(); i++ {
		n := served.Load()
		in.write(text(i))
		in.signal(syscall.SIGHUP)
		in.wantLog(fmt.Sprintf("msg=reloaded .*config_version=%d ", i+1))
		lbtest.Eventually(t, "traffic after a reload", func() bool { return served.Load() > n })
		ask(t, long, "still here")
	}
	close(stop)
	clients.Wait()
	_, m := get(t, "GET", url+"/metrics")
	for _, want := range []string{fmt.Sprintf(`awe4lb_config_reloads_total{result="ok"} %d`, reloads), `awe4lb_config_reloads_total{result="failed"} 0`,
		fmt.Sprintf(`awe4lb_server_connections_total{server="f",protocol="tcp"} %d`, served.Load()+1)} {
		if !strings.Contains(m, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	lbtest.Eventually(t, "as many descriptors as before", func() bool { return in.descriptors() <= before })
	lines := 0
	long.Close()
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
	for i := range 3 {
		b, _ := os.ReadFile(filepath.Join(dir, fmt.Sprint("access.", i)))
		lines += strings.Count(string(b), "reason=client_eof")
	}
	if lines != int(served.Load())+1 {
		t.Errorf("%d lines in the access logs of %d sessions", lines, served.Load()+1)
	}
}
