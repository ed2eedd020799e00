package engine

import (
	"math/rand/v2"
	"time"

	"awe4lb/engine/loop"
)

// meter holds a session to the caps of its frontend: a side is read only as far as they let, and read on by a timer. What is
// not read waits in the kernel, so that the one who sends feels it. Owned by the shard's goroutine.
//
//	reading ──a cap is used up──▶ waiting: its side is not read ──the timer: a step's worth is there──▶ reading
//	    └──a step is read, and others share the cap──▶ waiting, until those have had their turn ──────────┘
//
// The second makes sessions that share a cap take turns, a step each.
type meter struct {
	s      *session
	caps   *caps
	source uint64   // hash of the client's source prefix
	full   [2]int64 // of the session's own cap, by direction: see caps; by the engine's clock

	waiting [2]bool
	timer   loop.Timer
	at      int64 // loop time it is set for

	next *meter // on the shard's free list
}

// meterBy has s held to c from now on.
func (s *session) meterBy(g *guard) {
	sh := s.sh
	m := sh.meters
	if m == nil {
		m = new(meter)
		m.timer.Handle(m)
	} else {
		sh.meters, sh.metersLen = m.next, sh.metersLen-1
	}
	m.s, m.caps, m.next = s, g.caps, nil
	m.full, m.waiting, m.at = [2]int64{}, [2]bool{}, 0
	if s.address.IsValid() {
		m.source = prefixHash(s.address.Addr(), g.bits4, g.bits6)
	}
	s.own().meter, s.metered = m, true
}

// unmeter takes the meter of s back.
func (s *session) unmeter() {
	m, sh := s.meter, s.sh
	sh.loop.Cancel(&m.timer)
	s.metered, s.meter = false, nil
	m.s, m.caps = nil, nil
	if sh.metersLen < keepFree {
		m.next = sh.meters
		sh.meters, sh.metersLen = m, sh.metersLen+1
	}
}

// allow returns how many bytes may be read now on their way to the side of that kind, most at the most; 0: m waits.
func (m *meter) allow(kind uint8, most int) int {
	if m.waiting[kind] {
		return 0
	}
	c, now := m.caps, m.s.sh.eng.clock()
	n, wait, turn := int64(most), int64(0), int64(0)
	within := func(ahead, rate int64) {
		left := capLeft(ahead, rate)
		if need := capStep(rate) - left; need > 0 {
			wait = max(wait, capTime(need, rate))
		}
		n = min(n, left)
	}
	if rate := c.session.Load(); rate > 0 {
		within(m.full[kind]-now, rate)
	}
	if rate := c.source.Load(); rate > 0 && m.hasSource() {
		within(c.sources.Load()[kind].ahead(m.source, now), rate)
		n, turn = min(n, capStep(rate)), capTime(capStep(rate), rate)
	}
	if rate := c.total.Load(); rate > 0 {
		within(c.all[kind].full.Load()-now, rate)
		n, turn = min(n, capStep(rate)), max(turn, capTime(capStep(rate), rate))
	}
	if wait > 0 {
		if turn > 0 { // all who share a cap come at times of their own, so that none is always the first
			wait += rand.Int64N(2 * turn)
		}
		m.wait(kind, wait)
		return 0
	}
	return int(n)
}

// hasSource reports whether there is a source to count by: not for clients on unix sockets.
func (m *meter) hasSource() bool { return m.s.address.IsValid() }

// spend takes n bytes that were read from the caps. Where others share one and all that was allowed was read, they have their
// turn.
func (m *meter) spend(kind uint8, n, allowed int) {
	if n == 0 {
		return
	}
	c, now := m.caps, m.s.sh.eng.clock()
	shared := false
	if rate := c.session.Load(); rate > 0 {
		m.full[kind] = max(m.full[kind], now) + capTime(int64(n), rate)
	}
	if rate := c.source.Load(); rate > 0 && m.hasSource() {
		c.sources.Load()[kind].take(m.source, now, capTime(int64(n), rate))
		shared = true
	}
	if rate := c.total.Load(); rate > 0 {
		c.all[kind].take(now, capTime(int64(n), rate))
		shared = true
	}
	if shared && n >= allowed {
		m.waiting[kind] = true
		m.s.sh.loop.Yield(&m.timer)
		m.at = 0
	}
}

// wait has that direction go on after some nanoseconds.
func (m *meter) wait(kind uint8, after int64) {
	sh := m.s.sh
	m.s.fstats.Throttled++
	m.waiting[kind] = true
	now := sh.loop.Now()
	if at := now + after; !m.timer.Pending() || at < m.at {
		m.at = at
		sh.loop.After(&m.timer, now, time.Duration(after))
	}
}

// Expire is called by the loop when a direction may go on.
func (m *meter) Expire() {
	m.waiting = [2]bool{}
	s := m.s
	if s.state != open {
		return
	}
	if s.client.readable {
		s.pump(&s.client, &s.backend)
	}
	if s.backend.readable {
		s.pump(&s.backend, &s.client)
	}
	s.settle()
}
