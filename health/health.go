package health

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"awe4lb/config"
)

// Options say who hears of it.
type Options struct {
	Log *slog.Logger

	// Changed is told of every change of state, and once the initial state of every backend. Calls are in order and one at a
	// time; it must neither block nor call the Prober.
	Changed func(Transition)

	// Advised, if set, is told of what agents want, whenever one wants something else than before. The same holds for it.
	Advised func(Key, Advice)
}

// Advice is what an agent has said last of each kind of thing.
type Advice struct {
	Percent int    // of the weight; -1: nothing yet
	Order   string // ready, drain or maint; "": nothing yet
}

// Key is one backend of one pool.
type Key struct {
	Pool    string
	Address config.Address
}

// Transition is a change of state.
type Transition struct {
	Key
	Up      bool
	Initial bool // nothing has changed: this is what the backend begins with
	Why     string
	Before  string        // the state before: up, down or checking
	After   time.Duration // how long that had lasted

	PoolDown bool // with it no backend of the pool that has a weight is up or being checked for the first time
	PoolUp   bool // it is the first that is up after that
}

// Status is what is known of a backend.
type Status struct {
	Kind    string
	State   string // up, down or checking
	Since   time.Time
	Why     string // the state is that; "" for the initial one
	Streak  int    // results in a row that speak against the state
	Changes uint64 // of state

	// The last probe; zero before there was one.
	Checked time.Time     // its end
	Took    time.Duration // from its beginning
	Result  string        // good, bad or unknown: nothing can be said, see Error
	Error   string        // what was wrong; "" after a good one
	Note    string        // what else the backend said
	Weight  int           // percent, as an agent has said last; -1: it did not
	Order   string        // the same: ready, drain or maint
	Expires time.Time     // the certificate of the backend; zero: none was seen

	Probes
}

// Probes are counted by what they found.
type Probes struct{ Good, Bad, Unknown uint64 }

func (p *Probes) add(o Probes) {
	p.Good += o.Good
	p.Bad += o.Bad
	p.Unknown += o.Unknown
}

// Prober checks backends. Make one with New; safe from any goroutine.
type Prober struct {
	// Set once, never changed; tests set their own before the first Apply.
	o         Options
	probe     func(context.Context, *check) outcome
	materials materials
	ctx       context.Context // until Close
	cancel    context.CancelFunc
	results   chan result
	wake      chan struct{}  // the schedule has changed
	running   sync.WaitGroup // the scheduler and the probes; Close waits

	// Guarded by mu.
	mu        sync.Mutex
	started   bool
	cfg       *config.Config
	members   map[string][]*config.Backend // of pools that have others than their configuration names
	backends  map[Key]*backend
	subjects  map[string]*subject
	lanes     [numLanes]lane
	followers []*follower
	dark      map[string]bool   // pools of which it was told that no backend is up
	gone      map[string]Probes // by pool: of backends that are no longer checked
}

// backend is a backend of a pool that has a health check. Guarded by Prober.mu.
type backend struct {
	key     Key
	health  *config.Health
	weight  int
	sni     string
	subject *subject // nil for kind pool
	streak  streak
	status  Status // but State and Streak
	recent  recent
}

// subject is something to probe, on behalf of all backends that ask for the same. Guarded by Prober.mu.
type subject struct {
	key      string
	check    *check // immutable
	backends []*backend
	lane     *lane

	next    time.Time // when it is due
	index   int       // in the lane; -1: it is not waiting
	removed bool
	told    time.Time // when it was last said that the certificate expires
}

// New returns a Prober of nothing.
func New(o Options) *Prober {
	p := &Prober{o: o, cfg: new(config.Config), backends: map[Key]*backend{}, subjects: map[string]*subject{}, dark: map[string]bool{}, gone: map[string]Probes{}, wake: make(chan struct{}, 1)}
	p.probe = p.run
	p.ctx, p.cancel = context.WithCancel(context.Background())
	total := 0
	for i := range p.lanes {
		p.lanes[i].most = laneWidth[i]
		total += laneWidth[i]
	}
	p.results = make(chan result, total) // so that no probe waits for the scheduler, not even when that has ended
	return p
}

