package loop

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// Calm keeps Go's scheduler from taking the processors of loops that sleep for a moment, and from waking others to share their
// work when they do: up to a third of the CPU under moderate load (docs/decisions/0079-keeping-the-monitor-calm.md). It does so
// by holds: times in which a loop that sleeps keeps its processor, in a system call that the scheduler does not know of.
//
// Go's monitor thread (sysmon) is in one of two states, by what it found last, and stays there:
//
//	      it finds a loop twice in the same system call
//	  ┌─────────────────────────────────────────────────────┐
//	  v                                                     │
//	eager: looks every 20 us, and takes the           calm: looks every 10 ms: no busy
//	processor of each loop that sleeps longer         loop sleeps for that long
//	  │                                                     ^
//	  └─────────────────────────────────────────────────────┘
//	      there is nothing to take, for five milliseconds or so
//
// While loops have much to do, one of them looks now and then how often the monitor has run. When it is eager, all loops hold
// for so long that it calms down. When it is calm, loops that have nothing to do hold until they have: were their processors
// idle, Go would wake a thread for one of them each time that a busy loop is about to sleep. An idle process does nothing of
// the kind.
type Calm struct {
	// Set once, never changed.
	loops []*Loop
	epoch time.Time
	stat  int // schedstat of the monitor's thread

	// Shared: atomics. Who moves due on looks and writes the others.
	due   atomic.Int64  // the next look, in nanoseconds since epoch
	at    atomic.Int64  // the last one
	runs  atomic.Uint64 // of the monitor, by then
	pause atomic.Int64  // between holds, in nanoseconds
	holds atomic.Uint64
}

// Measured on 2026-11-30 with 2 shards and 10,000 requests a second.
const (
	lookEvery = 1 << 10               // events of one loop, and
	lookPause = 50 * time.Millisecond // not sooner than that after the last look
	longPause = 5 * time.Second       // between holds that do not help
	eager     = 2000                  // runs per second; an eager monitor has 10,000 and more, a calm one 100
	holdFor   = 8 * time.Millisecond  // 50 rounds of 20 us with 50 us of the kernel's slack, then doubling up to 2 ms
	idleFor   = time.Second           // an idle loop holds, when it stays idle and others are busy
	idleSlice = 3 * time.Millisecond  // and then lets others have the processor, if they want it
	idleLoops = 8                     // in a process with more, idle ones do not hold: the monitor disturbs each 100 times a second
)

// KeepCalm makes the loops, all that run in this process, keep the monitor calm, until Close. It is to be called before
// they run. Where the kernel does not say how often a thread has run it fails, and nothing is different.
func KeepCalm(loops []*Loop) (*Calm, error) {
	stat, err := monitorStat()
	if err != nil {
		return nil, err
	}
	c := &Calm{loops: loops, epoch: time.Now(), stat: stat}
	for _, l := range loops {
		if err := l.hold.open(c, l); err != nil {
			_ = unix.Close(stat)
			return nil, err
		}
	}
	for _, l := range loops {
		l.calm = c
	}
	return c, nil
}

// Close releases what KeepCalm took. The loops must have ended.
func (c *Calm) Close() { _ = unix.Close(c.stat) }

// monitorStat opens the schedstat of the thread that Go's runtime starts before any other.
func monitorStat() (fd int, err error) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	ids, err := dir.Readdirnames(2) // in the order of their start
	if err != nil {
		return -1, err
	}
	if len(ids) < 2 || ids[0] != strconv.Itoa(os.Getpid()) {
		return -1, fmt.Errorf("%s: threads %q, want the first of the process and another", dir.Name(), ids)
	}
	path := dir.Name() + "/" + ids[1] + "/schedstat"
	if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// now is the time since epoch, in nanoseconds.
func (c *Calm) now() int64 { return int64(time.Since(c.epoch)) }

// look has all loops hold if the monitor is eager, and idle ones if it is calm. Any loop may call it; one at a time looks.
func (c *Calm) look(now int64) {
	due := c.due.Load()
	if now < due || !c.due.CompareAndSwap(due, now+int64(lookPause)) {
		return
	}
	runs, ok := c.monitorRuns()
	if !ok {
		return
	}
	elapsed := now - c.at.Swap(now)
	ran := runs - c.runs.Swap(runs)
	if float64(ran) < eager*time.Duration(elapsed).Seconds() {
		c.pause.Store(0)
		c.holdIdle(now)
		return
	}
	// Others than loops may keep the monitor busy: programs that are run, files that are read. Then holding does not help.
	pause := max(c.pause.Load(), int64(lookPause))
	c.pause.Store(min(2*pause, int64(longPause)))
	c.due.Store(now + pause)
	c.holds.Add(1)
	for _, l := range c.loops {
		l.Post(l.hold.begin)
	}
}

// holdIdle has loops that have had nothing to do since the last time hold.
func (c *Calm) holdIdle(now int64) {
	if len(c.loops) > idleLoops {
		return
	}
	for _, l := range c.loops {
		if l.hold.idleUntil.Load() < now+2*int64(lookPause) {
			l.Post(l.hold.ifIdle)
		}
	}
}

