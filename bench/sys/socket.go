// Package sys is the thin floor under the load generator and the backends: non-blocking IPv4 sockets, TCP and UDP, and epoll,
// straight from the std syscall package.
//
// It exists because net.Conn costs a goroutine per connection and a trip through the runtime's poller per wait, and a
// generator that does that measures itself. Calls that cannot block are made with RawSyscall: the scheduler is not told,
// which is right for calls of a few microseconds. The only call that waits is Epoll.Wait.
//
// Nothing here allocates except Listen, the constructors and the String methods. Linux only, 64 bits only.
package sys

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"
)

// Options the syscall package does not name.
const (
	soReusePort          = 0xf
	ipBindAddressNoPort  = 24
	prSetTimerSlack      = 29
	sysEpollPwait2       = 441 // the same number on every architecture; Linux 5.11
	msgNoSignal          = syscall.MSG_NOSIGNAL
	sizeofRawSockaddrIn4 = syscall.SizeofSockaddrInet4
)

// Addr is an IPv4 address and port in the form the kernel wants it.
type Addr struct {
	raw syscall.RawSockaddrInet4
}

// ParseAddr reads "127.0.0.1:8080". Only literal IPv4 addresses are accepted: a benchmark must not resolve names.
func ParseAddr(s string) (Addr, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || !ap.Addr().Is4() {
		return Addr{}, fmt.Errorf("address %q: want an IPv4 address and a port, such as 127.0.0.1:8080", s)
	}
	return addrFrom(ap.Addr().As4(), ap.Port()), nil
}

// LoopbackSource returns the i-th client address of 127.1.0.0/16 with no port chosen, for Bind. Addresses repeat after
// 62,500. Spreading clients over them lifts the limit of about 28,000 ephemeral ports per source and destination.
func LoopbackSource(i int) Addr {
	i %= 62500
	return addrFrom([4]byte{127, 1, byte(i / 250), byte(1 + i%250)}, 0)
}

func addrFrom(ip [4]byte, port uint16) Addr {
	var a Addr
	a.raw.Family = syscall.AF_INET
	a.raw.Addr = ip
	p := (*[2]byte)(unsafe.Pointer(&a.raw.Port)) // network order
	p[0], p[1] = byte(port>>8), byte(port)
	return a
}

// Port returns the port in host order.
func (a Addr) Port() int {
	p := (*[2]byte)(unsafe.Pointer(&a.raw.Port))
	return int(p[0])<<8 | int(p[1])
}

func (a Addr) String() string {
	return netip.AddrPortFrom(netip.AddrFrom4(a.raw.Addr), uint16(a.Port())).String()
}

// Socket returns a new non-blocking, close-on-exec TCP socket.
func Socket() (int, syscall.Errno) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET,
		syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	return int(fd), errno
}

// Connect starts a connection. EINPROGRESS is the usual answer; 0 means established at once.
func Connect(fd int, a *Addr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), sizeofRawSockaddrIn4)
	return errno
}

// BindSource gives a client socket its source address and leaves the port to connect, so that one address can hold as
// many connections as there are ports per destination.
func BindSource(fd int, a *Addr) syscall.Errno {
	if errno := SetOption(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1); errno != 0 {
		return errno
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), sizeofRawSockaddrIn4)
	return errno
}

// Listen opens a non-blocking listener with SO_REUSEADDR, SO_REUSEPORT and TCP_NODELAY (which accepted sockets inherit)
// and returns it with the address it really has: port 0 becomes the port the kernel chose.
func Listen(a Addr, backlog int) (int, Addr, error) {
	fd, errno := Socket()
	if errno != 0 {
		return -1, a, fmt.Errorf("socket: %w", errno)
	}
	for _, o := range [][2]int{{syscall.SOL_SOCKET, syscall.SO_REUSEADDR}, {syscall.SOL_SOCKET, soReusePort}, {syscall.IPPROTO_TCP, syscall.TCP_NODELAY}} {
		if errno := SetOption(fd, o[0], o[1], 1); errno != 0 {
			Close(fd)
			return -1, a, fmt.Errorf("setsockopt on the listener %s: %w", a, errno)
		}
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), sizeofRawSockaddrIn4); errno != 0 {
		Close(fd)
		return -1, a, fmt.Errorf("bind %s: %w", a, errno)
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		Close(fd)
		return -1, a, fmt.Errorf("listen %s: %w", a, err)
	}
	size := uint32(sizeofRawSockaddrIn4)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		Close(fd)
		return -1, a, fmt.Errorf("getsockname %s: %w", a, errno)
	}
	return fd, a, nil
}

// Accept returns the next waiting connection, non-blocking and close-on-exec; EAGAIN when there is none.
func Accept(fd int) (int, syscall.Errno) {
	nfd, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), 0, 0, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	return int(nfd), errno
}

// Read reads into b, which must not be empty. 0 with no error is the end of the stream.
func Read(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// Send writes from b, which must not be empty, and never raises SIGPIPE.
func Send(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), msgNoSignal, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// ShutdownWrite sends FIN: the peer sees the end of the stream, the other direction stays open.
func ShutdownWrite(fd int) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), syscall.SHUT_WR, 0)
	return errno
}

// Close closes fd; errors are of no use to a caller here.
func Close(fd int) {
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
}

// SetOption sets an integer socket option.
func SetOption(fd, level, option, value int) syscall.Errno {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v)), 4, 0)
	return errno
}

// SetNoDelay turns Nagle's algorithm off.
func SetNoDelay(fd int) { SetOption(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) }

// SocketError takes the pending error of a socket (SO_ERROR): the verdict on a connect.
func SocketError(fd int) syscall.Errno {
	var v, size int32 = 0, 4
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, syscall.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return syscall.Errno(v)
}

// Poll waits until fd has one of events (In, Out), an error or an end, and says whether that came within limit.
func Poll(fd int, events uint32, limit time.Duration) bool {
	p := struct {
		fd      int32
		events  int16
		revents int16
	}{fd: int32(fd), events: int16(events)} // the bits are those of epoll
	ts := syscall.NsecToTimespec(int64(max(limit, 0)))
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno != syscall.EINTR { // the rare case waits anew
			return errno == 0 && n > 0
		}
	}
}
