package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// room serves clients that say two digits, answers them, and keeps each until it is told to let one go, or the client is
// done.
type room struct {
	address string
	let     chan struct{}

	mu   sync.Mutex
	came []string // in the order in which they were heard
	now  int
	peak int
}

func newRoom(t testing.TB) *room {
	r := &room{let: make(chan struct{})}
	r.address = lbtest.Serve(t, r.serve)
	t.Cleanup(func() { close(r.let) })
	return r
}

func (r *room) serve(c *net.TCPConn) { r.talk(c, c) }

func (r *room) talk(_ *net.TCPConn, c duplex) {
	r.mu.Lock()
	r.now++
	r.peak = max(r.peak, r.now)
	r.mu.Unlock()
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err == nil {
		r.mu.Lock()
		r.came = append(r.came, string(b))
		r.mu.Unlock()
		_, _ = c.Write(b)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = io.Copy(io.Discard, c)
		}()
		select {
		case <-r.let:
		case <-gone:
		}
	}
	r.mu.Lock()
	r.now--
	r.mu.Unlock()
	_ = c.CloseWrite()
}

func (r *room) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.came)
}

func (r *rig) queue() *balancer.Queue { return r.d.Snapshot().Pool("p").Queue() }

func (r *rig) wantWaiting(n int) {
	r.t.Helper()
	lbtest.Eventually(r.t, fmt.Sprintf("%d wait", n), func() bool { return r.queue().Waiting() == n })
}

// guest connects and says n.
func (r *rig) guest(n int) *net.TCPConn {
	r.t.Helper()
	c := r.dial()
	say(r.t, c, fmt.Sprintf("%02d", n))
	return c
}

func limitBackends(n, size int) func(*config.Config) {
	return func(c *config.Config) {
		for _, b := range c.Pools[0].Backends {
			b.MaxConnections = n
		}
		c.Pools[0].Queue = &config.Queue{Size: size, Timeout: time.Minute}
	}
}

func limitPool(n, size int) func(*config.Config) {
	return func(c *config.Config) {
		c.Pools[0].MaxConnections = n
		c.Pools[0].Queue = &config.Queue{Size: size, Timeout: time.Minute}
	}
}

// TestQueueServesInOrder: the longest waiting first, whatever shards the clients are on, and what they said at once reaches
// the backend.
func TestQueueServesInOrder(t *testing.T) {
	for name, limit := range map[string]func(n, size int) func(*config.Config){"pool": limitPool, "backend": limitBackends} {
		t.Run(name, func(t *testing.T) {
			const n = 30
			b := newRoom(t)
			r := newRigOf(t, 4, []string{b.address}, limit(1, n))
			clients := []*net.TCPConn{r.guest(0)}
			hear(t, clients[0], "00")
			var want []string
			for i := range n {
				want = append(want, fmt.Sprintf("%02d", i))
				if i > 0 {
					clients = append(clients, r.guest(i))
					r.wantWaiting(i)
				}
			}
			for i, c := range clients {
				if i > 0 {
					hear(t, c, want[i])
				}
				b.let <- struct{}{}
				hearEnd(t, c, "")
				c.Close()
			}
			r.wantEnds(repeat(BackendEOF, n)...)
			if got := b.heard(); !slices.Equal(got, want) {
				t.Errorf("served in the order %v", got)
			}
			st := r.e.Stats().Pools["p"]
			waits := uint64(0)
			for _, k := range st.Wait.Counts {
				waits += k
			}
			if st.Queued != n-1 || waits != n-1 || st.QueueFull+st.QueueTimeouts+st.QueueLeft+st.NoBackend != 0 {
				t.Errorf("got %+v; want %d to have waited", st, n-1)
			}
			if b.peak != 1 || r.queue().Waiting() != 0 {
				t.Errorf("%d at once; %d wait", b.peak, r.queue().Waiting())
			}
		})
	}
}

