package engine

import (
	"syscall"

	"awe4lb/engine/loop"
	"awe4lb/tlsbridge"

	"github.com/panjf2000/gnet/v2/pkg/pool/byteslice"
	"golang.org/x/sys/unix"
)

// side is one end of a session: a socket, what is known of its readiness, and the bytes on their way to it. Owned by
// the shard's goroutine.
type side struct {
	s    *session
	sent uint64 // bytes this side has taken
	fd   int32  // -1 when not open
	kind uint8  // ToClient or ToBackend, the index of its counters

	// What the kernel last said; a system call may say otherwise.
	readable bool // a read may return something
	writable bool // a send may make progress; kept only while there is a backlog
	wary     bool // a short read does not mean drained: the end, an error or urgent data may be behind it

	// How far this end is.
	eof    bool // everything it sent has been read
	shut   bool // it has been sent FIN
	failed bool // reset or lost: sending to it is pointless
	local  bool // a unix socket
	bare   bool // its socket options are not set yet: see send and session.setKeepalive

	// TLS: see bridge.go and handshake.go.
	conn    *tlsbridge.Conn // nil: this end is plain
	waiting bool            // the handshake is with its worker
	parting bool            // close_notify is on its way, or sent
	queued  bool            // it is to go on where a budget ended: see bridging

	// Bulk: reads of bulkRead bytes or more in a row; once splicing, splices under chatty bytes in a row.
	splicing bool
	streak   uint8

	// The backlog: what the peer sent and this side did not take at once, in buf[off:] or else in the pipe.
	off  int32
	buf  []byte
	pipe *pipe
}

// ToClient and ToBackend are the directions, and index the byte counters.
const (
	ToClient  = 0 // b2c
	ToBackend = 1 // c2b
)

// open makes x the owner of a socket; its backlog stays.
func (x *side) open(fd int, local bool) {
	*x = side{s: x.s, fd: int32(fd), kind: x.kind, local: local, off: x.off, buf: x.buf, queued: x.queued}
}

// close closes the socket, with RST if wanted, and gives back what x held.
func (x *side) close(reset bool) {
	x.dropBacklog()
	x.dropConn()
	if x.fd < 0 {
		return
	}
	if reset && !x.failed && !x.local {
		sysReset(int(x.fd))
	}
	x.s.sh.loop.Close(int(x.fd))
	x.fd = -1
}

// Ready is called by the loop. The hints are kept until a system call refutes them.
func (x *side) Ready(_ int, ev loop.Events) {
	if ev.Readable() {
		x.readable = true
		if ev&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
			x.wary = true
			if ev&unix.EPOLLPRI != 0 {
				// Urgent data goes on in line; out of line its byte would be lost.
				sysSetInt(int(x.fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
			}
		}
	}
	if ev.Writable() {
		x.writable = true
	}
	x.s.ready(x, ev)
}

// read fills b from x as far as it goes and returns the number of bytes; the end or an error shows in x. After a short
// read nothing more is there, except where x is wary: there only the next read knows.
func (x *side) read(b []byte) int {
	n := 0
	for n < len(b) {
		m, errno := sysRead(int(x.fd), b[n:])
		switch {
		case m > 0:
			n += m
			if n < len(b) && !x.wary {
				x.readable = false
				return n
			}
		case errno == 0:
			x.ended()
			return n
		case errno == syscall.EAGAIN:
			x.readable, x.wary = false, false
			return n
		default:
			x.fail(errno)
			x.ended()
			return n
		}
	}
	return n
}

// ended notes that x has nothing more to say.
func (x *side) ended() {
	x.eof, x.readable = true, false
	x.s.noteEOF(x)
}

// fail notes that x was reset or lost. What it sent before may still be in its receive queue, so it stays readable.
func (x *side) fail(errno syscall.Errno) {
	if x.failed {
		return
	}
	x.failed = true
	x.readable, x.wary = !x.eof, true
	x.dropBacklog()
	x.s.noteFault(x, errno)
}

// nagleSafe is the most that Nagle's algorithm never holds back as a connection's first bytes: less than any MSS.
const nagleSafe = 500

// send sends b and returns the number of bytes x took; less than len(b) means that x is full, or failed. An error is
// noted in x. more promises that the end of the stream follows at once, so that FIN can ride on the last segment.
//
// TCP_NODELAY of a backend is set when a second or larger send needs it, which saves the many connections that carry one
// small request a system call.
func (x *side) send(b []byte, more bool) int {
	if x.bare && (x.sent > 0 || len(b) > nagleSafe) {
		x.setNoDelay()
	}
	flags := 0
	if more {
		flags = unix.MSG_MORE
	}
	n, errno := sysSend(int(x.fd), b, flags)
	if errno != 0 {
		if errno != syscall.EAGAIN {
			x.fail(errno)
		}
		return 0
	}
	x.took(n)
	return n
}

func (x *side) setNoDelay() {
	x.bare = false
	if !x.local && x.s.pool.Config.TCP.NoDelay {
		sysSetInt(int(x.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
}

// took counts n bytes that x has taken. Those of TLS were counted when they were plain.
func (x *side) took(n int) {
	if x.conn != nil {
		x.s.moved = true
		return
	}
	x.sent += uint64(n)
	x.s.count(x.kind, n)
}

// backlogged reports whether bytes wait for x.
func (x *side) backlogged() bool { return x.buf != nil || x.pipe != nil && x.pipe.fill > 0 }

// park keeps b, which x did not take, in a pooled buffer.
func (x *side) park(b []byte) {
	x.writable = false
	x.buf, x.off = byteslice.Get(len(b)), 0
	copy(x.buf, b)
}

// flush sends the backlog. It reports whether none is left.
func (x *side) flush() bool {
	if x.buf != nil {
		x.off += int32(x.send(x.buf[x.off:], false))
		if x.failed {
			return false
		}
		if int(x.off) < len(x.buf) {
			x.writable = false
			return false
		}
		x.dropBuffer()
	}
	if x.pipe != nil {
		if !x.drainPipe() {
			return false
		}
		x.s.sh.pipes.put(x.pipe)
		x.pipe = nil
	}
	return true
}

func (x *side) dropBuffer() {
	if x.buf != nil {
		byteslice.Put(x.buf)
		x.buf, x.off = nil, 0
	}
}

func (x *side) dropBacklog() {
	x.dropBuffer()
	if x.pipe != nil {
		x.s.sh.pipes.put(x.pipe)
		x.pipe = nil
	}
}
