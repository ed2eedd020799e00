package engine

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// fullCase is a pool of two backends that takes nobody. Those of them that may be picked are filled first, up to their limits.
type fullCase struct {
	name      string
	pool      int    // max_connections of the pool
	limits    [2]int // of the backends
	weights   [2]int
	threshold int // panic_threshold
	states    [2]balancer.State
	want      Reason
}

var fullCases = []fullCase{
	{name: "all full", limits: [2]int{1, 2}, weights: [2]int{1, 1}, want: BackendLimit},
	{name: "one down, one full", limits: [2]int{0, 1}, weights: [2]int{1, 1}, states: [2]balancer.State{balancer.Down, balancer.Up}, want: BackendLimit},
	{name: "one in maintenance, one full", limits: [2]int{0, 1}, weights: [2]int{1, 1}, states: [2]balancer.State{balancer.Maintenance, balancer.Up}, want: BackendLimit},
	{name: "one ejected, one full", limits: [2]int{0, 1}, weights: [2]int{1, 1}, states: [2]balancer.State{balancer.Ejected, balancer.Up}, want: BackendLimit},
	{name: "one of weight 0, one full", limits: [2]int{0, 1}, weights: [2]int{0, 1}, want: BackendLimit},
	{name: "panic, all full", limits: [2]int{1, 1}, weights: [2]int{1, 1}, threshold: 50, states: [2]balancer.State{balancer.Down, balancer.Down}, want: BackendLimit},
	{name: "pool full", pool: 2, weights: [2]int{1, 1}, want: PoolLimit},
	{name: "pool full before its backends", pool: 2, limits: [2]int{9, 9}, weights: [2]int{1, 1}, want: PoolLimit},
	{name: "backends full before the pool", pool: 9, limits: [2]int{1, 1}, weights: [2]int{1, 1}, want: BackendLimit},
	{name: "all down", weights: [2]int{1, 1}, states: [2]balancer.State{balancer.Down, balancer.Down}, want: NoBackend},
	{name: "all full and down", limits: [2]int{1, 1}, weights: [2]int{1, 1}, states: [2]balancer.State{balancer.Down, balancer.Down}, want: NoBackend},
	{name: "pool full and down", pool: 2, weights: [2]int{1, 1}, states: [2]balancer.State{balancer.Down, balancer.Down}, want: NoBackend},
	{name: "panic, all in maintenance", limits: [2]int{1, 1}, weights: [2]int{1, 1}, threshold: 50, states: [2]balancer.State{balancer.Maintenance, balancer.Maintenance}, want: NoBackend},
	{name: "weight 0", limits: [2]int{1, 1}, want: NoBackend},
}

func (c *fullCase) edit(cfg *config.Config) {
	p := cfg.Pools[0]
	p.MaxConnections, p.PanicThreshold = c.pool, c.threshold
	for i, b := range p.Backends {
		b.MaxConnections, b.Weight = c.limits[i], c.weights[i]
	}
}

// fill takes all places, and then puts the backends into their states, but for those that cannot be filled: they are in theirs before.
func (c *fullCase) fill(r *rig) {
	p := r.d.Snapshot().Pool("p")
	for i, m := range p.Members {
		if c.limits[i]+c.pool == 0 {
			m.SetState(c.states[i])
		}
	}
	for b := p.Pick(0, nil); b != nil; b = p.Pick(0, nil) {
		r.t.Cleanup(b.Release)
	}
	for i, m := range p.Members {
		m.SetState(c.states[i])
	}
}

// wantTurnedAway checks that the pool has turned away n for a reason, and none for another.
func (r *rig) wantTurnedAway(reason Reason, n uint64) {
	r.t.Helper()
	st := r.e.Stats().Pools["p"]
	if st == nil {
		st = NewPoolStats()
	}
	got := map[Reason]uint64{NoBackend: st.NoBackend, PoolLimit: st.PoolLimit, BackendLimit: st.BackendLimit}
	for of, counted := range got {
		if want := map[bool]uint64{true: n}[of == reason]; counted != want {
			r.t.Errorf("the pool counts %d of %v; want %d", counted, of, want)
		}
	}
}

// TestFullIsNotDown: a session that finds all backends at their limits ends for that, and not as if they were down.
func TestFullIsNotDown(t *testing.T) {
	for _, c := range fullCases {
		t.Run("tcp/"+c.name, func(t *testing.T) {
			r := newRig(t, []string{lbtest.Echo(t), lbtest.Echo(t)}, c.edit)
			c.fill(r)
			r.wantRefused("xx")
			r.wantEnds(c.want)
			r.wantTurnedAway(c.want, 1)
		})
		t.Run("tls/"+c.name, func(t *testing.T) {
			r := newTLSRigFor(t, form{terminate: true, clientTLS: true}, lbtest.NewCA(t), []string{lbtest.Echo(t), lbtest.Echo(t)}, c.edit)
			c.fill(r.rig)
			tc := tls.Client(r.dial(), r.client)
			if _, err := tc.Read(make([]byte, 1)); err == nil {
				t.Error("there was an answer")
			}
			r.wantEnds(c.want)
			r.wantTurnedAway(c.want, 1)
		})
	}
}

