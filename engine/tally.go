package engine

import (
	"slices"

	"awe4lb/balancer"
)

// How the shards' counters are read. A shard only copies them, a part at a time, so that nobody's data waits because somebody
// looks; the sums are made by who asked.

// tallyStep is how many counters, of backends above all with 1 kB each, a shard copies at one visit: some 20 us. More than that
// it copies only of pools, all at the first visit.
const tallyStep = 128

// tally is a copy of a shard's counters. The shard and who asked for it have it in turn.
type tally struct {
	shard     ShardStats
	frontends column[string, FrontendStats]
	pools     column[string, PoolStats]
	backends  column[*balancer.Backend, BackendStats]
}

// column is a copy of counters of one sort, each with whose they are.
type column[K comparable, V any] struct {
	keys   []K
	from   []*V // the shard's own
	values []V  // copied so far
}

func columnOf[K comparable, V any](room int) column[K, V] {
	return column[K, V]{make([]K, 0, room), make([]*V, 0, room), make([]V, 0, room)}
}

func (c *column[K, V]) list(m map[K]*V) {
	for key, v := range m {
		c.keys, c.from = append(c.keys, key), append(c.from, v)
	}
}

// copy copies n counters, or those for which there is room, and returns what is left of n.
func (c *column[K, V]) copy(n int) int {
	end := min(len(c.from), cap(c.values), len(c.values)+n)
	n -= end - len(c.values)
	for i := len(c.values); i < end; i++ {
		c.values = append(c.values, *c.from[i])
	}
	return n
}

// extend makes room for what is not copied yet and reports whether that is anything.
func (c *column[K, V]) extend() bool {
	left := len(c.from) - len(c.values)
	c.values = slices.Grow(c.values, left)
	return left > 0
}

// begin runs on the shard: it lists what there is and copies the first of it. The counters of who is gone are in those of its
// pool, which is why all pools come at once when the backends are listed: whoever goes between two visits is counted once.
func (t *tally) begin(sh *shard) {
	t.shard = sh.stats
	t.shard.Sessions = sh.open
	t.shard.Pipes = sh.pipes.made
	if sh.flows != nil {
		t.shard.Flows = sh.flows.table.used
		sh.flows.countReceiveDrops()
	}
	t.frontends.list(sh.frontends)
	t.pools.list(sh.pools)
	t.backends.list(sh.backends)
	t.pools.extend() // a reload may have brought more than room was made for
	t.pools.copy(len(sh.pools))
	t.copy(max(tallyStep-len(sh.pools), 0))
}

// more runs on the shard, too.
func (t *tally) more() { t.copy(tallyStep) }

func (t *tally) copy(n int) { t.backends.copy(t.frontends.copy(n)) }

// extend reports whether the shard has to be visited again.
func (t *tally) extend() bool {
	f, b := t.frontends.extend(), t.backends.extend()
	return f || b
}

// tallies asks all shards at once for copies of their counters.
func (e *Engine) tallies() []tally {
	snap, backends := e.director.Snapshot(), 0
	for _, p := range snap.Pools {
		backends += len(p.Members)
	}
	all := make([]tally, len(e.shards))
	for i := range all {
		all[i] = tally{frontends: columnOf[string, FrontendStats](len(snap.Frontends)), pools: columnOf[string, PoolStats](len(snap.Pools)),
			backends: columnOf[*balancer.Backend, BackendStats](backends)}
	}
	e.onAll(func(i int, sh *shard) {
		sh.prune(e.director.Snapshot())
		all[i].begin(sh)
	})
	for again := true; again; {
		again = false
		for i := range all {
			again = all[i].extend() || again
		}
		if again && !e.onAll(func(i int, _ *shard) { all[i].more() }) {
			break // the loops have ended
		}
	}
	return all
}

// onAll runs fn on all shards at the same time and waits for that. It returns false when a loop ended first.
func (e *Engine) onAll(fn func(i int, sh *shard)) bool {
	waits := make([]func() bool, len(e.shards))
	for i, sh := range e.shards {
		waits[i] = sh.loop.Begin(func() { fn(i, sh) })
	}
	ok := true
	for _, wait := range waits {
		ok = wait() && ok
	}
	return ok
}
