package loop

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// start runs a loop until the test ends.
func start(t *testing.T) *Loop {
	t.Helper()
	lbtest.CheckLeaks(t)
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { l.Stop(); wg.Wait() })
	return l
}

type ready func(Events)

func (f ready) Ready(_ int, ev Events) { f(ev) }

type expire func()

func (f expire) Expire() { f() }

func socketpair(t *testing.T) (int, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("not within 10 s: ", what)
	}
}

func TestPostsRunInOrder(t *testing.T) {
	l := start(t)
	var got []int
	for i := range 2000 {
		l.Post(func() { got = append(got, i) })
	}
	l.Call(func() {})
	for i := range 2000 {
		if got[i] != i {
			t.Fatalf("place %d: got %d", i, got[i])
		}
	}
}

func TestCallAfterTheEnd(t *testing.T) {
	l := start(t)
	l.Stop()
	<-l.Ended()
	if l.Call(func() { t.Error("ran on a loop that has ended") }) {
		t.Error("Call says it ran")
	}
	l.Stop() // again is harmless
}

func TestReadiness(t *testing.T) {
	l := start(t)
	a, b := socketpair(t)
	events := make(chan Events, 16)
	l.Call(func() {
		if err := l.Register(a, ready(func(ev Events) { events <- ev })); err != nil {
			t.Error(err)
		}
	})
	next := func() Events {
		select {
		case ev := <-events:
			return ev
		case <-time.After(10 * time.Second):
			t.Fatal("no event within 10 s")
			return 0
		}
	}
	if ev := next(); !ev.Writable() || ev.Readable() {
		t.Errorf("first event %#x; want writable", ev)
	}
	_, _ = unix.Write(b, []byte("x"))
	if ev := next(); !ev.Readable() || ev.PeerDone() {
		t.Errorf("after a byte %#x; want readable", ev)
	}
	l.Call(func() { l.Rearm(a) })
	if ev := next(); !ev.Readable() {
		t.Errorf("after Rearm %#x; want readable again", ev)
	}
	_ = unix.Shutdown(b, unix.SHUT_WR)
	if ev := next(); !ev.PeerDone() {
		t.Errorf("after FIN %#x; want the peer done", ev)
	}
	l.Call(func() { l.Close(a) })
	if _, err := unix.Write(b, []byte("x")); err != unix.EPIPE {
		t.Errorf("write to the closed end: %v", err)
	}
	_ = unix.Close(b)
}

// TestReusedDescriptor shows the hazard that the package comment speaks of: within one batch of events a handler closes
// another descriptor, whose event is already in the batch, and opens a new one of the same number. The new handler gets
// the stale event, and reading tells it that nothing is there.
func TestReusedDescriptor(t *testing.T) {
	l := start(t)
	type outcome struct {
		same  bool
		stale bool
		errno error
	}
	done := make(chan outcome, 1)
	l.Call(func() {
		a, aPeer := socketpair(t)
		b, bPeer := socketpair(t)
		both := map[int]int{a: b, b: a}
		acted := false
		for fd := range both {
			if err := l.Register(fd, ready(func(ev Events) {
				if acted || !ev.Readable() {
					return
				}
				acted = true
				victim := both[fd]
				l.Close(victim)
				n, nPeer := socketpair(t) // gets the lowest free number: the victim's
				var o outcome
				o.same = n == victim
				if err := l.Register(n, ready(func(ev Events) {
					if ev.Readable() && !o.stale {
						o.stale = true
						_, o.errno = unix.Read(n, make([]byte, 1))
					}
				})); err != nil {
					t.Error(err)
				}
				l.Post(func() { // after the batch
					done <- o
					for _, fd := range []int{fd, n, nPeer, aPeer, bPeer} {
						l.Close(fd)
					}
				})
			})); err != nil {
				t.Error(err)
			}
		}
		// Both are readable before the loop looks again: one batch has both events.
		_, _ = unix.Write(aPeer, []byte("x"))
		_, _ = unix.Write(bPeer, []byte("x"))
	})
	o := <-done
	if !o.same || !o.stale {
		t.Fatalf("number reused %v, stale event %v: the hazard did not show; is the poller another one now?", o.same, o.stale)
	}
	if o.errno != unix.EAGAIN {
		t.Errorf("reading after the stale event: %v; want EAGAIN", o.errno)
	}
}

func TestTimers(t *testing.T) {
	l := start(t)
	fired := make(chan struct{})
	var again, cancelled Timer
	times := 0
	l.Call(func() {
		again.Handle(expire(func() {
			if times++; times == 3 {
				close(fired)
				return
			}
			l.After(&again, l.Now(), 20*time.Millisecond)
		}))
		cancelled.Handle(expire(func() { t.Error("a cancelled timer fired") }))
		l.After(&cancelled, l.Now(), 10*time.Millisecond)
		l.After(&again, l.Now(), 20*time.Millisecond)
		l.Cancel(&cancelled)
	})
	wait(t, fired, "three times 20 ms")
	l.Call(func() {
		if again.Pending() || cancelled.Pending() {
			t.Error("pending after firing")
		}
	})
}

// TestIdleLoopSleeps: with no timer set, the timerfd is not armed.
func TestIdleLoopSleeps(t *testing.T) {
	l := start(t)
	fired := make(chan struct{})
	var one Timer
	l.Call(func() {
		one.Handle(expire(func() { close(fired) }))
		l.After(&one, l.Now(), time.Millisecond)
	})
	wait(t, fired, "1 ms")
	l.Call(func() {
		var spec unix.ItimerSpec
		if err := unix.TimerfdGettime(l.timer, &spec); err != nil || spec.Value != (unix.Timespec{}) {
			t.Errorf("armed for %v, %v", spec.Value, err)
		}
	})
}