// TestFullIsNotDownForDatagrams is the same for datagrams, in all modes.
func TestFullIsNotDownForDatagrams(t *testing.T) {
	drops := map[Reason]DropReason{NoBackend: DropNoBackend, PoolLimit: DropPoolLimit, BackendLimit: DropBackendLimit}
	for _, c := range fullCases {
		for _, mode := range []string{"flow", "datagram", "without replies"} {
			t.Run(mode+"/"+c.name, func(t *testing.T) {
				r := newUDPRig(t, []string{lbtest.EchoDatagrams(t), lbtest.EchoDatagrams(t)}, func(cfg *config.Config) {
					c.edit(cfg)
					if u := &cfg.Frontends[0].UDP; mode != "flow" {
						u.Mode, u.Replies = "datagram", mode == "datagram"
					}
				})
				c.fill(r)
				r.client().say("x")
				r.wantDropped(ToBackend, drops[c.want], 1)
				for _, reason := range drops {
					if n := r.dropped(ToBackend, reason); n > 0 && reason != drops[c.want] {
						t.Errorf("%d dropped for %v", n, reason)
					}
				}
				r.wantTurnedAway(c.want, 1)
				r.wantFlows(0)
			})
		}
	}
}

// TestFullIsNotDownInParallel: as many flows as there are places, on four shards at once, and every other client is told of the
// limit, also those that lose a place in the moment of taking it.
func TestFullIsNotDownInParallel(t *testing.T) {
	for _, c := range []struct {
		pool, backend int
		want          DropReason
	}{{0, 5, DropBackendLimit}, {5, 0, DropPoolLimit}} {
		for _, mode := range []string{"flow", "datagram"} {
			t.Run(fmt.Sprint(mode, c.want), func(t *testing.T) {
				r := newRigOf(t, 4, []string{lbtest.EchoDatagrams(t)}, asUDP(func(cfg *config.Config) {
					cfg.Pools[0].MaxConnections, cfg.Pools[0].Backends[0].MaxConnections = c.pool, c.backend
					cfg.Frontends[0].UDP.Mode = mode
				}))
				const n = 60
				var clients []*udpClient
				for range n {
					clients = append(clients, r.client())
				}
				var all sync.WaitGroup
				for _, client := range clients {
					all.Go(func() { _, _ = client.Write([]byte("x")) })
				}
				all.Wait()
				r.wantDropped(ToBackend, c.want, n-5)
				r.wantFlows(5)
				for reason := range DropReason(NumDrops) {
					if n := r.dropped(ToBackend, reason); n > 0 && reason != c.want {
						t.Errorf("%d dropped for %v", n, reason)
					}
				}
			})
		}
	}
}

// TestDatagramsOfAFlowMeetNoLimit: in mode datagram nobody is picked for a client whose backend is full, but what it sends to that
// backend is within the limit, and no limit is met.
func TestDatagramsOfAFlowMeetNoLimit(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		c.Frontends[0].UDP.Mode, c.Pools[0].Backends[0].MaxConnections = "datagram", 1
	})
	client := r.client()
	for range 3 {
		if got := client.ask("x"); got != "x" {
			t.Fatal(got)
		}
	}
	r.wantTurnedAway(BackendLimit, 0)
	r.client().say("x")
	r.wantDropped(ToBackend, DropBackendLimit, 1)
	r.wantTurnedAway(BackendLimit, 1)
}

// TestFlowMovesToNobody: where the backends left are full when that of a flow goes, its datagrams are dropped for that.
func TestFlowMovesToNobody(t *testing.T) {
	a, b := lbtest.NamedDatagrams(t, "a"), lbtest.EchoDatagrams(t)
	limit := func(c *config.Config) { c.Pools[0].Backends[len(c.Pools[0].Backends)-1].MaxConnections = 1 }
	r := newUDPRig(t, []string{a, b}, limit)
	p := r.d.Snapshot().Pool("p")
	place := p.Pick(0, []*balancer.Backend{p.Members[0].Backend})
	defer place.Release()
	client := r.client()
	if got := client.ask("x"); got != "a" {
		t.Fatal(got)
	}
	next := testConfig([]string{b}, asUDP(limit))
	next.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(r.address())}}
	r.apply(next)
	client.say("x")
	r.wantDropped(ToBackend, DropBackendLimit, 1)
	r.wantEnds(BackendRemoved)
	if n := r.dropped(ToBackend, DropNoBackend); n > 0 {
		t.Errorf("%d dropped for want of a backend", n)
	}
	r.wantTurnedAway(BackendLimit, 1)
}

// TestRefusedDatagramFindsAllFull: a datagram that came back and finds all others full is dropped for that.
func TestRefusedDatagramFindsAllFull(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.Refused(t), lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		c.Frontends[0].UDP.Mode, c.Pools[0].Backends[1].MaxConnections = "datagram", 1
	})
	p := r.d.Snapshot().Pool("p")
	place := p.Pick(0, []*balancer.Backend{p.Members[0].Backend})
	defer place.Release()
	r.client().say("x")
	r.wantDropped(ToBackend, DropBackendLimit, 1)
	if n := r.dropped(ToBackend, DropNoBackend); n > 0 {
		t.Errorf("%d dropped for want of a backend", n)
	}
}
