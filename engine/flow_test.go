package engine

import (
	"fmt"
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

// A flow ends no earlier than its timeout after the last datagram either way; how late it may be is the wheel's matter, and
// tested there without a clock.
func TestFlowsEndWhenQuiet(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for _, c := range []struct {
		name    string
		backend string
		udp     func(*config.UDP)
		want    Reason
	}{
		{"replied", lbtest.EchoDatagrams(t), func(u *config.UDP) { u.IdleTimeout = timeout }, IdleTimeout},
		{"unreplied", lbtest.SilentDatagrams(t), func(u *config.UDP) { u.UnrepliedTimeout = timeout }, Unreplied},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newUDPRig(t, []string{c.backend}, func(cfg *config.Config) { c.udp(&cfg.Frontends[0].UDP) })
			client := r.client()
			var last time.Time
			for range 5 { // each puts the end off
				last = time.Now()
				client.say("x")
				if c.want == IdleTimeout {
					client.hear()
				}
				<-time.After(timeout / 3) // the client's pace
			}
			rec := r.wantEnds(c.want)[0]
			if ended := rec.Start.Add(time.Duration(rec.Duration)); ended.Sub(last) < timeout-2*time.Millisecond {
				t.Errorf("ended %v after the last datagram; want at least %v", ended.Sub(last), timeout)
			}
			if rec.Asked != 5 {
				t.Errorf("%d datagrams; want one flow with 5", rec.Asked)
			}
		})
	}
}

// When all places are taken the oldest flow without an answer makes room, and one with an answer never does.
func TestUnrepliedFlowsMakeRoom(t *testing.T) {
	backend := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) {
		if string(data) == "answer" {
			reply(data)
		}
	})
	r := newRigOf(t, 1, []string{backend}, asUDP(func(c *config.Config) { c.Frontends[0].UDP.MaxFlows = 3 }))
	live := r.client()
	live.ask("answer")
	var silent []*udpClient
	for i := range 5 {
		c := r.client()
		c.say("quiet")
		silent = append(silent, c)
		r.wantFlows(min(int64(i)+2, 3))
		if i == 2 { // the first of them made room
			if rec := r.wantEnds(Evicted)[0]; rec.Client != silent[0].address() {
				t.Errorf("evicted %v; want the oldest, %v", rec.Client, silent[0].address())
			}
		}
	}
	r.wantEnds(Evicted, Evicted, Evicted)
	live.ask("answer")
	// Three with answers fill the table for good.
	for range 2 {
		r.client().ask("answer")
	}
	late := r.client()
	late.say("answer")
	r.wantDropped(ToBackend, DropTableFull, 1)
	live.ask("answer")
	r.wantFlows(3)
}

// max_requests: after so many datagrams the client is balanced anew, and the answers it is owed still come.
func TestMaxRequests(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")}, func(c *config.Config) {
		c.Frontends[0].UDP.MaxRequests = 2
		c.Frontends[0].UDP.UnrepliedTimeout = time.Second
	})
	c := r.client()
	got := ""
	for range 8 {
		got += c.ask("?")
	}
	if got != "aabbaabb" {
		t.Errorf("went to %s; want two datagrams each", got)
	}
	for _, rec := range r.wantEnds(MaxRequests, MaxRequests, MaxRequests, MaxRequests) {
		if rec.Asked != 2 || rec.Answered != 2 {
			t.Errorf("asked %d, answered %d; want 2 and 2", rec.Asked, rec.Answered)
		}
	}
}

