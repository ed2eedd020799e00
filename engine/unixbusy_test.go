package engine

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// busyUnix returns the address of a unix socket whose accept queue is full, and a function that takes clients out of it.
func busyUnix(t *testing.T) (address string, serve func(handle func(net.Conn))) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "busy")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // the one place there is
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { c.Close(); f.Close() })
	return "unix:" + path, func(handle func(net.Conn)) {
		t.Helper()
		if err := syscall.Listen(fd, 100); err != nil {
			t.Fatal(err)
		}
		l, err := net.FileListener(f) // of a duplicate
		if err != nil {
			t.Fatal(err)
		}
		lbtest.ServeOn(t, l, handle)
	}
}

// TestBusyUnixBackend: connect(2) to a unix socket with a full queue says EAGAIN and tells nobody when there is room, so
// that it is asked again. The session waits for the room, its first words with it.
func TestBusyUnixBackend(t *testing.T) {
	address, serve := busyUnix(t)
	r := newRig(t, []string{address}, func(c *config.Config) { c.Pools[0].ConnectTimeout = time.Minute })
	c := r.dial()
	say(t, c, "patience")
	lbtest.Eventually(t, "it waits", func() bool { return r.inState(connecting) == 1 })
	serve(func(b net.Conn) {
		if _, err := io.ReadFull(b, make([]byte, len("patience"))); err == nil {
			_, _ = b.Write([]byte("at last"))
		}
	})
	hearEnd(t, c, "at last")
	c.Close()
	rec := r.wantEnds(BackendEOF)[0]
	if rec.Attempts != 1 {
		t.Errorf("%d attempts, want 1: it is the same one", rec.Attempts)
	}
}

// TestBusyUnixBackendTimesOut: after connect_timeout it counts as not answering, and the next backend gets the client.
func TestBusyUnixBackendTimesOut(t *testing.T) {
	address, _ := busyUnix(t)
	r := newRig(t, []string{address, lbtest.Named(t, "the next")}, func(c *config.Config) {
		c.Pools[0].ConnectTimeout = 200 * time.Millisecond
		c.Pools[0].Backends[1].Priority = 1
	})
	c := r.dial()
	hearEnd(t, c, "the next")
	c.Close()
	r.wantEnds(BackendEOF)
	first := r.d.Snapshot().Pools[0].Members[0].Backend
	if n := r.e.Stats().Backends[first].ConnectErrors[ConnectTimeout]; n != 1 {
		t.Errorf("%d timeouts counted, want 1", n)
	}
}
