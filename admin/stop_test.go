package admin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// halfSent connects to the admin, sends half of a request, and waits until it has arrived.
func (r *rig) halfSent() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.s.Address())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: loc"); err != nil {
		r.t.Fatal(err)
	}
	lbtest.Eventually(r.t, "the connection is being read", func() bool {
		r.s.clients.mu.Lock()
		defer r.s.clients.mu.Unlock()
		return len(r.s.clients.open) == 1
	})
	return c
}

// stopped has the admin stop and returns a channel that is closed when it has.
func (r *rig) stopped(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		r.s.Stop(ctx)
		close(done)
	}()
	return done
}

// TestStopDoesNotWaitForHalfARequest: the process would wait for readTimeout, ten seconds.
func TestStopDoesNotWaitForHalfARequest(t *testing.T) {
	r := newRig(t)
	c := r.halfSent()
	select {
	case <-r.stopped(context.Background()):
	case <-time.After(readTimeout / 2):
		t.Fatal("still waiting")
	}
	_ = c.SetDeadline(time.Now().Add(readTimeout / 2))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("got %v; want the end of the connection", err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// TestStopAtOnce: when ctx is done nothing is waited for.
func TestStopAtOnce(t *testing.T) {
	r := newRig(t)
	r.s.grace = time.Hour
	r.halfSent()
	ctx, cancel := context.WithCancel(context.Background())
	done := r.stopped(ctx)
	lbtest.Eventually(t, "no longer listening", func() bool {
		c, err := net.Dial("tcp", r.s.Address())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case <-done:
		t.Fatal("did not wait for the request at hand")
	default:
	}
	cancel()
	select {
	case <-done:
	case <-time.After(readTimeout / 2):
		t.Fatal("still waiting")
	}
}

// TestStopAnswersWhatIsAtWork: a request that is being worked on gets its answer.
func TestStopAnswersWhatIsAtWork(t *testing.T) {
	r := newRig(t)
	r.s.grace = time.Hour
	working, finish := make(chan struct{}), make(chan struct{})
	r.reload = func() (*balancer.Report, error) {
		close(working)
		<-finish
		return &balancer.Report{Version: 7}, nil
	}
	c, err := net.Dial("tcp", r.s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-working
	done := r.stopped(context.Background())
	close(finish)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("got %v, %v", res, err)
	}
	<-done
}

// TestStopRightAfterStart, when nobody may have begun to accept yet.
func TestStopRightAfterStart(t *testing.T) {
	r := newRig(t)
	for range 200 {
		s, err := Start(open(config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}), r.s.o)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			s.Stop(context.Background())
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("does not stop")
		}
	}
}
