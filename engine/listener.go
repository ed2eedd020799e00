package engine

import (
	"net/netip"
	"syscall"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine/loop"
	"awe4lb/tlsbridge"
)

// acceptBudget is the number of clients taken before other sockets of the shard have their turn.
const acceptBudget = 64

// cannotAccept is the complaint of a shard that pauses accepting, whichever socket could not be had: docs/operations.md.
const cannotAccept = "cannot accept: new clients wait in the accept queue"

// listener is a shard's socket of one address. Owned by the shard's goroutine.
type listener struct {
	// Set once, never changed.
	sh      *shard
	fd      int
	address config.Address
	own     *binding // of fd

	// Changed by a reload.
	front  *balancer.Frontend // as last committed: used for its name, and when the snapshot no longer has it
	fstats *FrontendStats
	gate   *tlsbridge.Gate // for clients who have to say something before they are routed; nil: no limit

	leaving bool // goes when its queue is empty: see leave
}

// taken is what became of an accept.
type taken uint8

const (
	tookBudget taken = iota // more may be in the queue
	queueEmpty
	noRoom // for want of a session, a descriptor or memory; the shard is paused
)

// Ready takes clients from the queue.
func (l *listener) Ready(int, loop.Events) {
	if l.accept(acceptBudget) == queueEmpty && l.leaving {
		l.gone()
	}
}

// accept takes up to budget clients.
func (l *listener) accept(budget int) taken {
	sh := l.sh
	var now int64
	for range budget {
		if !sh.eng.admit() {
			if !sh.paused {
				sh.stats.LimitPauses++
			}
			sh.pause()
			return noRoom
		}
		fd, errno := sysAccept(l.fd, &sh.peer)
		if errno != 0 {
			sh.eng.dismiss()
		}
		switch errno {
		case 0:
			if now == 0 {
				now = sh.loop.Now()
				sh.patience = 0
			}
			l.serve(fd, now)
		case syscall.EAGAIN:
			return queueEmpty
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			sh.stats.AcceptErrors++
			sh.eng.complain(complaint{what: cannotAccept, errno: errno})
			sh.pause()
			return noRoom
		case syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK: // not a listening socket any more: our bug
			sh.stats.AcceptErrors++
			sh.eng.complain(complaint{what: cannotAccept, errno: errno})
			sh.loop.Forget(l.fd)
			return queueEmpty
		default: // this client is gone, or its network is: accept(2) lists them
			sh.stats.AcceptErrors++
		}
	}
	return tookBudget
}

// client returns the address of the client accepted last, the zero AddrPort on a unix socket.
func (l *listener) client() netip.AddrPort {
	if l.address.IsUnix() {
		return netip.AddrPort{}
	}
	return l.sh.peer.addrPort()
}

// serve begins a session for a client, which has been admitted.
func (l *listener) serve(fd int, now int64) {
	sh := l.sh
	f := sh.eng.director.Snapshot().Frontend(l.front.Config.Name)
	if f == nil {
		f = l.front // removed a moment ago: the clients in its queue are still served
	}
	address := l.client()
	var held *sourceTable
	if g := guardOf(f); g != nil && !introduces(f.Config) {
		var reason Reason
		if held, reason = g.admit(address.Addr(), sh.eng, l.fstats); reason != none {
			sh.refuse(l, fd, address, now, reason)
			return
		}
	}
	reason := none
	if !f.Live.Acquire(f.Config.MaxConnections) {
		reason = Limit
	} else if !sh.eng.afford() { // last of all: whom others turn away uses up nothing
		f.Live.Release()
		reason = EngineRate
	}
	if reason != none {
		if held != nil {
			held.release(address.Addr())
		}
		sh.refuse(l, fd, address, now, reason)
		return
	}
	s := sh.session()
	s.held = held
	s.begin(fd, l, f, address, now)
}
