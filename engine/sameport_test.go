package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestPortThatWasChosen: who has port 0 may be changed into the port it got, moves along with it to another frontend, and keeps
// it whatever else stands in bind: it is not in the way of itself.
func TestPortThatWasChosen(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			backend := lbtest.Echo(t)
			if protocol == "udp" {
				backend = lbtest.EchoDatagrams(t)
			}
			cfg := func(name string, addresses ...string) *config.Config {
				edit := func(c *config.Config) {
					c.Frontends[0].Name, c.Frontends[0].Addresses = name, nil
					for _, a := range addresses {
						c.Frontends[0].Addresses = append(c.Frontends[0].Addresses, config.Address{IP: netip.MustParseAddrPort(a)})
					}
				}
				if protocol == "udp" {
					edit = asUDP(edit)
				}
				return testConfig([]string{backend}, edit)
			}
			const free, free6 = "127.0.0.1:0", "[::1]:0"
			r := newRig(t, nil, nil)
			listens := func() (all []string) {
				for _, l := range r.e.Listeners() {
					all = append(all, l.Address.String())
				}
				return all
			}
			// change applies it, and checks that the dry run says the same.
			change := func(c *config.Config, want ...string) {
				t.Helper()
				preview, err := r.d.Preview(c)
				if err != nil {
					t.Fatal(err)
				}
				report := r.apply(c)
				if fmt.Sprint(preview.Changes) != fmt.Sprint(report.Changes) && want != nil {
					t.Errorf("the dry run said %v; it was %v", preview.Changes, report.Changes)
				}
				if got := listens(); want != nil && !slices.Equal(got, want) {
					t.Errorf("listens on %v; want %v", got, want)
				}
			}
			change(cfg("f", free, free6, free))
			was := listens()
			a, six, b := was[0], was[1], was[2]
			change(cfg("f", a, free6, free), a, six, b)
			change(cfg("f", free6, free), six, b) // a is gone
			change(cfg("f", b), b)
			if protocol == "tcp" {
				if c := r.dial(); true {
					say(t, c, "here")
					hear(t, c, "here")
				}
			}
			change(cfg("g", b), b)
			r.apply(cfg("g", b, free))
			if got := listens(); got[0] != b || got[1] == b {
				t.Errorf("listens on %v", got)
			}
			r.apply(cfg("g", free, b)) // what has a port keeps it
			if got := listens(); got[1] != b || got[0] == b {
				t.Errorf("listens on %v", got)
			}
		})
	}
}

// TestPortThatFlowsUse: the port that a frontend with port 0 had, and whose flows have not ended, can be listened on again.
func TestPortThatFlowsUse(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	r := newUDPRig(t, []string{backend}, nil)
	c := r.client()
	c.ask("?")
	at := r.address()
	with := func(name, address string) *config.Config {
		return testConfig([]string{backend}, asUDP(func(c *config.Config) {
			c.Frontends[0].Name = name
			c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(address)}}
		}))
	}
	r.apply(with("other", "127.0.0.1:0"))
	if r.address() == at {
		t.Fatal("it did not change")
	}
	if _, err := r.d.Preview(with("other", at)); err != nil {
		t.Error(err)
	}
	r.apply(with("other", at))
	if got := r.address(); got != at {
		t.Errorf("listens on %s; want %s", got, at)
	}
	c.ask("?")
}
