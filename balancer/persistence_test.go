package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"awe4lb/config"
)

// sticky is a pool of backends as for pool, with persistence.
func sticky(policy string, entries int, backends ...string) *config.Pool {
	c := pool(policy, backends...)
	c.Persistence = &config.Persistence{Key: "source", PrefixV4: 24, PrefixV6: 56, TTL: time.Minute, MaxEntries: entries}
	return c
}

// stickModel is what a stickTable ought to do, by the words of persistence.go. Of its buckets it knows only which clients share one.
type stickModel map[*stickBucket]map[stickKey]*stuck

func (m stickModel) find(b *stickBucket, k stickKey, now, ttl uint32) uint64 {
	if e := m[b][k]; e != nil && now-e.used <= ttl {
		return e.id
	}
	return 0
}

// put makes id the backend of a client and reports whether somebody had to go.
func (m stickModel) put(b *stickBucket, k stickKey, id uint64, now, ttl uint32) (evicted bool) {
	if m[b] == nil {
		m[b] = map[stickKey]*stuck{}
	}
	if m[b][k] == nil && len(m[b]) == stickWays {
		oldest := &stuck{used: now + 1}
		for _, e := range m[b] {
			if e.used < oldest.used {
				oldest = e
			}
		}
		delete(m[b], oldest.key)
		evicted = now-oldest.used <= ttl
	}
	m[b][k] = &stuck{k, id, now}
	return evicted
}

func (m stickModel) live(now, ttl uint32) (n int) {
	for _, b := range m {
		for _, e := range b {
			if now-e.used <= ttl {
				n++
			}
		}
	}
	return n
}

// TestStickAgainstModel: whatever comes, in whatever order, each client gets the backend that the words promise.
func TestStickAgainstModel(t *testing.T) {
	for _, entries := range []int{8, 64, 1000} {
		for _, policy := range policies {
			r := rand.New(rand.NewPCG(uint64(entries), uint64(len(policy))))
			cfg := sticky(policy, entries, "1", "2", "3/0/2", "1/1/0", "0", "1/0/1")
			cfg.PanicThreshold = []int{0, 50}[r.IntN(2)]
			cfg.Persistence.TTL = 500 * time.Second
			p := built(cfg)
			table, ttl, now := p.sticks.table, p.sticks.ttl, uint32(1000)
			model, want, held := stickModel{}, StickStats{MaxEntries: entries}, []*Backend{}
			for step := range 20_000 {
				now += uint32(1 + r.IntN(3)) // no two at once: the model does not know whom of two the table would forget
				client := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(100))})
				if r.IntN(3) == 0 {
					client = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(100))})
				}
				k := table.key(client)
				b, _ := table.bucket(k)
				m := p.Members[r.IntN(len(p.Members))]
				switch x := r.IntN(100); {
				case x < 4:
					m.SetState(State(r.IntN(4)))
				case x < 8:
					m.Readmit()
				case x == 8:
					had := model[b][k] != nil
					delete(model[b], k)
					if p.Unstick(client) != had {
						t.Fatalf("%s, step %d: forgotten: %v, want %v", policy, step, !had, had)
					}
				case x == 9 && r.IntN(50) == 0:
					n := 0
					for _, b := range model {
						n += len(b)
					}
					clear(model)
					if got := p.UnstickAll(); got != n {
						t.Fatalf("%s, step %d: %d forgotten, want %d", policy, step, got, n)
					}
				case x < 50 && len(held) > 0:
					i := r.IntN(len(held))
					held[i].Release()
					held = slices.Delete(held, i, i+1)
				default:
					var tried []*Backend
					for range r.IntN(2) * r.IntN(3) {
						tried = append(tried, p.Members[r.IntN(len(p.Members))].Backend)
					}
					had := model.find(b, k, now, ttl)
					if had != 0 {
						model[b][k].used = now
					}
					m := p.sticks.byID[had]
					full := m != nil && m.limit > 0 && m.Active() >= m.limit
					stays := m != nil && !slices.Contains(tried, m.Backend) && (m.State() == Up || m.State() == Drain && !m.IsDown() ||
						m.IsDown() && m.State() != Maintenance && p.inPanic())
					got := p.chooseSticky(client, uint64(step), tried, now)
					switch {
					case had == 0:
						want.Misses++
					case stays && !full:
						want.Hits++
						if got != m.Backend {
							t.Fatalf("%s, step %d: got %v, want %s", policy, step, got, m.Name)
						}
					case stays:
						want.Overflows++
						if got == m.Backend {
							t.Fatalf("%s, step %d: above its limit", policy, step)
						}
					}
					if got != nil && !(stays && full) && got.id != had {
						if model.put(b, k, got.id, now, ttl) {
							want.Evictions++
						}
						if had != 0 {
							want.Moves++
						}
					}
					if got != nil {
						held = append(held, got)
					}
				}
				if step%100 == 0 {
					checkModel(t, p, model, now)
				}
			}
			st, _ := p.StickStats()
			want.Entries = st.Entries // by the real clock
			if st != want {
				t.Errorf("%s, %d entries: got %+v, want %+v", policy, entries, st, want)
			}
			if entries == 8 && want.Evictions == 0 || want.Moves == 0 || want.Overflows == 0 || want.Hits == 0 {
				t.Errorf("%s, %d entries: something never happened: %+v", policy, entries, want)
			}
		}
	}
}

