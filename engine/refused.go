package engine

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"awe4lb/balancer"

	"golang.org/x/sys/unix"
)

// When a backend is not there, its host or a router answers with ICMP: port unreachable, host unreachable. Sockets of
// flows ask for these errors (IP_RECVERR), because they bring the beginning of the datagram that was lost along: what is
// surely whole (sentLately) is sent again, to another backend, and the client notices nothing.

// icmpError is one entry of a socket's error queue.
type icmpError struct {
	errno   syscall.Errno
	local   [16]byte // the address the datagram was sent from, where packet info is on
	payload []byte   // the beginning of the datagram; valid until the next read
}

// errorQueue is what reading an error queue needs. Owned by the shard's goroutine.
type errorQueue struct {
	hdr unix.Msghdr
	iov unix.Iovec
	oob [256]byte
	buf [2048]byte // ICMP quotes less: 576 bytes in all for IPv4, 1,280 for IPv6
}

// read takes the next error of fd.
func (q *errorQueue) read(fd int) (e icmpError, ok bool) {
	q.iov.Base = &q.buf[0]
	q.iov.SetLen(len(q.buf))
	q.hdr = unix.Msghdr{Iov: &q.iov, Control: &q.oob[0]}
	q.hdr.SetIovlen(1)
	q.hdr.SetControllen(len(q.oob))
	n, _, errno := syscall.RawSyscall(syscall.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&q.hdr)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if errno != 0 {
		return e, false
	}
	oob := q.oob[:min(int(q.hdr.Controllen), len(q.oob))]
	e.errno = parseExtendedError(oob)
	e.local = parseAncillary(oob).to
	e.payload = q.buf[:n]
	return e, true
}

// parseExtendedError returns the errno of the sock_extended_err among control messages, 0 when there is none.
func parseExtendedError(b []byte) syscall.Errno {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		length := int(h.Len)
		if length < unix.CmsgLen(0) || length > len(b) {
			return 0
		}
		data := b[unix.CmsgLen(0):length]
		if (h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR) && len(data) >= 4 {
			return syscall.Errno(binary.NativeEndian.Uint32(data))
		}
		next := unix.CmsgSpace(length - unix.CmsgLen(0))
		if next >= len(b) {
			return 0
		}
		b = b[next:]
	}
	return 0
}

// maxQuotes bounds the errors that are read at once.
const maxQuotes = 32

// quotes are datagrams that came back and are surely whole. What is in them is valid until the next reset.
type quotes struct {
	bytes   []byte
	lengths []int
}

func (q *quotes) reset() { q.bytes, q.lengths = q.bytes[:0], q.lengths[:0] }

func (q *quotes) add(payload []byte) {
	q.bytes = append(q.bytes, payload...)
	q.lengths = append(q.lengths, len(payload))
}

// each calls send for every datagram, in order.
func (q *quotes) each(send func([]byte)) {
	at := 0
	for _, n := range q.lengths {
		send(q.bytes[at : at+n])
		at += n
	}
}

// failed handles the errors that wait at f's socket; errno is one that a call has fetched already, or 0. It reports whether
// f lives on, maybe with another backend.
func (fl *flows) failed(f *flow, errno syscall.Errno) bool {
	if f.fd < 0 {
		return fl.sharedFailed(f)
	}
	st := fl.fronts[f.front].stats
	fl.quotes.reset()
	failures, lost := uint64(0), uint64(0)
	for range maxQuotes {
		e, ok := fl.errors.read(int(f.fd))
		if !ok {
			break
		}
		if !mayBePending(e.errno) {
			fl.drop(st, ToBackend, dropReason(e.errno), 1) // the path takes less than was sent, most likely
			continue
		}
		errno = e.errno
		failures++
		if fl.lately.has(f.number, e.payload) {
			fl.quotes.add(fl.withoutHeader(f, e.payload))
		} else {
			lost += f.lostAtOnce(&e)
		}
	}
	if failures == 0 {
		if !mayBePending(errno) {
			return true // a stale event
		}
		failures = 1
	}
	return fl.refused(f, errno, failures, lost)
}

// lostAtOnce returns how many datagrams an error that did not bring them back is about: on this host a train comes back as
// one.
func (f *flow) lostAtOnce(e *icmpError) uint64 { return max(uint64(f.lastCount), 1) }

