package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"awe4lb/config"
	"awe4lb/engine/proxyproto"
	"awe4lb/internal/lbtest"
)

// toldDatagram returns a datagram of a client at source, as a proxy sends it.
func toldDatagram(source, payload string) string {
	c := &proxyproto.Client{Source: netip.MustParseAddrPort(source), Dest: netip.MustParseAddrPort("192.0.2.2:53"), Datagram: true,
		UniqueID: []byte("told by " + source), CRC32C: true}
	return string(proxyproto.Append2(nil, c)) + payload
}

const localHeader = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

// whose answers every datagram with the port that it came from: of a flow, as long as it lives, always the same.
func whose(t testing.TB) string {
	t.Helper()
	return lbtest.ServeDatagrams(t, func(from netip.AddrPort, data []byte, reply func([]byte)) {
		reply(fmt.Appendf(nil, "%d %s", from.Port(), data))
	})
}

// flowOf asks whose and returns the flow's port; the payload has to come back.
func flowOf(t testing.TB, c *udpClient, datagram, payload string) string {
	t.Helper()
	port, got, _ := strings.Cut(c.ask(datagram), " ")
	if got != payload {
		t.Fatalf("the backend got %q; want %q", got, payload)
	}
	return port
}

// TestProxiedEvery: one socket of a proxy carries many clients, each with a header in every datagram and a flow of its own.
func TestProxiedEvery(t *testing.T) {
	for _, how := range []string{"optional", "required"} {
		r := newUDPRig(t, []string{whose(t)}, accepts(how))
		proxy, other := r.client(), r.client()
		clients := []string{"198.51.100.7:1", "198.51.100.7:2", "[2001:db8::7]:1", "127.0.0.1:1"}
		flows := map[string]string{}
		for round := range 3 {
			for _, client := range clients {
				flow := flowOf(t, proxy, toldDatagram(client, "x"), "x")
				if round > 0 && flows[client] != flow {
					t.Errorf("%s has changed its flow", client)
				}
				flows[client] = flow
			}
		}
		for _, a := range clients { // the same clients by another socket are others: answers go where they came from
			for _, b := range clients {
				if a != b && flows[a] == flows[b] {
					t.Errorf("%s and %s share a flow", a, b)
				}
			}
			if flowOf(t, other, toldDatagram(a, "y"), "y") == flows[a] {
				t.Errorf("%s has one flow for two proxies", a)
			}
		}
		r.wantFlows(8)
		r.e.Close()
		for _, rec := range r.wantEnds(slices.Repeat([]Reason{Killed}, 8)...) {
			if rec.Proxy != proxy.address() && rec.Proxy != other.address() || rec.ID != "told by "+rec.Client.String() ||
				!slices.Contains(clients, rec.Client.String()) || rec.Proxy == proxy.address() && (rec.C2B != 3 || rec.Asked != 3) {
				t.Errorf("%+v", rec)
			}
		}
	}
}

// TestProxiedFirst: what has no header is of the client that the last one from the same socket told of.
func TestProxiedFirst(t *testing.T) {
	for _, how := range []string{"optional", "required"} {
		r := newUDPRig(t, []string{whose(t)}, accepts(how))
		c := r.client()
		first := flowOf(t, c, toldDatagram("198.51.100.7:1", ""), "")
		if flowOf(t, c, "x", "x") != first || flowOf(t, c, toldDatagram("198.51.100.7:1", "y"), "y") != first || flowOf(t, c, "", "") != first {
			t.Error("one client, two flows")
		}
		second := flowOf(t, c, toldDatagram("198.51.100.8:1", "x"), "x")
		if second == first || flowOf(t, c, "y", "y") != second {
			t.Error("the last header does not count")
		}
		own := flowOf(t, c, localHeader+"health", "health")
		if own == first || own == second || flowOf(t, c, "more", "more") != own {
			t.Error("a proxy that speaks for itself is not a client as others")
		}
		r.e.Close()
		via := 0
		for _, rec := range r.wantEnds(Killed, Killed, Killed) {
			if rec.Proxy == c.address() {
				via++
			} else if rec.Client != c.address() || rec.Proxy.IsValid() {
				t.Errorf("%+v", rec)
			}
		}
		if via != 2 {
			t.Errorf("%d flows told of", via)
		}
	}
}

