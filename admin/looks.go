package admin

import (
	"sync"
	"time"

	"awe4lb/engine"
)

// looks are the counters that answers are made of. Each answer has its own, of now; but when many ask, they share what one of
// them was told, since each look costs every shard a visit. What state a backend is in is always of now. Guarded by mu.
type looks struct {
	mu   sync.Mutex
	last *engine.Stats
	at   time.Time // of last
	paid time.Time // when all looks so far would have been taken, at lookEvery
}

const (
	lookEvery  = time.Second / 20       // more looks than that are shared,
	lookBurst  = time.Second            // once those of so long are used up;
	lookShared = 100 * time.Millisecond // counters may be as old as that then
)

// take returns the counters for an answer at now; look gets them.
func (l *looks) take(now time.Time, look func() *engine.Stats) *engine.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paid.Before(now) {
		l.paid = now
	}
	crowded := l.paid.Sub(now) >= lookBurst
	if crowded && now.Sub(l.at) < lookShared {
		return l.last
	}
	if !crowded {
		l.paid = l.paid.Add(lookEvery)
	}
	l.last, l.at = look(), now
	return l.last
}