func TestQueueTimesOut(t *testing.T) {
	b := newRoom(t)
	r := newRig(t, []string{b.address}, func(c *config.Config) {
		limitPool(1, 5)(c)
		c.Pools[0].Queue.Timeout = 50 * time.Millisecond
	})
	first := r.guest(0)
	hear(t, first, "00")
	for i := range 3 {
		wantReset(t, r.guest(i+1))
	}
	for _, rec := range r.wantEnds(repeat(QueueTimeout, 3)...) {
		if rec.Duration < int64(50*time.Millisecond) || rec.Pool != "p" || rec.Backend != "" || rec.Attempts != 0 {
			t.Errorf("got %+v", rec)
		}
	}
	if st := r.e.Stats().Pools["p"]; st.QueueTimeouts != 3 || st.Queued != 3 || st.NoBackend != 0 {
		t.Errorf("got %+v", st)
	}
	b.let <- struct{}{}
	hearEnd(t, first, "") // it was none of its business
}

func TestQueueIsFull(t *testing.T) {
	b := newRoom(t)
	r := newRigOf(t, 4, []string{b.address}, limitBackends(1, 3))
	hear(t, r.guest(0), "00")
	for i := range 3 {
		r.guest(i + 1)
		r.wantWaiting(i + 1)
	}
	for range 5 {
		r.wantRefused("xx")
	}
	r.wantEnds(repeat(QueueFull, 5)...)
	if st := r.e.Stats().Pools["p"]; st.QueueFull != 5 || st.Queued != 3 {
		t.Errorf("got %+v", st)
	}
}