// max_responses: the flow ends with the last answer it may have, and what comes later reaches nobody, however many new
// clients there are.
func TestLateRepliesReachNobody(t *testing.T) {
	release, said := make(chan struct{}), make(chan struct{})
	backend := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) {
		reply(data)
		if string(data) == "first" {
			go func() {
				defer close(said)
				<-release
				for range 100 {
					reply([]byte("late"))
				}
			}()
		}
	})
	r := newUDPRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].UDP.MaxResponses = 1 })
	for _, sh := range r.e.shards { // as few ports as may be, so that they would be used again at once
		sh.loop.Call(func() { sh.flows.sources = sh.flows.sources[:0]; clear(sh.flows.bySource) })
	}
	first := r.client()
	first.ask("first")
	r.wantEnds(MaxResponses)
	var others []*udpClient
	for i := range 200 {
		c := r.client()
		others = append(others, c)
		if got := c.ask(fmt.Sprint(i)); got != fmt.Sprint(i) {
			t.Fatalf("client %d got %q", i, got)
		}
		if i == 20 {
			close(release)
			<-said
		}
	}
	for _, c := range append(others, first) {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if n, err := c.Read(make([]byte, 10)); err == nil {
			t.Fatalf("%d bytes more came to somebody", n)
		}
	}
}

// A port rests until what may be under way is overdue, and is then used again.
func TestPortsRest(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.SilentDatagrams(t)}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.UnrepliedTimeout = 400 * time.Millisecond
		c.Frontends[0].UDP.MaxFlows = 2
	}))
	sh := r.e.shards[0]
	c := r.client()
	c.say("x")
	r.wantFlows(1)
	sh.loop.Call(func() { // leave one port more
		for _, s := range sh.flows.sources {
			s.leases.limit = s.leases.fresh + 1
		}
	})
	r.client().say("x")
	r.wantFlows(2)
	r.client().say("x") // makes room: but the port of the one that goes rests
	r.wantDropped(ToBackend, DropNoPort, 1)
	r.wantEnds(Evicted, Unreplied)
	lbtest.Eventually(t, "the ports are free again", func() bool {
		r.client().say("x")
		open, _ := r.e.Flows()
		return open > 0
	})
}

// new_flow_rate bounds the new flows of a source prefix, and nobody else's.
func TestNewFlowRate(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].UDP.NewFlowRate = 10 })
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(r.address()))
	for i := range 100 {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 9, 9, byte(i+1))}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("x"))
	}
	lbtest.Eventually(t, "all have been looked at", func() bool {
		open, _ := r.e.Flows()
		return uint64(open)+r.dropped(ToBackend, DropRate) == 100
	})
	if open, _ := r.e.Flows(); open < 10 || open > 60 {
		t.Errorf("%d of 100 got a flow; want the burst of 10 and what a moment adds", open)
	}
	if got := r.client().ask("another prefix"); got != "another prefix" {
		t.Error(got)
	}
}

// An address without a route, and one without a usable backend, cost a counter and nothing else.
func TestDatagramsWithoutBackend(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].Pool = "" })
	r.client().say("x")
	r.wantDropped(ToBackend, DropNoRoute, 1)
	r.wantFlows(0)
	c := testConfig(nil, asUDP(nil))
	r.apply(c)
	r.client().say("x")
	r.wantDropped(ToBackend, DropNoBackend, 1)
	r.wantFlows(0)
}

// The very first datagram finds nobody at its backend: it comes back by ICMP and goes to another.
func TestRefusedDatagramIsOfferedToAnother(t *testing.T) {
	for _, mode := range []string{"flow", "datagram"} {
		t.Run(mode, func(t *testing.T) {
			refused := lbtest.Refused(t)
			r := newUDPRig(t, []string{refused, lbtest.EchoDatagrams(t)}, func(c *config.Config) { c.Frontends[0].UDP.Mode = mode })
			for i := range 20 {
				want := strings.Repeat("x", i*20)
				if i == 0 {
					want = "y" // an empty one cannot be told from none
				}
				if got := r.client().ask(want); got != want {
					t.Fatalf("client %d: %d bytes came back as %d", i, len(want), len(got))
				}
			}
			st := r.e.Stats()
			var retries, refusals uint64
			for _, sh := range st.Shards {
				retries += sh.FlowRetries
			}
			for b, bs := range st.Backends {
				if b.Name == refused {
					refusals = bs.ConnectErrors[ConnectRefused]
				}
			}
			if retries < 5 || refusals < retries {
				t.Errorf("%d retries, %d refusals; want one for most clients that were sent there first", retries, refusals)
			}
			if n := r.dropped(ToBackend, DropRefused); n > 0 {
				t.Errorf("%d datagrams lost", n)
			}
		})
	}
}

