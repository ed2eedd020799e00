package load

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"awe4lb/bench/sys"
)

// TLS says what is spoken to the target. Suite and key exchange are fixed, so that every server does the same work:
// AES-128-GCM, X25519. A handshake that agrees on anything else is an error.
type TLS struct {
	Version     uint16 // tls.VersionTLS12 or tls.VersionTLS13, and no other
	Certificate []byte // DER: what the server must show, to the byte; nil = do not look
	Resume      bool   // connections: all but the first, which is not measured, must resume its session
}

const (
	serverName      = "bench.test"
	recordHandshake = 22 // the first byte of a record of a handshake
)

// suites are those that may be agreed on.
var suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}

// security makes clients' ends of TLS connections and judges what was agreed on. Safe from any goroutine.
type security struct {
	agreed *TLS
	config *tls.Config
	ticket ticket
}

func newSecurity(t *TLS) *security {
	s := &security{agreed: t}
	s.config = &tls.Config{
		ServerName: serverName, MinVersion: t.Version, MaxVersion: t.Version, CipherSuites: suites[1:], CurvePreferences: []tls.CurveID{tls.X25519},
		InsecureSkipVerify: true, // check compares the whole certificate; that its owner has signed is verified anyway
		ClientSessionCache: &s.ticket,
	}
	if t.Version == tls.VersionTLS12 {
		// There, the list says also which certificates will do: OpenSSL shows no P-256 one to a client without P-256. X25519 is
		// what the server must choose, see check.
		s.config.CurvePreferences = append(s.config.CurvePreferences, tls.CurveP256)
	}
	s.ticket.keep = t.Resume
	return s
}

// ticket is a cache of one session. One that keeps nothing stands for a new client: it asks for tickets, as clients do,
// and resumes nothing.
type ticket struct {
	keep    bool
	session atomic.Pointer[tls.ClientSessionState]
}

func (t *ticket) Get(string) (*tls.ClientSessionState, bool) {
	s := t.session.Load()
	return s, s != nil
}

func (t *ticket) Put(_ string, s *tls.ClientSessionState) {
	if t.keep {
		t.session.Store(s)
	}
}

// check compares what was agreed on; resumed says whether the session should have been.
func (s *security) check(state tls.ConnectionState, resumed bool) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%s: "+format, append([]any{ErrNegotiated}, args...)...)
	}
	switch {
	case state.Version != s.agreed.Version:
		return wrong("%s", tls.VersionName(state.Version))
	case !slices.Contains(suites, state.CipherSuite):
		return wrong("%s", tls.CipherSuiteName(state.CipherSuite))
	case state.DidResume != resumed:
		return wrong("resumed %v", state.DidResume)
	case !resumed && state.CurveID != tls.X25519:
		return wrong("key exchange %v", state.CurveID)
	case s.agreed.Certificate != nil && (len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, s.agreed.Certificate)):
		return wrong("another certificate")
	}
	return nil
}

// handshake makes a full handshake over a connected socket, waiting for it, for no longer than limit.
func (s *security) handshake(fd int, limit time.Duration) (*secureSocket, error) {
	socket := &secureSocket{fd: fd, deadline: time.Now().Add(limit)}
	socket.conn = tls.Client(socket, s.config)
	if err := socket.conn.Handshake(); err != nil {
		return nil, handshakeError(err)
	}
	socket.deadline = time.Time{}
	return socket, s.check(socket.conn.ConnectionState(), false)
}

func handshakeError(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New(ErrHandshake + ": " + ErrTimeout)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New(ErrHandshake + ": " + ErrReset)
	}
	return fmt.Errorf("%s: %w", ErrHandshake, err)
}

// clientHello returns the first flight of a handshake.
func (s *security) clientHello() ([]byte, error) {
	var flight firstFlight
	if err := tls.Client(&flight, s.config).Handshake(); len(flight.sent) == 0 {
		return nil, fmt.Errorf("no ClientHello: %w", err)
	}
	return flight.sent, nil
}

// firstFlight is a peer that takes what comes and has ended.
type firstFlight struct {
	noConn
	sent []byte
}

func (f *firstFlight) Read([]byte) (int, error) { return 0, io.EOF }

func (f *firstFlight) Write(b []byte) (int, error) {
	if f.sent == nil {
		f.sent = bytes.Clone(b)
	}
	return len(b), nil
}

// secureSocket lets tls.Conn read and write a non-blocking socket. Until the handshake is over, reads wait for bytes, as
// crypto/tls wants it; from then on they return at once, with an error that crypto/tls holds for temporary.
type secureSocket struct {
	noConn
	fd       int
	conn     *tls.Conn
	deadline time.Time // of the handshake; zero = it is over
}

// sendPatience bounds the wait for room in a socket's buffer: requests are far smaller than that is.
const sendPatience = 10 * time.Second

// Read is for tls.Conn.
func (s *secureSocket) Read(b []byte) (int, error) {
	for {
		n, errno := sys.Read(s.fd, b)
		switch {
		case errno == syscall.EAGAIN && s.deadline.IsZero():
			return 0, again{}
		case errno == syscall.EAGAIN:
			if !sys.Poll(s.fd, sys.In, time.Until(s.deadline)) {
				return 0, syscall.ETIMEDOUT
			}
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write is for tls.Conn. It writes everything.
func (s *secureSocket) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n, errno := sys.Send(s.fd, b[sent:])
		if errno == syscall.EAGAIN && sys.Poll(s.fd, sys.Out, sendPatience) {
			continue
		}
		if errno != 0 {
			return sent, errno
		}
		sent += n
	}
	return len(b), nil
}

// write encrypts and sends all of b.
func (s *secureSocket) write(b []byte) (int, syscall.Errno) {
	n, err := s.conn.Write(b)
	return n, errnoOf(err)
}

// read returns what could be decrypted, as sys.Read would: EAGAIN when that is nothing, 0 at the end.
func (s *secureSocket) read(b []byte) (int, syscall.Errno) {
	n, err := s.conn.Read(b)
	if n > 0 || err == io.EOF {
		return n, 0
	}
	return 0, errnoOf(err)
}

// errnoOf returns what went wrong below TLS; EPROTO stands for what went wrong in it.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.Is(err, again{}):
		return syscall.EAGAIN
	case errors.As(err, &errno):
		return errno
	}
	return syscall.EPROTO
}

// again says that there is nothing to read now.
type again struct{}

func (again) Error() string   { return "nothing to read now" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// noConn is the rest of a net.Conn, which a tls.Conn of ours has no use for.
type noConn struct{}

func (noConn) Close() error                     { return nil }
func (noConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (noConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (noConn) SetDeadline(time.Time) error      { return nil }
func (noConn) SetReadDeadline(time.Time) error  { return nil }
func (noConn) SetWriteDeadline(time.Time) error { return nil }
