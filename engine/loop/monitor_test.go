//go:build !race

// The race detector has threads of its own before Go starts any, and allocates.
package loop

import (
	"runtime"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// TestMonitorStat finds the thread that runs a hundred times a second and more while others are busy, whatever they do.
func TestMonitorStat(t *testing.T) {
	fd, err := monitorStat()
	if err != nil {
		t.Fatal(err)
	}
	c := &Calm{stat: fd}
	defer c.Close()
	first, ok := c.monitorRuns()
	if !ok {
		t.Fatal("no number of runs")
	}
	lbtest.Eventually(t, "the monitor runs while a goroutine spins", func() bool {
		for began := time.Now(); time.Since(began) < 20*time.Millisecond; {
		}
		runs, ok := c.monitorRuns()
		return ok && runs >= first+10
	})
}

// TestHoldAllocatesNothing has a loop that holds handle events that bring about each other.
func TestHoldAllocatesNothing(t *testing.T) {
	const events = 2000
	_, loops, _ := calmLoops(t, 1)
	l := loops[0]
	near, far := socketpair(t)
	defer unix.Close(far)
	hello := []byte("hello")
	var before, after runtime.MemStats
	handled, done := 0, make(chan struct{}, 1)
	l.Call(func() {
		if err := l.Register(near, ready(func(Events) {
			var b [16]byte
			if n, _ := unix.Read(near, b[:]); n <= 0 {
				return
			}
			switch handled++; handled {
			case 1:
				runtime.ReadMemStats(&before)
			case events:
				runtime.ReadMemStats(&after)
				done <- struct{}{}
				return
			}
			_, _ = unix.Write(far, hello)
		})); err != nil {
			t.Error(err)
		}
		l.hold.begin()
		l.hold.until = l.Now() + int64(time.Minute)
		_, _ = unix.Write(far, hello)
	})
	wait(t, done, "the events are handled")
	if n := after.Mallocs - before.Mallocs; n > events/100 {
		t.Errorf("%d allocations for %d events", n, events)
	}
	l.Call(func() { l.Close(near) })
}
