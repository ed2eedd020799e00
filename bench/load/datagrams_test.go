package load

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/bench/backend"
	"awe4lb/bench/wire"
)

// echo runs a UDP backend in this process.
func echo(t *testing.T) (string, *backend.Server) {
	t.Helper()
	s, err := backend.Start(backend.Config{UDP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s.UDP, s
}

// rudeEcho runs a UDP server that does with the n-th measured datagram (from 0) what answer says: it gets who sent it and
// may send what it likes. Proofs, the first datagram of each of the clients, are answered well.
func rudeEcho(t *testing.T, clients int, answer func(n int, c *net.UDPConn, b []byte, from netip.AddrPort)) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-ended })
	c.SetReadBuffer(4 << 20)
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<16)
		for n := -clients; ; n++ {
			size, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n < 0 {
				c.WriteToUDPAddrPort(buf[:size], from)
			} else {
				answer(n, c, buf[:size], from)
			}
		}
	}()
	return c.LocalAddr().String()
}

func TestDatagramsCounted(t *testing.T) {
	to, s := echo(t)
	for name, cfg := range map[string]Config{
		"1 client":              {Conns: 1},
		"many clients":          {Conns: 700, DatagramBytes: 1200, Ports: 3},
		"trains":                {Conns: 5, Train: 16, DatagramBytes: 1200},
		"2 threads":             {Conns: 333, Threads: 2},
		"flows made in passing": {Conns: 1003, Fresh: true},
		"the shortest":          {Conns: 3, DatagramBytes: wire.DatagramHeader},
	} {
		cfg.Mode, cfg.Target, cfg.Count, cfg.Window, cfg.Timeout = UDP, to, 1003, 64, 10*time.Second
		before := s.Counters()
		r := measure(t, cfg)
		mustPass(t, r)
		if d := *r.Datagrams; r.Units != 1003 || r.Latency.Count() != 1003 || d != (Datagrams{Sent: 1003}) {
			t.Errorf("%s: %d round trips, %d latencies, %+v; want 1003 and nothing else", name, r.Units, r.Latency.Count(), d)
		}
		want := int64(1003 + cfg.Conns)
		if cfg.Fresh {
			want = 1003
		}
		if now := s.Counters(); now.DatagramsReceived-before.DatagramsReceived != want || now.DatagramsSent-before.DatagramsSent != want {
			t.Errorf("%s: the backend counted %+v after %+v, want %d more", name, now, before, want)
		}
	}
}

func TestDatagramsByTime(t *testing.T) {
	to, _ := echo(t)
	r := measure(t, Config{Mode: UDP, Target: to, Conns: 50, Duration: 100 * time.Millisecond, Warmup: 20 * time.Millisecond, Timeout: 5 * time.Second})
	mustPass(t, r)
	if d := r.Datagrams; r.Units == 0 || d.Lost != 0 || d.Moved != 0 || d.Sent < r.Units-256 || d.Sent > r.Units+256 {
		t.Errorf("%d round trips, %+v", r.Units, d)
	}
}

func TestDatagramsOpenLoopAccountsForItsSchedule(t *testing.T) {
	to, _ := echo(t)
	const rate = 2000
	r := measure(t, Config{Mode: UDP, Target: to, Conns: 8, Threads: 2, Rate: rate, Warmup: 50 * time.Millisecond, Duration: 300 * time.Millisecond, Timeout: 5 * time.Second})
	mustPass(t, r)
	d := r.Datagrams
	if n := float64(d.Sent + d.Unsent); n < 0.9*rate*r.Seconds || n > 1.1*rate*r.Seconds {
		t.Errorf("%+v in %v s, want about %v sent or given up a second", d, r.Seconds, rate)
	}
	if int64(r.Latency.Count()) != d.Sent || d.Lost != 0 {
		t.Errorf("%d latencies of %+v, want one for each that was sent", r.Latency.Count(), d)
	}
}

func TestDatagramsOneWay(t *testing.T) {
	to, s := echo(t)
	r := measure(t, Config{Mode: UDP, Target: to, Conns: 100, Count: 500, OneWay: true})
	mustPass(t, r)
	deadline := time.Now().Add(5 * time.Second)
	for s.Counters().DatagramsReceived < 500 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := s.Counters(); r.Units != 500 || n.DatagramsReceived != 500 || n.DatagramsSent != 0 {
		t.Errorf("sent %d; the backend counted %+v", r.Units, n)
	}
}

