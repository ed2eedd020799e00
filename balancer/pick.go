package balancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"awe4lb/config"
)

// picker chooses among the members of one tier, by one policy. It is made once per snapshot and asked by all shards.
type picker interface {
	// pick returns a usable member, or nil when there is none. It may ask usable more than once, and the answer may change
	// in between. Never blocks or allocates; safe from any goroutine.
	pick(w wish) *Member
}

// newPicker makes the picker of a policy for the members of a tier, none of which has weight 0. config has checked the
// name.
func newPicker(cfg *config.Pool, members []*Member, live *poolLive) picker {
	slow := int64(cfg.SlowStart)
	switch cfg.Policy {
	case "random":
		return newRandom(members, live, slow)
	case "roundrobin":
		return newRoundRobin(members, live, slow)
	case "leastconn":
		return newLeastConn(members, live, slow)
	case "leasttime":
		return &leastTime{newRandom(members, live, slow)}
	case "leastbandwidth":
		return newLeastBandwidth(members, live, slow)
	case "p2c":
		return newTwoChoices(newRandom(members, live, slow))
	case "iphash":
		return newIPHash(members)
	case "maglev":
		return newMaglev(members)
	}
	panic(fmt.Sprintf("balancer: policy %q passed validation and has no picker", cfg.Policy))
}

// tier is the members of a pool that are chosen among before those of the next tier are: those of one priority, or with
// config.Pool.PreferZone those of one priority that are in our zone, or are not; with config.Pool.Subset those of these that are
// ours, or are not.
type tier struct {
	picker
	members []*Member
	limited bool // some have max_connections

	// Shared: atomics. A tierHealth: the first pick after a change of states works it out again.
	health atomic.Uint64
}

// tierHealth is the percentage of the weight of a tier that is up, whether every member is usable for whoever has tried nothing
// (all are Up and none has a limit), and the generation of states (see poolLive) that this is of.
type tierHealth uint64

const (
	allUsable tierHealth = 1 << 7
	ofStates             = 8 // where the generation begins

	perfect = allUsable | 100
)

func (h tierHealth) percent() int { return int(h & 0x7f) }

// here is what of ourselves decides which tier a member is in.
type here struct {
	zone string
	name string // among others of our kind
}

func hereOf(c *config.Config) here {
	return here{c.Engine.Zone, cmp.Or(c.Engine.Name, hostname())}
}

// hostname is "" where the host has none: all such hosts have the same subsets.
var hostname = sync.OnceValue(func() string {
	name, _ := os.Hostname()
	return name
})

// rank says in which tier a member is; the lowest is asked first.
type rank struct {
	priority  int
	far, rest bool
}

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(r.priority, o.priority), later(r.far, o.far), later(r.rest, o.rest))
}

