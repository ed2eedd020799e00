package engine

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestAcceptBudget: a listener with a long queue takes so many clients at an event and then leaves the shard to others.
func TestAcceptBudget(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.Echo(t)}, nil)
	sh, address := r.e.shards[0], r.address()
	queued, done := make(chan struct{}), make(chan struct{})
	let := sync.OnceFunc(func() { close(queued) })
	t.Cleanup(let)
	sh.loop.Post(func() { // a pause would be over before all are there, on a busy machine
		defer close(done)
		<-queued
		for i := range 3 {
			before := sh.open
			sh.listeners[0].Ready(0, 0)
			if n := sh.open - before; n != acceptBudget {
				t.Errorf("event %d: %d clients taken, want %d", i, n, acceptBudget)
			}
		}
	})
	clients := queue(t, "tcp", address, 3*acceptBudget+8) // the last ones may not be in the queue yet when they are connected
	let()
	<-done
	serveAll(t, clients)
}

// TestPumpBudget: a client that sends as fast as it can moves so many bytes at an event, and then it is others' turn.
func TestPumpBudget(t *testing.T) {
	for _, splice := range []bool{false, true} {
		t.Run(fmt.Sprint("splice ", splice), func(t *testing.T) {
			r := newRigOf(t, 1, []string{lbtest.Serve(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })},
				func(c *config.Config) { c.Engine.Splice = splice })
			c := r.dial()
			go func() {
				b := make([]byte, 1<<20)
				for {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
			lbtest.Eventually(t, "bytes flow", func() bool { return r.e.Stats().Frontends["f"].Bytes[ToBackend] > 8<<20 })
			most := uint64(0)
			for end := time.Now().Add(10 * time.Second); most < pumpBudget && time.Now().Before(end); {
				r.only(func(s *session) { // an event
					before := s.backend.sent
					s.client.readable = true
					s.relay(&s.client)
					most = max(most, s.backend.sent-before)
				})
			}
			c.Close()
			if most > pumpBudget+256<<10 { // what was begun is finished: a buffer
				t.Errorf("%d bytes at one event; the budget is %d", most, pumpBudget)
			}
			t.Logf("at most %d bytes at an event", most)
		})
	}
}
