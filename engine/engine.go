package engine

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"awe4lb/acl"
	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine/loop"
	"awe4lb/tlsbridge"
	"awe4lb/tlsbridge/certs"
)

// Options are what an Engine is made with.
type Options struct {
	Shards     int // event loops, at least 1
	ReadBuffer int // bytes, one buffer per shard

	// KeepCalm has the shards keep their processors while traffic comes (loop.Calm): for a process in which hardly anything but
	// the engine runs. Other goroutines then wait, for 10 to 20 ms, each time that they have waited for the network.
	KeepCalm bool

	Log *slog.Logger

	// Access, if set, is handed every ended session while SetAccess(true) holds, on one goroutine of the engine; Flush
	// follows each run of them. The Record is only valid during the call.
	Access func(*Record)
	Flush  func()

	// Certificates are what TLS tables name; needed as soon as there is one.
	Certificates *certs.Keeper

	// Challenge, if set, returns the answer to an HTTP-01 challenge of an ACME server. It must not block.
	Challenge func(token string) (text string, ok bool)
}

// Engine is the data plane. It carries traffic as the director's snapshots say, and is the director's balancer.Plane.
type Engine struct {
	// Set once, never changed.
	director  *balancer.Director
	shards    []*shard
	log       *slog.Logger
	rings     []*accessRing // by shard; nil without Options.Access
	trouble   chan complaint
	failing   chan complaint      // about a backend: apart, so that one of them does not keep the others from being heard
	ejections chan balancer.Event // by shards: see recordEjections
	left      chan struct{}       // the last flow of a UDP listener that is no longer configured has ended
	measured  chan struct{}       // there is a pool that wants to be measured
	quit      chan struct{}
	running   sync.WaitGroup
	calm      *loop.Calm // nil without Options.KeepCalm, or where the kernel does not count
	epoch     time.Time  // zero of clock
	ports     []uint16   // that flows may leave from
	keeper    *certs.Keeper
	challenge func(token string) (string, bool)
	lists     *acl.Keeper

	// Shared: atomics.
	sessions    atomic.Int64 // open now, and those an accept is under way for
	limit       atomic.Int64 // of sessions
	rate, burst atomic.Int64 // of new sessions; a second, at once
	begun       bucket       // of new sessions
	flows       atomic.Int64 // open now
	sockets     atomic.Int64 // of flows, open now
	socketLimit atomic.Int64
	draining    atomic.Bool
	cutting     atomic.Bool                       // and its time is up: those that are left are being ended
	leaving     atomic.Int64                      // listeners on the shards that go when their queues are empty
	lingering   atomic.Int64                      // clients who are being told why they were turned away
	workers     atomic.Pointer[tlsbridge.Workers] // nil until there is TLS

	// Guarded by gatesMu: those who ask for the counters do not wait for files that Prepare reads.
	gatesMu sync.Mutex
	gates   map[string]*gate // by frontend

	// Guarded by pacesMu: by pool, what bounds the pace at which sessions of its backends end.
	pacesMu sync.Mutex
	paces   map[string]*bucket

	// Guarded by mu.
	mu       sync.Mutex
	bindings map[bindKey]*bound
	retired  map[bindKey]*bound    // UDP, no longer configured, with flows that still use the sockets
	rates    map[string]*rateTable // by frontend
	guards   map[string]*guard     // by frontend, of the snapshot in force: the next takes over what they count
	caps     map[string]*caps      // by frontend, of all that ever had some
	closed   bool
}

// bindKey tells bindings apart. Port 0 is a new port for every frontend that asks, each time.
type bindKey struct {
	udp     bool
	address config.Address

	// Only for port 0.
	frontend string
	nth      int // of those in its bind that have the same address
}

// keysOf returns the keys of f's addresses, in order.
func keysOf(f *config.Frontend) []bindKey {
	keys := make([]bindKey, 0, len(f.Addresses))
	var free map[config.Address]int
	for _, a := range f.Addresses {
		key := bindKey{udp: f.IsUDP(), address: a}
		if !a.IsUnix() && a.IP.Port() == 0 {
			if free == nil {
				free = map[config.Address]int{}
			}
			key.frontend, key.nth = f.Name, free[a]
			free[a]++
		}
		keys = append(keys, key)
	}
	return keys
}

