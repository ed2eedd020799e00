package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// delivered waits until the process has taken every signal sent so far.
func (in *instance) delivered() {
	in.t.Helper()
	lbtest.Eventually(in.t, "signals delivered", func() bool {
		f, err := os.Open(fmt.Sprintf("/proc/%d/status", in.cmd.Process.Pid))
		if err != nil {
			in.t.Fatal(err)
		}
		defer f.Close()
		pending := uint64(0)
		for s := bufio.NewScanner(f); s.Scan(); {
			for _, field := range []string{"SigPnd:", "ShdPnd:"} {
				if hex, ok := strings.CutPrefix(s.Text(), field); ok {
					n, _ := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
					pending |= n
				}
			}
		}
		return pending == 0
	})
}

// stuckReload replaces the configuration by a named pipe and has the process reload, which then waits for somebody to
// write into it. finish puts text in the place of the pipe and lets the reload read it.
func (in *instance) stuckReload(start func()) (finish func(text string)) {
	in.t.Helper()
	fifo := in.path + ".fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		in.t.Fatal(err)
	}
	if err := os.Rename(fifo, in.path); err != nil {
		in.t.Fatal(err)
	}
	start()
	var w *os.File
	lbtest.Eventually(in.t, "the reload opens the configuration", func() bool {
		// Without a reader the open fails.
		fd, err := syscall.Open(in.path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		w = os.NewFile(uintptr(fd), in.path)
		return true
	})
	in.t.Cleanup(func() { w.Close() })
	return func(text string) {
		in.t.Helper()
		if err := os.Remove(in.path); err != nil {
			in.t.Fatal(err)
		}
		in.write(text)
		if _, err := io.WriteString(w, text); err != nil {
			in.t.Fatal(err)
		}
		w.Close()
	}
}

// TestTermIsNotLostBehindHups has a reload take long while orders to reload pour in; then comes the order to end.
func TestTermIsNotLostBehindHups(t *testing.T) {
	text := toml(lbtest.Echo(t), "[admin]\nbind = \"\"\n")
	in := startInstance(t, text)
	finish := in.stuckReload(func() { in.signal(syscall.SIGHUP) })
	for range 40 {
		in.signal(syscall.SIGHUP)
		in.delivered()
	}
	in.signal(syscall.SIGTERM)
	in.delivered()
	finish(text)
	in.wantExit(0)
	if n := strings.Count(in.log(), "msg=reloaded"); n < 1 || n > 2 {
		t.Errorf("%d reloads; want one, and at most one more for the 40 signals meanwhile", n)
	}
}

// TestTermWithHalfARequest: the process does not wait for what a client of the admin leaves half sent.
func TestTermWithHalfARequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	in := startInstance(t, toml(lbtest.Echo(t), fmt.Sprintf("[admin]\nbind = \"unix:%s\"\n", path)))
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHo"); err != nil {
		t.Fatal(err)
	}
	in.signal(syscall.SIGTERM)
	select {
	case <-in.ended:
	case <-time.After(8 * time.Second):
		t.Error("still running")
	}
	in.wantExit(0)
}
