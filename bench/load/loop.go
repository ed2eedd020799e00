package load

import (
	"fmt"
	"runtime"
	"syscall"
	"time"

	"awe4lb/bench/hist"
	"awe4lb/bench/sys"
)

const (
	readBytes    = 256 << 10
	eventBatch   = 512
	maxOpening   = 64                     // connects in flight per loop while a fixed set is opened: kind to backlogs
	phasePoll    = 5 * time.Millisecond   // a loop with nothing to do looks for a new phase this often
	idlePoll     = 100 * time.Millisecond // the same while connections are held in silence
	timeoutCheck = int64(100 * time.Millisecond)
)

// mode is the part of a loop that differs between kinds of load. All methods run on the loop's goroutine.
type mode interface {
	enter(p phase)                        // a new phase has begun
	event(slot int, gen int32, ev uint32) // epoll reports; gen tells a stale event of a slot that was reused
	wake(now int64)                       // called before every wait: send what is due, find what timed out
	wait(now int64) time.Duration         // how long the loop may wait for events
	ready() bool                          // phaseConnect is over for this loop
	done() bool                           // nothing is in flight, or ever will be
	closeAll()                            // the end: close every socket
}

// part is a share of the generator that follows the run's phases by itself: a loop, or the goroutines of a secureClients.
type part interface {
	run()               // returns after phaseStop
	measured() *figures // complete when run has returned
	abandon()           // instead of run
}

// figures are what a part has measured within the window, and how it reports back.
type figures struct {
	ready chan struct{} // closed when everything is connected
	done  chan struct{} // closed when nothing is in flight any more

	units     int64
	bytesUp   int64
	bytesDown int64
	latency   *hist.Histogram
	lag       *hist.Histogram
	datagrams Datagrams
}

func newFigures() figures {
	return figures{ready: make(chan struct{}), done: make(chan struct{}), latency: new(hist.Histogram), lag: new(hist.Histogram)}
}

func (f *figures) measured() *figures { return f }

// newPart returns the part of that number, 0..Threads-1.
func newPart(r *run, index int) (part, error) {
	if r.cfg.TLS != nil {
		switch r.cfg.Mode {
		case Connections:
			return newHandshakes(r, index)
		case Bulk:
			return newSecureBulk(r, index)
		}
	}
	return newLoop(r, index)
}

// loop is one event loop: an epoll instance, the connections of its mode, and what it measured. Owned by its goroutine;
// others read the figures after it has ended.
type loop struct {
	// Set once, never changed.
	r      *run
	index  int // 0..Threads-1
	ep     sys.Epoll
	mode   mode
	buf    []byte
	events []sys.Event

	figures
}

func newLoop(r *run, index int) (*loop, error) {
	ep, err := sys.NewEpoll()
	if err != nil {
		return nil, err
	}
	l := &loop{r: r, index: index, ep: ep,
		buf: make([]byte, readBytes), events: make([]sys.Event, eventBatch), figures: newFigures()}
	switch r.cfg.Mode {
	case Requests, Idle, HalfOpen:
		m, err := newRequests(l)
		if err != nil {
			ep.Close()
			return nil, err
		}
		l.mode = m
	case Connections:
		l.mode = newConnections(l)
	case UDP:
		m, err := newDatagrams(l)
		if err != nil {
			ep.Close()
			return nil, err
		}
		l.mode = m
	default:
		l.mode = newBulk(l)
	}
	return l, nil
}

// run is the loop's goroutine, started and waited for by Run, ended by phaseStop.
func (l *loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sys.PreciseTimers()
	defer l.ep.Close()
	defer l.mode.closeAll()

	current := phase(-1)
	isReady, isDone := false, false
	for {
		if p := l.r.phase.Load(); p != current {
			if current = p; p == phaseStop {
				return
			}
			l.mode.enter(p)
		}
		now := l.r.now()
		l.mode.wake(now)
		if !isReady && l.mode.ready() {
			isReady = true
			close(l.ready)
		}
		if !isDone && current >= phaseRun && l.mode.done() {
			isDone = true
			close(l.done)
		}
		n := l.ep.Wait(l.events, l.mode.wait(now))
		for i := range n {
			e := &l.events[i]
			l.mode.event(sys.Slot(e), sys.Gen(e), e.Events)
		}
	}
}

func (l *loop) abandon() {
	l.mode.closeAll()
	l.ep.Close()
}

// share returns this loop's part of a total that is dealt out evenly.
func (l *loop) share(total int64) int64 { return l.r.share(l.index, total) }

func (r *run) share(index int, total int64) int64 {
	n := int64(r.cfg.Threads)
	part := total / n
	if int64(index) < total%n {
		part++
	}
	return part
}

// dial opens a socket and starts connecting. It returns -1 after counting the failure.
func (l *loop) dial(slot int, gen int32, interest uint32) int {
	cfg := &l.r.cfg
	fd, errno := sys.Socket()
	if errno != 0 {
		l.r.fail(fmt.Sprintf("%s: socket: %s", ErrConnect, errno.Error()), 1)
		return -1
	}
	if cfg.Sources > 0 {
		from := sys.LoopbackSource((slot*cfg.Threads + l.index) % cfg.Sources)
		errno = sys.BindSource(fd, &from)
	}
	if errno == 0 {
		errno = sys.Connect(fd, &l.r.target)
	}
	if errno == 0 || errno == syscall.EINPROGRESS {
		errno = l.ep.Add(fd, interest, slot, gen)
	}
	if errno != 0 {
		sys.Close(fd)
		l.failConnect(errno)
		return -1
	}
	return fd
}

func (l *loop) failConnect(errno syscall.Errno) {
	l.r.fail(fmt.Sprintf("%s: %s", ErrConnect, errno.Error()), 1)
}

// kindOf names an errno of read or send.
func kindOf(errno syscall.Errno) string {
	if errno == syscall.ECONNRESET || errno == syscall.EPIPE {
		return ErrReset
	}
	return fmt.Sprintf("%s: %s", ErrIO, errno.Error())
}

const ended = sys.RdHup | sys.Hup | sys.Err // the peer has ended, one way or another
