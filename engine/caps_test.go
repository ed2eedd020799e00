package engine

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// gushing is a backend that sends as fast as it can, for as long as it is connected.
func gushing(t testing.TB) string {
	return lbtest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 256<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
}

// counting reads from c for as long as it can and counts.
func counting(c io.Reader) *atomic.Int64 {
	n := new(atomic.Int64)
	go func() {
		b := make([]byte, 256<<10)
		for {
			m, err := c.Read(b)
			n.Add(int64(m))
			if err != nil {
				return
			}
		}
	}()
	return n
}

// rates returns the bytes a second of each counter over d, after the burst of the beginning.
func rates(d time.Duration, counters ...*atomic.Int64) []float64 {
	time.Sleep(300 * time.Millisecond) // a rate is measured over time
	before, begun := make([]int64, len(counters)), time.Now()
	for i, c := range counters {
		before[i] = c.Load()
	}
	time.Sleep(d)
	took := time.Since(begun).Seconds()
	all := make([]float64, len(counters))
	for i, c := range counters {
		all[i] = float64(c.Load()-before[i]) / took
	}
	return all
}

// wantRate fails unless a rate is about what is wanted: 10 %, and a machine may be busy.
func wantRate(t testing.TB, what string, got, want float64) {
	t.Helper()
	if got > 1.10*want || got < 0.75*want {
		t.Errorf("%s: %.0f bytes a second; want %.0f", what, got, want)
	} else if math.Abs(got-want) > .1*want {
		t.Logf("%s: %.0f bytes a second; want %.0f", what, got, want)
	}
}

// TestBandwidth: what sessions get together and each, towards clients, with splice and without, and that they share it.
func TestBandwidth(t *testing.T) {
	for name, tc := range map[string]struct {
		edit    func(*config.Frontend)
		clients int
		each    float64 // bytes a second
		splice  bool
	}{
		"session":         {func(f *config.Frontend) { f.BandwidthPerSession = 2 << 20 }, 2, 2 << 20, false},
		"session, splice": {func(f *config.Frontend) { f.BandwidthPerSession = 20 << 20 }, 1, 20 << 20, true},
		"source":          {func(f *config.Frontend) { f.BandwidthPerSource = 4 << 20 }, 4, 1 << 20, true},
		"all":             {func(f *config.Frontend) { f.Bandwidth = 30 << 20 }, 3, 10 << 20, true},
		"slow":            {func(f *config.Frontend) { f.Bandwidth = 20 << 10 }, 1, 20 << 10, true},
		"the least counts": {func(f *config.Frontend) {
			f.Bandwidth, f.BandwidthPerSource, f.BandwidthPerSession = 100<<20, 8<<20, 1<<20
		}, 2, 1 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, []string{gushing(t)}, func(c *config.Config) {
				tc.edit(c.Frontends[0])
				c.Engine.Splice = tc.splice
			})
			var counters []*atomic.Int64
			for range tc.clients {
				counters = append(counters, counting(r.dial()))
			}
			got := rates(1200*time.Millisecond, counters...)
			t.Logf("%.0f", got)
			sum := 0.0
			for _, rate := range got {
				sum += rate
				if rate < tc.each/2 || rate > tc.each*2 {
					t.Errorf("not shared fairly: %.0f", got)
				}
			}
			wantRate(t, "together", sum, tc.each*float64(tc.clients))
			if n := r.e.Stats().Frontends["f"].Throttled; n == 0 || n > 1000 {
				t.Errorf("%d waits", n)
			}
		})
	}
}

// TestBandwidthUp: towards backends, in TLS and plain, while the other direction is free to answer.
func TestBandwidthUp(t *testing.T) {
	var got atomic.Int64
	read := func(c io.Reader) {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	sink := lbtest.Serve(t, func(c *net.TCPConn) { read(c) })
	pump := func(c io.Writer) {
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	t.Run("plain", func(t *testing.T) {
		r := newRig(t, []string{sink}, func(c *config.Config) { c.Frontends[0].BandwidthPerSession = 3 << 20 })
		go pump(r.dial())
		wantRate(t, "up", rates(1500*time.Millisecond, &got)[0], 3<<20)
	})
	for _, f := range []form{forms[0], forms[2]} {
		t.Run(f.name, func(t *testing.T) {
			r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) { read(c) }, func(c *config.Config) { c.Frontends[0].BandwidthPerSession = 3 << 20 })
			_, c := r.connect()
			go pump(c)
			wantRate(t, "up", rates(1500*time.Millisecond, &got)[0], 3<<20)
		})
	}
}

// TestBandwidthBothWays: who sends both ways gets no more of a shared cap than those who send one way: the timer of one direction
// does not let the other go on.
func TestBandwidthBothWays(t *testing.T) {
	var heard [4]atomic.Int64
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 64<<10)
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return
		}
		n := &heard[b[0]]
		if b[0] == 0 {
			go func() {
				for {
					if _, err := c.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}()
		}
		for {
			got, err := c.Read(b)
			n.Add(int64(got))
			if err != nil {
				return
			}
		}
	})
	r := newRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].Bandwidth = 4 << 20 })
	var counters []*atomic.Int64
	for i := range heard {
		c := r.dial()
		counters = append(counters, &heard[i])
		if i == 0 {
			counting(c)
		}
		go func() {
			b := make([]byte, 64<<10)
			b[0] = byte(i)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
	}
	got, sum := rates(2*time.Second, counters...), 0.0
	for _, rate := range got {
		sum += rate
		if rate < 1<<19 || rate > 2<<20 {
			t.Errorf("not shared fairly: %.0f", got)
			break
		}
	}
	wantRate(t, "together", sum, 4<<20)
}