// TestPoolLimitWithoutQueue: who finds no place is turned away at once.
func TestPoolLimitWithoutQueue(t *testing.T) {
	b := newRoom(t)
	r := newRig(t, []string{b.address}, func(c *config.Config) { c.Pools[0].MaxConnections = 2 })
	first := r.guest(0)
	hear(t, first, "00")
	hear(t, r.guest(1), "01")
	r.wantRefused("xx")
	first.Close()
	r.wantEnds(PoolLimit, ClientEOF)
	hear(t, r.guest(2), "02")
	if st := r.e.Stats().Pools["p"]; st.PoolLimit != 1 || st.NoBackend+st.BackendLimit != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestQueueIsLeft: a client that goes away leaves at once, and those behind it move up.
func TestQueueIsLeft(t *testing.T) {
	b := newRoom(t)
	r := newRigOf(t, 4, []string{b.address}, limitPool(1, 10))
	first := r.guest(0)
	hear(t, first, "00")
	wait := func(c *net.TCPConn, n int) *net.TCPConn { r.wantWaiting(n); return c }
	silent := wait(r.dial(), 1)
	reset := wait(r.dial(), 2)
	third := wait(r.guest(3), 3)
	half := wait(r.guest(4), 4)
	reset.SetLinger(0)
	reset.Close()
	r.wantWaiting(3)
	silent.Close() // it has said nothing, and cannot any more
	r.wantWaiting(2)
	r.wantEnds(ClientRST, ClientEOF)
	if err := half.CloseWrite(); err != nil { // it has said something, and may want the answer
		t.Fatal(err)
	}
	first.Close()
	hear(t, third, "03")
	if got := r.queue().Waiting(); got != 1 {
		t.Fatalf("%d wait; want the one that was half closed", got)
	}
	third.Close()
	hear(t, half, "04")
	if st := r.e.Stats().Pools["p"]; st.QueueLeft != 2 || st.Queued != 4 {
		t.Errorf("got %+v", st)
	}
}

// TestQueueWhenDown: with when_down clients wait for a backend to come up; without it they are turned away at once, those
// too that wait already when the last one goes down.
func TestQueueWhenDown(t *testing.T) {
	b := newRoom(t)
	r := newRigOf(t, 4, []string{b.address}, func(c *config.Config) {
		limitPool(5, 10)(c)
		c.Pools[0].Queue.WhenDown = true
	})
	backend := r.d.Snapshot().Pools[0].Members[0].Backend
	backend.SetState(balancer.Down)
	var clients []*net.TCPConn
	for i := range 3 {
		clients = append(clients, r.guest(i))
		r.wantWaiting(i + 1)
	}
	backend.SetState(balancer.Up)
	for i, c := range clients {
		hear(t, c, fmt.Sprintf("%02d", i))
	}
	r.apply(changed(r, limitPool(3, 10))) // without when_down
	waiting := r.guest(4)
	r.wantWaiting(1)
	backend.SetState(balancer.Down)
	wantReset(t, waiting)
	r.wantRefused("xx")
	r.wantEnds(NoBackend, NoBackend)
}

// changed returns the running configuration, as it was made, with the pool as edit leaves it.
func changed(r *rig, edit func(*config.Config)) *config.Config {
	old := r.d.Snapshot().Config
	pool := *old.Pools[0]
	pool.Queue, pool.MaxConnections = nil, 0
	pool.Backends = nil
	for _, b := range old.Pools[0].Backends {
		copied := *b
		copied.MaxConnections = 0
		pool.Backends = append(pool.Backends, &copied)
	}
	c := *old
	c.Pools = []*config.Pool{&pool}
	edit(&c)
	return &c
}

// TestQueueHearsOfABackend: one that comes up takes those who wait for a place on the others.
func TestQueueHearsOfABackend(t *testing.T) {
	a, b := newRoom(t), newRoom(t)
	r := newRig(t, []string{a.address, b.address}, limitBackends(1, 10))
	second := r.d.Snapshot().Pools[0].Members[1].Backend
	second.SetState(balancer.Down)
	hear(t, r.guest(0), "00")
	waiting := r.guest(1)
	r.wantWaiting(1)
	second.SetState(balancer.Up)
	hear(t, waiting, "01")
	if got := b.heard(); len(got) != 1 {
		t.Errorf("the second backend heard %v", got)
	}
}

// TestQueueOverReload: a higher limit, and a new backend, serve those who wait; a pool that goes ends them.
func TestQueueOverReload(t *testing.T) {
	a, b := newRoom(t), newRoom(t)
	r := newRigOf(t, 4, []string{a.address}, limitBackends(1, 10))
	first := r.guest(0)
	hear(t, first, "00")
	var clients []*net.TCPConn
	for i := range 6 {
		clients = append(clients, r.guest(i+1))
		r.wantWaiting(i + 1)
	}
	r.apply(changed(r, limitBackends(3, 10)))
	hear(t, clients[0], "01")
	hear(t, clients[1], "02")
	r.wantWaiting(4)
	r.apply(changed(r, func(c *config.Config) {
		c.Pools[0].Backends = append(c.Pools[0].Backends, backendConfigs([]string{b.address})...)
		limitBackends(3, 10)(c)
		c.Pools[0].Backends[1].MaxConnections = 1
	}))
	hear(t, clients[2], "03")
	r.wantWaiting(3)
	c := changed(r, limitPool(1, 10)) // four are on it, and count
	r.apply(c)
	first.Close()
	clients[0].Close()
	r.wantEnds(ClientEOF, ClientEOF)
	if got := r.queue().Waiting(); got != 3 {
		t.Fatalf("%d wait; want 3", got)
	}
	gone := *c
	front := *c.Frontends[0]
	front.Pool = "q"
	gone.Frontends = []*config.Frontend{&front}
	other := *c.Pools[0]
	other.Name = "q"
	gone.Pools = []*config.Pool{&other}
	r.apply(&gone)
	for _, c := range clients[3:] {
		wantReset(t, c)
	}
	r.wantEnds(ClientEOF, ClientEOF, PoolRemoved, PoolRemoved, PoolRemoved)
}

func TestQueueIsDrained(t *testing.T) {
	b := newRoom(t)
	r := newRigOf(t, 4, []string{b.address}, limitPool(1, 10))
	first := r.guest(0)
	hear(t, first, "00")
	second, third := r.guest(1), (*net.TCPConn)(nil)
	r.wantWaiting(1)
	third = r.guest(2)
	r.wantWaiting(2)
	ctx, cancel := context.WithCancel(context.Background())
	cut := make(chan int64)
	go func() { cut <- r.e.Drain(ctx, func() Reason { return Drained }) }()
	lbtest.Eventually(t, "it drains", r.e.Draining)
	b.let <- struct{}{}
	hearEnd(t, first, "")
	first.Close()
	hear(t, second, "01") // who waits is still served
	cancel()
	if n := <-cut; n != 2 {
		t.Errorf("%d cut; want 2", n)
	}
	wantReset(t, third)
	r.wantEnds(BackendEOF, Drained, Drained)
}

// TestQueueAfterRefusal: who was refused by one backend waits for a place on the other. As soon as somebody is behind it, it
// takes what there is.
func TestQueueAfterRefusal(t *testing.T) {
	b := newRoom(t)
	r := newRig(t, []string{b.address, lbtest.Refused(t)}, func(c *config.Config) {
		limitBackends(1, 10)(c)
		c.Pools[0].ConnectAttempts = 16
	})
	first := r.guest(0)
	hear(t, first, "00")
	waiting := r.guest(1)
	r.wantWaiting(1)
	first.Close()
	hear(t, waiting, "01")
	st := r.e.Stats().Pools["p"]
	if st.Retries == 0 || st.Queued != 1 {
		t.Errorf("got %+v", st)
	}
	r.guest(2)
	r.wantWaiting(1)
	last := r.guest(3) // so that the one before it tries the one that refuses, until it has no attempt left
	r.wantEnds(ClientEOF, ConnectRefused)
	r.wantWaiting(1) // and this one, alone now, waits for the other
	waiting.Close()
	hear(t, last, "03")
}

// TestQueueWithTLS: a client whose TLS ends here waits after its handshake.
func TestQueueWithTLS(t *testing.T) {
	b := newRoom(t)
	r := newTLSRig(t, form{terminate: true, clientTLS: true}, b.talk, limitPool(1, 10))
	connect := func() *tls.Conn {
		c := tls.Client(r.dial(), r.client)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := connect()
	say(t, first, "00")
	hear(t, first, "00")
	second := connect()
	say(t, second, "01")
	r.wantWaiting(1)
	first.Close()
	hear(t, second, "01")
}

// TestLimitsAreExact: under load through many shards no limit is ever passed, each is reached, and with a queue everybody is
// served.
func TestLimitsAreExact(t *testing.T) {
	const limit, clients, visits = 7, 40, 25
	for _, c := range []struct {
		name   string
		edit   func(*config.Config)
		served bool // all of them
		peak   int
		reason Reason // where not
	}{
		{"backend", limitBackends(limit, clients), true, limit, 0},
		{"backends", func(c *config.Config) {
			limitBackends(limit-4, clients)(c)
			c.Pools[0].Policy = "leastconn"
			c.Pools[0].Backends = append(c.Pools[0].Backends, slices.Clone(c.Pools[0].Backends)...)
		}, true, 2 * (limit - 4), 0},
		{"pool", limitPool(limit, clients), true, limit, 0},
		{"process", func(c *config.Config) { c.Engine.MaxConnections = limit }, true, limit, 0},
		{"frontend", func(c *config.Config) { c.Frontends[0].MaxConnections = limit }, false, limit, Limit},
		{"pool without queue", limitPool(limit, 0), false, limit, PoolLimit},
		{"backend without queue", limitBackends(limit, 0), false, limit, BackendLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			var now, peak, good, bad atomic.Int64
			serve := func(c *net.TCPConn) {
				n := now.Add(1)
				for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
				}
				b := make([]byte, 2)
				for {
					if _, err := io.ReadFull(c, b); err != nil {
						break
					}
					_, _ = c.Write(b)
				}
				now.Add(-1) // before the balancer hears of the end
			}
			backends := []string{lbtest.Serve(t, serve)}
			edit := c.edit
			if c.name == "backends" {
				second := lbtest.Serve(t, serve)
				edit = func(cfg *config.Config) {
					c.edit(cfg)
					b := *cfg.Pools[0].Backends[1]
					b.Address = backendConfigs([]string{second})[0].Address
					cfg.Pools[0].Backends[1] = &b
				}
			}
			r := newRigOf(t, 4, backends, edit)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range visits {
						conn, err := net.Dial("tcp", r.address())
						if err != nil {
							bad.Add(1)
							continue
						}
						_ = conn.SetDeadline(time.Now().Add(time.Minute))
						b := make([]byte, 2)
						if _, err = conn.Write(b); err == nil {
							_, err = io.ReadFull(conn, b)
						}
						if err == nil {
							good.Add(1)
							_ = conn.(*net.TCPConn).CloseWrite()
							_, _ = io.Copy(io.Discard, conn)
						} else {
							bad.Add(1)
						}
						conn.Close()
					}
				})
			}
			all.Wait()
			if got := peak.Load(); got != int64(c.peak) {
				t.Errorf("%d at once; want %d", got, c.peak)
			}
			if c.served && bad.Load() > 0 || good.Load() < visits {
				t.Errorf("%d served, %d not", good.Load(), bad.Load())
			}
			lbtest.Eventually(t, "all is over", func() bool {
				n, _ := r.e.Sessions()
				return n == 0 && r.d.Snapshot().Pools[0].Active() == 0
			})
			st := r.e.Stats()
			ends := st.Frontends["f"].Ended
			sum := uint64(0)
			for _, n := range ends {
				sum += n
			}
			refused := ends[Limit] + ends[PoolLimit] + ends[BackendLimit] + ends[NoBackend]
			if sum != clients*visits || refused != uint64(bad.Load()) || ends[QueueFull]+ends[QueueTimeout] > 0 {
				t.Errorf("ends: %v", ends)
			}
			if refused > 0 && ends[c.reason] != refused {
				t.Errorf("%d of %d refused as %v: %v", ends[c.reason], refused, c.reason, ends)
			}
			if q := r.queue(); q != nil && (q.Waiting() != 0 || st.Pools["p"].Queued == 0) {
				t.Errorf("%d wait; %+v", q.Waiting(), st.Pools["p"])
			}
		})
	}
}

