package engine

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"awe4lb/config"

	"golang.org/x/sys/unix"
)

// openDatagrams binds a UDP socket for each shard. Nothing is received until they are on their loops, but what comes waits
// in their queues. overlaps is as for openBinding.
func openDatagrams(a config.Address, f *config.Frontend, shards int, overlaps bool) (*binding, error) {
	b := &binding{address: a, local: a, udp: true}
	for i := range shards {
		// With SO_REUSEPORT the kernel would let us share the port with another process of the same user, even choose such a
		// port for 0, and each would get half of the clients. So the first socket binds without it, which fails when anybody is
		// there, and only then lets the others in.
		alone := i == 0 && !overlaps
		fd, err := bindSocket(b.local, unix.SOCK_DGRAM, !alone)
		if err == nil {
			b.fds = append(b.fds, fd)
			if alone {
				err = os.NewSyscallError("setsockopt SO_REUSEPORT", errOf(sysSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)))
			}
		}
		if err == nil {
			b.local, err = localAddress(fd)
		}
		if err == nil {
			err = tuneDatagrams(fd, b.local, f)
		}
		if err != nil {
			b.close()
			return nil, err
		}
	}
	return b, nil
}

// errOf returns errno as an error that is nil when there is none.
func errOf(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// tuneDatagrams sets the options of a UDP listener; it works on a live one too.
func tuneDatagrams(fd int, local config.Address, f *config.Frontend) error {
	setReceiveBuffer(fd, int(f.UDP.ReceiveBuffer))
	if f.UDP.GRO {
		if errno := sysSetInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); errno != 0 {
			return os.NewSyscallError("setsockopt UDP_GRO", errno)
		}
	}
	errno := syscall.Errno(0)
	if !local.IP.Addr().IsUnspecified() {
		return nil
	}
	if local.IP.Addr().Is4() {
		errno = sysSetInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	} else {
		errno = sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	if errno != 0 {
		return os.NewSyscallError("setsockopt PKTINFO", errno)
	}
	return nil
}

// checkReceiveBuffer tells the operator when the kernel gives a listener less room than the configuration asks for.
func (e *Engine) checkReceiveBuffer(b *bound) {
	asked := int(b.front.Config.UDP.ReceiveBuffer)
	// The kernel doubles what was asked for, to have room for its own.
	got, err := unix.GetsockoptInt(b.fds[0], unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err == nil && got/2 < asked {
		e.log.Warn("udp.receive_buffer is more than the system allows: sysctl net.core.rmem_max", "frontend", b.front.Config.Name,
			"asked", asked, "got", got/2)
	}
}

// checkDatagrams returns what the UDP frontends ask for that this host cannot do.
func checkDatagrams(cfg *config.Config) (errs []error) {
	for _, f := range cfg.Frontends {
		if !f.IsUDP() {
			continue
		}
		for _, p := range f.UDP.SharedSource {
			if err := checkShared(p); err != nil {
				errs = append(errs, &HostError{"frontends." + f.Name + ".udp.shared_source",
					fmt.Errorf("%s is not local to this host: %w (ip route add local %s dev lo)", p, err, p)})
			}
		}
		if f.UDP.Transparent {
			if err := checkTransparent(cfg, f); err != nil {
				errs = append(errs, &HostError{"frontends." + f.Name + ".udp.transparent", err})
			}
		}
	}
	return errs
}

// checkShared makes sure that the prefix of a shared_source is local to this host. For IPv4 bind(2) tells; for IPv6 it knows
// configured addresses only, and the routes have to be looked at.
func checkShared(p netip.Prefix) error {
	if p.Addr().Is6() {
		ok, err := hasLocalRoute(p)
		if err == nil && !ok {
			err = unix.EADDRNOTAVAIL
		}
		return err
	}
	b := p.Addr().As4()
	b[3] |= 1
	fd, err := bindSocket(config.Address{IP: netip.AddrPortFrom(netip.AddrFrom4(b), 0)}, unix.SOCK_DGRAM, false)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}
