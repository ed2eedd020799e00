package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWeights: every policy follows weights. Those that go by load do so exactly, over sessions that stay; the others over
// sessions that go at once.
func TestWeights(t *testing.T) {
	shares := []float64{1, 2, 3, 4, 10}
	const sessions = 100_000 // a multiple of the sum of weights
	for _, policy := range policies {
		p := built(pool(policy, "1", "2", "3", "4", "10"))
		got := make([]int, len(shares))
		exact := policy == "roundrobin" || policy == "leastconn" || policy == "leastbandwidth"
		for i := range sessions {
			b := p.Pick(clientKey(i), nil)
			got[port(b)-1]++
			if policy != "leastconn" && policy != "leastbandwidth" {
				b.Release()
			}
		}
		x := chiSquare(got, shares)
		// 4 degrees of freedom: above 31 once in 300,000 runs.
		if exact && x > 0 || x > 31 {
			t.Errorf("%s: chi-square %.1f: got %v", policy, x, got)
		}
	}
}

// TestWeightsAmongTheRest: with some down, full or tried, the others share what was theirs by weight.
func TestWeightsAmongTheRest(t *testing.T) {
	for _, policy := range policies {
		cfg := pool(policy, "1", "2", "3/0/1", "4", "10")
		p := built(cfg)
		p.Members[2].acquire(0)
		p.Members[3].SetState(Down)
		tried := []*Backend{p.Members[0].Backend}
		got := make([]int, 2)
		for i := range 60_000 {
			b := p.Pick(clientKey(i), tried)
			switch b {
			case p.Members[1].Backend:
				got[0]++
			case p.Members[4].Backend:
				got[1]++
			default:
				t.Fatalf("%s: picked %d", policy, port(b))
			}
			if policy != "leastconn" && policy != "leastbandwidth" {
				b.Release()
			}
		}
		// 1 degree of freedom: above 24 once in a million runs.
		if x := chiSquare(got, []float64{2, 10}); x > 24 {
			t.Errorf("%s: chi-square %.1f: got %v", policy, x, got)
		}
	}
}

// owners returns who has each of many clients.
func owners(p *Pool, clients int) []string {
	owner := make([]string, clients)
	for i := range owner {
		b := p.Pick(clientKey(i), nil)
		owner[i] = b.Name
		b.Release()
	}
	return owner
}

// TestMaglevMoves: of 100 members one goes. Its clients move, as they must, and of those of the others less than 2 %; when
// one is only down, none.
func TestMaglevMoves(t *testing.T) {
	const clients = 200_000
	for _, weights := range [][]string{{"1"}, {"1", "2", "3"}} {
		spec := make([]string, 100)
		for i := range spec {
			spec[i] = weights[i%len(weights)]
		}
		all := built(pool("maglev", spec...))
		before := owners(all, clients)
		worst := 0.0
		for _, gone := range []int{0, 17, 50, 99} {
			cfg := pool("maglev", spec...)
			name := cfg.Backends[gone].Address.String()
			cfg.Backends = slices.Delete(cfg.Backends, gone, gone+1)
			moved := 0
			for i, o := range owners(built(cfg), clients) {
				if before[i] != name && before[i] != o {
					moved++
				}
			}
			worst = max(worst, 100*float64(moved)/clients)

			all.Members[gone].SetState(Down)
			second := map[string]int{}
			for i, o := range owners(all, clients) {
				if before[i] != name && before[i] != o {
					t.Fatalf("client %d of %s moved to %s when %s was down", i, before[i], o, name)
				}
				if before[i] == name {
					second[o]++
				}
			}
			if len(second) < 99*9/10 {
				t.Errorf("the clients of one that is down went to %d others", len(second))
			}
			all.Members[gone].SetState(Up)
		}
		t.Logf("weights %v: %.2f %% of the clients of others moved", weights, worst)
		if worst > 2 {
			t.Errorf("weights %v: %.2f %% of the clients of others moved", weights, worst)
		}
	}
}

