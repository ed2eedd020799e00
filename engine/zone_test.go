package engine

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// linkLocal returns a link-local address of this host with its zone by name; the test is skipped where there is none.
func linkLocal(t *testing.T) netip.Addr {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				return p.Addr().WithZone(i.Name)
			}
		}
	}
	t.Skip("no interface has an IPv6 link-local address")
	return netip.Addr{}
}

// TestZones listens on a link-local address and connects to one, the zone given by name and by number.
func TestZones(t *testing.T) {
	name := linkLocal(t)
	i, err := net.InterfaceByName(name.Zone())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{name, name.WithZone(strconv.Itoa(i.Index))} {
		t.Run(a.Zone(), func(t *testing.T) {
			lbtest.CheckLeaks(t)
			l, err := net.Listen("tcp", netip.AddrPortFrom(name, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = c.Write([]byte("hello"))
					c.Close()
				}
			}()
			backend := netip.MustParseAddrPort(l.Addr().String())
			r := newRig(t, []string{netip.AddrPortFrom(a, backend.Port()).String()}, func(c *config.Config) {
				c.Frontends[0].Addresses = []config.Address{{IP: netip.AddrPortFrom(a, 0)}}
			})
			hearEnd(t, r.dial(), "hello")
		})
	}
}
