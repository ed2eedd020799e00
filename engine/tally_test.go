package engine

import (
	"fmt"
	"testing"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// useAll makes every shard have counters of every backend of the pool: n on the first, 2n on the second and so on.
func useAll(r *rig, n uint64) {
	members := r.d.Snapshot().Pools[0].Members
	for i, sh := range r.e.shards {
		sh.loop.Call(func() {
			for _, m := range members {
				sh.backendStats(m.Backend).Sessions = n * uint64(i+1)
			}
		})
	}
}

func manyBackends(n int) func(c *config.Config) {
	return func(c *config.Config) {
		c.Pools[0].Backends = nil
		for i := range n {
			c.Pools[0].Backends = append(c.Pools[0].Backends, backendConfigs([]string{fmt.Sprintf("127.0.%d.%d:9", i/250, 1+i%250)})...)
		}
	}
}

// TestTally: counters that take several visits are all there, once.
func TestTally(t *testing.T) {
	for _, backends := range []int{1, tallyStep - 3, tallyStep + 1, 5 * tallyStep} {
		r := newRig(t, nil, manyBackends(backends))
		useAll(r, 3)
		want := uint64(0)
		for i := range r.e.shards {
			want += 3 * uint64(i+1)
		}
		st := r.e.Stats()
		if len(st.Backends) != backends {
			t.Fatalf("counters of %d backends; want %d", len(st.Backends), backends)
		}
		for b, n := range st.Backends {
			if n.Sessions != want || n.Connect.Bounds == nil {
				t.Fatalf("%v: %d sessions, bounds %v; want %d", b.Address, n.Sessions, n.Connect.Bounds, want)
			}
		}
	}
}

// TestTallyWhileTheyGo: backends go between two visits, again and again; nothing is counted twice or lost.
func TestTallyWhileTheyGo(t *testing.T) {
	r := newRig(t, nil, func(c *config.Config) { discovered(c); manyBackends(0)(c) })
	list := func(first, n int) []*config.Backend {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("127.0.0.1:%d", first+i))
		}
		return backendConfigs(all)
	}
	total := uint64(0)
	for round := range 20 {
		const n = 3 * tallyStep
		r.d.SetBackends("p", list(1+round*n, n))
		lbtest.Eventually(t, "they are there", func() bool { return len(r.d.Snapshot().Pools[0].Members) == n })
		useAll(r, 1)
		total += n * uint64(len(r.e.shards)*(len(r.e.shards)+1)/2)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.d.SetBackends("p", nil)
		}()
		for range 3 {
			st := r.e.Stats()
			got := uint64(0)
			if p := st.Pools["p"]; p != nil { // nobody has gone yet
				got = p.Gone.Sessions
			}
			for _, b := range st.Backends {
				got += b.Sessions
			}
			if got != total {
				t.Fatalf("round %d: %d sessions; want %d", round, got, total)
			}
		}
		<-done
	}
}

// TestTallyOfManyPools: with more pools than a visit has room for, too, a backend that goes between two visits is counted once.
func TestTallyOfManyPools(t *testing.T) {
	const pools = 2*tallyStep + 1
	r := newRigOf(t, 1, nil, func(c *config.Config) {
		for i := range pools - 1 {
			p := *c.Pools[0]
			p.Name = fmt.Sprint("p", i)
			c.Pools = append(c.Pools, &p)
		}
		for _, p := range c.Pools {
			p.Discovery = new(config.Discovery)
		}
	})
	sh := r.e.shards[0]
	for round, room := range []int{0, pools} {
		for _, p := range r.d.Snapshot().Pools {
			r.d.SetBackends(p.Config.Name, backendConfigs([]string{"127.0.0.1:9"}))
		}
		all := tally{frontends: columnOf[string, FrontendStats](room), pools: columnOf[string, PoolStats](room), backends: columnOf[*balancer.Backend, BackendStats](room)}
		sh.loop.Call(func() {
			for _, p := range r.d.Snapshot().Pools {
				sh.poolStats(p)
				sh.backendStats(p.Members[0].Backend).Sessions = 1
			}
			all.begin(sh)
		})
		for _, p := range r.d.Snapshot().Pools {
			r.d.SetBackends(p.Config.Name, nil)
		}
		for all.extend() {
			sh.loop.Call(all.more)
		}
		sessions := uint64(0)
		for i := range all.pools.values {
			sessions += all.pools.values[i].Gone.Sessions
		}
		for i := range all.backends.values {
			sessions += all.backends.values[i].Sessions
		}
		if want := uint64(pools * (round + 1)); sessions != want {
			t.Errorf("room for %d: %d sessions; want %d", room, sessions, want)
		}
	}
}

// BenchmarkTally is how long a shard is held by somebody who looks at 1,000 backends: the longest of its visits.
func BenchmarkTally(b *testing.B) {
	r := newRig(b, nil, manyBackends(1000))
	useAll(r, 1)
	b.Run("visit", func(b *testing.B) {
		sh := r.e.shards[0]
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			all := tally{frontends: columnOf[string, FrontendStats](1), pools: columnOf[string, PoolStats](1), backends: columnOf[*balancer.Backend, BackendStats](1000)}
			b.StartTimer()
			sh.loop.Call(func() { sh.prune(r.d.Snapshot()); all.begin(sh) })
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.e.Stats()
		}
	})
}