// TestMaglevIsFair: nobody's part of the table is more than 2 % off its share, however the backends stand in the file.
func TestMaglevIsFair(t *testing.T) {
	for _, tc := range []struct {
		n      int
		spec   []string
		within float64 // percent
	}{
		{1, []string{"1"}, 0}, {2, []string{"1"}, .2}, {100, []string{"1"}, .5}, {100, []string{"1", "2", "3"}, 2},
		{100, []string{"10", "20", "30"}, 2}, {250, []string{"1"}, 2}, {1000, []string{"1"}, 2}, {3, []string{"1", "1000"}, 3},
	} {
		var spec []string
		for i := range tc.n {
			spec = append(spec, tc.spec[i%len(tc.spec)])
		}
		p := built(pool("maglev", spec...))
		g := (*p.tiers.Load())[0].picker.(*maglev)
		sum := int64(0)
		for _, m := range g.members {
			sum += m.weight
		}
		places := map[*Member]int{}
		for _, i := range g.table {
			places[g.members[i]]++
		}
		worst := 0.0
		for _, m := range g.members {
			fair := float64(len(g.table)) * float64(m.weight) / float64(sum)
			worst = max(worst, 100*math.Abs(float64(places[m])-fair)/fair)
		}
		t.Logf("%d of %v: table of %d, %.2f %% off", tc.n, tc.spec, len(g.table), worst)
		if worst > tc.within {
			t.Errorf("%d of %v: somebody is %.2f %% off its share", tc.n, tc.spec, worst)
		}
		cfg := pool("maglev", spec...)
		rand.Shuffle(len(cfg.Backends), func(i, j int) { cfg.Backends[i], cfg.Backends[j] = cfg.Backends[j], cfg.Backends[i] })
		if !slices.Equal(owners(built(cfg), 500), owners(p, 500)) {
			t.Errorf("%d of %v: another order, another table", tc.n, tc.spec)
		}
	}
	// The same in every process.
	got := ""
	p := built(pool("maglev", "1", "2", "3"))
	for _, o := range owners(p, 12) {
		got += strings.TrimPrefix(o, "127.0.0.1:")
	}
	if got != "222313331321" {
		t.Errorf("got %s: every client of a running system has moved", got)
	}
	for _, size := range tableSizes {
		for d := 2; d*d <= size; d++ {
			if size%d == 0 {
				t.Errorf("%d is not prime", size)
			}
		}
	}
}

// TestTwoChoicesEvenOut: with sessions that stay, the fullest is hardly above the average, where by lot alone it is far.
func TestTwoChoicesEvenOut(t *testing.T) {
	above := func(policy string) float64 {
		spec := make([]string, 100)
		for i := range spec {
			spec[i] = fmt.Sprint(1 + i%3)
		}
		p := built(pool(policy, spec...))
		for range 20_000 {
			p.Pick(0, nil)
		}
		most := 0.0
		for _, m := range p.Members {
			most = max(most, float64(m.Active())/float64(m.Weight()))
		}
		return most / (20_000 / 199.0)
	}
	lot, two, least := above("random"), above("p2c"), above("leastconn")
	if two > 1.10 || least > 1.02 || two > lot {
		t.Errorf("the fullest is at %.2f times the average by p2c, %.2f by random, %.2f by leastconn", two, lot, least)
	}
}

// TestLeastConnAgainstModel: whatever happens, one of the least loaded is picked.
func TestLeastConnAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 7, 8, 9, 40, 100} {
		spec := make([]string, n)
		for i := range spec {
			spec[i] = fmt.Sprintf("%d/0/%d", 1+r.IntN(4), r.IntN(2)*(5+r.IntN(20)))
		}
		p := built(pool("leastconn", spec...))
		var held []*Backend
		for step := range 20_000 {
			switch r.IntN(20) {
			case 0:
				p.Members[r.IntN(n)].SetState(State(r.IntN(4)))
			case 1:
				p.Members[r.IntN(n)].Readmit()
			case 2, 3, 4, 5, 6, 7, 8, 9:
				if len(held) > 0 {
					i := r.IntN(len(held))
					held[i].Release()
					held = slices.Delete(held, i, i+1)
				}
			default:
				var tried []*Backend
				if r.IntN(4) == 0 {
					tried = append(tried, p.Members[r.IntN(n)].Backend)
				}
				least := math.Inf(1)
				loads := map[*Backend]float64{}
				for _, m := range p.Members {
					if m.usable(wish{tried: tried}) {
						loads[m.Backend] = float64(m.Active()+1) / float64(m.Weight())
						least = min(least, loads[m.Backend])
					}
				}
				b := p.Pick(0, tried)
				if b == nil {
					if len(loads) > 0 {
						t.Fatalf("%d members, step %d: picked nobody of %d", n, step, len(loads))
					}
					continue
				}
				if loads[b] != least {
					t.Fatalf("%d members, step %d: picked one at %v, where another is at %v", n, step, loads[b], least)
				}
				held = append(held, b)
			}
		}
	}
}

