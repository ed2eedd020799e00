package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"awe4lb/config"
)

func TestStates(t *testing.T) {
	p := built(pool("roundrobin", "1"))
	b := p.Members[0].Backend
	for i, tc := range []struct {
		do   func() State
		was  State
		is   State
		down bool
	}{
		{func() State { return b.SetState(Up) }, Up, Up, false},
		{func() State { return b.SetState(Down) }, Up, Down, true},
		{func() State { return b.SetState(Drain) }, Down, Drain, true},
		{func() State { return b.SetState(Up) }, Drain, Drain, false}, // checks do not end an order
		{func() State { return b.SetState(Maintenance) }, Drain, Maintenance, false},
		{func() State { return b.SetState(Down) }, Maintenance, Maintenance, true},
		{func() State { return b.Readmit() }, Maintenance, Down, true},
		{func() State { return b.SetState(Up) }, Down, Up, false},
		{func() State { return b.Readmit() }, Up, Up, false},
	} {
		if was := tc.do(); was != tc.was || b.State() != tc.is || b.IsDown() != tc.down {
			t.Errorf("step %d: got %v to %v, down %v; want %v to %v, %v", i, was, b.State(), b.IsDown(), tc.was, tc.is, tc.down)
		}
	}
	if b.SetState(Drain); b.State().String() != "drain" {
		t.Errorf("got %v", b.State())
	}
}

// TestDown: who is down is left out and comes back, by every policy, with nothing built anew.
func TestDown(t *testing.T) {
	for _, policy := range policies {
		p := built(pool(policy, "1", "1", "1", "1"))
		for _, s := range []State{Down, Drain, Maintenance} {
			p.Members[1].SetState(s)
			if got := picks(p, 300, nil); got[2] != 0 || got[0] != 0 {
				t.Errorf("%s: %v: got %v", policy, s, got)
			}
			p.Members[1].SetState(Up)
			p.Members[1].Readmit()
		}
		n := 0
		for i := range 300 {
			b := p.Pick(clientKey(i), nil)
			if b == p.Members[1].Backend {
				n++
			}
			b.Release()
		}
		if n == 0 {
			t.Errorf("%s: the one that came back has nothing", policy)
		}
	}
}

func TestPanic(t *testing.T) {
	made := func(spec ...string) *Pool {
		cfg := pool("random", spec...)
		cfg.PanicThreshold = 50
		return built(cfg)
	}
	down := func(p *Pool, numbers ...int) {
		for i, m := range p.Members {
			m.SetState(Up)
			if slices.Contains(numbers, i+1) {
				m.SetState(Down)
			}
		}
	}
	used := func(p *Pool) string {
		got := ""
		for port, n := range picks(p, 200, nil) {
			if n > 0 {
				got += fmt.Sprint(port)
			}
		}
		return got
	}
	two := made("1", "1", "3/1", "1/1")
	for _, tc := range []struct {
		p    *Pool
		down []int
		want string
		all  bool // in panic
	}{
		{made("1", "1", "1", "1"), []int{1, 2}, "34", false},
		{made("1", "1", "1", "1"), []int{1, 2, 3}, "1234", true},
		{made("1", "1", "1", "1"), []int{1, 2, 3, 4}, "1234", true},
		{made("1", "9"), []int{1}, "2", false}, // it is the weight that counts
		{made("1", "9"), []int{2}, "12", true},
		{made("1", "9", "0"), []int{1, 2, 3}, "12", true},
		{two, nil, "12", false},
		{two, []int{1}, "2", false},
		{two, []int{1, 2}, "34", false},
		{two, []int{1, 2, 4}, "3", false},
		{two, []int{1, 2, 3}, "34", true}, // a quarter of the second tier is up, nothing of the first
		{two, []int{1, 2, 3, 4}, "12", true},
		{two, []int{3, 4}, "12", false},
	} {
		down(tc.p, tc.down...)
		before := tc.p.PanicPicks()
		if got := used(tc.p); got != tc.want || (tc.p.PanicPicks()-before == 200) != tc.all || !tc.all && tc.p.PanicPicks() != before {
			t.Errorf("%v down: used %s, want %s; %d in panic", tc.down, got, tc.want, tc.p.PanicPicks()-before)
		}
	}
	// What was ordered holds in panic too, and such members do not count.
	p := made("1", "1", "1", "1")
	p.Members[0].SetState(Drain)
	p.Members[1].SetState(Maintenance)
	p.Members[2].SetState(Down)
	if got := used(p); got != "4" {
		t.Errorf("used %s, want 4", got)
	}
	p.Members[3].SetState(Down)
	if got := used(p); got != "34" {
		t.Errorf("used %s, want 34", got)
	}
	// All tried in the tier of which most is up: then the others.
	down(two, 1, 2, 3)
	tried := []*Backend{two.Members[2].Backend, two.Members[3].Backend}
	if b := two.Pick(0, tried); b == nil || port(b) > 2 {
		t.Errorf("got %v, want one of the first tier", b)
	}
	// Off.
	off := built(pool("random", "1", "1"))
	down(off, 1, 2)
	if off.Pick(0, nil) != nil || off.PanicPicks() != 0 {
		t.Error("picked one that is down")
	}
}