func TestDatagramsSeeWhatGoesWrong(t *testing.T) {
	every := func(n, period int) bool { return n%period == period-1 }
	var late [][]byte
	for name, c := range map[string]struct {
		answer func(n int, c *net.UDPConn, b []byte, from netip.AddrPort)
		errors map[string]int64
		want   Datagrams
		units  int64
	}{
		"a tenth is lost": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if !every(n, 10) {
					c.WriteToUDPAddrPort(b, from)
				}
			},
			want: Datagrams{Sent: 200, Lost: 20}, units: 180},
		"a tenth comes twice": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				c.WriteToUDPAddrPort(b, from)
				if every(n, 10) && n < 190 { // the last one's double might come when nobody listens any more
					c.WriteToUDPAddrPort(b, from)
				}
			},
			errors: map[string]int64{ErrDuplicate: 19}, want: Datagrams{Sent: 200}, units: 200},
		"a tenth reaches the next client": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if every(n, 10) {
					a := from.Addr().As4()
					a[3] ^= 1
					from = netip.AddrPortFrom(netip.AddrFrom4(a), from.Port())
				}
				c.WriteToUDPAddrPort(b, from)
			},
			errors: map[string]int64{ErrCrossed: 20}, want: Datagrams{Sent: 200, Lost: 20}, units: 180},
		"a tenth is bent": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if every(n, 10) {
					b[len(b)-1]++
				}
				c.WriteToUDPAddrPort(b, from)
			},
			errors: map[string]int64{ErrMismatch: 20}, want: Datagrams{Sent: 200, Lost: 20}, units: 180},
		"a tenth is cut": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if every(n, 10) {
					b = b[:len(b)-1]
				}
				c.WriteToUDPAddrPort(b, from)
			},
			errors: map[string]int64{ErrMismatch: 20}, want: Datagrams{Sent: 200, Lost: 20}, units: 180},
		"a tenth comes from elsewhere": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if every(n, 10) {
					if other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err == nil {
						other.WriteToUDPAddrPort(b, from)
						other.Close()
					}
					return
				}
				c.WriteToUDPAddrPort(b, from)
			},
			errors: map[string]int64{ErrElsewhere: 20}, want: Datagrams{Sent: 200, Lost: 20}, units: 180},
		"the first two come too late": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if n < 2 { // kept until the datagrams that took their places in the window are there
					late = append(late, append([]byte(nil), b...))
					return
				}
				if n == 199 {
					for _, l := range late {
						c.WriteToUDPAddrPort(l, netip.AddrPortFrom(clientIP(l), from.Port()))
					}
				}
				c.WriteToUDPAddrPort(b, from)
			},
			want: Datagrams{Sent: 200, Lost: 2, Late: 2}, units: 198},
		"an old answer and a stranger's": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				if n == 50 {
					old, _ := wire.ParseDatagram(b)
					old.Run += 1 << 20
					other := append([]byte(nil), b...)
					old.Put(other)
					c.WriteToUDPAddrPort(other, from)
					c.WriteToUDPAddrPort([]byte("who are you?"), from)
				}
				c.WriteToUDPAddrPort(b, from)
			},
			errors: map[string]int64{ErrMismatch: 1}, want: Datagrams{Sent: 200, Strays: 1}, units: 200},
		"the backend sees other ports": {
			answer: func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
				wire.StampSeen(b, uint16(1000+n/100)) // each of 10 clients moves from 1000 to 1001
				c.WriteToUDPAddrPort(b, from)
			},
			want: Datagrams{Sent: 200, Moved: 10}, units: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits most of the time, for what is lost
			// One port and a window of 2: the answers come in the order of the sends, so that counts are exact.
			r := measure(t, Config{Mode: UDP, Target: rudeEcho(t, 10, c.answer), Conns: 10, Ports: 1, Window: 2, Count: 200, Timeout: 250 * time.Millisecond})
			if *r.Datagrams != c.want || r.Units != c.units {
				t.Errorf("%d round trips, %+v; want %d, %+v", r.Units, *r.Datagrams, c.units, c.want)
			}
			for kind, n := range c.errors {
				if r.Errors[kind] != n {
					t.Errorf("%d x %s, want %d", r.Errors[kind], kind, n)
				}
			}
			if len(r.Errors) != len(c.errors) {
				t.Errorf("errors %v, want %v", r.Errors, c.errors)
			}
		})
	}
}

