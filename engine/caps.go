package engine

import (
	"sync/atomic"
	"time"

	"awe4lb/config"
)

// caps are how many bytes a second a frontend moves, each direction by itself. They belong to the frontend's name: sessions keep
// theirs over reloads, which change only the rates. Sessions wait (meter.go), datagrams that are over are dropped.
//
// A cap is a bucket that is one number, the time at which it would be full again (see rateTable). What is taken may be more than
// was left, by as much as the shards read at the same moment; the next ones wait the longer.
type caps struct {
	// Shared: atomics. Bytes a second; 0 is no limit.
	session, source, total atomic.Int64

	all     [2]bucket                     // by ToClient and ToBackend
	sources atomic.Pointer[[2]*rateTable] // nil until there was a limit
	flows   atomic.Pointer[[2]*rateTable] // the same: a flow has no room for a bucket of its own
}

func hasCaps(f *config.Frontend) bool {
	return f.BandwidthPerSession > 0 || f.BandwidthPerSource > 0 || f.Bandwidth > 0
}

// set makes the caps those of f. It is for the control plane, one goroutine at a time.
func (c *caps) set(f *config.Frontend) {
	if f.BandwidthPerSource > 0 && c.sources.Load() == nil {
		c.sources.Store(&[2]*rateTable{new(rateTable), new(rateTable)})
	}
	if f.IsUDP() && f.BandwidthPerSession > 0 && c.flows.Load() == nil {
		c.flows.Store(&[2]*rateTable{new(rateTable), new(rateTable)})
	}
	c.session.Store(int64(f.BandwidthPerSession))
	c.source.Store(int64(f.BandwidthPerSource))
	c.total.Store(int64(f.Bandwidth))
}

// commitCaps puts the caps of the next guards in force. Those of a frontend that has none any more stay, without limits, for the
// sessions that have them, and for when it has some again. The caller holds mu.
func (e *Engine) commitCaps(next map[string]*guard) {
	for name, g := range next {
		if g.caps != nil {
			e.caps[name] = g.caps
			g.caps.set(g.limits)
		}
	}
	for name, c := range e.caps {
		if next[name].capsOf() == nil {
			c.set(new(config.Frontend))
		}
	}
}

// capsOf returns the caps of a guard's frontend, nil when it has none.
func (g *guard) capsOf() *caps {
	if g == nil {
		return nil
	}
	return g.caps
}

// What a cap lets pass at once is what it does in capWindow, and 4 KiB at the least. Who has to wait waits for a fiftieth of a
// second's worth: less would be a wake-up for every few bytes.
const (
	capWindow   = 100 * time.Millisecond
	capMinBurst = 4 << 10
	capSteps    = 50
	capMinStep  = 512
	capMaxStep  = 256 << 10
)

func capBurst(rate int64) int64 { return max(int64(float64(rate)*capWindow.Seconds()), capMinBurst) }

func capStep(rate int64) int64 { return min(max(rate/capSteps, capMinStep), capMaxStep) }

// capTime returns how long n bytes take at a rate, in nanoseconds.
func capTime(n, rate int64) int64 { return int64(float64(n) * 1e9 / float64(rate)) }

// capLeft returns the bytes that a bucket has that is full again ahead ns from now.
func capLeft(ahead, rate int64) int64 {
	return capBurst(rate) - int64(float64(max(ahead, 0))*float64(rate)/1e9)
}

// take takes what takes by ns from b. Safe from any goroutine.
func (b *bucket) take(now, by int64) {
	for {
		old := b.full.Load()
		if b.full.CompareAndSwap(old, max(old, now)+by) {
			return
		}
	}
}

// reserve is take, and returns how long it is until that is there, behind all that was taken before: 0 or more. A capWindow's
// worth is there at once. Safe from any goroutine.
func (b *bucket) reserve(now, by int64) (wait int64) {
	for {
		old := b.full.Load()
		begin := max(old, now)
		if b.full.CompareAndSwap(old, begin+by) {
			return max(begin-now-int64(capWindow), 0)
		}
	}
}

// admits takes n bytes of datagrams in a direction from the caps, or reports that there are not enough. source and flow are
// hashes. Never blocks or allocates; safe from any goroutine.
func (c *caps) admits(direction int, source, flow uint64, n, now int64) bool {
	session, perSource, total := c.session.Load(), c.source.Load(), c.total.Load()
	sources, flows := c.sources.Load(), c.flows.Load()
	if session > 0 && flows != nil && capLeft(flows[direction].ahead(flow, now), session) <= 0 ||
		perSource > 0 && sources != nil && capLeft(sources[direction].ahead(source, now), perSource) <= 0 ||
		total > 0 && capLeft(c.all[direction].full.Load()-now, total) <= 0 {
		return false
	}
	if session > 0 && flows != nil {
		flows[direction].take(flow, now, capTime(n, session))
	}
	if perSource > 0 && sources != nil {
		sources[direction].take(source, now, capTime(n, perSource))
	}
	if total > 0 {
		c.all[direction].take(now, capTime(n, total))
	}
	return true
}

// within reports whether the caps let slot i pass, a datagram without a flow: its client's is what counts as one.
func (l *datagramListener) within(c *caps, key *flowKey, i int) bool {
	u := &l.front.config.UDP
	client := key.clientIP()
	source := prefixHash(client, u.NewFlowPrefixV4, u.NewFlowPrefixV6)
	session := prefixHash(client, 32, 128) ^ uint64(key.port)*0x9e3779b97f4a7c15
	return c.admits(ToBackend, source, session, int64(l.fl.in.hdrs[i].Len), l.fl.sh.eng.clock())
}

// withinCaps drops those of a flow's datagrams in slots that its frontend's caps do not let pass, and returns the others.
func (fl *flows) withinCaps(f *flow, direction int, b *batch, slots []slot) []slot {
	front := fl.fronts[f.front]
	c := guardOf(front.front).capsOf()
	if c == nil {
		return slots
	}
	u := &front.config.UDP
	source := prefixHash(f.key.clientIP(), u.NewFlowPrefixV4, u.NewFlowPrefixV6)
	flow := (uint64(f.number)<<32 | uint64(f.hash)) * 0x9e3779b97f4a7c15
	now := fl.sh.eng.clock()
	rest := slots[:0]
	for _, s := range slots {
		if c.admits(direction, source, flow, int64(b.hdrs[s.i].Len), now) {
			rest = append(rest, s)
			continue
		}
		count, _ := s.shape(b)
		fl.drop(front.stats, direction, DropBandwidth, uint64(count))
	}
	return rest
}
