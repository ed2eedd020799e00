package balancer

import (
	"math"
	"net/netip"
	"sync/atomic"
)

// Queue is the order of those who wait for a place in a pool: the longest waiting is next, on whatever shard it is. It knows
// no sessions. Each shard keeps a line of its own, by ticket, and publishes the ticket at its head; the line with the lowest
// head is next. Nobody locks or blocks. It belongs to the pool's identity and outlives snapshots.
//
//	Enter ──▶ in line ──next of all, and Pool.PickInTurn finds a place──▶ Leave
//	              └──────────── timeout, client gone, … ────────────────▶ Leave
//
// A line is called to take its turn when something has changed that may make room: a place was given back, a state has
// changed, a snapshot came, the one who was next has left. A line that is called and is not next calls the one that is. So
// no place stays free while somebody waits:
//
//   - Who gives a place back looks for waiters afterwards, and who enters publishes its ticket before it asks for a place.
//     All of that is sequentially consistent: one of the two sees the other.
//   - A head that is next, has asked, and got nothing is called by whoever gives the next place back.
//   - When a head leaves, its shard goes on with, or calls, the one that is next then.
//
// Tickets are drawn in the order of arrival. Between drawing one and publishing it a shard with an empty line shows a bound
// below it, so that nobody with a later ticket passes.
type Queue struct {
	// Set once, never changed.
	lines []queueLine

	// Shared: atomics.
	_       [64]byte
	waiting atomic.Int64
	tickets atomic.Uint64 // drawn so far
	_       [48]byte
}

type queueLine struct {
	wake func() // has the line's shard take its turn, soon

	head   atomic.Uint64 // ticket; nobody when the line is empty
	called atomic.Bool   // it has been woken and has not begun its turn
	_      [64 - 24]byte
}

// nobody is the head of an empty line.
const nobody = math.MaxUint64

// OpenQueue returns the pool's queue with so many lines, which is made at the first call. waker returns what has a line take
// its turn soon: a function that may be called by any goroutine, and does not block. For one goroutine at a time.
func (p *Pool) OpenQueue(lines int, waker func(q *Queue, line int) func()) *Queue {
	if q := p.live.queue.Load(); q != nil {
		return q
	}
	q := newQueue(lines, waker)
	p.live.queue.Store(q)
	return q
}

func newQueue(lines int, waker func(q *Queue, line int) func()) *Queue {
	q := &Queue{lines: make([]queueLine, lines)}
	for i := range q.lines {
		q.lines[i].head.Store(nobody)
		q.lines[i].wake = waker(q, i)
	}
	return q
}

// Queue returns the pool's queue, nil when none was ever opened.
func (p *Pool) Queue() *Queue { return p.live.queue.Load() }

// Waiting returns how many wait. Safe from any goroutine.
func (q *Queue) Waiting() int { return int(q.waiting.Load()) }

// Enter draws a ticket for the end of a line, or reports that size are waiting already; first says that nobody is in the
// line. For the line's shard only.
func (q *Queue) Enter(line int, first bool, size int) (ticket uint64, ok bool) {
	n := q.waiting.Load()
	for {
		if n >= int64(size) {
			return 0, false
		}
		if q.waiting.CompareAndSwap(n, n+1) {
			break
		}
		n = q.waiting.Load()
	}
	if first {
		q.lines[line].head.Store(q.tickets.Load() + 1)
	}
	ticket = q.tickets.Add(1)
	if first {
		q.lines[line].head.Store(ticket)
	}
	if first || n == 1 { // who was alone may have held out for a better place: see Others
		q.Call()
	}
	return ticket, true
}

// Others reports whether more than one waits. Who has tried backends in vain may hold out for another one only as long as
// nobody is behind: else all would wait because one does not like the place there is.
func (q *Queue) Others() bool { return q.waiting.Load() > 1 }

// Reenter puts a ticket that was served in vain back into a line, whatever the size; head is then the lowest ticket in the
// line. For the line's shard only.
func (q *Queue) Reenter(line int, head uint64) {
	q.waiting.Add(1)
	q.lines[line].head.Store(head)
	q.Call()
}

// Leave takes one who waits out of a line, whose lowest ticket is head then; 0 when nobody is left in it. Where that was the
// head and not served, Call follows. For the line's shard only.
func (q *Queue) Leave(line int, head uint64) {
	if head == 0 {
		head = nobody
	}
	q.lines[line].head.Store(head)
	q.waiting.Add(-1)
}

