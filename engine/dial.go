package engine

import (
	"net/netip"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"

	"golang.org/x/sys/unix"
)

// fdRetry is how long a session waits for a descriptor, or for room in a unix socket's queue, before it asks again.
const fdRetry = 25 * time.Millisecond

// dial picks a backend and starts to connect, again and again until one is on its way or none is left, or waits for a place.
func (s *session) dial(now int64) {
	s.state = connecting
	for int(s.attempts) < s.pool.Config.ConnectAttempts {
		if s.behind() {
			if !s.enqueue(now) {
				s.nowhere(s.pool.Crowded(s.pool.Queue().Waiting()))
			}
			return
		}
		b, lack := s.pool.PickOrWhy(s.address.Addr(), s.key, s.tried)
		if b == nil {
			if !canWait(s.pool, lack) || !s.enqueue(now) {
				s.nowhere(lack)
			}
			return
		}
		if s.attempt(b, now) {
			return
		}
	}
	s.end(s.fault)
}

// nowhere ends the session: there is no backend for it.
func (s *session) nowhere(lack balancer.Lack) {
	if s.fault == none {
		s.fault = endOf(lack)
		s.sh.poolStats(s.pool).turnAway(lack)
	}
	s.end(s.fault)
}

// attempt starts to connect to b, which was picked. It reports false when b has failed already and was given up.
func (s *session) attempt(b *balancer.Backend, now int64) bool {
	s.target, s.bstats = b, s.sh.backendStats(b)
	if s.attempts++; s.attempts > 1 {
		s.sh.poolStats(s.pool).Retries++
	}
	s.dialed = now
	return s.connect(now)
}

// connect starts to connect to the target. It reports false when the target has failed already and was given up.
func (s *session) connect(now int64) bool {
	sh := s.sh
	address, tcp := s.target.Address, &s.pool.Config.TCP
	fd, errno := sysSocket(sh.target.set(address), unix.SOCK_STREAM)
	if errno != 0 {
		// Descriptors come back when sessions end. The client waits for one as it would for the backend, and before those
		// who are still in the accept queue.
		if !s.starved {
			s.starved = true
			sh.starved++
		}
		sh.pause()
		sh.eng.complain(complaint{what: cannotAccept, errno: errno})
		return s.wait(now, NoResources)
	}
	s.fed()
	s.backend.open(fd, address.IsUnix())
	s.backend.bare = true
	if !address.IsUnix() {
		if errno := s.bindSource(fd); errno != 0 {
			return s.giveUp(ConnectFailed)
		}
		if tcp.UserTimeout > 0 {
			sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(tcp.UserTimeout/time.Millisecond))
		}
		if tcp.FastOpen {
			// connect returns at once and the first send carries the SYN: after that there is no retry.
			sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		}
	}
	sh.target.set(address) // bindSource uses it too
	switch errno := sysConnect(fd, &sh.target); {
	case errno == 0 || errno == syscall.EINPROGRESS:
		if err := sh.loop.Register(fd, &s.backend); err != nil {
			return s.giveUp(NoResources)
		}
		sh.loop.After(&s.timer, now, s.pool.Config.ConnectTimeout)
		if errno == 0 {
			s.probe()
		}
		return true
	case errno == syscall.EAGAIN && address.IsUnix(): // its accept queue is full
		s.closeBackend()
		return s.wait(now, ConnectTimeout)
	default:
		return s.giveUp(connectReason(errno))
	}
}

// bindSource binds fd to the next of the pool's source addresses of the target's family, if it has any. The port is left
// to connect(2), so that one port can serve several backends.
func (s *session) bindSource(fd int) syscall.Errno {
	sources := s.pool.Config.Source
	target := s.target.Address.IP.Addr()
	for range sources {
		s.sh.turn++
		source := sources[s.sh.turn%len(sources)]
		if source.Is4() == target.Is4() {
			sysSetInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			s.sh.target.set(config.Address{IP: netip.AddrPortFrom(source, 0)})
			return sysBind(fd, &s.sh.target)
		}
	}
	return 0
}

// wait tries the same target again in a moment, unless connect_timeout is over: then it was reason's fault.
func (s *session) wait(now int64, reason Reason) bool {
	if now-s.dialed >= int64(s.pool.Config.ConnectTimeout) {
		return s.giveUp(reason)
	}
	s.sh.loop.After(&s.timer, now, fdRetry)
	return true
}

