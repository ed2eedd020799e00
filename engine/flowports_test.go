package engine

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

func TestScatterVisitsEveryPortOnce(t *testing.T) {
	for _, count := range []int{1, 2, 3, 10, 14116, 28232} {
		first, step := scatter(count)
		seen := make([]bool, count)
		for i := range count {
			seen[(first+i*step)%count] = true
		}
		if slices.Contains(seen, false) {
			t.Errorf("count %d, first %d, step %d: not every port", count, first, step)
		}
	}
}

// Ports that other programs hold, even in long rows, cost no datagram.
func TestTakenPortsArePassedOver(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.EchoDatagrams(t)}, asUDP(nil))
	ports := r.e.ports
	taken := 0
	for _, p := range ports[:len(ports)/3] {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero, Port: int(p)})
		if err != nil {
			continue // somebody else has it: all the better
		}
		defer c.Close()
		if taken++; taken == 3000 {
			break
		}
	}
	for range 200 {
		r.client().ask("x")
	}
	if n := r.dropped(ToBackend, DropNoPort); n > 0 {
		t.Errorf("%d datagrams found no port", n)
	}
}

// TestMostPortsTaken has nine of ten ports with other programs, as beside another balancer with as many flows: each new flow gets
// one all the same.
func TestMostPortsTaken(t *testing.T) {
	const count, flows = 1000, 40
	r := newRigOf(t, 1, []string{lbtest.EchoDatagrams(t)}, asUDP(nil))
	sh := r.e.shards[0]
	ports := r.e.ports
	first := rand.IntN(len(ports) - count)
	few := ports[first : first+count]
	sh.loop.Call(func() { // these and no others
		r.e.ports = few
		sh.flows.sources = sh.flows.sources[:0]
		clear(sh.flows.bySource)
	})
	free := 0
	for _, p := range few {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero, Port: int(p)})
		if err != nil {
			continue
		}
		if rand.IntN(10) == 0 { // in no row that a step could fit
			free++
			c.Close()
			continue
		}
		defer c.Close()
	}
	if free < flows {
		t.Fatalf("%d of %d ports are free", free, count)
	}
	for range flows {
		r.client().ask("x")
	}
	if n := r.dropped(ToBackend, DropNoPort); n > 0 {
		t.Errorf("%d datagrams found no port", n)
	}
}

func TestParsePorts(t *testing.T) {
	for _, c := range []struct {
		portRange, reserved string
		n                   int
		first, last         uint16
	}{
		{"32768\t60999\n", "\n", 28232, 32768, 60999},
		{"100 109", "100-104,109", 4, 105, 108},
		{"", "", 28232, 32768, 60999},
		{"9 1", "x,-,5-", 28232, 32768, 60999},
		{"65535 65535", "", 1, 65535, 65535},
	} {
		got := parsePorts(c.portRange, c.reserved)
		if len(got) != c.n || got[0] != c.first || got[len(got)-1] != c.last {
			t.Errorf("%q, %q: %d ports", c.portRange, c.reserved, len(got))
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add("32768 60999", "8080,9000-9010")
	f.Fuzz(func(t *testing.T, portRange, reserved string) {
		got := parsePorts(portRange, reserved)
		if !slices.IsSorted(got) || slices.Contains(got, 0) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%q, %q: %v", portRange, reserved, got)
		}
	})
}

// Leases against a simple model: no number is out twice, none before its rest is over, and none is lost.
func TestLeasesKeepTheirPromise(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		const limit = 50
		p := leases{limit: limit}
		out, until := map[uint32]bool{}, map[uint32]int64{}
		now := int64(0)
		for range 5000 {
			switch r.IntN(3) {
			case 0:
				n, ok := p.take(now)
				ready := 0
				for i := range uint32(limit) {
					if !out[i] && until[i] <= now {
						ready++
					}
				}
				if ok && (n >= limit || out[n] || until[n] > now) {
					t.Fatalf("seed %d: took %d at %d: out %v, rests until %d", seed, n, now, out[n], until[n])
				}
				if !ok && ready == limit-len(out) && ready > 0 {
					t.Fatalf("seed %d: nothing to take, and all %d are ready", seed, ready)
				}
				if ok {
					out[n] = true
				}
			case 1:
				for n := range out {
					delete(out, n)
					until[n] = now + int64(r.IntN(100))
					p.give(n, until[n])
					break
				}
			case 2:
				now += int64(r.IntN(10))
			}
		}
		now += 1000
		for range limit - len(out) {
			if n, ok := p.take(now); !ok || out[n] {
				t.Fatalf("seed %d: a number was lost", seed)
			} else {
				out[n] = true
			}
		}
	}
}

// A port of the system's that is not a source of ours is an error at the reload, not at the first client.
func TestForeignSourceOfDatagrams(t *testing.T) {
	d := newUDPRig(t, nil, nil).d
	_, err := d.Apply(testConfig(nil, asUDP(func(c *config.Config) { c.Pools[0].Source = []netip.Addr{netip.MustParseAddr("192.0.2.77")} })))
	if err == nil {
		t.Error("accepted")
	}
}
