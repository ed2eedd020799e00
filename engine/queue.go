package engine

import (
	"io"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/engine/loop"
	"awe4lb/tlsbridge"
)

// Sessions that find no place in their pool wait for one, if the pool has a queue. Each shard keeps those it owns in a line
// for each queue; balancer.Queue knows whose line is next and has that shard called when there may be a place. Meanwhile a
// session holds no backend, and what its client says waits in the kernel.
//
//	CONNECTING ──no place, or others wait──▶ QUEUED ──its turn, and there is a place──▶ CONNECTING ─ ─ ▶ OPEN
//	     ▲                                   ▲    │
//	     │                                   │    └── queue_timeout, client gone, pool_removed, no_backend ──▶ ended
//	     └─ refused, no other place: with its old ticket ─┘

// waiter is what a session has from when it first waits until it is open. Owned by the shard's goroutine; recycled.
type waiter struct {
	s      *session
	line   *waitLine
	ticket uint64
	until  int64 // loop time at which it has waited too long, other stays in the queue included
	came   int64 // loop time, of this stay
	in     bool  // it is in the line

	next, prev *waiter // the line, by ticket; or the shard's free list
}

// waitLine is those of one shard that wait in one queue. Owned by the shard's goroutine.
type waitLine struct {
	sh   *shard
	q    *balancer.Queue
	head waiter // of the list, a ring
}

// openQueue makes the queue that p wants, if it has none yet.
func (e *Engine) openQueue(p *balancer.Pool) {
	if !p.Config.Queue.Waits() {
		return
	}
	p.OpenQueue(len(e.shards), func(q *balancer.Queue, line int) func() {
		sh := e.shards[line]
		turn := func() { sh.line(q).turn() }
		return func() { sh.loop.Post(turn) }
	})
}

// line returns the shard's line in q.
func (sh *shard) line(q *balancer.Queue) *waitLine {
	ln := sh.lines[q]
	if ln == nil {
		ln = &waitLine{sh: sh, q: q}
		ln.head.next, ln.head.prev = &ln.head, &ln.head
		sh.lines[q] = ln
	}
	return ln
}

func (ln *waitLine) empty() bool { return ln.head.next == &ln.head }

// first returns the lowest ticket in the line, 0 when it is empty.
func (ln *waitLine) first() uint64 { return ln.head.next.ticket }

// behind reports whether others wait for a place in the session's pool: they come first, also where a reload has taken the queue
// away, unless there is room for all of them and more: they are about to be served, and the session could not get in line.
func (s *session) behind() bool {
	q := s.pool.Queue()
	if q == nil {
		return false
	}
	n := q.Waiting()
	return n > 0 && (s.pool.Config.Queue.Waits() || !s.pool.HasRoom(n+1))
}

// canWait reports whether a session waits for what is lacking.
func canWait(p *balancer.Pool, lack balancer.Lack) bool {
	switch lack {
	case balancer.PoolFull, balancer.BackendsFull:
		return true
	case balancer.AllDown:
		return p.Config.Queue != nil && p.Config.Queue.WhenDown
	}
	return false
}

// enqueue has the session wait, unless its client has gone. It reports false when it cannot: the pool has no queue, or that
// is full, which is noted.
//
// Who waits goes by the pool of now: at the head of the line, one that asked a pool of before for a place would keep all others
// from those that have come since.
func (s *session) enqueue(now int64) bool {
	q := s.pool.Queue()
	if q == nil {
		return false
	}
	if !s.followPool(s.sh.eng.director.Snapshot(), q) {
		s.end(PoolRemoved)
		return true
	}
	cfg := s.pool.Config.Queue
	if !cfg.Waits() {
		return false
	}
	if reason := s.departed(); reason != none {
		s.end(reason)
		return true
	}
	sh := s.sh
	ln := sh.line(q)
	w := s.waiter
	if w == nil {
		ticket, ok := q.Enter(sh.number, ln.empty(), cfg.Size)
		if !ok {
			s.fault = QueueFull
			sh.poolStats(s.pool).QueueFull++
			return false
		}
		w = sh.newWaiter()
		w.s, w.line, w.ticket, w.until = s, ln, ticket, now+int64(cfg.Timeout)
		s.own().waiter = w
		w.insert(&ln.head)
	} else {
		at := ln.head.next // mostly it comes before all others
		for at != &ln.head && at.ticket < w.ticket {
			at = at.next
		}
		w.line = ln
		w.insert(at)
		q.Reenter(sh.number, ln.first())
	}
	w.came, w.in = now, true
	s.state = queued
	sh.poolStats(s.pool).Queued++
	sh.loop.After(&s.timer, now, time.Duration(max(w.until-now, 0)))
	return true
}

func (w *waiter) insert(before *waiter) {
	w.next, w.prev = before, before.prev
	w.prev.next, before.prev = w, w
}

// leave takes w out of the line. Who is next has to be called then, unless it is its turn.
func (w *waiter) leave(now int64) {
	ln := w.line
	w.prev.next, w.next.prev = w.next, w.prev
	w.next, w.prev, w.in = nil, nil, false
	ln.q.Leave(ln.sh.number, ln.first())
	ln.sh.poolStats(w.s.pool).Wait.observe(now - w.came)
}

// turnBudget is the number of sessions served before others of the shard's events have their turn.
const turnBudget = 64