func later(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// newTiers makes the tiers of a pool in the order in which they are asked.
func newTiers(cfg *config.Pool, us here, members []*Member, live *poolLive) []*tier {
	ranked := map[rank][]*Member{}
	var ranks []rank
	for _, m := range members {
		if m.weight == 0 {
			continue
		}
		r := rank{priority: m.Config.Priority, far: cfg.PreferZone && us.zone != "" && m.Config.Zone != us.zone}
		if ranked[r] == nil {
			ranks = append(ranks, r)
		}
		ranked[r] = append(ranked[r], m)
	}
	if cfg.Subset > 0 {
		for _, r := range slices.Clone(ranks) {
			ours, rest := subset(ranked[r], cfg.Subset, us.name)
			ranked[r] = ours
			if r.rest = true; len(rest) > 0 {
				ranked[r], ranks = rest, append(ranks, r)
			}
		}
	}
	slices.SortFunc(ranks, rank.compare)
	tiers := make([]*tier, 0, len(ranks))
	for _, r := range ranks {
		limited := slices.ContainsFunc(ranked[r], func(m *Member) bool { return m.limit > 0 })
		t := &tier{picker: newPicker(cfg, ranked[r], live), members: ranked[r], limited: limited}
		t.look(0) // for as long as no state has changed
		tiers = append(tiers, t)
	}
	return tiers
}

// up returns the percentage, rounded down, of the weight of t that is up. Members that are not to be used by order do not
// count; 100 when there are no others. states is the generation of now.
func (t *tier) up(states uint64) int { return t.know(states).percent() }

// know returns what is known of the states of the members.
func (t *tier) know(states uint64) tierHealth {
	if h := tierHealth(t.health.Load()); uint64(h>>ofStates) == states {
		return h
	}
	return t.look(states)
}

func (t *tier) look(states uint64) tierHealth {
	var up, all int64
	h := allUsable
	if t.limited {
		h = 0
	}
	for _, m := range t.members {
		c := m.condition.Load()
		if c != 0 {
			h = 0
		}
		switch stateOf(c) {
		case Up:
			up += m.weight
			all += m.weight
		case Down, Ejected:
			all += m.weight
		}
	}
	percent := int64(100)
	if all > 0 {
		percent = up * 100 / all
	}
	h |= tierHealth(states)<<ofStates | tierHealth(percent)
	t.health.Store(uint64(h))
	return h
}

// take picks a member and counts a session on it.
func (t *tier) take(w wish) *Backend {
	// Between picking and counting another shard may take the last place. Then that backend is no longer usable and the
	// next round finds another.
	for m := t.pick(w); m != nil; m = t.pick(w) {
		if m.acquire(m.limit) {
			return m.Backend
		}
	}
	return nil
}

// Pick returns a backend with one session or flow counted on it, which the caller gives back with Release, or nil when no
// backend is usable: all are in tried, down, at their limit, not to be used by order, or have weight 0, or the pool is at its
// limit. key is Pool.Key of the client. Persistence does not count: see PickFor. Safe from any goroutine; never blocks or
// allocates.
func (p *Pool) Pick(key uint64, tried []*Backend) *Backend {
	if p.limit > 0 {
		b, _ := p.take(netip.Addr{}, key, tried)
		return p.placed(b)
	}
	b := p.chooseAny(key, tried) // the rule, by the shortest way
	if b != nil && p.live.counting.Load() {
		p.live.active.Add(1)
	}
	return b
}

// PickFor is Pick for a client that may have a backend already, where the pool has persistence. client is the address that
// counts as the client's; who has none, on a unix socket, sticks to nothing.
func (p *Pool) PickFor(client netip.Addr, key uint64, tried []*Backend) *Backend {
	if p.sticks == nil || !client.IsValid() {
		return p.Pick(key, tried)
	}
	b, _ := p.take(client, key, tried)
	return p.placed(b)
}

// placed returns b. Where that is nil, a place was held for a moment, in which somebody may have asked for it.
func (p *Pool) placed(b *Backend) *Backend {
	if b == nil && p.limit > 0 {
		p.live.roomMade()
	}
	return b
}

// take picks a backend and counts a session on it and, where a limit has ever been set, on the pool. full says that the pool
// has its max_connections, and no backend was asked.
func (p *Pool) take(client netip.Addr, key uint64, tried []*Backend) (b *Backend, full bool) {
	if p.limit == 0 {
		b := p.choose(client, key, tried)
		if b != nil && p.live.counting.Load() {
			p.live.active.Add(1)
		}
		return b, false
	}
	if !countUpTo(&p.live.active, p.limit) {
		return nil, true
	}
	b = p.choose(client, key, tried)
	if b == nil {
		p.live.active.Add(-1)
	}
	return b, false
}

// choose picks a backend, for who has a place in the pool, and counts a session on it.
func (p *Pool) choose(client netip.Addr, key uint64, tried []*Backend) *Backend {
	if p.sticks != nil && client.IsValid() {
		return p.chooseSticky(client, key, tried, stickClock())
	}
	return p.chooseAny(key, tried)
}

// chooseAny is choose by the policy.
//
// The first tier serves that has a usable backend, where a tier with less than config.Pool.PanicThreshold percent of its
// weight up does not count: the few left would break down one after the other. When no tier is left by that rule, those
// passed over serve with all their backends, down or not, beginning with the one of which most is up: checks that find
// nearly everything down are more likely to be wrong than right, and if they are right nothing is lost.
func (p *Pool) chooseAny(key uint64, tried []*Backend) *Backend {
	states := p.live.states.Load()
	tiers := *p.tiers.Load()
	if len(tiers) > 0 && len(tried) == 0 { // the rule, in a pool that is well: nobody has to be asked one by one
		if t := tiers[0]; t.health.Load() == states<<ofStates|uint64(perfect) {
			if m := t.pick(wish{key: key, anybody: true}); m != nil {
				m.active.Add(1)
				return m.Backend
			}
		}
	}
	return p.ask(tiers, key, tried, states)
}

// ask is chooseAny where members are to be asked one by one.
func (p *Pool) ask(tiers []*tier, key uint64, tried []*Backend, states uint64) *Backend {
	w := wish{key: key, tried: tried}
	poor := false
	for _, t := range tiers {
		h := t.know(states)
		if h.percent() < p.threshold {
			poor = true
			continue
		}
		w.anybody = h&allUsable != 0 && len(tried) == 0
		if b := t.take(w); b != nil {
			return b
		}
	}
	if !poor {
		return nil
	}
	w.anybody, w.down = false, true
	return p.panicPick(tiers, w, states)
}

// panicPick picks from the tiers that ask passed over, of which most is up first. Tiers are few.
func (p *Pool) panicPick(tiers []*tier, w wish, states uint64) *Backend {
	last := p.threshold
	for {
		most := -1
		for _, t := range tiers {
			if up := t.up(states); up < last && up > most {
				most = up
			}
		}
		if most < 0 {
			return nil
		}
		for _, t := range tiers {
			if t.up(states) != most {
				continue
			}
			if b := t.take(w); b != nil {
				p.live.panics.Add(1)
				return b
			}
		}
		last = most
	}
}