// A backend dies in mid-flow and the client notices nothing; neither does one that comes back.
func TestFlowsMoveOffADeadBackend(t *testing.T) {
	named := func(name string) func(netip.AddrPort, []byte, func([]byte)) {
		return func(_ netip.AddrPort, data []byte, reply func([]byte)) { reply([]byte(name + string(data))) }
	}
	a, stop := lbtest.DatagramServer(t, lbtest.Free(t), named("a"))
	defer stop()
	b := lbtest.ServeDatagrams(t, named("b"))
	r := newUDPRig(t, []string{a, b}, nil)
	c := r.client()
	if got := c.ask("1"); got != "a1" {
		t.Fatal(got)
	}
	stop()
	for i := 2; i < 6; i++ {
		if got := c.ask(fmt.Sprint(i)); got != fmt.Sprint("b", i) {
			t.Fatalf("got %q; want the other backend's answer to datagram %d", got, i)
		}
	}
	if n := r.dropped(ToBackend, DropRefused); n > 0 {
		t.Errorf("%d datagrams lost", n)
	}
	if open, _ := r.e.Flows(); open != 1 {
		t.Errorf("%d flows; want the one that moved", open)
	}
}

// A burst that a dead backend refuses comes back in order, all of it.
func TestRefusedBurst(t *testing.T) {
	var mu sync.Mutex
	var got []string
	sink := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, _ func([]byte)) {
		mu.Lock()
		got = append(got, string(data))
		mu.Unlock()
	})
	r := newUDPRig(t, []string{lbtest.Refused(t), sink}, nil)
	c := r.client()
	for i := range 10 {
		c.say(fmt.Sprint("datagram ", i))
	}
	lbtest.Eventually(t, "all have arrived or are counted as lost", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return uint64(len(got))+r.dropped(ToBackend, DropRefused) >= 10
	})
	mu.Lock()
	defer mu.Unlock()
	seen := map[string]int{}
	for _, s := range got {
		seen[s]++
	}
	for s, n := range seen {
		if n != 1 {
			t.Errorf("%q arrived %d times", s, n)
		}
	}
	t.Logf("%d of 10 arrived", len(got))
	if len(got) < 5 {
		t.Errorf("only %d of 10 datagrams were recovered", len(got))
	}
}

// Nobody anywhere: the flow ends for that reason, the datagram is counted, and nothing goes round and round.
func TestEveryBackendRefuses(t *testing.T) {
	for _, c := range []struct{ mode, gone string }{{"flow", "move"}, {"flow", "cut"}, {"datagram", "move"}} {
		t.Run(c.mode+" "+c.gone, func(t *testing.T) {
			r := newUDPRig(t, []string{lbtest.Refused(t), lbtest.Refused(t)}, func(cfg *config.Config) {
				cfg.Frontends[0].UDP.Mode, cfg.Frontends[0].UDP.OnBackendGone = c.mode, c.gone
			})
			for range 3 {
				r.client().say("x")
			}
			lbtest.Eventually(t, "three datagrams are counted as lost", func() bool {
				return r.dropped(ToBackend, DropRefused)+r.dropped(ToBackend, DropNoBackend) == 3
			})
			r.wantFlows(0)
		})
	}
}

// on_backend_gone = "keep": a flow waits for its backend, which may only be restarting.
func TestKeptFlowsWaitForTheirBackend(t *testing.T) {
	echo := func(_ netip.AddrPort, data []byte, reply func([]byte)) { reply(data) }
	a, stop := lbtest.DatagramServer(t, lbtest.Free(t), echo)
	defer stop()
	r := newUDPRig(t, []string{a, lbtest.NamedDatagrams(t, "wrong")}, func(c *config.Config) { c.Frontends[0].UDP.OnBackendGone = "keep" })
	c := r.client()
	c.ask("before")
	stop()
	c.say("lost")
	r.wantDropped(ToBackend, DropRefused, 1)
	lbtest.ServeDatagramsAt(t, a, echo)
	if got := c.ask("after"); got != "after" {
		t.Errorf("got %q", got)
	}
}

