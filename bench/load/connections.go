package load

import (
	"bytes"
	"syscall"
	"time"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

// connections makes short connections, P of them at a time: connect, one request, the response, the backend's close.
// The backend closes first unless ClientCloses, so that the TIME_WAIT stays on the far side and the generator's ports
// are free at once; it also proves that the proxy carries a FIN across.
//
//	closed --dial--> connecting --> waiting --(whole response)--> closing --(FIN)--> closed
//
// Latency counts from the connect, in an open loop from when it should have been made, to the response's last byte.
type connections struct {
	// Set once.
	l        *loop
	slots    []shortConn
	request  []byte
	response []byte
	quota    int64
	period   float64
	offset   float64

	free      []int // closed slots
	issued    int64
	next      int64 // open loop: the next connection of the schedule
	backlog   int64 // open loop: connections that are due and wait for a slot; the schedule's numbers before next
	from, to  int64
	started   bool
	running   bool
	nextCheck int64
}

type shortState uint8

const (
	shortClosed shortState = iota
	shortConnecting
	shortWaiting
	shortClosing
)

type shortConn struct {
	fd    int
	gen   int32
	state shortState
	out   int
	got   int
	start int64
	since int64
}

func newConnections(l *loop) *connections {
	cfg := &l.r.cfg
	m := &connections{l: l,
		slots:    make([]shortConn, l.share(int64(cfg.Conns))),
		request:  wire.Request(cfg.RequestBytes, cfg.ResponseBytes, !cfg.ClientCloses),
		response: wire.Response(cfg.ResponseBytes, !cfg.ClientCloses),
		quota:    l.share(cfg.Count),
	}
	for i := range m.slots {
		m.free = append(m.free, i)
	}
	if cfg.Rate > 0 {
		m.period = 1e9 * float64(cfg.Threads) / cfg.Rate
		m.offset = m.period * float64(l.index) / float64(cfg.Threads)
	}
	return m
}

func (m *connections) enter(p phase) {
	switch p {
	case phaseRun:
		m.started, m.running = true, true
		cfg := &m.l.r.cfg
		m.from = m.l.r.t0 + int64(cfg.Warmup)
		m.to = m.from + int64(cfg.Duration)
	case phaseDrain:
		m.running = false
	}
}

func (m *connections) ready() bool { return true }

func (m *connections) done() bool {
	if len(m.free) < len(m.slots) {
		return false
	}
	if m.period > 0 {
		return !m.running && m.backlog == 0 && m.intended(m.next) >= m.to
	}
	return !m.mayOpen()
}

func (m *connections) mayOpen() bool {
	return m.running && m.period == 0 && (m.quota == 0 || m.issued < m.quota)
}

func (m *connections) intended(k int64) int64 {
	return m.l.r.t0 + int64(m.offset+float64(k)*m.period)
}

// wake opens what is due: in a closed loop, every free slot.
func (m *connections) wake(now int64) {
	if m.period > 0 && m.started {
		for at := m.intended(m.next); at <= now && at < m.to; at = m.intended(m.next) {
			if at >= m.from && m.backlog == 0 && len(m.free) > 0 {
				m.l.lag.Record(time.Duration(now - at))
			}
			m.next++
			m.backlog++
			m.openDue(now)
		}
	}
	// One try per slot and turn: a target that refuses must not keep the loop from its events.
	for range len(m.slots) {
		if len(m.free) == 0 || !m.mayOpen() {
			break
		}
		m.open(now, now)
	}
	if now >= m.nextCheck {
		m.nextCheck = now + timeoutCheck
		for i := range m.slots {
			if c := &m.slots[i]; c.state != shortClosed && now-c.since > int64(m.l.r.cfg.Timeout) {
				m.timeout(c, i)
			}
		}
	}
}

// openDue opens the connections that wait for a slot, oldest first.
func (m *connections) openDue(now int64) {
	for m.backlog > 0 && len(m.free) > 0 {
		at := m.intended(m.next - m.backlog)
		m.backlog--
		m.open(at, now)
	}
}

// open takes a free slot and connects; the connection was due at start.
func (m *connections) open(start, now int64) {
	slot := m.free[len(m.free)-1]
	c := &m.slots[slot]
	m.issued++
	c.fd = m.l.dial(slot, c.gen, sys.In|sys.Out|sys.RdHup|sys.Edge)
	if c.fd < 0 {
		return // counted; the slot is still free
	}
	m.free = m.free[:len(m.free)-1]
	c.state, c.out, c.got = shortConnecting, 0, 0
	c.start, c.since = start, now
	// On loopback the handshake is often over before connect returns: trying at once saves a turn.
	n, errno := sys.Send(c.fd, m.request)
	if errno == 0 {
		c.state, c.out = shortWaiting, n
	} else if errno != syscall.EAGAIN && errno != syscall.ENOTCONN {
		m.fail(c, slot, connectKind(errno))
	}
}

// connectKind names the errno of the first send: a refused connection shows up there too.
func connectKind(errno syscall.Errno) string {
	if errno == syscall.ECONNREFUSED {
		return ErrConnect + ": " + errno.Error()
	}
	return kindOf(errno)
}

func (m *connections) event(slot int, gen int32, ev uint32) {
	c := &m.slots[slot]
	if c.state == shortClosed || c.gen != gen {
		return
	}
	if c.state == shortConnecting {
		if ev&(sys.Out|ended) == 0 {
			return
		}
		if errno := sys.SocketError(c.fd); errno != 0 {
			m.l.failConnect(errno)
			m.close(c, slot)
			return
		}
		c.state = shortWaiting
	}
	for c.out < len(m.request) {
		n, errno := sys.Send(c.fd, m.request[c.out:])
		if errno == syscall.EAGAIN {
			break
		}
		if errno != 0 {
			m.fail(c, slot, connectKind(errno))
			return
		}
		c.out += n
	}
	if ev&(sys.In|ended) != 0 {
		m.read(c, slot, ev)
	}
}

func (m *connections) read(c *shortConn, slot int, ev uint32) {
	for {
		n, errno := sys.Read(c.fd, m.l.buf)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno != 0:
			m.fail(c, slot, kindOf(errno))
			return
		case n == 0 && c.state == shortClosing:
			m.complete(c, slot)
			return
		case n == 0:
			m.fail(c, slot, ErrShort)
			return
		case c.got+n > len(m.response):
			m.fail(c, slot, ErrExtra)
			return
		case !bytes.Equal(m.l.buf[:n], m.response[c.got:c.got+n]):
			m.fail(c, slot, ErrMismatch)
			return
		}
		if c.got += n; c.got == len(m.response) {
			m.answered(c)
			// A FIN that was announced before a read that took everything can be all that follows: spare the read of 0.
			// A reset is announced as an error too, and does get its read.
			finSeen := ev&sys.RdHup != 0 && ev&sys.Err == 0 && n < len(m.l.buf)
			if finSeen || m.l.r.cfg.ClientCloses {
				m.complete(c, slot)
				return
			}
		}
		if n < len(m.l.buf) && ev&ended == 0 {
			return
		}
	}
}

