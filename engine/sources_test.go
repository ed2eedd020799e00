package engine

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// source returns the nth address of many.
func source(n int) netip.Addr {
	var b [16]byte
	if n%2 == 0 {
		binary.BigEndian.PutUint32(b[:], 10<<24|uint32(n))
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	b[0] = 0x20
	binary.BigEndian.PutUint32(b[4:], uint32(n)) // of the /64
	binary.BigEndian.PutUint32(b[12:], rand.Uint32())
	return netip.AddrFrom16(b)
}

// TestSourceTable compares the table with a map, over random operations.
func TestSourceTable(t *testing.T) {
	const limit = 3
	table := newSourceTable(32, 64, 16)
	model := map[[16]byte]int{}
	var held []netip.Addr
	for range 200_000 {
		if len(held) > 0 && rand.IntN(2) == 0 {
			i := rand.IntN(len(held))
			a := held[i]
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
			table.release(a)
			p := sourcePrefix(a, 32, 64)
			if model[p]--; model[p] == 0 {
				delete(model, p)
			}
			continue
		}
		a := source(rand.IntN(2000))
		p := sourcePrefix(a, 32, 64)
		got := table.acquire(a, limit)
		switch {
		case model[p] >= limit && got != overLimit, model[p] > 0 && model[p] < limit && got != counted:
			t.Fatalf("%v has %d: got %v", a, model[p], got)
		case got == counted:
			model[p]++
			held = append(held, a)
		case got == untracked && len(model) < 16:
			t.Fatalf("no place with %d sources", len(model))
		}
		if table.tracked() != len(model) {
			t.Fatalf("%d sources tracked; want %d", table.tracked(), len(model))
		}
		if rand.IntN(1000) > 0 {
			continue
		}
		listed := map[[16]byte]int{}
		table.each(func(source netip.Prefix, open int) {
			if source != source.Masked() || source.Bits() != map[bool]int{true: 32, false: 64}[source.Addr().Is4()] {
				t.Fatalf("listed as %v", source)
			}
			listed[source.Addr().As16()] += open
		})
		if !maps.Equal(listed, model) {
			t.Fatalf("%d sources are listed; want %d", len(listed), len(model))
		}
	}
	for _, a := range held {
		table.release(a)
	}
	if table.tracked() != 0 {
		t.Errorf("%d sources left", table.tracked())
	}
}

// TestSourceTableIsFull: what finds no place is not counted, and what has one is.
func TestSourceTableIsFull(t *testing.T) {
	table := newSourceTable(32, 64, 4)
	var held []netip.Addr
	full := 0
	for n := range 10_000 {
		switch a := source(n); table.acquire(a, 1) {
		case counted:
			held = append(held, a)
		case untracked:
			full++
		default:
			t.Fatal("a new source is over its limit")
		}
	}
	if len(held) != 4*sourceStripes || full != 10_000-len(held) {
		t.Errorf("%d counted, %d not", len(held), full)
	}
	for _, a := range held {
		if table.acquire(a, 1) != overLimit {
			t.Errorf("%v is let in twice", a)
		}
		table.release(a)
		if table.acquire(a, 1) != counted {
			t.Errorf("%v has lost its place", a)
		}
	}
}

// TestSourceTableAtOnce: from many goroutines too, no source ever has more than its limit.
func TestSourceTableAtOnce(t *testing.T) {
	const limit, sources = 4, 8
	table := newSourceTable(32, 64, 16)
	var have [sources]atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20_000 {
				n := rand.IntN(sources)
				switch table.acquire(source(n), limit) {
				case counted:
					if now := have[n].Add(1); now > limit {
						t.Errorf("source %d has %d", n, now)
					}
					have[n].Add(-1)
					table.release(source(n))
				case untracked:
					t.Error("no place")
				}
			}
		})
	}
	all.Wait()
	if table.tracked() != 0 {
		t.Errorf("%d sources left", table.tracked())
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	take := func(now time.Duration, rate, burst int) (n int) {
		for n < 10_000 && b.allow(int64(now), rate, burst) {
			n++
		}
		return n
	}
	for _, step := range []struct {
		at          time.Duration
		rate, burst int
		want        int
	}{
		{0, 10, 10, 10}, {50 * time.Millisecond, 10, 10, 0}, {time.Second, 10, 10, 10}, {1250 * time.Millisecond, 10, 10, 2},
		{time.Hour, 10, 100, 100}, {time.Hour, 10, 5, 5}, {time.Hour + 100*time.Millisecond, 10, 5, 1}, {2 * time.Hour, 1000, 1, 1},
	} {
		if got := take(step.at, step.rate, step.burst); got != step.want {
			t.Errorf("%+v: got %d", step, got)
		}
	}
}

