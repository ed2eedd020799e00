package engine

import (
	"crypto/tls"
	"io"
	"strings"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/tlsbridge"
)

// Handshakes: the shard reads and sends, a worker computes, and says so by a posted function. tlsbridge's package comment
// draws it.

// acmeTLS is the protocol of TLS-ALPN-01 challenges: a client that has come for one has seen the certificate after the
// handshake, and is done.
const acmeTLS = "acme-tls/1"

// handshakeClient begins the handshake of a client whose ClientHello is in data.
func (s *session) handshakeClient(data []byte) {
	s.state = handshakingClient
	s.expireAfter(s.front.TLS.HandshakeTimeout)
	c := &s.client
	c.handshake(func(p tlsbridge.Params) *tlsbridge.Conn {
		p.Config = s.server.Config
		return s.sh.eng.workers.Load().Server(p)
	})
	c.conn.Feed(data)
	s.forget()
}

// handshakeBackend begins the handshake with the backend, which is connected.
func (s *session) handshakeBackend() {
	if s.state != asking { // which has the same time, and not twice
		s.sh.loop.After(&s.timer, s.sh.loop.Now(), s.pool.Config.TLS.HandshakeTimeout)
	}
	s.state = handshakingBackend
	b := &s.backend
	b.setNoDelay()
	b.handshake(func(p tlsbridge.Params) *tlsbridge.Conn {
		protocol := ""
		if s.version != 0 { // what a proxy tells of its client is not ours to promise
			protocol = s.protocol
		}
		p.Config = s.sh.origin(s.pool, s.target, protocol)
		return s.sh.eng.workers.Load().Client(p)
	})
	b.conn.Feed(nil)
}

// handshake makes x's Conn. The caller feeds it.
func (x *side) handshake(make func(tlsbridge.Params) *tlsbridge.Conn) {
	sh := x.s.sh
	if sh.bridging == nil {
		sh.bridging = newBridging(sh.loop)
	}
	var conn *tlsbridge.Conn
	stepped := func() {
		if x.conn == conn { // and not another session's, or another backend's, by now
			x.stepped()
		}
	}
	conn = make(tlsbridge.Params{Source: x, Remote: x.s.address, Notify: func() { sh.loop.Post(stepped) }})
	x.conn, x.waiting, x.parting = conn, true, false
}

// handshakeReady reacts to an event of x while its handshake lasts.
func (x *side) handshakeReady() {
	if x.writable && x.backlogged() && !x.flush() && x.failed {
		x.handshakeFailed(nil)
		return
	}
	x.feed()
}

// feedPiece is the most that a handshake is fed at once. Its Conn keeps what belongs to the stream until there is a backend.
const feedPiece = 16 << 10

// feed hands the handshake what has arrived.
func (x *side) feed() {
	if x.waiting {
		return
	}
	if x.eof { // FIN came with the ClientHello
		x.handshakeFailed(io.ErrUnexpectedEOF)
		return
	}
	if !x.readable {
		return
	}
	n, err := x.Pull(x.s.sh.buf[:feedPiece])
	switch {
	case n > 0:
		x.waiting = true
		x.conn.Feed(x.s.sh.buf[:n])
	case err == tlsbridge.ErrWouldBlock:
		x.readable, x.wary = false, false
	case err == io.EOF:
		x.handshakeFailed(io.ErrUnexpectedEOF)
	default:
		x.fail(err.(syscall.Errno))
		x.handshakeFailed(nil)
	}
}

// stepped takes what the worker made of what was fed.
func (x *side) stepped() {
	x.waiting = false
	result := x.conn.Result()
	x.push(result.Out)
	switch {
	case result.State == tlsbridge.Failed:
		x.handshakeFailed(result.Err)
	case x.failed:
		x.handshakeFailed(nil)
	case result.State == tlsbridge.Handshaking:
		x.feed()
	case x.kind == ToClient:
		x.readable = true // the Conn may hold bytes that no event will announce
		x.s.clientHandshaken()
	default:
		x.readable = true
		x.s.backendHandshaken()
	}
}

// handshakeFailed ends a handshake. err nil means that x failed, which is noted.
func (x *side) handshakeFailed(err error) {
	s := x.s
	if err != nil {
		s.own().detail = detail(err)
		if err == io.ErrUnexpectedEOF {
			s.own().detail = "the connection was closed within the handshake"
		}
	}
	if x.kind == ToBackend {
		if err == nil {
			s.own().detail = "the connection was reset within the handshake"
		}
		s.sh.eng.complain(complaint{what: backendTLSFailed, detail: s.detail, about: s.target.Name})
		s.giveUp(ConnectTLS)
		s.dial(s.sh.loop.Now())
		return
	}
	s.fstats.handshake(nil, 0)
	if err == nil {
		s.end(s.fault)
		return
	}
	x.linger() // an alert may be on its way
	s.end(HandshakeFailed)
}

