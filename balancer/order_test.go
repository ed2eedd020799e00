package balancer

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"awe4lb/config"
)

// told is a Plane that notes who has changed.
type told struct {
	nowhere
	heard []*Backend
}

func (p *told) BackendChanged(b *Backend) { p.heard = append(p.heard, b) }

func (p *told) take() []*Backend {
	heard := p.heard
	p.heard = nil
	return heard
}

func applied(t *testing.T, d *Director, pools ...*config.Pool) {
	t.Helper()
	if _, err := d.Apply(&config.Config{Pools: pools}); err != nil {
		t.Fatal(err)
	}
}

// TestOrders: an order is in force at once, the plane and the history hear of it, and it survives reloads and the backend.
func TestOrders(t *testing.T) {
	d, plane := NewDirector(), &told{}
	d.Drive(plane)
	applied(t, d, pool("roundrobin", "1", "1"))
	p := d.Snapshot().Pool("p")
	first := p.Members[0]
	if err := d.Order("p", first.Name, Maintain, "ann"); err != nil {
		t.Fatal(err)
	}
	if got := picks(p, 10, nil); got[1] != 0 || got[2] != 10 || first.State() != Maintenance || first.Ordered() != Maintain {
		t.Errorf("in maintenance: picks %v, %v", got, first.State())
	}
	if got := plane.take(); !slices.Equal(got, []*Backend{first.Backend}) {
		t.Errorf("the plane heard of %v", got)
	}
	if e := d.Events()[0]; e.What != "order" || e.From != "up" || e.To != "maintenance" || e.By != "ann" || e.Pool != "p" || e.Backend != first.Name || e.Time.IsZero() {
		t.Errorf("event %+v", e)
	}
	_ = d.SetWeight("p", first.Name, 7, "ann")
	applied(t, d, pool("roundrobin", "1", "1", "1"))
	if first.State() != Maintenance {
		t.Errorf("after a reload: %v", first.State())
	}
	only := pool("roundrobin", "1", "1")
	only.Backends = only.Backends[1:]
	applied(t, d, only)
	applied(t, d, pool("roundrobin", "1", "1"))
	m := d.Snapshot().Pool("p").Members[0]
	if m.Backend == first.Backend || m.State() != Maintenance || m.Weight() != 7 || m.OrderedWeight() != 7 {
		t.Errorf("it has come back and is %v, weight %d", m.State(), m.Weight())
	}
	if err := d.Order("p", m.Name, Admit, ""); err != nil || m.State() != Up {
		t.Errorf("admitted: %v, %v", m.State(), err)
	}
	if err := d.ResetWeight("p", m.Name, ""); err != nil || m.Weight() != 1 || m.OrderedWeight() != -1 || len(d.orders) != 0 {
		t.Errorf("reset: %d, %v, %v", m.Weight(), err, d.orders)
	}

	for _, tc := range []struct {
		pool, backend string
		weight        int
		want          error
	}{{"q", m.Name, 1, ErrNoPool}, {"p", "1.2.3.4:5", 1, ErrNoBackend}, {"p", m.Name, -1, ErrWeight}, {"p", m.Name, 1001, ErrWeight}} {
		if err := d.SetWeight(tc.pool, tc.backend, tc.weight, ""); !errors.Is(err, tc.want) {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
	if err := d.Order("p", "1.2.3.4:5", DrainIt, ""); !errors.Is(err, ErrNoBackend) {
		t.Errorf("got %v", err)
	}
	for _, o := range []Order{Admit, DrainIt, Maintain} {
		if got, err := ParseOrder(o.String()); got != o || err != nil {
			t.Errorf("%v: got %v, %v", o, got, err)
		}
	}
	if _, err := ParseOrder("up"); err == nil {
		t.Error("up is no order")
	}
}

// TestPlaneHearsOfRemoved: of backends that leave the configuration and of those that come back while they have sessions.
func TestPlaneHearsOfRemoved(t *testing.T) {
	d, plane := NewDirector(), &told{}
	d.Drive(plane)
	applied(t, d, pool("roundrobin", "1", "1"))
	b := d.Snapshot().Pool("p").Pick(0, nil)
	applied(t, d)
	if got := plane.take(); len(got) != 2 || !slices.Contains(got, b) {
		t.Errorf("removed: heard of %v", got)
	}
	applied(t, d, pool("roundrobin", "1", "1"))
	if got := plane.take(); !slices.Equal(got, []*Backend{b}) {
		t.Errorf("back: heard of %v", got)
	}
	applied(t, d, pool("roundrobin", "1", "1"))
	_ = d.Retired()
	if got := plane.take(); got != nil {
		t.Errorf("nothing changed: heard of %v", got)
	}
	b.Release()
}

// TestWeightsAtRunTime: with every policy, weights changed at run time count at once, 0 too, and beside a model of what they are.
func TestWeightsAtRunTime(t *testing.T) {
	for _, policy := range []string{"random", "roundrobin", "leastconn", "p2c", "iphash", "maglev", "leasttime", "leastbandwidth"} {
		d := NewDirector()
		d.Drive(nowhere{})
		applied(t, d, pool(policy, "1", "1", "1"))
		p := d.Snapshot().Pool("p")
		r := rand.New(rand.NewPCG(3, 4))
		weights := []int{1, 1, 1}
		for range 12 {
			i := r.IntN(3)
			weights[i] = r.IntN(4)
			if err := d.SetWeight("p", p.Members[i].Name, weights[i], "test"); err != nil {
				t.Fatal(err)
			}
			count := make([]int, 3)
			sum := weights[0] + weights[1] + weights[2]
			for range 6000 {
				b := p.Pick(r.Uint64(), nil)
				if b == nil {
					continue
				}
				count[port(b)-1]++
				if policy != "leastconn" && policy != "leastbandwidth" && policy != "p2c" && policy != "leasttime" {
					b.Release()
				}
			}
			for _, m := range p.Members {
				for m.Active() > 0 {
					m.Release()
				}
			}
			for i, w := range weights {
				if sum == 0 && count[i] != 0 || w == 0 && count[i] != 0 {
					t.Errorf("%s %v: picks %v", policy, weights, count)
				}
				if want := 6000 * float64(w) / float64(max(sum, 1)); policy != "leasttime" && math.Abs(float64(count[i])-want) > 300 {
					t.Errorf("%s %v: picks %v", policy, weights, count)
				}
			}
		}
		if policy == "leastconn" {
			for _, m := range p.Members {
				if l, ok := (*p.tiers.Load())[0].picker.(*leastConn); ok && m.Weight() > 0 {
					at := slices.IndexFunc(l.members, func(x *Member) bool { return x.Backend == m.Backend })
					if m.seat.Load() != &l.seats[at] {
						t.Error("a backend tells another picker than that of now")
					}
				}
			}
		}
	}
}

// TestWeightRamps: a backend whose weight was 0 has slow start.
func TestWeightRamps(t *testing.T) {
	d := NewDirector()
	d.Drive(nowhere{})
	c := pool("random", "1", "1")
	c.SlowStart = time.Hour
	applied(t, d, c)
	p := d.Snapshot().Pool("p")
	_ = d.SetWeight("p", p.Members[0].Name, 0, "")
	_ = d.ResetWeight("p", p.Members[0].Name, "")
	if got := picks(p, 4000, nil); got[1] < 200 || got[1] > 800 { // a tenth of the weight of the other, and a bit more as draws repeat
		t.Errorf("picks %v", got)
	}
}

// TestAdvice: what an agent wants holds beside what checks find, gives way to orders, and ends with the agent.
func TestAdvice(t *testing.T) {
	d := NewDirector()
	d.Drive(nowhere{})
	c := pool("roundrobin", "10", "10")
	c.Health = &config.Health{Kind: "agent", Initial: "up"}
	applied(t, d, c)
	p := d.Snapshot().Pool("p")
	m := p.Members[0]
	settled := func(want int) {
		t.Helper()
		deadline := time.Now().Add(5 * time.Second)
		for (*p.tiers.Load())[0].members[0].weight != int64(want) {
			if time.Now().After(deadline) {
				t.Fatalf("the pickers go by %d; want %d", (*p.tiers.Load())[0].members[0].weight, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	d.Advise("p", m.Address, Advice{Percent: 50})
	settled(5)
	if got := picks(p, 30, nil); got[1] != 10 || got[2] != 20 || m.AgentPercent() != 50 {
		t.Errorf("half the weight: %v", got)
	}
	d.Advise("p", m.Address, Advice{Percent: 1})
	settled(1) // of 10 it would be nothing
	d.Advise("p", m.Address, Advice{Percent: 300, Order: DrainIt, Orders: true})
	settled(30)
	if m.State() != Drain || m.AgentOrder() != DrainIt || m.Ordered() != Admit {
		t.Errorf("drained by its agent: %v", m.State())
	}
	d.SetHealth("p", m.Address, false)
	if m.State() != Drain || !m.IsDown() {
		t.Errorf("and down: %v", m.State())
	}
	d.SetHealth("p", m.Address, true)
	_ = d.Order("p", m.Name, Maintain, "")
	d.Advise("p", m.Address, Advice{Percent: -1, Orders: true})
	if m.State() != Maintenance || m.AgentPercent() != 300 {
		t.Errorf("what is ordered does not end with what the agent says: %v, %d", m.State(), m.AgentPercent())
	}
	_ = d.Order("p", m.Name, Admit, "")
	_ = d.SetWeight("p", m.Name, 2, "")
	d.Advise("p", m.Address, Advice{Percent: 0})
	if m.Weight() != 2 {
		t.Errorf("an ordered weight comes first: %d", m.Weight())
	}
	_ = d.ResetWeight("p", m.Name, "")
	if m.Weight() != 0 {
		t.Errorf("0%%: %d", m.Weight())
	}
	d.Advise("p", m.Address, Advice{Percent: 100, Order: Maintain, Orders: true})
	if m.State() != Maintenance {
		t.Errorf("in maintenance by its agent: %v", m.State())
	}
	applied(t, d, pool("roundrobin", "10", "10"))
	if p = d.Snapshot().Pool("p"); m.State() != Up || m.AgentPercent() != -1 || picks(p, 10, nil)[1] != 5 {
		t.Errorf("no agent any more: %v, %d", m.State(), m.AgentPercent())
	}
	if b, _ := d.Advise("q", m.Address, Advice{}); b != nil {
		t.Error("advice to nobody")
	}
}

// TestPickWhileWeightsChange is for the race detector: picks and sessions that end go on meanwhile.
func TestPickWhileWeightsChange(t *testing.T) {
	d := NewDirector()
	d.Drive(nowhere{})
	applied(t, d, pool("leastconn", "1", "1", "1"))
	p := d.Snapshot().Pool("p")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				if b := p.Pick(i, nil); b != nil {
					b.Release()
				}
			}
		}
	}()
	for i := range 300 {
		_ = d.SetWeight("p", p.Members[i%3].Name, i%4, "")
	}
	close(stop)
	<-done
}
