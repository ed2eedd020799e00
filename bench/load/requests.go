package load

import (
	"bytes"
	"syscall"
	"time"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

// requests keeps C connections open and sends one request after the other over each. Every connection is proved by one
// request while the set is opened, so that the proxy has its backend connection before anything is measured. Idle is
// this mode without a run phase, and so is HalfOpen, whose only request is a ClientHello and whose response is whatever a
// server says to that. Over TLS the handshake is made at once when a connection is open, and the loop waits for it.
//
//	closed --dial--> connecting --> waiting (first request) --> idle <--> waiting --> closed (any error)
//
// Open loop: request k of the loop's schedule is meant for the moment t0 + k*period and belongs to connection k mod C.
// Is that connection busy at that moment, the request waits for it, and its latency runs.
type requests struct {
	// Set once.
	l        *loop
	conns    []reqConn
	request  []byte
	response []byte
	security *security // nil without TLS
	quota    int64     // Count: how many this loop may issue; 0 = no limit
	period   float64   // open loop: nanoseconds between intended sends; 0 = closed loop
	offset   float64   // of this loop's schedule against t0

	opened    int   // connections dialled so far
	opening   int   // not yet proved
	proved    int   // proved by their first request
	live      int   // not closed
	inFlight  int   // requests waiting for their response
	issued    int64 // towards quota
	next      int64 // open loop: the next request of the schedule
	backlog   int64 // open loop: requests that are due and wait for their connection
	from, to  int64 // open loop: intended sends in [from, to) are measured, none happen after
	started   bool  // the run phase has begun
	running   bool  // and not ended
	nextCheck int64
}

type reqState uint8

const (
	reqClosed reqState = iota
	reqConnecting
	reqIdle
	reqWaiting
)

type reqConn struct {
	fd     int
	secure *secureSocket // nil without TLS
	gen    int32
	state  reqState
	proof  bool  // the request in flight is the first, unmeasured one
	out    int   // bytes of the request sent
	got    int   // bytes of the response received
	start  int64 // when the request was sent, or should have been
	since  int64 // when this state began, for the timeout
	due    int64 // open loop: requests that should have been sent by now
	serial int64 // open loop: the schedule's number of the first of them, or of the next
}

func newRequests(l *loop) (*requests, error) {
	cfg := &l.r.cfg
	m := &requests{l: l,
		conns:    make([]reqConn, l.share(int64(cfg.Conns))),
		request:  wire.Request(cfg.RequestBytes, cfg.ResponseBytes, false),
		response: wire.Response(cfg.ResponseBytes, false),
		quota:    l.share(cfg.Count),
	}
	if cfg.Rate > 0 {
		m.period = 1e9 * float64(cfg.Threads) / cfg.Rate
		m.offset = m.period * float64(l.index) / float64(cfg.Threads)
	}
	if cfg.TLS == nil {
		return m, nil
	}
	var err error
	m.security = newSecurity(cfg.TLS)
	if cfg.Mode == HalfOpen {
		m.request, err = m.security.clientHello()
	}
	return m, err
}

func (m *requests) enter(p phase) {
	switch p {
	case phaseConnect:
		m.openMore()
	case phaseRun:
		m.started, m.running = true, true
		cfg := &m.l.r.cfg
		m.from = m.l.r.t0 + int64(cfg.Warmup)
		m.to = m.from + int64(cfg.Duration)
		now := m.l.r.now()
		for i := range m.conns {
			c := &m.conns[i]
			c.serial = int64(i)
			if m.period == 0 && c.state == reqIdle && m.mayIssue() {
				m.send(c, i, now)
			}
		}
	case phaseDrain:
		m.running = false
	}
}

// openMore dials until enough connects are in flight.
func (m *requests) openMore() {
	for m.opening < maxOpening && m.opened < len(m.conns) {
		slot := m.opened
		m.opened++
		c := &m.conns[slot]
		c.fd = m.l.dial(slot, c.gen, sys.In|sys.Out|sys.RdHup|sys.Edge)
		if c.fd < 0 {
			continue
		}
		c.state, c.since = reqConnecting, m.l.r.now()
		m.opening++
		m.live++
	}
}

func (m *requests) ready() bool { return m.opened == len(m.conns) && m.opening == 0 }

func (m *requests) done() bool {
	if m.live == 0 {
		return true
	}
	if m.period > 0 {
		return !m.running && m.inFlight == 0 && m.backlog == 0 && m.intended(m.next) >= m.to
	}
	if m.quota > 0 {
		return m.inFlight == 0 && m.issued >= m.quota
	}
	return !m.running && m.inFlight == 0
}

func (m *requests) mayIssue() bool { return m.running && (m.quota == 0 || m.issued < m.quota) }

func (m *requests) event(slot int, gen int32, ev uint32) {
	c := &m.conns[slot]
	if c.state == reqClosed || c.gen != gen {
		return
	}
	if c.state == reqConnecting {
		if ev&(sys.Out|ended) == 0 {
			return
		}
		if errno := sys.SocketError(c.fd); errno != 0 {
			m.l.failConnect(errno)
			m.close(c)
			return
		}
		sys.SetNoDelay(c.fd)
		c.proof = true
		if m.security != nil && m.l.r.cfg.Mode != HalfOpen {
			var err error
			if c.secure, err = m.security.handshake(c.fd, m.l.r.cfg.Timeout); err != nil {
				m.drop(c, err.Error())
				return
			}
		}
		m.send(c, slot, m.l.r.now())
		return
	}
	if ev&sys.Out != 0 && c.state == reqWaiting && c.out < len(m.request) {
		m.push(c)
	}
	if c.state != reqClosed && ev&(sys.In|ended) != 0 {
		m.read(c, slot, ev&ended != 0)
	}
}

// send begins a request that was due at start.
func (m *requests) send(c *reqConn, slot int, start int64) {
	c.state, c.out, c.got = reqWaiting, 0, 0
	c.start, c.since = start, start
	if !c.proof {
		m.issued++
		m.inFlight++
	}
	m.push(c)
}

// push writes what is left of the request.
func (m *requests) push(c *reqConn) {
	for c.out < len(m.request) {
		n, errno := c.write(m.request[c.out:])
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 {
			m.drop(c, kindOf(errno))
			return
		}
		c.out += n
	}
}

// read takes what has come and compares it. hup says that the peer has ended, so that a short read is not the end of it.
func (m *requests) read(c *reqConn, slot int, hup bool) {
	gen := c.gen
	for {
		n, errno := c.read(m.l.buf)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno != 0:
			m.drop(c, kindOf(errno))
			return
		case n == 0 && c.state == reqWaiting:
			m.drop(c, ErrShort)
			return
		case n == 0:
			m.drop(c, ErrIdleEnd)
			return
		case m.l.r.cfg.Mode == HalfOpen:
			if c.state == reqWaiting {
				if m.l.buf[0] != recordHandshake {
					m.drop(c, ErrMismatch)
					return
				}
				m.complete(c, slot)
			}
			continue
		case c.state != reqWaiting || c.got+n > len(m.response):
			m.drop(c, ErrExtra)
			return
		case !bytes.Equal(m.l.buf[:n], m.response[c.got:c.got+n]):
			m.drop(c, ErrMismatch)
			return
		}
		if c.got += n; c.got == len(m.response) {
			m.complete(c, slot)
		}
		drained := n < len(m.l.buf)
		if c.secure != nil { // a record was read, and others may be there: with the whole response nothing else is due
			drained = c.got == len(m.response)
		}
		if drained && !hup || c.state == reqClosed || c.gen != gen {
			return
		}
	}
}