// TestBandwidthByReload: sessions get what a reload says, and are free when it says nothing.
func TestBandwidthByReload(t *testing.T) {
	r := newRig(t, []string{gushing(t)}, func(c *config.Config) { c.Frontends[0].BandwidthPerSession = 1 << 20 })
	n := counting(r.dial())
	wantRate(t, "at first", rates(time.Second, n)[0], 1<<20)
	change := func(rate config.Size) {
		c := *r.d.Snapshot().Config
		f := *c.Frontends[0]
		f.BandwidthPerSession = rate
		c.Frontends = []*config.Frontend{&f}
		r.apply(&c)
	}
	change(4 << 20)
	wantRate(t, "after a reload", rates(time.Second, n)[0], 4<<20)
	change(0)
	if got := rates(time.Second, n)[0]; got < 20<<20 {
		t.Errorf("free: %.0f bytes a second", got)
	}
	change(2 << 20)
	wantRate(t, "and again", rates(time.Second, n)[0], 2<<20)
}

// TestThrottledEnds: while a session waits for its cap, what was said before an end still arrives, then FIN or RST.
func TestThrottledEnds(t *testing.T) {
	const size = 300 << 10
	for _, reset := range []bool{false, true} {
		backend := lbtest.Serve(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Error(err)
			}
			if reset {
				lbtest.Eventually(t, "all is acknowledged", func() bool {
					unsent := -1
					raw, err := c.SyscallConn()
					if err == nil {
						err = raw.Control(func(fd uintptr) { unsent = sysUnsent(int(fd)) })
					}
					return err == nil && unsent == 0
				})
				_ = c.SetLinger(0)
			}
		})
		r := newRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].BandwidthPerSession = 200 << 10 })
		c := r.dial()
		say(t, c, "x")
		if !reset {
			_ = c.CloseWrite()
		}
		b, err := io.ReadAll(c)
		switch {
		case !reset && (err != nil || len(b) != size):
			t.Errorf("FIN: got %d bytes, %v", len(b), err)
		case reset && (!errors.Is(err, syscall.ECONNRESET) || len(b) != size):
			t.Errorf("RST: got %d bytes, %v", len(b), err)
		}
		if reset {
			r.wantEnds(BackendRST)
		} else {
			r.wantEnds(ClientEOF)
		}
	}
}

// TestThrottledClientResets: what a client said before it reset the connection still arrives, no faster than its cap lets it, and
// then the reset does.
func TestThrottledClientResets(t *testing.T) {
	const size = 64 << 10
	heard := make(chan int, 1)
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the backend heard %v", err)
		}
		heard <- len(b)
	})
	r := newRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].BandwidthPerSession = 40 << 10 })
	c := r.dial()
	begun := time.Now()
	say(t, c, string(make([]byte, size)))
	lbtest.Eventually(t, "the session waits", func() bool { return r.e.Stats().Frontends["f"].Throttled > 0 })
	_ = c.SetLinger(0)
	c.Close()
	r.wantEnds(ClientRST)
	if n := <-heard; n != size || time.Since(begun) < time.Second {
		t.Errorf("the backend heard %d bytes of %d, %v after they were sent", n, size, time.Since(begun))
	}
}

// TestDatagramBandwidth: datagrams that are over a cap are dropped, in either direction, and counted.
func TestDatagramBandwidth(t *testing.T) {
	for name, edit := range map[string]func(*config.Frontend){
		"flow":   func(f *config.Frontend) { f.BandwidthPerSession = 100 << 10 },
		"source": func(f *config.Frontend) { f.BandwidthPerSource = 100 << 10 },
		"all":    func(f *config.Frontend) { f.Bandwidth = 100 << 10 },
	} {
		r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) { edit(c.Frontends[0]) })
		c := r.client()
		const each, n = 1000, 400 // 400 kB at once
		begun := time.Now()
		for range n {
			if _, err := c.Write(make([]byte, each)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond) // so that no queue is full
		}
		passed := uint64(0)
		lbtest.Eventually(t, name+": all were looked at", func() bool {
			f := r.e.Stats().Frontends["f"]
			passed = f.Datagrams[ToBackend]
			return passed+f.Dropped[ToBackend][DropBandwidth] == n
		})
		most := float64(100<<10)*time.Since(begun).Seconds() + float64(capBurst(100<<10)) + 2*each
		if got := float64(passed * each); got > most || passed < 8 {
			t.Errorf("%s: %.0f bytes passed; want %.0f at the most", name, got, most)
		}
	}
}