// checkModel compares all entries.
func checkModel(t *testing.T, p *Pool, model stickModel, now uint32) {
	t.Helper()
	table, ttl, n := p.sticks.table, p.sticks.ttl, 0
	for i := range table.places() {
		e := table.at(i)
		if e.id == 0 || expired(e.used, now, ttl) {
			continue
		}
		n++
		b, _ := table.bucket(e.key)
		if m := model[b][e.key]; m == nil || *m != e {
			t.Fatalf("the table has %+v, the model %+v", e, m)
		}
	}
	if want := model.live(now, ttl); n != want {
		t.Fatalf("%d entries, want %d", n, want)
	}
}

// TestStickInTime: a client is forgotten when it has not come for the TTL, and its coming counts.
func TestStickInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := built(sticky("roundrobin", 100, "1", "1", "1", "1", "1"))
		client := netip.MustParseAddr("192.0.2.1")
		first := p.PickFor(client, 0, nil)
		for range 5 {
			time.Sleep(59 * time.Second)
			if b := p.PickFor(client, 0, nil); b != first {
				t.Fatalf("moved to %v", b.Name)
			}
		}
		entries, next := p.StickEntries(0, 10)
		if len(entries) != 1 || next != -1 || entries[0] != (StickEntry{netip.PrefixFrom(client, 32), first.Name, 0, time.Minute}) {
			t.Errorf("got %+v, %d", entries, next)
		}
		time.Sleep(20 * time.Second)
		for range 2 { // to look is not to come
			if e, ok := p.StickEntry(client); !ok || e != (StickEntry{netip.PrefixFrom(client, 32), first.Name, 20 * time.Second, 40 * time.Second}) {
				t.Errorf("got %+v, %v", e, ok)
			}
		}
		if e, ok := p.StickEntry(client.Next()); ok {
			t.Errorf("somebody else has %+v", e)
		}
		time.Sleep(42 * time.Second)
		if entries, _ := p.StickEntries(0, 10); len(entries) != 0 {
			t.Errorf("still there: %v", entries)
		}
		if e, ok := p.StickEntry(client); ok {
			t.Errorf("still there: %+v", e)
		}
		if b := p.PickFor(client, 0, nil); b == first { // five backends in turn: the next one
			t.Error("not forgotten")
		}
		if st, ok := p.StickStats(); !ok || st != (StickStats{Entries: 1, MaxEntries: 104, Hits: 5, Misses: 2}) {
			t.Errorf("got %+v", st)
		}
	})
}

