package engine

import (
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine/loop"

	"golang.org/x/sys/unix"
)

// session is a client's connection and the one to its backend; the package comment draws its life. Owned by the shard's
// goroutine. Sessions are recycled through the shard's free list.
type session struct {
	// Set once, never changed.
	sh *shard

	// Set when the client is accepted.
	f       *balancer.Frontend     // from the snapshot of that moment
	front   *config.Frontend       // f's: timeouts
	live    *balancer.FrontendLive // holds one count
	fstats  *FrontendStats
	pool    *balancer.Pool // nil: no route
	key     uint64         // Pool.Key of the client; set with pool
	held    *sourceTable   // holds one count of address; nil: none does
	address netip.AddrPort // the client; the zero AddrPort on a unix socket
	started int64          // loop time, ns

	// What only some sessions have; &nothing for all others.
	*prelude

	// Set for each attempt to connect.
	target   *balancer.Backend // holds one count; nil between attempts
	bstats   *BackendStats     // target's
	dialed   int64             // loop time of connect(2)
	attempts uint8
	tried    []*balancer.Backend // those that failed

	client, backend side
	state           state
	first           Reason // which end was done first
	fault           Reason // what went wrong, if anything did

	// Time. moved says that bytes moved since quiet, the last time Expire looked.
	timer       loop.Timer
	connectedIn int64 // from accept to established, ns
	quiet       int64 // loop time
	dies        int64 // loop time at which max_lifetime ends the session; 0 never
	askedAt     int64 // loop time from which the backend's first answer is timed; 0: it has come
	spoke       bool  // the client has said something to the backend
	moved       bool
	kept        bool // keepalive is set on the backend's socket
	failing     bool // one end is gone and the other still has a backlog to take
	metered     bool // its frontend has caps of bandwidth
	starved     bool // waits for a descriptor; counted in sh.starved
	unsent      int  // while aborting: bytes the other end had not acknowledged when last asked

	next, prev *session // the shard's list of open sessions, or its free list
}

type state uint8

const (
	greeting           state = iota // the client is to say where it wants to go
	handshakingClient               // TLS with the client
	queued                          // for a place in its pool
	connecting                      // to the backend
	asking                          // the backend, a PostgreSQL server, for TLS
	handshakingBackend              // TLS with the backend
	open
	aborting
	ended
)

const (
	none = Reason(255)

	abortPoll  = 20 * time.Millisecond // how often an aborting session looks whether everything was acknowledged
	abortQuiet = 2 * time.Second       // and how long it waits without progress
)

func newSession(sh *shard) *session {
	s := &session{sh: sh, prelude: &nothing}
	s.client = side{s: s, fd: -1, kind: ToClient}
	s.backend = side{s: s, fd: -1, kind: ToBackend}
	s.timer.Handle(s)
	return s
}

// begin starts a session for a client that l accepted. The caller has counted it on the frontend.
func (s *session) begin(fd int, l *listener, f *balancer.Frontend, address netip.AddrPort, now int64) {
	local, fstats := l.address.IsUnix(), l.fstats
	s.f, s.front, s.live, s.fstats = f, f.Config, f.Live, fstats
	s.address, s.started = address, s.sh.stamp(now)
	s.state, s.first, s.fault = connecting, none, none
	s.attempts, s.tried = 0, s.tried[:0]
	s.connectedIn, s.dies, s.askedAt = 0, 0, 0
	s.spoke, s.moved, s.kept, s.failing, s.metered = false, false, false, false, false
	s.target, s.bstats, s.pool = nil, nil, nil
	s.prelude = &nothing
	s.client.open(fd, local)
	s.backend.open(-1, false)
	fstats.Accepted++
	if greets(f) {
		s.state = greeting
		s.own().server = serverOf(f)
	} else if s.pool = f.Route(address.Addr(), nil).Pool; s.pool == nil {
		s.end(NoRoute)
		return
	} else {
		s.key = s.pool.Key(address, nil)
	}
	if err := s.sh.loop.Register(fd, &s.client); err != nil {
		s.end(NoResources)
		return
	}
	if s.state == greeting {
		s.greet(l.gate)
	} else {
		s.dial(now)
	}
}

// peer returns the other end.
func (x *side) peer() *side {
	if x.kind == ToClient {
		return &x.s.backend
	}
	return &x.s.client
}

// ready reacts to an event of x.
func (s *session) ready(x *side, ev loop.Events) {
	switch s.state {
	case greeting:
		s.hear()
	case handshakingClient:
		x.handshakeReady()
	case queued:
		s.watchWaiting(ev)
	case connecting, asking, handshakingBackend:
		switch {
		case x == &s.client:
			s.glance(ev)
		case s.state == connecting:
			s.probe()
		case s.state == asking:
			s.answered()
		default:
			x.handshakeReady()
		}
	case open:
		if ev.Failed() && (x.peer().backlogged() || s.metered && s.meter.waiting[x.peer().kind]) {
			// x is not read now, so that a reset would not be seen. SO_ERROR tells, and leaves what x sent before it.
			if errno := sysError(int(x.fd)); errno != 0 {
				x.fail(errno)
			}
		}
		s.relay(x)
	}
}

