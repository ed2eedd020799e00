package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
)

// lines is what the engine's shards do with a queue, without sessions: one goroutine for each line.
type lines struct {
	t     *testing.T
	pool  *Pool
	q     *Queue
	size  int
	each  []*testLine
	under atomic.Int64 // functions posted and not done

	held, peak atomic.Int64
	mu         sync.Mutex
	served     []uint64 // tickets in the order in which they were served, where mu guards pick and release
	strict     bool
}

type testLine struct {
	*lines
	n       int
	todo    chan func()
	waiting []testWaiter // by ticket
	holding []*Backend
	full    int
}

type testWaiter struct {
	ticket uint64
	tried  []*Backend
}

func newLines(t *testing.T, p *Pool, n, size int) *lines {
	ls := &lines{t: t, pool: p, size: size}
	for i := range n {
		ln := &testLine{lines: ls, n: i, todo: make(chan func(), 1<<15)}
		ls.each = append(ls.each, ln)
	}
	ls.q = p.OpenQueue(n, func(_ *Queue, line int) func() {
		ln := ls.each[line]
		return func() { ln.post(ln.turn) }
	})
	var running sync.WaitGroup
	for _, ln := range ls.each {
		running.Go(func() {
			for f := range ln.todo {
				f()
				ls.under.Add(-1)
			}
		})
	}
	t.Cleanup(func() {
		for _, ln := range ls.each {
			close(ln.todo)
		}
		running.Wait()
	})
	return ls
}

func (ln *testLine) post(f func()) {
	ln.under.Add(1)
	ln.todo <- f
}

// settle waits until nothing is under way.
func (ls *lines) settle() {
	deadline := time.Now().Add(30 * time.Second)
	for ls.under.Load() > 0 {
		if time.Now().After(deadline) {
			ls.t.Fatal("lines call each other for ever")
		}
		runtime.Gosched()
	}
}

func (ln *testLine) hold(b *Backend) {
	ln.holding = append(ln.holding, b)
	n := ln.held.Add(1)
	for p := ln.peak.Load(); n > p && !ln.peak.CompareAndSwap(p, n); p = ln.peak.Load() {
	}
}

func (ln *testLine) arrive(tried []*Backend) {
	if ln.q.Waiting() == 0 {
		b, lack := ln.pool.PickOrWhy(netip.Addr{}, 0, tried)
		if b != nil {
			ln.hold(b)
			return
		}
		if lack != PoolFull && lack != BackendsFull {
			return // turned away
		}
	}
	ticket, ok := ln.q.Enter(ln.n, len(ln.waiting) == 0, ln.size)
	if !ok {
		ln.full++
		return
	}
	ln.waiting = append(ln.waiting, testWaiter{ticket, tried})
}

func (ln *testLine) first() uint64 {
	if len(ln.waiting) == 0 {
		return 0
	}
	return ln.waiting[0].ticket
}

func (ln *testLine) turn() {
	ln.q.Turn(ln.n)
	for len(ln.waiting) > 0 && ln.q.Next(ln.n) {
		w := ln.waiting[0]
		if ln.strict {
			ln.mu.Lock()
		}
		b, lack := ln.pool.PickInTurn(netip.Addr{}, 0, w.tried)
		if b == nil && w.tried != nil && ln.q.Others() {
			b, lack = ln.pool.PickInTurn(netip.Addr{}, 0, nil)
		}
		if ln.strict {
			if b != nil {
				ln.served = append(ln.served, w.ticket)
			}
			ln.mu.Unlock()
		}
		if b == nil && (lack == PoolFull || lack == BackendsFull) {
			return
		}
		ln.waiting = ln.waiting[1:]
		ln.q.Leave(ln.n, ln.first())
		if b != nil {
			ln.hold(b)
		}
	}
	ln.q.Call()
}

func (ln *testLine) finish() {
	if n := len(ln.holding); n > 0 {
		i := rand.IntN(n)
		b := ln.holding[i]
		ln.holding[i] = ln.holding[n-1]
		ln.holding = ln.holding[:n-1]
		ln.held.Add(-1)
		if ln.strict {
			ln.mu.Lock()
			defer ln.mu.Unlock()
		}
		b.Release()
	}
}

// leave takes the nth waiter out of the line.
func (ln *testLine) leave(n int) {
	if n < len(ln.waiting) {
		ln.waiting = slices.Delete(slices.Clone(ln.waiting), n, n+1)
		ln.q.Leave(ln.n, ln.first())
		if n == 0 {
			ln.q.Call()
		}
	}
}