// monitorRuns returns how often the monitor was given a processor: the third number of a schedstat. It is 0 where the kernel
// has the file and does not count.
func (c *Calm) monitorRuns() (runs uint64, ok bool) {
	var b [96]byte
	n, err := unix.Pread(c.stat, b[:], 0)
	if err != nil {
		return 0, false
	}
	fields := bytes.TrimSpace(b[:n])
	for _, d := range fields[bytes.LastIndexByte(fields, ' ')+1:] {
		if d < '0' || d > '9' {
			return 0, false
		}
		runs = 10*runs + uint64(d-'0')
	}
	return runs, runs > 0
}

// hold is a loop that keeps its processor for a time. A posted function then takes netpoll's place: it waits for events on
// netpoll's descriptor, in a system call that Go's scheduler does not know of, and dispatches them.
type hold struct {
	// Set once, never changed; zero without KeepCalm.
	loop   *Loop
	epoll  int               // netpoll's descriptor
	fd     int               // an eventfd, to end the wait
	events []unix.EpollEvent // scratch
	begin  func()            // starts a hold, whatever there is to do
	ifIdle func()            // starts one that ends with the next event, if there was none since it last ran
	take   func()            // takes netpoll's place

	// Owned by the loop's goroutine.
	until  int64  // 0: no hold
	idle   bool   // the next event ends it
	seen   uint32 // the loop's events when it began, if it is idle
	asked  uint32 // and when ifIdle last ran
	posted bool   // take is
	waits  uint32 // times that it has waited; wraps

	// Shared: atomics.
	waiting   atomic.Bool  // netpoll says nothing of what is posted; who posts is to end the wait
	idleUntil atomic.Int64 // the end of a hold by ifIdle, in nanoseconds since the epoch of Calm; 0: none
}

// holdEvents is how many events a loop that holds takes at once.
const holdEvents = 128

func (h *hold) open(c *Calm, l *Loop) (err error) {
	if h.epoll, err = epollOf(l.poller); err != nil {
		return err
	}
	if h.fd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	h.loop, h.events = l, make([]unix.EpollEvent, holdEvents)
	h.begin = func() { h.start(holdFor, false) }
	h.ifIdle = func() {
		idle := h.asked == l.events
		h.asked = l.events
		if idle && (h.until == 0 || h.idle) {
			h.seen = l.events
			h.start(idleFor, true)
			h.idleUntil.Store(c.now() + int64(idleFor))
		}
	}
	h.take = h.run
	return l.Listen(h.fd, h)
}

func (h *hold) start(d time.Duration, idle bool) {
	h.until, h.idle = h.loop.Now()+int64(d), idle
	h.goOn()
}

// goOn takes netpoll's place after what else is posted.
func (h *hold) goOn() {
	if !h.posted {
		h.posted = true
		h.loop.Post(h.take)
	}
}

// epollOf reads the descriptor out of a poller, which has no method for it.
func epollOf(p *netpoll.Poller) (int, error) {
	if fd := reflect.ValueOf(p).Elem().FieldByName("fd"); fd.CanInt() {
		return int(fd.Int()), nil
	}
	return -1, fmt.Errorf("netpoll.Poller has no integer fd")
}

// left returns for how long it is to hold on, in nanoseconds.
func (h *hold) left() int64 {
	if h.idle && h.seen != h.loop.events {
		return 0
	}
	return h.until - h.loop.Now()
}

// run is a loop, until the hold is over or there is something that was posted: that is netpoll's to run.
func (h *hold) run() {
	h.posted = false
	for left := h.left(); left > 0; left = h.left() {
		h.waiting.Store(true)
		if l := h.loop; l.posted.Load() != l.ran {
			h.waiting.Store(false)
			h.goOn()
			return
		}
		if h.idle {
			left = min(left, int64(idleSlice))
		}
		h.wait(left)
	}
	h.until, h.idle = 0, false
	h.idleUntil.Store(0)
}

// wait waits for events, for some nanoseconds or a little longer, and dispatches them.
func (h *hold) wait(most int64) {
	h.waits++
	ms := (most + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(h.epoll), uintptr(unsafe.Pointer(&h.events[0])), uintptr(len(h.events)), uintptr(ms), 0, 0)
	h.waiting.Store(false)
	if errno != 0 {
		n = 0
	}
	for _, ev := range h.events[:n] {
		_ = h.loop.dispatch(int(ev.Fd), ev.Events, 0)
	}
	if n == 0 && h.idle { // also after a signal, which is how Go's scheduler asks for the processor
		runtime.Gosched()
	}
}

// Ready takes back what has ended a wait.
func (h *hold) Ready(int, Events) {
	h.loop.events-- // this is none
	var b [8]byte
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(h.fd), uintptr(unsafe.Pointer(&b)), 8)
}

// rouse ends the wait of a loop that has something to do since it was posted. Safe from any goroutine.
func (h *hold) rouse() {
	if h.waiting.Load() && h.waiting.CompareAndSwap(true, false) {
		one := [8]byte{1}
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(h.fd), uintptr(unsafe.Pointer(&one)), 8)
	}
}

func (h *hold) close() {
	if h.loop != nil {
		_ = unix.Close(h.fd)
	}
}