// maxDetail is the most bytes that are kept of why TLS failed: certificates of strangers may be quoted in it.
const maxDetail = 300

func detail(err error) string {
	text := err.Error()
	if len(text) > maxDetail {
		text = strings.Clone(text[:maxDetail])
	}
	return text
}

// backendTLSFailed is the complaint about a backend that TLS cannot be spoken to: docs/operations.md.
const backendTLSFailed = "TLS handshake with a backend failed"

// clientHandshaken goes on after the handshake with the client.
func (s *session) clientHandshaken() {
	s.greeted()
	now := s.sh.loop.Now()
	state := s.client.conn.ConnectionState()
	s.fstats.handshake(&state, now-s.started)
	s.version = state.Version
	if s.protocol = state.NegotiatedProtocol; s.protocol == acmeTLS || s.pool == nil { // without a pool it came for a challenge
		s.client.part()
		s.client.linger()
		s.end(Challenge)
		return
	}
	if s.tells("tls") {
		s.tls = describeTLS(&state)
	}
	s.sh.loop.Cancel(&s.timer)
	s.state = connecting
	s.dial(now)
}

// backendHandshaken goes on after the handshake with the backend.
func (s *session) backendHandshaken() {
	s.bstats.Handshakes++
	s.opened()
}

// reached goes on when the backend is connected.
func (s *session) reached() {
	starttls := s.asked && s.server == nil && originOf(s.pool) == nil
	if tls := s.pool.Config.TLS; tls != nil {
		starttls = tls.STARTTLS == "postgres" || tls.STARTTLS == "" && s.front.STARTTLS == "postgres"
	}
	switch {
	case starttls:
		s.ask()
	case originOf(s.pool) != nil:
		s.handshakeBackend()
	default:
		s.opened()
	}
}

// askTimeout bounds the wait for PostgreSQL's answer where no handshake_timeout does.
const askTimeout = 5 * time.Second

// ask asks a PostgreSQL backend for TLS.
func (s *session) ask() {
	timeout := askTimeout
	if tls := s.pool.Config.TLS; tls != nil {
		timeout = tls.HandshakeTimeout
	}
	s.state = asking
	s.sh.loop.After(&s.timer, s.sh.loop.Now(), timeout)
	s.backend.setNoDelay()
	if n, _ := sysSend(int(s.backend.fd), []byte(tlsbridge.PostgresSSLRequest), 0); n != len(tlsbridge.PostgresSSLRequest) {
		s.backend.handshakeFailed(nil)
	}
}

// answered takes the backend's answer: one byte. What is behind it belongs to the ciphertext (CVE-2021-23222).
func (s *session) answered() {
	b := &s.backend
	if !b.readable {
		return
	}
	switch n, err := b.Pull(s.sh.buf[:1]); {
	case err == tlsbridge.ErrWouldBlock:
		b.readable = false
	case n == 0:
		b.handshakeFailed(io.ErrUnexpectedEOF)
	case s.sh.buf[0] != tlsbridge.PostgresYes:
		b.handshakeFailed(errNoPostgresTLS)
	case originOf(s.pool) != nil:
		s.handshakeBackend()
	default:
		s.opened()
	}
}

type handshakeError string

func (e handshakeError) Error() string { return string(e) }

const (
	errNoPostgresTLS    = handshakeError("PostgreSQL does not offer TLS")
	errHandshakeTimeout = handshakeError("handshake_timeout is over")
)

// originKey tells the configurations apart that a shard keeps for backends: each has a place for the last session, which
// belongs to a protocol.
type originKey struct {
	backend  *balancer.Backend
	protocol string
}

type origin struct {
	client *tlsbridge.Client
	host   string // whom to expect where the pool does not say
	config *tls.Config
}

// origin returns how to speak TLS to b, a backend of p, for a client that has agreed on protocol, "" for none.
func (sh *shard) origin(p *balancer.Pool, b *balancer.Backend, protocol string) *tls.Config {
	client := originOf(p)
	key := originKey{b, protocol}
	o := sh.origins[key]
	host := ""
	if m := p.Member(b.Address); m != nil && m.Config.SNI != "" {
		host = m.Config.SNI
	} else if !b.Address.IsUnix() {
		host = b.Address.IP.Addr().WithZone("").String()
	}
	if o.client != client || o.host != host {
		o = origin{client: client, host: host}
		if protocol != "" {
			o.config = client.Config(host, protocol)
		} else {
			o.config = client.Config(host)
		}
		sh.origins[key] = o
		sh.pruned = nil
	}
	return o.config
}
