package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"awe4lb/bench/wire"
)

// secureClients is a part of the generator whose connections have a goroutine each, since crypto/tls blocks in handshakes
// and in large writes.
type secureClients struct {
	// Set once.
	r        *run
	index    int
	security *security
	work     func() // the run phase: returns when nothing is in flight; ready and done are closed before and after it
	open     func() // the connect phase

	// Guarded by mu.
	mu sync.Mutex
	figures
	live  map[net.Conn]struct{}
	ended bool // nothing is dialled any more
}

func newSecureClients(r *run, index int) *secureClients {
	return &secureClients{r: r, index: index, security: newSecurity(r.cfg.TLS), figures: newFigures(), live: map[net.Conn]struct{}{}}
}

// run leads the goroutines through the phases.
func (s *secureClients) run() {
	var watching sync.WaitGroup
	watching.Go(func() { // ends with the run: what hangs is cut
		s.await(phaseStop)
		s.closeAll()
	})
	defer watching.Wait()
	s.open()
	close(s.ready)
	s.await(phaseRun)
	if s.r.phase.Load() != phaseStop {
		s.work()
	}
	close(s.done)
	s.await(phaseStop)
}

func (s *secureClients) abandon() { s.closeAll() }

// await waits until the run is in phase p or past it.
func (s *secureClients) await(p phase) {
	for s.r.phase.Load() < p {
		time.Sleep(phasePoll)
	}
}

// dial returns a connection that is closed when the run ends, if it still is open then.
func (s *secureClients) dial(limit time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: s.r.cfg.Timeout, KeepAlive: -1}
	conn, err := d.DialContext(context.Background(), "tcp4", s.r.cfg.Target)
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		return nil, fmt.Errorf("%s: %w", ErrConnect, err)
	}
	conn.SetDeadline(time.Now().Add(limit))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		conn.Close()
		return nil, errRunEnded
	}
	s.live[conn] = struct{}{}
	return conn, nil
}

var errRunEnded = errors.New("the run has ended")

func (s *secureClients) close(conn net.Conn) {
	s.mu.Lock()
	delete(s.live, conn)
	s.mu.Unlock()
	conn.Close()
}

func (s *secureClients) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for conn := range s.live {
		conn.Close()
	}
}

// fail counts what went wrong, unless that is the end of the run.
func (s *secureClients) fail(err error) {
	if s.r.phase.Load() != phaseStop {
		s.r.fail(err.Error(), 1)
	}
}

// connect dials and makes a handshake.
func (s *secureClients) connect(limit time.Duration, resumed bool) (net.Conn, *tls.Conn, error) {
	conn, err := s.dial(limit)
	if err != nil {
		return nil, nil, err
	}
	c := tls.Client(conn, s.security.config)
	if err := c.Handshake(); err != nil {
		s.close(conn)
		return nil, nil, handshakeError(err)
	}
	if err := s.security.check(c.ConnectionState(), resumed); err != nil {
		s.close(conn)
		return nil, nil, err
	}
	return conn, c, nil
}

// kindOfError names an error of a read or a write.
func kindOfError(err error) string {
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return ErrTimeout
	case errors.As(err, &errno):
		return kindOf(errno)
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return ErrShort
	}
	return fmt.Sprintf("%s: %v", ErrIO, err)
}

// handshakes is mode Connections over TLS: connect, handshake, one request, the response, the backend's close, P at a
// time. In an open loop those that are due wait for one of the P, and their time runs.
type handshakes struct {
	*secureClients
	request, response []byte
	left              int64 // Count: how many may still be begun. Guarded by mu
}

func newHandshakes(r *run, index int) (part, error) {
	h := &handshakes{secureClients: newSecureClients(r, index), request: wire.Request(r.cfg.RequestBytes, r.cfg.ResponseBytes, true),
		response: wire.Response(r.cfg.ResponseBytes, true), left: r.share(index, r.cfg.Count)}
	h.open, h.work = h.prime, h.load
	return h, nil
}

// prime gets the session that all others resume.
func (h *handshakes) prime() {
	if h.r.cfg.TLS.Resume {
		if _, err := h.exchange(make([]byte, len(h.response)+1), false); err != nil {
			h.fail(err)
		}
	}
}

// load runs the P clients until the load is over.
func (h *handshakes) load() {
	var due chan time.Time
	var clients sync.WaitGroup
	if h.r.cfg.Rate > 0 {
		due = make(chan time.Time, 1<<16) // what is due and waits: 3 minutes of 300 a second
		clients.Go(func() { h.schedule(due) })
	}
	for range h.r.share(h.index, int64(h.r.cfg.Conns)) {
		clients.Go(func() { h.client(due) })
	}
	clients.Wait()
}

// schedule says when connections are due, and closes due after the last.
func (h *handshakes) schedule(due chan<- time.Time) {
	defer close(due)
	cfg := &h.r.cfg
	period := 1e9 * float64(cfg.Threads) / cfg.Rate
	first := h.r.epoch.Add(time.Duration(h.r.t0) + time.Duration(period*float64(h.index)/float64(cfg.Threads)))
	end := h.r.epoch.Add(time.Duration(h.r.t0) + cfg.Warmup + cfg.Duration)
	for k := 0; h.r.phase.Load() != phaseStop; k++ {
		at := first.Add(time.Duration(float64(k) * period))
		if !at.Before(end) {
			return
		}
		time.Sleep(time.Until(at))
		due <- at
	}
}

