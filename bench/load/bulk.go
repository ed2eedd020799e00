package load

import (
	"fmt"
	"syscall"
	"time"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

// The work per event and stream; sockets are level-triggered, so what is left comes back with the next batch.
const (
	bulkBudget = 4
	bulkChunk  = 256 << 10
)

// bulk moves streams of pattern; see package wire for the protocol. Every stream ends with a half-close and the
// backend's account, which must equal the client's to the byte.
//
//	closed --dial--> connecting --> open --(header)--> moving --(FIN sent)--> moving --(trailer, FIN)--> closed
//
// Stall is the same with the header sent while the streams are opened, and nothing read before the run phase.
type bulk struct {
	// Set once.
	l       *loop
	streams []stream
	cfg     *Config
	stalled bool

	opening   int
	live      int
	running   bool
	nextCheck int64
}

type streamState uint8

const (
	streamClosed streamState = iota
	streamConnecting
	streamOpen
	streamMoving
)

type stream struct {
	fd       int
	gen      int32
	state    streamState
	interest uint32
	finSent  bool
	sent     uint64 // pattern bytes given to the socket
	received uint64 // bytes read, the trailer's among them
	bad      uint64 // chunks that did not compare equal
	tail     [wire.TrailerBytes]byte
	tailLen  int   // the last bytes read, which may turn out to be the trailer
	progress int64 // when the last byte moved
}

func newBulk(l *loop) *bulk {
	cfg := &l.r.cfg
	return &bulk{l: l, cfg: cfg, stalled: cfg.Mode == Stall, streams: make([]stream, l.share(int64(cfg.Conns)))}
}

func (m *bulk) enter(p phase) {
	switch p {
	case phaseConnect:
		for i := range m.streams {
			s := &m.streams[i]
			s.interest = sys.Out
			if s.fd = m.l.dial(i, 0, sys.Out); s.fd >= 0 {
				s.state, s.progress = streamConnecting, m.l.r.now()
				m.opening++
				m.live++
			}
		}
	case phaseRun:
		m.running = true
		now := m.l.r.now()
		for i := range m.streams {
			s := &m.streams[i]
			s.progress = now
			if s.state == streamOpen {
				m.begin(s, i)
			}
			m.watch(s, i)
		}
	case phaseDrain:
		m.running = false
		for i := range m.streams {
			if s := &m.streams[i]; s.state == streamMoving {
				m.finish(s)
				m.watch(s, i)
			}
		}
	}
}

func (m *bulk) ready() bool { return m.opening == 0 }
func (m *bulk) done() bool  { return m.live == 0 }

// begin sends the header: 16 bytes always fit into a fresh socket.
func (m *bulk) begin(s *stream, slot int) {
	h := wire.Header{Up: m.cfg.Up, Down: m.cfg.Down, Verify: m.cfg.Verify}
	if m.cfg.Down {
		h.Bytes = m.cfg.Bytes
	}
	var b [wire.HeaderBytes]byte
	if n, errno := sys.Send(s.fd, h.Append(b[:0])); errno != 0 || n != len(b) {
		m.fail(s, kindOf(errno))
		return
	}
	s.state = streamMoving
}

func (m *bulk) event(slot int, gen int32, ev uint32) {
	s := &m.streams[slot]
	if s.state == streamClosed || s.gen != gen {
		return
	}
	if s.state == streamConnecting {
		m.connected(s, slot)
		return
	}
	if s.state == streamOpen { // only an error can be reported now
		m.fail(s, ErrIdleEnd)
		return
	}
	if ev&sys.Out != 0 && !s.finSent {
		m.write(s)
	}
	if s.state != streamClosed && ev&(sys.In|ended) != 0 {
		m.read(s)
	}
	m.watch(s, slot)
}

func (m *bulk) connected(s *stream, slot int) {
	if errno := sys.SocketError(s.fd); errno != 0 {
		m.l.failConnect(errno)
		m.opening--
		m.close(s)
		return
	}
	sys.SetNoDelay(s.fd)
	s.state = streamOpen
	m.opening--
	if m.stalled {
		m.begin(s, slot)
	}
	m.watch(s, slot)
}

// write sends pattern within the budget, and the FIN after the last of a fixed length.
func (m *bulk) write(s *stream) {
	for range bulkBudget {
		n := bulkChunk
		if m.cfg.Bytes > 0 {
			if n = int(min(uint64(n), m.cfg.Bytes-s.sent)); n == 0 {
				m.finish(s)
				return
			}
		}
		sent, errno := sys.Send(s.fd, wire.Pattern(s.sent, n))
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 {
			m.fail(s, kindOf(errno))
			return
		}
		s.sent += uint64(sent)
		m.moved(s)
		if m.l.r.measuring.Load() {
			m.l.bytesUp += int64(sent)
		}
	}
}

// finish sends FIN: no more upload, and enough of an endless download.
func (m *bulk) finish(s *stream) {
	if !s.finSent {
		s.finSent = true
		sys.ShutdownWrite(s.fd)
	}
}

// read takes what has come within the budget. The end of the stream is where the account is checked.
func (m *bulk) read(s *stream) {
	for range bulkBudget {
		n, errno := sys.Read(s.fd, m.l.buf)
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 {
			m.fail(s, kindOf(errno))
			return
		}
		if n == 0 {
			m.end(s)
			return
		}
		s.take(m.l.buf[:n], m.cfg.Verify)
		m.moved(s)
		if m.l.r.measuring.Load() {
			m.l.bytesDown += int64(n)
		}
		if n < len(m.l.buf) {
			return
		}
	}
}

// take compares b with the pattern, except for the stream's last bytes so far, which are kept: they may be the trailer.
func (s *stream) take(b []byte, verify bool) {
	first := s.received - uint64(s.tailLen) // offset of the first byte that is not compared yet
	s.received += uint64(len(b))
	keep := min(len(b)+s.tailLen, len(s.tail))
	old := s.tailLen + len(b) - keep // bytes that are surely pattern: of the tail first, then of b
	fromTail := min(old, s.tailLen)
	if verify {
		if !wire.Matches(s.tail[:fromTail], first) || !wire.Matches(b[:old-fromTail], first+uint64(fromTail)) {
			s.bad++
		}
	}
	rest := copy(s.tail[:], s.tail[fromTail:s.tailLen])
	s.tailLen = rest + copy(s.tail[rest:], b[old-fromTail:])
}

// end checks the account of a stream whose end has come.
func (m *bulk) end(s *stream) {
	if kind := s.verdict(m.cfg); kind != "" {
		m.fail(s, kind)
		return
	}
	m.close(s)
}

// verdict names what is wrong with a stream whose end has come, "" when all is well.
func (s *stream) verdict(cfg *Config) string {
	trailer, err := wire.ParseTrailer(s.tail[:s.tailLen])
	got := s.received - uint64(s.tailLen)
	switch {
	case err != nil:
		return fmt.Sprintf("%s: the stream ended without the backend's account, %d bytes down, %d up", ErrShort, s.received, s.sent)
	case s.bad > 0 || trailer.Mismatches > 0:
		return ErrMismatch
	case trailer.Sent != got, trailer.Received != s.sent:
		return fmt.Sprintf("%s: up %d sent, %d arrived; down %d sent, %d arrived", ErrAccount, s.sent, trailer.Received, trailer.Sent, got)
	case cfg.Bytes > 0 && cfg.Down && got != cfg.Bytes:
		return ErrShort
	}
	return ""
}

func (m *bulk) moved(s *stream) { s.progress = m.l.r.now() }

// watch asks epoll for what the stream still needs.
func (m *bulk) watch(s *stream, slot int) {
	if s.state == streamClosed {
		return
	}
	want := uint32(0)
	if s.state == streamMoving && (m.running || m.l.r.phase.Load() >= phaseDrain) {
		want = sys.In
		if m.cfg.Up && !s.finSent {
			want |= sys.Out
		}
	}
	if want != s.interest {
		s.interest = want
		if errno := m.l.ep.Change(s.fd, want, slot, s.gen); errno != 0 {
			m.fail(s, kindOf(errno))
		}
	}
}

// wake finds streams that have stopped moving.
func (m *bulk) wake(now int64) {
	if now < m.nextCheck {
		return
	}
	m.nextCheck = now + timeoutCheck
	held := !m.running && m.l.r.phase.Load() == phaseConnect
	for i := range m.streams {
		s := &m.streams[i]
		if s.state == streamClosed || held && s.state != streamConnecting {
			continue
		}
		if now-s.progress > int64(m.cfg.Timeout) {
			if s.state == streamConnecting {
				m.opening--
			}
			m.fail(s, ErrTimeout)
		}
	}
}

func (m *bulk) wait(int64) time.Duration { return phasePoll }

func (m *bulk) fail(s *stream, kind string) {
	m.l.r.fail(kind, 1)
	m.close(s)
}

func (m *bulk) close(s *stream) {
	sys.Close(s.fd)
	s.state = streamClosed
	s.gen++
	m.live--
}

func (m *bulk) closeAll() {
	for i := range m.streams {
		if m.streams[i].state != streamClosed {
			sys.Close(m.streams[i].fd)
		}
	}
}
