package balancer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"awe4lb/config"
)

// foundAt makes backends at 10.0.0.N:80, as discovery finds them.
func foundAt(numbers ...int) (list []*config.Backend) {
	for _, n := range numbers {
		ip := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		list = append(list, &config.Backend{Address: config.Address{IP: netip.AddrPortFrom(ip, 80)}, Weight: 1})
	}
	return list
}

// discovering is a configuration with a pool of one named backend and discovery, one without discovery, and ways there.
func discovering(edit func(*config.Config)) *config.Config {
	p := pool("roundrobin", "1")
	p.Discovery = new(config.Discovery)
	fixed := pool("roundrobin", "1")
	fixed.Name = "fixed"
	cfg := &config.Config{Pools: []*config.Pool{p, fixed}, Frontends: []*config.Frontend{
		{Name: "f", Pool: "p"}, {Name: "g", Pool: "fixed"},
		{Name: "r", Pool: "fixed", UnknownName: "any", Routes: []*config.Route{{Pool: "p", Match: config.Match{SNI: []string{"a.b"}}}}},
	}}
	if edit != nil {
		edit(cfg)
	}
	return cfg
}

func directed(t testing.TB, cfg *config.Config) (*Director, *plane) {
	d, pl := NewDirector(), &plane{}
	d.Drive(pl)
	if _, err := d.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	return d, pl
}

func TestSetBackends(t *testing.T) {
	d, pl := directed(t, discovering(nil))
	before := d.Snapshot()
	pl.calls = nil
	list := foundAt(1, 2)
	list[0].Labels = map[string]string{"rack": "7"}
	list = append(list, &config.Backend{Address: before.Pool("p").Members[0].Address, Weight: 500}) // it is named: that counts
	changes := d.SetBackends("p", list)
	if got := fmt.Sprint(changes); got != "[backend p/10.0.0.1:80 added backend p/10.0.0.2:80 added]" {
		t.Errorf("changes: %s", got)
	}
	if got := fmt.Sprint(pl.calls); got != "[prepare members of p commit members of p, gone: 0]" {
		t.Errorf("the plane saw %s", got)
	}
	s := d.Snapshot()
	p := s.Pool("p")
	if len(p.Members) != 3 || p.Members[0].Config.Weight != 1 || p.Members[1].Config.Labels["rack"] != "7" || s.Version != before.Version {
		t.Errorf("members %v, version %d", p.Members, s.Version)
	}
	// Every way to the pool leads to the new one, all else is as it was.
	if s.Frontend("f").pool != p || s.Frontend("r").routes.list[0].choice.Pool != p || s.Frontend("r").routes.others[0].Pool != p {
		t.Error("a frontend leads to the pool as it was")
	}
	if s.Pool("fixed") != before.Pool("fixed") || s.Frontend("g") != before.Frontend("g") || p.Members[0].Backend != before.Pool("p").Members[0].Backend {
		t.Error("something else was made anew")
	}
	if before.Frontend("r").routes.list[0].choice.Pool != before.Pool("p") || before.Frontend("f").pool != before.Pool("p") {
		t.Error("the snapshot before has changed")
	}

	// Nothing new: nothing happens.
	again := foundAt(1, 2)
	again[0].Labels = map[string]string{"rack": "7"}
	if c := d.SetBackends("p", again); c != nil || d.Snapshot() != s {
		t.Errorf("the same list: %v", c)
	}
	for _, name := range []string{"fixed", "none"} {
		if c := d.SetBackends(name, foundAt(9)); c != nil || d.Snapshot() != s {
			t.Errorf("%s: %v", name, c)
		}
	}

	// One goes and has a session.
	one := p.Members[1].Backend
	one.acquire(0)
	if got := fmt.Sprint(d.SetBackends("p", foundAt(2))); got != "[backend p/10.0.0.1:80 removed: 1 session goes on]" {
		t.Errorf("changes: %s", got)
	}
	if r := d.Retired(); len(r) != 1 || r[0] != one || d.Snapshot().Has(one) {
		t.Errorf("retired: %v", r)
	}
	// It comes back and is the same.
	d.SetBackends("p", foundAt(1, 2))
	if d.Snapshot().Pool("p").Members[1].Backend != one || len(d.Retired()) != 0 {
		t.Error("it is another one, or still retired")
	}
	one.Release()

	// A reload keeps what was found; one that begins with another list has that; a refused one changes nothing.
	if _, err := d.Apply(discovering(nil)); err != nil || len(d.Snapshot().Pool("p").Members) != 3 {
		t.Errorf("%v, members %v", err, d.Snapshot().Pool("p").Members)
	}
	pl.err = errors.New("no")
	if _, err := d.ApplyFound(discovering(nil), map[string][]*config.Backend{"p": nil}); err == nil || len(d.rosters["p"].found) != 2 {
		t.Error("a refused change has changed something")
	}
	pl.err = nil
	r, err := d.ApplyFound(discovering(nil), map[string][]*config.Backend{"p": foundAt(5)})
	if err != nil || !strings.Contains(fmt.Sprint(r.Changes), "10.0.0.5:80 added") || len(d.Snapshot().Pool("p").Members) != 2 {
		t.Errorf("%v, %v", r, err)
	}
	// Without discovery nobody was found, also when it comes back.
	for _, discovery := range []*config.Discovery{nil, new(config.Discovery)} {
		if _, err := d.Apply(discovering(func(c *config.Config) { c.Pools[0].Discovery = discovery })); err != nil || len(d.Snapshot().Pool("p").Members) != 1 {
			t.Errorf("%v, members %v", err, d.Snapshot().Pool("p").Members)
		}
	}
}