// TestStickKeys: who is the same client.
func TestStickKeys(t *testing.T) {
	for _, tc := range []struct {
		key  string
		v4   int
		v6   int
		a, b string
		same bool
	}{
		{"source", 24, 56, "192.0.2.1", "192.0.2.2", false},
		{"source", 24, 56, "192.0.2.1", "::ffff:192.0.2.1", true},
		{"source", 24, 56, "2001:db8::1", "2001:db8::2", false},
		{"source", 24, 56, "fe80::1%1", "fe80::1%2", true},
		{"prefix", 24, 56, "192.0.2.1", "192.0.2.255", true},
		{"prefix", 24, 56, "192.0.2.1", "192.0.3.1", false},
		{"prefix", 0, 56, "192.0.2.1", "10.0.0.1", true},
		{"prefix", 32, 56, "192.0.2.1", "192.0.2.0", false},
		{"prefix", 24, 56, "2001:db8:0:ff::1", "2001:db8::1", true},
		{"prefix", 24, 56, "2001:db8:0:100::1", "2001:db8::1", false},
		{"prefix", 24, 64, "2001:db8:0:1::1", "2001:db8:0:1:1::", true},
		{"prefix", 24, 72, "2001:db8:0:1::1", "2001:db8:0:1:1::", true},
		{"prefix", 24, 80, "2001:db8:0:1::1", "2001:db8:0:1:1::", false},
		{"prefix", 24, 0, "2001:db8::1", "fe80::", true},
		{"prefix", 0, 0, "::1", "192.0.2.1", false},
		{"prefix", 24, 128, "2001:db8::1", "2001:db8::", false},
	} {
		cfg := sticky("roundrobin", 100, "1", "1", "1")
		cfg.Persistence.Key, cfg.Persistence.PrefixV4, cfg.Persistence.PrefixV6 = tc.key, tc.v4, tc.v6
		p := built(cfg)
		a, b := netip.MustParseAddr(tc.a), netip.MustParseAddr(tc.b)
		p.PickFor(a, 0, nil)
		p.PickFor(b, 0, nil)
		st, _ := p.StickStats()
		if same := st.Hits == 1; same != tc.same {
			t.Errorf("%+v: the same: %v", tc, same)
		}
		entries, _ := p.StickEntries(0, 1)
		if len(entries) != 1 || !entries[0].Client.Contains(a.Unmap().WithZone("")) && !entries[0].Client.Contains(b.Unmap().WithZone("")) {
			t.Errorf("%+v: listed as %v", tc, entries)
		}
		if entries[0].Client != entries[0].Client.Masked() {
			t.Errorf("%+v: listed as %v, which has more than the prefix", tc, entries[0].Client)
		}
	}
	p := built(sticky("roundrobin", 100, "1", "1"))
	if a, b := p.PickFor(netip.Addr{}, 0, nil), p.PickFor(netip.Addr{}, 0, nil); a == b {
		t.Error("clients without an address stick together")
	}
	none := built(pool("roundrobin", "1"))
	if _, ok := none.StickEntry(netip.MustParseAddr("::1")); ok {
		t.Error("a pool without persistence knows a client")
	}
	if _, ok := none.StickStats(); ok || none.Unstick(netip.MustParseAddr("::1")) || none.UnstickAll() != 0 {
		t.Error("a pool without persistence has some")
	}
	if entries, next := none.StickEntries(0, 10); entries != nil || next != -1 {
		t.Errorf("got %v, %d", entries, next)
	}
}

// TestStickPages: pages of any size have every entry once.
func TestStickPages(t *testing.T) {
	p := built(sticky("random", 5000, "1", "1"))
	for i := range 2500 {
		p.PickFor(clientAt(i).Addr(), 0, nil)
	}
	st, _ := p.StickStats()
	for _, limit := range []int{-1, 1, 7, 1000, 1 << 30} {
		seen, longest := map[netip.Prefix]bool{}, 0
		for from := 0; from >= 0; {
			var entries []StickEntry
			entries, from = p.StickEntries(from, limit)
			longest = max(longest, len(entries))
			for _, e := range entries {
				if seen[e.Client] || e.Backend == "" {
					t.Fatalf("%+v", e)
				}
				seen[e.Client] = true
			}
		}
		if len(seen) != st.Entries || longest > min(max(limit, 1), maxStickPage) {
			t.Errorf("pages of %d: %d entries, want %d; the longest %d", limit, len(seen), st.Entries, longest)
		}
	}
}

