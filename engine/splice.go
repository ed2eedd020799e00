package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Bulk data is moved by splice(2) through a pipe and never enters user space: 0.4 times haproxy's CPU per GB on the
// prototype. For chatter it costs more than reading and writing, so a direction has to earn it.
const (
	bulkRead   = 64 << 10  // a read of this size is a sign of bulk
	bulkStreak = 4         // so many in a row switch a direction to splicing,
	chatty     = 8 << 10   // and so many splices under this size switch it back
	pipeSize   = 512 << 10 // F_SETPIPE_SZ; the kernel gives less when the user is over fs.pipe-user-pages-soft
	pipeKeep   = 16        // empty pipes kept for the next bulk transfer
)

// pipe is a kernel pipe between two sides.
type pipe struct {
	r, w int
	fill int // bytes inside
}

// pipes is a shard's stock of pipes. Owned by the shard's goroutine.
type pipes struct {
	free  []*pipe
	made  int // open, in use or not
	limit int
}

// get returns an empty pipe, or nil when the limit is reached or the system has none to give.
func (ps *pipes) get() *pipe {
	if n := len(ps.free); n > 0 {
		p := ps.free[n-1]
		ps.free = ps.free[:n-1]
		return p
	}
	if ps.made >= ps.limit {
		return nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil
	}
	// Refused to users with many pipes; the pipe then keeps its default size, which works as well, only slower.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	ps.made++
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes a pipe back. One with bytes inside must not meet another session.
func (ps *pipes) put(p *pipe) {
	if p.fill == 0 && len(ps.free) < pipeKeep && ps.made <= ps.limit {
		ps.free = append(ps.free, p)
		return
	}
	ps.discard(p)
}

func (ps *pipes) discard(p *pipe) {
	ps.made--
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// resize sets the limit; pipes in use stay until they are put back.
func (ps *pipes) resize(limit int) {
	ps.limit = limit
	for ps.made > limit && len(ps.free) > 0 {
		n := len(ps.free) - 1
		ps.discard(ps.free[n])
		ps.free = ps.free[:n]
	}
}

// splice moves up to n bytes from src to dst in the kernel. It returns the number of bytes src gave; what dst did not
// take waits in its pipe. The end or an error shows in src and dst.
//
// EAGAIN does not tell an empty source from a full pipe, so the pipe must be empty when it is filled; and a short splice
// does not mean that the source is drained (a pipe's slots hold fragments, not bytes): only EAGAIN does.
func (s *session) splice(src, dst *side, n int) int {
	if dst.pipe == nil {
		if dst.pipe = s.sh.pipes.get(); dst.pipe == nil {
			src.splicing, src.streak = false, 0 // read for a while, then ask again
			return 0
		}
	}
	p := dst.pipe
	moved, errno := sysSplice(int(src.fd), p.w, n)
	switch {
	case moved > 0:
		p.fill = moved
		s.sh.stats.SplicedBytes += uint64(moved)
		if moved >= chatty {
			src.streak = 0
		} else if src.streak++; src.streak >= bulkStreak {
			src.splicing, src.streak = false, 0
		}
		dst.drainPipe()
	case errno == 0:
		src.ended()
	case errno == syscall.EAGAIN:
		src.readable = false
	case errno == syscall.EINVAL: // this kind of socket cannot
		src.splicing, src.streak = false, 0
	default:
		src.fail(errno)
		src.ended()
	}
	if dst.pipe != nil && (p.fill == 0 && (!src.readable || !src.splicing)) {
		s.sh.pipes.put(p) // an idle session holds no pipe
		dst.pipe = nil
	}
	return moved
}

// drainPipe moves what is in x's pipe on to x. It reports whether the pipe is empty.
func (x *side) drainPipe() bool {
	if x.bare {
		x.setNoDelay()
	}
	for x.pipe.fill > 0 {
		n, errno := sysSplice(x.pipe.r, int(x.fd), x.pipe.fill)
		if errno != 0 {
			if errno == syscall.EAGAIN {
				x.writable = false
			} else {
				x.fail(errno)
			}
			return false
		}
		x.pipe.fill -= n
		x.took(n)
	}
	return true
}
