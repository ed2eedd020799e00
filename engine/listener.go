package engine

import (
	"net/netip"
	"syscall"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine/loop"
)

// acceptBudget is the number of clients taken before other sockets of the shard have their turn.
const acceptBudget = 64

// listener is a shard's socket of one address. Owned by the shard's goroutine.
type listener struct {
	// Set once, never changed.
	sh      *shard
	fd      int
	address config.Address

	// Changed by a reload.
	front  *balancer.Frontend // as last committed: used for its name, and when the snapshot no longer has it
	fstats *FrontendStats
}

// Ready takes clients from the queue.
func (l *listener) Ready(int, loop.Events) { l.accept(acceptBudget) }

// accept takes up to budget clients and reports whether none was left.
func (l *listener) accept(budget int) bool {
	sh := l.sh
	var now int64
	for range budget {
		if !sh.eng.admit() {
			sh.pause()
			return false
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
			return true
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			sh.stats.AcceptErrors++
			sh.eng.complain(complaint{"cannot accept: new clients wait in the accept queue", errno})
			sh.pause()
			return false
		case syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK: // not a listening socket any more: our bug
			sh.stats.AcceptErrors++
			sh.eng.complain(complaint{"cannot accept: new clients wait in the accept queue", errno})
			sh.loop.Forget(l.fd)
			return true
		default: // this client is gone, or its network is: accept(2) lists them
			sh.stats.AcceptErrors++
		}
	}
	return false
}

// serve begins a session for a client, which has been admitted.
func (l *listener) serve(fd int, now int64) {
	sh := l.sh
	f := sh.eng.director.Snapshot().Frontend(l.front.Config.Name)
	if f == nil {
		f = l.front // removed a moment ago: the clients in its queue are still served
	}
	var address netip.AddrPort
	if !l.address.IsUnix() {
		address = sh.peer.addrPort()
	}
	if !f.Live.Acquire(f.Config.MaxConnections) {
		sh.refuse(l, fd, address, now)
		return
	}
	sh.session().begin(fd, l.address.IsUnix(), f, l.fstats, address, now)
}