func TestRateTable(t *testing.T) {
	table := new(rateTable)
	take := func(n int, now time.Duration, rate, burst int) (got int) {
		for got < 10_000 && table.allow(prefixHash(source(n), 32, 64), int64(now), rate, burst) {
			got++
		}
		return got
	}
	for _, step := range []struct {
		n           int
		at          time.Duration
		rate, burst int
		want        int
	}{
		{0, time.Hour, 10, 10, 10}, {1, time.Hour, 10, 10, 10}, {0, time.Hour, 10, 10, 0}, {0, time.Hour + time.Second/2, 10, 10, 5},
		{1, time.Hour + 2*time.Second, 10, 10, 10}, {2, 2 * time.Hour, 1, 60, 60}, {2, 2*time.Hour + 30*time.Second, 1, 60, 30},
	} {
		if got := take(step.n, step.at, step.rate, step.burst); got != step.want {
			t.Errorf("%+v: got %d", step, got)
		}
	}
}

// limited sets limits as the configuration's defaults have them, and edit.
func limited(edit func(*config.Frontend)) func(*config.Config) {
	return func(c *config.Config) {
		f := c.Frontends[0]
		f.SourcePrefixV4, f.SourcePrefixV6 = 32, 64
		edit(f)
	}
}

// TestSourceLimitIsExact: of many connections at once from each of some addresses, over both shards, exactly as many are
// served as each may have, and as many again once those have ended.
func TestSourceLimitIsExact(t *testing.T) {
	const limit, sources, tries = 5, 4, 40
	r := newRig(t, []string{lbtest.Echo(t)}, limited(func(f *config.Frontend) { f.MaxConnectionsPerSource = limit }))
	refused := 0
	for round := range 3 {
		var served [sources]atomic.Int32
		release := make(chan struct{})
		var asked, all sync.WaitGroup
		for n := range sources {
			for range tries {
				asked.Add(1)
				all.Go(func() {
					told := sync.OnceFunc(asked.Done)
					defer told()
					c, err := r.dialFrom(fmt.Sprintf("127.0.0.%d", 2+n))
					if err == nil {
						defer c.Close()
						_, err = c.Write([]byte("x"))
					}
					if err == nil {
						_, err = c.Read(make([]byte, 1))
					}
					if err == nil {
						served[n].Add(1)
						told()
						<-release
					} else if !isReset(err) {
						t.Error(err)
					}
				})
			}
		}
		asked.Wait()
		for n := range served {
			if got := served[n].Load(); got != limit {
				t.Errorf("round %d: 127.0.0.%d has %d sessions; want %d", round, 2+n, got, limit)
			}
		}
		if got := r.e.Stats().Sources["f"]; got != sources {
			t.Errorf("%d sources tracked; want %d", got, sources)
		}
		close(release)
		all.Wait()
		refused += sources * (tries - limit)
		lbtest.Eventually(t, "all sessions have ended", func() bool { return r.e.Stats().Sources["f"] == 0 })
	}
	st := r.e.Stats().Frontends["f"]
	if st.Ended[SourceLimit] != uint64(refused) || st.Untracked != 0 {
		t.Errorf("%d refused for the source; want %d; %d untracked", st.Ended[SourceLimit], refused, st.Untracked)
	}
}