// TestWheelAgainstModel runs random operations on a wheel and on a plain map, by an artificial clock that also jumps.
func TestWheelAgainstModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Log("seed ", seed)
		}
	}()
	const tooLate, tooLateCoarse = 1 << 24, 1 << 30
	var w wheel
	w.init()
	now := int64(0)
	type entry struct{ when, d int64 }
	model := map[int]entry{}
	timers := make([]Timer, 300)
	for i := range timers {
		timers[i].Handle(expire(func() {
			e, ok := model[i]
			if !ok {
				t.Fatalf("timer %d fired unasked", i)
			}
			if now < e.when {
				t.Fatalf("timer %d fired %d ns early", i, e.when-now)
			}
			delete(model, i)
			if r.IntN(4) == 0 { // from within
				d := r.Int64N(5e9)
				w.add(&timers[i], now, d)
				model[i] = entry{now + d, d}
			}
		}))
	}
	delays := []int64{1, 1e6, 50e6, 1e9, 4e9, 5e9, 60e9, 600e9, 7200e9}
	steps := []int64{1, 1e6, 17e6, 100e6, 1e9, 30e9, 3600e9}
	for range 100_000 {
		i := r.IntN(len(timers))
		switch r.IntN(3) {
		case 0:
			w.remove(&timers[i])
			d := r.Int64N(delays[r.IntN(len(delays))])
			w.add(&timers[i], now, d)
			model[i] = entry{now + d, d}
		case 1:
			w.remove(&timers[i])
			delete(model, i)
		case 2:
			// As the loop does: sleep until next says so, or be woken earlier.
			now = min(now+r.Int64N(steps[r.IntN(len(steps))]), max(w.next(), now))
			w.advance(now)
			for i, e := range model {
				late := int64(tooLate)
				if e.d >= w.fine.span() {
					late = tooLateCoarse
				}
				if now > e.when+late {
					t.Fatalf("timer %d, set for %d ns, is %d ns late", i, e.d, now-e.when)
				}
				if next := w.next(); next > e.when+late {
					t.Fatalf("the wheel wants to sleep %d ns past timer %d", next-e.when, i)
				}
			}
		}
		for i := range timers {
			if _, ok := model[i]; ok != timers[i].Pending() {
				t.Fatalf("timer %d: pending %v, want %v", i, timers[i].Pending(), ok)
			}
		}
	}
}

func TestWheelAllocatesNothing(t *testing.T) {
	var w wheel
	w.init()
	var tm Timer
	tm.Handle(expire(func() {}))
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		w.add(&tm, now, 30e6)
		w.remove(&tm)
		w.add(&tm, now, 30e6)
		now += 50e6
		w.advance(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTimer(b *testing.B) {
	l, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Close(l.timer); _ = l.poller.Close() }()
	var tm Timer
	tm.Handle(expire(func() {}))
	b.ReportAllocs()
	for b.Loop() {
		l.After(&tm, 0, time.Second)
		l.Cancel(&tm)
	}
}

// A timer that yields again and again must not keep events from being handled, and both kinds of timer must fire.
func TestYieldLeavesRoomForOthers(t *testing.T) {
	l := start(t)
	a, b := socketpair(t)
	defer unix.Close(b)
	seen, late := make(chan struct{}), make(chan struct{})
	var work, cancelled, other Timer
	turns := 0
	l.Call(func() {
		_ = l.RegisterRead(a, ready(func(ev Events) {
			if ev.Readable() {
				l.Cancel(&work)
				l.Close(a)
				close(seen)
			}
		}))
		work.Handle(expire(func() { turns++; l.Cancel(&cancelled); l.Yield(&work) }))
		cancelled.Handle(expire(func() { t.Error("fired though cancelled") }))
		other.Handle(expire(func() { close(late) }))
		l.Yield(&work)
		l.Yield(&cancelled)
		l.After(&other, l.Now(), 20*time.Millisecond)
	})
	wait(t, late, "an ordinary timer beside one that yields")
	if _, err := unix.Write(b, []byte("x")); err != nil {
		t.Fatal(err)
	}
	wait(t, seen, "an event beside a timer that yields")
	l.Call(func() {
		if turns < 2 || work.Pending() {
			t.Errorf("%d turns, pending %v; want several and no more", turns, work.Pending())
		}
	})
}

// RegisterRead reports what can be read, once, and again after RearmRead; never that writing is possible.
func TestRegisterRead(t *testing.T) {
	l := start(t)
	a, b := socketpair(t)
	defer unix.Close(b)
	events := make(chan Events, 8)
	l.Call(func() { _ = l.RegisterRead(a, ready(func(ev Events) { events <- ev })) })
	next := func() Events {
		select {
		case ev := <-events:
			return ev
		case <-time.After(10 * time.Second):
			t.Fatal("no event within 10 s")
		}
		return 0
	}
	_, _ = unix.Write(b, []byte("x"))
	if ev := next(); !ev.Readable() || ev.Writable() {
		t.Fatalf("got %x; want readable only", ev)
	}
	l.Call(func() { l.RearmRead(a) })
	if ev := next(); !ev.Readable() || ev.Writable() {
		t.Fatalf("after RearmRead got %x; want readable only", ev)
	}
	l.Call(func() { l.Close(a) })
}