// Apply makes the checks of cfg the ones that are made. Those that stay the same go on, with what they have counted. One
// that is changed starts to count anew, from the state it is in; a new one begins with its initial state; one that is gone
// is forgotten, and where the backend is still there it is up from now on. Never blocks for a probe.
func (p *Prober) Apply(cfg *config.Config) { p.ApplyMembers(cfg, nil) }

// ApplyMembers is Apply with the backends of pools that have others than cfg names.
func (p *Prober) ApplyMembers(cfg *config.Config, members map[string][]*config.Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	p.cfg, p.members = cfg, members
	now := time.Now()
	old, oldSubjects := p.backends, p.subjects
	p.backends, p.subjects = map[Key]*backend{}, map[string]*subject{}
	for _, t := range oldSubjects {
		t.backends = nil
	}
	var begin []*subject
	for _, pool := range cfg.Pools {
		if !pool.Health.Checks() {
			for _, b := range p.membersOf(pool) {
				p.unchecked(Key{pool.Name, b.Address}, old, now)
			}
			continue
		}
		for _, c := range p.membersOf(pool) {
			key := Key{pool.Name, c.Address}
			b := p.enlist(key, pool, old[key], now)
			p.backends[key], b.weight, b.sni = b, c.Weight, c.SNI
			if pool.Health.Kind == "pool" {
				continue
			}
			if t := p.assign(b, pool, c, oldSubjects); t != nil {
				begin = append(begin, t)
			}
		}
	}
	for key, b := range old {
		if p.backends[key] == nil {
			p.remember(b)
		}
	}
	for pool := range p.gone {
		if cfg.Pool(pool) == nil {
			delete(p.gone, pool)
		}
	}
	for id, t := range oldSubjects {
		if p.subjects[id] == nil {
			t.drop()
		}
	}
	for pool := range p.dark {
		if !p.isDark(pool) || cfg.Pool(pool) == nil {
			delete(p.dark, pool) // a reload has made it so
		}
	}
	p.begin(begin, now)
	p.follow(cfg, now)
	p.materials.keep(p.subjects)
}

// begin has what is new probed.
func (p *Prober) begin(subjects []*subject, now time.Time) {
	p.spread(subjects, now)
	if !p.started && len(p.subjects) > 0 {
		p.started = true
		p.running.Go(p.schedule)
	}
	p.awake()
}

// assign gives b, which is what c says, to those who are probed, and returns the subject if it is new: neither in use nor in old.
func (p *Prober) assign(b *backend, pool *config.Pool, c *config.Backend, old map[string]*subject) (fresh *subject) {
	check := newCheck(pool, c)
	id := check.identity()
	t := p.subjects[id]
	if t == nil {
		if t = old[id]; t == nil {
			t = &subject{key: id, check: check, index: -1, lane: &p.lanes[laneOf(check)]}
			fresh = t
		}
		p.subjects[id] = t
	}
	if b.subject != nil && b.subject != t {
		b.restart(pool.Health)
	}
	b.subject = t
	t.backends = append(t.backends, b)
	return fresh
}

// drop has t probed no more.
func (t *subject) drop() {
	t.removed = true
	t.lane.remove(t)
}

// enlist returns the backend for a key: the one there is, when there is one.
func (p *Prober) enlist(key Key, pool *config.Pool, b *backend, now time.Time) *backend {
	h := pool.Health
	if b == nil {
		b = &backend{key: key, health: h, streak: newStreak(h.Rise, h.Fall, h.Initial)}
		if h.Kind == "pool" {
			b.streak = newStreak(1, 1, "up")
		}
		b.status = Status{Kind: h.Kind, Since: now, Weight: -1}
		p.o.Changed(Transition{Key: key, Up: b.streak.up, Initial: true})
		return b
	}
	if h.Kind == "pool" {
		b.subject = nil
	}
	if h.Kind != b.health.Kind {
		b.status.Weight, b.status.Order = -1, ""
	}
	if h.Kind != b.health.Kind || h.Rise != b.health.Rise || h.Fall != b.health.Fall {
		b.restart(h)
	}
	b.health, b.status.Kind = h, h.Kind
	return b
}

// restart begins to count anew, from the state b is in.
func (b *backend) restart(h *config.Health) {
	b.streak.rise, b.streak.fall, b.streak.run = h.Rise, h.Fall, 0
	if h.Kind == "pool" {
		b.streak = streak{rise: 1, fall: 1, up: b.streak.up}
	}
}

