package engine

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// watchers are clients who note when they are cut off.
type watchers struct {
	r     *rig
	wg    sync.WaitGroup
	mu    sync.Mutex
	begun time.Time
	ends  []time.Duration // since begun, in order
}

// connect has n clients connect and say something; each waits for its end.
func (r *rig) connect(n int) *watchers {
	r.t.Helper()
	w := &watchers{r: r}
	for range n {
		c := r.dial()
		say(r.t, c, "x")
		hear(r.t, c, "x")
		w.wg.Go(func() {
			_, _ = c.Read(make([]byte, 1))
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ends = append(w.ends, time.Since(w.begun))
		})
	}
	return w
}

func (w *watchers) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = time.Now()
}

func (w *watchers) ended() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ends)
}

// wantPace fails if at any time more had ended than rate a second and burst allow. A client that notices late makes no
// difference: time has passed.
func (w *watchers) wantPace(rate float64, burst int) {
	w.r.t.Helper()
	for i, at := range w.ended() {
		if most := rate*at.Seconds() + float64(burst); float64(i+1) > most {
			w.r.t.Fatalf("%d had ended after %v; want %.1f at the most", i+1, at, most)
		}
	}
}

// TestDrainPace: the sessions of a backend that is to go end evenly until the deadline, or at the rate that is set, each for
// its reason; those of others do not.
func TestDrainPace(t *testing.T) {
	down := func(r *rig) { r.health(0, false) }
	maintain := func(r *rig) {
		if err := r.d.Order("p", r.d.Snapshot().Pools[0].Members[0].Name, balancer.Maintain, ""); err != nil {
			r.t.Fatal(err)
		}
	}
	removed := func(r *rig) {
		c := r.d.Snapshot().Config
		p := *c.Pools[0]
		p.Backends = p.Backends[1:]
		r.apply(&config.Config{Frontends: c.Frontends, Pools: []*config.Pool{&p}, Engine: c.Engine})
	}
	poolRemoved := func(r *rig) {
		c := r.d.Snapshot().Config
		f := *c.Frontends[0]
		f.Pool = ""
		r.apply(&config.Config{Frontends: []*config.Frontend{&f}, Engine: c.Engine})
	}
	for name, tc := range map[string]struct {
		gone    func(*rig)
		rate    int
		timeout time.Duration
		n       int // on the backend
		reason  Reason
		all     bool // those of the other too
	}{
		"down, evenly":        {down, 0, 1500 * time.Millisecond, 30, BackendDown, false},
		"down, by rate":       {down, 40, time.Minute, 40, BackendDown, false},
		"maintenance, evenly": {maintain, 0, time.Second, 20, BackendMaintenance, false},
		"removed, by rate":    {removed, 30, time.Minute, 20, BackendRemoved, false},
		"pool removed":        {poolRemoved, 40, time.Minute, 20, BackendRemoved, true},
		"the deadline":        {down, 10, 700 * time.Millisecond, 30, BackendDown, false}, // the rest at once
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, []string{lbtest.Echo(t), lbtest.Echo(t)}, func(c *config.Config) {
				withHealth(c)
				p := c.Pools[0]
				p.OnDown, p.OnRemoved, p.OnMaintenance, p.DrainTimeout, p.DrainRate = "drain", "drain", "drain", tc.timeout, tc.rate
			})
			w := r.connect(2 * tc.n)
			want := tc.n
			if tc.all {
				want = 2 * tc.n
			}
			w.begin()
			tc.gone(r)
			r.wantEnds(slices.Repeat([]Reason{tc.reason}, want)...)
			lbtest.Eventually(t, "clients have noticed", func() bool { return len(w.ended()) == want })
			took := w.ended()[want-1]
			if tc.rate == 0 { // each shard has its own part, and rounds up
				w.wantPace(float64(tc.n)/tc.timeout.Seconds(), 2)
				if took < tc.timeout*8/10 {
					t.Errorf("all had ended after %v of %v", took, tc.timeout)
				}
			} else if name == "the deadline" {
				if early := 10 + 1; took < tc.timeout || w.ended()[early] < tc.timeout {
					t.Errorf("ended: %v", w.ended())
				}
			} else {
				w.wantPace(float64(tc.rate), paceBurst(tc.rate))
			}
			if limit := tc.timeout + 5*time.Second; took > limit {
				t.Errorf("the last ended after %v; want %v", took, limit)
			}
			for _, sh := range r.e.shards {
				sh.loop.Call(func() {
					if len(sh.paces) > 0 {
						t.Errorf("shard %d still paces", sh.number)
					}
				})
			}
		})
	}
}

