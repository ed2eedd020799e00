package balancer

import (
	"net/netip"
	"testing"

	"awe4lb/config"
)

// TestLimitCountsThoseOfOldSnapshots: a session may begin on a backend after that was removed, while nobody was on it, and a limit
// that comes then counts it.
func TestLimitCountsThoseOfOldSnapshots(t *testing.T) {
	d := NewDirector()
	d.Drive(nowhere{})
	apply := func(limit int, ports ...uint16) *Pool {
		c := &config.Pool{Name: "p", Policy: "roundrobin", MaxConnections: limit}
		for _, port := range ports {
			c.Backends = append(c.Backends, &config.Backend{Address: formerAddress(port), Weight: 1})
		}
		if _, err := d.Apply(&config.Config{Pools: []*config.Pool{c}}); err != nil {
			t.Fatal(err)
		}
		return d.Snapshot().Pool("p")
	}
	old := apply(0, 1)
	apply(0, 2)
	b := old.Pick(0, nil)
	p := apply(1, 2)
	if n := p.Active(); n != 1 {
		t.Errorf("%d are counted; want 1", n)
	}
	if retired := d.Retired(); len(retired) != 1 || retired[0] != b {
		t.Errorf("retired are %v; want the one with a session", retired)
	}
	b.Release()
	if n := p.Active(); n != 0 {
		t.Errorf("%d are left; want none", n)
	}
}

func formerAddress(port uint16) config.Address {
	return config.Address{IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
}
