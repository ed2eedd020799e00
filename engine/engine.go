package engine

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
)

// Options are what an Engine is made with.
type Options struct {
	Shards     int // event loops, at least 1
	ReadBuffer int // bytes, one buffer per shard
	Log        *slog.Logger

	// Access, if set, is handed every ended session while SetAccess(true) holds, on one goroutine of the engine; Flush
	// follows each run of them. The Record is only valid during the call.
	Access func(*Record)
	Flush  func()
}

// Engine is the data plane. It carries traffic as the director's snapshots say, and is the director's balancer.Plane.
type Engine struct {
	// Set once, never changed.
	director *balancer.Director
	shards   []*shard
	log      *slog.Logger
	rings    []*accessRing // by shard; nil without Options.Access
	trouble  chan syscall.Errno
	quit     chan struct{}
	running  sync.WaitGroup

	// Shared: atomics.
	sessions atomic.Int64 // open now, and those an accept is under way for
	limit    atomic.Int64 // of sessions
	draining atomic.Bool
	leaving  atomic.Int64 // listeners on the shards that go when their queues are empty

	// Guarded by mu.
	mu       sync.Mutex
	bindings map[bindKey]*bound
	closed   bool
}

// bindKey tells bindings apart. Port 0 is a new port for every frontend that asks.
type bindKey struct {
	address  config.Address
	frontend string // only for port 0
}

// bound is a binding and the frontend it serves.
type bound struct {
	*binding
	front *balancer.Frontend
}

// New makes an engine for the director's snapshots and starts its shards. It listens nowhere until the director applies
// a configuration.
func New(d *balancer.Director, o Options) (*Engine, error) {
	e := &Engine{director: d, log: o.Log, trouble: make(chan syscall.Errno, 16), quit: make(chan struct{}),
		bindings: map[bindKey]*bound{}}
	wake := make(chan struct{}, 1)
	for range o.Shards {
		sh, err := newShard(e, o.ReadBuffer)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.shards = append(e.shards, sh)
		if o.Access != nil {
			e.rings = append(e.rings, &accessRing{wake: wake})
		}
		e.running.Go(func() {
			if err := sh.loop.Run(); err != nil {
				panic(fmt.Sprintf("engine: a shard's loop ended: %v", err))
			}
		})
	}
	e.running.Go(e.reportTrouble)
	if o.Access != nil {
		e.running.Go(func() { accessLoop(e.rings, wake, e.quit, o.Access, o.Flush) })
	}
	return e, nil
}

// plan is a prepared change: see Prepare.
type plan struct {
	e       *Engine
	next    *balancer.Snapshot
	wanted  map[bindKey]*bound // what is listened on afterwards
	opened  []bindKey
	removed []*bound
}

// Prepare opens the listeners that next has and the engine has not. Sockets of addresses that stay are kept as they are,
// even when the address moves to another frontend. On error everything it opened is closed again, and the error, a
// *BindError for a listener, says which address could not be had.
func (e *Engine) Prepare(next *balancer.Snapshot) (balancer.Plan, error) {
	if err := learnZones(next.Config); err != nil {
		return nil, err
	}
	if err := checkSources(next.Config); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &plan{e: e, next: next, wanted: map[bindKey]*bound{}}
	for _, f := range next.Frontends {
		for _, a := range f.Config.Addresses {
			key := bindKey{address: a}
			if !a.IsUnix() && a.IP.Port() == 0 {
				key.frontend = f.Config.Name
			}
			if old := e.bindings[key]; old != nil {
				p.wanted[key] = &bound{old.binding, f}
				continue
			}
			b, err := openBinding(a, f.Config, len(e.shards), e.overlaps(a, p.wanted) || e.isLeaving(a))
			if err != nil {
				for _, key := range p.opened {
					p.wanted[key].close()
				}
				return nil, &BindError{f.Config.Name, a, err}
			}
			p.wanted[key] = &bound{b, f}
			p.opened = append(p.opened, key)
		}
	}
	for key, b := range e.bindings {
		if p.wanted[key] == nil {
			p.removed = append(p.removed, b)
		}
	}
	return p, nil
}

