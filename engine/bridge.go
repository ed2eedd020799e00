package engine

import (
	"io"
	"syscall"

	"awe4lb/engine/loop"
	"awe4lb/tlsbridge"

	"github.com/panjf2000/gnet/v2/pkg/pool/byteslice"
)

// Sessions one or both ends of which are TLS. What is counted is what is relayed: plaintext.

const (
	bridgeRead = 64 << 10 // bytes of plaintext relayed at once: they stay in the processor's cache

	// A round of reading is charged this much at least, so that a client who sends a byte per record does not get a round
	// of the shard for each.
	bridgeRound = 4 << 10

	// The most that may wait for an end while it is read. A peer that asks for new keys and never reads the answers is not
	// read any further. One that only does not read what the other end sent is: so much of that, bridgeRead encrypted, may
	// wait besides.
	ownBacklog = 64<<10 + bridgeRead + bridgeRead/16
)

// bridging is what a shard needs to relay TLS. Owned by the shard's goroutine.
type bridging struct {
	// These hold nothing between events.
	plain   []byte
	cipher  []byte // empty; room for plain once it is encrypted
	scratch *tlsbridge.Scratch

	// Whose budget was spent with more to read; they go on when others have had their turn.
	loop  *loop.Loop
	next  []*side
	going []*side // empty but in Expire
	turn  loop.Timer
}

func newBridging(l *loop.Loop) *bridging {
	b := &bridging{plain: make([]byte, bridgeRead), cipher: make([]byte, 0, tlsbridge.MaxCiphertext(bridgeRead)),
		scratch: tlsbridge.NewScratch(tlsbridge.ScratchBytes), loop: l}
	b.turn.Handle(b)
	return b
}

// bridge is pump for a session with TLS.
func (s *session) bridge(src, dst *side) {
	if dst.failed {
		return // nowhere to go
	}
	if dst.backlogged() && !(dst.writable && dst.flush()) {
		return // src is not read while dst has a backlog
	}
	buf := s.sh.bridging
	for budget := pumpBudget; src.readable; {
		if budget <= 0 {
			buf.later(src)
			return
		}
		if src.buf != nil && len(src.buf)-int(src.off) > ownBacklog {
			return
		}
		plain := buf.plain
		if s.metered {
			n := s.meter.allow(dst.kind, len(plain))
			if n == 0 {
				return // the meter's timer goes on
			}
			if src.conn != nil {
				n = max(n, tlsbridge.MinRead) // what is too much makes the next ones wait the longer
			}
			plain = plain[:n]
		}
		var n int
		var err error
		if src.conn != nil {
			var own []byte
			n, own, err = src.conn.Read(buf.scratch, plain, buf.cipher)
			src.push(own)
		} else {
			n = src.read(plain)
		}
		if s.metered {
			s.meter.spend(dst.kind, n, len(plain))
		}
		budget -= max(n, bridgeRound)
		if n > 0 {
			dst.write(plain[:n])
		}
		switch {
		case err == nil:
		case err == tlsbridge.ErrWouldBlock:
			src.readable, src.wary = false, false
		case err == io.EOF:
			src.ended()
		default:
			src.broke(err)
		}
		if dst.failed || dst.backlogged() {
			return
		}
	}
}

// later has x's session go on with x after the events at hand. A plain socket would be reported again by the kernel; here
// the rest may be in the Conn, of which the kernel knows nothing. A posted function would not do: those that functions post
// run before the next events.
func (b *bridging) later(x *side) {
	if x.queued {
		return
	}
	x.queued = true
	b.next = append(b.next, x)
	b.loop.Yield(&b.turn)
}

// Expire is called by the loop when the others have had their turn.
func (b *bridging) Expire() {
	b.going, b.next = b.next, b.going
	for _, x := range b.going {
		x.queued = false
		if x.s.state == open && x.readable { // be it another session by now: to look does no harm
			x.s.relay(x)
		}
	}
	b.going = b.going[:0]
}

// Pull reads ciphertext for x.conn. It implements tlsbridge.Source.
func (x *side) Pull(b []byte) (int, error) {
	n, errno := sysRead(int(x.fd), b)
	switch {
	case n > 0:
		return n, nil
	case errno == 0:
		return 0, io.EOF
	case errno == syscall.EAGAIN:
		return 0, tlsbridge.ErrWouldBlock
	}
	return 0, errno
}

// broke notes the end of x's stream that is not a proper one: the socket failed, the stream was cut off, or x does not keep
// to the protocol. In the last case an alert has been pushed, and is given the time to arrive.
func (x *side) broke(err error) {
	if errno, ok := err.(syscall.Errno); ok {
		x.fail(errno)
		x.ended()
		return
	}
	s := x.s
	if s.fault == none {
		s.fault = ClientTLS + Reason(x.kind)
		switch {
		case err == tlsbridge.ErrTruncated && x.kind == ToClient && s.backend.eof && !x.backlogged():
			s.fault = BackendEOF // it has all that there was for it and hangs up, as many clients do
		case err == tlsbridge.ErrTruncated:
			s.fault = ClientTruncated + Reason(x.kind)
		}
		if s.fault != BackendEOF {
			s.own().detail = detail(err)
		}
	}
	if err != tlsbridge.ErrTruncated {
		x.linger()
	}
	if x.fd >= 0 && !x.local {
		sysReset(int(x.fd)) // to x, too, a FIN would look like the end of what it was sent
	}
	x.failed = true
	x.dropBacklog()
	x.ended()
}

// write sends p to x, encrypted if x is TLS, and keeps what x does not take. An error is noted in x.
func (x *side) write(p []byte) {
	if x.conn == nil {
		if took := x.send(p, false); took < len(p) && !x.failed {
			x.park(p[took:])
		}
		return
	}
	out, err := x.conn.Write(p, x.s.sh.bridging.cipher)
	if err != nil {
		x.broke(err)
		return
	}
	x.sent += uint64(len(p))
	x.s.count(x.kind, len(p))
	x.push(out)
}

// push sends what x's Conn has to say, b, after what waits for x already, and keeps what x does not take. After FIN nothing
// can be said: the answer to a request for new keys, or an alert.
func (x *side) push(b []byte) {
	switch {
	case len(b) == 0 || x.failed || x.shut:
	case x.buf != nil:
		x.append(b)
	default:
		n, errno := sysSend(int(x.fd), b, 0)
		switch {
		case errno != 0 && errno != syscall.EAGAIN:
			x.fail(errno)
		case n < len(b):
			x.park(b[max(n, 0):])
		}
	}
}

// append adds b to the backlog.
func (x *side) append(b []byte) {
	old := x.buf[x.off:]
	grown := byteslice.Get(len(old) + len(b))
	copy(grown[copy(grown, old):], b)
	byteslice.Put(x.buf)
	x.buf, x.off = grown, 0
}

// part tells x that there is nothing more to come, once. It reports whether nothing waits for x.
func (x *side) part() bool {
	if !x.parting {
		x.parting = true
		x.push(x.conn.CloseWrite(x.s.sh.bridging.cipher))
	}
	return !x.backlogged()
}

func (x *side) dropConn() {
	if x.conn != nil {
		x.conn.Cancel()
		x.conn, x.waiting, x.parting = nil, false, false
	}
}