// again has one that holds a backend fail, and wait once more with an old ticket.
func (ln *testLine) again() {
	if n := len(ln.holding); n > 0 {
		b := ln.holding[n-1]
		ln.holding = ln.holding[:n-1]
		ln.held.Add(-1)
		b.Release()
		w := testWaiter{1, []*Backend{b}} // before all others
		if rand.IntN(2) == 0 {
			w.tried = nil
		}
		ln.waiting = slices.Insert(slices.Clone(ln.waiting), 0, w)
		ln.q.Reenter(ln.n, ln.first())
	}
}

func limited(limit int, backends ...string) *Pool {
	c := pool("leastconn", backends...)
	c.MaxConnections = limit
	return built(c)
}

// TestQueueModel compares the queue with a list: whoever is first in it has the next place, whatever line it is in.
func TestQueueModel(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		ls := newLines(t, limited(limit, "1", "1"), 4, 10)
		ls.strict = true
		type who struct {
			line   int
			ticket uint64
		}
		var order []who
		held, full, next := 0, 0, uint64(0)
		var served []uint64
		step := func(line int, f func(*testLine)) {
			ls.each[line].post(func() { f(ls.each[line]) })
			ls.settle()
		}
		serve := func() {
			for held < limit && len(order) > 0 {
				served = append(served, order[0].ticket)
				order = order[1:]
				held++
			}
		}
		for range 5000 {
			line := rand.IntN(4)
			switch ln := ls.each[line]; rand.IntN(5) {
			case 0, 1:
				switch {
				case len(order) == 0 && held < limit:
					held++
				case len(order) == ls.size:
					full++
				default:
					next++
					order = append(order, who{line, next})
				}
				step(line, func(ln *testLine) { ln.arrive(nil) })
			case 2, 3:
				if len(ln.holding) > 0 {
					held--
					serve()
				}
				step(line, (*testLine).finish)
			case 4:
				if n := len(ln.waiting); n > 0 {
					n = rand.IntN(n)
					gone := ln.waiting[n].ticket
					order = slices.DeleteFunc(order, func(w who) bool { return w.ticket == gone })
					step(line, func(ln *testLine) { ln.leave(n) })
				}
			}
			fulls := 0
			for i, ln := range ls.each {
				fulls += ln.full
				var want, got []uint64
				for _, w := range order {
					if w.line == i {
						want = append(want, w.ticket)
					}
				}
				for _, w := range ln.waiting {
					got = append(got, w.ticket)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("line %d: got %v; want %v", i, got, want)
				}
			}
			if int(ls.held.Load()) != held || int(ls.pool.Active()) != held || ls.q.Waiting() != len(order) || fulls != full || !slices.Equal(ls.served, served) {
				t.Fatalf("got %d held, %d active, %d waiting, %d turned away; want %d, %d, %d; served %v, want %v", ls.held.Load(), ls.pool.Active(), ls.q.Waiting(),
					fulls, held, len(order), full, ls.served, served)
			}
		}
		if full == 0 || len(served) < 200 {
			t.Errorf("limit %d: %d turned away, %d served", limit, full, len(served))
		}
	}
}

// TestQueueLosesNoPlace: from a standstill, several shards do something at the same time. Once all is quiet nobody waits
// while there is a place for it.
func TestQueueLosesNoPlace(t *testing.T) {
	for _, c := range []struct {
		name     string
		limit    int
		backends []string
	}{
		{"one place", 1, []string{"1"}},
		{"pool", 3, []string{"1", "1"}},
		{"backends", 0, []string{"1/0/1", "1/0/2"}},
		{"both", 3, []string{"1/0/2", "1/0/2", "1/1/1"}},
		{"many backends", 0, slices.Repeat([]string{"1/0/1"}, 20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := limited(c.limit, c.backends...)
			places := c.limit
			sum := 0
			for _, m := range p.Members {
				sum += int(m.limit)
			}
			if places == 0 || sum > 0 && sum < places {
				places = sum
			}
			ls := newLines(t, p, 4, 1000)
			waited, reached := 0, 0
			rounds := 4000
			if testing.Short() {
				rounds = 500
			}
			for range rounds {
				for range 2 + rand.IntN(6) {
					ln := ls.each[rand.IntN(4)]
					switch n := rand.IntN(8); {
					case n < 3:
						var tried []*Backend
						if rand.IntN(3) == 0 {
							tried = []*Backend{p.Members[rand.IntN(len(p.Members))].Backend}
						}
						ln.post(func() { ln.arrive(tried) })
					case n < 6:
						ln.post(ln.finish)
					case n < 7:
						ln.post(func() { ln.leave(rand.IntN(3)) })
					default:
						ln.post(ln.again)
					}
				}
				ls.settle()
				waiting, held := ls.q.Waiting(), int(ls.held.Load())
				if int(p.Active()) != held {
					t.Fatalf("%d counted on the pool; want %d", p.Active(), held)
				}
				if waiting > 0 {
					waited++
				}
				if held == places {
					reached++
				}
				// One that waits alone may hold out for another backend than the one it has tried.
				alone := waiting == 1 && slices.ContainsFunc(ls.each, func(ln *testLine) bool {
					return len(ln.waiting) == 1 && ln.waiting[0].tried != nil
				})
				if waiting > 0 && held < places && !alone {
					t.Fatalf("%d wait, and only %d of %d places are taken", waiting, held, places)
				}
			}
			if int(ls.peak.Load()) != places {
				t.Errorf("at most %d places were taken; want %d", ls.peak.Load(), places)
			}
			if waited < rounds/20 || reached < rounds/20 {
				t.Errorf("somebody waited in %d of %d rounds, all places were taken in %d: too seldom to show anything", waited, rounds, reached)
			}
		})
	}
}

