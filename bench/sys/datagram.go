package sys

import (
	"fmt"
	"syscall"
	"unsafe"
)

// Options of datagram sockets that the syscall package does not name.
const (
	solUDP         = 17
	udpSegment     = 103
	soRcvBufForce  = 33
	soSndBufForce  = 32
	datagramBuffer = 4 << 20 // of the kernel, each way: what the generator cannot read yet must not look like a loss
)

// ClientAddr returns the i-th client address of 127.64.0.0/10 with no port; addresses repeat after 4,194,304. Every
// address of 127.0.0.0/8 is local, so a socket bound to the wildcard can send from all of them and hears what they get.
func ClientAddr(i int) Addr {
	i &= 1<<22 - 1
	return addrFrom([4]byte{127, byte(64 + i>>16), byte(i >> 8), byte(i)}, 0)
}

// ClientIndex is ClientAddr backwards; -1 for an address that is none of them.
func ClientIndex(ip [4]byte) int {
	if ip[0] != 127 || ip[1] < 64 || ip[1] >= 128 {
		return -1
	}
	return int(ip[1]-64)<<16 | int(ip[2])<<8 | int(ip[3])
}

// IP returns the address without its port.
func (a *Addr) IP() [4]byte { return a.raw.Addr }

// Same says whether two addresses and ports are equal.
func (a *Addr) Same(b *Addr) bool { return a.raw.Addr == b.raw.Addr && a.raw.Port == b.raw.Port }

// ListenDatagrams opens a non-blocking UDP socket at a, with large buffers, and returns it with the address it really
// has. info makes every datagram received tell which local address it was sent to: what a socket bound to the wildcard
// needs to know. share sets SO_REUSEPORT, so that several loops can have a socket each.
func ListenDatagrams(a Addr, info, share bool) (int, Addr, error) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, a, fmt.Errorf("socket: %w", errno)
	}
	fd := int(r)
	for _, o := range [][2]int{{soRcvBufForce, syscall.SO_RCVBUF}, {soSndBufForce, syscall.SO_SNDBUF}} {
		if SetOption(fd, syscall.SOL_SOCKET, o[0], datagramBuffer) != 0 { // the first is root's, and not bound by rmem_max
			SetOption(fd, syscall.SOL_SOCKET, o[1], datagramBuffer)
		}
	}
	errno = 0
	if share {
		errno = SetOption(fd, syscall.SOL_SOCKET, soReusePort, 1)
	}
	if info && errno == 0 {
		errno = SetOption(fd, syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
	}
	if errno != 0 {
		Close(fd)
		return -1, a, fmt.Errorf("setsockopt on the datagram socket %s: %w", a, errno)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), sizeofRawSockaddrIn4); errno != 0 {
		Close(fd)
		return -1, a, fmt.Errorf("bind %s: %w", a, errno)
	}
	size := uint32(sizeofRawSockaddrIn4)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		Close(fd)
		return -1, a, fmt.Errorf("getsockname %s: %w", a, errno)
	}
	return fd, a, nil
}

// AnyAddr is the wildcard address with a port; 0 takes any free one.
func AnyAddr(port int) Addr { return addrFrom([4]byte{}, uint16(port)) }

// mmsghdr is the kernel's struct of that name; 64-bit machines only.
type mmsghdr struct {
	hdr syscall.Msghdr
	n   uint32
	_   uint32
}

// infoControl is one IP_PKTINFO control message as it lies in a control buffer.
type infoControl struct {
	head syscall.Cmsghdr
	info syscall.Inet4Pktinfo
	_    [4]byte
}

// segmentControl is one UDP_SEGMENT control message.
type segmentControl struct {
	head syscall.Cmsghdr
	size uint16
	_    [6]byte
}

// sendControl holds what a datagram may be sent with, in the order that leaves no gap when the second is absent.
type sendControl struct {
	info    infoControl
	segment segmentControl
}

// Inbox receives up to a fixed number of datagrams per system call into memory of its own.
type Inbox struct {
	hdrs  []mmsghdr
	iovs  []syscall.Iovec
	names []Addr
	infos []infoControl
	buf   []byte
	slot  int
}

// NewInbox makes room for n datagrams of at most size bytes.
func NewInbox(n, size int) *Inbox {
	// An odd number of cache lines from slot to slot: with a power of two, all headers would share one cache set.
	slot := (size+63)/64*64 | 64
	in := &Inbox{hdrs: make([]mmsghdr, n), iovs: make([]syscall.Iovec, n), names: make([]Addr, n), infos: make([]infoControl, n),
		buf: make([]byte, n*slot), slot: slot}
	for i := range n {
		in.iovs[i].Base = &in.buf[i*slot]
		in.iovs[i].SetLen(size)
		h := &in.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		h.Iov, h.Iovlen = &in.iovs[i], 1
	}
	return in
}

