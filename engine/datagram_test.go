package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// pattern returns n bytes that differ from place to place.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestDatagramsComeBackWhole(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].UDP.BufferSize = 65507 })
	c := r.client()
	for i, n := range []int{0, 1, 512, 1472, 16384, 65507} {
		want := string(pattern(n, uint64(i)))
		if got := c.ask(want); got != want {
			t.Fatalf("%d bytes came back as %d, or changed", n, len(got))
		}
	}
	st := r.e.Stats().Frontends["f"]
	if st.Accepted != 1 || st.Datagrams != [2]uint64{6, 6} || st.Bytes != [2]uint64{83876, 83876} {
		t.Fatalf("counted %d flows, %v datagrams, %v bytes", st.Accepted, st.Datagrams, st.Bytes)
	}
}

// What is larger than buffer_size is dropped and counted, both ways; what is as large goes through.
func TestDatagramsAreNeverCut(t *testing.T) {
	backend := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) {
		if string(data) == "large" {
			reply(make([]byte, 1001))
		}
		reply(data)
	})
	r := newUDPRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].UDP.BufferSize = 1000 })
	c := r.client()
	c.say(strings.Repeat("x", 1001))
	if got := c.ask(strings.Repeat("y", 1000)); got != strings.Repeat("y", 1000) {
		t.Fatalf("got %d bytes", len(got))
	}
	r.wantDropped(ToBackend, DropTruncated, 1)
	if got := c.ask("large"); got != "large" {
		t.Fatalf("got %d bytes", len(got))
	}
	r.wantDropped(ToClient, DropTruncated, 1)
}

// Ten thousand clients at once, each with datagrams of its own: every answer reaches the one who asked.
func TestClientsAreNeverCrossed(t *testing.T) {
	clients := 10_000
	if raceEnabled {
		clients = 2000
	}
	backends := []string{lbtest.EchoDatagrams(t), lbtest.EchoDatagrams(t), lbtest.EchoDatagrams(t)}
	r := newUDPRig(t, backends, nil)
	to := netip.MustParseAddrPort(r.address())
	const sockets = 50 // at once; an address each, so that (address, port) are as many clients as wanted
	var wg sync.WaitGroup
	var lost atomic.Int64
	each := clients / sockets
	for s := range sockets {
		wg.Go(func() {
			for i := range each {
				ip := net.IPv4(127, 1, byte(s), byte(i%250+1))
				c, err := net.DialUDP("udp", &net.UDPAddr{IP: ip}, net.UDPAddrFromAddrPort(to))
				if err != nil {
					t.Error(err)
					return
				}
				ok := false
				for try := 0; try < 5 && !ok; try++ {
					for k := range 3 {
						want := fmt.Sprintf("client %d.%d, %d.%d", s, i, try, k)
						_, _ = c.Write([]byte(want))
						_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
						b := make([]byte, 100)
						n, err := c.Read(b)
						if err != nil {
							lost.Add(1)
							break
						}
						if !strings.HasPrefix(string(b[:n]), fmt.Sprintf("client %d.%d, ", s, i)) {
							t.Errorf("client %d.%d got %q", s, i, b[:n])
						}
						ok = k == 2
					}
				}
				if !ok {
					t.Errorf("client %d.%d was not served", s, i)
					c.Close()
					return
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	if n := lost.Load(); n > 0 {
		t.Logf("%d datagrams lost on the way", n)
	}
	if open, _ := r.e.Flows(); open != int64(clients) {
		t.Errorf("%d flows open; want one for each of %d clients", open, clients)
	}
}

// All datagrams of a client go to one backend, whatever the policy, and other clients' to others.
func TestFlowsStick(t *testing.T) {
	for _, policy := range []string{"random", "roundrobin", "leastconn", "iphash"} {
		t.Run(policy, func(t *testing.T) {
			r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b"), lbtest.NamedDatagrams(t, "c")},
				func(c *config.Config) { c.Pools[0].Policy = policy })
			seen := map[string]int{}
			for range 40 {
				c := r.client()
				first := c.ask("?")
				for range 10 {
					if got := c.ask("?"); got != first {
						t.Fatalf("went from %s to %s", first, got)
					}
				}
				seen[first]++
			}
			if policy == "iphash" {
				if len(seen) != 1 {
					t.Errorf("one address was spread: %v", seen)
				}
			} else if len(seen) != 3 {
				t.Errorf("not all backends were used: %v", seen)
			}
		})
	}
}

// A burst of equal datagrams of one client leaves in trains and arrives as what it was: in order, none joined or cut.
func TestTrains(t *testing.T) {
	for _, gro := range []bool{false, true} {
		t.Run(fmt.Sprint("gro=", gro), func(t *testing.T) {
			r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].UDP.GRO = gro })
			c := r.client()
			for _, size := range []int{100, 1200} {
				for i := range 60 {
					d := pattern(size, 7)
					d[0] = byte(i)
					if i == 59 {
						d = d[:50]
					}
					c.say(string(d))
				}
				for i := range 60 {
					want := pattern(size, 7)
					want[0] = byte(i)
					if i == 59 {
						want = want[:50]
					}
					if got := c.hear(); got != string(want) {
						t.Fatalf("datagram %d of %d bytes came back as %d bytes, number %d", i, size, len(got), got[0])
					}
				}
			}
			if n := r.e.Stats().Frontends["f"].Datagrams; n != [2]uint64{120, 120} {
				t.Errorf("counted %v datagrams; want 120 each way", n)
			}
		})
	}
}

// The answer comes from the address that the client used: on a wildcard, on each of many addresses.
func TestRepliesComeFromWhereTheClientSent(t *testing.T) {
	for _, wild := range []string{"0.0.0.0:0", "[::]:0"} {
		t.Run(wild, func(t *testing.T) {
			r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
				c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(wild)}}
			})
			port := r.e.Listeners()[0].Address.IP.Port()
			hosts := []string{"127.0.0.1", "127.0.0.2", "127.3.2.1"}
			if wild[0] == '[' {
				hosts = []string{"::1"}
			}
			for _, host := range hosts {
				to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
				c := r.clientTo(to.String()) // connected: takes answers from there only
				if got := c.ask("from " + host); got != "from "+host {
					t.Fatalf("got %q", got)
				}
			}
			// One socket that sends to all of them: a flow each.
			l, err := net.ListenUDP("udp", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_ = l.SetDeadline(time.Now().Add(20 * time.Second))
			for _, host := range hosts {
				to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
				if _, err := l.WriteToUDPAddrPort([]byte("x"), to); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 10)
				_, from, err := l.ReadFromUDPAddrPort(b)
				if got := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); err != nil || got != to {
					t.Fatalf("answered from %v, %v; want %v", from, err, to)
				}
			}
		})
	}
}

