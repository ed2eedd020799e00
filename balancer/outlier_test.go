package balancer

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"awe4lb/config"
)

// watched is a pool of n backends with outliers.
func watched(n int, o config.Outliers) *Pool {
	spec := make([]string, n)
	for i := range spec {
		spec[i] = "1"
	}
	p := pool("roundrobin", spec...)
	p.Outliers = &o
	return built(p)
}

// TestOutlier: five failures in a row eject, for longer each time; a backend that serves on trial is well again.
func TestOutlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watched(4, config.Outliers{Failures: 5, Ejection: time.Second, MaxEjection: 3 * time.Second, MaxEjected: 50})
		b := p.Members[0].Backend
		fail := func(n int) (d time.Duration) {
			for range n {
				d = max(d, p.Failed(b))
			}
			return d
		}
		if d := fail(4); d != 0 || b.State() != Up {
			t.Fatalf("four failures: %v %v", d, b.State())
		}
		p.Served(b, false)
		if d := fail(4); d != 0 {
			t.Fatalf("it was connected in between: %v", d)
		}
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
			if d := fail(1); d != want || b.State() != Ejected {
				t.Fatalf("ejected for %v, %v; want %v", d, b.State(), want)
			}
			if got := picks(p, 60, nil); got[1] != 0 {
				t.Fatalf("picked while ejected: %v", got)
			}
			if d := fail(1); d != 0 {
				t.Fatalf("ejected twice: %v", d)
			}
			time.Sleep(want - time.Millisecond)
			if b.State() != Ejected {
				t.Fatalf("back too early: %v", b.State())
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if got := picks(p, 60, nil); b.State() != Up || got[1] == 0 {
				t.Fatalf("not on trial: %v %v", b.State(), got)
			}
		}
		p.Served(b, true)
		p.Served(b, false)
		if d := fail(4); d != 0 {
			t.Fatalf("it was well: %v", d)
		}
		if d := fail(1); d != time.Second {
			t.Fatalf("ejected for %v; want the first time again", d)
		}
		time.Sleep(time.Hour)
	})
}

// TestOutlierCuts: sessions that it resets before it says anything count by themselves; that it can be connected is no merit.
func TestOutlierCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watched(2, config.Outliers{Failures: 3, Ejection: time.Second, MaxEjection: time.Second, MaxEjected: 50})
		b := p.Members[0].Backend
		for i := range 3 {
			p.Served(b, false)
			if d := p.Cut(b); (d > 0) != (i == 2) {
				t.Fatalf("cut %d: %v", i+1, d)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		p.Served(b, true)
		if d := p.Cut(b); d > 0 {
			t.Errorf("it had answered: %v", d)
		}
	})
}

// TestOutlierShare: no more than max_ejected percent of those with a weight, and checks and orders are not touched.
func TestOutlierShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watched(4, config.Outliers{Failures: 1, Ejection: time.Second, MaxEjection: time.Second, MaxEjected: 50})
		for i, m := range p.Members {
			if d := p.Failed(m.Backend); (d > 0) != (i < 2) {
				t.Errorf("backend %d: %v", i, d)
			}
		}
		b := p.Members[0].Backend
		b.SetState(Down)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b.State() != Down {
			t.Errorf("after its ejection: %v", b.State())
		}
		b.SetState(Up)
		if b.State() != Up {
			t.Errorf("up again: %v", b.State())
		}
	})
	off := built(pool("random", "1"))
	for range 100 {
		if d := off.Failed(off.Members[0].Backend); d > 0 {
			t.Fatal("ejected without outliers")
		}
	}
}

// TestOutlierOnce: of many who find at the same time that a backend fails, one ejects it, also while checks have it down.
func TestOutlierOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, state := range []State{Up, Down, Drain} {
			p := watched(2, config.Outliers{Failures: 1, Ejection: time.Second, MaxEjection: time.Minute, MaxEjected: 50})
			b := p.Members[0].Backend
			b.SetState(state)
			var times atomic.Int32
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if p.Failed(b) > 0 {
						times.Add(1)
					}
				})
			}
			wg.Wait()
			if n := times.Load(); n != 1 {
				t.Errorf("%v: ejected %d times", state, n)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if b.State() != state {
				t.Errorf("%v afterwards, was %v", b.State(), state)
			}
		}
	})
}

func TestOutlierAllocatesNothing(t *testing.T) {
	p := watched(3, config.Outliers{Failures: 1000, Ejection: time.Second, MaxEjection: time.Second, MaxEjected: 50})
	b := p.Members[0].Backend
	if n := testing.AllocsPerRun(100, func() {
		p.Failed(b)
		p.Served(b, true)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