func TestLeastTime(t *testing.T) {
	p := built(pool("leasttime", "1", "1", "1"))
	fast, slow, fresh := p.Members[0], p.Members[1], p.Members[2]
	for range 5 {
		fast.Connected(time.Millisecond)
		slow.Connected(time.Millisecond)
		fast.Answered(10 * time.Millisecond)
		slow.Answered(500 * time.Millisecond)
	}
	if fast.Latency() < 10*time.Millisecond || fast.Latency() > 12*time.Millisecond || slow.Latency() < 400*time.Millisecond {
		t.Errorf("got %v and %v", fast.Latency(), slow.Latency())
	}
	got := picks(p, 9000, nil)
	// The slow one never wins against the fast one. Whoever is not known is compared by its sessions alone: as good as it.
	if got[2] > 1800 || got[1] < 3500 || got[3] < 2500 {
		t.Errorf("got %v", got)
	}
	// The fast one is as bad as the slow one when it has 50 times as many sessions.
	var held []*Backend
	for range 600 {
		held = append(held, p.Pick(0, []*Backend{fresh.Backend}))
	}
	if f, s := fast.Active(), slow.Active(); f < 15*s || f > 80*s {
		t.Errorf("the fast one has %d, the slow one %d", f, s)
	}
	for _, b := range held {
		b.Release()
	}
}

// TestLatency: a higher time counts at once, a lower one little by little, and all is forgotten some day.
func TestLatency(t *testing.T) {
	var l latency
	now := int64(time.Hour)
	if l.get(now) != 0 {
		t.Error("something is known of nobody")
	}
	near := func(what string, want float64) {
		t.Helper()
		if got := l.get(now); math.Abs(got-want) > want/50 {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	l.observe(100*time.Millisecond, now)
	near("first", .1)
	l.observe(300*time.Millisecond, now)
	near("peak", .3)
	for range 10 { // 10 s in all: 1 - 1/e of the way down
		now += int64(time.Second)
		l.observe(100*time.Millisecond, now)
	}
	near("better", .1+.2/math.E)
	now += int64(latencyWindow)
	near("long ago", (.1+.2/math.E)/2)
	l.observe(0, now)
	if l.get(now) == 0 {
		t.Error("a time of 0 counts as unknown")
	}
}

func TestLeastBandwidth(t *testing.T) {
	p := built(pool("leastbandwidth", "1", "1", "2"))
	bytes := map[*Backend]uint64{}
	measure := func(rates ...uint64) {
		for i, r := range rates {
			bytes[p.Members[i].Backend] += r
		}
		p.Measure(func(b *Backend) uint64 { return bytes[b] }, time.Second)
	}
	measure(0, 0, 0)
	for range 30 {
		measure(1000, 3000, 5000)
	}
	if got := p.Members[1].Rate(); got < 2900 || got > 3000 {
		t.Errorf("rate: got %v", got)
	}
	if got := picks(p, 100, nil); got[1] != 100 {
		t.Errorf("got %v; want the first, which has the least", got)
	}
	// In a burst each counts as an average session. Here that is all there is.
	var held []*Backend
	for range 8 {
		held = append(held, p.Pick(0, nil))
	}
	for range 30 {
		measure(1000, 3000, 5000)
	}
	got := make([]int, 4)
	for range 20 {
		b := p.Pick(0, nil)
		got[port(b)]++
		held = append(held, b)
	}
	if got[1] == 20 || got[3] <= got[2] {
		t.Errorf("a burst: got %v; want all to have some, the third twice", got)
	}
	for _, b := range held {
		b.Release()
	}
	// Counters that begin anew are no traffic.
	clear(bytes)
	measure(1, 1, 1)
	if got := p.Members[0].Rate(); got < 0 || got > 2000 {
		t.Errorf("rate: got %v", got)
	}
	// Nothing moves any more: some day all are alike.
	for range 200 {
		measure(0, 0, 0)
	}
	if got := p.Members[1].Rate(); got > 1 {
		t.Errorf("rate: got %v", got)
	}
}
