package admin

import (
	"sync"
	"time"

	"awe4lb/engine"
)

// How the API keeps out of the way of traffic when many ask: decision 0078.

// crowd tells whether calls of many clients come faster than crowdEvery. One who asks again and again is none: it waits for each
// answer, and may compare them. Guarded by mu.
type crowd struct {
	mu   sync.Mutex
	last uint64    // the connection of the last call
	paid time.Time // when all calls so far would have come, at crowdEvery
}

const (
	crowdEvery = time.Second / 20       // calls that come faster than that,
	crowdBurst = time.Second            // once those of so long are used up, are a crowd,
	crowdStays = 2 * time.Second        // and for up to a second after it has gone
	lookShared = 100 * time.Millisecond // as old may the counters be that a crowd is told
	breath     = 200 * time.Microsecond // between the parts of the work for one of a crowd
)

// comes counts a call on a connection.
func (c *crowd) comes(now time.Time, connection uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == connection {
		return
	}
	c.last = connection
	if c.paid.Before(now) {
		c.paid = now
	}
	if next := c.paid.Add(crowdEvery); next.Sub(now) <= crowdStays {
		c.paid = next
	}
}

func (c *crowd) is(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paid.Sub(now) >= crowdBurst
}

// breathe lets go of the processor for a moment when there is a crowd: whoever woke up meanwhile to move data has its turn. What
// one call takes of a processor at once is what the slowest of a hundred clients waits for.
func (s *Server) breathe() {
	if s.crowd.is(time.Now()) {
		time.Sleep(breath)
	}
}

// looks are the counters that answers are made of. Each answer has its own, of now; a crowd shares what one of it was told, since
// each look costs every shard a visit. What state a backend is in is always of now. Guarded by mu.
type looks struct {
	mu   sync.Mutex
	last *engine.Stats
	at   time.Time // of last
}

// take returns the counters for an answer at now; look gets them.
func (l *looks) take(now time.Time, crowded bool, look func() *engine.Stats) *engine.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !crowded || now.Sub(l.at) >= lookShared {
		l.last, l.at = look(), now
	}
	return l.last
}
