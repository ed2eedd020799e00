package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"awe4lb/config"
	"awe4lb/internal/socketfile"

	"golang.org/x/sys/unix"
)

// BindError says which address could not be listened on, for whom, and why.
type BindError struct {
	Key      string // of the entry of bind
	Frontend string
	Address  config.Address
	UDP      bool
	Err      error
}

func (e *BindError) Error() string {
	hint := ""
	switch {
	case errors.Is(e.Err, unix.EADDRINUSE) && e.Address.IsUnix():
		hint = " (another process listens there)"
	case errors.Is(e.Err, unix.EADDRINUSE):
		flag := "t"
		if e.UDP {
			flag = "u"
		}
		hint = fmt.Sprintf(" (another process listens there: ss -l%snp 'sport = :%d')", flag, e.Address.IP.Port())
	case errors.Is(e.Err, unix.EADDRNOTAVAIL):
		hint = " (no interface of this host has that address)"
	case errors.Is(e.Err, unix.EACCES) && !e.Address.IsUnix():
		hint = portHint(e.Address)
	}
	return fmt.Sprintf("%s: %s: %v%s", e.Key, e.Address, e.Err, hint)
}

func (e *BindError) Unwrap() error { return e.Err }

// binding is an address that is listened on: one socket per shard.
type binding struct {
	address config.Address // as configured
	local   config.Address // as bound: the port the system chose for port 0
	fds     []int          // by shard; unix sockets have one queue, which the first shards share through duplicates

	// UDP only.
	udp   bool
	flows atomic.Int64 // that send from these sockets
}

// unixShards is the number of shards that accept from a unix socket. The kernel wakes all of them for each client, so
// more of them would cost more than they bring.
const unixShards = 4

// openBinding binds and listens. Nobody is accepted until the sockets are on their loops. overlaps says that another
// socket of ours may listen there too.
func openBinding(a config.Address, f *config.Frontend, shards int, overlaps bool) (*binding, error) {
	switch {
	case f.IsUDP():
		return openDatagrams(a, f, shards, overlaps)
	case a.IsUnix():
		return openUnix(a, f, min(shards, unixShards))
	}
	b := &binding{address: a, local: a}
	// SO_REUSEPORT would let two processes of one user share the address without a word, each getting half of the clients.
	// A first bind without it fails if anybody listens there.
	if a.IP.Port() != 0 && !overlaps {
		probe, err := bindSocket(a, unix.SOCK_STREAM, false)
		if err != nil {
			return nil, err
		}
		_ = unix.Close(probe)
	}
	for range shards {
		fd, err := bindSocket(b.local, unix.SOCK_STREAM, true)
		if err == nil {
			b.fds = append(b.fds, fd)
			if b.local, err = localAddress(fd); err == nil {
				err = tuneListener(fd, f)
			}
		}
		if err != nil {
			b.close()
			return nil, err
		}
	}
	return b, nil
}

// bindSocket opens a socket of a kind (unix.SOCK_STREAM or SOCK_DGRAM) and binds it.
func bindSocket(a config.Address, kind int, reusePort bool) (int, error) {
	var sa sockaddr
	fd, errno := sysSocket(sa.set(a), kind)
	if errno != 0 {
		return -1, os.NewSyscallError("socket", errno)
	}
	if kind == unix.SOCK_STREAM { // for datagrams it would let two processes share a port without a word
		sysSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if a.IP.Addr().Is6() {
		sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) // [::] and 0.0.0.0 are two addresses
	}
	if reusePort {
		errno = sysSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if errno == 0 {
		if errno = sysBind(fd, &sa); errno == 0 {
			return fd, nil
		}
	}
	_ = unix.Close(fd)
	return -1, os.NewSyscallError("bind", errno)
}

// checkSources makes sure that the addresses to connect from are this host's: found out now, and not by the first client.
func checkSources(cfg *config.Config) error {
	for _, p := range cfg.Pools {
		for i, source := range p.Source {
			fd, err := bindSocket(config.Address{IP: netip.AddrPortFrom(source, 0)}, unix.SOCK_STREAM, false)
			if err != nil {
				return &HostError{sourceKey(p, i),
					fmt.Errorf("%s: %w (no interface of this host has that address)", source, err)}
			}
			_ = unix.Close(fd)
		}
	}
	return nil
}

// tuneListener sets what accepted sockets inherit and (re)opens the accept queue. It works on a live listener too, for
// the clients to come.
func tuneListener(fd int, f *config.Frontend) error {
	tcp := &f.TCP
	sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, boolInt(tcp.NoDelay))
	setKeepalive(fd, tcp.Keepalive)
	sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(tcp.UserTimeout/time.Millisecond))
	backlog := tcp.Backlog
	if backlog == 0 {
		backlog = 65535 // the kernel cuts it down to net.core.somaxconn
	}
	fastOpen := 0
	if tcp.FastOpen {
		fastOpen = min(backlog, 1024)
	}
	if errno := sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, fastOpen); errno != 0 && tcp.FastOpen {
		return os.NewSyscallError("setsockopt TCP_FASTOPEN", errno)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func openUnix(a config.Address, f *config.Frontend, shards int) (*binding, error) {
	if err := socketfile.MakeWay(a.Path); err != nil {
		return nil, err
	}
	var sa sockaddr
	fd, errno := sysSocket(sa.set(a), unix.SOCK_STREAM)
	if errno != 0 {
		return nil, os.NewSyscallError("socket", errno)
	}
	b := &binding{address: a, local: a, fds: []int{fd}}
	if errno := sysBind(fd, &sa); errno != 0 {
		b.closeFDs()
		return nil, os.NewSyscallError("bind", errno)
	}
	err := tuneUnix(b, f)
	for err == nil && len(b.fds) < shards {
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			b.fds = append(b.fds, fd)
		}
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func tuneUnix(b *binding, f *config.Frontend) error {
	if err := unix.Chmod(b.address.Path, f.UnixMode); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	backlog := f.TCP.Backlog
	if backlog == 0 {
		backlog = 65535
	}
	return os.NewSyscallError("listen", unix.Listen(b.fds[0], backlog))
}

// tune applies the settings of f to an open binding.
func (b *binding) tune(f *config.Frontend) {
	if b.address.IsUnix() {
		_ = tuneUnix(b, f)
		return
	}
	for _, fd := range b.fds {
		_ = tuneListener(fd, f)
	}
}

// close closes the sockets and removes a unix socket's file. They must be off their loops.
func (b *binding) close() {
	b.closeFDs()
	if b.address.IsUnix() {
		socketfile.Remove(b.address.Path)
	}
}

func (b *binding) closeFDs() {
	for _, fd := range b.fds {
		if fd >= 0 { // a shard may have taken it over
			_ = unix.Close(fd)
		}
	}
}

func localAddress(fd int) (config.Address, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return config.Address{}, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return config.Address{IP: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}, nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return config.Address{IP: netip.AddrPortFrom(a, uint16(sa.Port))}, nil
	}
	return config.Address{}, syscall.EAFNOSUPPORT
}
