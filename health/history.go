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

// maxRecent is how many probes of each backend are remembered.
const maxRecent = 60

// Probe is one probe that has ended.
type Probe struct {
	Time   time.Time // of its end
	Result string    // good, bad or unknown
	Took   time.Duration
}

// recent is a ring of the last probes of a backend. Guarded by Prober.mu.
type recent struct {
	ring []Probe
	next int // where the next one goes once the ring is full
}

func (r *recent) add(p Probe) {
	if len(r.ring) < maxRecent {
		r.ring = append(r.ring, p)
		return
	}
	r.ring[r.next] = p
	r.next = (r.next + 1) % maxRecent
}

// Recent returns the last probes of a backend, the oldest first; none where nothing is checked.
func (p *Prober) Recent(key Key) []Probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backends[key]
	if b == nil {
		return nil
	}
	r := &b.recent
	return append(append([]Probe(nil), r.ring[r.next:]...), r.ring[:r.next]...)
}