// TestStickReload: entries outlive a reload, another size too, but not another key; a backend that goes takes nobody with it, and
// is known again when it comes back.
func TestStickReload(t *testing.T) {
	d := NewDirector()
	d.Drive(new(plane))
	backends := []string{"1", "1", "1", "1"}
	apply := func(edit func(*config.Pool)) *Pool {
		t.Helper()
		c := sticky("roundrobin", 1000, backends...)
		if edit != nil {
			edit(c)
		}
		if _, err := d.Apply(&config.Config{Pools: []*config.Pool{c}}); err != nil {
			t.Fatal(err)
		}
		return d.Snapshot().Pools[0]
	}
	const clients = 100
	has := map[int]string{}
	check := func(p *Pool, what string, kept func(i int) bool) {
		t.Helper()
		for i := range clients {
			b := p.PickFor(clientAt(i).Addr(), 0, nil)
			b.Release()
			if kept(i) && b.Name != has[i] {
				t.Errorf("%s: client %d moved from %s to %s", what, i, has[i], b.Name)
			}
			has[i] = b.Name
		}
	}
	all := func(int) bool { return true }
	p := apply(nil)
	check(p, "first", func(int) bool { return false })
	check(apply(nil), "the same again", all)
	check(apply(func(c *config.Pool) { c.Policy, c.Persistence.TTL = "random", time.Hour }), "other settings", all)
	check(apply(func(c *config.Pool) { c.Persistence.MaxEntries = 3000 }), "more room", all)
	check(apply(func(c *config.Pool) { c.Persistence.MaxEntries = 800 }), "less room", all)
	if st, _ := p.StickStats(); st.Hits == 0 {
		t.Errorf("got %+v", st)
	}

	gone := "127.0.0.1:2"
	away := func(c *config.Pool) { c.Backends = slices.Delete(c.Backends, 1, 2) }
	p = apply(away)
	entries, _ := p.StickEntries(0, 1000)
	if n := slices.IndexFunc(entries, func(e StickEntry) bool { return e.Backend == "" }); n < 0 {
		t.Error("entries of the backend that is gone are not marked")
	}
	check(p, "a backend less, half of its clients do not come", func(i int) bool { return has[i] != gone })
	check(apply(nil), "it is back", all)

	// It comes back while its clients were not here: they are known.
	before := has[0]
	apply(func(c *config.Pool) {
		c.Backends = slices.DeleteFunc(c.Backends, func(b *config.Backend) bool { return b.Address.String() == before })
	})
	check(apply(nil), "it was away for a moment", all)

	p = apply(func(c *config.Pool) { c.Persistence.Key = "prefix" })
	if st, _ := p.StickStats(); st.Entries != 0 {
		t.Errorf("another key, and still %d entries", st.Entries)
	}
	apply(func(c *config.Pool) { c.Persistence = nil })
	if st, _ := apply(nil).StickStats(); st.Entries != 0 {
		t.Errorf("persistence was off, and there are %d entries", st.Entries)
	}
}

// TestStickRace: while clients come to all shards at once, and backends and entries change, counts stay right; and while nothing
// changes, one client that comes to several shards for the first time gets one backend.
func TestStickRace(t *testing.T) {
	cfg := sticky("random", 200, "1", "1", "1/0/3", "1", "1/1")
	p := built(cfg)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			var held []*Backend
			for i := range 20_000 {
				if b := p.PickFor(clientAt(r.IntN(300)).Addr(), r.Uint64(), nil); b != nil {
					held = append(held, b)
				}
				if len(held) > 3 {
					held[0].Release()
					held = held[1:]
				}
				switch i % 1000 {
				case 1:
					p.Members[r.IntN(5)].SetState(State(r.IntN(4)))
				case 2:
					p.Members[r.IntN(5)].Readmit()
				case 3:
					p.Unstick(clientAt(r.IntN(300)).Addr())
				case 4:
					p.StickEntries(r.IntN(200), 50)
				case 5:
					p.StickStats()
				case 6:
					p.UnstickAll()
				}
			}
			for _, b := range held {
				b.Release()
			}
		})
	}
	wg.Wait()
	for _, m := range p.Members {
		if m.Active() != 0 {
			t.Errorf("%s: %d sessions left over", m.Name, m.Active())
		}
	}

	p = built(sticky("random", 100_000, "1", "1", "1", "1", "1", "1", "1"))
	const shards, clients = 4, 2000
	var got [shards][clients]*Backend
	for g := range shards {
		wg.Go(func() {
			for i := range clients {
				got[g][i] = p.PickFor(clientAt(i).Addr(), 0, nil)
			}
		})
	}
	wg.Wait()
	st, _ := p.StickStats()
	apart, active := 0, int64(0)
	for i := range clients {
		for g := range shards {
			if got[g][i] != got[0][i] {
				apart++
			}
		}
	}
	for _, m := range p.Members {
		active += m.Active()
	}
	if uint64(apart) > (shards-1)*st.Skipped || active != shards*clients {
		t.Errorf("%d clients apart, %d skipped; %d sessions counted, want %d", apart, st.Skipped, active, shards*clients)
	}
}