// bound is a binding and the frontend it serves.
type bound struct {
	*binding
	front *balancer.Frontend
	rate  *rateTable      // of new flows; nil without a limit
	gate  *tlsbridge.Gate // for those who have to say something before they are routed; nil without a limit
}

// New makes an engine for the director's snapshots and starts its shards. It listens nowhere until the director applies
// a configuration.
func New(d *balancer.Director, o Options) (*Engine, error) {
	e := &Engine{director: d, log: o.Log, trouble: make(chan complaint, 16), failing: make(chan complaint, 16), ejections: make(chan balancer.Event, 256), left: make(chan struct{}, 1), quit: make(chan struct{}),
		measured: make(chan struct{}, 1),
		epoch:    time.Now(), ports: localPorts(), bindings: map[bindKey]*bound{}, retired: map[bindKey]*bound{}, rates: map[string]*rateTable{},
		gates: map[string]*gate{}, paces: map[string]*bucket{}, caps: map[string]*caps{}, keeper: o.Certificates, challenge: o.Challenge}
	e.lists = acl.NewKeeper(o.Log, e.listsChanged)
	wake := make(chan struct{}, 1)
	err := e.makeShards(o)
	for _, sh := range e.shards {
		if o.Access != nil {
			e.rings = append(e.rings, &accessRing{wake: wake})
		}
		e.running.Go(func() {
			if err := sh.loop.Run(); err != nil {
				panic(fmt.Sprintf("engine: a shard's loop ended: %v", err))
			}
		})
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	e.running.Go(func() { e.reportTrouble(e.trouble) })
	e.running.Go(func() { e.reportTrouble(e.failing) })
	e.running.Go(e.closeLeft)
	e.running.Go(e.measure)
	e.running.Go(e.recordEjections)
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
	was     map[bindKey]*bound // what of it is listened on before
	opened  []bindKey
	removed map[bindKey]*bound
	tls     *certs.Set // nil: there is no TLS, and was none
	lists   *acl.Set
	guards  map[string]*guard
}

// Prepare opens the listeners that next has and the engine has not. Sockets of addresses that stay are kept as they are,
// even when the address moves to another frontend. On error everything it opened is closed again, and the error, a
// *BindError for a listener, says which address could not be had.
func (e *Engine) Prepare(next *balancer.Snapshot) (balancer.Plan, error) {
	if err := checkHost(next.Config); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	set, err := e.prepareTLS(next)
	if err != nil {
		return nil, err
	}
	lists, guards, err := e.prepareGuards(next)
	if err != nil {
		return nil, err
	}
	p := &plan{e: e, next: next, tls: set, lists: lists, guards: guards, wanted: map[bindKey]*bound{}, was: map[bindKey]*bound{}, removed: maps.Clone(e.bindings)}
	stay := takeOver(e.bindings, next, nil)
	back := takeOver(e.retired, next, stay)
	for _, f := range next.Frontends {
		for _, key := range keysOf(f.Config) {
			a := key.address
			if was, ok := stay[key]; ok {
				p.was[key] = e.bindings[was]
				p.wanted[key] = &bound{binding: e.bindings[was].binding, front: f}
				delete(p.removed, was)
				continue
			}
			p.opened = append(p.opened, key)
			if old := e.retired[back[key]]; old != nil {
				p.wanted[key] = &bound{binding: old.binding, front: f} // it comes back before its last flow has ended
				continue
			}
			b, err := openBinding(a, f.Config, len(e.shards), e.overlaps(a, key.udp, p.wanted) || !key.udp && e.isLeaving(a))
			if err != nil {
				for _, key := range p.opened[:len(p.opened)-1] {
					if e.retired[back[key]] == nil {
						p.wanted[key].close()
					}
				}
				return nil, &BindError{f.Config.BindKey(a), f.Config.Name, a, key.udp, err}
			}
			p.wanted[key] = &bound{binding: b, front: f}
		}
	}
	for _, key := range p.opened {
		delete(e.retired, back[key]) // Commit follows for sure
	}
	for _, pool := range next.Pools {
		e.openQueue(pool)
	}
	return p, nil
}

// Still runs f while every shard stands still, for some 100 us. It implements balancer.Plane.
func (e *Engine) Still(f func()) { still(e.shards, f) }

func still(shards []*shard, f func()) {
	if len(shards) == 0 {
		f()
		return
	}
	if !shards[0].loop.Call(func() { still(shards[1:], f) }) { // it has ended
		still(shards[1:], f)
	}
}

// overlaps reports whether one of our own sockets listens on a's port at a wildcard or at an address that a covers. Such
// a pair is legal: the kernel gives each client to the more specific one.
func (e *Engine) overlaps(a config.Address, udp bool, wanted map[bindKey]*bound) bool {
	if a.IsUnix() {
		return false
	}
	for _, bs := range []map[bindKey]*bound{e.bindings, e.retired, wanted} {
		for _, b := range bs {
			o := b.local.IP
			if b.udp == udp && !b.local.IsUnix() && o.Port() == a.IP.Port() && o.Addr().Is4() == a.IP.Addr().Is4() &&
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
		old := p.was[key]
		if b.udp {
			b.rate = e.rateOf(b.front.Config)
			if old == nil || old.front.Config.UDP.ReceiveBuffer != b.front.Config.UDP.ReceiveBuffer {
				defer e.checkReceiveBuffer(b)
			}
		}
		if old == nil {
			continue
		}
		if was, is := old.front.Config, b.front.Config; !b.udp && (was.TCP != is.TCP || was.UnixMode != is.UnixMode) {
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
	for name := range e.rates {
		if f := p.next.Frontend(name); f == nil || !f.Config.IsUDP() || f.Config.UDP.NewFlowRate == 0 {
			delete(e.rates, name)
		}
	}
	e.commitTLS(p)
	e.lists.Commit(p.lists)
	e.commitCaps(p.guards)
	e.guards = p.guards
	engine := &p.next.Config.Engine
	e.warnFastOpen(p.next.Config)
	room := e.budget(p.next.Config, len(p.wanted))
	e.limit.Store(room.sessions)
	e.burst.Store(int64(burstOf(engine.ConnectionRate, engine.ConnectionBurst)))
	e.rate.Store(int64(engine.ConnectionRate))
	e.socketLimit.Store(room.sockets)
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			sh.splice = engine.Splice
			sh.pipes.resize(room.pipes)
			sh.maxLingers = room.lingers
			sh.listen(p.wanted)
			if sh.flows != nil {
				sh.flows.follow(p.next)
			}
			sh.followQueues(p.next)
			sh.prune(p.next)
		})
	}
	callQueues(p.next)
	for key, b := range p.removed {
		if b.udp {
			for e.retired[key] != nil { // another one of port 0
				key.nth++
			}
			e.retired[key] = b
		} else {
			b.close()
		}
	}
	e.bindings = p.wanted
	e.sweep()
	if pools, judged, _ := measuredPools(p.next); len(pools)+judged > 0 {
		select {
		case e.measured <- struct{}{}:
		default:
		}
	}
	return changes
}

// rateOf returns the table that bounds new flows of a frontend, nil when nothing does.
func (e *Engine) rateOf(f *config.Frontend) *rateTable {
	if f.UDP.NewFlowRate == 0 {
		return nil
	}
	t := e.rates[f.Name]
	if t == nil {
		t = new(rateTable)
		e.rates[f.Name] = t
	}
	return t
}

// admit counts one more session, or reports that there is no room for it. Safe from any goroutine.
func (e *Engine) admit() bool {
	if e.sessions.Add(1) <= e.limit.Load() {
		return true
	}
	e.dismiss()
	e.complain(complaint{what: "session limit reached: new clients wait in the accept queue"})
	return false
}

// afford takes one more session from engine.connection_rate, or reports that there have been too many. Safe from any
// goroutine; one load without such a rate.
func (e *Engine) afford() bool {
	rate := e.rate.Load()
	return rate == 0 || e.begun.allow(e.clock(), int(rate), max(int(e.burst.Load()), 1))
}

// dismiss gives back what admit counted.
func (e *Engine) dismiss() { e.sessions.Add(-1) }

// complaint is a cause for refusing clients.
type complaint struct {
	what  string
	errno syscall.Errno // 0: it is a limit that was met

	about, detail string // a backend and what is wrong with it; "" for other complaints
}

// complain has a cause for refusing clients logged, soon and not too often. Never blocks; safe from any goroutine.
func (e *Engine) complain(c complaint) {
	to := e.trouble
	if c.about != "" {
		to = e.failing
	}
	select {
	case to <- c:
	default:
	}
}

// reportTrouble logs what comes from, at most one line a second.
func (e *Engine) reportTrouble(from <-chan complaint) {
	for {
		select {
		case c := <-from:
			sessions, flows := e.sessions.Load(), e.flows.Load()
			switch {
			case c.about != "":
				e.log.Warn(c.what, "backend", c.about, "error", c.detail)
			case c.errno == 0:
				e.log.Warn(c.what, "sessions", sessions, "session_limit", e.limit.Load(), "flows", flows, "flow_socket_limit", e.socketLimit.Load())
			default:
				e.log.Error(c.what, "error", error(c.errno), "sessions", sessions, "flows", flows)
			}
		case <-e.quit:
			return
		}
		select {
		case <-time.After(time.Second):
		case <-e.quit:
			return
		}
		for len(from) > 0 {
			<-from
		}
	}
}

// clock returns the time since the engine was made, in nanoseconds: one clock for all shards. Safe from any goroutine.
func (e *Engine) clock() int64 { return int64(time.Since(e.epoch)) }

// Listener is an address the engine listens on.
type Listener struct {
	Frontend string
	Protocol string         // tcp or udp
	Address  config.Address // with the port the system chose where the configuration says 0
}

// Listeners returns what is listened on, by frontend in the order of the configuration.
func (e *Engine) Listeners() []Listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ls []Listener
	for _, f := range e.director.Snapshot().Frontends {
		for _, key := range keysOf(f.Config) {
			if b := e.bindings[key]; b != nil {
				ls = append(ls, Listener{f.Config.Name, f.Config.Protocol, b.local})
			}
		}
	}
	return ls
}

