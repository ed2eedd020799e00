package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// leastTime draws two members by weight and takes the one that promises the shorter wait: its latency, times the sessions
// it has for its weight. A member whose latency nobody knows yet is compared by its sessions alone.
type leastTime struct{ *random }

func (p *leastTime) pick(w wish) *Member {
	a, b := p.two(w, nil)
	if b == nil {
		return a
	}
	now := clock()
	x, y := a.latency(now), b.latency(now)
	if x == 0 || y == 0 {
		x, y = 1, 1
	}
	// One session more than there are, in units of what is drawn by: else the heavier would win every idle pair and be
	// drawn more often besides.
	if y*p.perWeight(b) < x*p.perWeight(a) {
		return b
	}
	return a
}

// perWeight returns 1 + active/weight.
func (p *leastTime) perWeight(m *Member) float64 {
	return 1 + float64(m.active.Load())*whole/float64(m.weight*m.part(p.slow))
}

// latency is an average of times in which a higher one counts at once and a lower one little by little (peak EWMA): who
// becomes slow shall be spared at once and who becomes fast shall prove it. It is forgotten as time goes by, so that a
// backend nobody picks any more is tried again.
//
// One word, so that shards need no lock: float32 seconds above, the time of the last one in ticks of 2^20 ns below.
type latency struct{ atomic.Uint64 }

// latencyWindow is the time constant of the average, and the age at which half of what is known is forgotten.
const latencyWindow = 10 * time.Second

const (
	latencyTick   = 20 // 2^20 ns
	ticksInWindow = float64(latencyWindow>>latencyTick) * 1.0
)

func (l *latency) observe(took time.Duration, now int64) {
	took = max(took, time.Microsecond) // above 0: known
	tick := uint32(now >> latencyTick)
	for range 8 { // as often as others are faster; what is lost then is one sample among many
		old := l.Load()
		mean := took.Seconds()
		if old != 0 {
			was, age := latencyOf(old, tick)
			if mean < was {
				keep := math.Exp(-age / ticksInWindow)
				mean = was*keep + mean*(1-keep)
			}
		}
		if l.CompareAndSwap(old, uint64(math.Float32bits(float32(mean)))<<32|uint64(tick)) {
			return
		}
	}
}

// latencyOf takes a word apart; age is in ticks. After 52 days the ticks begin anew, and what is that old looks younger.
func latencyOf(word uint64, tick uint32) (seconds, age float64) {
	return float64(math.Float32frombits(uint32(word >> 32))), float64(max(int32(tick-uint32(word)), 0))
}

// get returns the latency at a time in seconds, 0 where none is known.
func (l *latency) get(now int64) float64 {
	word := l.Load()
	if word == 0 {
		return 0
	}
	seconds, age := latencyOf(word, uint32(now>>latencyTick))
	return seconds / (1 + age/ticksInWindow)
}

// latency returns the time to connect to b and that to its first answer, together.
func (b *Backend) latency(now int64) float64 {
	connect, answer := b.connect.get(now), b.answer.get(now)
	return connect + answer
}

// Latency returns what leasttime knows of b: the time to connect together with that to the first answer; 0 if nothing. Safe
// from any goroutine.
func (b *Backend) Latency() time.Duration {
	return time.Duration(b.latency(clock()) * float64(time.Second))
}

// Connected notes the time that a connection to b took, or that an attempt to connect was in vain for. Only a pool that
// Times needs it. Safe from any goroutine; never blocks or allocates.
func (b *Backend) Connected(took time.Duration) { b.connect.observe(took, clock()) }

// Answered notes the time from what a client said first to b's first answer. As Connected.
func (b *Backend) Answered(took time.Duration) { b.answer.observe(took, clock()) }

// Times reports whether the policy of p wants to know how long backends take.
func (p *Pool) Times() bool { return p.Config.Policy == "leasttime" }
