package engine

import (
	"time"

	"awe4lb/engine/loop"
)

// meter holds a session to the caps of its frontend: a side is read only as far as they let, and read on by a timer. What is
// not read waits in the kernel, so that the one who sends feels it. Owned by the shard's goroutine.
//
//	reading ──its own cap is used up──▶ waiting: its side is not read ──the timer: a step's worth is there──▶ reading
//	    └──a step of a shared cap is read──▶ the next one is reserved; waiting until its time ──────────────────┘
//
// A shared cap is a line in time: a session reserves the next step of it, behind those that others have reserved, and reads when
// its time has come. So those who share it take turns, a step each, on whatever shard they are: whose timer fires first does not
// matter (they fire in steps of 17 ms, and each shard has its own).
type meter struct {
	s      *session
	caps   *caps
	source uint64   // hash of the client's source prefix
	full   [2]int64 // of the session's own cap, by direction: see caps
	grants [2]int64 // bytes of shared caps that are reserved and not read yet
	due    [2]due   // from when they may be read: the timer is for both directions

	waiting [2]bool
	timer   loop.Timer
	at      int64 // loop time it is set for

	next *meter // on the shard's free list
}

// due is a mark on the courses of those caps that are shared.
type due struct{ source, total int64 }

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
	m.full, m.grants, m.due, m.waiting, m.at = [2]int64{}, [2]int64{}, [2]due{}, [2]bool{}, 0
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
	n, wait := int64(most), int64(0)
	if own := c.session.Load(); own.rate > 0 {
		left := capLeft(m.full[kind]-own.mark(now), own.rate)
		if need := capStep(own.rate) - left; need > 0 {
			wait = capTime(need, own.rate)
		}
		n = min(n, left)
	}
	source, total := c.source.Load(), c.total.Load()
	if wait == 0 && (source.rate > 0 && m.hasSource() || total.rate > 0) {
		if m.grants[kind] <= 0 {
			m.reserve(kind, now, source, total)
		}
		wait = max(source.until(m.due[kind].source, now), total.until(m.due[kind].total, now))
		n = min(n, m.grants[kind])
	}
	if wait > 0 {
		m.wait(kind, wait)
		return 0
	}
	return int(n)
}

// reserve takes a step from the caps that the session shares, behind what others have taken. What passes in a capWindow is there at
// once.
func (m *meter) reserve(kind uint8, now int64, source, total *course) {
	bySource := source.rate > 0 && m.hasSource()
	step := int64(capMaxStep)
	if bySource {
		step = min(step, capStep(source.rate))
	}
	if total.rate > 0 {
		step = min(step, capStep(total.rate))
	}
	m.grants[kind], m.due[kind] = step, due{}
	if bySource {
		at := source.mark(now)
		m.due[kind].source = at + m.caps.sources.Load()[kind].take(m.source, at, step) - capWindowed(source.rate)
	}
	if total.rate > 0 {
		m.due[kind].total = m.caps.all[kind].take(total.mark(now), step) - capWindowed(total.rate)
	}
}

// hasSource reports whether there is a source to count by: not for clients on unix sockets.
func (m *meter) hasSource() bool { return m.s.address.IsValid() }

// charge takes n bytes that were moved before m was there, from the caps.
func (m *meter) charge(kind uint8, n int64) {
	if n == 0 {
		return
	}
	c, now := m.caps, m.s.sh.eng.clock()
	if own := c.session.Load(); own.rate > 0 {
		m.full[kind] = own.mark(now) + n
	}
	if source := c.source.Load(); source.rate > 0 && m.hasSource() {
		c.sources.Load()[kind].take(m.source, source.mark(now), n)
	}
	if total := c.total.Load(); total.rate > 0 {
		c.all[kind].take(total.mark(now), n)
	}
}

// spend takes n bytes that were read from the caps. Where others share one and all that was allowed was read, they have their
// turn.
func (m *meter) spend(kind uint8, n, allowed int) {
	if n == 0 {
		return
	}
	c, now := m.caps, m.s.sh.eng.clock()
	shared := false
	if own := c.session.Load(); own.rate > 0 {
		m.full[kind] = max(m.full[kind], own.mark(now)) + int64(n)
	}
	if m.grants[kind] > 0 {
		m.grants[kind] -= int64(n)
		shared = m.grants[kind] <= 0
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

// again has a session that waits look anew for how long: the caps have changed.
func (m *meter) again() {
	if m.waiting != [2]bool{} {
		m.s.sh.loop.Cancel(&m.timer)
		m.Expire()
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