// Sessions returns the number of open sessions and how many are admitted at most. Safe from any goroutine.
func (e *Engine) Sessions() (open, limit int64) { return e.sessions.Load(), e.limit.Load() }

// Flows returns the number of open flows, and how many that have a socket of their own are admitted at most. Safe from any
// goroutine.
func (e *Engine) Flows() (open, limit int64) { return e.flows.Load(), e.socketLimit.Load() }

// Stats returns the counters summed over the shards, each of which is asked on its loop. It takes as long as the
// shards' present batches of events. With many backends, what is told of one may be a moment older than of another.
func (e *Engine) Stats() *Stats {
	s := &Stats{Frontends: map[string]*FrontendStats{}, Backends: map[*balancer.Backend]*BackendStats{},
		Pools: map[string]*PoolStats{}, HalfOpen: map[string]int{}, Sources: map[string]int{}}
	for _, f := range e.director.Snapshot().Frontends {
		if g := guardOf(f); g != nil && g.sources != nil {
			s.Sources[f.Config.Name] = g.sources.tracked()
		}
	}
	if w := e.workers.Load(); w != nil {
		s.Workers = w.Stats()
	}
	e.gatesMu.Lock()
	for name, g := range e.gates {
		s.HalfOpen[name] = g.Stats().Inside
	}
	e.gatesMu.Unlock()
	for _, t := range e.tallies() {
		s.add(&t)
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

// Close ends everything at once: sessions are reset, flows end, shards stop. It waits until the last goroutine has ended.
func (e *Engine) Close() {
	if !e.close() {
		return
	}
	close(e.quit)
	e.running.Wait()
}

// close does what Close does but for the engine's other goroutines, which may want mu. It returns false when that has been
// done already.
func (e *Engine) close() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.closed = true
	e.lists.Close() // it posts to the loops
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			sh.listen(nil)
			sh.endAll(Killed)
			sh.turnAway(Killed)
			sh.pipes.resize(0)
			if sh.flows != nil {
				sh.flows.close()
			}
		})
	}
	if w := e.workers.Load(); w != nil {
		w.Close() // while the loops are there: a handshake that was about to say that it is done says so
	}
	for _, sh := range e.shards {
		sh.loop.Stop()
		<-sh.loop.Ended()
	}
	if e.calm != nil {
		e.calm.Close()
	}
	for _, bs := range []map[bindKey]*bound{e.bindings, e.retired} {
		for _, b := range bs {
			b.close()
		}
	}
	e.bindings, e.retired = nil, nil
	return true
}
