package engine

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// anyIP is a prefix that is local to every host.
var anyIP = netip.MustParsePrefix("127.200.0.0/16")

func sharedRig(t *testing.T, backends []string, edit func(*config.Config)) *rig {
	return newUDPRig(t, backends, func(c *config.Config) {
		c.Frontends[0].UDP.SharedSource = []netip.Prefix{anyIP}
		if edit != nil {
			edit(c)
		}
	})
}

// Thousands of flows on one socket a shard: each backend sees an address for each flow, every answer reaches its client, and
// no descriptor is taken for any of them.
func TestSharedSourceTakesNoDescriptors(t *testing.T) {
	var mu sync.Mutex
	seen := map[netip.AddrPort]bool{}
	backend := lbtest.ServeDatagrams(t, func(from netip.AddrPort, data []byte, reply func([]byte)) {
		mu.Lock()
		seen[from] = true
		mu.Unlock()
		reply(data)
	})
	r := sharedRig(t, []string{backend}, nil)
	first := r.client()
	first.ask("first")
	const sockets, flows = 20, 100
	var conns []*net.UDPConn
	for i := range sockets {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 5, 0, byte(i+1))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		conns = append(conns, c)
	}
	fds := lbtest.FDs(t)
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(r.address()))
	for k := range flows {
		for i := range conns {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 5, byte(k+1), byte(i+1))}, to)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprint(k, " ", i)
			_, _ = c.Write([]byte(want))
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			b := make([]byte, 20)
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != want {
				t.Fatalf("got %q, %v; want %q", b[:n], err, want)
			}
			c.Close()
		}
	}
	r.wantFlows(sockets*flows + 1)
	if n := lbtest.FDs(t); n > fds+2 { // the other shard's socket, perhaps
		t.Errorf("%d descriptors, were %d", n, fds)
	}
	mu.Lock()
	defer mu.Unlock()
	addresses := map[netip.Addr]bool{}
	for a := range seen {
		if !anyIP.Contains(a.Addr()) {
			t.Fatalf("the backend saw %v", a)
		}
		addresses[a.Addr()] = true
	}
	// Two shards may each use the same address from a port of its own.
	if len(seen) != sockets*flows+1 || len(addresses) < sockets*flows/2 {
		t.Errorf("%d sources on %d addresses; want one for each flow", len(seen), len(addresses))
	}
}

// A datagram to an address that no flow has, or from somebody else than its backend, reaches nobody.
func TestStraysReachNobody(t *testing.T) {
	from := make(chan netip.AddrPort, 1)
	backend := lbtest.ServeDatagrams(t, func(a netip.AddrPort, data []byte, reply func([]byte)) {
		reply(data)
		select {
		case from <- a:
		default:
		}
	})
	r := sharedRig(t, []string{backend}, nil)
	c := r.client()
	c.ask("1")
	flow := <-from
	stranger, err := net.Dial("udp", flow.String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	_, _ = stranger.Write([]byte("forged"))
	other, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr("127.200.77.77"), flow.Port()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, _ = other.Write([]byte("nobody's"))
	lbtest.Eventually(t, "both are counted", func() bool {
		n := uint64(0)
		for _, sh := range r.e.Stats().Shards {
			n += sh.Strays
		}
		return n == 2
	})
	if got := c.ask("2"); got != "2" {
		t.Errorf("got %q", got)
	}
}

// A dead backend is noticed on a shared socket too, and only by those whose it is.
func TestSharedSourceMovesOffADeadBackend(t *testing.T) {
	named := func(name string) func(netip.AddrPort, []byte, func([]byte)) {
		return func(_ netip.AddrPort, data []byte, reply func([]byte)) { reply([]byte(name + string(data))) }
	}
	a, stop := lbtest.DatagramServer(t, lbtest.Free(t), named("a"))
	defer stop()
	b := lbtest.ServeDatagrams(t, named("b"))
	r := sharedRig(t, []string{a, b}, nil)
	var clients []*udpClient
	for i := range 6 {
		c := r.client()
		if got, want := c.ask("1"), string("ab"[i%2])+"1"; got != want {
			t.Fatalf("client %d: got %q; want %q", i, got, want)
		}
		clients = append(clients, c)
	}
	stop()
	for i, c := range clients {
		for range 3 {
			if got := c.ask("2"); got != "b2" {
				t.Fatalf("client %d: got %q", i, got)
			}
		}
	}
	if n := r.dropped(ToBackend, DropRefused); n > 0 {
		t.Errorf("%d datagrams lost", n)
	}
}

// A prefix that is not local is an error that says how to make it so.
func TestSharedSourceHasToBeLocal(t *testing.T) {
	d := newUDPRig(t, nil, nil).d
	_, err := d.Apply(testConfig(nil, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.SharedSource = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16")}
	})))
	if err == nil || !strings.Contains(err.Error(), "frontends.f.udp.shared_source: 198.18.0.0/16 is not local") ||
		!strings.Contains(err.Error(), "ip route add local 198.18.0.0/16 dev lo") {
		t.Errorf("got %v", err)
	}
}
