package engine

import (
	"bytes"
	"strconv"
	"time"

	"awe4lb/balancer"
	"awe4lb/tlsbridge"
	"awe4lb/tlsbridge/certs"

	"github.com/panjf2000/gnet/v2/pkg/pool/byteslice"
)

// What a client says before it is known where its connection goes: a ClientHello, for routes by name and for TLS that ends
// here; what PostgreSQL says before that; a challenge of an ACME server. Until then there is no backend, no Conn and no
// coroutine: a client who says nothing costs a session and its descriptor, for hello_timeout.

// stage is what a greeting client is expected to say.
type stage uint8

const (
	sayHello    stage = iota // a ClientHello
	sayPostgres              // PostgreSQL's request for TLS, or its ClientHello
	sayHTTP                  // an HTTP request, which may be a challenge
	sayProxy                 // a PROXY header, and then one of the others
)

// maxHeard is the most bytes of a client that are looked at.
const maxHeard = tlsbridge.HelloLimit

// challengePath begins the request of an ACME server for an HTTP-01 challenge (RFC 8555, section 8.3).
const (
	challengePath = "GET /.well-known/acme-challenge/"
	maxToken      = 256
)

// greets reports whether clients of f, or proxies in front of them, must say something before their connection can be
// routed.
func greets(f *balancer.Frontend) bool {
	return speaksFirst(f) || introduces(f.Config)
}

// speaksFirst reports whether clients of f must.
func speaksFirst(f *balancer.Frontend) bool {
	return f.Attached != nil || f.NeedsHello() || f.Config.STARTTLS == "postgres" || f.Config.ACMEChallenges
}

// greet waits for what the client says, or a proxy of it.
func (s *session) greet(gate *tlsbridge.Gate) {
	p := s.own()
	p.gate, p.stage = gate, sayProxy
	s.expireAfter(s.front.HelloTimeout)
	switch proxied := &s.front.ProxyProtocol; {
	case !introduces(s.front):
		s.welcome()
	case trusts(proxied, s.address.Addr()):
	case proxied.Accept == "required":
		s.end(ProxyUntrusted)
	default:
		s.introduced(nil)
	}
}

// welcome waits for what the client itself says. From now on it is half-open.
func (s *session) welcome() {
	p := s.own()
	if p.gate != nil && p.gate.Enter(s.address.Addr()) != tlsbridge.Admitted {
		s.end(HandshakeLimit)
		return
	}
	p.halfOpen = true
	p.stage, p.peeker = sayHello, tlsbridge.Peeker{}
	switch {
	case s.front.STARTTLS == "postgres":
		p.stage = sayPostgres
	case s.front.ACMEChallenges:
		p.stage = sayHTTP
	}
}

// silent reacts to the end of hello_timeout. A proxy that need not say anything may stand before clients who wait for the
// backend to speak.
func (s *session) silent() {
	if s.stage == sayProxy && s.front.ProxyProtocol.Accept == "optional" && s.heard == nil && !speaksFirst(s.f) {
		s.introduced(nil)
		return
	}
	s.end(HelloTimeout)
}

// The loop may be a second late with a timer for more than four (loop.Timer). Half-open clients are held to their deadline
// by one that fires early first, and then again.
const (
	promptTimer = 4 * time.Second
	mostLate    = 1100 * time.Millisecond
)

// expireAfter sets the timer of a half-open session so that it ends d after accept, unless it is over by then.
func (s *session) expireAfter(d time.Duration) {
	now := s.sh.loop.Now()
	left := d - time.Duration(now-s.started)
	if left > promptTimer {
		left -= mostLate
	}
	s.sh.loop.After(&s.timer, now, max(left, 0))
}

// over reports whether d has passed since accept. If not, it sets the timer for the rest.
func (s *session) over(d time.Duration) bool {
	if time.Duration(s.sh.loop.Now()-s.started) >= d {
		return true
	}
	s.expireAfter(d)
	return false
}

// greeted follows the end of a greeting, and of a handshake with the client: the client is no longer half-open.
func (s *session) greeted() {
	if s.halfOpen {
		s.halfOpen = false
		if s.gate != nil {
			s.gate.Leave(s.address.Addr())
		}
	}
}

// hear takes what the client says.
func (s *session) hear() {
	c, sh := &s.client, s.sh
	for s.state == greeting && c.readable {
		data := sh.buf[:maxHeard]
		before := copy(data, s.heard)
		data = data[:before+c.read(data[before:])]
		if c.failed {
			s.end(s.fault)
			return
		}
		heardMore := len(data) > before
		if heardMore {
			data = s.judge(data)
		}
		if s.state != greeting {
			return
		}
		if c.eof {
			s.end(ClientEOF)
			return
		}
		if heardMore {
			s.keep(data)
		}
	}
}

// keep keeps what was heard until there is somebody to send it to.
func (s *session) keep(data []byte) {
	s.forget()
	if len(data) > 0 {
		s.heard = byteslice.Get(len(data))
		copy(s.heard, data)
	}
}

func (s *session) forget() {
	if s.heard != nil {
		byteslice.Put(s.heard)
		s.heard = nil
	}
}

// judge looks at all that the client has said and was not answered yet, and goes on when that is enough. It returns what
// there is still to answer.
func (s *session) judge(data []byte) []byte {
	switch s.stage {
	case sayProxy:
		return s.judgeProxy(data)
	case sayPostgres:
		return s.judgePostgres(data)
	case sayHTTP:
		s.judgeHTTP(data)
	case sayHello:
		s.judgeHello(data)
	}
	return data
}