// IPv6 clients, IPv4 backends, and the other way round.
func TestDatagramsAcrossFamilies(t *testing.T) {
	echo := func(_ netip.AddrPort, data []byte, reply func([]byte)) { reply(data) }
	for _, c := range []struct{ listen, backend string }{{"[::1]:0", "127.0.0.1:0"}, {"127.0.0.1:0", "[::1]:0"}, {"[::1]:0", "[::1]:0"}} {
		r := newUDPRig(t, []string{lbtest.ServeDatagramsAt(t, c.backend, echo)}, func(cfg *config.Config) {
			cfg.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(c.listen)}}
		})
		if got := r.client().ask("hello"); got != "hello" {
			t.Fatalf("%v: got %q", c, got)
		}
	}
}

// A backend's source addresses are used in turn.
func TestFlowsLeaveFromPoolSource(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	backend := lbtest.ServeDatagrams(t, func(from netip.AddrPort, data []byte, reply func([]byte)) {
		mu.Lock()
		seen[from.Addr().String()]++
		mu.Unlock()
		reply(data)
	})
	r := newUDPRig(t, []string{backend}, func(c *config.Config) {
		c.Pools[0].Source = []netip.Addr{netip.MustParseAddr("127.0.0.10"), netip.MustParseAddr("127.0.0.11")}
	})
	for range 20 {
		r.client().ask("x")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 || seen["127.0.0.10"] == 0 || seen["127.0.0.11"] == 0 {
		t.Fatalf("flows came from %v", seen)
	}
}

// mode = "datagram": each datagram is balanced by itself, and every answer comes back.
func TestModeDatagram(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")}, func(c *config.Config) {
		c.Frontends[0].UDP.Mode = "datagram"
	})
	c := r.client()
	seen := map[string]int{}
	for range 20 {
		seen[c.ask("?")]++
	}
	if seen["a"] != 10 || seen["b"] != 10 {
		t.Fatalf("one client's datagrams went to %v; want them to take turns", seen)
	}
	if open, _ := r.e.Flows(); open != 2 {
		t.Errorf("%d flows; want one for each backend", open)
	}
	for _, b := range r.d.Snapshot().Pools[0].Members {
		if b.Active() != 1 {
			t.Errorf("%s: %d counted on it; want its flow", b.Name, b.Active())
		}
	}
}