// answered records the latency: the last byte is here.
func (m *connections) answered(c *shortConn) {
	now := m.l.r.now()
	c.state, c.since = shortClosing, now
	if m.period > 0 {
		if c.start >= m.from && c.start < m.to {
			m.l.latency.Record(time.Duration(now - c.start))
		}
	} else if m.l.r.measuring.Load() {
		m.l.latency.Record(time.Duration(now - c.start))
	}
}

// complete ends a good connection and opens the next at once, so that P stay under way.
func (m *connections) complete(c *shortConn, slot int) {
	if m.l.r.measuring.Load() {
		m.l.units++
	}
	m.close(c, slot)
	now := m.l.r.now()
	if m.period > 0 {
		m.openDue(now)
	} else if m.mayOpen() {
		m.open(now, now)
	}
}

func (m *connections) fail(c *shortConn, slot int, kind string) {
	m.l.r.fail(kind, 1)
	m.close(c, slot)
}

func (m *connections) timeout(c *shortConn, slot int) {
	kind := ErrTimeout
	if c.state == shortClosing {
		kind = ErrNoClose
	}
	m.fail(c, slot, kind)
}

func (m *connections) close(c *shortConn, slot int) {
	sys.Close(c.fd)
	c.state = shortClosed
	c.gen++
	m.free = append(m.free, slot)
}

func (m *connections) wait(now int64) time.Duration {
	if m.period > 0 && m.started {
		if at := m.intended(m.next); at < m.to {
			return time.Duration(max(0, min(at-now, int64(phasePoll))))
		}
	}
	return phasePoll
}

func (m *connections) closeAll() {
	for i := range m.slots {
		if m.slots[i].state != shortClosed {
			sys.Close(m.slots[i].fd)
		}
	}
}
