package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// Cases that a review of the datagram path found wrong, 2026-11-25.

// In mode datagram a backend is picked before there is a flow: when none may begin, the count goes back.
func TestRefusedFlowsGiveTheirBackendBack(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.EchoDatagrams(t)}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.Mode = "datagram"
		c.Frontends[0].UDP.MaxFlows = 1
	}))
	r.client().ask("x")
	for range 5 {
		r.client().say("x")
	}
	r.wantDropped(ToBackend, DropTableFull, 5)
	if n := r.d.Snapshot().Pools[0].Members[0].Active(); n != 1 {
		t.Errorf("Active %d with 1 flow", n)
	}
}

// In mode datagram a backend at its max_connections still gets what its own flows send.
func TestFlowsOfAFullBackendGoOn(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.EchoDatagrams(t)}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.Mode = "datagram"
		c.Pools[0].Backends[0].MaxConnections = 1
	}))
	c := r.client()
	c.ask("x")
	c.say("y")
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Errorf("second datagram of the flow: %v; %s", err, c.counted())
	}
}

// A frontend and its pool removed in one reload: its flows keep their backend and their port.
func TestFlowsOfARemovedPoolStayWhereTheyAre(t *testing.T) {
	var mu sync.Mutex
	from := map[netip.AddrPort]int{}
	backend := lbtest.ServeDatagrams(t, func(f netip.AddrPort, d []byte, reply func([]byte)) {
		mu.Lock()
		from[f]++
		mu.Unlock()
		reply(d)
	})
	r := newUDPRig(t, []string{backend}, nil)
	c := r.client()
	c.ask("1")
	r.apply(testConfig([]string{lbtest.EchoDatagrams(t)}, asUDP(func(c *config.Config) {
		c.Frontends[0].Name, c.Frontends[0].Pool, c.Pools[0].Name = "g", "q", "q"
	})))
	for range 10 {
		c.ask("x")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 1 {
		t.Errorf("one flow used %d ports: %v", len(from), from)
	}
}

// A renamed frontend whose backend is replaced later: the flows it had before go to the new one.
func TestFlowsOfARenamedFrontendFollowItsPool(t *testing.T) {
	at := lbtest.Refused(t)
	with := func(name, backend string) *config.Config {
		return testConfig([]string{backend}, asUDP(func(c *config.Config) {
			c.Frontends[0].Name = name
			c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(at)}}
		}))
	}
	a, b := lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")
	r := newUDPRig(t, []string{a}, nil)
	r.apply(with("f", a))
	c := r.clientTo(at)
	c.ask("x")
	r.apply(with("g", a))
	c.ask("x")
	r.apply(with("g", b))
	for range 3 {
		if got := c.ask("x"); got != "b" {
			t.Errorf("after the backend was replaced: %s", got)
		}
	}
	var moves uint64
	for _, sh := range r.e.Stats().Shards {
		moves += sh.FlowMoves
	}
	t.Logf("%d moves", moves)
}

