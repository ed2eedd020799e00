package balancer

import (
	"sync/atomic"

	"awe4lb/config"
)

// Snapshot is one consistent view of what to do with connections. Immutable.
type Snapshot struct {
	Version   uint64 // 1, 2, 3 … in the order of publishing
	Config    *config.Config
	Frontends []*Frontend // in the order of the configuration
	Pools     []*Pool     // in the order of the configuration

	frontends map[string]*Frontend
	pools     map[string]*Pool
	backends  map[*Backend]bool
}

// Frontend returns the frontend of that name, or nil.
func (s *Snapshot) Frontend(name string) *Frontend { return s.frontends[name] }

// Pool returns the pool of that name, or nil.
func (s *Snapshot) Pool(name string) *Pool { return s.pools[name] }

// Has reports whether b is configured.
func (s *Snapshot) Has(b *Backend) bool { return s.backends[b] }

// Frontend is a frontend in a snapshot.
type Frontend struct {
	Config *config.Frontend
	Live   *FrontendLive

	// Attached is what the plane keeps for it: set while it prepares, before the snapshot is published, and not changed then.
	Attached any

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
	if n := f.active.Add(1); limit > 0 && n > int64(limit) {
		f.active.Add(-1)
		return false
	}
	return true
}

// Release gives back what Acquire counted. Safe from any goroutine.
func (f *FrontendLive) Release() { f.active.Add(-1) }

// Pool is a pool in a snapshot.
type Pool struct {
	Config  *config.Pool
	Members []*Member // in the order of the configuration

	Attached any // see Frontend.Attached

	live  *poolLive
	tiers []picker // lowest priority number first
}

// poolLive is what of a pool outlives snapshots, so that a reload does not send the next connection to the first
// backend again.
type poolLive struct {
	_    [64]byte
	turn atomic.Uint64
	_    [56]byte
}

// Pick returns a backend with one session or flow counted on it, which the caller gives back with Release, or nil when no
// backend is usable: all are in tried, at their limit, or have weight 0. key is ClientKey of the client. The tier with the
// lowest priority number that has a usable backend serves. Safe from any goroutine; never blocks or allocates.
func (p *Pool) Pick(key uint64, tried []*Backend) *Backend {
	for _, tier := range p.tiers {
		// Between picking and counting another shard may take the last place. Then that backend is no longer usable and the
		// next round finds another.
		for m := tier.pick(key, tried); m != nil; m = tier.pick(key, tried) {
			if m.acquire(m.limit) {
				return m.Backend
			}
		}
	}
	return nil
}
