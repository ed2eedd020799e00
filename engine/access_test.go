package engine

import (
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestAccessRing pushes from one goroutine and drains from another: records come in order, none twice, and those that
// are missing are counted.
func TestAccessRing(t *testing.T) {
	wake, stop := make(chan struct{}, 1), make(chan struct{})
	ring := &accessRing{wake: wake}
	var got []int64
	var wg sync.WaitGroup
	wg.Go(func() {
		accessLoop([]*accessRing{ring}, wake, stop, func(r *Record) { got = append(got, r.Duration) }, func() {})
	})
	var stats ShardStats
	const n = 200_000
	for i := range int64(n) {
		ring.push(Record{Duration: i}, &stats)
	}
	close(stop)
	wg.Wait()
	if len(got)+int(stats.AccessDrops) != n {
		t.Errorf("%d written and %d dropped of %d", len(got), stats.AccessDrops, n)
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("%d after %d", got[i], got[i-1])
		}
	}
}

// TestAccessRingWakes: a single record is written soon, though the reader sleeps.
func TestAccessRingWakes(t *testing.T) {
	wake, stop := make(chan struct{}, 1), make(chan struct{})
	ring := &accessRing{wake: wake}
	got := make(chan int64, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		accessLoop([]*accessRing{ring}, wake, stop, func(r *Record) { got <- r.Duration }, func() {})
	})
	var stats ShardStats
	for i := range int64(5) {
		lbtest.Eventually(t, "the reader sleeps", ring.sleep.Load)
		ring.push(Record{Duration: i}, &stats)
		select {
		case d := <-got:
			if d != i {
				t.Errorf("got %d, want %d", d, i)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("not written within 5 s")
		}
	}
	close(stop)
	wg.Wait()
}

// TestAccessDropsAtTheEnd: with a writer that is stuck, what does not fit into the ring is counted, and the number can
// be had after Close.
func TestAccessDropsAtTheEnd(t *testing.T) {
	const sessions = 1500
	r := newRigOf(t, 1, []string{lbtest.Echo(t)}, nil)
	for range sessions {
		r.dial()
	}
	lbtest.Eventually(t, "all are open", func() bool { return r.d.Snapshot().Frontend("f").Live.Active() == sessions })
	r.mu.Lock() // the writer's
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.e.Close()
	}()
	lbtest.Eventually(t, "all have ended", func() bool { return r.e.sessions.Load() == 0 })
	r.mu.Unlock()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	if drops := r.e.AccessDrops(); drops == 0 || len(r.ended)+int(drops) != sessions {
		t.Errorf("%d lines and %d dropped of %d", len(r.ended), drops, sessions)
	}
}