// TestEngineRate: new sessions of all frontends together, and whom others turn away uses up nothing.
func TestEngineRate(t *testing.T) {
	r := newRigOf(t, 4, []string{lbtest.Named(t, "a")}, func(c *config.Config) {
		c.Engine.ConnectionRate, c.Engine.ConnectionBurst = 1, 5
		other := *c.Frontends[0]
		other.Name, other.MaxConnections = "g", 1
		c.Frontends = append(c.Frontends, &other)
	})
	for range 5 {
		c := r.dial()
		hear(t, c, "a")
	}
	for range 3 {
		r.wantRefused("x")
	}
	ends := r.wantEnds(repeat(EngineRate, 3)...)
	if ends[0].Frontend != "f" {
		t.Errorf("got %+v", ends[0])
	}
	c := *r.d.Snapshot().Config
	c.Engine.ConnectionRate = 0
	r.apply(&c)
	hear(t, r.dial(), "a")
}

// TestLimitThatAReloadBrings counts who is there already, on all shards and on a backend that is no longer configured, while
// others come and go.
func TestLimitThatAReloadBrings(t *testing.T) {
	leaving, staying := newRoom(t), newRoom(t)
	r := newRigOf(t, 4, []string{leaving.address}, func(*config.Config) {})
	var held []*net.TCPConn
	guest := func() {
		c := r.guest(len(held))
		hear(t, c, fmt.Sprintf("%02d", len(held)))
		held = append(held, c)
	}
	for range 5 {
		guest()
	}
	r.apply(changed(r, func(c *config.Config) { c.Pools[0].Backends = backendConfigs([]string{staying.address}) }))
	for range 5 {
		guest()
	}
	var stop atomic.Bool
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for !stop.Load() {
				if c, err := net.Dial("tcp", r.address()); err == nil {
					_, _ = c.Write([]byte("xx"))
					_, _ = io.ReadFull(c, make([]byte, 2))
					_ = c.Close()
				}
			}
		})
	}
	limit := func(n int) {
		r.apply(changed(r, func(c *config.Config) { c.Pools[0].MaxConnections = n }))
	}
	limit(1000)
	limit(0) // it goes on counting
	stop.Store(true)
	others.Wait()
	pool := func() *balancer.Pool { return r.d.Snapshot().Pool("p") }
	limit(11)
	lbtest.Eventually(t, "10 are counted", func() bool { return pool().Active() == 10 })
	guest()
	r.wantRefused("xx")
	held[0].Close() // of the backend that is gone
	lbtest.Eventually(t, "10 are counted again", func() bool { return pool().Active() == 10 })
	guest()
	r.wantRefused("xx")
}