// TestQueueOrder: with one place, whoever waits is served strictly by ticket, however many shards there are.
func TestQueueOrder(t *testing.T) {
	ls := newLines(t, limited(1, "1"), 8, 1<<20)
	ls.strict = true
	var sessions sync.WaitGroup
	for _, ln := range ls.each {
		sessions.Go(func() {
			for range 3000 {
				ln.post(func() { ln.arrive(nil) })
				ln.post(func() { ln.arrive(nil) })
				ln.post(ln.finish)
			}
		})
	}
	sessions.Wait()
	deadline := time.Now().Add(30 * time.Second)
	for ls.settle(); ls.held.Load() > 0 || ls.q.Waiting() > 0; ls.settle() {
		for _, ln := range ls.each {
			ln.post(ln.finish)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d still wait", ls.q.Waiting())
		}
	}
	if !slices.IsSorted(ls.served) || len(ls.served) < 1000 {
		t.Errorf("%d served, in order: %v", len(ls.served), slices.IsSorted(ls.served))
	}
	if ls.peak.Load() != 1 {
		t.Errorf("%d at once", ls.peak.Load())
	}
}

// TestQueueShowsABound: a ticket that is drawn and not yet published is not passed by a later one.
func TestQueueShowsABound(t *testing.T) {
	q := newQueue(4, func(*Queue, int) func() { return func() {} })
	var highest atomic.Uint64 // ticket that was told that it is next
	var all sync.WaitGroup
	for line := range 4 {
		all.Go(func() {
			for range 100_000 {
				ticket, _ := q.Enter(line, true, 100)
				if q.Next(line) {
					for h := highest.Load(); ticket > h && !highest.CompareAndSwap(h, ticket); h = highest.Load() {
					}
				}
				if h := highest.Load(); h > ticket {
					t.Errorf("%d was told that it is next while %d was there", h, ticket)
				}
				q.Leave(line, 0)
			}
		})
	}
	all.Wait()
}

// TestQueueIsNotHeldUp: who has tried a backend waits for another as long as it is alone, and no longer.
func TestQueueIsNotHeldUp(t *testing.T) {
	p := limited(0, "1/0/1", "1/0/1")
	ls := newLines(t, p, 2, 10)
	do := func(tried ...*Backend) {
		ls.each[0].post(func() { ls.each[0].arrive(tried) })
		ls.settle()
	}
	do(p.Members[1].Backend) // has the first one
	do(p.Members[1].Backend)
	if ls.q.Waiting() != 1 || ls.held.Load() != 1 {
		t.Fatalf("%d wait, %d are held; want one that waits for the first backend", ls.q.Waiting(), ls.held.Load())
	}
	do()
	if ls.q.Waiting() != 1 || ls.held.Load() != 2 {
		t.Errorf("%d wait, %d are held; want the second backend to be taken", ls.q.Waiting(), ls.held.Load())
	}
}

