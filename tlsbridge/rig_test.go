package tlsbridge

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/engine/loop"
	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// rig is a small proxy around the package, on one loop, as an engine would drive it: the shortest example of use that
// works. Where it cuts corners (one buffer size, no splice, no retries) it says nothing about TLS.
type rig struct {
	t       testing.TB
	o       rigOptions
	loop    *loop.Loop
	workers *Workers
	address string
	backend *unix.SockaddrInet4

	// Owned by the loop.
	plain, cipher []byte
	scratch       *Scratch
	sessions      map[*rigSession]bool

	mu    sync.Mutex
	ended []string
}

// rigOptions say what a rig does. server nil: the client's bytes pass through; client nil: plain to the backend.
type rigOptions struct {
	server, client *tls.Config
	peek           bool // without server: wait for a ClientHello, and pass it through
	deadline       time.Duration
	pull           int // the most bytes of one read, 0 for no limit
	workers        *Workers
	gate           *Gate
}

type rigSession struct {
	r               *rig
	client, backend rigSide
	gated           bool
	timer           loop.Timer
	over            bool
	why             string // the first fault
	closing         bool   // an alert goes out, then FIN, then the client's FIN or the timer ends it
}

// rigSide is one end. The order of its states: peeking (client only), connecting (backend only), handshaking, open.
type rigSide struct {
	s        *rigSession
	fd       int
	conn     *Conn // nil: plain
	peeker   Peeker
	peek     []byte
	peeking  bool
	waiting  bool // connecting, or the handshake is with its worker
	open     bool
	readable bool
	eof      bool // all it sent was read
	last     bool // what it is to be sent is complete, FIN follows
	shut     bool
	failed   bool
	backlog  []byte
}

func newRig(t testing.TB, backend string, o rigOptions) *rig {
	t.Helper()
	lbtest.CheckLeaks(t)
	b := netip.MustParseAddrPort(backend)
	r := &rig{t: t, o: o, sessions: map[*rigSession]bool{}, plain: make([]byte, 64<<10), workers: o.workers,
		backend: &unix.SockaddrInet4{Addr: b.Addr().As4(), Port: int(b.Port())}}
	r.scratch = NewScratch(ScratchBytes)
	r.cipher = make([]byte, 0, MaxCiphertext(len(r.plain)))
	if r.o.deadline == 0 {
		r.o.deadline = time.Minute
	}
	if r.workers == nil {
		var err error
		if r.workers, err = NewWorkers(WorkerOptions{Count: 2}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.workers.Close)
	}
	var err error
	if r.loop, err = loop.New(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	r.address = netip.AddrPortFrom(netip.AddrFrom4(sa.(*unix.SockaddrInet4).Addr), uint16(sa.(*unix.SockaddrInet4).Port)).String()
	var done sync.WaitGroup
	done.Go(func() { _ = r.loop.Run() })
	r.loop.Call(func() { _ = r.loop.Listen(fd, &rigListener{r, fd}) })
	t.Cleanup(func() {
		r.loop.Call(func() {
			for s := range r.sessions {
				s.end("stopped")
			}
			r.loop.Close(fd)
		})
		r.loop.Stop()
		done.Wait()
	})
	return r
}

// dial connects to the rig.
func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// wantEnds waits until one session more than before has ended and returns why.
func (r *rig) wantEnds() string {
	r.t.Helper()
	why := ""
	lbtest.EventuallyIn(r.t, time.Minute, "the end of a session", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.ended) == 0 {
			return false
		}
		why, r.ended = r.ended[0], r.ended[1:]
		return true
	})
	return why
}

type rigListener struct {
	r  *rig
	fd int
}

