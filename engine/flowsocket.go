package engine

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"awe4lb/config"

	"golang.org/x/sys/unix"
)

// sourceOf returns the number of the source with that address.
func (fl *flows) sourceOf(a netip.Addr) uint16 {
	n, ok := fl.bySource[a]
	if !ok {
		s := &flowSource{address: a, leases: leases{limit: uint32(fl.portCount())}}
		s.first, s.step = scatter(fl.portCount())
		n = fl.addSource(s)
		fl.bySource[a] = n
	}
	return n
}

func (fl *flows) addSource(s *flowSource) uint16 {
	fl.sources = append(fl.sources, s) // one for each address in the configuration so far: far fewer than noSource
	return uint16(len(fl.sources) - 1)
}

// portCount returns how many local ports this shard may use on each source: of n shards each has every n-th port.
func (fl *flows) portCount() int {
	shards := len(fl.sh.eng.shards)
	return (len(fl.sh.eng.ports) + shards - 1 - fl.sh.number) / shards
}

// port returns the local port that a lease of s stands for.
func (fl *flows) port(s *flowSource, lease uint32) uint16 {
	i := (s.first + int(lease)*s.step) % fl.portCount()
	return fl.sh.eng.ports[i*len(fl.sh.eng.shards)+fl.sh.number]
}

const (
	// portTries bounds the ports tried for one flow where other programs have taken them, a microsecond or two each: where they
	// have nine of ten, one new flow in a million finds none. A port found taken rests, so all flows together do not try more
	// than there are.
	portTries = 128
	// portBusy is how long a port rests, in ticks, that another program has.
	portBusy = 60e9 >> tickBits
)

// connect gives f a socket connected to t. On failure it leaves nothing behind and returns why the datagram is dropped.
func (fl *flows) connect(f *flow, t *target) DropReason {
	u := &fl.fronts[f.front].config.UDP
	if prefix, ok := u.SharedSourceFor(t.backend.Address.IP.Addr()); ok {
		return fl.connectShared(f, t, prefix)
	}
	if u.Transparent && isMapped(&f.key.client) != t.v4 {
		return DropUnreachable // an IPv4 client cannot be shown to an IPv6 backend
	}
	f.source = noSource
	if !u.Transparent && !fl.leasePort(f, t) {
		fl.sh.eng.complain(complaint{what: "no local port left for a flow"})
		return DropNoPort
	}
	fd, errno := sysSocket(t.sa.family(), unix.SOCK_DGRAM)
	if errno != 0 {
		fl.giveLease(f, 0)
		fl.sh.eng.complain(complaint{what: "cannot open a socket for a flow", errno: errno})
		return DropNoResources
	}
	if f.flags&ownSocket == 0 { // a shared_source, but none of the backend's family
		if !fl.sh.eng.admitSocket() {
			fl.giveLease(f, 0)
			_ = syscall.Close(fd)
			return DropTableFull
		}
		f.flags |= ownSocket
	}
	f.flags &^= hasGRO
	if tuneFlow(fd, t.v4, u) {
		f.flags |= hasGRO
	}
	reason := kept
	if u.Transparent {
		reason = fl.bindClient(fd, f, t.v4)
	} else {
		reason = fl.bindPort(fd, f, t)
	}
	if reason == kept {
		if errno := sysConnect(fd, &t.sa); errno != 0 {
			t.stats.ConnectErrors[ConnectFailed]++
			reason = DropUnreachable
		} else {
			fl.discard(fd)
			if err := fl.sh.loop.RegisterRead(fd, fl); err != nil {
				reason = DropNoResources
			}
		}
	}
	if reason != kept {
		fl.sh.loop.Close(fd)
		fl.giveLease(f, 0)
		return reason
	}
	f.fd = int32(fd)
	fl.own(f)
	fl.attach(f, t)
	return kept
}

// attach notes that f has the backend of t.
func (fl *flows) attach(f *flow, t *target) {
	f.target = t.number
	if f.attempts < 255 {
		f.attempts++
	}
	t.flows++
	t.stats.Sessions++
	if t.announce.on || f.intro != 0 {
		fl.present(f, t)
	}
}

