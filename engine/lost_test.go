package engine

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestLostHosts has an end that takes nothing for user_timeout: to the kernel a window that stays shut is no different
// from a host that is gone, and it ends both with ETIMEDOUT. The other end is reset, and the reason says who was lost.
func TestLostHosts(t *testing.T) {
	const timeout = 300 * time.Millisecond
	const much = 64 << 20 // more than all buffers on the way hold
	t.Run("client", func(t *testing.T) {
		failed := make(chan error, 1)
		r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
			_, err := io.Copy(c, lbtest.NewStream(1, much))
			failed <- err
		})}, func(c *config.Config) { c.Frontends[0].TCP.UserTimeout = timeout })
		r.dial()
		r.wantEnds(ClientLost)
		if err := <-failed; !isReset(err) {
			t.Errorf("the backend got %v; want a reset", err)
		}
	})
	t.Run("backend", func(t *testing.T) {
		done := make(chan struct{}) // nobody resets a connection that timed out: it stays with the backend
		defer close(done)
		r := newRig(t, []string{lbtest.Serve(t, func(*net.TCPConn) { <-done })},
			func(c *config.Config) { c.Pools[0].TCP.UserTimeout = timeout })
		c := r.dial()
		_, err := io.Copy(c, lbtest.NewStream(1, much))
		r.wantEnds(BackendLost)
		if !isReset(err) {
			t.Errorf("the client got %v; want a reset", err)
		}
	})
}

// TestFaults names the errors that mean a host is lost, and some that do not.
func TestFaults(t *testing.T) {
	for errno, lost := range faults {
		for _, kind := range []uint8{ToClient, ToBackend} {
			s := &session{prelude: &nothing, state: open, fault: none}
			s.noteFault(&side{s: s, kind: kind}, errno)
			want := map[bool][2]Reason{true: {ClientLost, BackendLost}, false: {ClientRST, BackendRST}}[lost][kind]
			if s.fault != want {
				t.Errorf("%v on side %d: %v, want %v", errno, kind, s.fault, want)
			}
			s.noteFault(&side{s: s, kind: 1 - kind}, errno)
			if s.fault != want {
				t.Errorf("%v: the consequence took the cause's place", errno)
			}
		}
	}
}

var faults = map[syscall.Errno]bool{
	syscall.ETIMEDOUT: true, syscall.EHOSTUNREACH: true, syscall.ENETUNREACH: true, syscall.EHOSTDOWN: true,
	syscall.ENETDOWN: true, syscall.ECONNRESET: false, syscall.EPIPE: false,
}
