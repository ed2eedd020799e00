package balancer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"awe4lb/config"
)

// pool makes a pool of backends written as "weight[/priority[/limit]]", at 127.0.0.1:1, :2 …
func pool(policy string, backends ...string) *config.Pool {
	p := &config.Pool{Name: "p", Policy: policy, ConnectAttempts: 3}
	for i, s := range backends {
		b := &config.Backend{Address: config.Address{IP: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1))}}
		fields := append(strings.Split(s, "/"), "0", "0")
		for j, to := range []*int{&b.Weight, &b.Priority, &b.MaxConnections} {
			if _, err := fmt.Sscan(fields[j], to); err != nil {
				panic(err)
			}
		}
		p.Backends = append(p.Backends, b)
	}
	return p
}

func built(cfg *config.Pool) *Pool {
	p := buildPool(cfg, cfg.Backends, here{}, identities{})
	p.sit(*p.tiers.Load())
	return p
}

func port(b *Backend) int { return int(b.Address.IP.Port()) }

// picks picks n times, releasing at once, and returns how often each port came.
func picks(p *Pool, n int, tried []*Backend) []int {
	count := make([]int, len(p.Members)+1)
	for i := range n {
		b := p.Pick(uint64(i), tried)
		if b == nil {
			count[0]++
			continue
		}
		count[port(b)]++
		b.Release()
	}
	return count
}

func TestSmoothRound(t *testing.T) {
	for _, tc := range []struct {
		weights []int64
		want    string
	}{
		{[]int64{1}, "[0]"},
		{[]int64{1, 1, 1}, "[0 1 2]"},
		{[]int64{7, 7}, "[0 1]"},
		{[]int64{2, 1}, "[0 0 1]"},
		{[]int64{5, 1, 1}, "[0 0 0 1 0 0 2]"},
		{[]int64{300, 200, 100}, "[0 1 0 0 1 2]"},
	} {
		if got := fmt.Sprint(smoothRound(tc.weights)); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.weights, got, tc.want)
		}
	}
	// However uneven, the table stays small and everybody is in it.
	weights := make([]int64, 1000)
	for i := range weights {
		weights[i] = int64(1 + i%997)
	}
	round := smoothRound(weights)
	if len(round) > 2*maxRound {
		t.Errorf("%d entries", len(round))
	}
	slices.Sort(round)
	if n := len(slices.Compact(round)); n != 1000 {
		t.Errorf("%d of 1000 indexes in the round", n)
	}
}

func TestRoundRobinIsExact(t *testing.T) {
	p := built(pool("roundrobin", "3", "2", "1"))
	if got := picks(p, 600, nil); got[1] != 300 || got[2] != 200 || got[3] != 100 {
		t.Errorf("got %v; want 300, 200, 100", got)
	}
	// Never more than a weight in a row.
	last, run := 0, 0
	for range 60 {
		b := p.Pick(0, nil)
		b.Release()
		if run++; port(b) != last {
			last, run = port(b), 1
		}
		if run > 2 {
			t.Fatalf("%d picks of %d in a row", run, last)
		}
	}
}

// TestSkippedSharesAreSpread: the share of a member that is full goes to all others, not to its neighbour.
func TestSkippedSharesAreSpread(t *testing.T) {
	p := built(pool("roundrobin", "1", "1/0/1", "1", "1"))
	p.Members[1].acquire(0)
	got := picks(p, 3000, nil)
	if got[2] != 0 || got[1] != 1000 || got[3] != 1000 || got[4] != 1000 {
		t.Errorf("got %v", got)
	}
}

// chiSquare returns the statistic of observed counts against shares.
func chiSquare(observed []int, shares []float64) float64 {
	n, sum := 0, 0.0
	for i := range shares {
		n += observed[i]
		sum += shares[i]
	}
	x := 0.0
	for i, share := range shares {
		want := share / sum * float64(n)
		x += (float64(observed[i]) - want) * (float64(observed[i]) - want) / want
	}
	return x
}