func (c *reqConn) write(b []byte) (int, syscall.Errno) {
	if c.secure != nil {
		return c.secure.write(b)
	}
	return sys.Send(c.fd, b)
}

func (c *reqConn) read(b []byte) (int, syscall.Errno) {
	if c.secure != nil {
		return c.secure.read(b)
	}
	return sys.Read(c.fd, b)
}

// complete ends a request and begins the connection's next one, if it is due.
func (m *requests) complete(c *reqConn, slot int) {
	now := m.l.r.now()
	c.state = reqIdle
	if c.proof {
		c.proof = false
		m.opening--
		m.proved++
		m.openMore()
		return
	}
	m.inFlight--
	if m.l.r.measuring.Load() {
		m.l.units++
		if m.period == 0 {
			m.l.latency.Record(time.Duration(now - c.start))
		}
	}
	if m.period > 0 {
		if c.start >= m.from && c.start < m.to {
			m.l.latency.Record(time.Duration(now - c.start))
		}
		if c.due > 0 {
			m.sendDue(c, slot, now)
		}
	} else if m.mayIssue() {
		m.send(c, slot, now)
	}
}

// intended returns when request k of the schedule should be sent.
func (m *requests) intended(k int64) int64 {
	return m.l.r.t0 + int64(m.offset+float64(k)*m.period)
}

