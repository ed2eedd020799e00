package engine

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

func discovered(c *config.Config) { c.Pools[0].Discovery = new(config.Discovery) }

// TestMembersGone: a backend that vanishes without a reload. Flows go as on_backend_gone says.
func TestMembersGone(t *testing.T) {
	for _, gone := range []string{"move", "keep", "cut"} {
		t.Run(gone, func(t *testing.T) {
			a, b := lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")
			r := newUDPRig(t, nil, func(c *config.Config) {
				discovered(c)
				c.Frontends[0].UDP.OnBackendGone = gone
			})
			r.d.SetBackends("p", backendConfigs([]string{a}))
			c := r.client()
			c.ask("?")
			r.d.SetBackends("p", backendConfigs([]string{b}))
			if gone == "cut" {
				r.wantEnds(BackendRemoved)
			}
			want := map[string]string{"move": "b", "keep": "a", "cut": "b"}[gone]
			// The shards are told, and not waited for.
			lbtest.Eventually(t, "an answer of "+want, func() bool { return c.ask("?") == want })
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

// TestMembersSessions: sessions on a backend that vanishes go on, and what the shards keep of it goes with the last of them.
func TestMembersSessions(t *testing.T) {
	a, b := lbtest.Echo(t), lbtest.Named(t, "b")
	r := newRig(t, nil, discovered)
	if c, err := net.Dial("tcp", r.address()); err == nil { // else it was reset before the kernel told
		c.Close()
	}
	r.wantEnds(NoBackend)
	r.d.SetBackends("p", backendConfigs([]string{a}))
	var long []*net.TCPConn
	for range 8 { // on both shards
		c := r.dial()
		say(t, c, "1")
		hear(t, c, "1")
		long = append(long, c)
	}
	r.d.SetBackends("p", backendConfigs([]string{b}))
	for _, c := range long {
		say(t, c, "2")
		hear(t, c, "2")
	}
	hear(t, r.dial(), "b")
	kept := func() (backends, gone int) {
		for _, sh := range r.e.shards {
			sh.loop.Call(func() { backends, gone = backends+len(sh.backends), gone+len(sh.gone) })
		}
		return backends, gone
	}
	if _, gone := kept(); gone != 2 {
		t.Errorf("%d wait to be forgotten; want a on each of two shards", gone)
	}
	for _, c := range long {
		c.Close()
	}
	lbtest.Eventually(t, "the sessions have ended", func() bool { return len(r.d.Retired()) == 0 })
	for i := range 100 { // with changes going on, and nobody asking for the counters
		r.d.SetBackends("p", backendConfigs([]string{b, fmt.Sprintf("127.0.0.1:%d", 1+i)}))
	}
	if backends, gone := kept(); backends > 2 || gone > 0 {
		t.Errorf("%d backends are kept by the shards, %d wait to be forgotten", backends, gone)
	}
	if n := r.e.Stats().Pools["p"].Gone.Sessions; n != 8 {
		t.Errorf("the pool counts %d sessions on backends that are gone; want 8", n)
	}
}

// TestMembersName: the name that discovery says is the one to expect of a backend, where the pool says none.
func TestMembersName(t *testing.T) {
	f := forms[1] // originate
	r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) { _, _ = io.WriteString(c, "hello") }, func(c *config.Config) {
		discovered(c)
		c.Pools[0].TLS.ServerName = ""
	})
	backend := backendConfigs([]string{r.d.Snapshot().Pool("p").Members[0].Name})
	r.apply(func() *config.Config {
		c := testConfig(nil, nil)
		r.setUp(c)
		discovered(c)
		c.Pools[0].TLS.ServerName = ""
		return c
	}())
	named := func(name string) []*config.Backend {
		b := *backend[0]
		b.SNI = name
		return []*config.Backend{&b}
	}
	r.d.SetBackends("p", named("backend.test"))
	hear(t, r.dial(), "hello")
	r.d.SetBackends("p", named("other.test"))
	c := r.dial()
	if b, err := io.ReadAll(c); len(b) > 0 {
		t.Errorf("got %q, %v from a backend that is not the one expected", b, err)
	}
	r.d.SetBackends("p", named("backend.test"))
	hear(t, r.dial(), "hello")
}

// TestSharedSourceAndDiscovery: a backend that is found may be of the family that has no shared_source, and then needs sockets.
func TestSharedSourceAndDiscovery(t *testing.T) {
	four, six := netip.MustParsePrefix("10.200.0.0/16"), netip.MustParsePrefix("fd00:200::/64")
	for _, tc := range []struct {
		shared    []netip.Prefix
		discovery bool
		want      bool
	}{
		{nil, false, true}, {[]netip.Prefix{four}, false, false}, {[]netip.Prefix{four}, true, true}, {[]netip.Prefix{four, six}, true, false},
	} {
		c := testConfig([]string{"10.0.0.1:53"}, asUDP(func(c *config.Config) {
			c.Frontends[0].UDP.SharedSource = tc.shared
			if tc.discovery {
				discovered(c)
			}
		}))
		if got := needsSockets(c, c.Frontends[0]); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
	}
}