func (l *rigListener) Ready(int, loop.Events) {
	for {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		s := &rigSession{r: l.r}
		s.client = rigSide{s: s, fd: fd}
		s.backend = rigSide{s: s, fd: -1}
		s.timer.Handle(s)
		l.r.sessions[s] = true
		if l.r.o.gate != nil {
			if l.r.o.gate.Enter(loopback) != Admitted {
				s.end("gate")
				continue
			}
			s.gated = true
		}
		s.client.peeking = l.r.o.server != nil || l.r.o.peek
		l.r.loop.After(&s.timer, l.r.loop.Now(), l.r.o.deadline)
		_ = l.r.loop.Register(fd, &s.client)
		if !s.client.peeking {
			s.client.opened()
			s.dial()
		}
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

func (s *rigSession) Expire() {
	if s.closing {
		s.end(s.why)
		return
	}
	s.end("deadline")
}

func (x *rigSide) peer() *rigSide {
	if x == &x.s.client {
		return &x.s.backend
	}
	return &x.s.client
}

// Pull is the Source of an open Conn.
func (x *rigSide) Pull(b []byte) (int, error) {
	if limit := x.s.r.o.pull; limit > 0 {
		b = b[:min(limit, len(b))]
	}
	n, err := unix.Read(x.fd, b)
	switch {
	case err == unix.EAGAIN:
		return 0, ErrWouldBlock
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (x *rigSide) Ready(_ int, ev loop.Events) {
	if x.s.over {
		return
	}
	if ev.Readable() {
		x.readable = true
	}
	if ev.Writable() && len(x.backlog) > 0 {
		x.send(nil)
	}
	x.s.step(x)
}

// step does what can be done after an event of x.
func (s *rigSession) step(x *rigSide) {
	switch {
	case s.closing:
		s.close()
	case x.peeking:
		x.peekHello()
	case x == &s.backend && x.waiting && x.conn == nil:
		s.connected()
	case x.conn != nil && !x.open:
		x.feed()
	case s.client.open && s.backend.open:
		s.relay()
	}
}

// peekHello gathers the ClientHello.
func (x *rigSide) peekHello() {
	r := x.s.r
	for x.readable {
		n, err := x.Pull(r.plain)
		if err == ErrWouldBlock {
			x.readable = false
			return
		}
		if err != nil {
			x.s.end("peek: " + err.Error())
			return
		}
		x.peek = append(x.peek, r.plain[:n]...)
		var h Hello
		switch status := x.peeker.Peek(x.peek, HelloLimit, &h); status {
		case NeedMore:
		case Found:
			x.peeking = false
			if r.o.server == nil {
				x.s.backend.backlog, x.peek = x.peek, nil
				x.opened()
				x.s.dial()
				return
			}
			x.conn = r.workers.Server(x.params(r.o.server))
			x.waiting = true
			x.conn.Feed(x.peek)
			x.peek = nil
			return
		default:
			x.s.end(status.String())
			return
		}
	}
}

func (x *rigSide) params(config *tls.Config) Params {
	return Params{Config: config, Source: x, Notify: func() { x.s.r.loop.Post(x.handshaken) }}
}

// feed hands the handshake what has arrived.
func (x *rigSide) feed() {
	if x.waiting || !x.readable {
		return
	}
	n, err := x.Pull(x.s.r.plain)
	switch {
	case err == ErrWouldBlock:
		x.readable = false
	case err != nil:
		x.s.end("handshake: " + err.Error())
	default:
		x.waiting = true
		x.conn.Feed(x.s.r.plain[:n])
	}
}

// handshaken takes the result of a step of the handshake.
func (x *rigSide) handshaken() {
	s := x.s
	if s.over { // the Conn was cancelled meanwhile
		return
	}
	x.waiting = false
	result := x.conn.Result()
	x.send(result.Out)
	switch result.State {
	case Handshaking:
		x.feed()
	case Open:
		x.readable = true
		x.opened()
		if x == &s.client {
			s.dial()
		} else if s.client.open {
			s.relay()
		}
	case Failed:
		s.why = "handshake: " + result.Err.Error()
		if x == &s.client {
			s.closing = true
			s.close()
		} else {
			s.end(s.why)
		}
	}
}

func (x *rigSide) opened() {
	x.open = true
	if x == &x.s.client && x.s.gated {
		x.s.r.o.gate.Leave(loopback)
		x.s.gated = false
	}
}

// close lets a last alert reach the client: a close with unread input would reset the connection, and the alert with it.
func (s *rigSession) close() {
	c := &s.client
	if len(c.backlog) > 0 && !c.failed {
		return
	}
	if !c.shut {
		c.shut = true
		_ = unix.Shutdown(c.fd, unix.SHUT_WR)
		s.r.loop.After(&s.timer, s.r.loop.Now(), time.Second)
	}
	for {
		if _, err := c.Pull(s.r.plain); err == ErrWouldBlock {
			return
		} else if err != nil {
			s.end(s.why)
			return
		}
	}
}

func (s *rigSession) dial() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.end("socket")
		return
	}
	s.backend.fd, s.backend.waiting = fd, true
	if err := unix.Connect(fd, s.r.backend); err != nil && err != unix.EINPROGRESS {
		s.end("connect")
		return
	}
	_ = s.r.loop.Register(fd, &s.backend)
}

func (s *rigSession) connected() {
	b := &s.backend
	if _, err := unix.Write(b.fd, nil); err == unix.EAGAIN || err == unix.ENOTCONN {
		return
	}
	if e, err := unix.GetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
		s.end("connect")
		return
	}
	if _, err := unix.Getpeername(b.fd); err != nil {
		return // not yet
	}
	b.waiting = false
	if config := s.r.o.client; config != nil {
		b.conn, b.waiting = s.r.workers.Client(b.params(config)), true
		b.conn.Feed(nil)
		return
	}
	s.r.loop.Cancel(&s.timer)
	b.opened()
	b.send(nil)
	s.relay()
}

func (s *rigSession) relay() {
	s.r.loop.Cancel(&s.timer)
	s.pump(&s.client, &s.backend)
	s.pump(&s.backend, &s.client)
	s.settle()
}

// pump moves what src has to dst.
func (s *rigSession) pump(src, dst *rigSide) {
	r := s.r
	for src.readable && !src.failed && !dst.failed && len(dst.backlog) == 0 && len(src.backlog) < 64<<10 {
		var n int
		var err error
		if src.conn != nil {
			var own []byte
			n, own, err = src.conn.Read(r.scratch, r.plain, r.cipher[:0])
			src.send(own)
		} else {
			n, err = src.Pull(r.plain)
		}
		if n > 0 {
			if dst.conn != nil {
				out, err := dst.conn.Write(r.plain[:n], r.cipher[:0])
				if err != nil {
					s.why, dst.failed = "write: "+err.Error(), true
					return
				}
				dst.send(out)
			} else {
				dst.send(r.plain[:n])
			}
		}
		switch {
		case err == nil:
		case err == ErrWouldBlock:
			src.readable = false
		case err == io.EOF:
			src.eof, src.readable = true, false
		default:
			src.failed = true
			if s.why == "" {
				s.why = err.Error()
			}
		}
	}
}

// settle passes on the end of a stream, or ends the session.
func (s *rigSession) settle() {
	if s.over {
		return
	}
	for _, src := range []*rigSide{&s.client, &s.backend} {
		dst := src.peer()
		if src.failed && len(dst.backlog) == 0 {
			if src == &s.client && src.conn != nil && src.conn.lost == nil && !src.conn.fin {
				src.failed, s.closing = false, true // an alert tells it why
				s.close()
				return
			}
			s.end(s.why)
			return
		}
		if !src.eof || dst.failed || len(dst.backlog) > 0 {
			continue
		}
		if !dst.last {
			dst.last = true
			if dst.conn != nil {
				dst.send(dst.conn.CloseWrite(s.r.cipher[:0]))
			}
		}
		if len(dst.backlog) == 0 && !dst.shut {
			dst.shut = true
			_ = unix.Shutdown(dst.fd, unix.SHUT_WR)
		}
	}
	if s.client.shut && s.backend.shut {
		s.end("eof")
	}
}

// send sends b after what waits already, and keeps the rest.
func (x *rigSide) send(b []byte) {
	if x.failed {
		return
	}
	waiting := len(x.backlog) > 0
	if waiting || x.fd < 0 {
		x.backlog = append(x.backlog, b...)
		b = x.backlog
	}
	for len(b) > 0 && x.fd >= 0 {
		n, err := unix.SendmsgN(x.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			x.failed = true
			if x.s.why == "" {
				x.s.why = "send: " + err.Error()
			}
			break
		}
		b = b[n:]
	}
	if waiting {
		x.backlog = x.backlog[:copy(x.backlog, b)]
	} else {
		x.backlog = append(x.backlog[:0], b...)
	}
}

// end ends the session: with a reset, unless both streams came to their ends.
func (s *rigSession) end(why string) {
	if s.over {
		return
	}
	s.over = true
	s.r.loop.Cancel(&s.timer)
	if s.gated {
		s.r.o.gate.Leave(loopback)
	}
	for _, x := range []*rigSide{&s.client, &s.backend} {
		if x.conn != nil {
			x.conn.Cancel()
		}
		if x.fd >= 0 {
			if why != "eof" && !(s.closing && x == &s.client) {
				_ = unix.SetsockoptLinger(x.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &unix.Linger{Onoff: 1})
			}
			s.r.loop.Close(x.fd)
		}
	}
	delete(s.r.sessions, s)
	s.r.mu.Lock()
	s.r.ended = append(s.r.ended, why)
	s.r.mu.Unlock()
}
