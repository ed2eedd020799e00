package tlsbridge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

func newWorkers(t testing.TB, o WorkerOptions) *Workers {
	t.Helper()
	lbtest.CheckLeaks(t)
	ws, err := NewWorkers(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ws.Close)
	return ws
}

// halfOpen begins n handshakes of clients that send a ClientHello and nothing more, and waits until each has its answer.
func halfOpen(t testing.TB, ws *Workers, config *tls.Config, n int) []*Conn {
	t.Helper()
	hello := goHello(&tls.Config{ServerName: "a.test"})
	answered := make(chan int, n)
	conns := make([]*Conn, n)
	for i := range conns {
		conns[i] = ws.Server(Params{Config: config, Notify: func() { answered <- i }})
		conns[i].Feed(hello)
	}
	for range conns {
		select {
		case i := <-answered:
			if r := conns[i].Result(); r.State != Handshaking || len(r.Out) == 0 {
				t.Fatalf("%+v", r)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("no answer")
		}
	}
	return conns
}

// TestHalfOpen: good clients are served while 10,000 others have stopped in the middle of their handshake, and the memory
// and goroutines of those are freed when they are cancelled.
func TestHalfOpen(t *testing.T) {
	n := 10_000
	if raceEnabled {
		n = 1000
	}
	ca := lbtest.NewCA(t)
	config := serverConfig(ca, "a.test")
	ws := newWorkers(t, WorkerOptions{Count: 2})
	before := runtime.NumGoroutine()
	memory := inUse()
	conns := halfOpen(t, ws, config, n)
	t.Logf("%d B for a half-open handshake", (inUse()-memory)/uint64(n))
	if s := ws.Stats(); s.Live != n || s.Queued != 0 {
		t.Errorf("%+v", s)
	}
	r := newRig(t, lbtest.Echo(t), rigOptions{server: config, workers: ws})
	for range 20 {
		begun := time.Now()
		c := tls.Client(r.dial(), clientConfig(ca, "a.test"))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("a good client waited %v", d)
		}
		c.Close()
	}
	for _, c := range conns {
		c.Cancel()
	}
	lbtest.Eventually(t, "every handshake is freed", func() bool { return ws.Stats().Live == 0 })
	if s := ws.Stats(); s.Cancelled != uint64(n) || s.Done != 20 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	lbtest.Eventually(t, "no goroutine left of them", func() bool { return runtime.NumGoroutine() < before+30 })
}

// inUse returns the bytes of heap and stacks in use.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// TestResumedFirst: handshakes under way go before new ones.
func TestResumedFirst(t *testing.T) {
	w := newWorker(nil)
	fresh, old := new(Conn), new(Conn)
	old.handshake.step = func() (struct{}, bool) { return struct{}{}, false }
	w.push(fresh)
	w.push(old)
	w.collect()
	if w.resumed.take() != old || w.resumed.take() != nil || w.fresh.take() != fresh || w.fresh.take() != nil {
		t.Error("wrong order")
	}
}

// TestCancel gives up handshakes at random moments: queued, under the worker's hands, waiting, or done.
func TestCancel(t *testing.T) {
	ca := lbtest.NewCA(t)
	config := serverConfig(ca, "a.test")
	for _, o := range []WorkerOptions{{Count: 2}, {Count: 2, Nice: 10, CPUs: []int{0}}} {
		ws := newWorkers(t, o)
		hello := goHello(&tls.Config{ServerName: "a.test"})
		random := rand.New(rand.NewPCG(1, 2))
		var notified atomic.Int64
		rounds := 2000
		if raceEnabled {
			rounds = 300
		}
		for i := range rounds {
			answered := make(chan bool, 2)
			c := ws.Server(Params{Config: config, Notify: func() { notified.Add(1); answered <- true }})
			switch i % 4 {
			case 0: // never fed
			case 1: // at once, or while it is computed
				c.Feed(hello)
				time.Sleep(time.Duration(random.IntN(600)) * time.Microsecond)
			case 2: // waiting
				c.Feed(hello)
				<-answered
			case 3: // failed
				c.Feed([]byte("not TLS at all"))
				<-answered
				if r := c.Result(); r.State != Failed {
					t.Fatalf("%+v", r)
				}
			}
			c.Cancel()
			if !c.Cancelled() {
				t.Fatal("not cancelled")
			}
			c.Cancel() // harmless
		}
		lbtest.Eventually(t, "nothing left", func() bool { s := ws.Stats(); return s.Live == 0 && s.Queued == 0 })
		if notified.Load() < int64(rounds/2) {
			t.Errorf("%d notified", notified.Load())
		}
	}
}