// TestQueueHearsOfDiscovery: a backend that is found serves those who wait.
func TestQueueHearsOfDiscovery(t *testing.T) {
	a, b := newRoom(t), newRoom(t)
	r := newRig(t, []string{a.address}, func(c *config.Config) {
		limitBackends(1, 10)(c)
		discovered(c)
	})
	hear(t, r.guest(0), "00")
	waiting := r.guest(1)
	r.wantWaiting(1)
	r.d.SetBackends("p", backendConfigs([]string{b.address}))
	hear(t, waiting, "01")
	if got := b.heard(); len(got) != 1 {
		t.Errorf("the backend that was found heard %v", got)
	}
}

// TestQueueOfNow: who comes to wait after a backend was found, having begun before, does not wait for the old ones.
func TestQueueOfNow(t *testing.T) {
	old, found := newRoom(t), newRoom(t)
	r := newRig(t, []string{lbtest.Blackhole(t), old.address}, func(c *config.Config) {
		limitBackends(1, 10)(c)
		discovered(c)
		c.Pools[0].Backends[1].Priority = 1
		c.Pools[0].Queue.Timeout = 5 * time.Second
	})
	hear(t, r.guest(0), "00")
	late := r.guest(1)
	pool := r.d.Snapshot().Pool("p")
	lbtest.Eventually(t, "it connects", func() bool { return pool.Members[0].Active() == 1 })
	r.d.SetBackends("p", backendConfigs([]string{found.address}))
	hear(t, late, "01")
	if got := found.heard(); len(got) != 1 {
		t.Errorf("the backend that was found heard %v", got)
	}
}

