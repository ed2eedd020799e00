package tlsbridge

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"awe4lb/internal/lbtest"
)

// TestReclaimWhenQuiet: not within a burst, once after it, and not again before the interval is over.
func TestReclaimWhenQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps atomic.Uint64
		var waste atomic.Bool
		var reclaimed atomic.Int32
		waste.Store(true)
		r := newReclaimer(steps.Load)
		r.wasteful = waste.Load
		r.reclaim = func() { reclaimed.Add(1) }
		go r.run()
		burst := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				steps.Add(burstSteps)
				r.tell()
			}
		}
		want := func(what string, n int32) {
			t.Helper()
			synctest.Wait()
			if got := reclaimed.Load(); got != n {
				t.Errorf("%s: reclaimed %d times, want %d", what, got, n)
			}
		}
		burst(2 * time.Second)
		want("within the burst", 0)
		time.Sleep(2 * burstOver)
		want("after it", 1)
		burst(time.Second)
		time.Sleep(2 * burstOver)
		want("after another one at once", 1)
		time.Sleep(reclaimInterval)
		want("when the interval is over", 2)
		waste.Store(false)
		time.Sleep(reclaimInterval)
		burst(time.Second)
		time.Sleep(2 * reclaimInterval)
		want("with nothing to gain", 2)
		close(r.stop)
	})
}

func TestReclaimStopsWhateverItWaitsFor(t *testing.T) {
	for name, wait := range map[string]time.Duration{"a burst": 0, "its end": time.Millisecond, "the interval": 2 * burstOver} {
		synctest.Test(t, func(t *testing.T) {
			r := newReclaimer(func() uint64 { return 0 })
			r.wasteful, r.reclaim = func() bool { return true }, func() {}
			ended := false
			go func() { r.run(); ended = true }()
			if wait > 0 {
				r.tell()
				time.Sleep(wait)
			}
			close(r.stop)
			synctest.Wait()
			if !ended {
				t.Errorf("still there, waiting for %s", name)
			}
		})
	}
}

func TestWorthWhile(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live, objects, free uint64
		want                bool
	}{
		{20 * mb, 21 * mb, 2 * mb, false},
		{20 * mb, 28 * mb, 0, true},      // garbage, or new
		{20 * mb, 20 * mb, 9 * mb, true}, // collected, not given back
		{mb, 4 * mb, 0, false},           // small
		{400 * mb, 480 * mb, 10 * mb, false},
		{400 * mb, 480 * mb, 40 * mb, true},
		{20 * mb, 19 * mb, mb, false}, // swept meanwhile
	} {
		if got := worthWhile(c.live, c.objects, c.free); got != c.want {
			t.Errorf("%d MB live, %d in objects, %d free: %v", c.live/mb, c.objects/mb, c.free/mb, got)
		}
	}
}

// TestWorkersTellOfBursts: many handshakes are one, few are none.
func TestWorkersTellOfBursts(t *testing.T) {
	ws := newWorkers(t, WorkerOptions{Count: 1})
	ws.reclaimer.stop <- struct{}{} // the goroutine has ended: the token stays where it is
	config := serverConfig(lbtest.NewCA(t), "a.test")
	cancel := func(conns []*Conn) {
		for _, c := range conns {
			c.Cancel()
		}
	}
	cancel(halfOpen(t, ws, config, burstSteps/2))
	if len(ws.reclaimer.burst) != 0 {
		t.Error("a few handshakes were a burst")
	}
	cancel(halfOpen(t, ws, config, 2*burstSteps))
	for deadline := time.Now().Add(10 * time.Second); len(ws.reclaimer.burst) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("many handshakes were no burst")
		}
	}
}
