package health

import "time"

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