// TestMembersKeepTheirState: what was known of a backend outlives changes around it, and a new one begins as its pool says.
func TestMembersKeepTheirState(t *testing.T) {
	d, _ := directed(t, discovering(func(c *config.Config) {
		c.Pools[0].Health = &config.Health{Kind: "tcp", Initial: "down"}
		c.Pools[0].SlowStart = 1 << 40
		c.Pools[0].Backends = nil
	}))
	d.SetBackends("p", foundAt(1, 2))
	one := d.Snapshot().Pool("p").Members[0]
	if one.State() != Down {
		t.Errorf("a new one is %v; want down", one.State())
	}
	for n := 1; n <= 2; n++ {
		d.SetHealth("p", foundAt(n)[0].Address, true)
	}
	one.SetState(Drain)
	d.SetBackends("p", foundAt(1, 2, 3))
	p := d.Snapshot().Pool("p")
	if p.Members[0].State() != Drain || p.Members[1].State() != Up || p.Members[2].State() != Down {
		t.Errorf("states %v %v %v", p.Members[0].State(), p.Members[1].State(), p.Members[2].State())
	}
	if p.Members[2].ramp.Load() == 0 {
		t.Error("the new one has no slow start")
	}
}

// TestDirectorModel: random changes of lists, configurations and sessions against a model of who has to be where.
func TestDirectorModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		d, _ := directed(t, discovering(func(c *config.Config) { c.Pools[0].Backends = nil }))
		found := map[int]bool{}          // by discovery
		named := map[int]bool{}          // by the configuration
		discovers := true                // the pool has discovery
		sessions := map[*Backend]int{}   // held by us
		identity := map[int][]*Backend{} // all there ever were at an address
		configured := func() *config.Config {
			return discovering(func(c *config.Config) {
				c.Pools[0].Backends = nil
				for n := range named {
					c.Pools[0].Backends = append(c.Pools[0].Backends, foundAt(n)...)
				}
				if !discovers {
					c.Pools[0].Discovery = nil
				}
			})
		}
		for step := range 400 {
			switch r.IntN(8) {
			case 0, 1, 2:
				next := map[int]bool{}
				var list []int
				for n := range 8 {
					if r.IntN(2) == 0 {
						next[n], list = true, append(list, n)
					}
				}
				changes := d.SetBackends("p", foundAt(list...))
				if !discovers {
					if changes != nil {
						t.Fatalf("seed %d step %d: a pool without discovery has changed", seed, step)
					}
					continue
				}
				found = next
			case 3:
				named = map[int]bool{}
				for n := range 8 {
					if r.IntN(4) == 0 {
						named[n] = true
					}
				}
				if discovers = r.IntN(4) > 0; !discovers {
					found = map[int]bool{}
				}
				if _, err := d.Apply(configured()); err != nil {
					t.Fatal(err)
				}
			case 4, 5:
				if b := d.Snapshot().Frontend("f").Route(netip.Addr{}, nil).Pool.Pick(r.Uint64(), nil); b != nil {
					sessions[b]++
				} else if len(found)+len(named) > 0 {
					t.Fatalf("seed %d step %d: nobody was picked of %v and %v", seed, step, found, named)
				}
			case 6, 7:
				for b := range sessions {
					b.Release()
					if sessions[b]--; sessions[b] == 0 {
						delete(sessions, b)
					}
					break
				}
			}

			s := d.Snapshot()
			p := s.Pool("p")
			for n := range 8 {
				at := foundAt(n)[0].Address
				m := p.Member(at)
				if want := found[n] || named[n]; want != (m != nil) {
					t.Fatalf("seed %d step %d: %d is a member: %v; want %v", seed, step, n, m != nil, want)
				}
				if m == nil {
					continue
				}
				if !s.Has(m.Backend) {
					t.Fatalf("seed %d step %d: a member is not had", seed, step)
				}
				if !slices.Contains(identity[n], m.Backend) {
					for _, b := range identity[n] {
						if sessions[b] > 0 {
							t.Fatalf("seed %d step %d: %d is another backend while the one before has sessions", seed, step, n)
						}
					}
					identity[n] = append(identity[n], m.Backend)
				}
			}
			retired := d.Retired()
			for b, n := range sessions {
				if b.Active() != int64(n) {
					t.Fatalf("seed %d step %d: %s has %d sessions; want %d", seed, step, b.Name, b.Active(), n)
				}
				if s.Has(b) == slices.Contains(retired, b) {
					t.Fatalf("seed %d step %d: %s with sessions is a member: %v, retired: %v", seed, step, b.Name, s.Has(b), !s.Has(b))
				}
			}
			for _, b := range retired {
				if sessions[b] == 0 {
					t.Fatalf("seed %d step %d: %s is retired without a session", seed, step, b.Name)
				}
			}
			for _, f := range s.Frontends {
				for _, q := range append([]*Pool{f.pool}, f.routes.pools()...) {
					if q != s.Pool(q.Config.Name) {
						t.Fatalf("seed %d step %d: %s leads to a pool that is not in the snapshot", seed, step, f.Config.Name)
					}
				}
			}
		}
	}
}