// Turn begins the turn of a line that was called: calls from now on lead to another one. For the line's shard only.
func (q *Queue) Turn(line int) { q.lines[line].called.Store(false) }

// Next reports whether the head of a line is next of all. For the line's shard only.
func (q *Queue) Next(line int) bool { return q.next() == line }

// next returns the line with the lowest head; -1 when nobody waits.
func (q *Queue) next() int {
	next, lowest := -1, uint64(nobody)
	for i := range q.lines {
		if head := q.lines[i].head.Load(); head < lowest {
			next, lowest = i, head
		}
	}
	return next
}

// Call has the line that is next take its turn, if anybody waits. Safe from any goroutine; never blocks.
func (q *Queue) Call() {
	if i := q.next(); i >= 0 && !q.lines[i].called.Load() && q.lines[i].called.CompareAndSwap(false, true) {
		q.lines[i].wake()
	}
}

// roomMade calls those who wait for a place in the pool: there may be one.
func (l *poolLive) roomMade() {
	if q := l.queue.Load(); q != nil {
		q.roomMade()
	}
}

func (q *Queue) roomMade() {
	if q.waiting.Load() > 0 {
		q.Call()
	}
}

// HasRoom reports whether there are places for n more on backends that are up, as far as can be said while others come and go.
// Safe from any goroutine.
func (p *Pool) HasRoom(n int) bool {
	room := int64(n)
	if p.limit > 0 && p.limit-p.Active() < room {
		return false
	}
	for _, t := range *p.tiers.Load() {
		for _, m := range t.members {
			switch {
			case !m.inState(wish{}):
			case m.limit == 0:
				return true
			default:
				room -= max(m.limit-m.active.Load(), 0)
			}
		}
	}
	return room <= 0
}

// Lack is why nobody could be picked.
type Lack uint8

const (
	NoneUsable   Lack = iota // those who are up were tried
	PoolFull                 // the pool has its max_connections
	BackendsFull             // those who could be used have their max_connections
	KeptFull                 // so has the one that the client sticks to, which takes nobody else, and no other is up
	AllDown                  // nobody is up
)

// PickOrWhy is PickFor that says what is lacking: with PoolFull and BackendsFull there may be a place later, and room is made
// known to the pool's queue.
func (p *Pool) PickOrWhy(client netip.Addr, key uint64, tried []*Backend) (*Backend, Lack) {
	b, full := p.take(client, key, tried)
	if b != nil {
		return b, NoneUsable
	}
	p.placed(nil)
	return nil, p.lack(client, tried, full)
}

// PickInTurn is PickOrWhy for who is next in the queue: to find nobody is not to make room, or it would call itself for
// ever.
func (p *Pool) PickInTurn(client netip.Addr, key uint64, tried []*Backend) (*Backend, Lack) {
	b, full := p.take(client, key, tried)
	if b != nil {
		return b, NoneUsable
	}
	return nil, p.lack(client, tried, full)
}

// lack returns why nobody was found; full is what take said of the pool. How many sessions backends have does not decide: that
// may have changed since, and whoever may be picked now and was not had no place, if it has a limit. Who enters the queue for
// that is called at once if there is one by now.
func (p *Pool) lack(client netip.Addr, tried []*Backend, full bool) Lack {
	states := p.live.states.Load()
	w := wish{tried: tried}
	why := AllDown
	for _, t := range *p.tiers.Load() {
		w.down = t.up(states) < p.threshold
		for _, m := range t.members {
			switch {
			case !m.inState(w):
			case m.in(tried):
				why = NoneUsable
			case full:
				return PoolFull
			case m.limit > 0:
				return BackendsFull
			}
			// One without a limit has come up since, or it would have been picked.
		}
	}
	if p.sticks != nil && client.IsValid() && p.keptFull(client, tried, full) {
		if full {
			return PoolFull
		}
		return KeptFull
	}
	return why
}

// Crowded returns which limit keeps out who comes while n others are about to be given the places that there are, as far as can be
// said while others come and go; AllDown where it is none.
func (p *Pool) Crowded(n int) Lack {
	lack := p.lack(netip.Addr{}, nil, p.limit > 0 && p.limit-p.Active() <= int64(n))
	if lack == AllDown && p.limit > 0 { // there is room by now, or nobody is up
		lack = p.lack(netip.Addr{}, nil, true)
	}
	return lack
}