func TestRandomFollowsWeights(t *testing.T) {
	shares := []float64{1, 2, 3, 10, 100}
	p := built(pool("random", "1", "2", "3", "10", "100"))
	got := picks(p, 200_000, nil)[1:]
	// 4 degrees of freedom: above 31 once in 300,000 runs.
	if x := chiSquare(got, shares); x > 31 {
		t.Errorf("chi-square %.1f: got %v", x, got)
	}
	// When most are out of the question, the rest still share by weight: here the slow path.
	tried := []*Backend{p.Members[4].Backend, p.Members[3].Backend}
	got = picks(p, 100_000, tried)[1:]
	if got[3]+got[4] > 0 {
		t.Errorf("picked what was tried: %v", got)
	}
	if x := chiSquare(got[:3], shares[:3]); x > 28 {
		t.Errorf("chi-square %.1f: got %v", x, got)
	}
}

func TestLeastConn(t *testing.T) {
	p := built(pool("leastconn", "1", "1", "2"))
	var held []*Backend
	for range 40 {
		held = append(held, p.Pick(0, nil))
	}
	for i, want := range []int64{10, 10, 20} {
		if got := p.Members[i].Active(); got != want {
			t.Errorf("member %d has %d, want %d", i, got, want)
		}
	}
	// Whoever gets a place back is next.
	i := slices.IndexFunc(held, func(b *Backend) bool { return port(b) == 1 })
	held[i].Release()
	if b := p.Pick(0, nil); port(b) != 1 {
		t.Errorf("picked %d; want 1, which has a free place", port(b))
	}
	// An idle pool is shared, not given to the first.
	idle := built(pool("leastconn", "1", "1", "1"))
	if got := picks(idle, 300, nil); got[1] != 100 || got[2] != 100 || got[3] != 100 {
		t.Errorf("idle: got %v", got)
	}
}

func clientKey(i int) uint64 {
	return ClientKey(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
}

func clientAt(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), uint16(1024+i%60000))
}

func TestIPHash(t *testing.T) {
	const clients = 60_000
	owners := func(p *Pool) []int {
		owner := make([]int, clients)
		for i := range owner {
			b := p.Pick(clientKey(i), nil)
			owner[i] = port(b)
			b.Release()
		}
		return owner
	}
	t.Run("by weight", func(t *testing.T) {
		for _, shares := range [][]float64{{1, 1, 1}, {1, 2, 3, 4}} {
			var spec []string
			for _, s := range shares {
				spec = append(spec, fmt.Sprint(s))
			}
			count := make([]int, len(shares))
			for _, o := range owners(built(pool("iphash", spec...))) {
				count[o-1]++
			}
			// The keys are always the same, so that this passes or fails for good: at most 16 for 3 degrees of freedom.
			if x := chiSquare(count, shares); x > 16 {
				t.Errorf("%v: chi-square %.1f: got %v", shares, x, count)
			}
		}
	})
	t.Run("only the share of what changes moves", func(t *testing.T) {
		all := owners(built(pool("iphash", "1", "1", "1", "1", "1")))
		less := built(pool("iphash", "1", "1", "0", "1", "1"))
		for i, o := range owners(less) {
			if all[i] != 3 && o != all[i] {
				t.Fatalf("client %d moved from %d to %d when 3 went", i, all[i], o)
			}
			if o == 3 {
				t.Fatalf("client %d is at 3, which is gone", i)
			}
		}
	})
	t.Run("the same in every process", func(t *testing.T) {
		p := built(pool("iphash", "1", "2", "3"))
		got := ""
		for i := range 12 {
			b := p.Pick(clientKey(i), nil)
			got += fmt.Sprint(port(b))
			b.Release()
		}
		if got != "323231333313" {
			t.Errorf("got %s: every client of a running system has moved", got)
		}
	})
	t.Run("IPv4 is IPv4", func(t *testing.T) {
		if ClientKey(netip.MustParseAddr("10.0.0.1")) != ClientKey(netip.MustParseAddr("::ffff:10.0.0.1")) {
			t.Error("a mapped address has another key")
		}
	})
}