// UDP_GRO turned off by a reload: a flow that has it goes on cutting up what it joins.
func TestGROOffByReload(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	sa, _ := unix.Getsockname(fd)
	backend := fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	edit := func(gro bool) func(*config.Config) {
		return func(c *config.Config) { c.Frontends[0].UDP.GRO = gro }
	}
	r := newUDPRig(t, []string{backend}, edit(true))
	c := r.client()
	c.say("hello")
	_, who, err := unix.Recvfrom(fd, make([]byte, 100), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, gro := range []bool{true, false} {
		r.apply(testConfig([]string{backend}, asUDP(edit(gro))))
		sendTrain(t, fd, who.(*unix.SockaddrInet4), []byte(strings.Repeat("a", 100)+strings.Repeat("b", 100)+strings.Repeat("c", 50)), 100)
		for _, want := range []int{100, 100, 50} {
			if got := c.hear(); len(got) != want {
				t.Fatalf("gro=%v: datagram of %d bytes; want %d", gro, len(got), want)
			}
		}
	}
}

// Without replies, what a backend has answered must not keep its refusals from us.
func TestSendOnlyNoticesTheDeathOfABackendThatAnswered(t *testing.T) {
	var mu sync.Mutex
	n := 0
	count := func(_ netip.AddrPort, d []byte, reply func([]byte)) {
		mu.Lock()
		n++
		mu.Unlock()
		reply(append([]byte("unwanted"), d...))
	}
	a, stop := lbtest.DatagramServer(t, lbtest.Free(t), count)
	defer stop()
	b := lbtest.ServeDatagrams(t, count)
	r := newRigOf(t, 1, []string{a, b}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.Mode, c.Frontends[0].UDP.Replies = "datagram", false
	}))
	c := r.client()
	for i := range 50 {
		c.say(strings.Repeat("x", i+10))
	}
	lbtest.Eventually(t, "arrived", func() bool { mu.Lock(); defer mu.Unlock(); return n == 50 })
	stop()
	for i := range 50 {
		c.say(strings.Repeat("y", i+10))
		lbtest.Eventually(t, "it has arrived or is counted", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return n+int(r.dropped(ToBackend, DropRefused)) >= 50+i+1
		})
	}
	mu.Lock()
	defer mu.Unlock()
	st := r.e.Stats()
	var refused uint64
	for bk, bs := range st.Backends {
		if bk.Name == a {
			refused = bs.ConnectErrors[ConnectRefused]
		}
	}
	t.Logf("%d of 50 arrived; sent %v, dropped %v; refusals %d", n-50, st.Frontends["f"].Datagrams, st.Frontends["f"].Dropped[ToBackend], refused)
	if lost := 100 - n - int(r.e.Stats().Frontends["f"].Dropped[ToBackend][DropRefused]); lost > 0 {
		t.Errorf("%d neither arrived nor counted", lost)
	}
}

// max_requests = 1 spends flows at once; while they have no answer they make room like others.
func TestSpentFlowsMakeRoom(t *testing.T) {
	backend := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, d []byte, reply func([]byte)) {
		if string(d) != "flood" {
			reply(d)
		}
	})
	r := newRigOf(t, 1, []string{backend}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.MaxRequests = 1
		c.Frontends[0].UDP.MaxFlows = 10
	}))
	for range 10 {
		r.client().say("flood")
	}
	r.wantFlows(10)
	c := r.client()
	c.say("live")
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Errorf("%v; %s", err, c.counted())
	}
}

// The first answer to a spent flow is timed like any.
func TestAnswersOfSpentFlowsAreTimed(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.EchoDatagrams(t)}, asUDP(func(c *config.Config) { c.Frontends[0].UDP.MaxRequests = 1 }))
	r.client().ask("x")
	for _, b := range r.e.Stats().Backends {
		n := uint64(0)
		for _, k := range b.Reply.Counts {
			n += k
		}
		if n != 1 {
			t.Errorf("%d replies observed", n)
		}
	}
}

// A shared_source of one family and backends of the other: their flows have sockets, and those are counted.
func TestSocketsBesideSharedSourceAreCounted(t *testing.T) {
	echo := func(_ netip.AddrPort, data []byte, reply func([]byte)) { reply(data) }
	r := newRigOf(t, 1, []string{lbtest.ServeDatagramsAt(t, "[::1]:0", echo)}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.SharedSource = []netip.Prefix{netip.MustParsePrefix("127.200.0.0/16")}
	}))
	before := lbtest.FDs(t)
	for range 20 {
		r.client().ask("x")
	}
	t.Logf("%d descriptors more (20 clients' own), sockets counted %d, limit %d", lbtest.FDs(t)-before, r.e.sockets.Load(), r.e.socketLimit.Load())
	if r.e.sockets.Load() != 20 {
		t.Errorf("20 flows with a socket each, %d counted", r.e.sockets.Load())
	}
}

