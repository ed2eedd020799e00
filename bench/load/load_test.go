package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/bench/backend"
	"awe4lb/bench/wire"
)

// start runs the backends in this process and a naive proxy before them, so that everything crosses a proxy too.
func start(t *testing.T) (http, bulk string, s *backend.Server) {
	t.Helper()
	s, err := backend.Start(backend.Config{HTTP: []string{"127.0.0.1:0"}, Bulk: "127.0.0.1:0", Echo: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	proxy := func(to string) string {
		p, err := backend.StartNaive("127.0.0.1:0", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p.Addr()
	}
	return proxy(s.HTTP[0]), proxy(s.Bulk), s
}

func measure(t *testing.T, cfg Config) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustPass(t *testing.T, r *Result) {
	t.Helper()
	if r.Failed() {
		t.Errorf("failed: %s", r.ErrorText())
	}
}

func TestRequestsCounted(t *testing.T) {
	http, _, s := start(t)
	for _, threads := range []int{1, 2} {
		before := s.Counters().Requests
		r := measure(t, Config{Mode: Requests, Target: http, Conns: 20, Threads: threads, Count: 1003, Timeout: 5 * time.Second})
		mustPass(t, r)
		if r.Units != 1003 || r.Latency.Count() != 1003 {
			t.Errorf("%d threads: counted %d requests and %d latencies, want 1003", threads, r.Units, r.Latency.Count())
		}
		if got := s.Counters().Requests - before; got != 1003+20 { // each connection is proved by one
			t.Errorf("%d threads: the backend answered %d requests, want 1023", threads, got)
		}
	}
}

func TestRequestsByTimeWithLargeBodies(t *testing.T) {
	http, _, _ := start(t)
	r := measure(t, Config{Mode: Requests, Target: http, Conns: 3, Duration: 100 * time.Millisecond, Warmup: 20 * time.Millisecond,
		RequestBytes: 3000, ResponseBytes: 700_000, Watch: []Watch{{"self", os.Getpid()}}})
	mustPass(t, r)
	if r.Units == 0 || r.Seconds < 0.1 {
		t.Errorf("%d requests in %v s", r.Units, r.Seconds)
	}
	if u, ok := r.CPUOf("self"); !ok || u.Total <= 0 {
		t.Errorf("watched CPU: %+v, %v", u, ok)
	}
}

func TestRequestsOpenLoopSendsTheWholeSchedule(t *testing.T) {
	http, _, s := start(t)
	const rate, seconds = 2000, 0.3
	before := s.Counters().Requests
	r := measure(t, Config{Mode: Requests, Target: http, Conns: 8, Threads: 2, Rate: rate,
		Warmup: 50 * time.Millisecond, Duration: 300 * time.Millisecond})
	mustPass(t, r)
	if n := int(r.Latency.Count()); n < rate*seconds-2 || n > rate*seconds+2 {
		t.Errorf("%d latencies, want one for each of the %v intended sends of the window", n, rate*seconds)
	}
	if n := s.Counters().Requests - before; n < 698+8 || n > 702+8 {
		t.Errorf("the backend answered %d requests, want 700 and 8 proofs", n)
	}
}

// stallingProxy relays HTTP but holds everything back for a while, once, after n bytes of requests.
func stallingProxy(t *testing.T, to string, after int64, hold time.Duration) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var seen atomic.Int64
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer b.Close()
				go func() { io.Copy(c, b); c.Close() }()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if now := seen.Add(int64(n)); now >= after && now-int64(n) < after {
						time.Sleep(hold)
					}
					if _, err := b.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func TestOpenLoopChargesAStallToEveryRequestItDelayed(t *testing.T) {
	_, _, s := start(t)
	const hold = 200 * time.Millisecond
	request := int64(len(wire.Request(0, 13, false)))
	r := measure(t, Config{Mode: Requests, Target: stallingProxy(t, s.HTTP[0], 50*request, hold), Conns: 1, Rate: 500, Duration: 600 * time.Millisecond})
	mustPass(t, r)
	// 500/s for 200 ms: about 100 requests were due during the stall, waiting 100 ms on average. A generator that omits
	// them would show one slow request out of 300 and a p90 of microseconds.
	if p := r.Latency.Quantile(0.9); p < hold/4 {
		t.Errorf("p90 is %v after a stall of %v that delayed a third of all requests", p, hold)
	}
	if r.Latency.Max() < hold*9/10 {
		t.Errorf("max is %v, want about the stall of %v", r.Latency.Max(), hold)
	}
}

func TestConnections(t *testing.T) {
	http, _, s := start(t)
	for _, clientCloses := range []bool{false, true} {
		before := s.Counters()
		r := measure(t, Config{Mode: Connections, Target: http, Conns: 10, Count: 300, ClientCloses: clientCloses})
		mustPass(t, r)
		after := s.Counters()
		if r.Units != 300 || r.Latency.Count() != 300 || after.Accepted-before.Accepted != 300 {
			t.Errorf("client closes %v: %d connections, %d latencies, backend accepted %d; want 300",
				clientCloses, r.Units, r.Latency.Count(), after.Accepted-before.Accepted)
		}
	}
}

func TestConnectionsOpenLoop(t *testing.T) {
	http, _, _ := start(t)
	r := measure(t, Config{Mode: Connections, Target: http, Conns: 16, Rate: 500, Duration: 200 * time.Millisecond, Sources: 3})
	mustPass(t, r)
	if n := r.Latency.Count(); n < 99 || n > 101 {
		t.Errorf("%d latencies, want 100", n)
	}
}

func TestBulkOfFixedLength(t *testing.T) {
	_, bulk, _ := start(t)
	for _, c := range []struct{ up, down bool }{{true, false}, {false, true}, {true, true}} {
		const each = 5_000_001
		r := measure(t, Config{Mode: Bulk, Target: bulk, Conns: 3, Threads: 2, Up: c.up, Down: c.down, Bytes: each, Verify: true})
		mustPass(t, r)
		if c.up && r.BytesUp != 3*each {
			t.Errorf("%+v: sent %d", c, r.BytesUp)
		}
		if want := int64(3 * (each + wire.TrailerBytes)); c.down && r.BytesDown != want {
			t.Errorf("%+v: received %d, want %d", c, r.BytesDown, want)
		}
	}
}

func TestBulkByTime(t *testing.T) {
	_, bulk, _ := start(t)
	for _, c := range []struct{ up, down bool }{{true, false}, {false, true}, {true, true}} {
		r := measure(t, Config{Mode: Bulk, Target: bulk, Conns: 2, Up: c.up, Down: c.down, Duration: 60 * time.Millisecond, Verify: true})
		mustPass(t, r)
		if c.up && r.BytesUp == 0 || c.down && r.BytesDown == 0 {
			t.Errorf("%+v: nothing moved: %+v", c, r)
		}
	}
}

func TestIdleHoldsWhatItOpened(t *testing.T) {
	http, _, s := start(t)
	before := s.Counters()
	looked := false
	r := measure(t, Config{Mode: Idle, Target: http, Conns: 150, Gate: &Gate{Ready: func(context.Context) error {
		looked = true
		if n := s.Counters().Requests - before.Requests; n != 150 {
			t.Errorf("%d connections proved at the gate, want 150", n)
		}
		return nil
	}}})
	mustPass(t, r)
	if !looked {
		t.Error("the gate was not called")
	}
}

func TestStallReadsEverythingAfterwards(t *testing.T) {
	_, bulk, s := start(t)
	const each = 30_000_000
	r := measure(t, Config{Mode: Stall, Target: bulk, Conns: 2, Bytes: each, Verify: true, Gate: &Gate{Ready: func(ctx context.Context) error {
		for last := int64(-1); ; { // until the backend cannot push any further
			now := s.Counters().BulkSent
			if now == last && now > 0 {
				break
			}
			last = now
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if sent := s.Counters().BulkSent; sent >= 2*each {
			t.Errorf("the backend could push all %d bytes at a client that reads nothing", sent)
		}
		return nil
	}}})
	mustPass(t, r)
	if want := int64(2 * (each + wire.TrailerBytes)); r.BytesDown != want {
		t.Errorf("read %d bytes, want %d", r.BytesDown, want)
	}
}

// rude answers every connection in its own way.
func rude(t *testing.T, serve func(c *net.TCPConn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return ln.Addr().String()
}

func readRequest(c net.Conn) bool {
	buf := make([]byte, 4096)
	for got := ""; !strings.HasSuffix(got, "\r\n\r\n"); {
		n, err := c.Read(buf)
		if err != nil {
			return false
		}
		got += string(buf[:n])
	}
	return true
}

func TestEveryKindOfFailureIsSeen(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	good, goodClose := wire.Response(13, false), wire.Response(13, true)
	answer := func(b []byte) func(c *net.TCPConn) {
		return func(c *net.TCPConn) {
			if readRequest(c) {
				c.Write(b)
			}
		}
	}
	for name, c := range map[string]struct {
		target string
		mode   Mode
		want   string
	}{
		"refused":             {closed.Addr().String(), Requests, ErrConnect},
		"refused, short":      {closed.Addr().String(), Connections, ErrConnect},
		"refused, bulk":       {closed.Addr().String(), Bulk, ErrConnect},
		"silent":              {rude(t, func(c *net.TCPConn) { readRequest(c); io.Copy(io.Discard, c) }), Requests, ErrTimeout},
		"silent, short":       {rude(t, func(c *net.TCPConn) { readRequest(c); io.Copy(io.Discard, c) }), Connections, ErrTimeout},
		"silent, bulk":        {rude(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) }), Bulk, ErrTimeout},
		"closed at once":      {rude(t, func(c *net.TCPConn) { io.ReadFull(c, make([]byte, wire.HeaderBytes)) }), Bulk, ErrShort},
		"half a response":     {rude(t, answer(good[:40])), Requests, ErrShort},
		"half, short":         {rude(t, answer(goodClose[:40])), Connections, ErrShort},
		"wrong byte":          {rude(t, answer([]byte(strings.Replace(string(good), "hello", "hullo", 1)))), Requests, ErrMismatch},
		"wrong byte, short":   {rude(t, answer([]byte(strings.Replace(string(goodClose), "hello", "hullo", 1)))), Connections, ErrMismatch},
		"closed between":      {rude(t, answer(good)), Idle, ErrIdleEnd},
		"too much":            {rude(t, answer(append(append([]byte{}, goodClose...), "extra"...))), Connections, ErrExtra},
		"reset":               {rude(t, func(c *net.TCPConn) { readRequest(c); c.SetLinger(0) }), Requests, ErrReset},
		"answered then reset": {rude(t, func(c *net.TCPConn) { readRequest(c); c.Write(goodClose[:20]); c.SetLinger(0) }), Connections, ErrReset},
		"never closed":        {rude(t, func(c *net.TCPConn) { readRequest(c); c.Write(goodClose); io.Copy(io.Discard, c) }), Connections, ErrNoClose},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Mode: c.mode, Target: c.target, Conns: 2, Timeout: 300 * time.Millisecond, Down: true}
			switch c.mode {
			case Bulk:
				cfg.Bytes = 1000
			case Idle:
				cfg.Hold = 400 * time.Millisecond
			default:
				cfg.Count = 4
			}
			r := measure(t, cfg)
			if !strings.Contains(r.ErrorText(), c.want) {
				t.Errorf("errors are %q, want %q among them", r.ErrorText(), c.want)
			}
		})
	}
}