// disconnect gives back what f has of its backend, but for the count on it.
func (fl *flows) disconnect(f *flow) {
	t := fl.targets[f.target]
	if f.fd >= 0 {
		if f.answered > 2 { // a queue that was ever full had more than that in it
			if n := receiveDrops(int(f.fd)); n > 0 {
				fl.drop(fl.fronts[f.front].stats, ToClient, DropReceiveQueue, uint64(n))
			}
		}
		fl.owner[f.fd] = 0
		fl.sh.loop.Close(int(f.fd))
		f.fd = -1
	}
	// An answer may be on its way until unreplied_timeout after the last datagram.
	rest := int64(0)
	if f.source != noSource {
		u := &fl.fronts[f.front].config.UDP
		rest = max(ticks(int64(u.UnrepliedTimeout))-int64(uint32(fl.now)-f.last), 0)
	}
	fl.giveLease(f, rest)
	t.flows--
	f.target = 0
}

// giveLease gives back f's port or address, to rest for so many ticks.
func (fl *flows) giveLease(f *flow, rest int64) {
	if f.source == noSource {
		return
	}
	s := fl.sources[f.source]
	if s.shared != nil {
		s.shared.owners[f.lease] = 0
	}
	s.leases.give(f.lease, fl.now+rest)
	f.source = noSource
}

// leasePort gives f a port of the next of t's source addresses that has one.
func (fl *flows) leasePort(f *flow, t *target) bool {
	for range len(t.sources) {
		fl.sh.turn++
		n := t.sources[uint(fl.sh.turn)%uint(len(t.sources))]
		if lease, ok := fl.sources[n].leases.take(fl.now); ok {
			f.source, f.lease = n, lease
			return true
		}
	}
	return false
}

// bindPort binds fd to the port that f has leased, or to another when some other program has that.
func (fl *flows) bindPort(fd int, f *flow, t *target) DropReason {
	sa := &fl.sh.target
	for range portTries {
		s := fl.sources[f.source]
		sa.setIP(netip.AddrPortFrom(s.address, fl.port(s, f.lease)))
		switch errno := sysBind(fd, sa); errno {
		case 0:
			return kept
		case syscall.EADDRINUSE:
			fl.giveLease(f, portBusy)
		default: // the address is not this host's any more
			fl.sh.eng.complain(complaint{what: "cannot bind a flow to its source address", errno: errno})
			return DropNoResources
		}
		if !fl.leasePort(f, t) {
			break
		}
	}
	fl.sh.eng.complain(complaint{what: "no local port left for a flow"})
	return DropNoPort
}

// bindClient makes fd send as the client of f.
func (fl *flows) bindClient(fd int, f *flow, v4 bool) DropReason {
	var sa sockaddr
	if errno := setTransparent(fd, v4); errno != 0 {
		return DropNoResources
	}
	// A client may have flows to several backends, in mode datagram or on several frontends.
	sysSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	sa.setIP(netip.AddrPortFrom(f.key.clientIP(), f.key.port))
	if !v4 {
		(*unix.RawSockaddrInet6)(unsafe.Pointer(&sa.raw)).Scope_id = f.key.zone
	}
	if errno := sysBind(fd, &sa); errno != 0 {
		fl.sh.eng.complain(complaint{what: "cannot bind a flow to its client's address (a port below 1024 needs CAP_NET_BIND_SERVICE)", errno: errno})
		return DropNoResources
	}
	return kept
}

func setTransparent(fd int, v4 bool) syscall.Errno {
	if v4 {
		return sysSetInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}
	return sysSetInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
}

// tuneFlow sets what every socket of a flow has. It reports whether the socket joins datagrams.
func tuneFlow(fd int, v4 bool, u *config.UDP) (gro bool) {
	askErrors(fd, v4)
	setReceiveBuffer(fd, int(u.ReplyBuffer))
	return u.GRO && sysSetInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == 0
}

// discard throws away what came to a socket before it was connected, when anybody could send to it.
func (fl *flows) discard(fd int) {
	for range maxQuotes {
		if n, _ := fl.out.receive(fd, outBatch, 0); n == 0 {
			return
		}
	}
}

// askErrors makes the kernel keep what ICMP says of fd's datagrams, with what it quotes of them.
func askErrors(fd int, v4 bool) {
	if v4 {
		sysSetInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		return
	}
	sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
}

// setReceiveBuffer sets SO_RCVBUF, beyond net.core.rmem_max where CAP_NET_ADMIN allows it.
func setReceiveBuffer(fd, bytes int) {
	if sysSetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != 0 {
		sysSetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
}

// receiveDrops returns how many datagrams a socket has lost because its receive queue was full.
func receiveDrops(fd int) uint32 {
	var info [9 * 4]byte // struct sk_meminfo; the last is SK_MEMINFO_DROPS
	size := uint32(len(info))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < uint32(len(info)) {
		return 0
	}
	return binary.NativeEndian.Uint32(info[8*4:])
}