func TestZones(t *testing.T) {
	cfg := pool("random", "1", "1", "1/1", "1/1", "1/0/2")
	for i, zone := range []string{"a", "b", "a", "b", "b"} {
		cfg.Backends[i].Zone = zone
	}
	made := func(prefer bool, zone string) *Pool {
		cfg.PreferZone = prefer
		return buildPool(cfg, cfg.Backends, here{zone: zone}, identities{})
	}
	if got := picks(made(false, "b"), 300, nil); got[1] == 0 {
		t.Errorf("not asked for: got %v", got)
	}
	if got := picks(made(true, ""), 300, nil); got[1] == 0 {
		t.Errorf("unknown where: got %v", got)
	}
	if got := picks(made(true, "c"), 300, nil); got[1] == 0 || got[2] == 0 || got[3] != 0 {
		t.Errorf("none there: got %v", got)
	}
	p := made(true, "b")
	if got := picks(p, 300, nil); got[2]+got[5] != 300 {
		t.Errorf("got %v; want 2 and 5", got)
	}
	p.Members[1].SetState(Down)
	for range 2 {
		if b := p.Pick(0, nil); port(b) != 5 {
			t.Errorf("got %d, want 5", port(b))
		}
	}
	if b := p.Pick(0, nil); port(b) != 1 { // the other zone before the other priority
		t.Errorf("got %d, want 1", port(b))
	}
}