// turn serves those at the head of the line, as long as one of them is next of all and there is a place for it.
func (ln *waitLine) turn() {
	ln.q.Turn(ln.sh.number)
	if ln.sh.eng.cutting.Load() { // the places that come free are of those who are cut, and it is these sessions' turn next
		return
	}
	for range turnBudget {
		if ln.empty() || !ln.q.Next(ln.sh.number) {
			break
		}
		w := ln.head.next
		s, now := w.s, ln.sh.loop.Now()
		b, lack := s.pool.PickInTurn(s.address.Addr(), s.key, s.tried)
		if b == nil && len(s.tried) > 0 && (ln.q.Others() || !s.pool.Config.Queue.Waits()) {
			b, lack = s.pool.PickInTurn(s.address.Addr(), s.key, nil) // better one that has failed once than to keep all others waiting
		}
		switch {
		case b != nil:
			w.leave(now)
			s.state = connecting
			ln.sh.loop.Cancel(&s.timer)
			if !s.attempt(b, now) {
				s.dial(now)
			}
		case canWait(s.pool, lack):
			return // whoever makes room calls
		default:
			s.nowhere(lack) // all went down meanwhile
		}
	}
	ln.q.Call()
}

// waited ends the session's waiting for good: it is open, or has ended.
func (s *session) waited(reason Reason) {
	w := s.waiter
	if w == nil {
		return
	}
	if w.in {
		st := s.sh.poolStats(s.pool)
		switch reason {
		case QueueTimeout:
			st.QueueTimeouts++
		case ClientEOF, ClientRST, ClientLost, ClientTruncated, ClientTLS:
			st.QueueLeft++
		}
		first := w.line.first() == w.ticket
		w.leave(s.sh.loop.Now())
		if first {
			w.line.q.Call()
		}
	}
	s.waiter = nil
	s.sh.recycleWaiter(w)
}

// watchWaiting reacts to an event of a client that waits. One that has reset the connection leaves at once: whatever it said, nobody
// is there to be answered.
func (s *session) watchWaiting(ev loop.Events) {
	c := &s.client
	if ev.Failed() {
		if errno := sysError(int(c.fd)); errno != 0 {
			c.fail(errno)
		}
	}
	if reason := s.departed(); reason != none {
		s.end(reason)
	}
}

// departed returns why a client that is not read should not wait: it has reset the connection, or closed it without having said
// anything, or in the middle of TLS. One that has said something may still want the answer. none: it waits.
func (s *session) departed() Reason {
	c := &s.client
	switch {
	case c.failed:
		return s.fault
	case !c.wary || c.eof || s.heard != nil && !s.hello: // s.hello: with a ClientHello alone nobody is done
	case c.conn != nil:
		return s.hungUp()
	case sysAtEnd(int(c.fd)):
		return ClientEOF
	}
	return none
}

// keptWaiting is the most that is read of what a client says in TLS while it waits, once, to find out whether it has gone.
const keptWaiting = tlsbridge.MinRead

// hungUp is departed for a client with TLS, the end of which has come: the kernel cannot tell close_notify from what is to be
// answered. What it has said is kept.
func (s *session) hungUp() Reason {
	c, buf := &s.client, s.sh.bridging
	n, own, err := c.conn.Read(buf.scratch, buf.plain[:keptWaiting], buf.cipher)
	c.push(own)
	errno, lost := err.(syscall.Errno)
	switch {
	case c.failed:
		return s.fault
	case err == nil:
	case err == tlsbridge.ErrWouldBlock:
		c.readable, c.wary = false, false
	case n == 0 && (err == io.EOF || err == tlsbridge.ErrTruncated):
		return ClientEOF
	case err == io.EOF:
		c.ended()
	case err == tlsbridge.ErrTruncated:
		s.own().detail = detail(err)
		return ClientTruncated
	case lost:
		c.fail(errno)
		return s.fault
	default:
		s.own().detail = detail(err)
		c.linger() // an alert is on its way
		return ClientTLS
	}
	s.keep(buf.plain[:n])
	return none
}

// follow has those who wait go by the pools of a new snapshot: its limits, or its end.
func (ln *waitLine) follow(next *balancer.Snapshot) {
	for w := ln.head.next; w != &ln.head; {
		s := w.s
		w = w.next
		if !s.followPool(next, ln.q) {
			s.end(PoolRemoved)
		}
	}
}

// followPool has a session that waits in q go by its pool as it is in next, and reports whether it is there.
func (s *session) followPool(next *balancer.Snapshot, q *balancer.Queue) bool {
	pool := next.Pool(s.pool.Config.Name)
	if pool == nil || pool.Queue() != q {
		return false
	}
	if pool != s.pool {
		s.pool = pool
		if !pool.AsksName() {
			s.key = pool.Key(s.address, nil)
		}
	}
	return true
}

// followQueues has the shard's queues go by a new snapshot, and forgets those of pools that are gone.
func (sh *shard) followQueues(next *balancer.Snapshot) {
	for _, ln := range sh.lines {
		ln.follow(next)
	}
	for q, ln := range sh.lines {
		if ln.empty() && q.Waiting() == 0 {
			delete(sh.lines, q)
		}
	}
}

// callQueues follows a change of the snapshot: there may be room now.
func callQueues(snap *balancer.Snapshot) {
	for _, p := range snap.Pools {
		if q := p.Queue(); q != nil {
			q.Call()
		}
	}
}

// newWaiter returns an unused waiter.
func (sh *shard) newWaiter() *waiter {
	w := sh.waiters
	if w == nil {
		return new(waiter)
	}
	sh.waiters, sh.waitersLen = w.next, sh.waitersLen-1
	w.next = nil
	return w
}

func (sh *shard) recycleWaiter(w *waiter) {
	*w = waiter{}
	if sh.waitersLen < keepFree {
		w.next = sh.waiters
		sh.waiters, sh.waitersLen = w, sh.waitersLen+1
	}
}
