package engine

import (
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"awe4lb/config"

	"golang.org/x/sys/unix"
)

// The system calls of the data path, on descriptors that never block, by RawSyscall: not telling the scheduler saves
// 3-4 % of a request (research of 2026-11-22: 0.60 against 1.06 us of user time). EINTR is handled where it can happen.

// sysRead is recv(2): n bytes, 0 at the end of the stream, or an errno. On a socket read(2) does the same by a longer way:
// 4 % of a request's CPU (perf, 2026-11-22).
func sysRead(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// sysSend is send(2), never raising SIGPIPE. An empty b asks only whether sending is possible.
func sysSend(fd int, b []byte, flags int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			uintptr(flags|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT), 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// sysSplice is splice(2) between a socket and a pipe, without offsets.
func sysSplice(from, to, n int) (int, syscall.Errno) {
	for {
		moved, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno == 0 {
			return int(moved), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// sysShutdown is shutdown(2) for writing: everything sent so far, then FIN.
func sysShutdown(fd int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), syscall.SHUT_WR, 0)
}

// sysSetInt is setsockopt(2) with an int.
func sysSetInt(fd, level, name, value int) syscall.Errno {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	return errno
}

// sysError takes the pending error of a socket; 0 is none.
func sysError(fd int) syscall.Errno {
	var v int32
	size := uint32(4)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return syscall.Errno(v)
}

// sysUnsent returns the bytes in a TCP socket's send queue that the peer has not acknowledged.
func sysUnsent(fd int) int { return sysQueue(fd, unix.SIOCOUTQ) }

// sysUnread returns the bytes in a TCP socket's receive queue.
func sysUnread(fd int) int { return sysQueue(fd, unix.SIOCINQ) }

// sysAtEnd reports whether the next read of a socket says that its peer has nothing more to say.
func sysAtEnd(fd int) bool {
	var b [1]byte
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	return n == 0 && errno == 0
}

func sysQueue(fd int, which uintptr) int {
	var v int32
	if _, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), which, uintptr(unsafe.Pointer(&v))); errno != 0 {
		return 0
	}
	return int(v)
}

// sysReset makes the next close of fd send RST.
func sysReset(fd int) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
}

// sockaddr is room for the address of any socket we use, and its length.
type sockaddr struct {
	raw  unix.RawSockaddrAny
	size uint32
}

// sysAccept is accept4(2), non-blocking and close-on-exec. The peer's address goes to sa.
func sysAccept(fd int, sa *sockaddr) (int, syscall.Errno) {
	for {
		sa.size = unix.SizeofSockaddrAny
		n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw)),
			uintptr(unsafe.Pointer(&sa.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return -1, errno
		}
	}
}

// sysSocket is socket(2) of a kind (unix.SOCK_STREAM or SOCK_DGRAM), non-blocking and close-on-exec.
func sysSocket(family, kind int) (int, syscall.Errno) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, uintptr(family), uintptr(kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), 0
}

// sysConnect is connect(2).
func sysConnect(fd int, sa *sockaddr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw)), uintptr(sa.size))
	return errno
}

// sysGetsockname is getsockname(2).
func sysGetsockname(fd int, sa *sockaddr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw)), uintptr(unsafe.Pointer(&sa.size)))
	return errno
}

// sysBind is bind(2).
func sysBind(fd int, sa *sockaddr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw)), uintptr(sa.size))
	return errno
}

// set makes sa the address a and returns its family.
func (sa *sockaddr) set(a config.Address) int {
	if a.IsUnix() {
		un := (*unix.RawSockaddrUnix)(unsafe.Pointer(&sa.raw))
		un.Family = unix.AF_UNIX
		for i := range len(a.Path) { // config keeps paths short enough
			un.Path[i] = int8(a.Path[i])
		}
		un.Path[len(a.Path)] = 0
		sa.size = uint32(unsafe.Offsetof(un.Path)) + uint32(len(a.Path)) + 1
		return unix.AF_UNIX
	}
	return sa.setIP(a.IP)
}

func (sa *sockaddr) setIP(a netip.AddrPort) int {
	port := a.Port()
	if a.Addr().Is4() {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa.raw))
		*in = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
		(*[2]byte)(unsafe.Pointer(&in.Port))[0], (*[2]byte)(unsafe.Pointer(&in.Port))[1] = byte(port>>8), byte(port)
		sa.size = unix.SizeofSockaddrInet4
		return unix.AF_INET
	}
	in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&sa.raw))
	*in = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		in.Scope_id = zoneIndex(zone)
	}
	(*[2]byte)(unsafe.Pointer(&in.Port))[0], (*[2]byte)(unsafe.Pointer(&in.Port))[1] = byte(port>>8), byte(port)
	sa.size = unix.SizeofSockaddrInet6
	return unix.AF_INET6
}

// addrPort returns the address in sa, the zero AddrPort for a unix socket. It allocates only for a scoped IPv6 address.
func (sa *sockaddr) addrPort() netip.AddrPort {
	switch sa.raw.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port((*[2]byte)(unsafe.Pointer(&in.Port))))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&sa.raw))
		a := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 && a.Is6() {
			a = a.WithZone(strconv.Itoa(int(in.Scope_id)))
		}
		return netip.AddrPortFrom(a, port((*[2]byte)(unsafe.Pointer(&in.Port))))
	}
	return netip.AddrPort{}
}

// family returns the address family of what is in sa.
func (sa *sockaddr) family() int { return int(sa.raw.Addr.Family) }

func port(b *[2]byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