// lineShard returns the shard in whose line the one who waits is.
func (r *rig) lineShard() *shard {
	r.t.Helper()
	for _, sh := range r.e.shards {
		found := false
		sh.loop.Call(func() {
			for _, ln := range sh.lines {
				found = found || !ln.empty()
			}
		})
		if found {
			return sh
		}
	}
	r.t.Fatal("nobody waits")
	return nil
}

// TestQueueOfBackendsAwayByReload: who comes then and finds others that wait is told of the backends' limit.
func TestQueueOfBackendsAwayByReload(t *testing.T) {
	b := newRoom(t)
	r := newRigOf(t, 2, []string{b.address}, limitBackends(1, 10))
	first := r.guest(0)
	hear(t, first, "00")
	waiting := r.guest(1)
	r.wantWaiting(1)
	r.apply(changed(r, func(c *config.Config) { c.Pools[0].Backends[0].MaxConnections = 1 }))
	r.wantRefused("xx")
	r.wantEnds(BackendLimit)
	first.Close()
	hear(t, waiting, "01")
}

// TestQueueAwayByReload: where a reload has taken the queue away, or made it smaller, nobody who comes passes those who wait.
func TestQueueAwayByReload(t *testing.T) {
	for _, tc := range []struct {
		name   string
		size   int
		reason Reason // of who comes
	}{{"gone", 0, PoolLimit}, {"smaller", 1, QueueFull}} {
		t.Run(tc.name, func(t *testing.T) {
			b := newRoom(t)
			r := newRigOf(t, 2, []string{b.address}, limitPool(1, 10))
			place := r.d.Snapshot().Pool("p").Pick(0, nil)
			waiting := r.guest(1)
			r.wantWaiting(1)
			r.apply(changed(r, limitPool(1, tc.size)))
			// The shard of the one who waits has no time. A place comes free, and nobody else may have it.
			sh := r.lineShard()
			other := r.e.shards[1-sh.number]
			began, free := make(chan struct{}), make(chan struct{})
			let := sync.OnceFunc(func() { close(free) })
			t.Cleanup(let)
			sh.loop.Post(func() { close(began); <-free })
			<-began
			place.Release()
			for refused := uint64(0); refused < 3 && len(b.heard()) == 0; {
				if c, err := net.Dial("tcp", r.address()); err == nil { // it may be turned away before it knows that it is connected
					defer c.Close()
					_, _ = c.Write([]byte("xx"))
				}
				other.loop.Call(func() { refused = other.frontendStats("f").Ended[tc.reason] })
			}
			early := b.heard()
			let()
			if len(early) > 0 {
				t.Fatalf("served before the one who waits: %v", early)
			}
			hear(t, waiting, "01")
		})
	}
}