// TestCloseFreesHandshakes: a process that ends leaves no coroutine, pinned or not; CheckLeaks looks.
func TestCloseFreesHandshakes(t *testing.T) {
	ca := lbtest.NewCA(t)
	for _, o := range []WorkerOptions{{Count: 3}, {Count: 2, Nice: 19}} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			conns := halfOpen(t, newWorkers(t, o), serverConfig(ca, "a.test"), 100)
			t.Cleanup(func() {
				for _, c := range conns {
					c.Feed([]byte("x")) // too late, and harmless
					c.Cancel()
				}
			})
		})
	}
}

// TestPanicInAHook: a bug of a hook ends the handshake it is in and no other.
func TestPanicInAHook(t *testing.T) {
	ca := lbtest.NewCA(t)
	config := serverConfig(ca, "a.test")
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("a bug") }
	ws := newWorkers(t, WorkerOptions{Count: 1})
	answered := make(chan bool, 1)
	c := ws.Server(Params{Config: config, Notify: func() { answered <- true }})
	c.Feed(goHello(&tls.Config{ServerName: "a.test"}))
	<-answered
	if r := c.Result(); r.State != Failed || !strings.Contains(r.Err.Error(), "a bug") {
		t.Errorf("%+v", r)
	}
	halfOpen(t, ws, serverConfig(ca, "a.test"), 1)
}

func TestHooksSeeAddresses(t *testing.T) {
	ca := lbtest.NewCA(t)
	config := serverConfig(ca, "a.test")
	seen := make(chan string, 1)
	config.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		seen <- i.Conn.RemoteAddr().String() + " " + i.Conn.LocalAddr().String()
		return nil, errors.New("enough")
	}
	ws := newWorkers(t, WorkerOptions{Count: 1})
	c := ws.Server(Params{Config: config, Notify: func() {}, Local: netip.MustParseAddrPort("10.0.0.1:443"),
		Remote: netip.MustParseAddrPort("[2001:db8::1]:5000")})
	c.Feed(goHello(&tls.Config{ServerName: "a.test"}))
	if got := <-seen; got != "[2001:db8::1]:5000 10.0.0.1:443" {
		t.Error(got)
	}
}

func TestWorkerOptions(t *testing.T) {
	lbtest.CheckLeaks(t)
	for _, o := range []WorkerOptions{{Count: -1}, {Nice: 20}, {Nice: -1}, {CPUs: []int{5000}}, {CPUs: []int{1 << 20}}} {
		if ws, err := NewWorkers(o); err == nil {
			ws.Close()
			t.Errorf("%+v: no error", o)
		}
	}
	// Each worker is a thread with its priority; the process keeps its own.
	ws := newWorkers(t, WorkerOptions{Count: 2, Nice: 7})
	nice := func(path string) string {
		b, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); len(fields) > 16 {
			return fields[16]
		}
		return ""
	}
	threads, _ := os.ReadDir("/proc/self/task")
	n := 0
	for _, thread := range threads {
		if nice("/proc/self/task/"+thread.Name()+"/stat") == "7" {
			n++
		}
	}
	if own := nice("/proc/self/stat"); n != 2 || own == "7" {
		t.Errorf("%d threads of nice 7; the process has %s", n, own)
	}
	_ = ws
}

