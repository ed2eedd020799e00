package engine

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"awe4lb/engine/loop"

	"golang.org/x/sys/unix"
)

// AnyIP (shared_source): the flows of a shard share one socket towards all backends of a family, and each has a source
// address of its own, taken from a prefix that is routed to this host. A flow then costs no descriptor, no port and no
// kernel memory, and 12 instead of 60 us to make (research of 2026-11-22): for hundreds of thousands of flows.

// sharedSocket is such a socket. Owned by the shard's goroutine.
type sharedSocket struct {
	// Set once, never changed.
	fl     *flows
	fd     int
	number uint16 // of its flowSource
	prefix netip.Prefix

	owners []uint32 // flow by lease; 0 none
	lost   uint32   // answers, as last counted
}

// maxShared bounds the addresses that a shard uses of a prefix.
const maxShared = 1 << 22

// sharedHosts returns how many flows a shard can have with a prefix: its addresses but for the first and the last.
func sharedHosts(p netip.Prefix) uint32 {
	return uint32(min(1<<min(p.Addr().BitLen()-p.Bits(), 32)-2, maxShared))
}

// address returns the address that a lease stands for, IPv4 as mapped.
func (s *sharedSocket) address(lease uint32) [16]byte {
	a := s.prefix.Addr().As16()
	low := binary.BigEndian.Uint32(a[12:])
	binary.BigEndian.PutUint32(a[12:], low|(lease+1))
	return a
}

// lease returns what address would need to be called with, for an address that may be any.
func (s *sharedSocket) lease(a [16]byte) (uint32, bool) {
	if !s.prefix.Contains(netip.AddrFrom16(a).Unmap()) {
		return 0, false
	}
	low := s.prefix.Addr().As16()
	n := binary.BigEndian.Uint32(a[12:]) - binary.BigEndian.Uint32(low[12:])
	return n - 1, n != 0 && s.address(n-1) == a
}

// connectShared gives f an address of its own on the socket for that prefix.
func (fl *flows) connectShared(f *flow, t *target, prefix netip.Prefix) DropReason {
	s := fl.sharedOf(prefix)
	if s == nil {
		return DropNoResources
	}
	lease, ok := fl.sources[s.number].leases.take(fl.now)
	if !ok {
		fl.sh.eng.complain(complaint{what: "no address of shared_source is left for a flow"})
		return DropNoPort
	}
	for int(lease) >= len(s.owners) {
		s.owners = append(s.owners, 0)
	}
	s.owners[lease] = f.number
	f.source, f.lease, f.fd = s.number, lease, -1
	fl.attach(f, t)
	return kept
}

// sharedOf returns the socket for a prefix, opened when it is not there yet; nil when that fails.
func (fl *flows) sharedOf(prefix netip.Prefix) *sharedSocket {
	for _, s := range fl.sources {
		if s.shared != nil && s.shared.prefix == prefix {
			return s.shared
		}
	}
	fd, errno := openShared(prefix.Addr().Is4())
	if errno != 0 {
		fl.sh.eng.complain(complaint{what: "cannot open the shared socket of flows", errno: errno})
		return nil
	}
	s := &sharedSocket{fl: fl, fd: fd, prefix: prefix}
	if err := fl.sh.loop.Listen(fd, s); err != nil {
		fl.sh.loop.Close(fd)
		return nil
	}
	s.number = fl.addSource(&flowSource{shared: s, leases: leases{limit: sharedHosts(prefix)}})
	return s
}

func openShared(v4 bool) (int, syscall.Errno) {
	any := netip.IPv6Unspecified()
	if v4 {
		any = netip.IPv4Unspecified()
	}
	var sa sockaddr
	fd, errno := sysSocket(sa.setIP(netip.AddrPortFrom(any, 0)), unix.SOCK_DGRAM)
	if errno != 0 {
		return -1, errno
	}
	if v4 {
		sysSetInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	} else {
		sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1) // a route makes addresses local; sending from them wants this too
	}
	askErrors(fd, v4)
	setReceiveBuffer(fd, sharedReceiveBuffer)
	if errno := sysBind(fd, &sa); errno != 0 {
		_ = unix.Close(fd)
		return -1, errno
	}
	return fd, 0
}

