package engine

import (
	"io"
	"net"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestNothingIsHeldBack has one end send two bytes, one by one, before the other answers. Nagle's algorithm would hold the
// second back until the first is acknowledged, and who is about to answer delays that by 40 ms.
func TestNothingIsHeldBack(t *testing.T) {
	const rounds, most = 200, 4 * time.Second // 8 s if they were held back
	backend := make(chan *net.TCPConn)
	done := make(chan struct{})
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		backend <- c
		<-done
	})}, nil)
	c := r.dial()
	say(t, c, "x")
	b := <-backend
	hear(t, b, "x")
	defer close(done)
	for _, way := range []struct {
		name     string
		from, to io.ReadWriter
	}{{"c2b", c, b}, {"b2c", b, c}} {
		begun := time.Now()
		for range rounds {
			say(t, way.from, "1")
			hear(t, way.to, "1")
			say(t, way.from, "2")
			hear(t, way.to, "2")
			say(t, way.to, "answer")
			hear(t, way.from, "answer")
		}
		if took := time.Since(begun); took > most {
			t.Errorf("%s: %d rounds took %v, want less than %v", way.name, rounds, took, most)
		}
	}
}