func TestGate(t *testing.T) {
	g := NewGate(10, 3, 24, 48)
	enter := func(address string, want Verdict) {
		t.Helper()
		if got := g.Enter(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %d, want %d", address, got, want)
		}
	}
	for range 3 {
		enter("10.0.0.1", Admitted)
	}
	enter("10.0.0.200", Crowded) // the same /24
	enter("::ffff:10.0.0.7", Crowded)
	enter("10.0.1.1", Admitted)
	for _, a := range []string{"2001:db8:1::1", "2001:db8:1:ff::2", "2001:db8:1:ffff::"} {
		enter(a, Admitted)
	}
	enter("2001:db8:1::5", Crowded)
	enter("2001:db8:2::5", Admitted)
	g.Leave(netip.MustParseAddr("10.0.0.9")) // whoever it was, of that /24
	enter("10.0.0.1", Admitted)
	enter("10.0.2.1", Admitted)
	if g.Enter(netip.Addr{}) != Admitted { // a unix socket
		t.Error("a unix socket was refused")
	}
	enter("10.0.3.1", Full)
	if s := g.Stats(); s != (GateStats{Inside: 10, Entered: 11, Full: 1, Crowded: 3}) {
		t.Errorf("%+v", s)
	}
}

// TestGateInUse: silent clients fill a frontend's gate, and keep others out only until their deadline.
func TestGateInUse(t *testing.T) {
	ca := lbtest.NewCA(t)
	g := NewGate(100, 5, 0, 0)
	r := newRig(t, lbtest.Echo(t), rigOptions{server: serverConfig(ca, "a.test"), gate: g, deadline: 500 * time.Millisecond})
	for range 5 {
		r.dial()
	}
	lbtest.Eventually(t, "they are in", func() bool { return g.Stats().Inside == 5 })
	if c, err := net.Dial("tcp", r.address); err == nil { // otherwise the reset was faster
		defer c.Close()
	}
	if why := r.wantEnds(); why != "gate" {
		t.Errorf("ended by %q", why)
	}
	for range 5 {
		if why := r.wantEnds(); why != "deadline" {
			t.Errorf("ended by %q", why)
		}
	}
	for range 20 { // one after the other there is room for any number
		if _, err := visit(t, r, clientConfig(ca, "a.test")); err != nil {
			t.Fatal(err)
		}
	}
	if s := g.Stats(); s.Inside != 0 || s.Crowded != 1 || s.Entered != 25 {
		t.Errorf("%+v", s)
	}
}

// TestGateBooks: whatever comes and goes at the same time, the books balance and no limit is passed.
func TestGateBooks(t *testing.T) {
	g := NewGate(50, 20, 0, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0))
			var in []netip.Addr
			for range 5000 {
				if len(in) > 0 && random.IntN(2) == 0 {
					g.Leave(in[len(in)-1])
					in = in[:len(in)-1]
					continue
				}
				a := netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(5)), byte(i)})
				if g.Enter(a) == Admitted {
					in = append(in, a)
				}
			}
			if n := g.Stats().Inside; n > 50+8 {
				t.Errorf("%d inside", n)
			}
			for _, a := range in {
				g.Leave(a)
			}
		})
	}
	wg.Wait()
	for i := range 2 * gateRow {
		if n := g.rows[i/gateRow][i%gateRow].Load(); n != 0 {
			t.Errorf("place %d: %d", i, n)
		}
	}
	if s := g.Stats(); s.Inside != 0 {
		t.Errorf("%+v", s)
	}
}

func BenchmarkGate(b *testing.B) {
	b.ReportAllocs()
	g := NewGate(GateLimit, GatePrefixLimit, 0, 0)
	a := netip.MustParseAddr("2001:db8::1")
	for b.Loop() {
		g.Enter(a)
		g.Leave(a)
	}
}
