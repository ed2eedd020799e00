package balancer

import "time"

// Slow start: a backend that comes, or comes back, begins with a tenth of its weight and has all of it after
// config.Pool.SlowStart.
//
// The weight of the moment is worked out by the pick from the time at which the ramp began. The other way, a snapshot for
// every step, would build a pool of a thousand 20 times for each backend that comes up, and tables cannot follow smoothly.
// Here a pool without slow start pays nothing, one with it an atomic load per member looked at, and only a ramp that is
// under way a reading of the clock (30-50 ns).

// whole is the part of its weight that a backend without slow start has: parts are counted in 1/256.
const whole = 256

// least is the part with which it begins.
const least = whole/10 + 1

var epoch = time.Now()

// clock returns the time since the process began, in nanoseconds, by the monotonic clock.
func clock() int64 { return int64(time.Since(epoch)) }

// startSlow begins a ramp.
func (b *Backend) startSlow() { b.ramp.Store(clock()) }

// part returns which part of its weight m has now, in 1/256; slow is the time of a ramp in nanoseconds, 0 for none.
func (m *Member) part(slow int64) int64 {
	if slow == 0 {
		return whole
	}
	began := m.ramp.Load()
	if began == 0 {
		return whole
	}
	passed := clock() - began
	if passed >= slow {
		m.ramp.CompareAndSwap(began, 0)
		return whole
	}
	return max(passed*whole/slow, least)
}

// turnsAway reports whether m, drawn in proportion to its whole weight, is to give way because it has only a part of it.
// x is random.
func (m *Member) turnsAway(slow int64, x uint64) bool {
	part := m.part(slow)
	return part < whole && int64(x%whole) >= part
}

// startSlow begins the ramps of the backends that a pool has and had not before, or had with weight 0. In a pool that is new,
// or had no backend, all of them are, so that none has a start over the others.
func startSlow(was, p *Pool) {
	if was == nil || len(was.Members) == 0 || p.Config.SlowStart == 0 {
		return
	}
	for _, m := range p.Members {
		if old := was.members[m.Address]; m.Weight() > 0 && (old == nil || old.Backend != m.Backend || old.Weight() == 0) {
			m.startSlow()
		}
	}
}
