package balancer

import (
	"sync"
	"time"
)

// Event is something that happened to a backend.
type Event struct {
	Time    time.Time
	Pool    string
	Backend string        // its address
	What    string        // health, outlier, order, weight, agent or discovery: what has changed, or who has changed it
	From    string        // before: a state, or a weight
	To      string        // and after
	Why     string        // in words
	By      string        // who asked for it; "" for what nobody did
	After   time.Duration // health: how long the state before had lasted
}

// maxEvents bounds the history.
const maxEvents = 1000

// history keeps the last events in a ring. Safe from any goroutine.
type history struct {
	// Guarded by mu.
	mu   sync.Mutex
	ring []Event
	next int // where the next one goes once the ring is full
}

func (h *history) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < maxEvents {
		h.ring = append(h.ring, e)
		return
	}
	h.ring[h.next] = e
	h.next = (h.next + 1) % maxEvents
}

// newest returns the events, the newest first.
func (h *history) newest() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Event, 0, len(h.ring))
	for i := range h.ring {
		all = append(all, h.ring[(h.next+len(h.ring)-1-i)%len(h.ring)])
	}
	return all
}

// Record puts e into the history, with the time of now unless it has one. Safe from any goroutine; not for shards, as it
// takes a lock.
func (d *Director) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	d.history.add(e)
}

// Events returns the last events, the newest first; a thousand at the most. Safe from any goroutine.
func (d *Director) Events() []Event { return d.history.newest() }
