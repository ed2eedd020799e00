package balancer

import (
	"maps"
	"sync"
	"sync/atomic"
	"weak"

	"awe4lb/config"
)

// Plane carries traffic according to snapshots; the engine is one.
type Plane interface {
	// Prepare gets ready for next without changing what happens now: it opens what is new, listeners above all. When it
	// fails nothing is left behind.
	Prepare(next *Snapshot) (Plan, error)

	// Preview returns what Commit would say after Prepare, or why Prepare would fail. It changes nothing, and opens nothing
	// that could take a client.
	Preview(next *Snapshot) ([]Change, error)

	// Still runs f, twice at the worst, while nothing picks or releases a backend.
	Still(f func())

	// BackendChanged acts on a change of b, which has happened: of its state, or whether it is configured. It must not block.
	BackendChanged(b *Backend)

	// PrepareMembers gets ready for members of pool that were not there before, before they are published. The pool is of a
	// snapshot that differs from the one in force in nothing but the members of this pool, and has what the plane attached.
	// There is nothing that could fail: a backend that cannot be reached fails when it is connected to.
	PrepareMembers(pool *Pool)

	// CommitMembers follows a change of the members of a pool after it has been published. gone are those that are no longer
	// members: they may still have sessions. It does not wait for shards.
	CommitMembers(pool string, gone []*Backend)
}

// Plan is a prepared change of a Plane.
type Plan interface {
	// Commit makes the change, after next has been published, and says what it did. It cannot fail.
	Commit() []Change
}

// Director is the single writer of the snapshot. Make one with NewDirector.
type Director struct {
	// Shared: atomics.
	current atomic.Pointer[Snapshot]

	// Guarded by mu.
	mu        sync.Mutex
	plane     Plane
	rosters   map[string]roster       // by pool
	retired   []*Backend              // no longer members, may still have sessions
	former    []weak.Pointer[Backend] // no longer members, had no session; whoever holds an old snapshot may still begin one
	frontends map[string]*Frontend    // all there ever were, as last configured
	orders    map[backendKey]orders

	history history

	// Guarded by staleMu: the pools whose pickers are about to be made anew.
	staleMu sync.Mutex
	stale   map[string]bool
}

// NewDirector returns a director with an empty snapshot and no plane.
func NewDirector() *Director {
	d := &Director{rosters: map[string]roster{}, frontends: map[string]*Frontend{}, orders: map[backendKey]orders{}, stale: map[string]bool{}}
	d.current.Store(build(new(config.Config), 0, identities{}))
	return d
}

// Drive makes p follow every snapshot from now on.
func (d *Director) Drive(p Plane) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plane = p
}

// Snapshot returns the current snapshot, never nil. Safe from any goroutine; one atomic load.
func (d *Director) Snapshot() *Snapshot { return d.current.Load() }

// Apply makes cfg the running configuration, all or nothing: when the plane cannot prepare for it, nothing has changed
// and the error says why. It returns what changed. Pools keep the backends that were found for them, as long as they have
// discovery. Blocks while another change is made.
func (d *Director) Apply(cfg *config.Config) (*Report, error) { return d.ApplyFound(cfg, nil) }

// ApplyFound is Apply with the backends that discovery has found for some pools, in the place of those they had.
func (d *Director) ApplyFound(cfg *config.Config, found map[string][]*config.Backend) (*Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.current.Load()
	next, known := d.candidate(cfg, found)
	plan, err := d.plane.Prepare(next)
	if err != nil {
		return nil, err
	}
	d.beginCounting(next, known)
	for _, p := range next.Pools {
		startSlow(old.Pool(p.Config.Name), p)
	}
	next.sit()
	next.keepSticks()
	d.current.Store(next)
	d.rosters = known.rosters
	next.forgetHealth()
	next.forgetAdvice()
	report := reportOf(old, next)
	report.Changes = append(report.Changes, plan.Commit()...)
	d.retire(old, next, membersOf(old.Pools...))
	d.remember(next)
	return report, nil
}

// Preview returns what Apply would, as far as that shows beforehand, and changes nothing. Blocks while a change is made.
func (d *Director) Preview(cfg *config.Config) (*Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.current.Load()
	next, _ := d.candidate(cfg, nil)
	changes, err := d.plane.Preview(next)
	if err != nil {
		return nil, err
	}
	report := reportOf(old, next)
	report.Changes = append(report.Changes, changes...)
	return report, nil
}

// candidate builds the snapshot that follows the current one, and returns what it takes over. d.mu is held.
func (d *Director) candidate(cfg *config.Config, found map[string][]*config.Backend) (*Snapshot, identities) {
	old := d.current.Load()
	d.revive()
	known := identitiesOf(old)
	known.orders = d.orders
	for _, b := range d.retired {
		// A backend that comes back while its old sessions still run is the same backend.
		if key := (backendKey{b.Pool, b.Address}); known.backends[key] == nil && b.Active() > 0 {
			known.backends[key] = b
		}
		if known.pools[b.Pool] == nil && b.Active() > 0 {
			known.pools[b.Pool] = b.live // a pool comes back while its sessions go on, and counts them
		}
	}
	for name, f := range d.frontends {
		known.frontends[name] = f.Live
	}
	known.rosters = d.rostersFor(cfg, found)
	return build(cfg, old.Version+1, known), known
}