// TestProxiedRemembered: a proxy that sends its header once is known when the flow has ended and the next begins.
func TestProxiedRemembered(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		accepts("required")(c)
		c.Frontends[0].UDP.MaxResponses = 1
		c.Frontends[0].UDP.IdleTimeout = 300 * time.Millisecond
	})
	c := r.client()
	c.ask(toldDatagram("198.51.100.7:1", "x"))
	for range 3 {
		c.ask("y")
	}
	for _, rec := range r.wantEnds(slices.Repeat([]Reason{MaxResponses}, 4)...) {
		if rec.Client.String() != "198.51.100.7:1" || rec.Proxy != c.address() || rec.ID != "told by 198.51.100.7:1" {
			t.Errorf("%+v", rec)
		}
	}
	lbtest.Eventually(t, "it is forgotten", func() bool {
		time.Sleep(400 * time.Millisecond) // quiet is what makes it forgotten
		c.say("z")
		return r.dropped(ToBackend, DropBadProxy) > 0
	})
}

// TestProxiedRefused: who may not tell, and what is not well told.
func TestProxiedRefused(t *testing.T) {
	good := toldDatagram("198.51.100.7:1", "x")
	badSum := []byte(good)
	badSum[20]++
	for name, c := range map[string]struct {
		how, trusted, say string
		drop              DropReason
		hear              string
	}{
		"none where required":             {"required", "127.0.0.0/8", "x", DropBadProxy, ""},
		"version 1 where required":        {"required", "127.0.0.0/8", string(header(1, "198.51.100.7:1")), DropBadProxy, ""},
		"half of one":                     {"optional", "127.0.0.0/8", good[:30], DropBadProxy, ""},
		"version 3":                       {"optional", "127.0.0.0/8", good[:12] + "\x31" + good[13:], DropBadProxy, ""},
		"a bad checksum":                  {"optional", "127.0.0.0/8", string(badSum), DropBadProxy, ""},
		"a stranger where required":       {"required", "192.0.2.0/24", good, DropUntrusted, ""},
		"a stranger where optional":       {"optional", "192.0.2.0/24", good, kept, good},
		"no header where optional":        {"optional", "127.0.0.0/8", "\r\n\r\n", kept, "\r\n\r\n"},
		"version 1, which is but payload": {"optional", "127.0.0.0/8", "PROXY UNKNOWN\r\n", kept, "PROXY UNKNOWN\r\n"},
		"one of connections":              {"required", "127.0.0.0/8", string(header(2, "198.51.100.7:1")) + "x", kept, "x"},
		"a unix socket's":                 {"required", "127.0.0.0/8", good[:13] + "\x32\x00\xd8" + strings.Repeat("u", 216) + "x", kept, "x"},
		"unspecified":                     {"required", "127.0.0.0/8", good[:13] + "\x00\x00\x03\xee\x00\x00x", kept, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(cfg *config.Config) {
				cfg.Frontends[0].ProxyProtocol = config.ProxyProtocol{Accept: c.how, Trusted: prefixes(c.trusted)}
			})
			if c.drop != kept {
				r.client().say(c.say)
				r.wantDropped(ToBackend, c.drop, 1)
				r.wantFlows(0)
			} else if got := r.client().ask(c.say); got != c.hear {
				t.Errorf("got %q; want %q", got, c.hear)
			}
		})
	}
}