// wake sends what the schedule says is due, and looks for timeouts now and then.
func (m *requests) wake(now int64) {
	if m.period > 0 && m.started {
		for at := m.intended(m.next); at <= now && at < m.to; at = m.intended(m.next) {
			slot := int(m.next % int64(len(m.conns)))
			c := &m.conns[slot]
			m.next++
			if c.state == reqClosed {
				m.l.r.fail("no connection left to send on", 1)
				continue
			}
			c.due++
			m.backlog++
			if c.state == reqIdle {
				if at >= m.from {
					m.l.lag.Record(time.Duration(now - at))
				}
				m.sendDue(c, slot, now)
			}
		}
	}
	if now >= m.nextCheck {
		m.nextCheck = now + timeoutCheck
		m.findTimeouts(now)
	}
}

// sendDue sends the connection's oldest due request.
func (m *requests) sendDue(c *reqConn, slot int, now int64) {
	at := m.intended(c.serial)
	c.serial += int64(len(m.conns))
	c.due--
	m.backlog--
	m.send(c, slot, at)
	c.since = now // the timeout is for the server, not for the queue in front of it
}

func (m *requests) findTimeouts(now int64) {
	limit := int64(m.l.r.cfg.Timeout)
	for i := range m.conns {
		c := &m.conns[i]
		if (c.state == reqConnecting || c.state == reqWaiting) && now-c.since > limit {
			m.drop(c, ErrTimeout)
		}
	}
}

func (m *requests) wait(now int64) time.Duration {
	if m.l.r.cfg.silent() && m.ready() {
		return idlePoll
	}
	if m.period > 0 && m.started {
		if at := m.intended(m.next); at < m.to {
			return time.Duration(max(0, min(at-now, int64(phasePoll))))
		}
	}
	return phasePoll
}

// drop counts what went wrong, also for the requests that wait for this connection, and closes it.
func (m *requests) drop(c *reqConn, kind string) {
	m.l.r.fail(kind, 1+c.due)
	m.close(c)
}

func (m *requests) close(c *reqConn) {
	if c.state == reqConnecting || c.proof {
		m.opening--
	} else if c.state == reqWaiting {
		m.inFlight--
	}
	m.backlog -= c.due
	c.due, c.proof = 0, false
	sys.Close(c.fd)
	c.state, c.secure = reqClosed, nil
	c.gen++
	m.live--
	if m.l.r.phase.Load() == phaseConnect {
		m.openMore()
	}
}

func (m *requests) closeAll() {
	for i := range m.conns {
		if m.conns[i].state != reqClosed {
			sys.Close(m.conns[i].fd)
		}
	}
}