// pools returns where routes lead.
func (rs *routes) pools() (all []*Pool) {
	for _, r := range rs.list {
		all = append(all, r.choice.Pool)
	}
	for _, c := range rs.others {
		all = append(all, c.Pool)
	}
	return all
}

// BenchmarkSetBackends1000 changes a tenth of a pool of a thousand, beside ten other pools of a thousand and a frontend with
// a thousand routes: what a change of discovery costs, shards apart.
func BenchmarkSetBackends1000(b *testing.B) {
	for _, policy := range policies {
		cfg := discovering(func(c *config.Config) {
			c.Pools[0].Policy = policy
			for i := range 10 {
				p := pool("random")
				p.Name, p.Backends = fmt.Sprint("other", i), foundAt(slices.Collect(func(yield func(int) bool) {
					for n := range 1000 {
						if !yield(n) {
							return
						}
					}
				})...)
				c.Pools = append(c.Pools, p)
			}
			for i := range 1000 {
				c.Frontends[2].Routes = append(c.Frontends[2].Routes, &config.Route{Pool: "p", Match: config.Match{SNI: []string{fmt.Sprint("www", i, ".example.com")}}})
			}
		})
		d, _ := directed(b, cfg)
		var lists [2][]*config.Backend
		for i := range lists {
			var numbers []int
			for n := range 1000 {
				numbers = append(numbers, n+n%10/9*i*1000) // every tenth is another
			}
			lists[i] = foundAt(numbers...)
		}
		b.Run(policy, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if len(d.SetBackends("p", lists[i%2])) == 0 {
					b.Fatal("nothing has changed")
				}
			}
		})
	}
}