func TestEveryPolicyKeepsTheRules(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			t.Run("tiers", func(t *testing.T) {
				p := built(pool(policy, "1/5", "1/0", "1/0", "1/9"))
				if got := picks(p, 100, nil); got[2]+got[3] != 100 {
					t.Errorf("got %v; want the tier 0", got)
				}
				tried := []*Backend{p.Members[1].Backend, p.Members[2].Backend}
				if got := picks(p, 100, tried); got[1] != 100 {
					t.Errorf("got %v; want the tier 5", got)
				}
				tried = append(tried, p.Members[0].Backend, p.Members[3].Backend)
				if got := picks(p, 10, tried); got[0] != 10 {
					t.Errorf("got %v; want nobody", got)
				}
			})
			t.Run("weight 0", func(t *testing.T) {
				p := built(pool(policy, "0", "1"))
				if got := picks(p, 50, nil); got[2] != 50 {
					t.Errorf("got %v", got)
				}
				if got := picks(built(pool(policy, "0")), 5, nil); got[0] != 5 {
					t.Errorf("got %v", got)
				}
			})
			t.Run("empty", func(t *testing.T) {
				if built(pool(policy)).Pick(0, nil) != nil {
					t.Error("picked one of none")
				}
			})
			t.Run("the last of many", func(t *testing.T) {
				spec := make([]string, 1000)
				for i := range spec {
					spec[i] = "1/0/1"
				}
				p := built(pool(policy, spec...))
				seen := map[*Backend]bool{}
				for range 1000 {
					b := p.Pick(0, nil)
					if b == nil || seen[b] {
						t.Fatalf("after %d: got %v", len(seen), b)
					}
					seen[b] = true
				}
				if p.Pick(0, nil) != nil {
					t.Error("picked a full one")
				}
			})
			t.Run("limits under contention", func(t *testing.T) {
				p := built(pool(policy, "1/0/3", "1/0/4", "1/1/5"))
				var wg sync.WaitGroup
				for w := range 8 {
					wg.Go(func() {
						r := rand.New(rand.NewPCG(uint64(w), 0))
						var held []*Backend
						for range 2000 {
							if b := p.Pick(0, nil); b != nil {
								held = append(held, b)
							}
							if len(held) > r.IntN(3) {
								held[0].Release()
								held = held[1:]
							}
						}
						for _, b := range held {
							b.Release()
						}
					})
				}
				wg.Wait()
				for _, m := range p.Members {
					if m.Active() != 0 {
						t.Errorf("%s: %d left", m.Name, m.Active())
					}
				}
				if got := picks(p, 10, nil); got[0] != 0 {
					t.Errorf("nobody is picked afterwards: %v", got)
				}
				n := 0
				for p.Pick(0, nil) != nil {
					n++
				}
				if n != 12 {
					t.Errorf("%d places, want 12", n)
				}
			})
			t.Run("no allocation", func(t *testing.T) {
				p := built(pool(policy, "1", "2", "3/1", "4"))
				tried := []*Backend{p.Members[0].Backend}
				if n := testing.AllocsPerRun(1000, func() {
					p.Pick(0, tried).Release()
					p.Pick(0, nil).Release()
				}); n != 0 {
					t.Errorf("%v allocations", n)
				}
			})
		})
	}
}

func TestRoute(t *testing.T) {
	cfg := &config.Config{
		Frontends: []*config.Frontend{{Name: "f", Pool: "rest", Routes: []*config.Route{
			{Pool: "ten", Match: config.Match{Source: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}},
			{Pool: "one", Match: config.Match{Source: []netip.Prefix{netip.MustParsePrefix("10.1.1.1/32")}}},
		}}, {Name: "closed"}},
		Pools: []*config.Pool{{Name: "ten", Policy: "random"}, {Name: "one", Policy: "random"}, {Name: "rest", Policy: "random"}},
	}
	f := build(cfg, 1, identities{}).Frontend("f")
	for client, want := range map[string]string{"10.1.1.1": "ten", "::ffff:10.1.1.1": "ten", "fd00::1%eth0": "ten", "11.0.0.1": "rest"} {
		if got := f.Route(netip.MustParseAddr(client), nil).Pool.Config.Name; got != want {
			t.Errorf("%s: got %s, want %s", client, got, want)
		}
	}
	if got := f.Route(netip.Addr{}, nil).Pool.Config.Name; got != "rest" { // a unix socket
		t.Errorf("no address: got %s, want rest", got)
	}
	if got := build(cfg, 1, identities{}).Frontend("closed").Route(netip.Addr{}, nil).Pool; got != nil {
		t.Errorf("no pool: got %v", got)
	}
}

