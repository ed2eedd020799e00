package admin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"awe4lb/config"
)

// TestUnixBindLeavesFilesAlone: only a socket that nobody listens on makes way.
func TestUnixBindLeavesFilesAlone(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "precious")
	write := func() {
		t.Helper()
		if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantFile := func(when string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
			t.Fatalf("%s the file is %q, %v", when, b, err)
		}
	}
	write()
	_, err := Start(open(config.Address{Path: path}), r.s.o)
	if err == nil || !strings.Contains(err.Error(), "admin.bind: a regular file is in the way at "+path) {
		t.Errorf("got %v", err)
	}
	wantFile("after the start")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s, err := Start(open(config.Address{Path: path}), r.s.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write()
	s.Stop(context.Background())
	wantFile("after the stop")
}

// TestUnixBindLeavesBusySocketsAlone: a listener whose queue is full is no less a listener.
func TestUnixBindLeavesBusySocketsAlone(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "busy.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // the one place in its queue
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := Start(open(config.Address{Path: path}), r.s.o); err == nil {
		s.Stop(context.Background())
		t.Error("the socket was taken over")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}