// refused reacts to errors that say that f's backend is not there; fl.quotes has the datagrams that came back whole, lost is
// the number of others. It reports whether f lives on.
func (fl *flows) refused(f *flow, errno syscall.Errno, failures, lost uint64) bool {
	front := fl.fronts[f.front]
	t := fl.targets[f.target]
	reason := connectReason(errno)
	t.noteRefused(errno, failures)
	fl.drop(front.stats, ToBackend, DropRefused, lost)
	back := uint64(len(fl.quotes.lengths))
	if f.intro != 0 {
		fl.intros.at(f.intro).told = false // the header may have been in what was lost
	}
	switch front.config.UDP.OnBackendGone {
	case "keep":
		fl.drop(front.stats, ToBackend, DropRefused, back)
		return true
	case "cut":
		fl.drop(front.stats, ToBackend, DropRefused, back)
		fl.end(f, reason)
		return false
	}
	if f.key.target != 0 {
		fl.rebalance(f, reason)
		return false
	}
	tried := append(fl.refusals[f.number], t.backend)
	if len(tried) >= fl.connectAttempts(t.backend) {
		fl.drop(front.stats, ToBackend, DropRefused, back)
		fl.end(f, reason)
		return false
	}
	fl.refusals[f.number] = tried
	f.flags |= wasRefused
	if fl.move(f, tried, reason) != kept {
		fl.drop(front.stats, ToBackend, DropRefused, back)
		return false
	}
	fl.sh.stats.FlowRetries += back
	fl.quotes.each(func(payload []byte) { fl.sendAgain(f, payload) })
	return true
}

// rebalance ends a flow of mode datagram whose backend has refused it, and sends what came back to others.
func (fl *flows) rebalance(f *flow, reason Reason) {
	front := fl.fronts[f.front]
	l := fl.listeners[f.key.listener]
	key := f.key
	fl.end(f, reason)
	fl.quotes.each(func(payload []byte) {
		fl.sh.stats.FlowRetries++
		if next, drop := fl.again(l, front, key); next != nil {
			fl.sendAgain(next, payload)
		} else {
			fl.drop(front.stats, ToBackend, drop, 1)
		}
	})
}

// again returns a flow of mode datagram for the client of key, to a backend that has not refused lately, or nil and why its datagrams
// are dropped.
func (fl *flows) again(l *datagramListener, front *front, key flowKey) (*flow, DropReason) {
	if key.target == 0 {
		return nil, DropRefused // it was a flow of its client's, which has ended
	}
	pool := fl.route(l, front, key.clientIP())
	if pool == nil {
		return nil, DropNoRoute
	}
	to, lack := pool.PickOrWhy(key.clientIP(), key.poolKey(pool), fl.refusedOf(pool))
	if to == nil {
		return nil, dropOf(lack)
	}
	key.target = fl.targetOf(to).number
	hash := fl.table.hash(&key)
	if number := fl.table.find(&key, hash); number != 0 {
		to.Release()
		return fl.table.at(number), kept
	}
	return fl.open(l, &key, hash, to)
}

// sendAgain sends a datagram that came back to f's new backend.
func (fl *flows) sendAgain(f *flow, payload []byte) {
	st := fl.fronts[f.front].stats
	data := payload
	if f.intro != 0 {
		data = fl.withHeader(f, payload)
	}
	if errno := fl.o.one(fl.toBackend(f), data); errno != 0 {
		fl.drop(st, ToBackend, DropRefused, 1)
		return
	}
	t := fl.targets[f.target]
	f.lastCount = 1
	fl.lately.note(f.number, data, t.v4)
	fl.count(f, t, ToBackend, sent{1, uint64(len(payload)), 1})
}

// forgive forgets the backends that have refused f.
func (fl *flows) forgive(f *flow) {
	if f.flags&wasRefused != 0 {
		f.flags &^= wasRefused
		delete(fl.refusals, f.number)
	}
}

// connectAttempts returns how many backends a datagram may be offered to in b's pool.
func (fl *flows) connectAttempts(b *balancer.Backend) int {
	if p := fl.sh.eng.director.Snapshot().Pool(b.Pool); p != nil {
		return p.Config.ConnectAttempts
	}
	return 1
}