// In mode datagram, what was not sent yet when a refusal came goes to another backend.
func TestBurstOnARefusalGoesToAnotherBackend(t *testing.T) {
	var mu sync.Mutex
	n := 0
	good := lbtest.ServeDatagrams(t, func(netip.AddrPort, []byte, func([]byte)) { mu.Lock(); n++; mu.Unlock() })
	r := newRigOf(t, 1, []string{lbtest.Refused(t), good}, asUDP(func(c *config.Config) { c.Frontends[0].UDP.Mode = "datagram" }))
	c := r.client()
	sh := r.e.shards[0]
	sh.loop.Call(func() { // one batch
		for i := range 20 {
			_, _ = c.Write([]byte(fmt.Sprint("datagram ", i)))
		}
	})
	lbtest.Eventually(t, "all told", func() bool { mu.Lock(); defer mu.Unlock(); return uint64(n)+r.dropped(ToBackend, DropRefused) >= 20 })
	mu.Lock()
	defer mu.Unlock()
	if n < 20 {
		t.Errorf("%d of 20 arrived; %s", n, c.counted())
	}
}

// A pool full of backends that cannot be reached: connect_attempts bounds what one datagram costs.
func TestConnectAttemptsBoundTheBackendsTried(t *testing.T) {
	var bs []string
	for i := range 1000 {
		bs = append(bs, fmt.Sprintf("255.255.255.255:%d", i+1000)) // EACCES without SO_BROADCAST
	}
	r := newRigOf(t, 1, bs, asUDP(nil))
	r.client().say("x")
	start := time.Now()
	lbtest.Eventually(t, "dropped", func() bool { return r.dropped(ToBackend, DropNoBackend)+r.dropped(ToBackend, DropUnreachable) >= 1 })
	n := uint64(0)
	for _, b := range r.e.Stats().Backends {
		n += b.ConnectErrors[ConnectFailed]
	}
	took := time.Since(start)
	var credit int64
	r.e.shards[0].loop.Call(func() { credit = r.e.shards[0].flows.credit })
	t.Logf("%d connects for one datagram; %v; credit %v; %s", n, took, time.Duration(credit), r.client().counted())
	if n > 3 {
		t.Errorf("connect_attempts is 3")
	}
}

// AnyIP: sending for one flow fetches the errors of all, which may end every flow of the batch at hand.
func TestErrorsOfOthersMayEndEveryFlowOfABatch(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.Refused(t)}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.SharedSource = []netip.Prefix{netip.MustParsePrefix("127.200.0.0/16")}
	}))
	c1, c2 := r.client(), r.client()
	sh := r.e.shards[0]
	var panicked any
	sh.loop.Call(func() {
		defer func() { panicked = recover() }()
		fl := sh.flows
		fl.table.extend()
		fl.table.extend() // once there were more than 1023 flows
		l := fl.listeners[1]
		fl.fronts[1].config.UDP.OnBackendGone = "keep" // only to have two flows with a datagram under way
		_, _ = c1.Write([]byte("1"))
		_, _ = c2.Write([]byte("1"))
		l.Ready(l.fd, 0)
		fl.fronts[1].config.UDP.OnBackendGone = "move"
		fl.each(func(f *flow) { // as from a host far away, whose ICMP comes later: the errors of both are in the queue
			for fd := fl.toBackend(f); fl.o.one(fd, []byte("y")) != 0; {
			}
		})
		_, _ = c1.Write([]byte("2"))
		_, _ = c2.Write([]byte("2"))
		l.Ready(l.fd, 0)
	})
	if panicked != nil {
		t.Errorf("panic: %v", panicked)
	}
}

