package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// leastBandwidth takes the member with the fewest bytes a second for its weight, both directions together. Ties go round.
//
// Rates are measured once a second, from counters that the shards keep anyway (Pool.Measure): the data path pays nothing for
// it. Between two measurements a session that came is taken for an average one, and one that went too, so that a burst does
// not pile onto the backend that was the least a moment ago.
type leastBandwidth struct {
	members []*Member
	inverse []float64 // of weights
	live    *poolLive
	slow    int64 // see Member.part
}

func newLeastBandwidth(members []*Member, live *poolLive, slow int64) *leastBandwidth {
	p := &leastBandwidth{members: members, live: live, slow: slow}
	for _, m := range members {
		p.inverse = append(p.inverse, 1/float64(m.weight))
	}
	return p
}

// bandwidth is what is known of a backend's bytes.
type bandwidth struct {
	// Owned by whoever calls Measure.
	counted uint64 // bytes when last measured
	known   bool   // they were

	// Shared: atomics.
	rate     atomic.Uint64 // float64 bytes a second, an average
	sessions atomic.Int64  // active when last measured
}

// Rates are averages (EWMA) with a time constant of BandwidthWindow over measurements BandwidthInterval apart.
const (
	BandwidthInterval = time.Second
	BandwidthWindow   = 5 * time.Second
)

// pick looks at every member.
//
// A load is the rate of a member for its weight. Every session counts a byte a second besides, the one to come included: a pool
// that moves nothing is shared by sessions.
func (p *leastBandwidth) pick(w wish) *Member {
	each := math.Float64frombits(p.live.eachRate.Load())
	n := len(p.members)
	start := int(p.live.turn.Add(1) % uint64(n))
	var best *Member
	load := math.Inf(1)
	for i := range n {
		at := start + i
		if at >= n {
			at -= n
		}
		m := p.members[at]
		active := m.active.Load()
		come := active - m.bandwidth.sessions.Load()
		x := max(math.Float64frombits(m.bandwidth.rate.Load())+float64(come)*each, 0) + float64(active+1)
		x *= p.inverse[at]
		if part := m.part(p.slow); part < whole {
			x *= whole / float64(part)
		}
		if x < load && m.usable(w) {
			best, load = m, x
		}
	}
	return best
}

// Measures reports whether the policy of p wants Measure to be called.
func (p *Pool) Measures() bool { return p.Config.Policy == "leastbandwidth" }

// Measure works out rates anew from the bytes that each backend has moved so far, both directions together; passed is the
// time since it was called last. One goroutine at a time may call it.
func (p *Pool) Measure(bytes func(*Backend) uint64, passed time.Duration) {
	keep := math.Exp(-passed.Seconds() / BandwidthWindow.Seconds())
	var all float64
	var sessions int64
	for _, m := range p.Members {
		b := &m.bandwidth
		now := bytes(m.Backend)
		if b.known && now >= b.counted { // else it is new, or its counters are
			rate := math.Float64frombits(b.rate.Load())*keep + float64(now-b.counted)/passed.Seconds()*(1-keep)
			b.rate.Store(math.Float64bits(rate))
			all += rate
		}
		b.counted, b.known = now, true
		active := m.active.Load()
		b.sessions.Store(active)
		sessions += active
	}
	p.live.eachRate.Store(math.Float64bits(all / float64(max(sessions, int64(len(p.Members)), 1))))
}

// Rate returns the bytes a second of b as leastbandwidth measures them; 0 in pools with another policy. Safe from any
// goroutine.
func (b *Backend) Rate() float64 { return math.Float64frombits(b.bandwidth.rate.Load()) }