// Without replies a refused datagram goes to another backend too.
func TestSendOnlyMovesOffADeadBackend(t *testing.T) {
	var n atomic.Int64
	sink := lbtest.ServeDatagrams(t, func(netip.AddrPort, []byte, func([]byte)) { n.Add(1) })
	r := newRigOf(t, 1, []string{lbtest.Refused(t), sink}, asUDP(func(c *config.Config) {
		c.Frontends[0].UDP.Mode, c.Frontends[0].UDP.Replies = "datagram", false
	}))
	c := r.client()
	for i := range 50 {
		c.say(fmt.Sprint(i))
		lbtest.Eventually(t, "it has arrived or is counted", func() bool {
			return uint64(n.Load())+r.dropped(ToBackend, DropRefused) == uint64(i)+1
		})
	}
	if n.Load() < 45 {
		t.Errorf("only %d of 50 arrived", n.Load())
	}
}

// TestMaxFlowsPerSource: a source has its limit and no more, whatever shards its flows are on; what ends gives its place back,
// also when a reload has changed the prefixes or taken the limit away meanwhile.
func TestMaxFlowsPerSource(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	with := func(limit, bits int) func(*config.Config) {
		return func(c *config.Config) {
			u := &c.Frontends[0].UDP
			u.MaxFlowsPerSource, u.NewFlowPrefixV4, u.IdleTimeout = limit, bits, time.Second
		}
	}
	r := newUDPRig(t, []string{backend}, with(10, 32))
	begin := func(source string, n int) {
		var wg sync.WaitGroup
		for range n {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
			c, err := d.Dial("udp", r.address())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			wg.Go(func() { _, _ = c.Write([]byte("x")) })
		}
		wg.Wait()
	}
	begin("127.0.0.2", 30)
	r.wantDropped(ToBackend, DropSourceLimit, 20)
	r.wantFlows(10)
	begin("127.0.0.3", 10)
	r.wantFlows(20)
	if n := r.e.Stats().Sources["f"]; n != 2 {
		t.Errorf("%d sources; want 2", n)
	}

	r.apply(testConfig([]string{backend}, asUDP(with(5, 24)))) // counted anew, by network
	begin("127.0.0.4", 10)
	r.wantDropped(ToBackend, DropSourceLimit, 25)
	r.apply(testConfig([]string{backend}, asUDP(with(0, 24))))
	begin("127.0.0.5", 10)
	r.wantFlows(35)
	r.wantFlows(0) // they end
	r.apply(testConfig([]string{backend}, asUDP(with(10, 32))))
	begin("127.0.0.2", 11)
	r.wantDropped(ToBackend, DropSourceLimit, 26)
	r.wantFlows(10)
	for _, sh := range r.e.shards {
		sh.loop.Call(func() {
			if sh.flows != nil && len(sh.flows.held) > 4 {
				t.Errorf("%d tables are held", len(sh.flows.held))
			}
		})
	}
}

// TestMaxFlowsPerSourceOfUnlucky: a flow that cannot begin for another reason takes nothing of its source's.
func TestMaxFlowsPerSourceOfUnlucky(t *testing.T) {
	r := newUDPRig(t, nil, func(c *config.Config) { c.Frontends[0].UDP.MaxFlowsPerSource = 1 })
	c := r.client()
	for range 3 {
		c.say("x")
	}
	r.wantDropped(ToBackend, DropNoBackend, 3)
	if n := r.e.Stats().Sources["f"]; n != 0 {
		t.Errorf("%d sources are counted", n)
	}
	backend := lbtest.EchoDatagrams(t)
	r.apply(testConfig([]string{backend}, asUDP(func(c *config.Config) {
		accepts("optional")(c)
		c.Frontends[0].UDP.MaxFlowsPerSource, c.Frontends[0].UDP.NewFlowPrefixV4 = 1, 32
	})))
	c.ask("x")
	for _, source := range []string{"198.51.100.1:1", "198.51.100.2:1"} { // behind a proxy each has its own
		c.ask(toldDatagram(source, "x"))
	}
	c.say(toldDatagram("198.51.100.1:2", "x"))
	r.wantDropped(ToBackend, DropSourceLimit, 1)
}