// corrupt relays downloads and flips one bit in the middle.
func TestBulkSeesAFlippedBitAndALostByte(t *testing.T) {
	_, _, s := start(t)
	for name, damage := range map[string]func(b []byte) []byte{
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"lost":    func(b []byte) []byte { return b[1:] },
	} {
		target := rude(t, func(c *net.TCPConn) {
			b, err := net.Dial("tcp", s.Bulk)
			if err != nil {
				return
			}
			defer b.Close()
			go func() { io.Copy(b, c); b.(*net.TCPConn).CloseWrite() }()
			buf := make([]byte, 64<<10)
			for i := 0; ; i++ {
				n, err := b.Read(buf)
				if err != nil {
					return
				}
				out := buf[:n]
				if i == 3 {
					out = damage(out)
				}
				c.Write(out)
			}
		})
		r := measure(t, Config{Mode: Bulk, Target: target, Conns: 1, Down: true, Bytes: 3_000_000, Verify: true})
		if !strings.Contains(r.ErrorText(), ErrMismatch) {
			t.Errorf("%s: errors are %q, want %q", name, r.ErrorText(), ErrMismatch)
		}
		r = measure(t, Config{Mode: Bulk, Target: target, Conns: 1, Down: true, Bytes: 3_000_000})
		if name == "lost" && !strings.Contains(r.ErrorText(), ErrAccount) {
			t.Errorf("%s, not verified: errors are %q, want %q", name, r.ErrorText(), ErrAccount)
		}
	}
}