// TestQueueHearsOfStates: a backend that comes up is room.
func TestQueueHearsOfStates(t *testing.T) {
	p := limited(0, "1/0/1", "1/0/1")
	ls := newLines(t, p, 2, 10)
	do := func(line int, f func(*testLine)) {
		ls.each[line].post(func() { f(ls.each[line]) })
		ls.settle()
	}
	p.Members[1].SetState(Down)
	do(0, func(ln *testLine) { ln.arrive(nil) })
	do(1, func(ln *testLine) { ln.arrive(nil) })
	if ls.q.Waiting() != 1 {
		t.Fatalf("%d wait; want 1", ls.q.Waiting())
	}
	p.Members[1].SetState(Up)
	ls.settle()
	if ls.q.Waiting() != 0 || p.Members[1].Active() != 1 {
		t.Errorf("%d wait, %d on the backend that came up", ls.q.Waiting(), p.Members[1].Active())
	}
}

func TestLack(t *testing.T) {
	for _, c := range []struct {
		limit    int
		backends []string
		down     []int
		tried    []int
		want     Lack
	}{
		{0, nil, nil, nil, AllDown},
		{0, []string{"1"}, []int{0}, nil, AllDown},
		{0, []string{"1"}, []int{0}, []int{0}, AllDown},
		{0, []string{"0"}, nil, nil, AllDown},
		{0, []string{"1"}, nil, []int{0}, NoneUsable},
		{0, []string{"1/0/1"}, nil, []int{0}, NoneUsable},
		{0, []string{"1/0/1"}, nil, nil, BackendsFull},
		{0, []string{"1", "1/0/1"}, nil, []int{0}, BackendsFull},
		{0, []string{"1", "1/0/1"}, []int{1}, []int{0}, NoneUsable},
		{2, []string{"1"}, nil, nil, PoolFull},
		{2, []string{"1/0/9"}, nil, nil, PoolFull},
		{2, []string{"1/0/1"}, nil, nil, BackendsFull},
		{2, []string{"1"}, []int{0}, nil, AllDown},
		{0, []string{"1", "1/0/1"}, []int{0}, nil, BackendsFull},        // one down, one full
		{0, []string{"1", "0/0/1"}, []int{0}, nil, AllDown},             // one down, one of weight 0 with a limit
		{0, []string{"1/0/1", "1/1/1"}, nil, nil, BackendsFull},         // in two tiers
		{0, []string{"1/0/1", "1/1/1"}, []int{0}, []int{1}, NoneUsable}, // the only one that is up has failed
		{2, []string{"1/0/1", "1"}, []int{1}, nil, PoolFull},            // two have a place, and one of them is down
		{2, []string{"1/0/1", "1"}, []int{0, 1}, nil, AllDown},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			p := limited(c.limit, c.backends...)
			for p.Pick(0, nil) != nil {
				if p.Active() > 5 {
					break
				}
			}
			for _, i := range c.down {
				p.Members[i].SetState(Down)
			}
			var tried []*Backend
			for _, i := range c.tried {
				tried = append(tried, p.Members[i].Backend)
			}
			if b, lack := p.PickOrWhy(netip.Addr{}, 0, tried); b != nil || lack != c.want {
				t.Errorf("got %v, %v; want %v", b, lack, c.want)
			}
		})
	}
}

// TestLackInPanic: where too few are up all may be picked, and so may be full, those too that are down; one in maintenance may not.
func TestLackInPanic(t *testing.T) {
	for _, c := range []struct {
		threshold int
		states    []State
		want      Lack
	}{
		{50, []State{Down, Down}, BackendsFull},
		{50, []State{Down, Up}, BackendsFull},
		{0, []State{Down, Up}, BackendsFull},
		{0, []State{Down, Down}, AllDown},
		{50, []State{Down, Maintenance}, BackendsFull},
		{50, []State{Maintenance, Maintenance}, AllDown},
	} {
		cfg := pool("random", "1/0/1", "1/0/1")
		cfg.PanicThreshold = c.threshold
		p := built(cfg)
		for p.Pick(0, nil) != nil {
		}
		for i, m := range p.Members {
			m.SetState(c.states[i])
		}
		if b, lack := p.PickOrWhy(netip.Addr{}, 0, nil); b != nil || lack != c.want {
			t.Errorf("%+v: got %v, %v", c, b, lack)
		}
	}
}