// TestDrainStops: a backend that is back keeps those who are left, whatever had taken it out.
func TestDrainStops(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t), lbtest.Echo(t)}, func(c *config.Config) {
		withHealth(c)
		p := c.Pools[0]
		p.OnDown, p.OnRemoved, p.OnMaintenance, p.DrainTimeout, p.DrainRate = "drain", "drain", "drain", time.Hour, 100
	})
	whole := r.d.Snapshot().Config
	part := *whole.Pools[0]
	part.Backends = part.Backends[1:]
	name := whole.Pools[0].Backends[0].Address.String()
	for i, tc := range []struct {
		gone, back func()
	}{
		{func() { r.health(0, false) }, func() { r.health(0, true) }},
		{func() { _ = r.d.Order("p", name, balancer.Maintain, "") }, func() { _ = r.d.Order("p", name, balancer.Admit, "") }},
		{func() { _ = r.d.Order("p", name, balancer.Maintain, "") }, func() { _ = r.d.Order("p", name, balancer.DrainIt, "") }},
		{func() {
			r.apply(&config.Config{Frontends: whole.Frontends, Pools: []*config.Pool{&part}, Engine: whole.Engine})
		}, func() { r.apply(whole) }},
	} {
		_ = r.d.Order("p", name, balancer.Admit, "")
		w := r.connect(60) // no less than 30 on each
		w.begin()
		tc.gone()
		lbtest.Eventually(t, "some have ended", func() bool { return len(w.ended()) >= 3 })
		tc.back()
		for _, sh := range r.e.shards {
			sh.loop.Call(func() { // after what was posted
				if len(sh.paces) > 0 {
					t.Errorf("%d: shard %d still paces", i, sh.number)
				}
			})
		}
		lbtest.Eventually(t, "what had ended was noticed", func() bool {
			open, _ := r.e.Sessions()
			return int(open)+len(w.ended()) >= 60
		})
		if n := len(w.ended()); n > 29 {
			t.Errorf("%d: all %d had ended before it was back", i, n)
		}
	}
}

// TestDrainQuietFirst: those who were quiet when last looked at go first.
func TestDrainQuietFirst(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.Echo(t)}, func(c *config.Config) {
		withHealth(c)
		c.Pools[0].OnDown, c.Pools[0].DrainTimeout, c.Pools[0].DrainRate = "drain", time.Minute, 10
	})
	var clients []net.Conn
	for range 6 {
		c := r.dial()
		say(t, c, "x")
		hear(t, c, "x")
		clients = append(clients, c)
	}
	sh := r.e.shards[0]
	sh.loop.Call(func() { // the first three were busy, the others not
		i := 0
		for s := sh.sessions.next; s != &sh.sessions; s = s.next {
			s.moved = i < 3
			i++
		}
	})
	r.health(0, false)
	r.wantEnds(BackendDown, BackendDown, BackendDown)
	for i, c := range clients[:3] {
		if _, err := c.Write([]byte("y")); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	for i, c := range clients[3:] {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("client %d lives", 3+i)
		}
	}
}

// TestFlowsLeaveMaintenance: flows leave a backend in maintenance as they leave one that is down, unless it keeps its sessions.
func TestFlowsLeaveMaintenance(t *testing.T) {
	for _, on := range []string{"keep", "drain", "cut"} {
		r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")}, func(c *config.Config) { c.Pools[0].OnMaintenance = on })
		c := r.client()
		first := c.ask("?")
		n := int(first[0] - 'a')
		if err := r.d.Order("p", r.d.Snapshot().Pools[0].Members[n].Name, balancer.Maintain, ""); err != nil {
			t.Fatal(err)
		}
		for _, sh := range r.e.shards {
			sh.loop.Call(func() {})
		}
		if got := c.ask("?"); (got == first) != (on == "keep") {
			t.Errorf("%s: from %s to %s", on, first, got)
		}
	}
}
