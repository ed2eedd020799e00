package engine

import (
	"syscall"
	"time"

	"awe4lb/engine/loop"

	"github.com/panjf2000/gnet/v2/pkg/pool/byteslice"
)

const lingerTime = time.Second

// lingerer is a socket whose session has ended, and that is to hear why: an alert, an error message. To close it at once
// would reset the connection when there is unread input, and the reset would overtake what was sent. So it is sent the rest
// and FIN, and read until its end or for lingerTime. Owned by the shard's goroutine.
type lingerer struct {
	sh    *shard
	fd    int
	rest  []byte // pooled; not sent yet
	off   int
	timer loop.Timer

	next, prev *lingerer // the shard's list
}

// linger makes x's socket, with its backlog, a lingerer. x is closed then.
func (x *side) linger() {
	sh := x.s.sh
	if x.fd < 0 || x.failed || sh.lingers >= sh.maxLingers {
		return
	}
	l := &lingerer{sh: sh, fd: int(x.fd), rest: x.buf, off: int(x.off)}
	x.buf, x.off, x.fd = nil, 0, -1
	x.dropConn()
	l.timer.Handle(l)
	sh.loop.Forget(l.fd)
	head := &sh.lingering
	l.prev, l.next = head.prev, head
	head.prev.next, head.prev = l, l
	sh.lingers++
	sh.eng.lingering.Add(1)
	l.flush()
	if sh.loop.Register(l.fd, l) != nil {
		l.end()
		return
	}
	sh.loop.After(&l.timer, sh.loop.Now(), lingerTime)
}

// flush sends what is left to send, and then FIN. What goes wrong shows when the socket is read.
func (l *lingerer) flush() {
	for l.rest != nil {
		n, errno := sysSend(l.fd, l.rest[l.off:], 0)
		if errno != 0 {
			return
		}
		if l.off += n; l.off == len(l.rest) {
			l.drop()
		}
	}
	sysShutdown(l.fd)
}

func (l *lingerer) drop() {
	if l.rest != nil {
		byteslice.Put(l.rest)
		l.rest, l.off = nil, 0
	}
}

// Ready implements loop.Handler.
func (l *lingerer) Ready(_ int, ev loop.Events) {
	if ev.Writable() && l.rest != nil {
		l.flush()
	}
	for range 16 { // and a stranger who sends for ever is cut by the timer
		n, errno := sysRead(l.fd, l.sh.buf)
		switch {
		case n > 0:
		case errno == 0 || errno != syscall.EAGAIN:
			l.end()
			return
		default:
			return
		}
	}
	l.sh.loop.Rearm(l.fd)
}

// Expire is called by the loop when lingerTime is over.
func (l *lingerer) Expire() { l.end() }

func (l *lingerer) end() {
	l.drop()
	l.prev.next, l.next.prev = l.next, l.prev
	l.sh.lingers--
	l.sh.eng.lingering.Add(-1)
	l.sh.loop.Cancel(&l.timer)
	l.sh.loop.Close(l.fd)
}
