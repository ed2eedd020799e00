package loop

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"github.com/panjf2000/gnet/v2/pkg/queue"
	"golang.org/x/sys/unix"
)

// Events is a set of epoll bits: a hint of what may be possible.
type Events uint32

// Readable reports whether a read may return something: bytes, the end, or an error.
func (ev Events) Readable() bool {
	return ev&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// Writable reports whether a write may return something: progress or an error.
func (ev Events) Writable() bool { return ev&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 }

// PeerDone reports whether the peer will send nothing after what is already queued here.
func (ev Events) PeerDone() bool { return ev&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 }

// Failed reports whether the descriptor may hold an error.
func (ev Events) Failed() bool { return ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 }

// Handler is told on the loop that its descriptor fd may be ready. One handler may serve many descriptors.
type Handler interface{ Ready(fd int, ev Events) }

// Loop is one event loop. Make one with New, run it with Run.
type Loop struct {
	// Set once, never changed.
	poller *netpoll.Poller
	epoch  time.Time  // zero of Now
	timer  int        // timerfd
	calm   *Calm      // nil without KeepCalm
	run    queue.Func // runs a posted function

	// Owned by the loop's goroutine.
	handlers []*page // by descriptor; see handler and put
	wheel    wheel
	soon     Timer // head of the list of timers that Yield has set
	turn     Timer // head of the list of those among them that fire now
	armed    int64 // when the timerfd goes off, math.MaxInt64 when it is not armed
	owner    owner
	events   uint32 // handled so far; wraps
	ran      uint32 // posted functions that have run; wraps
	hold     hold

	// Shared.
	posted atomic.Uint32 // functions posted so far; wraps
	ended  chan struct{} // closed once Run has returned; guards nothing
	stop   sync.Once
}

// New makes a loop. It fails with the name of the system call that failed.
func New() (*Loop, error) {
	p, err := netpoll.OpenPoller()
	if err != nil {
		return nil, err
	}
	l := &Loop{poller: p, epoch: time.Now(), armed: math.MaxInt64, ended: make(chan struct{})}
	l.run = func(fn any) error {
		l.ran++
		fn.(func())()
		return nil
	}
	l.wheel.init()
	l.soon.next, l.soon.prev = &l.soon, &l.soon
	l.turn.next, l.turn.prev = &l.turn, &l.turn
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	if err := l.Listen(l.timer, (*tick)(l)); err != nil {
		_ = unix.Close(l.timer)
		_ = p.Close()
		return nil, err
	}
	return l, nil
}

// Run runs the loop on the calling goroutine until Stop, then releases its descriptors. Descriptors of handlers that
// are still registered stay open: they belong to the handlers.
func (l *Loop) Run() error {
	l.owner.take()
	err := l.poller.Polling(l.dispatch)
	close(l.ended)
	_ = unix.Close(l.timer)
	l.hold.close()
	_ = l.poller.Close()
	if err == errors.ErrEngineShutdown {
		return nil
	}
	return err
}

// dispatch hands one event to its handler. It returns nil whatever happens: netpoll ends the loop on some errors.
func (l *Loop) dispatch(fd int, ev netpoll.IOEvent, _ netpoll.IOFlags) error {
	if l.events++; l.events%lookEvery == 0 && l.calm != nil && fd != l.hold.fd {
		l.calm.look(l.calm.now())
	}
	if h := l.handler(fd); h != nil {
		h.Ready(fd, Events(ev))
	}
	return nil
}

// Stop ends Run after the events and posted functions at hand. Safe from any goroutine, any number of times.
func (l *Loop) Stop() {
	l.stop.Do(func() {
		l.posted.Add(1)
		_ = l.poller.Trigger(queue.HighPriority, func(any) error { return errors.ErrEngineShutdown }, nil)
		l.hold.rouse()
	})
}

// Ended is closed when Run has returned.
func (l *Loop) Ended() <-chan struct{} { return l.ended }

// Post runs fn on the loop, after the events at hand. Functions posted by one goroutine run in order; those posted
// after Stop may never run. Safe from any goroutine; never blocks; allocates.
func (l *Loop) Post(fn func()) {
	l.posted.Add(1)
	_ = l.poller.Trigger(queue.HighPriority, l.run, fn)
	l.hold.rouse()
}

// Call runs fn on the loop and waits for it. It returns false when the loop ended first; fn may then have run or not.
// Safe from any goroutine but the loop's own, where it would wait for ever.
func (l *Loop) Call(fn func()) bool { return l.Begin(fn)() }

// Begin posts fn and returns what Call does then: wait for it.
func (l *Loop) Begin(fn func()) (wait func() bool) {
	done := make(chan struct{})
	l.Post(func() { fn(); close(done) })
	return func() bool {
		select {
		case <-done:
			return true
		case <-l.ended:
			return false
		}
	}
}

// Now returns the time since the loop was made, in nanoseconds, by the monotonic clock (31 ns through the vDSO).
func (l *Loop) Now() int64 { return int64(time.Since(l.epoch)) }

// Time returns the wall-clock time of a reading of Now.
func (l *Loop) Time(now int64) time.Time { return l.epoch.Add(time.Duration(now)) }

// Register watches fd edge-triggered for reading and writing. Whatever is ready already is reported as an event.
func (l *Loop) Register(fd int, h Handler) error {
	l.Assert()
	l.put(fd, h)
	if err := l.poller.AddReadWrite(&netpoll.PollAttachment{FD: fd}, true); err != nil {
		l.put(fd, nil)
		return err
	}
	return nil
}

// RegisterRead watches fd edge-triggered for reading and errors. Whatever is ready already is reported as an event. It is
// for sockets of datagrams, which nobody waits to write to: each send would be an event more.
func (l *Loop) RegisterRead(fd int, h Handler) error {
	l.Assert()
	l.put(fd, h)
	if err := l.poller.AddRead(&netpoll.PollAttachment{FD: fd}, true); err != nil {
		l.put(fd, nil)
		return err
	}
	return nil
}

// Listen watches fd level-triggered for reading: the handler is told as long as there is something to take.
func (l *Loop) Listen(fd int, h Handler) error {
	l.put(fd, h)
	if err := l.poller.AddRead(&netpoll.PollAttachment{FD: fd}, false); err != nil {
		l.put(fd, nil)
		return err
	}
	return nil
}

// Rearm makes the kernel report fd's readiness again, as if it had just been registered: for a handler that stopped
// early to let others have their turn.
func (l *Loop) Rearm(fd int) { _ = l.poller.ModReadWrite(&netpoll.PollAttachment{FD: fd}, true) }

// RearmRead is Rearm for what RegisterRead has registered.
func (l *Loop) RearmRead(fd int) { _ = l.poller.ModRead(&netpoll.PollAttachment{FD: fd}, true) }

// Forget stops watching fd and leaves it open.
func (l *Loop) Forget(fd int) {
	l.Assert()
	l.put(fd, nil)
	_ = l.poller.Delete(fd)
}

// Close stops watching fd and closes it, at once: later events of the old descriptor are harmless (package comment).
func (l *Loop) Close(fd int) {
	l.Assert()
	l.put(fd, nil)
	closefd(fd)
}

// pageBits: descriptors are process-wide, so each loop's table spans all of them, 16 bytes each. In pages it grows
// without copying and without garbage, and a loop pays only for the neighbourhoods it has descriptors in.
const pageBits = 8

type page [1 << pageBits]Handler

// handler returns what is registered for fd, or nil.
func (l *Loop) handler(fd int) Handler {
	if i := fd >> pageBits; i < len(l.handlers) && l.handlers[i] != nil {
		return l.handlers[i][fd&(1<<pageBits-1)]
	}
	return nil
}

// put enters h for fd; nil takes the entry out.
func (l *Loop) put(fd int, h Handler) {
	i := fd >> pageBits
	for i >= len(l.handlers) {
		l.handlers = append(l.handlers, nil)
	}
	if l.handlers[i] == nil {
		if h == nil {
			return
		}
		l.handlers[i] = new(page)
	}
	l.handlers[i][fd&(1<<pageBits-1)] = h
}

// After makes t fire d after now, a recent reading of Now, in place of its earlier time if it had one.
func (l *Loop) After(t *Timer, now int64, d time.Duration) {
	l.Assert()
	l.wheel.remove(t)
	if due := l.wheel.add(t, now, int64(d)); due < l.armed {
		l.arm(due)
	}
}

// Cancel keeps t from firing. The timerfd stays as it is: an early wake-up is cheaper than a system call here.
func (l *Loop) Cancel(t *Timer) {
	l.Assert()
	l.wheel.remove(t)
}

// Yield makes t fire once the events at hand have been handled, in place of its earlier time if it had one: for work that
// is cut into slices, so that others have their turn between them.
func (l *Loop) Yield(t *Timer) {
	l.Assert()
	l.wheel.remove(t)
	t.linkBefore(&l.soon)
	if now := l.Now(); now < l.armed {
		l.arm(now)
	}
}

func (l *Loop) arm(when int64) {
	l.armed = when
	// A zero it_value would disarm the timer.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(when-l.Now(), 1))}
	if err := unix.TimerfdSettime(l.timer, 0, &spec, nil); err != nil {
		panic(fmt.Sprintf("loop: timerfd_settime: %v", err)) // only bad arguments fail
	}
}

// tick is the Loop as the handler of its timerfd.
type tick Loop

// Ready fires the timers that are due and arms the timerfd for the next.
func (t *tick) Ready(int, Events) {
	l := (*Loop)(t)
	var b [8]byte
	_, _ = unix.Read(l.timer, b[:])
	l.armed = math.MaxInt64
	now := l.Now()
	l.yielded()
	l.wheel.advance(now)
	due := l.wheel.next()
	if l.soon.next != &l.soon {
		due = now
	}
	if due < l.armed {
		l.arm(due)
	}
}

// yielded fires the timers that Yield has set so far. One that yields again waits for the next turn.
func (l *Loop) yielded() {
	for t := l.soon.next; t != &l.soon; t = l.soon.next {
		t.unlink()
		t.linkBefore(&l.turn)
	}
	for t := l.turn.next; t != &l.turn; t = l.turn.next {
		t.unlink()
		t.h.Expire()
	}
}
