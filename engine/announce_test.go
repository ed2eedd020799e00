package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"awe4lb/config"
	"awe4lb/engine/proxyproto"
	"awe4lb/internal/lbtest"
)

// announced makes the pool tell its backends of clients.
func announced(datagrams string, tlvs ...string) func(*config.Config) {
	return func(c *config.Config) {
		c.Pools[0].SendProxy, c.Pools[0].SendProxyDatagrams, c.Pools[0].ProxyTLVs = "v2", datagrams, tlvs
	}
}

// told is a datagram that a backend got.
type told struct {
	header         bool
	source, dest   netip.AddrPort
	id, payload    string
	from           netip.AddrPort
	datagram, sums bool
}

// announcedBackend takes headers where they are, notes what it gets, and answers with the payload.
type announcedBackend struct {
	address string
	stop    func()
	mu      sync.Mutex
	got     []told
}

func newAnnouncedBackend(t testing.TB, at string) *announcedBackend {
	b := new(announcedBackend)
	b.address, b.stop = lbtest.DatagramServer(t, at, func(from netip.AddrPort, data []byte, reply func([]byte)) {
		var h proxyproto.Header
		n, status := proxyproto.ParseDatagram(data, &h)
		if status == proxyproto.Malformed {
			t.Errorf("the backend got %q", data)
		}
		d := told{header: status == proxyproto.Found, payload: string(data[n:]), from: from}
		if d.header {
			d.source, d.dest, d.datagram = h.Source, h.Dest, h.Datagram
			d.id, d.sums = string(h.TLV(proxyproto.TLVUniqueID)), h.TLV(proxyproto.TLVCRC32C) != nil
		}
		b.mu.Lock()
		b.got = append(b.got, d)
		b.mu.Unlock()
		reply(data[n:])
	})
	t.Cleanup(b.stop)
	return b
}

