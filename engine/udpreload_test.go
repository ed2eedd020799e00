package engine

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// A reload that changes nothing keeps sockets and flows: no datagram is lost or answered from elsewhere.
func TestReloadUnderDatagrams(t *testing.T) {
	backends := []string{lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")}
	at := lbtest.Refused(t)
	cfg := func(policy string) *config.Config {
		return testConfig(backends, asUDP(func(c *config.Config) {
			c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(at)}}
			c.Pools[0].Policy = policy
		}))
	}
	r := newUDPRig(t, backends, func(c *config.Config) { c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(at)}} })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		c := r.client()
		first := c.ask("?")
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if got := c.ask("?"); got != first {
						t.Errorf("went from %s to %s", first, got)
						return
					}
				}
			}
		})
	}
	for i := range 100 {
		r.apply(cfg([]string{"random", "leastconn", "iphash"}[i%3]))
	}
	close(stop)
	wg.Wait()
	if open, _ := r.e.Flows(); open != 4 {
		t.Errorf("%d flows; want 4", open)
	}
}

// A removed backend: its flows move with the next datagram, stay until they are quiet, or end at once.
func TestRemovedBackend(t *testing.T) {
	for _, gone := range []string{"move", "keep", "cut"} {
		t.Run(gone, func(t *testing.T) {
			a, b := lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")
			edit := func(c *config.Config) { c.Frontends[0].UDP.OnBackendGone = gone }
			r := newUDPRig(t, []string{a}, edit)
			c := r.client()
			c.ask("?")
			r.apply(testConfig([]string{b}, asUDP(edit)))
			if gone == "cut" {
				r.wantEnds(BackendRemoved)
			}
			want := map[string]string{"move": "b", "keep": "a", "cut": "b"}[gone]
			for range 3 {
				if got := c.ask("?"); got != want {
					t.Fatalf("got %s; want %s", got, want)
				}
			}
			r.wantFlows(1)
			if gone == "keep" && len(r.d.Retired()) != 1 {
				t.Errorf("retired: %v; want the backend that still has a flow", r.d.Retired())
			}
		})
	}
}

// A disabled backend (weight 0) gets no new flows and keeps those it has.
func TestDisabledBackendKeepsItsFlows(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a")}, nil)
	c := r.client()
	c.ask("?")
	b := lbtest.NamedDatagrams(t, "b")
	r.apply(testConfig([]string{r.d.Snapshot().Pools[0].Members[0].Name, b}, asUDP(func(c *config.Config) { c.Pools[0].Backends[0].Weight = 0 })))
	if got := c.ask("?"); got != "a" {
		t.Errorf("the flow went to %s", got)
	}
	if got := r.client().ask("?"); got != "b" {
		t.Errorf("a new flow went to %s", got)
	}
}

// A removed frontend serves the flows it has, begins none, and gives its port back with the last.
func TestRemovedUDPFrontend(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	at := lbtest.Refused(t)
	with := func(name, address string) *config.Config {
		return testConfig([]string{backend}, asUDP(func(c *config.Config) {
			c.Frontends[0].Name = name
			c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(address)}}
			c.Frontends[0].UDP.IdleTimeout = 500 * time.Millisecond
		}))
	}
	r := newUDPRig(t, []string{backend}, nil)
	r.apply(with("f", at))
	c := r.clientTo(at)
	c.ask("1")
	late := r.clientTo(at)
	r.apply(with("g", "127.0.0.1:0"))
	if got := c.ask("2"); got != "2" {
		t.Fatal(got)
	}
	late.say("too late")
	r.wantDropped(ToBackend, DropDraining, 1)
	c.ask("3")
	r.wantEnds(IdleTimeout)
	lbtest.Eventually(t, "the port is free", func() bool {
		_, stop, err := tryListen(at)
		if err == nil {
			stop()
		}
		return err == nil
	})
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	if n := len(r.e.retired); n != 0 {
		t.Errorf("%d listeners are still there", n)
	}
}

// A frontend that comes back while its last flow lives takes its sockets back.
func TestUDPFrontendComesBack(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	at := lbtest.Refused(t)
	with := func(address string) *config.Config {
		return testConfig([]string{backend}, asUDP(func(c *config.Config) {
			c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(address)}}
		}))
	}
	r := newUDPRig(t, []string{backend}, nil)
	for range 3 {
		r.apply(with(at))
		c := r.clientTo(at)
		c.ask("1")
		r.apply(with("127.0.0.1:0"))
		c.ask("2")
		r.apply(with(at))
		c.ask("3")
		r.clientTo(at).ask("new")
	}
	r.wantFlows(6)
}

// A renamed frontend keeps sockets and flows.
func TestRenamedUDPFrontend(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	at := lbtest.Refused(t)
	with := func(name string) *config.Config {
		return testConfig([]string{backend}, asUDP(func(c *config.Config) {
			c.Frontends[0].Name = name
			c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(at)}}
		}))
	}
	r := newUDPRig(t, []string{backend}, nil)
	r.apply(with("f"))
	c := r.clientTo(at)
	for _, name := range []string{"g", "f", "g"} {
		c.ask("x")
		r.apply(with(name))
	}
	c.ask("x")
	r.clientTo(at).ask("y")
	r.wantFlows(2)
}

// A candidate that cannot be had changes nothing: flows go on, and what was opened for it is closed.
func TestRefusedReloadKeepsFlows(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	r := newUDPRig(t, []string{backend}, nil)
	c := r.client()
	c.ask("1")
	taken := lbtest.EchoDatagrams(t)
	fds := lbtest.FDs(t)
	_, err := r.d.Apply(testConfig([]string{backend}, asUDP(func(c *config.Config) {
		c.Frontends[0].Addresses = append(c.Frontends[0].Addresses, config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")},
			config.Address{IP: netip.MustParseAddrPort(taken)})
	})))
	want := fmt.Sprintf("frontends.f.bind: %s: bind: address already in use (another process listens there: ss -lunp 'sport = :%d')",
		taken, netip.MustParseAddrPort(taken).Port())
	if err == nil || err.Error() != want {
		t.Errorf("got %v; want %s", err, want)
	}
	if n := lbtest.FDs(t); n != fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
	c.ask("2")
}

// Draining: flows that are at work are served to the end, quiet ones end soon, and nobody new is let in.
func TestDrainUnderDatagrams(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].UDP.UnrepliedTimeout = 500 * time.Millisecond })
	busy, quiet, late := r.client(), r.client(), r.client()
	busy.ask("1")
	quiet.ask("1")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan int64)
	go func() { done <- r.e.Drain(ctx, func() Reason { return Killed }) }()
	lbtest.Eventually(t, "draining", r.e.Draining)
	for !func() bool { // until the quiet one has ended
		busy.ask("x")
		late.say("x")
		open, _ := r.e.Flows()
		return open == 1
	}() {
	}
	if n := r.dropped(ToBackend, DropDraining); n == 0 {
		t.Error("no new client was refused")
	}
	select {
	case n := <-done: // busy has been quiet since
		if n != 0 {
			t.Errorf("%d were cut", n)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("not drained within 20 s")
	}
	r.wantEnds(IdleTimeout, IdleTimeout)
}

// The end of drain_timeout, or a second signal, ends flows too.
func TestDrainCutsFlows(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, nil)
	r.client().ask("1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n := r.e.Drain(ctx, func() Reason { return Drained }); n != 1 {
		t.Errorf("cut %d; want 1", n)
	}
	r.wantEnds(Drained)
}
