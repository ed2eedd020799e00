package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// calmLoops returns running loops that keep the monitor calm, whose runs are what say writes.
func calmLoops(t *testing.T, n int) (c *Calm, loops []*Loop, say func(runs uint64)) {
	t.Helper()
	lbtest.CheckLeaks(t)
	for range n {
		l, err := New()
		if err != nil {
			t.Fatal(err)
		}
		loops = append(loops, l)
	}
	c, err := KeepCalm(loops)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range loops {
		done := make(chan error, 1)
		go func() { done <- l.Run() }()
		t.Cleanup(func() {
			l.Stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "schedstat"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	_ = unix.Close(c.stat)
	c.stat = int(f.Fd())
	return c, loops, func(runs uint64) {
		t.Helper()
		if _, err := f.WriteAt(fmt.Appendf(nil, "%d %d %020d\n", 123456789, 4321, runs), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// holding says whether l holds its processor.
func holding(l *Loop) (yes bool) {
	l.Call(func() { yes = l.hold.until != 0 })
	return yes
}

func TestLook(t *testing.T) {
	c, loops, say := calmLoops(t, 2)
	var begun atomic.Int32
	for _, l := range loops {
		l.Call(func() {
			begin := l.hold.begin
			l.hold.begin = func() { begun.Add(1); begin() }
		})
	}
	var now time.Duration
	step := func(after time.Duration, runs uint64) {
		now += after
		say(runs)
		c.look(int64(now))
	}
	step(time.Second, 1000)
	step(time.Second, 1100)
	if c.holds.Load() != 0 {
		t.Fatal("held, though the monitor is calm")
	}
	step(time.Millisecond, 20000)
	if c.holds.Load() != 0 {
		t.Fatal("looked again at once")
	}
	step(time.Second, 21000)
	if c.holds.Load() != 1 {
		t.Fatal("not held, though the monitor is eager")
	}
	lbtest.Eventually(t, "both loops hold their processors", func() bool { return begun.Load() == 2 })
	for _, l := range loops {
		lbtest.Eventually(t, "the hold ends", func() bool { return !holding(l) })
	}
	// It helps nobody: held less and less often, but again and again.
	runs := uint64(21000)
	var when []int
	for i := range 200 {
		before := c.holds.Load()
		runs += 1000
		if step(100*time.Millisecond, runs); c.holds.Load() != before {
			when = append(when, i)
		}
	}
	if n := len(when); n < 6 || n > 14 || when[n-1] < 100 || when[1] > 3 {
		t.Errorf("held at these tenths of a second: %v", when)
	}
	// Once calm, it is held at once when the monitor becomes eager again.
	step(10*time.Second, runs)
	step(10*time.Second, runs)
	before := c.holds.Load()
	step(time.Second, runs+10000)
	if c.holds.Load() != before+1 {
		t.Error("not held after a calm time")
	}
	// A file that makes no sense changes nothing.
	if _, err := unix.Pwrite(c.stat, []byte("none                                   \n"), 0); err != nil {
		t.Fatal(err)
	}
	before = c.holds.Load()
	c.look(int64(now + time.Minute))
	if c.holds.Load() != before {
		t.Error("held without a number")
	}
}

// TestHold has all that a loop does while it holds its processor, and nothing left of the hold when it is over.
func TestHold(t *testing.T) {
	_, loops, _ := calmLoops(t, 1)
	l := loops[0]
	near, far := socketpair(t)
	defer unix.Close(far)
	read := make(chan struct{}, 100)
	fired := make(chan struct{}, 1)
	var timer Timer
	timer.Handle(expire(func() { fired <- struct{}{} }))
	var spins uint32
	l.Call(func() {
		if err := l.Register(near, ready(func(Events) {
			var b [16]byte
			if n, _ := unix.Read(near, b[:]); n == 5 {
				read <- struct{}{}
			}
		})); err != nil {
			t.Error(err)
		}
		l.hold.begin()
		l.hold.until = l.Now() + int64(time.Minute)
		l.After(&timer, l.Now(), 20*time.Millisecond)
		spins = l.events
	})
	for range 10 {
		if _, err := unix.Write(far, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		wait(t, read, "five bytes arrive")
	}
	wait(t, fired, "the timer fires")
	l.Call(func() {
		if spins = l.events - spins; spins > 40 {
			t.Errorf("%d events while it held, want those of ten messages and a timer", spins)
		}
		l.hold.until = l.Now()
	})
	lbtest.Eventually(t, "the hold ends", func() bool { return !holding(l) })
	l.Call(func() {
		l.Close(near)
		var b [8]byte
		if _, err := unix.Read(l.hold.fd, b[:]); err != unix.EAGAIN {
			t.Errorf("reading the eventfd: got %v, want %v", err, unix.EAGAIN)
		}
	})
}

// TestIdleLoopsHold has loops without events hold while the monitor is calm, until they have one.
func TestIdleLoopsHold(t *testing.T) {
	c, loops, say := calmLoops(t, 2)
	near, far := socketpair(t)
	defer unix.Close(far)
	read := make(chan struct{}, 1)
	loops[0].Call(func() {
		if err := loops[0].Register(near, ready(func(ev Events) {
			if ev.Readable() {
				var b [16]byte
				_, _ = unix.Read(near, b[:])
				read <- struct{}{}
			}
		})); err != nil {
			t.Error(err)
		}
	})
	var now time.Duration
	looks := func() {
		now += 100 * time.Millisecond
		say(1)
		c.look(int64(now))
	}
	looks()
	lbtest.Eventually(t, "both hold", func() bool {
		looks()
		return holding(loops[0]) && holding(loops[1])
	})
	if _, err := unix.Write(far, []byte("work")); err != nil {
		t.Fatal(err)
	}
	wait(t, read, "the event is handled")
	lbtest.Eventually(t, "the loop that has something to do does not hold", func() bool { return !holding(loops[0]) })
	if !holding(loops[1]) {
		t.Error("the idle one does not hold any more")
	}
	loops[1].Call(func() { loops[1].hold.until = loops[1].Now() })
	lbtest.Eventually(t, "the hold ends with its time", func() bool { return !holding(loops[1]) })
	if c.loops[1].hold.idleUntil.Load() != 0 {
		t.Error("the hold has ended, but is said to last")
	}
	loops[0].Call(func() { loops[0].Close(near) })
}

// TestHoldLeavesNoEventWaiting has an event come while another is handled: the next wait has it, at once.
func TestHoldLeavesNoEventWaiting(t *testing.T) {
	_, loops, _ := calmLoops(t, 1)
	l := loops[0]
	near, far := socketpair(t)
	defer unix.Close(far)
	late, lateFar := socketpair(t)
	defer unix.Close(lateFar)
	read := make(chan struct{}, 1)
	var waits, waited uint32
	l.Call(func() { // for reading only: that a socket is ready for writing would be an event before the first
		if err := l.RegisterRead(near, ready(func(Events) {
			var b [16]byte
			if n, _ := unix.Read(near, b[:]); n > 0 {
				waits = l.hold.waits
				_, _ = unix.Write(lateFar, []byte("hello"))
			}
		})); err != nil {
			t.Error(err)
		}
		if err := l.RegisterRead(late, ready(func(Events) {
			var b [16]byte
			if n, _ := unix.Read(late, b[:]); n > 0 {
				waited += l.hold.waits - waits
				read <- struct{}{}
			}
		})); err != nil {
			t.Error(err)
		}
		l.hold.begin()
		l.hold.until = l.Now() + int64(time.Minute)
	})
	// It has netpoll's place only after netpoll has run what is posted, and netpoll may take events before that.
	lbtest.Eventually(t, "it waits in its hold", l.hold.waiting.Load)
	for range 20 {
		if _, err := unix.Write(far, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		wait(t, read, "what comes meanwhile is handled")
	}
	l.Call(func() {
		l.Close(near)
		l.Close(late)
		if waited != 20 {
			t.Errorf("waited %d times between 20 events and those that came at once after them, want once each", waited)
		}
	})
}

// TestHoldIsNoEvent has a loop hold idle one event before it would look: while it sleeps it must not look, again and again,
// and so have the hold never end.
func TestHoldIsNoEvent(t *testing.T) {
	c, loops, say := calmLoops(t, 1)
	l := loops[0]
	say(1)
	start := int64(-time.Minute)
	c.at.Store(start)
	l.Call(func() {
		l.events = lookEvery - 1
		l.hold.asked = l.events
		l.hold.ifIdle()
	})
	if !holding(l) {
		t.Fatal("it does not hold")
	}
	lbtest.Eventually(t, "the hold ends", func() bool { return !holding(l) })
	if at := c.at.Load(); at != start {
		t.Errorf("looked %v after the start, though there was no event", time.Duration(at))
	}
}

// TestKernelThatDoesNotCount has a schedstat of zeros: a kernel without CONFIG_SCHEDSTATS has it when delays are not accounted.
func TestKernelThatDoesNotCount(t *testing.T) {
	c, loops, say := calmLoops(t, 1)
	var asked atomic.Int32
	loops[0].Call(func() { loops[0].hold.ifIdle = func() { asked.Add(1) } })
	say(0)
	c.look(int64(time.Minute))
	loops[0].Call(func() {})
	if n := asked.Load(); n > 0 {
		t.Error("the monitor was taken for calm")
	}
	say(1)
	c.look(int64(2 * time.Minute))
	loops[0].Call(func() {})
	if n := asked.Load(); n != 1 {
		t.Errorf("once it counts: the loop was asked %d times to hold, want once", n)
	}
}

// TestPostRousesWhoSleeps has a loop that sleeps in a posted function: netpoll's own eventfd is not written to meanwhile.
func TestPostRousesWhoSleeps(t *testing.T) {
	lbtest.CheckLeaks(t)
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := KeepCalm([]*Loop{l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	t.Cleanup(func() { // takes what was posted, and ends
		if err := l.Run(); err != nil {
			t.Error(err)
		}
	})
	roused := func() bool {
		var b [8]byte
		n, _ := unix.Read(l.hold.fd, b[:])
		return n == len(b)
	}
	l.Post(func() {})
	if roused() {
		t.Error("Post roused who does not sleep")
	}
	l.hold.waiting.Store(true)
	l.Post(func() {})
	if !roused() {
		t.Error("Post did not rouse who sleeps")
	}
	l.Post(func() {})
	if roused() {
		t.Error("Post roused who was roused before")
	}
	l.hold.waiting.Store(true)
	l.Stop()
	if !roused() {
		t.Error("Stop did not rouse who sleeps")
	}
}