// sharedReceiveBuffer is SO_RCVBUF of a socket that all flows of a shard share.
const sharedReceiveBuffer = 8 << 20

// Ready takes answers of backends to any flow.
func (s *sharedSocket) Ready(_ int, ev loop.Events) {
	fl := s.fl
	fl.wake()
	for range listenerReads {
		n, errno := fl.in.receive(s.fd, inBatch, fl.in.size)
		if errno != 0 && errno != syscall.EAGAIN {
			s.failed() // told before the data that is there: next time
			return
		}
		if n == 0 {
			break
		}
		s.take(n)
		if n < inBatch {
			break
		}
	}
	if ev.Failed() {
		s.failed()
	}
}

// take gives each of n datagrams to its flow, as datagramListener.take does.
func (s *sharedSocket) take(n int) {
	fl := s.fl
	fl.epoch++
	fl.order = fl.order[:0]
	for i := range n {
		f := s.owner(fl.in.beside(i).local)
		if f == nil || !fl.isFrom(f, &fl.in.from[i]) {
			fl.sh.stats.Strays++
			continue
		}
		fl.segment[i] = 0
		if f.epoch != fl.epoch {
			f.epoch, f.head = fl.epoch, uint16(i)
			fl.order = append(fl.order, f.number)
		} else {
			fl.next[f.tail] = uint16(i)
		}
		f.tail = uint16(i)
	}
	for _, number := range fl.order {
		f := fl.table.at(number)
		if f.epoch != fl.epoch {
			continue // ended meanwhile
		}
		fl.answer(f, fl.in, fl.chain(f.head, f.tail))
	}
}

// owner returns the flow that an address belongs to, or nil.
func (s *sharedSocket) owner(a [16]byte) *flow {
	lease, ok := s.lease(a)
	if !ok || int(lease) >= len(s.owners) || s.owners[lease] == 0 {
		return nil
	}
	return s.fl.table.at(s.owners[lease])
}

// isFrom reports whether a datagram came from f's backend. A connected socket has the kernel ask that.
func (fl *flows) isFrom(f *flow, from *unix.RawSockaddrInet6) bool {
	t := fl.targets[f.target]
	if from.Family == unix.AF_INET {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return t.ip == mapped(in.Addr) && t.port == port((*[2]byte)(unsafe.Pointer(&in.Port)))
	}
	return t.ip == from.Addr && t.port == port((*[2]byte)(unsafe.Pointer(&from.Port)))
}

// failed handles the errors that wait at the socket: each belongs to the flow whose address it names.
func (s *sharedSocket) failed() {
	fl := s.fl
	for range maxQuotes {
		e, ok := fl.errors.read(s.fd)
		if !ok {
			return
		}
		f := s.owner(e.local)
		if f == nil {
			continue
		}
		if !mayBePending(e.errno) {
			fl.drop(fl.fronts[f.front].stats, ToBackend, dropReason(e.errno), 1)
			continue
		}
		fl.quotes.reset()
		lost := uint64(0)
		if fl.lately.has(f.number, e.payload) {
			fl.quotes.add(fl.withoutHeader(f, e.payload))
		} else {
			lost = f.lostAtOnce(&e)
		}
		fl.refused(f, e.errno, 1, lost)
	}
}

// sharedFailed is failed for a flow on a shared socket. It reports whether that flow lives on.
func (fl *flows) sharedFailed(f *flow) bool {
	key, started := f.key, f.started
	fl.sources[f.source].shared.failed()
	return f.target != 0 && f.started == started && f.key == key
}

// toBackend makes the next datagrams go from f to its backend, and returns the socket to use.
func (fl *flows) toBackend(f *flow) (fd int) {
	if f.fd >= 0 {
		fl.o.connected()
		return int(f.fd)
	}
	s := fl.sources[f.source].shared
	t := fl.targets[f.target]
	fl.o.to(&t.ip, t.port, t.zone, t.v4)
	from := s.address(f.lease)
	fl.o.from(&from, 0, t.v4)
	return s.fd
}