// clientIP returns the address of the client whose datagram b is; the clients share one port.
func clientIP(b []byte) netip.Addr {
	h, _ := wire.ParseDatagram(b)
	return netip.AddrFrom4([4]byte{127, 64, 0, byte(h.Client)})
}

func TestDatagramsToNobody(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // bound, and silent
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := measure(t, Config{Mode: UDP, Target: c.LocalAddr().String(), Conns: 3, Duration: time.Second, Timeout: 10 * time.Millisecond})
	if r.Errors[ErrTimeout] != 3 || r.Units != 0 {
		t.Errorf("%d round trips, errors %v; want 3 clients that were given up", r.Units, r.Errors)
	}
}

func TestDatagramProofIsRepeated(t *testing.T) {
	drops := 3
	to := rudeEcho(t, 0, func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
		if n >= drops {
			c.WriteToUDPAddrPort(b, from)
		}
	})
	r := measure(t, Config{Mode: UDP, Target: to, Conns: 5, Count: 100, Window: 8, Timeout: 100 * time.Millisecond})
	mustPass(t, r)
	if *r.Datagrams != (Datagrams{Sent: 100}) || r.Units != 100 {
		t.Errorf("%d round trips, %+v; want 100: what is lost before the run is none of its losses", r.Units, *r.Datagrams)
	}
}

func TestDatagramsMakeTheSameClientsAgain(t *testing.T) {
	var mu sync.Mutex
	seen := map[netip.AddrPort]int{}
	to := rudeEcho(t, 0, func(n int, c *net.UDPConn, b []byte, from netip.AddrPort) {
		mu.Lock()
		seen[from]++
		mu.Unlock()
		c.WriteToUDPAddrPort(b, from)
	})
	// A free block of ports, found by asking for one.
	probe, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 0})
	if err != nil {
		t.Fatal(err)
	}
	first := probe.LocalAddr().(*net.UDPAddr).Port
	probe.Close()
	for range 2 {
		mustPass(t, measure(t, Config{Mode: UDP, Target: to, Conns: 200, Fresh: true, Count: 200, Ports: 1, FirstPort: first, FirstAddress: 1000, Timeout: 5 * time.Second}))
	}
	mu.Lock()
	defer mu.Unlock()
	for from, n := range seen {
		if n != 2 || !strings.HasPrefix(from.String(), "127.64.3.") && !strings.HasPrefix(from.String(), "127.64.4.") {
			t.Errorf("%v sent %d datagrams, want 2 from each of 127.64.3.232 and on", from, n)
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d clients, want 200", len(seen))
	}
}

func TestPlacesAreOnesOwn(t *testing.T) {
	m := &datagrams{cfg: &Config{FirstAddress: 500}, clients: 10_000, socks: make([]int, 3)}
	type place struct{ sock, address int }
	seen := map[place]bool{}
	for c := range m.clients {
		sock, address := m.place(c)
		if seen[place{sock, address}] {
			t.Fatalf("client %d has the place of another", c)
		}
		seen[place{sock, address}] = true
		if address < 500 || m.clientAt(sock, [4]byte{127, byte(64 + address>>16), byte(address >> 8), byte(address)}) != c {
			t.Fatalf("client %d is not found at its place", c)
		}
	}
	if m.clientAt(0, [4]byte{127, 0, 0, 1}) != -1 || m.clientAt(0, [4]byte{127, 64, 0, 1}) != -1 || m.clientAt(2, [4]byte{127, 100, 0, 1}) != -1 {
		t.Error("somebody is found where nobody sits")
	}
}

func TestDatagramConfigErrorsTeach(t *testing.T) {
	for want, cfg := range map[string]Config{
		"want a duration":    {},
		"exclude each other": {Count: 1, Rate: 1},
		"datagrams of 8":     {Count: 1, DatagramBytes: 8},
		"trains of 65":       {Count: 1, Train: 65},
		"trains of 60":       {Count: 1, Train: 60, DatagramBytes: 1200},
		"a window of 8":      {Count: 1, Train: 16, Window: 8},
	} {
		cfg.Mode, cfg.Target = UDP, "127.0.0.1:1"
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %q", err, want)
		}
	}
}