// TestSourceLimitOfProxied: the client in the header counts, by its prefix.
func TestSourceLimitOfProxied(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		accepts("required")(c)
		limited(func(f *config.Frontend) { f.MaxConnectionsPerSource = 1 })(c)
	})
	through := func(address string) bool {
		c := r.dial()
		say(t, c, string(header(2, address))+"x")
		return !wasReset(t, c)
	}
	if !through("[2001:db8:0:1::1]:7") || through("[2001:db8:0:1:ffff::1]:7") || !through("[2001:db8:0:2::1]:7") {
		t.Error("not the client's /64 was counted")
	}
	for _, rec := range r.wantEnds(SourceLimit) {
		if rec.Client.String() != "[2001:db8:0:1:ffff::1]:7" {
			t.Errorf("%+v", rec)
		}
	}
}

// TestSourceLimitOverReloads: a limit that changes counts the sessions there are, and one that goes forgets them.
func TestSourceLimitOverReloads(t *testing.T) {
	backends := []string{lbtest.Echo(t)}
	to := func(limit int) *config.Config {
		return testConfig(backends, limited(func(f *config.Frontend) { f.MaxConnectionsPerSource = limit }))
	}
	r := newRig(t, backends, nil)
	r.apply(to(1))
	lives := r.dial()
	say(t, lives, "x")
	hear(t, lives, "x")
	if r.served("127.0.0.1") || !r.served("127.0.0.2") {
		t.Error("the limit is not held")
	}
	r.apply(to(2))
	lbtest.Eventually(t, "there is room for one more", func() bool { return r.served("127.0.0.1") })
	r.apply(to(0))
	say(t, lives, "y")
	hear(t, lives, "y")
	lives.Close()
	lbtest.Eventually(t, "all sessions have ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	r.apply(to(1))
	if !r.served("127.0.0.1") {
		t.Error("a session that has ended is counted")
	}
}

// TestConnectionRate: as many as the burst are served at once, and then as many as the rate gives.
func TestConnectionRate(t *testing.T) {
	for name, edit := range map[string]func(*config.Frontend){
		"frontend": func(f *config.Frontend) { f.ConnectionRate, f.ConnectionBurst = 1, 3 },
		"source":   func(f *config.Frontend) { f.ConnectionRatePerSource, f.ConnectionBurstPerSource = 1, 3 },
	} {
		r := newRig(t, []string{lbtest.Echo(t)}, limited(edit))
		begun := time.Now()
		served := 0
		for range 12 {
			if r.served("127.0.0.2") {
				served++
			}
		}
		if most := 3 + int(time.Since(begun)/time.Second) + 1; served < 3 || served > most {
			t.Errorf("%s: %d served; want 3 to %d", name, served, most)
		}
		if other := r.served("127.0.0.3"); other != (name == "source") && time.Since(begun) < time.Second {
			t.Errorf("%s: another source: served %v", name, other)
		}
		if st := r.e.Stats().Frontends["f"]; st.Ended[RateLimit] < uint64(12-served) {
			t.Errorf("%s: %d ended for the rate", name, st.Ended[RateLimit])
		}
	}
}

func BenchmarkSources(b *testing.B) {
	for _, n := range []int{1, 200_000} {
		table := newSourceTable(32, 64, sourcePlaces)
		addresses := make([]netip.Addr, n)
		for i := range addresses {
			addresses[i] = source(i)
			table.acquire(addresses[i], 1<<30)
		}
		b.Run(fmt.Sprint(n, " sources"), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.IntN(n); pb.Next(); i++ {
					a := addresses[i%n]
					table.acquire(a, 1<<30)
					table.release(a)
				}
			})
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	c := &config.Frontend{MaxConnectionsPerSource: 1 << 30, ConnectionRate: 1_000_000, ConnectionRatePerSource: 1_000_000, SourcePrefixV4: 32, SourcePrefixV6: 64}
	g := newGuard(c, nil, nil, nil)
	e, st := &Engine{epoch: time.Now()}, NewFrontendStats()
	a := source(4)
	b.ReportAllocs()
	for range b.N {
		if held, _ := g.admit(a, e, st); held != nil {
			held.release(a)
		}
	}
}