// mode = "datagram" without replies: nothing is remembered, and what backends say goes nowhere.
func TestModeDatagramWithoutReplies(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	sink := func(name string) string {
		return lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) {
			mu.Lock()
			got[name]++
			got[string(data)]++
			mu.Unlock()
			reply([]byte("unwanted"))
		})
	}
	r := newUDPRig(t, []string{sink("a"), sink("b")}, func(c *config.Config) {
		c.Frontends[0].UDP.Mode, c.Frontends[0].UDP.Replies = "datagram", false
	})
	c := r.client()
	for i := range 100 {
		c.say(fmt.Sprint(i))
	}
	lbtest.Eventually(t, "all have arrived", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["a"]+got["b"] == 100
	})
	if got["a"] != 50 || got["b"] != 50 {
		t.Errorf("a got %d, b %d; want 50 each", got["a"], got["b"])
	}
	for i := range 100 {
		if got[fmt.Sprint(i)] != 1 {
			t.Errorf("datagram %d arrived %d times", i, got[fmt.Sprint(i)])
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 100)); err == nil {
		t.Errorf("an answer of %d bytes came back", n)
	}
	if open, _ := r.e.Flows(); open != 0 {
		t.Errorf("%d flows; want none", open)
	}
}

// Clients of several frontends and port ranges keep apart.
func TestPortRangeOfDatagrams(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		any := config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}
		c.Frontends[0].Addresses = []config.Address{any, any, any}
	})
	if n := len(r.e.Listeners()); n != 3 {
		t.Errorf("%d listeners; want 3", n)
	}
	for _, l := range r.e.Listeners() {
		if l.Protocol != "udp" {
			t.Errorf("protocol %q", l.Protocol)
		}
		if got := r.clientTo(l.Address.String()).ask("x"); got != "x" {
			t.Fatal(got)
		}
	}
}

// TCP and UDP on one port are two listeners.
func TestOnePortForBothProtocols(t *testing.T) {
	tcp, udp := lbtest.Echo(t), lbtest.EchoDatagrams(t)
	at := config.Address{IP: netip.MustParseAddrPort(lbtest.Refused(t))}
	r := newUDPRig(t, []string{udp}, func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{at}
		other := testConfig([]string{tcp}, nil)
		other.Frontends[0].Name, other.Frontends[0].Pool, other.Pools[0].Name = "g", "q", "q"
		other.Frontends[0].Addresses = []config.Address{at}
		c.Frontends = append(c.Frontends, other.Frontends[0])
		c.Pools = append(c.Pools, other.Pools[0])
	})
	if got := r.client().ask("datagram"); got != "datagram" {
		t.Fatal(got)
	}
	c := r.dial()
	say(t, c, "stream")
	hear(t, c, "stream")
}

// A datagram from port 0 cannot be answered: it is dropped, and nothing else happens.
func TestNobodyCanBeAnsweredAtPortZero(t *testing.T) {
	fl := &flows{in: newBatch(2, true)}
	l := &datagramListener{fl: fl, v4: true, front: &front{config: &config.Frontend{UDP: config.UDP{BufferSize: 10}}, stats: NewFrontendStats()}}
	fl.in.resize(10)
	fl.in.from[0].Family = 2
	fl.in.hdrs[0].Len = 3
	var key flowKey
	if _, ok := l.check(0, &key); ok || l.front.stats.Dropped[ToBackend][DropUnreachable] != 1 {
		t.Errorf("accepted, or not counted: %v", l.front.stats.Dropped)
	}
}

func TestRecordOfFlow(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].UDP.IdleTimeout = 200 * time.Millisecond })
	c := r.client()
	c.ask("12345")
	c.ask("123")
	rec := r.wantEnds(IdleTimeout)[0]
	if !rec.UDP || rec.Asked != 2 || rec.Answered != 2 || rec.C2B != 8 || rec.B2C != 8 || rec.Client != c.address() || rec.Attempts != 1 ||
		rec.Frontend != "f" || rec.Pool != "p" || rec.Backend == "" || rec.Connect <= 0 || rec.Duration < int64(200*time.Millisecond) {
		t.Errorf("got %+v", rec)
	}
	if !bytes.Contains([]byte(rec.Backend), []byte("127.0.0.1:")) {
		t.Errorf("backend %q", rec.Backend)
	}
}