func TestKey(t *testing.T) {
	at := netip.MustParseAddrPort
	made := func(policy, by string) *Pool {
		cfg := pool(policy, "1")
		cfg.HashKey, cfg.HashPrefixV4, cfg.HashPrefixV6 = by, 24, 56
		return built(cfg)
	}
	if k := made("random", "source").Key(at("10.0.0.1:1"), nil); k != 0 {
		t.Errorf("got %x for a policy that does not hash", k)
	}
	for _, tc := range []struct {
		by     string
		a, b   string
		na, nb string
		same   bool
	}{
		{"source", "10.0.0.1:1", "10.0.0.1:2", "", "", true},
		{"source", "10.0.0.1:1", "[::ffff:10.0.0.1]:2", "", "", true},
		{"source", "10.0.0.1:1", "10.0.0.2:1", "", "", false},
		{"source", "[fe80::1%a]:1", "[fe80::1%b]:1", "", "", true},
		{"source_port", "10.0.0.1:1", "10.0.0.1:1", "", "", true},
		{"source_port", "10.0.0.1:1", "10.0.0.1:2", "", "", false},
		{"source_port", "10.0.0.1:1", "10.0.0.2:1", "", "", false},
		{"prefix", "10.0.0.1:1", "10.0.0.200:2", "", "", true},
		{"prefix", "10.0.0.1:1", "[::ffff:10.0.0.2]:2", "", "", true},
		{"prefix", "10.0.0.1:1", "10.0.1.1:1", "", "", false},
		{"prefix", "[fd00:1:2:300::1]:1", "[fd00:1:2:3ff::2]:1", "", "", true},
		{"prefix", "[fd00:1:2:300::1]:1", "[fd00:1:2:400::1]:1", "", "", false},
		{"sni", "10.0.0.1:1", "10.0.0.2:2", "a.example", "a.example", true},
		{"sni", "10.0.0.1:1", "10.0.0.1:1", "a.example", "b.example", false},
		{"sni", "10.0.0.1:1", "10.0.0.1:2", "", "", true}, // no name: the address
		{"sni", "10.0.0.1:1", "10.0.0.2:1", "", "", false},
	} {
		p := made("maglev", tc.by)
		if same := p.Key(at(tc.a), []byte(tc.na)) == p.Key(at(tc.b), []byte(tc.nb)); same != tc.same {
			t.Errorf("%s: %s %q and %s %q: same is %v", tc.by, tc.a, tc.na, tc.b, tc.nb, same)
		}
	}
	for _, by := range []string{"source", "source_port", "prefix", "sni"} {
		p := made("iphash", by)
		if p.AsksName() != (by == "sni") {
			t.Errorf("%s: asks for the name: %v", by, p.AsksName())
		}
		p.Key(netip.AddrPort{}, nil) // a unix socket
		name := []byte("a.example")
		if n := testing.AllocsPerRun(100, func() { p.Key(at("[fd00::1]:1"), name) }); n != 0 {
			t.Errorf("%s: %v allocations", by, n)
		}
	}
	if ClientKey(at("10.0.0.1:1").Addr()) != 0x942f19187936f36c {
		t.Errorf("got %#x: every client of a running system has moved", ClientKey(at("10.0.0.1:1").Addr()))
	}
}

