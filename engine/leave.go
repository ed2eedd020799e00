package engine

import (
	"awe4lb/config"

	"golang.org/x/sys/unix"
)

// A listener that goes has a queue of clients who are connected as far as they know. leave serves them; where there is no
// room for all of them now, the listener stays on its shard until there is:
//
//	listening ──leave──▶ queue served: off the loop; whoever opened the socket closes it
//	              │
//	              └──no room──▶ leaving ──queue served, or turned away at the end──▶ gone: the shard closes the socket
//
// A leaving listener has a backlog of 0: as long as anybody waits in its queue, the kernel lets nobody else in. Where the
// address comes back meanwhile, both listeners are in one SO_REUSEPORT group, and a new client whom the kernel gives to the
// leaving one is told nothing and tries again after a second.

// leave takes l off the shard, after everybody in its queue has been served. l must not be in sh.listeners.
func (l *listener) leave() {
	sh := l.sh
	sh.loop.Forget(l.fd)
	for outcome := tookBudget; outcome == tookBudget; {
		if sh.starved > 0 { // they come first
			break
		}
		if outcome = l.accept(acceptBudget); outcome == queueEmpty {
			if l.leaving {
				l.closeLeaving()
			}
			return
		}
	}
	if !l.leaving {
		l.leaving = true
		l.own.release(l.fd)
		sh.eng.leaving.Add(1)
		_ = unix.Listen(l.fd, 0)
	}
	sh.listeners = append(sh.listeners, l)
	if !sh.paused && sh.loop.Listen(l.fd, l) != nil {
		sh.pause()
	}
}

// retry follows a pause. An empty queue gives no event, so that l has to ask.
func (l *listener) retry() {
	if l.leaving && !l.sh.paused {
		l.Ready(l.fd, 0)
	}
}

// gone follows the last client of a leaving listener.
func (l *listener) gone() {
	kept := l.sh.listeners[:0]
	for _, o := range l.sh.listeners {
		if o != l {
			kept = append(kept, o)
		}
	}
	l.sh.listeners = kept
	l.closeLeaving()
}

func (l *listener) closeLeaving() {
	l.leaving = false
	l.sh.loop.Close(l.fd)
	l.sh.eng.leaving.Add(-1)
}

// turnAway ends the leaving listeners: each client in their queues is reset and counted under reason. It returns their
// number.
func (sh *shard) turnAway(reason Reason) (n int64) {
	for i := len(sh.listeners) - 1; i >= 0; i-- {
		l := sh.listeners[i]
		if !l.leaving {
			continue
		}
		for {
			fd, errno := sysAccept(l.fd, &sh.peer)
			if errno != 0 {
				break // nobody is left; or no descriptor, and then the close below resets them
			}
			sh.eng.sessions.Add(1) // which refuse gives back
			sh.refuse(l, fd, l.client(), sh.loop.Now(), reason)
			n++
		}
		l.gone()
	}
	return n
}

// isLeaving reports whether a listener of that address is still serving its queue. Not to be called on a shard.
func (e *Engine) isLeaving(a config.Address) (found bool) {
	if e.leaving.Load() == 0 {
		return false
	}
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			for _, l := range sh.listeners {
				found = found || l.leaving && l.own.local == a
			}
		})
	}
	return found
}

// release makes fd somebody else's to close.
func (b *binding) release(fd int) {
	for i := range b.fds {
		if b.fds[i] == fd {
			b.fds[i] = -1
		}
	}
}