// beginCounting has the pools of next that now have a limit count their sessions. Pools without one are spared that, a third of
// what a pick costs; so those who are there are counted while nobody comes or goes. d.mu is held.
func (d *Director) beginCounting(next *Snapshot, known identities) {
	var pools []*Pool
	for _, p := range next.Pools {
		if p.limit > 0 && !p.live.counting.Load() {
			pools = append(pools, p)
		}
	}
	if pools == nil {
		return
	}
	d.plane.Still(func() {
		all := map[*Backend]bool{}
		for _, b := range known.backends {
			all[b] = true
		}
		d.revive()
		for _, b := range d.retired {
			all[b] = true
		}
		for _, p := range pools {
			n := int64(0)
			for b := range all {
				if b.live == p.live {
					n += b.Active()
				}
			}
			p.live.active.Store(n)
			p.live.counting.Store(true)
		}
	})
}

// rostersFor returns the rosters of the pools of cfg. d.mu is held.
func (d *Director) rostersFor(cfg *config.Config, found map[string][]*config.Backend) map[string]roster {
	rosters := map[string]roster{}
	for _, p := range cfg.Pools {
		if p.Discovery == nil {
			continue
		}
		r := d.rosters[p.Name]
		if list, other := found[p.Name]; other {
			r.found = list
		}
		rosters[p.Name] = r
	}
	return rosters
}

// SetBackends makes list the backends that discovery has found for a pool, beside those that the configuration names. Only
// that pool is built anew. A backend that was a member before is the same one, with its counters and its state; one that
// vanishes gets no new sessions, and those it has go on. It returns what changed; nothing happens in a pool that is not
// there or has no discovery, or when the list says nothing new. list is not to be changed any more. Blocks while another
// change is made, and never for shards.
func (d *Director) SetBackends(pool string, list []*config.Backend) []Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.current.Load().Pool(pool)
	if p == nil || p.Config.Discovery == nil {
		return nil
	}
	r := d.rosters[pool]
	r.found = list
	d.rosters[pool] = r
	return d.renew(p)
}

// renew publishes a snapshot in which a pool has the members of its roster. d.mu is held.
func (d *Director) renew(was *Pool) (changes []Change) {
	old, name := d.current.Load(), was.Config.Name
	d.revive()
	known := identities{pools: map[string]*poolLive{}, orders: d.orders, backends: make(map[backendKey]*Backend, len(was.Members))}
	known.addPool(was)
	for _, b := range d.retired {
		if key := (backendKey{b.Pool, b.Address}); b.Pool == name && known.backends[key] == nil && b.Active() > 0 {
			known.backends[key] = b
		}
	}
	p := buildPool(was.Config, d.rosters[name].backends(was.Config), hereOf(old.Config), known)
	p.Attached = was.Attached
	compareMembers(was, p, func(kind, name, action, detail string) {
		changes = append(changes, Change{kind, name, action, detail})
	})
	if len(changes) == 0 {
		return nil
	}
	next := old.with(p)
	d.plane.PrepareMembers(p)
	startSlow(was, p)
	p.sit(*p.tiers.Load())
	d.current.Store(next)
	p.forgetHealth()
	var gone []*Backend
	for _, m := range was.Members {
		if now := p.members[m.Address]; now == nil || now.Backend != m.Backend {
			gone = append(gone, m.Backend)
		}
	}
	d.plane.CommitMembers(name, gone)
	d.retire(old, next, gone)
	return changes
}

// with returns a snapshot as s with p in the place of the pool of that name. Nothing but what leads to p is made anew.
func (s *Snapshot) with(p *Pool) *Snapshot {
	name := p.Config.Name
	was := s.pools[name]
	next := *s
	next.pools = maps.Clone(s.pools)
	next.pools[name] = p
	next.Pools = make([]*Pool, len(s.Pools))
	for i, o := range s.Pools {
		next.Pools[i] = next.pools[o.Config.Name]
	}
	next.frontends = maps.Clone(s.frontends)
	next.Frontends = make([]*Frontend, len(s.Frontends))
	for i, f := range s.Frontends {
		f = f.leadingTo(was, p)
		next.Frontends[i], next.frontends[f.Config.Name] = f, f
	}
	return &next
}

func membersOf(pools ...*Pool) []*Backend {
	var all []*Backend
	for _, p := range pools {
		for _, m := range p.Members {
			all = append(all, m.Backend)
		}
	}
	return all
}

// retire remembers those of left, which were members in old, that are none in next, and forgets those that have no session left.
// The plane hears of those that went and of those that came back.
func (d *Director) retire(old, next *Snapshot, left []*Backend) {
	d.revive()
	was := d.retired
	d.retired = nil
	for _, b := range was {
		switch {
		case next.Has(b):
			b.gone.Store(nil)
			d.tell(b) // it is back
		default:
			d.keepRetired(b)
		}
	}
	for _, b := range left {
		if next.Has(b) {
			continue
		}
		last := old.Pool(b.Pool)
		if next.Pool(b.Pool) != nil {
			last = next.Pool(b.Pool)
		}
		b.gone.Store(last.Config)
		d.keepRetired(b)
		d.tell(b)
	}
}

// keepRetired remembers b, which is no longer a member: for as long as it has sessions, or somebody else knows it. d.mu is held.
func (d *Director) keepRetired(b *Backend) {
	if b.Active() > 0 {
		d.retired = append(d.retired, b)
		return
	}
	d.former = append(d.former, weak.Make(b))
}

// revive finds those that have got a session since they were retired, of somebody who had an older snapshot, and forgets those
// that nobody can pick any more. d.mu is held.
func (d *Director) revive() {
	left := d.former[:0]
	for _, w := range d.former {
		switch b := w.Value(); {
		case b == nil:
		case b.Active() > 0:
			d.retired = append(d.retired, b)
		default:
			left = append(left, w)
		}
	}
	clear(d.former[len(left):])
	d.former = left
}

// Retired returns the backends that are no longer members of their pool and still have sessions. Safe from any goroutine.
func (d *Director) Retired() []*Backend {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retire(d.current.Load(), d.current.Load(), nil)
	return append([]*Backend(nil), d.retired...)
}