// unchecked has a backend that was checked and no longer is be up.
func (p *Prober) unchecked(key Key, old map[Key]*backend, now time.Time) {
	if b := old[key]; b != nil && !b.streak.up {
		before := b.streak.state()
		b.streak.up = true
		p.transition(b, before, "it is not checked any more", now)
	}
}

// remember adds what a backend that is no longer checked has counted to its pool.
func (p *Prober) remember(b *backend) {
	gone := p.gone[b.key.Pool]
	gone.add(b.status.Probes)
	p.gone[b.key.Pool] = gone
}

// transition tells that b has changed.
func (p *Prober) transition(b *backend, before, why string, now time.Time) {
	up, after := b.streak.up, now.Sub(b.status.Since)
	b.status.Since, b.status.Why = now, why
	b.status.Changes++
	x := Transition{Key: b.key, Up: up, Why: why, Before: before, After: after}
	switch dark := p.dark[b.key.Pool]; {
	case up && dark:
		x.PoolUp = true
		delete(p.dark, b.key.Pool)
	case !up && !dark && p.isDark(b.key.Pool):
		x.PoolDown = true
		p.dark[b.key.Pool] = true
	}
	p.o.Changed(x)
}

// isDark reports whether a pool has nobody left to pick.
func (p *Prober) isDark(pool string) bool {
	for key, b := range p.backends {
		if key.Pool == pool && b.weight > 0 && (b.streak.up || b.streak.checking) {
			return false
		}
	}
	return true
}

// take applies what a probe has found to all who asked.
func (p *Prober) take(t *subject, o outcome, took time.Duration, now time.Time) {
	for _, b := range t.backends {
		s := &b.status
		s.Checked, s.Took, s.Note, s.Expires = now, took, o.note, o.expires
		p.advise(b, o)
		s.Error, s.Result = "", verdictNames[o.verdict]
		if o.verdict != good {
			s.Error = o.why
		}
		b.recent.add(Probe{now, s.Result, took})
		switch o.verdict {
		case unknown:
			s.Unknown++
			continue
		case good:
			s.Good++
		case bad:
			s.Bad++
		}
		if before := b.streak.state(); b.streak.add(o.verdict == good) {
			p.transition(b, before, o.why, now)
		}
	}
	p.evaluate(now)
	p.warnExpiry(t, o.expires, now)
}

// advise tells what b's agent wants, when that is something else than before.
func (p *Prober) advise(b *backend, o outcome) {
	a := Advice{b.status.Weight, b.status.Order}
	if o.weight >= 0 {
		a.Percent = o.weight
	}
	if o.order != "" {
		a.Order = o.order
	}
	if a == (Advice{b.status.Weight, b.status.Order}) {
		return
	}
	b.status.Weight, b.status.Order = a.Percent, a.Order
	if p.o.Advised != nil {
		p.o.Advised(b.key, a)
	}
}

// warnExpiry says, once a day, that a backend's certificate expires soon.
func (p *Prober) warnExpiry(t *subject, expires, now time.Time) {
	limit := t.check.h.ExpiryWarning
	if expires.IsZero() || limit == 0 || expires.Sub(now) > limit || now.Sub(t.told) < 24*time.Hour && !t.told.IsZero() {
		return
	}
	t.told = now
	for _, b := range t.backends {
		p.o.Log.Warn("the certificate of a backend expires soon", "pool", b.key.Pool, "backend", b.key.Address.String(),
			"not_after", expires.UTC(), "left", expires.Sub(now).Round(time.Hour))
	}
}

// Status returns what is known of every backend that is checked.
func (p *Prober) Status() map[Key]Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[Key]Status, len(p.backends))
	for key, b := range p.backends {
		s := b.status
		s.State, s.Streak = b.streak.state(), b.streak.run
		all[key] = s
	}
	return all
}

// Gone returns the probes of backends that were checked and no longer are, by pool.
func (p *Prober) Gone() map[string]Probes {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.gone)
}

// Close ends all probes and waits for them. Changed is not called any more once it has returned.
func (p *Prober) Close() {
	p.mu.Lock()
	p.cancel() // under mu, so that Apply starts nothing after it
	p.mu.Unlock()
	p.running.Wait()
}