// meanwhile is a picker during whose first pick something happens.
type meanwhile struct {
	picker
	do func()
}

func (m *meanwhile) pick(w wish) *Member {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.picker.pick(w)
}

// TestStickTogether: a client comes to one shard while another is picking for it, for the first time and when it has to move: it
// gets one backend, and what the slower shard had picked is given back.
func TestStickTogether(t *testing.T) {
	p := built(sticky("roundrobin", 100, "1", "1", "1"))
	client := netip.MustParseAddr("192.0.2.1")
	both := func() (first, second *Backend) {
		t.Helper()
		tier := (*p.tiers.Load())[0]
		m := &meanwhile{tier.picker, nil}
		m.do = func() { first = p.PickFor(client, 0, nil) }
		tier.picker = m
		defer func() { tier.picker = m.picker }()
		second = p.PickFor(client, 0, nil)
		total := int64(0)
		for _, m := range p.Members {
			total += m.Active()
		}
		if first != second || first.Active() != 2 || total != 2 {
			t.Fatalf("%v and %v; %d of %d sessions counted on the first", first.Name, second.Name, first.Active(), total)
		}
		return first, second
	}
	b, _ := both()
	b.Release()
	b.Release()
	b.SetState(Down)
	if moved, _ := both(); moved == b {
		t.Error("it has not moved")
	}
}

// TestStickBusy: a shard that is put to sleep while it changes a bucket keeps nobody waiting.
func TestStickBusy(t *testing.T) {
	p := built(sticky("roundrobin", 8, "1", "1"))
	client := netip.MustParseAddr("192.0.2.1")
	p.PickFor(client, 0, nil)
	b := &p.sticks.table.buckets[0]
	if !b.lock() {
		t.Fatal("not free")
	}
	for range 10 {
		if p.PickFor(client, 0, nil) == nil {
			t.Fatal("no backend")
		}
	}
	b.unlock()
	if st, _ := p.StickStats(); st.Skipped != 10 || st.Hits != 0 || st.Entries != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestStickAllocatesNothing(t *testing.T) {
	p := built(sticky("roundrobin", 100, "1", "1"))
	i := 0
	if n := testing.AllocsPerRun(1000, func() { i++; p.PickFor(clientAt(i).Addr(), 0, nil).Release() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if size := unsafe.Sizeof(stickBucket{}); size > 29*stickWays {
		t.Errorf("a bucket takes %d bytes: config.Persistence.MaxEntries says another figure", size)
	}
}

// BenchmarkPickFor: clients that stick, of which the last or all are in the cache, and clients that come for the first time.
func BenchmarkPickFor(b *testing.B) {
	for _, n := range []int{1, 1000, 50_000} {
		p := built(sticky("roundrobin", 100_000, "1", "1", "1"))
		clients := make([]netip.Addr, n)
		for i := range clients {
			clients[i] = clientAt(i).Addr()
			p.PickFor(clients[i], 0, nil)
		}
		b.Run(fmt.Sprintf("hit/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i++; i == n {
					i = 0
				}
				p.PickFor(clients[i], 0, nil)
			}
		})
	}
	p := built(sticky("roundrobin", 100_000, "1", "1", "1"))
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		a := [16]byte{0x20, 1}
		for i := uint32(0); b.Loop(); i++ {
			a[15], a[14], a[13], a[12] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
			p.PickFor(netip.AddrFrom16(a), 0, nil)
		}
	})
	b.Run("off", func(b *testing.B) {
		p := built(pool("roundrobin", "1", "1", "1"))
		client := netip.MustParseAddr("192.0.2.1")
		for b.Loop() {
			p.PickFor(client, 0, nil)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			client := clientAt(rand.IntN(1 << 16)).Addr()
			for pb.Next() {
				p.PickFor(client, 0, nil).Release()
			}
		})
	})
}