// TestSNIPoolWaits: who leads to a pool that goes by the name waits for a ClientHello.
func TestSNIPoolWaits(t *testing.T) {
	byName := pool("maglev", "1")
	byName.Name, byName.HashKey = "names", "sni"
	cfg := &config.Config{Pools: []*config.Pool{pool("maglev", "1"), byName}, Frontends: []*config.Frontend{
		{Name: "direct", Pool: "names"}, {Name: "plain", Pool: "p"},
		{Name: "routed", Pool: "p", Routes: []*config.Route{{Pool: "names"}}},
	}}
	s := build(cfg, 1, identities{})
	for name, want := range map[string]bool{"direct": true, "plain": false, "routed": true} {
		if got := s.Frontend(name).NeedsHello(); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// rampedFor puts a backend some way into its slow start.
func rampedFor(b *Backend, d time.Duration) { b.ramp.Store(clock() - int64(d)) }

func TestSlowStart(t *testing.T) {
	for _, policy := range policies {
		cfg := pool(policy, "10", "10", "10")
		cfg.SlowStart = time.Hour
		hashes := policy == "iphash" || policy == "maglev"
		for _, tc := range []struct {
			ramped time.Duration
			want   float64 // of the shares of the others
		}{{0, .1}, {30 * time.Minute, .5}, {2 * time.Hour, 1}} {
			p := built(cfg)
			rampedFor(p.Members[1].Backend, tc.ramped)
			want := tc.want
			if hashes {
				want = 1
			}
			got := make([]int, 3)
			for i := range 30_000 {
				b := p.Pick(clientKey(i), nil)
				got[port(b)-1]++
				if policy != "leastconn" && policy != "leastbandwidth" && policy != "p2c" && policy != "leasttime" {
					b.Release()
				}
			}
			if is := 2 * float64(got[1]) / float64(got[0]+got[2]); is < want*.85-.01 || is > want*1.15+.01 {
				t.Errorf("%s, %v into an hour: %.2f of the others' share, want %.2f: %v", policy, tc.ramped, is, want, got)
			}
		}
		// Alone it takes all.
		p := built(cfg)
		rampedFor(p.Members[1].Backend, 0)
		tried := []*Backend{p.Members[0].Backend}
		p.Members[2].SetState(Down)
		for range 200 {
			if b := p.Pick(0, tried); b != p.Members[1].Backend {
				t.Fatalf("%s: got %v", policy, b)
			}
		}
		p.Members[0].SetState(Down)
		for range 200 {
			if b := p.Pick(0, nil); b != p.Members[1].Backend {
				t.Fatalf("%s: got %v", policy, b)
			}
		}
	}
}

// TestWhoStartsSlowly: those that come into a pool that is there, get a weight or come back up; not those that a pool has from
// the beginning.
func TestWhoStartsSlowly(t *testing.T) {
	d := NewDirector()
	d.Drive(new(plane))
	apply := func(spec ...string) *Pool {
		t.Helper()
		cfg := pool("random", spec...)
		cfg.SlowStart = time.Hour
		if _, err := d.Apply(&config.Config{Pools: []*config.Pool{cfg}}); err != nil {
			t.Fatal(err)
		}
		return d.Snapshot().Pools[0]
	}
	slow := func(p *Pool) string {
		s := ""
		for _, m := range p.Members {
			if m.part(int64(time.Hour)) < whole {
				s += fmt.Sprint(port(m.Backend))
			}
		}
		return s
	}
	if got := slow(apply("1", "0")); got != "" {
		t.Errorf("a new pool: %s", got)
	}
	if got := slow(apply("1", "0", "1")); got != "3" {
		t.Errorf("3 came: %s", got)
	}
	p := apply("1", "2", "1", "1")
	if got := slow(p); got != "234" {
		t.Errorf("4 came, and 2 has a weight now: %s", got)
	}
	p.Members[0].SetState(Down)
	p.Members[0].SetState(Drain)
	p.Members[0].SetState(Up)
	if got := slow(p); got != "234" {
		t.Errorf("1 is to drain: %s", got)
	}
	p.Members[0].Readmit()
	if got := slow(p); got != "1234" {
		t.Errorf("1 is back: %s", got)
	}
	if got := slow(apply("3", "2", "1", "1")); got != "1234" {
		t.Errorf("after a reload: %s", got)
	}
}

// TestPicksAgainstModel: whatever is done to pools and backends, a pick is one that may be picked, and there is one whenever
// there may be.
func TestPicksAgainstModel(t *testing.T) {
	for _, policy := range policies {
		r := rand.New(rand.NewPCG(7, uint64(len(policy))))
		d := NewDirector()
		d.Drive(new(plane))
		var cfg *config.Pool
		reload := func() {
			var spec []string
			for range r.IntN(12) {
				spec = append(spec, fmt.Sprintf("%d/%d/%d", r.IntN(4), r.IntN(3), r.IntN(2)*(1+r.IntN(4))))
			}
			cfg = pool(policy, spec...)
			cfg.PanicThreshold = []int{0, 50, 100}[r.IntN(3)]
			cfg.PreferZone = r.IntN(2) == 0
			cfg.SlowStart = []time.Duration{0, time.Hour}[r.IntN(2)]
			for _, b := range cfg.Backends {
				b.Zone = []string{"", "a", "b"}[r.IntN(3)]
			}
			if _, err := d.Apply(&config.Config{Engine: config.Engine{Zone: "a"}, Pools: []*config.Pool{cfg}}); err != nil {
				t.Fatal(err)
			}
		}
		reload()
		held := map[*Backend]int{}
		for step := range 20_000 {
			p := d.Snapshot().Pools[0]
			switch x := r.IntN(100); {
			case x == 0:
				reload()
			case x < 8 && len(p.Members) > 0:
				p.Members[r.IntN(len(p.Members))].SetState(State(r.IntN(4)))
			case x < 12 && len(p.Members) > 0:
				p.Members[r.IntN(len(p.Members))].Readmit()
			case x < 55:
				for b := range held {
					b.Release()
					if held[b]--; held[b] == 0 {
						delete(held, b)
					}
					break
				}
			default:
				var tried []*Backend
				for range r.IntN(3) {
					if len(p.Members) > 0 {
						tried = append(tried, p.Members[r.IntN(len(p.Members))].Backend)
					}
				}
				may := modelPick(cfg, p, tried)
				b := p.Pick(r.Uint64(), tried)
				if b == nil && len(may) > 0 || b != nil && !may[b] {
					t.Fatalf("%s, step %d: picked %v of %d that may be", policy, step, b, len(may))
				}
				if b != nil {
					held[b]++
				}
			}
			for b, n := range held {
				if b.Active() != int64(n) {
					t.Fatalf("%s, step %d: %d counted, %d held", policy, step, b.Active(), n)
				}
			}
		}
	}
}

// modelPick returns who may be picked, by the words of docs/configuration.md.
func modelPick(cfg *config.Pool, p *Pool, tried []*Backend) map[*Backend]bool {
	type tier struct {
		up, all int
		members []*Member
	}
	var tiers []*tier
	for priority := range 3 {
		for _, far := range []bool{false, true} {
			ti := &tier{}
			for _, m := range p.Members {
				if m.Config.Priority != priority || m.Config.Weight == 0 || (cfg.PreferZone && m.Config.Zone != "a") != far {
					continue
				}
				ti.members = append(ti.members, m)
				if s := m.State(); s == Up {
					ti.up += m.Config.Weight
					ti.all += m.Config.Weight
				} else if s == Down {
					ti.all += m.Config.Weight
				}
			}
			tiers = append(tiers, ti)
		}
	}
	percent := func(ti *tier) int {
		if ti.all == 0 {
			return 100
		}
		return 100 * ti.up / ti.all
	}
	choose := func(ti *tier, down bool) map[*Backend]bool {
		may := map[*Backend]bool{}
		for _, m := range ti.members {
			full := m.Config.MaxConnections > 0 && m.Active() >= int64(m.Config.MaxConnections)
			if (m.State() == Up || down && m.State() == Down) && !full && !slices.Contains(tried, m.Backend) {
				may[m.Backend] = true
			}
		}
		return may
	}
	var poor []*tier
	for _, ti := range tiers {
		if percent(ti) < cfg.PanicThreshold {
			poor = append(poor, ti)
		} else if may := choose(ti, false); len(may) > 0 {
			return may
		}
	}
	slices.SortStableFunc(poor, func(a, b *tier) int { return percent(b) - percent(a) })
	for _, ti := range poor {
		if may := choose(ti, true); len(may) > 0 {
			return may
		}
	}
	return nil
}

// TestStateOfPoolThatCameBack: a backend that outlives its pool is still seen by the pool that comes back.
func TestStateOfPoolThatCameBack(t *testing.T) {
	d := NewDirector()
	d.Drive(new(plane))
	apply := func(pools ...*config.Pool) {
		t.Helper()
		if _, err := d.Apply(&config.Config{Pools: pools}); err != nil {
			t.Fatal(err)
		}
	}
	half := func(spec ...string) *config.Pool {
		p := checked(pool("random", spec...), "up")
		p.PanicThreshold = 50
		return p
	}
	apply(half("1"))
	kept := d.Snapshot().Pools[0].Pick(0, nil)
	apply()
	kept.SetState(Down)
	apply(half("1", "1", "1"))
	p := d.Snapshot().Pools[0]
	if p.Members[0].Backend != kept {
		t.Fatal("another backend")
	}
	if got := picks(p, 100, nil); got[1] != 0 {
		t.Errorf("the one that is down has %d", got[1])
	}
	p.Members[1].SetState(Down)
	p.Members[2].SetState(Down)
	if got := picks(p, 100, nil); got[0] != 0 || p.PanicPicks() != 100 {
		t.Errorf("all are down: got %v", got)
	}
	kept.SetState(Up)
	p.Members[1].SetState(Up)
	if got := picks(p, 100, nil); got[1]+got[2] != 100 {
		t.Errorf("two are back: got %v", got)
	}
}