func (s *session) judgeHello(data []byte) {
	switch hello := &s.sh.hello; s.peeker.Peek(data, maxHeard, hello) {
	case tlsbridge.Found:
		s.routeHello(data, hello)
	case tlsbridge.NotTLS:
		s.end(NotTLS)
	case tlsbridge.Malformed, tlsbridge.TooLong:
		s.refuse(tlsbridge.AlertDecodeError, BadHello)
	}
}

// judgePostgres answers a client's request for encryption. Those who want none are led on only where TLS does not end here.
func (s *session) judgePostgres(data []byte) []byte {
	switch tlsbridge.PeekPostgres(data) {
	case tlsbridge.PostgresMore:
	case tlsbridge.PostgresSSL:
		s.asked, s.stage = true, sayHello
		s.answer(tlsbridge.PostgresYes)
		return nil
	case tlsbridge.PostgresGSS:
		if s.own().refused { // PostgreSQL allows one of these
			s.end(NotTLS)
			return nil
		}
		s.own().refused = true
		s.answer(tlsbridge.PostgresNo)
		return nil
	case tlsbridge.PostgresTLS:
		s.stage = sayHello
		s.judgeHello(data)
	case tlsbridge.PostgresCancel:
		s.routePlain(data)
	case tlsbridge.PostgresPlain:
		if s.server != nil {
			s.refusePostgres()
			break
		}
		s.routePlain(data)
	default:
		s.end(NotTLS)
	}
	return data
}

// refusePostgres ends the session of a client that wants no TLS, and says so in a way that is shown to people.
func (s *session) refusePostgres() {
	s.client.push(postgresWantsTLS)
	s.client.linger()
	s.end(NotTLS)
}

// postgresWantsTLS is an ErrorResponse with the code of PostgreSQL's own refusal.
var postgresWantsTLS = func() []byte {
	fields := "SFATAL\x00VFATAL\x00C28000\x00Mawe4lb: this address wants TLS (sslmode=require)\x00\x00"
	return append([]byte{'E', 0, 0, 0, byte(4 + len(fields))}, fields...)
}()

// answer sends the client one byte. Its send queue is empty: a client without room for a byte is not one.
func (s *session) answer(b byte) {
	if n, errno := sysSend(int(s.client.fd), []byte{b}, 0); n != 1 {
		s.client.fail(errno)
		s.end(s.fault)
	}
}

// judgeHTTP answers a challenge, and sends everything else on.
func (s *session) judgeHTTP(data []byte) {
	n := min(len(data), len(challengePath))
	if string(data[:n]) != challengePath[:n] {
		if s.f.NeedsHello() {
			s.stage = sayHello
			s.judgeHello(data)
			return
		}
		s.routePlain(data)
		return
	}
	token, _, whole := bytes.Cut(data[n:], []byte(" "))
	if !whole && len(token) <= maxToken {
		return
	}
	if whole && s.sh.eng.challenge != nil {
		if text, ok := s.sh.eng.challenge(string(token)); ok {
			s.client.push([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: " +
				strconv.Itoa(len(text)) + "\r\nConnection: close\r\n\r\n" + text))
			s.client.linger()
			s.end(Challenge)
			return
		}
	}
	s.routePlain(data) // somebody else's
}

// routePlain routes a client that has no name and does not speak TLS.
func (s *session) routePlain(data []byte) {
	choice := s.f.Route(s.address.Addr(), nil)
	s.pool = choice.Pool
	switch {
	case s.pool == nil && choice.Unknown && s.stage == sayPostgres: // names come with TLS only
		s.refusePostgres()
		return
	case s.pool == nil:
		s.end(NoRoute)
		return
	}
	s.key = s.pool.Key(s.address, nil)
	s.keep(data)
	s.greeted()
	s.dial(s.sh.loop.Now())
}

// routeHello routes a client by its ClientHello.
func (s *session) routeHello(data []byte, hello *tlsbridge.Hello) {
	choice := s.f.Route(s.address.Addr(), hello)
	if s.pool = choice.Pool; s.pool != nil {
		s.key = s.pool.Key(s.address, hello.ServerName())
	}
	if s.sh.access != nil || s.tells("authority") {
		s.name = string(hello.ServerName())
	}
	terminate := s.server != nil && !choice.Passthrough
	switch {
	case terminate && isChallenge(hello):
		s.pool = nil // no backend's
		s.handshakeClient(data)
	case s.front.UnknownName == "reject" && (choice.Unknown || terminate && !s.f.AsksName() && !s.server.Knows(hello.ServerName())):
		s.refuse(tlsbridge.AlertUnrecognizedName, UnknownName)
	case s.pool == nil:
		s.refuse(tlsbridge.AlertAccessDenied, NoRoute)
	case terminate:
		s.handshakeClient(data)
	default:
		s.server, s.hello = nil, true
		s.keep(data)
		s.greeted()
		s.dial(s.sh.loop.Now())
	}
}

// isChallenge reports whether a ClientHello is that of an ACME server with a TLS-ALPN-01 challenge (RFC 8737): it offers
// acme-tls/1 and nothing else.
func isChallenge(hello *tlsbridge.Hello) bool {
	offered := 0
	for range hello.ALPN() {
		offered++
	}
	return offered == 1 && hello.Offers(acmeTLS)
}

// refuse ends the session with an alert: the client hears why.
func (s *session) refuse(alert uint8, reason Reason) {
	s.client.push(tlsbridge.AppendAlert(nil, alert))
	s.client.linger()
	s.end(reason)
}

// serverOf returns how TLS ends at f, nil if it does not.
func serverOf(f *balancer.Frontend) *certs.Server {
	server, _ := f.Attached.(*certs.Server)
	return server
}

// originOf returns how TLS begins towards p's backends, nil if it does not.
func originOf(p *balancer.Pool) *tlsbridge.Client {
	client, _ := p.Attached.(*tlsbridge.Client)
	return client
}