// ICMP fragmentation needed is about an earlier datagram: the one at hand, which fits, is sent.
func TestPathMTUOfAnEarlierDatagram(t *testing.T) {
	source := make(chan netip.AddrPort, 8)
	backend := lbtest.ServeDatagrams(t, func(f netip.AddrPort, d []byte, reply func([]byte)) {
		select {
		case source <- f:
		default:
		}
		reply(d)
	})
	r := newRigOf(t, 1, []string{backend}, asUDP(nil))
	c := r.client()
	c.ask("1")
	c.ask("2")
	from := <-source
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		t.Skip("a raw socket needs root: ", err)
	}
	defer unix.Close(raw)
	bp := netip.MustParseAddrPort(backend).Port()
	// what a router quotes of a datagram from the flow's socket to the backend
	ip := []byte{0x45, 0, 5, 0xdc, 0, 1, 0x40, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
	udp := []byte{byte(from.Port() >> 8), byte(from.Port()), byte(bp >> 8), byte(bp), 5, 0xc8, 0, 0}
	p := append([]byte{3, 4, 0, 0, 0, 0, 1400 >> 8, 1400 & 255}, append(ip, udp...)...)
	sum := 0
	for i := 0; i < len(p); i += 2 {
		sum += int(p[i])<<8 | int(p[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	p[2], p[3] = byte(^sum>>8), byte(^sum)
	sh := r.e.shards[0]
	sh.loop.Call(func() { // the ICMP comes while the shard is at work elsewhere
		if err := unix.Sendto(raw, p, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			panic(err)
		}
		c.say("small")
		l := sh.flows.listeners[1]
		l.Ready(l.fd, 0)
	})
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := c.Read(make([]byte, 100)); err != nil {
		t.Errorf("%d bytes, %v; %s", n, err, c.counted())
	}
}

// The name of a removed frontend is that of a tcp frontend now: its flows do not move there.
func TestFlowsNeverEnterATCPPool(t *testing.T) {
	at := lbtest.Refused(t)
	a, wrong := lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "of the tcp pool")
	r := newUDPRig(t, []string{a}, nil)
	r.apply(testConfig([]string{a}, asUDP(func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort(at)}}
	})))
	c := r.clientTo(at)
	c.ask("x")
	r.apply(testConfig([]string{wrong}, func(c *config.Config) {
		c.Frontends[0].Pool, c.Pools[0].Name = "q", "q"
	}))
	if got := c.ask("x"); got != "a" {
		t.Errorf("got %q", got)
	}
}

// Arrivals and expiry at random, with timeouts on both sides of the fine ring: no flow is looked at again and again.
func TestFlowWheelLooksNoMoreThanItMust(t *testing.T) {
	worst := int64(0)
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var tab flowTable
		tab.init()
		w := flowWheel{flows: &tab}
		last := map[uint32]int64{}
		ttl := map[uint32]int64{}
		ttls := []int64{100, 300, 2000, 5000, 10000, 15000, 16000, 16200, 16300, 20000, 30000, 57000, 600000}
		ttls = ttls[rnd.IntN(len(ttls)-1):]
		now := int64(1e6)
		armed := int64(-1)
		for range 3000 {
			// next event: either an arrival or the timer
			gap := rnd.Int64N(1 + []int64{10, 500, 20000}[rnd.IntN(3)])
			at := now + gap
			if armed >= 0 && armed <= at {
				now = max(armed, now) + rnd.Int64N(20)
				looks := 0
				for {
					f := w.pop(now)
					if f == nil {
						break
					}
					if looks++; looks > 4*len(last)+4 {
						t.Fatalf("seed %d: %d looks at %d flows", seed, looks, len(last))
					}
					if left := ttl[f.number] - (now - last[f.number]); left > 0 {
						w.add(f, now, left)
					} else {
						lim := int64(64 + 20)
						if ttl[f.number] >= 16320 {
							lim = 1024 + 20
						}
						worst = max(worst, -left-lim)
						delete(last, f.number)
						tab.release(f)
					}
				}
				armed = w.next()
				continue
			}
			now = at
			if len(last) > 0 && rnd.IntN(2) == 0 {
				for n := range last {
					last[n] = now
					break
				}
				continue
			}
			f := tab.alloc()
			last[f.number], ttl[f.number] = now, ttls[rnd.IntN(len(ttls))]
			if due := w.add(f, now, ttl[f.number]); armed < 0 || due < armed {
				armed = due
			}
		}
	}
	t.Logf("worst lateness beyond the bound: %d ticks", worst)
}

// sendTrain sends data as datagrams of segment bytes by one call; to is nil for a socket that is connected.
func sendTrain(t *testing.T, fd int, to unix.Sockaddr, data []byte, segment int) {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	oob[unix.CmsgLen(0)] = byte(segment)
	oob[unix.CmsgLen(0)+1] = byte(segment >> 8)
	if err := unix.Sendmsg(fd, data, oob, to, 0); err != nil {
		t.Fatal(err)
	}
}
