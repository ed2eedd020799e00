package engine

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Datagrams by the batch: recvmmsg(2) and sendmsg(2) with their structures made once. golang.org/x/sys has the
// structures and no calls; golang.org/x/net has calls that allocate.

// batch is room for the datagrams of one recvmmsg: slots with a buffer each, and where wanted the sender's address and
// what the kernel says beside. What is in it is valid until the next receive. Owned by the shard's goroutine.
type batch struct {
	hdrs  []unix.Mmsghdr
	iovs  []unix.Iovec
	from  []unix.RawSockaddrInet6 // as large as we need; holds IPv4 too
	oob   [][oobBytes]byte
	buf   []byte
	size  int // bytes between slots
	limit int // bytes a datagram may have
	used  int // slots that the last receive changed
}

// oobBytes has room for IPV6_PKTINFO and UDP_GRO.
const oobBytes = 64

// newBatch returns a batch of so many slots; named is whether datagrams come from more than one sender.
func newBatch(slots int, named bool) *batch {
	b := &batch{hdrs: make([]unix.Mmsghdr, slots), iovs: make([]unix.Iovec, slots), oob: make([][oobBytes]byte, slots)}
	if named {
		b.from = make([]unix.RawSockaddrInet6, slots)
	}
	for i := range b.hdrs {
		h := &b.hdrs[i].Hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.oob[i][0]
		if named {
			h.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		}
	}
	b.used = slots
	return b
}

// resize makes slots of at least size bytes. What is in them is lost.
func (b *batch) resize(size int) {
	size = max(size, 1)
	if size <= b.size {
		return
	}
	b.size, b.limit = size, 0
	b.buf = make([]byte, len(b.hdrs)*size)
	for i := range b.iovs {
		b.iovs[i].Base = &b.buf[i*size]
	}
}

// receive takes up to vlen datagrams of at most limit bytes from fd, and returns their number. Longer ones are marked by
// cut. A short count does not mean that no more are there when an error is pending: the next call returns that.
func (b *batch) receive(fd, vlen, limit int) (int, syscall.Errno) {
	if limit != b.limit {
		b.limit = limit
		for i := range b.iovs {
			b.iovs[i].SetLen(limit)
		}
	}
	for i := range b.used {
		h := &b.hdrs[i].Hdr
		h.SetControllen(oobBytes)
		if b.from != nil {
			h.Namelen = unix.SizeofSockaddrInet6
		}
	}
	b.used = 0
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b.hdrs))),
			uintptr(vlen), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			b.used = int(n)
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// data returns what is in slot i.
func (b *batch) data(i int) []byte { return b.buf[i*b.size:][:b.hdrs[i].Len] }

// cut reports whether the datagram in slot i was longer than the limit.
func (b *batch) cut(i int) bool { return b.hdrs[i].Hdr.Flags&unix.MSG_TRUNC != 0 }

// beside returns what the kernel says beside the datagram in slot i.
func (b *batch) beside(i int) ancillary {
	n := int(b.hdrs[i].Hdr.Controllen)
	if n == 0 {
		return ancillary{}
	}
	return parseAncillary(b.oob[i][:min(n, oobBytes)])
}

// ancillary is what we ask the kernel to say of a datagram that came in.
type ancillary struct {
	local   [16]byte // the address of ours it came to, IPv4 as mapped; zero when not told
	to      [16]byte // the address it was sent to: the same, but for broadcasts and for what an error queue tells
	segment int      // UDP_GRO: the slot holds several datagrams of so many bytes, the last maybe shorter; 0: it holds one
}

// parseAncillary reads control messages (cmsg(3)); those it does not know are passed over.
func parseAncillary(b []byte) (a ancillary) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		length := int(h.Len)
		if length < unix.CmsgLen(0) || length > len(b) {
			return a
		}
		data := b[unix.CmsgLen(0):length]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst, which a reply shall come from, and ipi_addr. For an ICMP error the kernel leaves the first unset.
			a.local = mapped([4]byte(data[4:8]))
			a.to = mapped([4]byte(data[8:12]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			a.local = [16]byte(data[:16])
			a.to = a.local
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 2:
			if n := int(binary.NativeEndian.Uint16(data)); n > 0 {
				a.segment = n
			}
		}
		next := unix.CmsgSpace(length - unix.CmsgLen(0))
		if next >= len(b) {
			return a
		}
		b = b[next:]
	}
	return a
}

