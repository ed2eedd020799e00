package balancer

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"awe4lb/config"
)

// Snapshot is one consistent view of what to do with connections. Immutable.
type Snapshot struct {
	Version   uint64 // of the configuration: 1, 2, 3 … in the order of applying. Changes of members keep it
	Config    *config.Config
	Frontends []*Frontend // in the order of the configuration
	Pools     []*Pool     // in the order of the configuration

	frontends map[string]*Frontend
	pools     map[string]*Pool
}

// Frontend returns the frontend of that name, or nil.
func (s *Snapshot) Frontend(name string) *Frontend { return s.frontends[name] }

// Pool returns the pool of that name, or nil.
func (s *Snapshot) Pool(name string) *Pool { return s.pools[name] }

// Has reports whether b is a member of its pool.
func (s *Snapshot) Has(b *Backend) bool {
	p := s.pools[b.Pool]
	if p == nil {
		return false
	}
	m := p.members[b.Address]
	return m != nil && m.Backend == b
}

// Frontend is a frontend in a snapshot.
type Frontend struct {
	Config *config.Frontend
	Live   *FrontendLive

	// Attached is what the plane keeps for it: set while it prepares, before the snapshot is published, and not changed then.
	Attached any

	// Guard is the same for who may come.
	Guard any

	routes routes
	pool   *Pool // when no route matches; may be nil
}

// FrontendLive is what of a frontend outlives snapshots.
type FrontendLive struct {
	_      [64]byte
	active atomic.Int64
	turn   atomic.Uint64 // of unknown_name = "any"
	_      [48]byte
}

// Active returns the sessions open now. Safe from any goroutine.
func (f *FrontendLive) Active() int64 { return f.active.Load() }

// Acquire counts one more session unless that would be more than limit; 0 is no limit. Safe from any goroutine.
func (f *FrontendLive) Acquire(limit int) bool {
	if limit == 0 {
		f.active.Add(1)
		return true
	}
	return countUpTo(&f.active, int64(limit))
}

// Release gives back what Acquire counted. Safe from any goroutine.
func (f *FrontendLive) Release() { f.active.Add(-1) }

// Pool is a pool in a snapshot. Its pickers may be exchanged: see weight.go.
type Pool struct {
	Config  *config.Pool
	Members []*Member // in the order of the configuration, then those of others: see roster

	Attached any // see Frontend.Attached

	members   map[config.Address]*Member
	live      *poolLive
	us        here
	threshold int   // percent; see choose
	limit     int64 // sessions and flows at once; 0 is no limit
	keyed     keyed
	sticks    *sticks // nil: no persistence

	// Written by the Director, read by every pick: the tiers in the order in which they are asked.
	tiers atomic.Pointer[[]*tier]
}

// Member returns the member at an address, or nil.
func (p *Pool) Member(address config.Address) *Member { return p.members[address] }

// poolLive is what of a pool outlives snapshots, so that a reload does not send the next connection to the first
// backend again.
type poolLive struct {
	sticks *stickTable // owned by the director; nil: no persistence

	// Shared: atomics that seldom change.
	states atomic.Uint64 // counts the changes of states of backends: a generation
	panics atomic.Uint64 // picks in panic

	judgeAt atomic.Int64 // clock at which Judge is due; 0: it was never called

	eachRate atomic.Uint64 // of leastbandwidth: float64 bytes a second of the average session

	queue atomic.Pointer[Queue] // nil until the pool first has one; stays then

	counting atomic.Bool // active counts: the pool has, or once had, a limit

	// Shared: atomics that every pick may write.
	_      [64]byte
	turn   atomic.Uint64
	chance atomic.Uint64
	active atomic.Int64 // sessions and flows on the pool's backends, those no longer configured included; while counting
	_      [40]byte
}

func newPoolLive() *poolLive {
	l := new(poolLive)
	l.chance.Store(rand.Uint64())
	return l
}

// random returns 64 random bits: wyrand (Wang Yi, 2019) on a counter that all shards share. Alone it takes half the time of
// math/rand's.
func (l *poolLive) random() uint64 {
	x := l.chance.Add(0xa0761d6478bd642f)
	hi, lo := bits.Mul64(x, x^0xe7037ed1a0b428db)
	return hi ^ lo
}

// PanicPicks returns how often a backend was picked whether down or not, because too few were up. Safe from any goroutine.
func (p *Pool) PanicPicks() uint64 { return p.live.panics.Load() }

// Active returns the sessions and flows that hold a backend of p now; with max_connections those of backends no longer
// configured are among them. Safe from any goroutine.
func (p *Pool) Active() (n int64) {
	if p.live.counting.Load() {
		return p.live.active.Load()
	}
	for _, m := range p.Members {
		n += m.Active()
	}
	return n
}
