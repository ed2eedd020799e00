package health

import "time"

// maxEvents bounds the history.
const maxEvents = 1000

// Event is a change of state that has happened.
type Event struct {
	Time    time.Time
	Pool    string
	Backend string // its address
	Up      bool
	Why     string
	After   time.Duration // how long the state before had lasted
}

// history keeps the last events in a ring. Guarded by Prober.mu.
type history struct {
	ring []Event
	next int // where the next one goes once the ring is full
}

func (h *history) add(e Event) {
	if len(h.ring) < maxEvents {
		h.ring = append(h.ring, e)
		return
	}
	h.ring[h.next] = e
	h.next = (h.next + 1) % maxEvents
}

// newest returns the events, the newest first.
func (h *history) newest() []Event {
	all := make([]Event, 0, len(h.ring))
	for i := range h.ring {
		all = append(all, h.ring[(h.next+len(h.ring)-1-i)%len(h.ring)])
	}
	return all
}
