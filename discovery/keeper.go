package discovery

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"awe4lb/config"
)

// KeeperOptions say who hears of it. Both are called from the goroutines of the Runners, for one pool never twice at once.
type KeeperOptions struct {
	// Changed gets each list that differs from the one before. The list is not to be changed.
	Changed func(pool string, list []*config.Backend)
	// Tell hears of everything else that happens, EventChange included.
	Tell func(pool string, e Event)
}

// Keeper has a Runner for each pool that has discovery, through all reloads. Make one with NewKeeper.
//
//	set, err := k.Prepare(cfg)   // nothing has changed
//	… ApplyFound(cfg, set.Found())
//	k.Commit(set)                // sources are asked from now on
type Keeper struct {
	o KeeperOptions // set once

	// Guarded by mu.
	mu     sync.Mutex
	pools  map[string]*keeping
	closed bool
}

// keeping is the Runner of one pool.
type keeping struct {
	// Set once, never changed.
	pool   string
	table  *config.Discovery // what it was made of, with allow
	allow  any
	runner *Runner

	// Guarded by Keeper.mu.
	stop context.CancelFunc // nil: it does not run
	done chan struct{}      // closed when it has ended
}

// NewKeeper returns a Keeper of nothing.
func NewKeeper(o KeeperOptions) *Keeper { return &Keeper{o: o, pools: map[string]*keeping{}} }

// Set is what a configuration asks for, prepared.
type Set struct {
	pools map[string]*keeping
	found map[string][]*config.Backend
}

// Found returns what is known already of the pools whose sources are new or others: saved lists, and those of sources that
// they had before too. Pools whose sources stay the same are not in it: they keep their backends.
func (s *Set) Found() map[string][]*config.Backend { return s.found }

// Prepare makes what cfg asks for and changes nothing. The error says what the configuration alone cannot tell. It asks no
// source, but reads what they are configured with, such as authorities, and saved lists.
func (k *Keeper) Prepare(cfg *config.Config) (*Set, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &Set{pools: map[string]*keeping{}, found: map[string][]*config.Backend{}}
	for _, p := range cfg.Pools {
		if p.Discovery == nil {
			continue
		}
		old := k.pools[p.Name]
		if old != nil && reflect.DeepEqual(old.table, p.Discovery) && reflect.DeepEqual(old.allow, cfg.Engine.DiscoveryAllow) {
			s.pools[p.Name] = old
			continue
		}
		r, err := Configured(p, cfg.Engine.DiscoveryAllow, func(e Event) { k.o.Tell(p.Name, e) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", placeOf(cfg, p), err)
		}
		if old != nil {
			r.Inherit(old.runner)
		}
		s.pools[p.Name] = &keeping{pool: p.Name, table: p.Discovery, allow: cfg.Engine.DiscoveryAllow, runner: r}
		s.found[p.Name] = toConfig(r.List())
	}
	return s, nil
}

// placeOf names the table in messages.
func placeOf(cfg *config.Config, p *config.Pool) string {
	if at := cfg.At(p.Discovery); at != "" {
		return at
	}
	return "pools." + p.Name + ".discovery"
}

// Commit ends the Runners that s does not have, and starts those that are new. Their sources are asked from now on.
func (k *Keeper) Commit(s *Set) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	for name, old := range k.pools {
		if s.pools[name] != old {
			old.end()
		}
	}
	for name, now := range s.pools {
		old := k.pools[name]
		if old == now {
			continue
		}
		if old != nil { // what it has heard since Prepare
			now.runner.Inherit(old.runner)
		}
		if list := toConfig(now.runner.List()); old != nil && !slices.EqualFunc(list, s.found[name], (*config.Backend).Same) {
			k.o.Changed(name, list)
		}
		ctx, cancel := context.WithCancel(context.Background())
		now.stop, now.done = cancel, make(chan struct{})
		go func() {
			defer close(now.done)
			now.runner.Run(ctx, func(list []Backend) { k.o.Changed(name, toConfig(list)) })
		}()
	}
	k.pools = s.pools
}

func (p *keeping) end() {
	if p.stop != nil {
		p.stop()
		<-p.done
	}
}

// Wait returns when every source was tried once, or most is over, or ctx is done.
func (k *Keeper) Wait(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, p := range k.all() {
		select {
		case <-p.runner.Tried():
		case <-ctx.Done():
			return
		}
	}
}

// all returns what there is, by name.
func (k *Keeper) all() []*keeping {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*keeping
	for _, p := range k.pools {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *keeping) int { return strings.Compare(a.pool, b.pool) })
	return all
}

func (k *Keeper) runner(pool string) *Runner {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pools[pool]; p != nil {
		return p.runner
	}
	return nil
}

// Status returns how things are, by pool in the order of names. Safe from any goroutine.
func (k *Keeper) Status() []Status {
	var all []Status
	for _, p := range k.all() {
		all = append(all, p.runner.Status())
	}
	return all
}

// Refresh asks the sources of a pool now, and reports whether it has any. Safe from any goroutine.
func (k *Keeper) Refresh(pool string) bool {
	r := k.runner(pool)
	if r != nil {
		r.Refresh()
	}
	return r != nil
}

// Accept puts the lists of a pool into use that are held back. It returns how many there were, and whether the pool has
// sources. Safe from any goroutine.
func (k *Keeper) Accept(pool string) (lists int, ok bool) {
	r := k.runner(pool)
	if r == nil {
		return 0, false
	}
	return r.Accept(), true
}

// Close ends all Runners and waits for them. Nothing is told any more once it has returned.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for _, p := range k.pools {
		p.stopNow()
	}
	for _, p := range k.pools {
		p.end()
	}
}

func (p *keeping) stopNow() {
	if p.stop != nil {
		p.stop()
	}
}