// mapped returns an IPv4 address as IPv6 writes it.
func mapped(ip [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: ip[0], 13: ip[1], 14: ip[2], 15: ip[3]}
}

// isMapped reports whether a is an IPv4 address.
func isMapped(a *[16]byte) bool { return [12]byte(a[:12]) == [12]byte{10: 0xff, 11: 0xff} }

// outgoing is what one sendmsg(2) needs. To, From and Segments say where the next datagrams go. Owned by the shard's
// goroutine.
type outgoing struct {
	hdr  unix.Msghdr
	iovs [maxSegments]unix.Iovec
	oob  [96]byte
	name unix.RawSockaddrInet6
	size uint32 // of name; 0: the socket is connected
	info int    // bytes of the packet info at the beginning of oob
}

const (
	maxSegments = 64    // UDP_MAX_SEGMENTS of kernels before 6.8
	maxTrain    = 65000 // bytes of one sendmsg, below what a UDP datagram could have
)

// connected makes the next datagrams go where their socket is connected to.
func (o *outgoing) connected() { o.size, o.info = 0, 0 }

// to makes the next datagrams go to an address: 16 bytes, IPv4 as mapped, and a socket of the family of v4.
func (o *outgoing) to(ip *[16]byte, port uint16, zone uint32, v4 bool) {
	o.info = 0
	if v4 {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&o.name))
		*in = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte(ip[12:])}
		putPort(&in.Port, port)
		o.size = unix.SizeofSockaddrInet4
		return
	}
	o.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: *ip, Scope_id: zone}
	putPort(&o.name.Port, port)
	o.size = unix.SizeofSockaddrInet6
}

// from makes the next datagrams leave from a local address; zone is the interface of a link-local peer, else 0.
func (o *outgoing) from(ip *[16]byte, zone uint32, v4 bool) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&o.oob[0]))
	if v4 {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&o.oob[unix.CmsgLen(0)]))
		*info = unix.Inet4Pktinfo{Spec_dst: [4]byte(ip[12:])}
		o.info = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
		return
	}
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
	info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&o.oob[unix.CmsgLen(0)]))
	*info = unix.Inet6Pktinfo{Addr: *ip, Ifindex: zone}
	o.info = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// one sends a datagram on fd.
func (o *outgoing) one(fd int, data []byte) syscall.Errno {
	if o.info == 0 {
		for {
			_, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))),
				uintptr(len(data)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(o.address())), uintptr(o.size))
			if errno != syscall.EINTR {
				return errno
			}
		}
	}
	o.iovs[0].Base = unsafe.SliceData(data)
	o.iovs[0].SetLen(len(data))
	return o.message(fd, 1, o.info)
}

// train sends the first n iovs as datagrams of segment bytes each, the last maybe shorter, by one call (UDP_SEGMENT).
func (o *outgoing) train(fd, n, segment int) syscall.Errno {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&o.oob[o.info]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(o.oob[o.info+unix.CmsgLen(0):], uint16(segment))
	return o.message(fd, n, o.info+unix.CmsgSpace(2))
}

func (o *outgoing) message(fd, iovs, oob int) syscall.Errno {
	o.hdr.Name, o.hdr.Namelen = o.address(), o.size
	o.hdr.Iov = &o.iovs[0]
	o.hdr.SetIovlen(iovs)
	o.hdr.Control = &o.oob[0]
	o.hdr.SetControllen(oob)
	for {
		_, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.hdr)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if errno != syscall.EINTR {
			return errno
		}
	}
}

func (o *outgoing) address() *byte {
	if o.size == 0 {
		return nil
	}
	return (*byte)(unsafe.Pointer(&o.name))
}

func putPort(to *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(to))
	b[0], b[1] = byte(port>>8), byte(port)
}