// overlaps reports whether one of our own sockets listens on a's port at a wildcard or at an address that a covers. Such
// a pair is legal: the kernel gives each client to the more specific one.
func (e *Engine) overlaps(a config.Address, wanted map[bindKey]*bound) bool {
	if a.IsUnix() {
		return false
	}
	for _, bs := range []map[bindKey]*bound{e.bindings, wanted} {
		for _, b := range bs {
			o := b.local.IP
			if !b.local.IsUnix() && o.Port() == a.IP.Port() && o.Addr().Is4() == a.IP.Addr().Is4() &&
				(o.Addr().IsUnspecified() || a.IP.Addr().IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

// Commit puts the listeners of the new snapshot on the shards and takes the others off. Clients that wait in the queue of
// a listener that goes are still served. It implements balancer.Plan.
func (p *plan) Commit() []balancer.Change {
	e := p.e
	e.mu.Lock()
	defer e.mu.Unlock()
	changes := []balancer.Change{}
	for _, key := range p.opened {
		changes = append(changes, balancer.Change{Kind: "listener", Name: p.wanted[key].local.String(), Action: "added"})
	}
	for key, b := range p.wanted {
		old := e.bindings[key]
		if old == nil {
			continue
		}
		if was, is := old.front.Config, b.front.Config; was.TCP != is.TCP || was.UnixMode != is.UnixMode {
			b.tune(is)
		}
		if old.front.Config.Name != b.front.Config.Name {
			changes = append(changes, balancer.Change{Kind: "listener", Name: b.local.String(), Action: "changed",
				Detail: fmt.Sprintf("from frontend %s to %s", old.front.Config.Name, b.front.Config.Name)})
		}
	}
	for _, b := range p.removed {
		changes = append(changes, balancer.Change{Kind: "listener", Name: b.local.String(), Action: "removed"})
	}
	engine := &p.next.Config.Engine
	e.warnFastOpen(p.next.Config)
	fds, pipes := e.budget(engine, p.wanted)
	e.limit.Store(fds)
	for i, sh := range e.shards {
		sh.loop.Call(func() {
			sh.splice = engine.Splice
			sh.pipes.resize(pipes)
			sh.listen(i, p.wanted)
			sh.prune(p.next)
		})
	}
	for _, b := range p.removed {
		b.close()
	}
	e.bindings = p.wanted
	return changes
}

// keptBack is the number of descriptors left to the rest of the process, the admin's clients above all; less where there
// are few.
const keptBack = 128

// budget divides the process' descriptors: the number of sessions at once and of splice pipes per shard.
func (e *Engine) budget(c *config.Engine, wanted map[bindKey]*bound) (sessions int64, pipes int) {
	nofile := openFiles()
	shards := len(e.shards)
	pipes = c.SplicePipes
	if !c.Splice {
		pipes = 0
	}
	pipes = min(pipes, nofile/8/2/shards) // pipes are a comfort: at most an eighth of all descriptors
	// What is neither session nor pipe: listeners, loops, logs, the admin and its clients.
	reserved := min(keptBack, nofile/4) + 4*shards + len(wanted)*shards + 2*pipes*shards
	sessions = max(int64(nofile-reserved)/2, 1)
	if want := int64(c.MaxConnections); want > sessions {
		e.log.Warn("engine.max_connections is more than the open files allow",
			"max_connections", want, "open_files", nofile, "sessions", sessions)
	} else if want > 0 {
		sessions = want
	}
	return sessions, pipes
}

// admit counts one more session, or reports that there is no room for it. Safe from any goroutine.
func (e *Engine) admit() bool {
	if e.sessions.Add(1) <= e.limit.Load() {
		return true
	}
	e.dismiss()
	e.complain(0)
	return false
}

// dismiss gives back what admit counted.
func (e *Engine) dismiss() { e.sessions.Add(-1) }

// complain has a cause for refusing clients logged, soon and not too often. Never blocks; safe from any goroutine.
func (e *Engine) complain(errno syscall.Errno) {
	select {
	case e.trouble <- errno:
	default:
	}
}

// reportTrouble logs complaints, at most one line a second.
func (e *Engine) reportTrouble() {
	for {
		select {
		case errno := <-e.trouble:
			if errno == 0 {
				e.log.Warn("session limit reached: new clients wait in the accept queue", "sessions", e.sessions.Load(),
					"limit", e.limit.Load())
			} else {
				e.log.Error("cannot accept: new clients wait in the accept queue", "error", error(errno),
					"sessions", e.sessions.Load())
			}
		case <-e.quit:
			return
		}
		select {
		case <-time.After(time.Second):
		case <-e.quit:
			return
		}
		for len(e.trouble) > 0 {
			<-e.trouble
		}
	}
}

// Listener is an address the engine listens on.
type Listener struct {
	Frontend string
	Address  config.Address // with the port the system chose where the configuration says 0
}

// Listeners returns what is listened on, by frontend in the order of the configuration.
func (e *Engine) Listeners() []Listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ls []Listener
	for _, f := range e.director.Snapshot().Frontends {
		for _, a := range f.Config.Addresses {
			for _, key := range []bindKey{{a, ""}, {a, f.Config.Name}} {
				if b := e.bindings[key]; b != nil {
					ls = append(ls, Listener{f.Config.Name, b.local})
				}
			}
		}
	}
	return ls
}

// Sessions returns the number of open sessions and how many are admitted at most. Safe from any goroutine.
func (e *Engine) Sessions() (open, limit int64) { return e.sessions.Load(), e.limit.Load() }

// Stats returns the counters summed over the shards, each of which is asked on its loop. It takes as long as the
// shards' present batches of events.
func (e *Engine) Stats() *Stats {
	s := &Stats{Frontends: map[string]*FrontendStats{}, Backends: map[*balancer.Backend]*BackendStats{},
		Pools: map[string]*PoolStats{}}
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			sh.prune(e.director.Snapshot())
			s.add(sh)
		})
	}
	return s
}

// SetAccess turns the access log on or off.
func (e *Engine) SetAccess(on bool) {
	for i, sh := range e.shards {
		sh.loop.Call(func() {
			sh.access = nil
			if on && e.rings != nil {
				sh.access = e.rings[i]
			}
		})
	}
}

// Close ends everything at once: sessions are reset, shards stop. It waits until the last goroutine has ended.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.closed = true
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			sh.listen(0, nil)
			sh.endAll(Killed)
			sh.turnAway(Killed)
			sh.pipes.resize(0)
		})
		sh.loop.Stop()
		<-sh.loop.Ended()
	}
	for _, b := range e.bindings {
		b.close()
	}
	e.bindings = nil
	close(e.quit)
	e.running.Wait()
}

// openFiles returns RLIMIT_NOFILE, which Go's runtime has raised to the hard limit.
func openFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(r.Cur, 1<<30))
}