// TestProxiedGuards: access rules, routes and rates go by the client that is told of.
func TestProxiedGuards(t *testing.T) {
	for _, mode := range []string{"flow", "datagram", "without replies"} {
		t.Run(mode, func(t *testing.T) {
			heard := make(chan string, 10)
			named := func(name string) string {
				return lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, _ func([]byte)) { heard <- name + " " + string(data) })
			}
			r := newUDPRig(t, []string{named("a")}, func(c *config.Config) {
				accepts("required")(c)
				f := c.Frontends[0]
				f.Access = config.Access{Default: "allow", Rules: []*config.AccessRule{{Deny: prefixes("192.0.2.66/32")}}}
				f.UDP.NewFlowRate, f.UDP.NewFlowPrefixV4 = 2, 32
				if mode != "flow" {
					f.UDP.Mode, f.UDP.Replies = "datagram", mode == "datagram"
				}
				q := *c.Pools[0]
				q.Name, q.Backends = "q", backendConfigs([]string{named("b")})
				c.Pools = append(c.Pools, &q)
				f.Routes = []*config.Route{{Match: config.Match{Source: prefixes("192.0.2.0/24")}, Pool: "q"}}
			})
			c := r.client()
			wants := func(want string) {
				t.Helper()
				select {
				case got := <-heard:
					if got != want {
						t.Errorf("got %q; want %q", got, want)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("nothing; want %q; %s", want, c.counted())
				}
			}
			c.say(toldDatagram("192.0.2.1:1", "1"))
			wants("b 1")
			c.say(toldDatagram("198.51.100.1:1", "2"))
			wants("a 2")
			c.say(toldDatagram("192.0.2.66:1", "3"))
			r.wantDropped(ToBackend, DropDenied, 1)
			if mode == "without replies" {
				return
			}
			for i := range 3 { // the one above was the first of two
				c.say(toldDatagram(fmt.Sprintf("192.0.2.1:%d", i+2), "x"))
			}
			r.wantDropped(ToBackend, DropRate, 2)
		})
	}
}

// TestProxiedRoom: buffer_size is of what follows the header.
func TestProxiedRoom(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		accepts("optional")(c)
		c.Frontends[0].UDP.BufferSize = 1000
	})
	c := r.client()
	payload := string(pattern(1000, 7))
	if c.ask(toldDatagram("[2001:db8::7]:1", payload)) != payload {
		t.Error("the payload was changed")
	}
	c.say(toldDatagram("[2001:db8::7]:1", payload+"x"))
	r.wantDropped(ToBackend, DropTruncated, 1)
	plain := r.client()
	if plain.ask(payload) != payload {
		t.Error("the payload was changed")
	}
	plain.say(payload + "x")
	r.wantDropped(ToBackend, DropTruncated, 2)
}

// TestProxiedTrains: datagrams with headers that the kernel has joined are taken apart, also when a reload asks for headers where
// datagrams are joined already.
func TestProxiedTrains(t *testing.T) {
	var mu sync.Mutex
	flows := map[string]map[uint16]bool{}
	backend := lbtest.ServeDatagrams(t, func(from netip.AddrPort, data []byte, reply func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		if flows[string(data)] == nil {
			flows[string(data)] = map[uint16]bool{}
		}
		flows[string(data)][from.Port()] = true
		reply(data)
	})
	gro := func(c *config.Config) { c.Frontends[0].UDP.GRO = true }
	r := newUDPRig(t, []string{backend}, gro)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r.apply(testConfig([]string{backend}, asUDP(accepts("required"))))
	address := netip.MustParseAddrPort(r.address())
	to := &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	var train string
	const pieces = 40
	for i := range pieces {
		train += toldDatagram(fmt.Sprintf("198.51.100.%d:1000", 10+i%4), fmt.Sprint("payload of ", 10+i%4))
	}
	sendTrain(t, fd, to, []byte(train), len(train)/pieces)
	lbtest.Eventually(t, "all are answered", func() bool { return r.e.Stats().Frontends["f"].Datagrams[ToClient] == pieces })
	r.wantFlows(4)
	mu.Lock()
	defer mu.Unlock()
	if len(flows) != 4 {
		t.Errorf("the backend got %v", flows)
	}
	for payload, ports := range flows {
		if len(ports) != 1 {
			t.Errorf("%q came by %d flows", payload, len(ports))
		}
	}
}

// TestProxiedByWildcard: answers leave from the address that the proxy has sent to, whoever the client is.
func TestProxiedByWildcard(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		accepts("required")(c)
		c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort("0.0.0.0:0")}}
	})
	_, port, _ := net.SplitHostPort(r.address())
	for _, at := range []string{"127.0.0.1:", "127.0.0.9:"} { // a connected socket hears nobody else
		if c := r.clientTo(at + port); c.ask(toldDatagram("[2001:db8::7]:1", "x")) != "x" {
			t.Error("something else came back")
		}
	}
	r.wantFlows(2)
}

