package balancer

import (
	"sync/atomic"

	"awe4lb/config"
)

// Backend is one address in one pool, for as long as any snapshot or session knows it. Compare by pointer.
type Backend struct {
	// Set once, never changed.
	Pool    string
	Address config.Address
	Name    string // Address as text
	id      uint64 // what entries of persistence have of it: a hash of Name, never 0
	live    *poolLive

	// Shared: atomics. The pool's configuration that says what becomes of those who are left; nil while b is configured.
	gone atomic.Pointer[config.Pool]

	// Shared: atomics that every pick reads and that seldom change.
	condition   atomic.Uint32 // see state.go
	failures    atomic.Int32  // in a row, of connecting: see outlier.go
	cuts        atomic.Int32  // in a row: reset before it said anything
	ejections   atomic.Int32  // since it was last well
	slack       atomic.Bool   // one of these was for its success rate
	ejected     [numCauses]atomic.Uint64
	weightOrder atomic.Int32         // what was ordered, plus 1; 0: nothing was
	percent     atomic.Int32         // of its weight, as its agent wants, plus 1; 0: it did not say
	ramp        atomic.Int64         // clock at which slow start began; 0: it is over
	seat        atomic.Pointer[seat] // in the picker that wants to hear of Release; nil: none does
	bandwidth   bandwidth            // of leastbandwidth
	judged      judged               // of success rates

	// Shared: atomics. On a cache line of their own: every shard writes here.
	_      [64]byte
	active atomic.Int64

	// Of leasttime: connections write them too.
	connect, answer latency

	_ [40]byte
}

func newBackend(pool string, address config.Address, live *poolLive) *Backend {
	b := &Backend{Pool: pool, Address: address, Name: address.String(), live: live}
	b.id = max(mix(hashText(b.Name)), 1)
	return b
}

// Gone returns nil while b is configured; afterwards the configuration of its pool that says what becomes of its sessions.
// Safe from any goroutine.
func (b *Backend) Gone() *config.Pool { return b.gone.Load() }

// Active returns the sessions that hold b now, those still connecting included. Safe from any goroutine.
func (b *Backend) Active() int64 { return b.active.Load() }

// Release gives back what Pool.Pick counted. Safe from any goroutine.
func (b *Backend) Release() {
	b.release()
	if b.live.counting.Load() {
		b.live.active.Add(-1)
	}
	b.live.roomMade()
}

// release gives back what acquire counted.
func (b *Backend) release() {
	n := b.active.Add(-1)
	if s := b.seat.Load(); s != nil {
		s.released(n)
	}
}

// acquire counts one more session on b unless that would be more than limit; 0 is no limit.
func (b *Backend) acquire(limit int64) bool {
	if limit == 0 {
		b.active.Add(1)
		return true
	}
	return countUpTo(&b.active, limit)
}

// countUpTo adds one to active unless that would be more than limit. To add first and take back what is too much would be
// shorter, but then somebody else may find no place in that moment, though one has come free.
func countUpTo(active *atomic.Int64, limit int64) bool {
	for {
		n := active.Load()
		if n >= limit {
			return false
		}
		if active.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Member is a backend in a snapshot: the identity, and what the configuration says of it at that time.
type Member struct {
	*Backend
	Config *config.Backend

	weight int64 // that pickers go by: see Pool.arrange
	limit  int64
}

// wish is what a session asks of a picker.
type wish struct {
	key   uint64     // of the client, for policies that go by it
	tried []*Backend // not these
	down  bool       // those that are down will do too

	// All members are usable, so that hot paths need not ask each: none has a limit, none was tried, and all were Up when the pick
	// began.
	anybody bool
}

// free reports whether m may be picked by whoever has tried nothing, as far as that shows at a glance: inlined, it is what
// hot paths ask before usable where not anybody will do (6 ns a pick).
func (m *Member) free() bool { return m.limit == 0 && m.condition.Load() == 0 }

// usable reports whether m may be picked now.
func (m *Member) usable(w wish) bool {
	return m.inState(w) && (m.limit == 0 || m.active.Load() < m.limit) && !m.in(w.tried)
}

// inState reports whether m is in a state in which it may be picked.
func (m *Member) inState(w wish) bool {
	c := m.condition.Load()
	return c == 0 || w.down && c&^(isDown|isEjected) == 0
}

// in reports whether m is among those tried.
func (m *Member) in(tried []*Backend) bool {
	for _, b := range tried {
		if b == m.Backend {
			return true
		}
	}
	return false
}
