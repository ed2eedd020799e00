//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// find returns the path of a program, which may be in a directory that only root has in PATH, or fails the test.
func find(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/sbin/", "/sbin/", "/usr/lib/postgresql/*/bin/"} {
		if paths, _ := filepath.Glob(pattern + name); len(paths) > 0 {
			return paths[len(paths)-1] // of several PostgreSQLs the newest
		}
	}
	t.Fatalf("%s is not installed: run `make deps`", name)
	return ""
}

// program is a process that runs beside the test.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *output       // what it said, stdout and stderr
	done chan struct{} // closed when it has ended
	err  error         // of Wait; valid once done is closed
}

// launch starts a program that runs until the test ends it, or ends with the test. edit, if not nil, may change the
// command first.
func launch(t *testing.T, edit func(*exec.Cmd), name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(find(t, name), args...), out: new(output), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = 2 * time.Second // for grandchildren that hold its output open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if edit != nil {
		edit(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(p.cmd.Args, " "), p.out)
		}
	})
	return p
}

// ended reports whether the program has ended.
func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *program) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// end ends the program, if need be by force after ten seconds, and waits until it is gone.
func (p *program) end(s syscall.Signal) {
	p.signal(s)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// waitFor waits until ok, and fails the test when the program ends before.
func (p *program) waitFor(what string, ok func() bool) {
	p.t.Helper()
	lbtest.EventuallyIn(p.t, 30*time.Second, what, func() bool {
		if p.ended() {
			p.t.Fatalf("%s ended before: %s: %v\n%s", p.cmd.Path, what, p.err, p.out)
		}
		return ok()
	})
}

// output is a buffer that one goroutine writes and another reads.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) has(s string) bool { return strings.Contains(o.String(), s) }

// run runs a command to its end and returns its standard output. It fails the test when the exit code is not 0 or two
// minutes are over.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, code := runWith(t, nil, name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d", name, strings.Join(args, " "), code)
	}
	return out
}

// runWith is run with a standard input, and with any exit code.
func runWith(t *testing.T, stdin io.Reader, name string, args ...string) (stdout string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, find(t, name), args...)
	cmd.WaitDelay = 2 * time.Second
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = stdin, &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		t.Fatalf("%s %s: not within two minutes\n%s%s", name, strings.Join(args, " "), out, &stderr)
	}
	if err != nil {
		t.Logf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// local is a port of 127.0.0.1.
func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// listens reports whether somebody accepts connections at address.
func listens(address string) bool {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// openDir makes a directory below /tmp that every user can enter, for programs that run as a user of their own. Its path
// is short enough for unix sockets.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "awe4lb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// write writes a file that everybody may read and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// sample writes a file of n bytes that depend on their position and returns its path.
func sample(t *testing.T, dir, name string, n int64) string {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, lbtest.NewStream(uint64(n), n))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// needRoot fails the test for other users.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatalf("run as root: %s", why)
	}
}