// Receive takes what is there, up to the inbox' size; 0 with EAGAIN when there is nothing. A number below Cap means that
// the socket was empty, or has an error pending: look again when epoll says so.
func (in *Inbox) Receive(fd int) (int, syscall.Errno) {
	for i := range in.hdrs {
		h := &in.hdrs[i].hdr
		h.Namelen = sizeofRawSockaddrIn4
		h.Control = (*byte)(unsafe.Pointer(&in.infos[i]))
		h.SetControllen(int(unsafe.Sizeof(in.infos[i])))
		h.Flags = 0
	}
	for {
		n, _, errno := syscall.RawSyscall6(sysRecvmmsg, uintptr(fd), uintptr(unsafe.Pointer(&in.hdrs[0])), uintptr(len(in.hdrs)), syscall.MSG_DONTWAIT, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// Cap is how many datagrams one Receive can return.
func (in *Inbox) Cap() int { return len(in.hdrs) }

// Payload returns the bytes of datagram i; they stay until the next Receive.
func (in *Inbox) Payload(i int) []byte {
	return in.buf[i*in.slot : i*in.slot+int(in.hdrs[i].n)]
}

// From returns who sent datagram i.
func (in *Inbox) From(i int) *Addr { return &in.names[i] }

// To returns the local address datagram i was sent to; all zeros when the socket was not opened with info.
func (in *Inbox) To(i int) [4]byte {
	c := &in.infos[i]
	if in.hdrs[i].hdr.Controllen == 0 || c.head.Type != syscall.IP_PKTINFO {
		return [4]byte{}
	}
	return c.info.Addr
}

// Truncated says whether datagram i was longer than its slot.
func (in *Inbox) Truncated(i int) bool { return in.hdrs[i].hdr.Flags&syscall.MSG_TRUNC != 0 }

// Outbox gathers messages and sends them with as few system calls as it takes.
type Outbox struct {
	hdrs     []mmsghdr
	iovs     []syscall.Iovec
	names    []Addr
	controls []sendControl
	messages int
	used     int // of iovs
}

// NewOutbox makes room for n messages of parts pieces each.
func NewOutbox(n, parts int) *Outbox {
	return &Outbox{hdrs: make([]mmsghdr, n), iovs: make([]syscall.Iovec, n*parts), names: make([]Addr, n), controls: make([]sendControl, n)}
}

// Len returns how many messages wait.
func (o *Outbox) Len() int { return o.messages }

// Open begins a message to an address. from is the local address it leaves from, nil for the socket's own. segment cuts
// what follows into datagrams of so many bytes (UDP_SEGMENT); 0 sends it as one.
func (o *Outbox) Open(to *Addr, from *Addr, segment int) {
	i := o.messages
	o.messages++
	o.names[i] = *to
	h := &o.hdrs[i].hdr
	*h = syscall.Msghdr{Name: (*byte)(unsafe.Pointer(&o.names[i])), Namelen: sizeofRawSockaddrIn4, Iov: &o.iovs[o.used]}
	c, size := &o.controls[i], uintptr(0)
	if from != nil {
		c.info.head = syscall.Cmsghdr{Level: syscall.IPPROTO_IP, Type: syscall.IP_PKTINFO}
		c.info.head.SetLen(syscall.SizeofCmsghdr + syscall.SizeofInet4Pktinfo)
		c.info.info = syscall.Inet4Pktinfo{Spec_dst: from.raw.Addr}
		size = unsafe.Sizeof(c.info)
		h.Control = (*byte)(unsafe.Pointer(&c.info))
	}
	if segment > 0 {
		c.segment.head = syscall.Cmsghdr{Level: solUDP, Type: udpSegment}
		c.segment.head.SetLen(syscall.SizeofCmsghdr + 2)
		c.segment.size = uint16(segment)
		if size == 0 {
			h.Control = (*byte)(unsafe.Pointer(&c.segment))
		}
		size += unsafe.Sizeof(c.segment)
	}
	h.SetControllen(int(size))
}

// Put adds bytes, which must not be empty, to the message opened last. They are not copied: they must stay until Send.
func (o *Outbox) Put(b []byte) {
	v := &o.iovs[o.used]
	o.used++
	v.Base = &b[0]
	v.SetLen(len(b))
	o.hdrs[o.messages-1].hdr.Iovlen++
}

// Send sends all messages and empties the box. It returns how many the kernel took and the last error of those it did
// not: sendmmsg stops at the first that fails, so that one is left out and the rest is tried.
func (o *Outbox) Send(fd int) (int, syscall.Errno) {
	taken, at, last := 0, 0, syscall.Errno(0)
	for at < o.messages {
		n, _, errno := syscall.RawSyscall6(sysSendmmsg, uintptr(fd), uintptr(unsafe.Pointer(&o.hdrs[at])), uintptr(o.messages-at), syscall.MSG_DONTWAIT|msgNoSignal, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			last = errno
			at++
		default:
			taken += int(n)
			at += int(n)
		}
	}
	o.messages, o.used = 0, 0
	return taken, last
}