// TestQueueAwayWithRoom: where a reload takes the queue away and there is room for all who wait and more, who comes is not
// turned away because they have not been served yet.
func TestQueueAwayWithRoom(t *testing.T) {
	b := newRoom(t)
	r := newRigOf(t, 2, []string{b.address}, limitPool(1, 10))
	place := r.d.Snapshot().Pool("p").Pick(0, nil)
	defer place.Release()
	waiting := r.guest(1)
	r.wantWaiting(1)
	sh, address := r.lineShard(), r.address()
	other := r.e.shards[1-sh.number]
	began, free := make(chan struct{}), make(chan struct{})
	let := sync.OnceFunc(func() { close(free) })
	t.Cleanup(let)
	next := changed(r, func(c *config.Config) { c.Pools[0].MaxConnections = 100 })
	applied := make(chan struct{})
	sh.loop.Post(func() { close(began); <-free })
	<-began
	go func() {
		defer close(applied)
		_, _ = r.d.Apply(next) // waits for the shard
	}()
	lbtest.Eventually(t, "the snapshot is in force", func() bool { return r.d.Snapshot().Config == next })
	lbtest.Eventually(t, "somebody who comes is served", func() bool {
		if c, err := net.Dial("tcp", address); err == nil {
			t.Cleanup(func() { c.Close() })
			_, _ = c.Write([]byte("xx"))
		}
		return len(b.heard()) > 0
	})
	let()
	<-applied
	hear(t, waiting, "01")
	other.loop.Call(func() {
		if n := other.frontendStats("f").Ended[PoolLimit]; n > 0 {
			t.Errorf("%d were turned away", n)
		}
	})
}

// TestQueueByReload: who was let in before a reload that brought a queue waits in it as others do.
func TestQueueByReload(t *testing.T) {
	b := newRoom(t)
	r := newRig(t, []string{b.address}, func(c *config.Config) {
		c.Pools[0].MaxConnections = 1
		c.Frontends[0].ACMEChallenges = true // so that they are routed when they have said something, by the snapshot of when they came
	})
	place := r.d.Snapshot().Pool("p").Pick(0, nil)
	early := r.dial()
	lbtest.Eventually(t, "it is let in", func() bool { n, _ := r.e.Sessions(); return n == 1 })
	r.apply(changed(r, limitPool(1, 10)))
	late := r.guest(1)
	r.wantWaiting(1)
	say(t, early, "00")
	r.wantWaiting(2)
	place.Release()
	hear(t, late, "01")
	late.Close()
	hear(t, early, "00")
}