// TestLackOfKept: a client that sticks to a backend which takes nobody else, and is full.
func TestLackOfKept(t *testing.T) {
	for _, c := range []struct {
		limit int    // of the pool
		kept  string // the backend that it has
		want  Lack
	}{{0, "1/0/1", KeptFull}, {1, "1/0/1", PoolFull}, {1, "1", PoolFull}, {9, "1/0/1", KeptFull}} {
		cfg := sticky("random", 100, c.kept)
		cfg.MaxConnections = c.limit
		p := built(cfg)
		known, other := clientAt(0).Addr(), clientAt(1).Addr()
		if p.PickFor(known, 0, nil) == nil {
			t.Fatal("no backend")
		}
		p.Members[0].SetState(Drain)
		if b, lack := p.PickOrWhy(known, 0, nil); b != nil || lack != c.want {
			t.Errorf("%+v: got %v, %v", c, b, lack)
		}
		if b, lack := p.PickOrWhy(other, 0, nil); b != nil || lack != AllDown {
			t.Errorf("%+v: a stranger got %v, %v", c, b, lack)
		}
		p.Members[0].SetState(Down)
		if b, lack := p.PickOrWhy(known, 0, nil); b != nil || lack != AllDown {
			t.Errorf("%+v: down: got %v, %v", c, b, lack)
		}
	}
}

// TestLackWhileOthersComeAndGo: the limit that is named is the one that was met, also when places come free and are taken in the
// same moment.
func TestLackWhileOthersComeAndGo(t *testing.T) {
	for _, c := range []struct {
		limit    int
		backends []string
		want     Lack
	}{
		{0, []string{"1/0/1", "1/0/2"}, BackendsFull},
		{50, []string{"1/0/1", "1/0/2"}, BackendsFull},
		{2, []string{"1/0/50", "1/0/50"}, PoolFull},
		{2, []string{"1", "1"}, PoolFull},
	} {
		for _, policy := range []string{"roundrobin", "leastconn", "random", "p2c", "maglev", "iphash", "leasttime", "leastbandwidth"} {
			cfg := pool(policy, c.backends...)
			cfg.MaxConnections = c.limit
			p := built(cfg)
			var lacks [AllDown + 1]atomic.Int64
			var all sync.WaitGroup
			for g := range 8 {
				all.Go(func() {
					for i := range 500 {
						b, lack := p.PickOrWhy(netip.Addr{}, clientKey(g*500+i), nil)
						if b == nil {
							lacks[lack].Add(1)
							continue
						}
						runtime.Gosched()
						b.Release()
					}
				})
			}
			all.Wait()
			for lack := range lacks {
				if n := lacks[lack].Load(); (n > 0) != (Lack(lack) == c.want) {
					t.Errorf("%s, %+v: %d times %d", policy, c, n, lack)
				}
			}
		}
	}
}

func TestHasRoom(t *testing.T) {
	for _, c := range []struct {
		limit    int
		backends []string
		down     []int
		held     int
		want     int // the most that there is room for; 100 or more are all
	}{
		{0, nil, nil, 0, 0},
		{0, []string{"1"}, nil, 5, 100},
		{3, []string{"1"}, nil, 1, 2},
		{3, []string{"1/0/1", "1/0/1"}, nil, 1, 1},
		{0, []string{"1/0/4", "1/1/3"}, nil, 2, 5},
		{0, []string{"1/0/4", "1"}, []int{1}, 0, 4},
		{0, []string{"1/0/4"}, []int{0}, 0, 0},
		{9, []string{"1/0/4", "1"}, nil, 9, 0},
	} {
		p := limited(c.limit, c.backends...)
		for range c.held {
			p.Pick(0, nil)
		}
		for _, i := range c.down {
			p.Members[i].SetState(Down)
		}
		got := 0
		for got < 100 && p.HasRoom(got+1) {
			got++
		}
		if got != c.want {
			t.Errorf("%+v: room for %d", c, got)
		}
	}
}

// TestPoolLimitSurvives: the count belongs to the pool's identity. Sessions of a backend that is no longer configured, and of
// a pool that was away, count on.
func TestPoolLimitSurvives(t *testing.T) {
	d := NewDirector()
	d.Drive(nowhere{})
	apply := func(backends ...string) *Pool {
		t.Helper()
		c := &config.Config{}
		if len(backends) > 0 {
			c.Pools = []*config.Pool{pool("roundrobin", backends...)}
			c.Pools[0].MaxConnections = 3
		}
		if _, err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
		return d.Snapshot().Pool("p")
	}
	p := apply("1")
	var held []*Backend
	for range 2 {
		held = append(held, p.Pick(0, nil))
	}
	apply()
	p = apply("1", "1")
	if b := p.Pick(0, nil); b == nil || p.Active() != 3 {
		t.Fatalf("%v, %d counted", b, p.Active())
	}
	if b := p.Pick(0, nil); b != nil {
		t.Fatal("a fourth one")
	}
	held[0].Release()
	if b := p.Pick(0, nil); b == nil || p.Active() != 3 {
		t.Fatalf("%v, %d counted", b, p.Active())
	}
}