// glance looks at a client whose backend is not there yet, and that is not read meanwhile. Has it gone? Only SO_ERROR knows;
// a FIN may be a client that has sent all its request. What a client said before it reset the connection still goes to the
// backend.
func (s *session) glance(ev loop.Events) {
	if !ev.Failed() {
		return
	}
	c := &s.client
	if errno := sysError(int(c.fd)); errno != 0 {
		c.fail(errno)
		if sysUnread(int(c.fd)) == 0 && s.heard == nil {
			s.end(s.fault)
		}
	}
}

// opened goes on when both ends are there: from now on bytes are relayed.
func (s *session) opened() {
	now := s.sh.loop.Now()
	s.state = open
	s.waited(none)
	if !s.client.failed {
		s.fault = none // of backends tried before
		if s.detail != "" {
			s.own().detail = ""
		}
	}
	s.connectedIn = now - s.started
	s.bstats.Sessions++
	s.bstats.Connect.observe(now - s.dialed)
	s.pool.Served(s.target, false)
	if s.pool.Times() {
		s.target.Connected(time.Duration(now - s.dialed))
	}
	s.askedAt = now
	s.quiet = now
	if life := int64(s.front.MaxLifetime); life > 0 {
		s.dies = s.started + life - rand.Int64N(life/10+1) // so that sessions begun together do not end together
	}
	s.watch(now)
	if (s.target.Gone() != nil || s.target.State() == balancer.Maintenance) && !s.straggle() {
		return
	}
	if g := guardOf(s.f); g != nil && g.caps != nil {
		s.meterBy(g)
		b := &s.backend
		s.meter.charge(ToBackend, int64(b.sent)+int64(len(b.buf))-int64(b.off)+int64(len(s.heard))) // what the client has said so far
	}
	if s.heard != nil {
		s.backend.write(s.heard)
		s.forget()
	}
	if s.client.readable {
		s.pump(&s.client, &s.backend)
	}
	if s.backend.readable {
		s.pump(&s.backend, &s.client)
	}
	s.settle()
}

// count notes n bytes sent to the side of that kind.
func (s *session) count(kind uint8, n int) {
	s.moved = true
	s.fstats.Bytes[kind] += uint64(n)
	s.bstats.Bytes[kind] += uint64(n)
	if s.askedAt != 0 {
		s.timeAnswer(kind)
	}
}

// timeAnswer times the backend's first answer, from the first that the client said; from connected where the backend speaks
// first. In a pool with leasttime from the last that the client said before it: what takes long to send is not the backend's
// fault. Two looks at the clock (31 ns each) for each session; once the answer has come, count does not come here.
func (s *session) timeAnswer(kind uint8) {
	if kind == ToBackend {
		if !s.spoke || s.pool.Times() {
			s.spoke, s.askedAt = true, s.sh.loop.Now()
		}
		return
	}
	took := s.sh.loop.Now() - s.askedAt
	s.askedAt = 0
	s.bstats.FirstByte.observe(took)
	if s.pool.Times() {
		s.target.Answered(time.Duration(took))
	}
}

// noteEOF notes that x has nothing more to say.
func (s *session) noteEOF(x *side) {
	if s.first == none {
		s.first = ClientEOF + Reason(x.kind)
	}
}

// noteFault notes why x failed. The first fault is the cause; a later one is its consequence. Before the session is open the
// first ones are those of backends that were tried: the client's is none of theirs.
func (s *session) noteFault(x *side, errno syscall.Errno) {
	if s.fault != none && (s.state >= open || x.kind == ToBackend) {
		return
	}
	if s.detail != "" {
		s.own().detail = ""
	}
	switch errno {
	case syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN:
		s.fault = ClientLost + Reason(x.kind)
	default:
		s.fault = ClientRST + Reason(x.kind)
	}
}

// idleLimit is how long the session may be quiet now; 0 is for ever.
func (s *session) idleLimit() time.Duration {
	if s.failing {
		return abortQuiet
	}
	if s.client.shut || s.backend.shut {
		half, idle := s.front.HalfCloseTimeout, s.front.IdleTimeout
		if half > 0 && (idle == 0 || half < idle) {
			return half
		}
	}
	return s.front.IdleTimeout
}

// keepaliveAfter is the age at which a session's backend socket gets its keepalive options: the many that end sooner
// are spared the system calls.
const keepaliveAfter = 5 * time.Second

// watch sets the timer of an open session for the next look. Idleness is looked for four times per idle_timeout and
// otherwise costs one store per relayed piece, so a session ends between idle_timeout and 1.25 times that after its last
// byte.
func (s *session) watch(now int64) {
	next := int64(1<<63 - 1)
	if limit := int64(s.idleLimit()); limit > 0 {
		next = min(limit/4, s.quiet+limit-now)
	}
	if s.dies > 0 {
		next = min(next, s.dies-now)
	}
	if !s.kept {
		next = min(next, int64(keepaliveAfter))
	}
	if next < 1<<63-1 {
		s.sh.loop.After(&s.timer, now, time.Duration(max(next, 0)))
	}
}

