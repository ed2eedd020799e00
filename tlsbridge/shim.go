package tlsbridge

import (
	"errors"
	"net"
	"time"
)

// shim is a Conn as the net.Conn that crypto/tls reads and writes. It never blocks: in a handshake a dry read leaves the
// coroutine, afterwards it is ErrWouldBlock; a write always takes everything.
type shim Conn

var errCancelled = errors.New("cancelled")

// Read returns what was fed first, then what the source has.
func (s *shim) Read(b []byte) (int, error) {
	for s.state == Handshaking && s.inOff == len(s.in) {
		if !s.handshake.wait() {
			return 0, errCancelled
		}
	}
	if s.inOff < len(s.in) {
		return s.readFed(b), nil
	}
	if s.dry {
		return 0, ErrWouldBlock
	}
	return (*Conn)(s).pull(b)
}

func (s *shim) readFed(b []byte) int {
	n := copy(b, s.in[s.inOff:])
	s.inOff += n
	if s.inOff == len(s.in) && s.state != Handshaking {
		s.in, s.inOff = nil, 0
	}
	return n
}

func (s *shim) Write(b []byte) (int, error) {
	s.out = append(s.out, b...)
	return len(b), nil
}

// Close does nothing: the socket is its owner's.
func (s *shim) Close() error { return nil }

// LocalAddr and RemoteAddr are for what hooks of the configuration log.
func (s *shim) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(s.local) }
func (s *shim) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// Deadlines are the owner's timers. crypto/tls sets one when it sends close_notify.
func (s *shim) SetDeadline(time.Time) error      { return nil }
func (s *shim) SetReadDeadline(time.Time) error  { return nil }
func (s *shim) SetWriteDeadline(time.Time) error { return nil }
