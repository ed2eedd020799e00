// Package backend is what stands behind every proxy in a benchmark: an HTTP server with a fixed small body, bulk sinks
// and sources, an echo, and a UDP echo, all in one process of one or more epoll loops. It also holds the naive proxy, a
// rival.
//
// It does as little as an honest server can: the same bytes for the same request, no goroutine per connection, no
// allocation in steady state. It counts what it does (Counters, and GET /counters), so that a runner can see how much a
// proxy has swallowed. The protocols are package wire's.
package backend

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"awe4lb/bench/sys"
)

const (
	readBytes    = 256 << 10
	acceptBudget = 64 // per event, so that a burst of connects cannot starve the open ones
	eventBatch   = 512
	stopPoll     = 20 * time.Millisecond // how often a loop looks whether to stop
	emfilePause  = 10 * time.Millisecond
)

// Config says what to serve. An empty address means: not this one. Port 0 takes any free port.
type Config struct {
	HTTP    []string // IPv4 addresses of the HTTP server
	Bulk    string   // IPv4 address of the bulk sink and source
	Echo    string   // IPv4 address of the echo
	UDP     string   // IPv4 address of the UDP echo
	Threads int      // event loops, each with its own SO_REUSEPORT listeners; 0 = 1
	Backlog int      // 0 = 4096
}

// Counters is what all loops have done since the start.
type Counters struct {
	Accepted     int64 `json:"accepted"`
	Requests     int64 `json:"requests"`
	BulkReceived int64 `json:"bulk_received"` // bytes of pattern
	BulkSent     int64 `json:"bulk_sent"`     // bytes of pattern
	Refused      int64 `json:"refused"`       // connections that spoke nonsense, or found no file descriptor

	DatagramsReceived int64 `json:"datagrams_received"`
	DatagramsSent     int64 `json:"datagrams_sent"`
}

// Server is a running set of backends.
type Server struct {
	// Set once: the addresses really bound.
	HTTP []string
	Bulk string
	Echo string
	UDP  string

	loops []*loop
	stop  atomic.Bool
	done  sync.WaitGroup

	// Shared: atomics.
	accepted, requests, bulkReceived, bulkSent, refused atomic.Int64
	datagramsReceived, datagramsSent                    atomic.Int64
	warnEMFILE                                          sync.Once
}

// kind is the protocol a listener speaks.
type kind uint8

const (
	kindHTTP kind = iota
	kindBulk
	kindEcho
)

// What epoll says of a socket that is no connection: connections have a gen of 0 and more.
const (
	genListener  = -1
	genDatagrams = -2
)

type listener struct {
	fd   int
	kind kind
}

// conn is one accepted connection, owned by its loop. Its slot is its fd.
type conn struct {
	fd   int
	gen  int32 // of the fd: tells a stale event of the fd's former owner
	kind kind

	pending  []byte // output the socket did not take yet; nothing is read meanwhile (HTTP, echo)
	carry    []byte // HTTP: an incomplete request, bulk: an incomplete header
	hup      bool   // the kernel has announced the end: a short read does not mean drained
	closing  bool   // close once pending is out
	bulk     bulkState
	interest uint32 // what epoll watches, for bulk, which is level-triggered
}

// loop is one event loop and everything it owns.
type loop struct {
	s         *Server
	ep        sys.Epoll
	listeners []listener
	datagrams *datagrams // nil when there is no UDP echo
	conns     []*conn    // by fd; nil = not ours
	gens      []int32    // by fd
	free      []*conn
	buf       []byte
	events    []sys.Event

	// The last request seen and its answer: requests of a benchmark are all alike.
	lastRequest  []byte
	lastResponse []byte
	lastClose    bool
}