// halfClosed follows a FIN passed on: the session now has half_close_timeout.
func (s *session) halfClosed() {
	now := s.sh.loop.Now()
	s.quiet = now
	s.watch(now)
}

// nowFailing follows the loss of one end while the other has a backlog: it gets what it is due as long as it takes some.
func (s *session) nowFailing() {
	now := s.sh.loop.Now()
	s.failing, s.moved, s.quiet = true, false, now
	s.watch(now)
}

// Expire is called by the loop when the session's timer fires.
func (s *session) Expire() {
	now := s.sh.loop.Now()
	switch s.state {
	case greeting:
		if s.over(s.front.HelloTimeout) {
			s.silent()
		}
	case handshakingClient:
		if s.over(s.front.TLS.HandshakeTimeout) {
			s.fstats.handshake(nil, 0)
			s.end(HandshakeTimeout)
		}
	case queued:
		s.end(QueueTimeout)
	case connecting:
		s.redial(now)
	case asking, handshakingBackend:
		s.backend.handshakeFailed(errHandshakeTimeout)
	case open:
		s.look(now)
	case aborting:
		s.abortStep(now)
	}
}

// look ends an open session that is over its time.
func (s *session) look(now int64) {
	if s.moved {
		s.moved, s.quiet = false, now
	}
	limit := int64(s.idleLimit())
	switch {
	case s.failing && now-s.quiet >= limit:
		s.end(s.fault)
		return
	case s.dies > 0 && now >= s.dies:
		s.end(MaxLifetime)
		return
	case limit > 0 && now-s.quiet >= limit && (s.client.shut || s.backend.shut):
		s.end(HalfCloseTimeout)
		return
	case limit > 0 && now-s.quiet >= limit:
		s.end(IdleTimeout)
		return
	}
	if !s.kept {
		s.setKeepalive()
	}
	s.watch(now)
}

// setKeepalive sets the backend's keepalive; the client's is inherited from the listener.
func (s *session) setKeepalive() {
	s.kept = true
	if !s.backend.local {
		setKeepalive(int(s.backend.fd), s.pool.Config.TCP.Keepalive)
	}
}

// setKeepalive sets a socket's keepalive: the first probe after idle, then nine at a ninth of that, at least a second,
// apart.
func setKeepalive(fd int, idle time.Duration) {
	if idle <= 0 {
		sysSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	seconds := max(int(idle/time.Second), 1)
	sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds)
	sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(seconds/9, 1))
	sysSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// abort resets other, the end that is left, once it has acknowledged everything sent before: an earlier reset would
// throw away what is still in the send queue.
func (s *session) abort(other *side) {
	other.peer().close(false)
	if !other.local {
		s.unsent = sysUnsent(int(other.fd))
	}
	if other.local || s.unsent == 0 {
		s.end(s.fault)
		return
	}
	now := s.sh.loop.Now()
	s.state, s.quiet = aborting, now
	s.sh.loop.After(&s.timer, now, abortPoll)
}

func (s *session) abortStep(now int64) {
	other := &s.client
	if other.fd < 0 {
		other = &s.backend
	}
	unsent := sysUnsent(int(other.fd))
	if unsent < s.unsent {
		s.unsent, s.quiet = unsent, now
	}
	if unsent == 0 || now-s.quiet >= int64(abortQuiet) {
		s.end(s.fault)
		return
	}
	s.sh.loop.After(&s.timer, now, abortPoll)
}

// end ends the session, whatever its state. The session must not be used afterwards but for its state.
func (s *session) end(reason Reason) {
	if s.state == ended {
		return
	}
	s.state = ended
	sh := s.sh
	sh.loop.Cancel(&s.timer)
	s.fed()
	s.greeted()
	s.forget()
	if s.metered {
		s.unmeter()
	}
	s.waited(reason)
	// Who hangs up without close_notify ends a session well where the backend was done, but it has cut its own stream.
	reset := !reason.natural() || s.client.failed
	s.client.close(reset)
	s.backend.close(reset)
	duration := sh.loop.Now() - s.started
	s.fstats.Ended[reason]++
	s.fstats.Duration.observe(duration)
	if sh.access != nil {
		sh.log(s, reason, duration)
	}
	if s.target != nil {
		if s.client.sent > 0 {
			s.pool.Served(s.target, true)
		} else if reason == BackendRST || reason == BackendLost {
			s.bstats.Cuts++
			s.noteEjected(s.pool.Cut(s.target), reason)
		}
		s.target.Release()
		s.target = nil
	}
	s.live.Release()
	if s.held != nil {
		s.held.release(s.address.Addr())
		s.held = nil
	}
	s.disown()
	sh.recycle(s)
}
