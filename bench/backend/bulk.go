package backend

import (
	"syscall"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

// bulkBudget bounds the work per event, so that one stream cannot starve the others; the socket is level-triggered, so
// what is left comes back with the next batch.
const (
	bulkBudget = 4
	bulkChunk  = 256 << 10
)

// bulkState is one bulk stream, seen from the backend. Owned by its loop.
//
//	reading the header --> moving --(own half done)--> trailer queued --> FIN sent --(peer's FIN)--> closed
type bulkState struct {
	head       wire.Header
	moving     bool // the header is complete
	eof        bool // the client has sent its FIN
	trailer    bool // the trailer is queued or out
	finSent    bool
	received   uint64
	sent       uint64
	mismatches uint64
}

// doneSending says whether the backend has given all it should.
func (b *bulkState) doneSending() bool {
	if !b.head.Down {
		return true
	}
	if b.head.Bytes > 0 {
		return b.sent == b.head.Bytes
	}
	return b.eof
}

func (b *bulkState) doneReceiving() bool { return !b.head.Up || b.eof }

// serveBulk runs on every event of a bulk stream.
func (l *loop) serveBulk(c *conn) {
	b := &c.bulk
	if !b.eof && !l.receiveBulk(c) {
		return
	}
	if !b.moving {
		return
	}
	if !l.sendBulk(c) {
		return
	}
	if !b.trailer && b.doneSending() && b.doneReceiving() {
		b.trailer = true
		c.pending = wire.Trailer{Received: b.received, Sent: b.sent, Mismatches: b.mismatches}.Append(c.carry[:0])
	}
	if b.trailer && !b.finSent {
		out := l.flush(c)
		if l.conns[c.fd] != c {
			return
		}
		if out {
			sys.ShutdownWrite(c.fd)
			b.finSent = true
		}
	}
	if b.finSent && b.eof {
		l.close(c)
		return
	}
	l.watchBulk(c)
}

// receiveBulk reads the header and then the upload, within the budget. It returns false when the connection is closed.
func (l *loop) receiveBulk(c *conn) bool {
	b := &c.bulk
	for range bulkBudget {
		n, errno := sys.Read(c.fd, l.buf)
		if errno == syscall.EAGAIN {
			return true
		}
		if errno != 0 {
			l.close(c)
			return false
		}
		if n == 0 {
			b.eof = true
			if !b.moving { // a stream that ends before its header is no stream
				l.refuse(c)
				return false
			}
			return true
		}
		in := l.buf[:n]
		if !b.moving {
			take := min(wire.HeaderBytes-len(c.carry), n)
			c.carry = append(c.carry, in[:take]...)
			in = in[take:]
			if len(c.carry) < wire.HeaderBytes {
				continue
			}
			head, err := wire.ParseHeader(c.carry)
			if err != nil {
				l.refuse(c)
				return false
			}
			b.head, b.moving = head, true
		}
		if len(in) > 0 && !b.head.Up {
			l.refuse(c)
			return false
		}
		if b.head.Verify && len(in) > 0 && !wire.Matches(in, b.received) {
			b.mismatches++
		}
		b.received += uint64(len(in))
		l.s.bulkReceived.Add(int64(len(in)))
		if n < len(l.buf) {
			return true
		}
	}
	return true
}

// sendBulk writes the download, within the budget. It returns false when the connection is closed.
func (l *loop) sendBulk(c *conn) bool {
	b := &c.bulk
	for i := 0; i < bulkBudget && !b.doneSending(); i++ {
		n := bulkChunk
		if b.head.Bytes > 0 {
			n = int(min(uint64(n), b.head.Bytes-b.sent))
		}
		sent, errno := sys.Send(c.fd, wire.Pattern(b.sent, n))
		if errno == syscall.EAGAIN {
			return true
		}
		if errno != 0 {
			l.close(c)
			return false
		}
		b.sent += uint64(sent)
		l.s.bulkSent.Add(int64(sent))
	}
	return true
}

// watchBulk asks for the events the stream still needs.
func (l *loop) watchBulk(c *conn) {
	want := uint32(0)
	if !c.bulk.eof {
		want |= sys.In
	}
	if !c.bulk.doneSending() || len(c.pending) > 0 {
		want |= sys.Out
	}
	if want != c.interest {
		c.interest = want
		if errno := l.ep.Change(c.fd, want, c.fd, c.gen); errno != 0 {
			l.close(c)
		}
	}
}
