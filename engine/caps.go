package engine

import (
	"math/bits"
	"sync/atomic"
	"time"

	"awe4lb/config"
)

// caps are how many bytes a second a frontend moves, each direction by itself. They belong to the frontend's name: sessions keep
// theirs over reloads, which change only the rates. Sessions wait (meter.go), datagrams that are over are dropped.
//
// A cap is a course, and a bucket on it that is one number, the mark at which it would be full again (see rateTable). What is taken
// may be more than was left, by as much as the shards read at the same moment; the next ones wait the longer.
type caps struct {
	// Shared: atomics; never nil.
	session, source, total atomic.Pointer[course]

	all     [2]bucket                     // by ToClient and ToBackend
	sources atomic.Pointer[[2]*rateTable] // nil until there was a limit
	flows   atomic.Pointer[[2]*rateTable] // the same: a flow has no room for a bucket of its own
}

// course is a cap as a line of bytes on which time moves: by rate bytes a second. Marks on it stay what they are when a reload
// changes the rate, so that who waits for one waits by the new rate at once. Marks are compared as int64: at 100 GB a second they
// last three years. Immutable.
type course struct {
	rate int64 // bytes a second; 0 is no limit
	pace int64 // at which it moves: rate, or what that was before it was 0
	from int64 // by the engine's clock
	at   int64 // mark at that time
}

// mark returns where the course is now.
func (c *course) mark(now int64) int64 {
	d := uint64(max(now-c.from, 0))
	hi, lo := bits.Mul64(d%1e9, uint64(c.pace))
	part, _ := bits.Div64(hi, lo, 1e9)
	return c.at + int64(d/1e9)*c.pace + int64(part)
}

// until returns how long it is until the course is at a mark: 0 when it has been there, or is none any more.
func (c *course) until(mark, now int64) int64 {
	if c.rate == 0 {
		return 0
	}
	return max(capTime(mark-c.mark(now), c.rate), 0)
}

// follow has p be a course of that rate from now on, and reports whether it was another.
func follow(p *atomic.Pointer[course], rate, now int64) bool {
	old := p.Load()
	switch {
	case old == nil:
		p.Store(&course{rate: rate, pace: rate, from: now})
		return false
	case old.rate == rate:
		return false
	}
	next := &course{rate: rate, pace: rate, from: now, at: old.mark(now)}
	if rate == 0 {
		next.pace = old.pace
	}
	p.Store(next)
	return true
}

func hasCaps(f *config.Frontend) bool {
	return f.BandwidthPerSession > 0 || f.BandwidthPerSource > 0 || f.Bandwidth > 0
}

// set makes the caps those of f, and reports whether they were others. It is for the control plane, one goroutine at a time.
func (c *caps) set(f *config.Frontend, now int64) bool {
	if f.BandwidthPerSource > 0 && c.sources.Load() == nil {
		c.sources.Store(&[2]*rateTable{new(rateTable), new(rateTable)})
	}
	if f.IsUDP() && f.BandwidthPerSession > 0 && c.flows.Load() == nil {
		c.flows.Store(&[2]*rateTable{new(rateTable), new(rateTable)})
	}
	session := follow(&c.session, int64(f.BandwidthPerSession), now)
	source := follow(&c.source, int64(f.BandwidthPerSource), now)
	total := follow(&c.total, int64(f.Bandwidth), now)
	return session || source || total
}

// commitCaps puts the caps of the next guards in force. Those of a frontend that has none any more stay, without limits, for the
// sessions that have them, and for when it has some again. The caller holds mu.
func (e *Engine) commitCaps(next map[string]*guard) {
	changed := map[*caps]bool{}
	for name, g := range next {
		if g.caps != nil {
			e.caps[name] = g.caps
			if g.caps.set(g.limits, e.clock()) {
				changed[g.caps] = true
			}
		}
	}
	for name, c := range e.caps {
		if next[name].capsOf() == nil && c.set(new(config.Frontend), e.clock()) {
			changed[c] = true
		}
	}
	if len(changed) > 0 {
		e.remeter(changed)
	}
}

// remeter has the sessions that wait for one of these caps look again how long.
func (e *Engine) remeter(changed map[*caps]bool) {
	for _, sh := range e.shards {
		w := &walk{slice: remeterSlice, done: func() {}, session: func(s *session) bool {
			if s.metered && changed[s.meter.caps] {
				s.meter.again()
			}
			return true
		}}
		sh.loop.Post(func() { w.start(sh, 0) })
	}
}

// remeterSlice is how many sessions of a shard may go on before others have their turn: each may move pumpBudget.
const remeterSlice = 64

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

func capBurst(rate int64) int64 { return max(capWindowed(rate), capMinBurst) }

// capWindowed returns the bytes that pass in a capWindow.
func capWindowed(rate int64) int64 { return int64(float64(rate) * capWindow.Seconds()) }

func capStep(rate int64) int64 { return min(max(rate/capSteps, capMinStep), capMaxStep) }

// capTime returns how long n bytes take at a rate, in nanoseconds.
func capTime(n, rate int64) int64 { return int64(float64(n) * 1e9 / float64(rate)) }

// capLeft returns the bytes that a bucket has that is full again ahead bytes from now.
func capLeft(ahead, rate int64) int64 { return capBurst(rate) - max(ahead, 0) }

// take takes n bytes from b, on a course that is at now, behind all that was taken before, and returns where on it they begin. Safe
// from any goroutine.
func (b *bucket) take(now, n int64) (begin int64) {
	for {
		old := b.full.Load()
		begin := max(old, now)
		if b.full.CompareAndSwap(old, begin+n) {
			return begin
		}
	}
}

// admits takes n bytes of datagrams in a direction from the caps, or reports that there are not enough. source and flow are
// hashes. Never blocks or allocates; safe from any goroutine.
func (c *caps) admits(direction int, source, flow uint64, n, now int64) bool {
	session, perSource, total := c.session.Load(), c.source.Load(), c.total.Load()
	sources, flows := c.sources.Load(), c.flows.Load()
	ofSession, ofSource, ofTotal := session.mark(now), perSource.mark(now), total.mark(now)
	if session.rate > 0 && flows != nil && capLeft(flows[direction].ahead(flow, ofSession), session.rate) <= 0 ||
		perSource.rate > 0 && sources != nil && capLeft(sources[direction].ahead(source, ofSource), perSource.rate) <= 0 ||
		total.rate > 0 && capLeft(c.all[direction].full.Load()-ofTotal, total.rate) <= 0 {
		return false
	}
	if session.rate > 0 && flows != nil {
		flows[direction].take(flow, ofSession, n)
	}
	if perSource.rate > 0 && sources != nil {
		sources[direction].take(source, ofSource, n)
	}
	if total.rate > 0 {
		c.all[direction].take(ofTotal, n)
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