// TestProxiedModel: headers and datagrams without, in any order from several sockets, go where a simple model says.
func TestProxiedModel(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	r := newUDPRig(t, []string{whose(t)}, accepts("required"))
	var sockets []*udpClient
	for range 4 {
		sockets = append(sockets, r.client())
	}
	last := map[int]string{}
	flows := map[string]string{} // by socket and client
	owners := map[string]string{}
	for step := range 600 {
		i := random.IntN(len(sockets))
		payload := fmt.Sprint("step ", step)
		datagram := payload
		switch told := random.IntN(3); {
		case told == 0 || last[i] == "":
			last[i] = fmt.Sprintf("198.51.100.%d:%d", random.IntN(5), random.IntN(3))
			datagram = toldDatagram(last[i], payload)
		case told == 1 && random.IntN(5) == 0:
			last[i] = "own"
			datagram = localHeader + payload
		}
		who := fmt.Sprint(i, " ", last[i])
		flow := flowOf(t, sockets[i], datagram, payload)
		if flows[who] == "" && owners[flow] == "" {
			flows[who], owners[flow] = flow, who
		}
		if flows[who] != flow || owners[flow] != who {
			t.Fatalf("seed %d, step %d: %s has flow %s; want %s", seed, step, who, flow, flows[who])
		}
	}
	r.wantFlows(int64(len(flows)))
}

// TestProxySockets plays random operations on proxySockets and a simple model of it.
func TestProxySockets(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	var p proxySockets
	key := func(i int) *flowKey { return &flowKey{port: uint16(i), listener: uint32(i%3 + 1)} }
	type known struct {
		number uint32
		flows  int
	}
	model := map[int]*known{}
	var order []int // of those without flows
	idle := func(i int) {
		order = slices.DeleteFunc(order, func(j int) bool { return i == j })
		order = append(order, i)
	}
	const many = 3 * maxIdleProxies / 2
	for step := range 60_000 {
		i := random.IntN(many)
		k := model[i]
		switch op := random.IntN(10); {
		case op < 5:
			n := p.take(key(i))
			if k == nil {
				if len(order) == maxIdleProxies {
					delete(model, order[0])
					order = order[1:]
				}
				k = &known{number: n}
				model[i] = k
				idle(i)
			}
			p.touch(n, 1)
			if k.flows == 0 && order[len(order)-1] != i {
				idle(i)
			}
			if n != k.number || p.at(n).key != *key(i) {
				t.Fatalf("seed %d, step %d: %d has number %d; want %d", seed, step, i, n, k.number)
			}
		case op < 8 && k != nil:
			p.acquire(k.number)
			if k.flows++; k.flows == 1 {
				order = slices.DeleteFunc(order, func(j int) bool { return i == j })
			}
		case op == 8 && k != nil && k.flows > 0:
			if k.flows--; k.flows == 0 {
				if len(order) == maxIdleProxies {
					delete(model, order[0])
					order = order[1:]
				}
				idle(i)
			}
			p.release(k.number)
		}
		if step%1000 == 0 {
			if p.used != len(model) || len(p.byKey) != len(model) || p.idle != len(order) {
				t.Fatalf("seed %d, step %d: %d known, %d idle; want %d, %d", seed, step, p.used, p.idle, len(model), len(order))
			}
			for i := range many {
				if n := p.find(key(i), 1, 1); (n != 0) != (model[i] != nil) {
					t.Fatalf("seed %d, step %d: %d is known as %d; want %+v", seed, step, i, n, model[i])
				}
			}
		}
	}
	if len(order) == 0 || p.find(key(order[0]), 10, 5) != 0 {
		t.Error("what was not heard for long is still known")
	}
	p.forget(2)
	for i, k := range model {
		if known := p.find(key(i), 1, 1) != 0; i != order[0] && known != (k.flows > 0 || i%3+1 != 2) {
			t.Errorf("%d of listener %d, with %d flows: known %v", i, i%3+1, k.flows, known)
		}
	}
}

