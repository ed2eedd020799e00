package engine

import (
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine/loop"
)

// pace ends the sessions that a shard has on a backend that is down, in maintenance or no longer configured, one after the
// other, so that their clients do not all come back in one moment. Who was quiet when last looked at goes first. It ends
// early when the backend is back. Owned by the shard's goroutine.
//
//	COLLECTING (a walk, once) ──▶ PACING: a timer, and each time those whose turn it is ──▶ over
//	    └──────────── stop: the backend is back ────┴────────────────────────────────────────▲
//
// Sessions that are still connecting find out by themselves; those that have become open when all others are gone follow. So
// do stragglers, who were let in before a reload and went by the snapshot of then to a backend that it removed, or were
// connecting when it was put into maintenance.
type pace struct {
	// Set once, never changed.
	sh       *shard
	backend  *balancer.Backend
	reason   Reason
	rate     *bucket // of all shards together; nil: evenly until deadline
	each     int     // of rate: sessions a second
	began    int64   // loop time
	deadline int64   // loop time at which those left are ended

	list   []paced // those who were quiet first
	next   int     // in list
	total  int     // of list, when it was made
	done   int     // those that are ended, or have ended meanwhile
	later  []paced // those that were not open yet
	gone   bool    // stopped
	events loop.Timer
}

// paced is a session, and when it began: it may be another by the time its turn comes.
type paced struct {
	s       *session
	started int64
}

const (
	paceTick    = 100 * time.Millisecond // at the least so often those go whose turn it is,
	paceMinTick = 20 * time.Millisecond  // and no more often
	paceSlice   = 256                    // sessions that are ended before other sockets have their turn: 10 us each
)

// paceOrder is what becomes of the sessions of a backend.
type paceOrder struct {
	reason  Reason
	timeout time.Duration // 0: cut all
	rate    *bucket
	each    int
}

// paceOf returns what is to become of the sessions of b now; ok is false when they go on.
func (e *Engine) paceOf(b *balancer.Backend) (o paceOrder, ok bool) {
	c, do := b.Gone(), ""
	switch p := e.director.Snapshot().Pool(b.Pool); {
	case c != nil:
		do, o.reason = c.OnRemoved, BackendRemoved
	case p == nil:
	case b.State() == balancer.Down:
		c, do, o.reason = p.Config, p.Config.OnDown, BackendDown
	case b.State() == balancer.Maintenance:
		c, do, o.reason = p.Config, p.Config.OnMaintenance, BackendMaintenance
	}
	switch do {
	case "cut":
		return o, true
	case "drain":
		o.timeout = c.DrainTimeout
		if c.DrainRate > 0 {
			o.rate, o.each = e.paceBucket(c), c.DrainRate
		}
		return o, true
	}
	return o, false
}

// paceBucket returns what bounds the pace of a pool, over all its backends and all shards.
func (e *Engine) paceBucket(c *config.Pool) *bucket {
	e.pacesMu.Lock()
	defer e.pacesMu.Unlock()
	b := e.paces[c.Name]
	if b == nil {
		b = new(bucket)
		e.paces[c.Name] = b
	}
	return b
}

// pace has the sessions on b go as o says. What is under way for the same reason goes on, unless they are to be cut now.
func (sh *shard) pace(b *balancer.Backend, o paceOrder) {
	if old := sh.paces[b]; old != nil {
		if old.reason == o.reason && o.timeout > 0 {
			return
		}
		old.stop()
	}
	now := sh.loop.Now()
	p := &pace{sh: sh, backend: b, reason: o.reason, rate: o.rate, each: o.each, began: now, deadline: now + int64(o.timeout)}
	p.events.Handle(p)
	sh.paces[b] = p
	p.collect()
}

// straggle has a session that has become open on a backend which is no longer configured, or in maintenance, go as those go that
// were there before: no walk may have met it. It reports false when it has ended. A backend that is down has no stragglers: who
// reaches it may be sent there in panic.
func (s *session) straggle() bool {
	sh, b := s.sh, s.target
	o, ok := sh.eng.paceOf(b)
	switch p := sh.paces[b]; {
	case !ok:
	case o.timeout == 0:
		s.end(o.reason)
		return false
	case p != nil && p.reason == o.reason:
		p.later = append(p.later, paced{s, s.started}) // if it is on the list already, the second time finds it ended
	default:
		sh.pace(b, o) // whose turn it is at once may be s
	}
	return s.state == open
}

// stop ends p and leaves those be who are left.
func (p *pace) stop() {
	p.gone = true
	p.sh.loop.Cancel(&p.events)
	if p.sh.paces[p.backend] == p {
		delete(p.sh.paces, p.backend)
	}
}

// collect finds the sessions.
func (p *pace) collect() {
	var busy []paced
	w := &walk{session: func(s *session) bool {
		switch {
		case s.target != p.backend:
		case s.moved:
			busy = append(busy, paced{s, s.started})
		default:
			p.list = append(p.list, paced{s, s.started})
		}
		return !p.gone
	}, done: func() {
		if !p.gone {
			p.list = append(p.list, busy...)
			p.total = len(p.list)
			p.Expire()
		}
	}}
	w.start(p.sh, 0)
}

// Expire is called by the loop when it may be somebody's turn.
func (p *pace) Expire() {
	now := p.sh.loop.Now()
	for left := paceSlice; ; left-- {
		switch {
		case !p.find():
			p.stop()
			return
		case p.next == len(p.list): // all but those that are not open yet
			p.list, p.later, p.next = p.later, p.list[:0], 0
			p.again(now, paceTick)
			return
		case left == 0:
			p.sh.loop.Yield(&p.events)
			return
		case !p.due(now):
			p.again(now, p.tick())
			return
		}
		s := p.list[p.next].s
		p.next++
		p.done++
		s.end(p.reason)
	}
}

// again sets the timer, for the deadline at the latest.
func (p *pace) again(now int64, after time.Duration) {
	if now < p.deadline {
		after = min(after, time.Duration(p.deadline-now))
	}
	p.sh.loop.After(&p.events, now, after)
}

// find passes over those that have ended or moved on, and those that are not open yet, who come last. It reports whether
// anybody is left.
func (p *pace) find() bool {
	for ; p.next < len(p.list); p.next++ {
		x := p.list[p.next]
		switch {
		case x.s.started != x.started || x.s.target != p.backend || x.s.state > open:
			p.done++
		case x.s.state < open:
			if p.sh.loop.Now() < p.deadline {
				p.later = append(p.later, x)
			}
		default:
			return true
		}
	}
	return len(p.later) > 0
}

// due reports whether it is the turn of the next, and counts it.
func (p *pace) due(now int64) bool {
	switch {
	case now >= p.deadline:
		return true
	case p.rate != nil:
		return p.rate.allow(p.sh.eng.clock(), p.each, paceBurst(p.each))
	}
	return int64(p.done) < int64(p.total)*((now-p.began)>>10)/((p.deadline-p.began)>>10)
}

// paceBurst is how many may go at once at so many a second: those of a tenth of a second.
func paceBurst(each int) int { return max(each/10, 1) }

// tick returns how long to wait for the next turn.
func (p *pace) tick() time.Duration {
	step := time.Duration(p.deadline-p.began) / time.Duration(max(p.total, 1))
	if p.rate != nil {
		step = time.Second / time.Duration(p.each)
	}
	return min(max(step, paceMinTick), paceTick)
}