// take returns what b has got since the last time, once that is n datagrams.
func (b *announcedBackend) take(t testing.TB, n int) []told {
	t.Helper()
	var got []told
	lbtest.Eventually(t, fmt.Sprintf("%d datagrams have arrived", n), func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		got = b.got
		return len(got) >= n
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	got, b.got = b.got, nil
	if len(got) != n {
		t.Fatalf("%d datagrams; want %d", len(got), n)
	}
	return got
}

// TestAnnounced: a header is before every datagram, or the first of a flow, in each way that datagrams go; answers come back.
func TestAnnounced(t *testing.T) {
	for _, datagrams := range []string{"every", "first"} {
		for _, mode := range []string{"flow", "datagram", "shared", "without replies", "gro"} {
			if datagrams == "first" && mode == "without replies" {
				continue // refused by validation
			}
			t.Run(datagrams+" "+mode, func(t *testing.T) {
				b := newAnnouncedBackend(t, lbtest.Free(t))
				r := newUDPRig(t, []string{b.address}, func(c *config.Config) {
					announced(datagrams, "unique_id", "crc32c")(c)
					switch u := &c.Frontends[0].UDP; mode {
					case "datagram":
						u.Mode = mode
					case "without replies":
						u.Mode, u.Replies = "datagram", false
					case "shared":
						u.SharedSource = append(u.SharedSource, anyIP)
					case "gro":
						u.GRO = true
					}
				})
				c, dest := r.client(), netip.MustParseAddrPort(r.address())
				id := ""
				for i, payload := range []string{"one", "", string(pattern(1400, 1)), "four"} {
					c.say(payload)
					if mode != "without replies" && c.hear() != payload {
						t.Error("something else came back")
					}
					got := b.take(t, 1)[0]
					if got.payload != payload || got.header != (datagrams == "every" || i == 0) {
						t.Errorf("datagram %d: %+v", i, got)
					}
					if got.header && (got.source != c.address() || got.dest != dest || !got.datagram || !got.sums || len(got.id) != 32) {
						t.Errorf("datagram %d: %+v", i, got)
					}
					if i > 0 && got.header && mode != "without replies" && got.id != id {
						t.Error("the id of a flow has changed")
					}
					id = got.id
				}
				f := r.e.Stats().Frontends["f"]
				if f.Bytes[ToBackend] != 1407 || f.Datagrams[ToBackend] != 4 {
					t.Errorf("%d bytes in %d datagrams are counted; want the client's 1407 in 4", f.Bytes[ToBackend], f.Datagrams[ToBackend])
				}
			})
		}
	}
}

// TestAnnouncedBursts: many at once, of one size and of several, leave in order and each with what it shall have: in trains, and
// joined before.
func TestAnnouncedBursts(t *testing.T) {
	for _, datagrams := range []string{"every", "first"} {
		for _, gro := range []bool{false, true} {
			t.Run(fmt.Sprint(datagrams, " gro ", gro), func(t *testing.T) {
				b := newAnnouncedBackend(t, lbtest.Free(t))
				r := newUDPRig(t, []string{b.address}, func(c *config.Config) {
					announced(datagrams, "crc32c")(c)
					c.Frontends[0].UDP.GRO = gro
				})
				c := r.client()
				for round := range 5 {
					train := ""
					for i := range 20 {
						train += fmt.Sprintf("%d %2d %s", round, i, strings.Repeat("x", 95))
					}
					raw, err := c.SyscallConn()
					if err != nil {
						t.Fatal(err)
					}
					err = raw.Control(func(fd uintptr) { sendTrain(t, int(fd), nil, []byte(train), 100) })
					if err != nil {
						t.Fatal(err)
					}
					c.say("the end")
					for i, got := range b.take(t, 21) {
						want := "the end"
						if i < 20 {
							want = train[i*100 : i*100+100]
						}
						if got.payload != want || got.header != (datagrams == "every" || round == 0 && i == 0) {
							t.Fatalf("round %d, datagram %d: %+v; want %q", round, i, got, want)
						}
					}
					for range 21 {
						c.hear()
					}
				}
				if n := r.e.Stats().Frontends["f"].Bytes[ToBackend]; n != 5*2007 {
					t.Errorf("%d bytes are counted; want %d", n, 5*2007)
				}
			})
		}
	}
}

// TestAnnouncedAgain: a datagram that one backend refuses reaches the next with exactly one header, and the first of a flow there
// always has one.
func TestAnnouncedAgain(t *testing.T) {
	for _, datagrams := range []string{"every", "first"} {
		for _, mode := range []string{"flow", "datagram", "shared", "without replies"} {
			if datagrams == "first" && mode == "without replies" {
				continue
			}
			t.Run(datagrams+" "+mode, func(t *testing.T) {
				a, b := newAnnouncedBackend(t, lbtest.Free(t)), newAnnouncedBackend(t, "127.0.0.1:0")
				r := newUDPRig(t, []string{a.address, b.address}, func(c *config.Config) {
					announced(datagrams)(c)
					c.Pools[0].Backends[1].Priority = 1
					switch u := &c.Frontends[0].UDP; mode {
					case "datagram":
						u.Mode = mode
					case "without replies":
						u.Mode, u.Replies = "datagram", false
					case "shared":
						u.SharedSource = append(u.SharedSource, anyIP)
					}
				})
				c := r.client()
				c.say("one")
				c.say("two")
				a.take(t, 2)
				a.stop()
				for i, payload := range []string{"three", "four"} {
					c.say(payload)
					got := b.take(t, 1)[0]
					if got.payload != payload || got.header != (datagrams == "every" || i == 0) || got.header && got.source != c.address() {
						t.Errorf("%+v; want %q", got, payload)
					}
				}
				want := "onetwothreethreefour"
				if mode == "datagram" || mode == "without replies" { // balanced anew, to the first again
					want += "four"
				}
				lbtest.Eventually(t, "the clients' bytes are counted", func() bool {
					var sum uint64
					for _, s := range r.e.Stats().Backends {
						sum += s.Bytes[ToBackend]
					}
					return sum == uint64(len(want))
				})
			})
		}
	}
}

// TestAnnouncedKept: a backend that was away when the first datagram came is told with the next.
func TestAnnouncedKept(t *testing.T) {
	at := lbtest.Refused(t)
	r := newUDPRig(t, []string{at}, func(c *config.Config) {
		announced("first")(c)
		c.Frontends[0].UDP.OnBackendGone = "keep"
	})
	c := r.client()
	c.say("lost")
	r.wantDropped(ToBackend, DropRefused, 1)
	b := newAnnouncedBackend(t, at)
	c.ask("heard")
	if got := b.take(t, 1)[0]; !got.header || got.payload != "heard" {
		t.Errorf("%+v", got)
	}
}

// TestAnnouncedTooBig: what a header makes larger than a datagram can be is dropped and counted; a smaller one is not.
func TestAnnouncedTooBig(t *testing.T) {
	for _, datagrams := range []string{"every", "first"} {
		b := newAnnouncedBackend(t, lbtest.Free(t))
		r := newUDPRig(t, []string{b.address}, func(c *config.Config) {
			announced(datagrams)(c)
			c.Frontends[0].UDP.BufferSize = 65507
		})
		c := r.client()
		const header = 16 + 12
		c.say(string(pattern(65507-header+1, 1)))
		r.wantDropped(ToBackend, DropTooBig, 1)
		largest := string(pattern(65507-header, 2))
		if c.ask(largest) != largest {
			t.Error("something else came back")
		}
		if got := b.take(t, 1)[0]; !got.header || got.source != c.address() {
			t.Errorf("%v: %v", datagrams, got.header)
		}
	}
}

// TestAnnouncedChain: through two of us, in every combination, the backend is told of the client that the first proxy told of,
// with the id and the address the client used; and answers find the way back.
func TestAnnouncedChain(t *testing.T) {
	for _, outer := range []string{"every", "first"} {
		for _, inner := range []string{"every", "first"} {
			t.Run(outer+" "+inner, func(t *testing.T) {
				b := newAnnouncedBackend(t, lbtest.Free(t))
				second := newUDPRig(t, []string{b.address}, func(c *config.Config) {
					accepts("required")(c)
					announced(inner, "unique_id", "crc32c")(c)
				})
				first := newUDPRig(t, []string{second.address()}, func(c *config.Config) {
					accepts("optional")(c)
					announced(outer, "unique_id")(c)
				})
				for _, direct := range []bool{false, true} {
					c := first.client()
					for i := range 3 {
						source, dest, datagram := "198.51.100.7:1234", "192.0.2.2:53", toldDatagram("198.51.100.7:1234", "x")
						if direct {
							source, dest, datagram = c.address().String(), first.address(), "x"
						}
						if c.ask(datagram) != "x" {
							t.Error("something else came back")
						}
						got := b.take(t, 1)[0]
						if got.header != (i == 0 || inner == "every") || got.header && (got.source.String() != source || got.dest.String() != dest) ||
							got.header && !direct && got.id != "told by "+source || got.header && direct && len(got.id) != 32 {
							t.Errorf("direct %v, datagram %d: %+v", direct, i, got)
						}
					}
				}
				second.e.Close()
				for _, rec := range second.wantEnds(Killed, Killed) {
					if !rec.Proxy.IsValid() || rec.ID == "" {
						t.Errorf("%+v", rec)
					}
				}
			})
		}
	}
}

// TestAnnouncedFamilies: to a backend of another family, from a listener on every address.
func TestAnnouncedFamilies(t *testing.T) {
	b := newAnnouncedBackend(t, lbtest.Free(t))
	r := newUDPRig(t, []string{b.address}, func(c *config.Config) {
		announced("every")(c)
		c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort("[::]:0")}}
	})
	at := netip.AddrPortFrom(netip.IPv6Loopback(), netip.MustParseAddrPort(r.address()).Port())
	c := r.clientTo(at.String())
	c.ask("x")
	if got := b.take(t, 1)[0]; got.source != c.address() || got.dest != at {
		t.Errorf("%+v", got)
	}
}