// TestQueueIsLeftWithTLS: a client whose TLS ends here leaves when it says good-bye or just goes, having said nothing, and when
// its stream is cut. One that has said something, and then good-bye, is owed the answer, and all it said reaches the backend.
func TestQueueIsLeftWithTLS(t *testing.T) {
	for _, f := range []form{terminate, reencrypt} {
		t.Run(f.name, func(t *testing.T) {
			b := newRoom(t)
			r := newTLSRigOf(t, 4, f, b.talk, limitPool(1, 10))
			connect := func(n int, says string) (*net.TCPConn, *tls.Conn) {
				raw := r.dial()
				c := tls.Client(raw, r.client)
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				say(t, c, says)
				if n > 0 {
					r.wantWaiting(n)
				}
				return raw, c
			}
			_, first := connect(0, "00")
			hear(t, first, "00")
			_, polite := connect(1, "")
			hasty, _ := connect(2, "")
			half, halfTLS := connect(3, "03")
			cut, _ := connect(4, "04")
			reset, _ := connect(5, "05")
			polite.Close()
			r.wantWaiting(4)
			hasty.Close()
			r.wantWaiting(3)
			cut.Close()
			r.wantWaiting(2)
			_ = reset.SetLinger(0)
			reset.Close()
			r.wantWaiting(1)
			r.wantEnds(ClientEOF, ClientEOF, ClientTruncated, ClientRST)
			if st := r.e.Stats().Pools["p"]; st.QueueLeft != 4 || st.Queued != 5 {
				t.Errorf("got %+v", st)
			}
			if err := halfTLS.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := half.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			first.Close()
			hear(t, halfTLS, "03")
			hearEnd(t, halfTLS, "")
			r.wantEnds(ClientEOF, ClientEOF, ClientTruncated, ClientRST, ClientEOF, ClientEOF)
		})
	}
}

// TestQueueIsLeftAtOnce: a good-bye that was there before a client came to wait is found, and so is one behind much that it
// said: that waits on, and arrives whole.
func TestQueueIsLeftAtOnce(t *testing.T) {
	said := make(chan int, 1)
	r := newTLSRig(t, terminate, func(_ *net.TCPConn, c duplex) {
		b, _ := io.ReadAll(c)
		said <- len(b)
	}, limitPool(1, 10))
	place := r.d.Snapshot().Pool("p").Pick(0, nil)
	const size = 100 << 10
	raw := r.dial()
	c := tls.Client(raw, r.client)
	say(t, c, string(make([]byte, size)))
	r.wantWaiting(1)
	_ = c.CloseWrite()
	_ = raw.CloseWrite()
	_, gone := r.connect()
	r.wantWaiting(2)
	_ = gone.(*tls.Conn).Close()
	r.wantWaiting(1)
	r.wantEnds(ClientEOF)
	place.Release()
	if n := <-said; n != size {
		t.Errorf("the backend heard %d bytes", n)
	}
	hearEnd(t, c, "")
	r.wantEnds(ClientEOF, ClientEOF)
}

// TestQueueIsLeftBehindAHello: where TLS passes through, a client that is done after its ClientHello has gone.
func TestQueueIsLeftBehindAHello(t *testing.T) {
	b := newRoom(t)
	r := newTLSRig(t, passthrough, b.talk, limitPool(1, 10))
	place := r.d.Snapshot().Pool("p").Pick(0, nil)
	defer place.Release()
	raw := r.dial()
	go func() { _ = tls.Client(raw, r.client).Handshake() }()
	r.wantWaiting(1)
	_ = raw.CloseWrite()
	r.wantEnds(ClientEOF)
}

// TestQueueIsLeftByReset: a reset frees the place at once, whatever was said before.
func TestQueueIsLeftByReset(t *testing.T) {
	b := newRoom(t)
	r := newRig(t, []string{b.address}, limitPool(1, 10))
	place := r.d.Snapshot().Pool("p").Pick(0, nil)
	defer place.Release()
	c := r.guest(1)
	r.wantWaiting(1)
	_ = c.CloseWrite()
	_ = c.SetLinger(0)
	c.Close()
	r.wantEnds(ClientRST)
	if n := r.queue().Waiting(); n != 0 {
		t.Errorf("%d wait", n)
	}
}