// plane is a Plane that notes what happens.
type plane struct {
	err   error
	calls []string
}

func (p *plane) Still(f func()) { f() }

func (p *plane) Prepare(next *Snapshot) (Plan, error) {
	p.calls = append(p.calls, fmt.Sprint("prepare ", next.Version))
	return p, p.err
}

func (p *plane) Preview(next *Snapshot) ([]Change, error) {
	p.calls = append(p.calls, fmt.Sprint("preview ", next.Version))
	return []Change{{Kind: "listener", Name: "x", Action: "added"}}, p.err
}

func (p *plane) BackendChanged(*Backend) {}

func (p *plane) PrepareMembers(pool *Pool) {
	p.calls = append(p.calls, fmt.Sprint("prepare members of ", pool.Config.Name))
}

func (p *plane) CommitMembers(pool string, gone []*Backend) {
	p.calls = append(p.calls, fmt.Sprint("commit members of ", pool, ", gone: ", len(gone)))
}

func (p *plane) Commit() []Change {
	p.calls = append(p.calls, "commit")
	return []Change{{Kind: "listener", Name: "x", Action: "added"}}
}

func TestApply(t *testing.T) {
	d, pl := NewDirector(), &plane{}
	d.Drive(pl)
	cfg := func(edit func(*config.Config)) *config.Config {
		c := &config.Config{Frontends: []*config.Frontend{{Name: "f", Pool: "p"}},
			Pools: []*config.Pool{pool("roundrobin", "1", "1")}}
		if edit != nil {
			edit(c)
		}
		return c
	}
	apply := func(c *config.Config) *Report {
		t.Helper()
		r, err := d.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	apply(cfg(nil))
	first := d.Snapshot()
	b := first.Pools[0].Members[0].Backend

	// The same again: only the plane has something to say.
	if r := apply(cfg(nil)); len(r.Changes) != 1 || r.Version != 2 || r.NeedRestart != nil {
		t.Errorf("got %+v; want no change but the plane's", r)
	}
	if d.Snapshot().Pools[0].Members[0].Backend != b || d.Snapshot().Frontends[0].Live != first.Frontends[0].Live {
		t.Error("the same backend and frontend are not the same any more")
	}

	// A failure to prepare changes nothing.
	before := d.Snapshot()
	pl.err = errors.New("no such address")
	if _, err := d.Apply(cfg(func(c *config.Config) { c.Frontends = nil })); err != pl.err || d.Snapshot() != before {
		t.Errorf("got %v, and the snapshot changed: %v", err, d.Snapshot() != before)
	}
	pl.err = nil

	r := apply(cfg(func(c *config.Config) {
		c.Engine.Shards, c.Admin.Bind, c.Log.Level = 7, "127.0.0.1:1", "debug"
		c.Pools[0].Policy = "leastconn"
		c.Pools[0].Backends[0].Weight = 9
		c.Pools[0].Backends = append(c.Pools[0].Backends[:1], pool("", "1", "1", "1").Backends[2])
		c.Frontends[0].MaxConnections = 5
	}))
	got := fmt.Sprint(r.Changes)
	for _, want := range []string{"frontend f changed", "pool p changed", "backend p/127.0.0.1:1 changed: weight 9",
		"backend p/127.0.0.1:2 removed: no session left", "backend p/127.0.0.1:3 added", "log changed"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s does not say %q", got, want)
		}
	}
	if want := "[engine.shards admin.bind]"; fmt.Sprint(r.NeedRestart) != want {
		t.Errorf("need restart: got %v, want %s", r.NeedRestart, want)
	}
	if want := "[prepare 1 commit prepare 2 commit prepare 3 prepare 3 commit]"; fmt.Sprint(pl.calls) != want {
		t.Errorf("plane saw %v, want %s", pl.calls, want)
	}
}