// fed ends the wait for a descriptor.
func (s *session) fed() {
	if s.starved {
		s.starved = false
		s.sh.starved--
	}
}

// redial reacts to the timer of a connecting session.
func (s *session) redial(now int64) {
	if s.backend.fd < 0 {
		if s.connect(now) {
			return
		}
	} else {
		s.giveUp(ConnectTimeout)
	}
	s.dial(now)
}

// giveUp notes that the target failed and returns false.
func (s *session) giveUp(reason Reason) bool {
	s.closeBackend()
	s.fed()
	s.bstats.ConnectErrors[reason]++
	if s.pool.Times() && reason != NoResources {
		s.target.Connected(s.pool.Config.ConnectTimeout) // a quick refusal is no merit
	}
	if !s.client.failed {
		s.fault = reason
	}
	if reason != NoResources {
		s.noteEjected(s.pool.Failed(s.target), reason)
	}
	s.tried = append(s.tried, s.target)
	s.target.Release()
	s.target = nil
	s.sh.loop.Cancel(&s.timer)
	return false
}

// closeBackend closes the socket and keeps what waits for the backend: the next one gets it.
func (s *session) closeBackend() {
	if s.backend.conn != nil {
		s.backend.dropConn()
		s.backend.dropBacklog() // of the handshake
	}
	if s.backend.fd >= 0 {
		s.sh.loop.Close(int(s.backend.fd))
		s.backend.fd = -1
	}
}

// probe finds out whether the backend is connected, by sending it what the client has said so far, be it nothing: an
// event may be a stale one of an earlier socket, but a send that succeeds is proof, and one that fails says why.
func (s *session) probe() {
	if s.announces() {
		s.probeAnnouncing()
		return
	}
	b := &s.backend
	data := b.buf
	first := s.pool.Attached == nil && !s.asked // what the client said is the first that the backend hears
	heard := false
	switch {
	case data != nil:
		data = data[b.off:] // an earlier backend did not take it
	case first && s.heard != nil:
		data, heard = s.heard, true
	case first && s.client.conn == nil && s.client.readable:
		room := s.sh.buf
		if guardOf(s.f).capsOf() != nil {
			room = room[:capMinBurst] // opened charges for it
		}
		data = room[:s.client.read(room)]
		if s.client.failed && len(data) == 0 {
			s.end(s.fault)
			return
		}
	}
	if len(data) > nagleSafe {
		b.setNoDelay()
	}
	n, errno := sysSend(int(b.fd), data, 0)
	if n > 0 {
		b.took(n)
	}
	if b.buf != nil {
		b.off += int32(n)
		if int(b.off) == len(b.buf) {
			b.dropBuffer()
		}
	} else if n < len(data) && (!heard || errno == 0) {
		b.park(data[n:])
	}
	if errno == 0 && heard {
		s.forget()
	}
	s.probed(errno)
}

// probeAnnouncing is probe where the backend is told who the client is: that is what is sent, and nothing of it counts.
func (s *session) probeAnnouncing() {
	b := &s.backend
	header := s.announce(s.sh.buf[:0])
	if len(header) > nagleSafe {
		b.setNoDelay()
	}
	flags := 0
	if s.heard != nil || s.client.readable {
		flags = unix.MSG_MORE // what follows goes with it
	}
	n, errno := sysSend(int(b.fd), header, flags)
	if errno == 0 && n < len(header) {
		errno = syscall.ENOBUFS // a new socket takes four kilobytes
	}
	s.probed(errno)
}

// probed goes on after the first send to the backend.
func (s *session) probed(errno syscall.Errno) {
	switch errno {
	case 0:
		s.reached()
	case syscall.EAGAIN, syscall.EINPROGRESS: // not yet
	default:
		s.giveUp(connectReason(errno))
		s.dial(s.sh.loop.Now())
	}
}

func connectReason(errno syscall.Errno) Reason {
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ENOENT: // ENOENT: no such unix socket
		return ConnectRefused
	case syscall.ETIMEDOUT:
		return ConnectTimeout
	}
	return ConnectFailed
}
