package engine

import (
	"io"
	"net"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestFirstByte: a backend's first answer is timed from the client's first byte, or from connected where the backend speaks
// first, once a session; a session without an answer is none.
func TestFirstByte(t *testing.T) {
	const slow = 60 * time.Millisecond
	ready := make(chan bool, 1)
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		for {
			ready <- true
			if _, err := c.Read(b); err != nil {
				return
			}
			if b[0] == 'q' {
				return
			}
			time.Sleep(slow) // a slow backend is what is measured
			_, _ = c.Write(b)
		}
	})
	r := newRig(t, []string{backend}, nil)
	stats := func() *BackendStats { return r.e.Stats().Backends[r.d.Snapshot().Pools[0].Members[0].Backend] }
	total := func() (n uint64) {
		if st := stats(); st != nil {
			for _, c := range st.FirstByte.Counts {
				n += c
			}
		}
		return n
	}

	c := r.dial()
	<-ready
	for range 2 { // the second answer is not a first one
		if _, err := io.WriteString(c, "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		<-ready
	}
	c.Close()
	if n, sum := total(), stats().FirstByte.Sum; n != 1 || sum < slow.Seconds() || sum > 10 {
		t.Errorf("%d first bytes in %v s; want 1 and at least %v", n, sum, slow)
	}

	mute := r.dial()
	<-ready
	if _, err := io.WriteString(mute, "q"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(mute); err != nil {
		t.Fatal(err)
	}
	mute.Close()
	lbtest.Eventually(t, "the session ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	if n := total(); n != 1 {
		t.Errorf("%d first bytes after a session without an answer; want 1", n)
	}
}

// TestFirstByteOfGreeting: the backend speaks first.
func TestFirstByteOfGreeting(t *testing.T) {
	r := newRig(t, []string{lbtest.Named(t, "hello")}, nil)
	c := r.dial()
	hear(t, c, "hello")
	c.Close()
	b := r.d.Snapshot().Pools[0].Members[0].Backend
	if n := r.e.Stats().Backends[b].FirstByte; n.Sum <= 0 || n.Sum > 5 {
		t.Errorf("%v s to the first byte", n.Sum)
	}
}