// client makes one connection after the other.
func (h *handshakes) client(due <-chan time.Time) {
	buf := make([]byte, len(h.response)+1)
	for {
		start := time.Now()
		if due != nil {
			var ok bool
			if start, ok = <-due; !ok {
				return
			}
		} else if !h.mayOpen() {
			return
		}
		answered, err := h.exchange(buf, h.r.cfg.TLS.Resume)
		if err != nil {
			h.fail(err)
			if due == nil {
				time.Sleep(time.Millisecond) // a target that refuses must not make us spin
			}
			continue
		}
		if h.r.measuring.Load() {
			h.mu.Lock()
			h.units++
			h.latency.Record(answered.Sub(start))
			h.mu.Unlock()
		}
	}
}

func (h *handshakes) mayOpen() bool {
	if h.r.phase.Load() != phaseRun {
		return false
	}
	if h.r.cfg.Count == 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left--
	return h.left >= 0
}

// exchange makes one connection and returns when its response was complete.
func (h *handshakes) exchange(buf []byte, resumed bool) (answered time.Time, err error) {
	conn, c, err := h.connect(h.r.cfg.Timeout, resumed)
	if err != nil {
		return answered, err
	}
	defer h.close(conn)
	if _, err := c.Write(h.request); err != nil {
		return answered, errors.New(kindOfError(err))
	}
	got := 0
	for {
		n, err := c.Read(buf[got:])
		if !bytes.HasPrefix(h.response[got:], buf[got:got+n]) {
			if got+n > len(h.response) {
				return answered, errors.New(ErrExtra)
			}
			return answered, errors.New(ErrMismatch)
		}
		if got += n; n > 0 && got == len(h.response) {
			answered = time.Now()
		}
		switch {
		case err == io.EOF && got == len(h.response):
			c.Close() // a client's close_notify
			return answered, nil
		case err != nil && got == len(h.response) && kindOfError(err) == ErrTimeout:
			return answered, errors.New(ErrNoClose)
		case err != nil:
			return answered, errors.New(kindOfError(err))
		}
	}
}

// secureBulk is mode Bulk over TLS: see bulk for what a stream is. Its end is a close_notify and a FIN.
type secureBulk struct {
	*secureClients
	streams []*secureStream
}

type secureStream struct {
	stream // of which only the account is used
	conn   net.Conn
	tls    *tls.Conn
}

const secureChunk = 64 << 10 // bytes per write: four records

func newSecureBulk(r *run, index int) (part, error) {
	b := &secureBulk{secureClients: newSecureClients(r, index)}
	b.open, b.work = b.connectAll, b.move
	return b, nil
}

// limit bounds the whole life of a stream.
func (b *secureBulk) limit() time.Duration {
	cfg := &b.r.cfg
	limit := cfg.Warmup + cfg.Duration + 3*cfg.Timeout
	if cfg.Bytes > 0 {
		limit = max(limit, time.Minute)
	}
	return limit
}

func (b *secureBulk) connectAll() {
	for range b.r.share(b.index, int64(b.r.cfg.Conns)) {
		conn, c, err := b.connect(b.limit(), false)
		if err != nil {
			b.fail(err)
			return
		}
		b.streams = append(b.streams, &secureStream{conn: conn, tls: c})
	}
}

// move runs all streams to their ends.
func (b *secureBulk) move() {
	cfg := &b.r.cfg
	var moving sync.WaitGroup
	for _, s := range b.streams {
		h := wire.Header{Up: cfg.Up, Down: cfg.Down, Verify: cfg.Verify}
		if cfg.Down {
			h.Bytes = cfg.Bytes
		}
		moving.Go(func() {
			var uploaded sync.WaitGroup
			if _, err := s.tls.Write(h.Append(nil)); err != nil {
				b.fail(errors.New(kindOfError(err)))
				return
			}
			var up error
			uploaded.Go(func() { up = b.upload(s) })
			down := b.download(s)
			if down != nil {
				b.close(s.conn) // the upload may wait for room
			}
			uploaded.Wait()
			switch {
			case down != nil:
				b.fail(errors.New(kindOfError(down)))
			case up != nil:
				b.fail(errors.New(kindOfError(up)))
			default:
				if kind := s.verdict(cfg); kind != "" {
					b.fail(errors.New(kind))
				}
			}
			b.close(s.conn)
		})
	}
	moving.Wait()
}

// upload sends pattern, if asked to, until its length or the end of the load, and then the stream's end.
func (b *secureBulk) upload(s *secureStream) error {
	cfg := &b.r.cfg
	for cfg.Up && b.r.phase.Load() == phaseRun {
		n := secureChunk
		if cfg.Bytes > 0 {
			if n = int(min(uint64(n), cfg.Bytes-s.sent)); n == 0 {
				break
			}
		}
		if _, err := s.tls.Write(wire.Pattern(s.sent, n)); err != nil {
			return err
		}
		s.sent += uint64(n)
		b.count(n, 0)
	}
	for !cfg.Up && cfg.Bytes == 0 && b.r.phase.Load() == phaseRun {
		time.Sleep(phasePoll) // until the download is enough
	}
	if err := s.tls.CloseWrite(); err != nil {
		return err
	}
	return s.conn.(*net.TCPConn).CloseWrite()
}

// download reads to the stream's end.
func (b *secureBulk) download(s *secureStream) error {
	buf := make([]byte, secureChunk)
	for {
		n, err := s.tls.Read(buf)
		if n > 0 {
			s.take(buf[:n], b.r.cfg.Verify)
			b.count(0, n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (b *secureBulk) count(up, down int) {
	if b.r.measuring.Load() {
		b.mu.Lock()
		b.bytesUp += int64(up)
		b.bytesDown += int64(down)
		b.mu.Unlock()
	}
}