// FuzzProxied: whatever comes, a trusted sender's datagram goes on without its header, whole, or not at all; the model is
// the parser.
func FuzzProxied(f *testing.F) {
	f.Add([]byte("x"), []byte("y"))
	f.Add([]byte(toldDatagram("198.51.100.7:1", "x")), []byte("y"))
	f.Add([]byte(toldDatagram("[2001:db8::7]:1", "")), []byte(localHeader))
	f.Add([]byte(localHeader+"x"), []byte(toldDatagram("198.51.100.7:1", "x"))[:20])
	const end = "\xffthe end of it"
	interrupts := make(chan os.Signal, 1) // as in FuzzBridge
	signal.Notify(interrupts, os.Interrupt)
	signal.Stop(interrupts)
	got := make(chan string, 100)
	backend := lbtest.ServeDatagrams(f, func(_ netip.AddrPort, data []byte, _ func([]byte)) { got <- string(data) })
	r := newRigOf(f, 1, []string{backend}, asUDP(func(c *config.Config) {
		accepts("required")(c)
		c.Frontends[0].UDP.Mode, c.Frontends[0].UDP.Replies = "datagram", false
	}))
	played := 0
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > 60_000 || len(two) > 60_000 {
			return
		}
		played++ // each from an address of its own: sockets are remembered
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, byte(1+played>>16), byte(played>>8), byte(played))}}
		conn, err := d.Dial("udp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c := &udpClient{t, r, conn.(*net.UDPConn)}
		known := false
		var want []string
		for _, b := range [][]byte{one, two, []byte(localHeader + end)} {
			var h proxyproto.Header
			n, status := proxyproto.ParseDatagram(b, &h)
			known = known || status == proxyproto.Found
			if known && status != proxyproto.Malformed && len(b)-n <= 16384 {
				want = append(want, string(b[n:]))
			}
			c.say(string(b))
		}
		for i, w := range want {
			select {
			case g := <-got:
				if g != w {
					t.Fatalf("datagram %d: the backend got %q; want %q", i, g, w)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("datagram %d, %q, has not arrived; %s", i, w, c.counted())
			}
		}
	})
}

// FuzzParseDatagram: what is found is a header and is what Parse finds; nothing is waited for.
func FuzzParseDatagram(f *testing.F) {
	f.Add([]byte(toldDatagram("198.51.100.7:1", "x")))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h, other proxyproto.Header
		n, status := proxyproto.ParseDatagram(b, &h)
		m, same := proxyproto.Parse(b, &other)
		switch {
		case status == proxyproto.NeedMore:
			t.Fatal("a datagram has no more")
		case status == proxyproto.Found && (same != status || n != m || h.Source != other.Source || h.Version != 2):
			t.Fatalf("%d bytes, %+v; as a stream %v, %d, %+v", n, h, same, m, other)
		case status == proxyproto.NotPROXY && bytes.HasPrefix(b, []byte(localHeader[:12])):
			t.Fatal("a header was passed over")
		}
	})
}

// BenchmarkIntroduce: what a header costs a datagram before its flow is looked for, and what taking it off does with 1,400
// bytes behind it.
func BenchmarkIntroduce(b *testing.B) {
	r := newUDPRig(b, []string{lbtest.EchoDatagrams(b)}, accepts("required"))
	c := r.client()
	c.ask(toldDatagram("198.51.100.7:1", "x"))
	for name, datagram := range map[string]string{
		"header": toldDatagram("198.51.100.7:1", strings.Repeat("x", 1400)), "none": strings.Repeat("x", 1400)} {
		b.Run(name, func(b *testing.B) {
			for _, sh := range r.e.shards {
				sh.loop.Call(func() {
					fl := sh.flows
					if fl == nil || len(fl.proxies.byKey) == 0 {
						return
					}
					l := fl.listeners[1]
					in := fl.in
					fl.in = newBatch(1, true)
					fl.in.resize(l.slotBytes())
					peer := *fl.peerOf(c)
					b.ReportAllocs()
					for b.Loop() {
						key := peer
						fl.in.hdrs[0].Len = uint32(copy(fl.in.buf, datagram))
						if l.introduce(0, &key) != kept || key.via == 0 {
							b.Fatal("it is not introduced")
						}
					}
					fl.in = in
				})
			}
		})
	}
}

// peerOf returns the key of a client's socket that has told of others.
func (fl *flows) peerOf(c *udpClient) *flowKey {
	for key := range fl.proxies.byKey {
		if key.port == c.address().Port() {
			return &key
		}
	}
	return nil
}
