package balancer

import (
	"sync"
	"sync/atomic"

	"awe4lb/config"
)

// Plane carries traffic according to snapshots; the engine is one.
type Plane interface {
	// Prepare gets ready for next without changing what happens now: it opens what is new, listeners above all. When it
	// fails nothing is left behind.
	Prepare(next *Snapshot) (Plan, error)

	// BackendChanged acts on a change of b, which has happened: of its state, or whether it is configured. It must not block.
	BackendChanged(b *Backend)
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
	retired   []*Backend           // no longer configured, may still have sessions
	frontends map[string]*Frontend // all there ever were, as last configured
	orders    map[backendKey]orders

	history history

	// Guarded by staleMu: the pools whose pickers are about to be made anew.
	staleMu sync.Mutex
	stale   map[string]bool
}

// NewDirector returns a director with an empty snapshot and no plane.
func NewDirector() *Director {
	d := &Director{frontends: map[string]*Frontend{}, orders: map[backendKey]orders{}, stale: map[string]bool{}}
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
// and the error says why. It returns what changed. Blocks while another Apply runs.
func (d *Director) Apply(cfg *config.Config) (*Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.current.Load()
	known := identitiesOf(old)
	known.orders = d.orders
	for _, b := range d.retired {
		// A backend that comes back while its old sessions still run is the same backend.
		if key := (backendKey{b.Pool, b.Address}); known.backends[key] == nil && b.Active() > 0 {
			known.backends[key] = b
		}
	}
	for name, f := range d.frontends {
		known.frontends[name] = f.Live
	}
	next := build(cfg, old.Version+1, known)
	plan, err := d.plane.Prepare(next)
	if err != nil {
		return nil, err
	}
	startSlow(old, next)
	next.sit()
	d.current.Store(next)
	next.forgetHealth()
	next.forgetAdvice()
	report := &Report{Version: next.Version, Changes: compare(old, next), NeedRestart: needRestart(old, next)}
	report.Changes = append(report.Changes, plan.Commit()...)
	d.retire(old, next)
	d.remember(next)
	return report, nil
}

// retire remembers the backends that next no longer has and forgets those that have no session left. The plane hears of those
// that went and those that came back.
func (d *Director) retire(old, next *Snapshot) {
	kept := identitiesOf(next).backends
	was := d.retired
	d.retired = nil
	for _, b := range was {
		switch {
		case kept[backendKey{b.Pool, b.Address}] == b:
			b.gone.Store(nil)
			d.tell(b) // it is back
		case b.Active() > 0:
			d.retired = append(d.retired, b)
		}
	}
	if old == next {
		return
	}
	for _, p := range old.Pools {
		for _, m := range p.Members {
			if b := m.Backend; kept[backendKey{b.Pool, b.Address}] != b {
				if b.Active() > 0 {
					d.retired = append(d.retired, b)
				}
				last := p
				if next.Pool(b.Pool) != nil {
					last = next.Pool(b.Pool)
				}
				b.gone.Store(last.Config)
				d.tell(b)
			}
		}
	}
}

// Retired returns the backends that are no longer configured and still have sessions. Safe from any goroutine.
func (d *Director) Retired() []*Backend {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retire(d.current.Load(), d.current.Load())
	return append([]*Backend(nil), d.retired...)
}