// Start opens the listeners and starts the loops; each holds one OS thread until Stop. It fails when an address is not
// IPv4 or cannot be bound.
func Start(cfg Config) (*Server, error) {
	if cfg.Threads <= 0 {
		cfg.Threads = 1
	}
	if cfg.Backlog <= 0 {
		cfg.Backlog = 4096
	}
	s := &Server{HTTP: append([]string(nil), cfg.HTTP...), Bulk: cfg.Bulk, Echo: cfg.Echo, UDP: cfg.UDP}
	for range cfg.Threads {
		l, err := newLoop(s, cfg.Backlog)
		if err != nil {
			s.abandon()
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	for _, l := range s.loops {
		s.done.Add(1)
		go l.run()
	}
	return s, nil
}

// Stop closes everything and waits for the loops.
func (s *Server) Stop() {
	s.stop.Store(true)
	s.done.Wait()
}

// Counters returns the totals; safe from any goroutine.
func (s *Server) Counters() Counters {
	return Counters{s.accepted.Load(), s.requests.Load(), s.bulkReceived.Load(), s.bulkSent.Load(), s.refused.Load(),
		s.datagramsReceived.Load(), s.datagramsSent.Load()}
}

func (s *Server) abandon() {
	for _, l := range s.loops {
		l.closeAll()
	}
}

// newLoop opens a loop's listeners. The first loop turns port 0 into a port, which the others then share.
func newLoop(s *Server, backlog int) (*loop, error) {
	ep, err := sys.NewEpoll()
	if err != nil {
		return nil, err
	}
	l := &loop{s: s, ep: ep, buf: make([]byte, readBytes), events: make([]sys.Event, eventBatch)}
	for i := range s.HTTP {
		if err := l.listen(&s.HTTP[i], kindHTTP, backlog); err != nil {
			l.closeAll()
			return nil, err
		}
	}
	for _, w := range []struct {
		address *string
		kind    kind
	}{{&s.Bulk, kindBulk}, {&s.Echo, kindEcho}} {
		if *w.address == "" {
			continue
		}
		if err := l.listen(w.address, w.kind, backlog); err != nil {
			l.closeAll()
			return nil, err
		}
	}
	if s.UDP != "" {
		if err := l.listenDatagrams(&s.UDP); err != nil {
			l.closeAll()
			return nil, err
		}
	}
	return l, nil
}

// listen opens *address and writes back the address it got.
func (l *loop) listen(address *string, k kind, backlog int) error {
	a, err := sys.ParseAddr(*address)
	if err != nil {
		return err
	}
	fd, bound, err := sys.Listen(a, backlog)
	if err != nil {
		return err
	}
	*address = bound.String()
	l.listeners = append(l.listeners, listener{fd, k})
	if errno := l.ep.Add(fd, sys.In, len(l.listeners)-1, genListener); errno != 0 {
		return fmt.Errorf("epoll_ctl add %s: %w", bound, errno)
	}
	return nil
}

// run is the loop's goroutine: named in stack dumps by this method, started by Start, ended by Stop.
func (l *loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer l.s.done.Done()
	defer l.closeAll()
	for !l.s.stop.Load() {
		n := l.ep.Wait(l.events, stopPoll)
		for i := range n {
			l.dispatch(&l.events[i])
		}
	}
}

func (l *loop) dispatch(e *sys.Event) {
	slot := sys.Slot(e)
	switch sys.Gen(e) {
	case genListener:
		l.accept(l.listeners[slot])
		return
	case genDatagrams:
		l.serveDatagrams(l.datagrams)
		return
	}
	c := l.conns[slot]
	if c == nil || c.gen != sys.Gen(e) {
		return // stale: the fd was closed, and perhaps reused, earlier in this batch
	}
	if e.Events&(sys.RdHup|sys.Hup|sys.Err) != 0 {
		c.hup = true
	}
	switch c.kind {
	case kindHTTP:
		l.serveHTTP(c)
	case kindBulk:
		l.serveBulk(c)
	case kindEcho:
		l.serveEcho(c)
	}
}

func (l *loop) accept(from listener) {
	for range acceptBudget {
		fd, errno := sys.Accept(from.fd)
		switch errno {
		case 0:
			l.open(fd, from.kind)
		case syscall.EAGAIN:
			return
		case syscall.EMFILE, syscall.ENFILE:
			l.s.refused.Add(1)
			l.s.warnEMFILE.Do(func() {
				fmt.Fprintln(os.Stderr, "bench backend: out of file descriptors; raise the limit with ulimit -n")
			})
			time.Sleep(emfilePause)
			return
		}
	}
}

func (l *loop) open(fd int, k kind) {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*conn, 256)...)
		l.gens = append(l.gens, make([]int32, 256)...)
	}
	var c *conn
	if n := len(l.free); n > 0 {
		c, l.free = l.free[n-1], l.free[:n-1]
		*c = conn{carry: c.carry[:0]}
	} else {
		c = new(conn)
	}
	l.gens[fd] = (l.gens[fd] + 1) & 0x7fffffff
	c.fd, c.gen, c.kind = fd, l.gens[fd], k
	l.conns[fd] = c
	l.s.accepted.Add(1)
	interest := sys.In | sys.Out | sys.RdHup | sys.Edge
	if k == kindBulk {
		interest = sys.In
		c.interest = interest
	}
	if errno := l.ep.Add(fd, interest, fd, c.gen); errno != 0 {
		l.close(c)
	}
}

func (l *loop) close(c *conn) {
	l.conns[c.fd] = nil
	sys.Close(c.fd)
	l.free = append(l.free, c)
}

// refuse closes a connection that does not speak our protocol.
func (l *loop) refuse(c *conn) {
	l.s.refused.Add(1)
	l.close(c)
}

func (l *loop) closeAll() {
	for _, c := range l.conns {
		if c != nil {
			sys.Close(c.fd)
		}
	}
	for _, li := range l.listeners {
		sys.Close(li.fd)
	}
	if l.datagrams != nil {
		sys.Close(l.datagrams.fd)
	}
	l.ep.Close()
}