// TestCapArithmetic: whatever is taken when, over time no more passes than the rate and a burst, and no less while there is
// demand.
func TestCapArithmetic(t *testing.T) {
	for _, rate := range []int64{1 << 10, 100_000, 10 << 20, 1 << 30, 100 << 30} {
		var b bucket
		table := new(rateTable)
		for name, v := range map[string]struct {
			ahead func(at int64) int64
			take  func(at, n int64)
		}{
			"bucket": {func(at int64) int64 { return b.full.Load() - at }, func(at, n int64) { b.take(at, n) }},
			"table":  {func(at int64) int64 { return table.ahead(0xabcdef0123456789, at) }, func(at, n int64) { table.take(0xabcdef0123456789, at, n) }},
		} {
			now, begun, passed := int64(1e15), int64(1e15), int64(0)
			c := course{rate: rate, pace: rate}
			for now < begun+3e9 {
				at := c.mark(now)
				left := capLeft(v.ahead(at), rate)
				if left >= capStep(rate) {
					n := min(left, 1<<20)
					v.take(at, n)
					passed += n
					continue
				}
				now += max(capTime(capStep(rate)-left, rate), 1000)
			}
			want := float64(rate) * float64(now-begun) / 1e9
			if got := float64(passed); got > 1.01*want+float64(2*capBurst(rate)) || got < .98*want {
				t.Errorf("%s at %d: %.0f passed; want %.0f", name, rate, got, want)
			}
		}
	}
}

// TestBandwidthRaised: sessions that wait for their turn at a small cap do not go on waiting for what the old rate had them wait
// when a reload raises it or takes it away, nor do those that come after.
func TestBandwidthRaised(t *testing.T) {
	for name, set := range map[string]func(*config.Frontend, config.Size){
		"all":     func(f *config.Frontend, rate config.Size) { f.Bandwidth = rate },
		"source":  func(f *config.Frontend, rate config.Size) { f.BandwidthPerSource = rate },
		"session": func(f *config.Frontend, rate config.Size) { f.BandwidthPerSession = rate },
	} {
		for _, raised := range []config.Size{100 << 20, 0} {
			t.Run(fmt.Sprintf("%s to %d", name, raised), func(t *testing.T) {
				const clients, answer = 40, 64 << 10
				r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) { _, _ = c.Write(make([]byte, answer)) })}, func(c *config.Config) {
					set(c.Frontends[0], 1<<10) // a step of half a second each, of a minute for all to have one
				})
				var served sync.WaitGroup
				fetch := func() {
					c := r.dial()
					served.Go(func() {
						if n, err := io.Copy(io.Discard, c); n != answer || err != nil {
							t.Errorf("got %d bytes, %v", n, err)
						}
						c.Close()
					})
				}
				for range clients {
					fetch()
				}
				lbtest.Eventually(t, "all of them wait", func() bool { return r.e.Stats().Frontends["f"].Throttled >= clients })
				c := *r.d.Snapshot().Config
				f := *c.Frontends[0]
				set(&f, raised)
				c.Frontends = []*config.Frontend{&f}
				r.apply(&c)
				begun := time.Now()
				fetch()
				served.Wait()
				if took := time.Since(begun); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// TestCourse: a mark on it stays the same when the rate changes, and is reached by the rates that were in force meanwhile.
func TestCourse(t *testing.T) {
	const second = int64(1e9)
	var p atomic.Pointer[course]
	if follow(&p, 1000, 5*second) || follow(&p, 1000, 6*second) {
		t.Error("it was no other")
	}
	want := func(what string, now, mark, wait int64) {
		t.Helper()
		if got := p.Load().mark(now); got != mark {
			t.Errorf("%s: at %d; want %d", what, got, mark)
		}
		if got := p.Load().until(10_000, now); got != wait {
			t.Errorf("%s: %d ns until 10000; want %d", what, got, wait)
		}
	}
	want("a second later", 6*second, 1000, 9*second)
	if !follow(&p, 4000, 7*second) {
		t.Error("it was another")
	}
	want("raised", 7*second, 2000, 2*second)
	want("raised, a second later", 8*second, 6000, second)
	follow(&p, 500, 8*second)
	want("lowered", 8*second, 6000, 8*second)
	want("by a clock that was read before", 8*second-1, 6000, 8*second)
	follow(&p, 0, 10*second)
	want("no cap", 12*second, 8000, 0)
	follow(&p, 1000, 14*second)
	want("again", 15*second, 10_000, 0)
	follow(&p, 1<<40, 15*second)
	if got, want := p.Load().mark(15*second+86400*second+1), int64(10_000+86400<<40+1099); got != want {
		t.Errorf("a day at 1 TiB/s: %d; want %d", got, want)
	}
}

// TestTableForgets: a bucket that was last asked for very long ago is full, and not one that is far ahead.
func TestTableForgets(t *testing.T) {
	for _, later := range []int64{1 << 46, 1 << 47, 3 << 46, 1<<48 - 2<<36} {
		var table rateTable
		table.take(0xabcdef0123456789, 1000, 500)
		if ahead := table.ahead(0xabcdef0123456789, 1000+later); ahead != 0 {
			t.Errorf("%d later: %d ahead", later, ahead)
		}
	}
}