func TestTakeFindsTheTrailerHoweverTheStreamIsCut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		size := rnd.IntN(2000)
		trailer := wire.Trailer{Sent: uint64(size)}.Append(nil)
		all := append(bytes.Clone(wire.Pattern(0, size)), trailer...)
		s := &stream{}
		for len(all) > 0 {
			n := min(1+rnd.IntN(1+rnd.IntN(400)), len(all))
			s.take(all[:n], true)
			all = all[n:]
		}
		if s.bad != 0 || !bytes.Equal(s.tail[:s.tailLen], trailer) || s.received != uint64(size+len(trailer)) {
			t.Fatalf("%d bytes: %d mismatches, tail %q, received %d", size, s.bad, s.tail[:s.tailLen], s.received)
		}
	}
}

func TestConfigErrorsTeach(t *testing.T) {
	for want, cfg := range map[string]Config{
		"duration":   {Mode: Requests, Target: "127.0.0.1:1"},
		"direction":  {Mode: Bulk, Target: "127.0.0.1:1", Duration: 1},
		"IPv4":       {Mode: Idle, Target: "localhost:80"},
		"mode":       {Mode: "fast", Target: "127.0.0.1:1"},
		"version":    {Mode: HalfOpen, Target: "127.0.0.1:1"},
		"no TLS":     {Mode: Stall, Target: "127.0.0.1:1", Bytes: 1, TLS: &TLS{}},
		"resumes":    {Mode: Idle, Target: "127.0.0.1:1", TLS: &TLS{Resume: true}},
		"backend":    {Mode: Connections, Target: "127.0.0.1:1", Count: 1, ClientCloses: true, TLS: &TLS{}},
		"exclude":    {Mode: Requests, Target: "127.0.0.1:1", Count: 1, Rate: 1},
		"bytes per":  {Mode: Stall, Target: "127.0.0.1:1"},
		"response":   {Mode: Idle, Target: "127.0.0.1:1", ResponseBytes: -1},
		"per second": {Mode: Requests, Target: "127.0.0.1:1", Rate: -1},
	} {
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got error %v, want one about %q", cfg, err, want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	http, _, _ := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { time.Sleep(50 * time.Millisecond); cancel() }()
	if _, err := Run(ctx, Config{Mode: Requests, Target: http, Conns: 4, Duration: time.Hour}); err != context.Canceled {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestSourcesAreSpread(t *testing.T) {
	seen := make(chan string, 8)
	target := rude(t, func(c *net.TCPConn) {
		seen <- c.RemoteAddr().(*net.TCPAddr).IP.String()
		for readRequest(c) {
			c.Write(wire.Response(13, false))
		}
	})
	mustPass(t, measure(t, Config{Mode: Requests, Target: target, Conns: 4, Count: 4, Sources: 2}))
	hosts := map[string]int{}
	for range 4 {
		hosts[<-seen]++
	}
	if fmt.Sprint(hosts) != "map[127.1.0.1:2 127.1.0.2:2]" {
		t.Errorf("connections by source: %v, want two each from 127.1.0.1 and 127.1.0.2", hosts)
	}
}
