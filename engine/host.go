package engine

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"awe4lb/config"
	"awe4lb/internal/socketfile"

	"golang.org/x/sys/unix"
)

// HostError says that the configuration names something this host does not have, such as an address to connect from: the
// file may be right elsewhere, or here at another time.
type HostError struct {
	Key string // of the configuration
	Err error
}

func (e *HostError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }

func (e *HostError) Unwrap() error { return e.Err }

// CheckHost returns everything in cfg that this host does not have and that shows without listening: addresses and
// interfaces above all. Whether a port is free it does not ask. Blocks for a second for each unix socket at the most.
func CheckHost(cfg *config.Config) []error {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, f := range cfg.Frontends {
		told := map[netip.Addr]bool{} // ranges have an address many times
		refused := false
		for _, a := range f.Addresses {
			switch {
			case a.IsUnix():
				note(checkUnix(f.BindKey(a), a.Path))
			case !told[a.IP.Addr()]:
				told[a.IP.Addr()] = true
				note(checkLocal(f.BindKey(a), a.IP.Addr()))
			}
			if !refused && (cfg.Engine.User == "" || os.Geteuid() == 0) { // else root is to start it
				err := checkPort(f.BindKey(a), a)
				note(err)
				refused = err != nil
			}
		}
	}
	if a := cfg.Admin.Address; cfg.Admin.Bind != "" && (cfg.Engine.User == "" || os.Geteuid() == 0) {
		note(checkPort("admin.bind", a))
	}
	for _, p := range cfg.Pools {
		for i, source := range p.Source {
			note(checkLocal(sourceKey(p, i), source))
		}
		for i, b := range p.Backends {
			note(checkZone(backendKey(p, i), b.Address))
		}
	}
	for _, err := range checkDatagrams(cfg) {
		note(err)
	}
	return errs
}

func sourceKey(p *config.Pool, i int) string { return fmt.Sprintf("pools.%s.source[%d]", p.Name, i) }

func backendKey(p *config.Pool, i int) string {
	return fmt.Sprintf("pools.%s.backends[%d].address", p.Name, i)
}

// checkHost returns the first of what a reload finds this host not to have; awe4lb check tells all of it.
func checkHost(cfg *config.Config) error {
	if err := learnZones(cfg); err != nil {
		return err
	}
	if err := checkSources(cfg); err != nil {
		return err
	}
	if errs := checkDatagrams(cfg); len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// checkLocal makes sure that a is an address of this host. Only the kernel knows (127.0.0.0/8, local routes,
// ip_nonlocal_bind), so it is asked to bind to the address, and to no port.
func checkLocal(key string, a netip.Addr) error {
	address := config.Address{IP: netip.AddrPortFrom(a, 0)}
	if err := checkZone(key, address); err != nil {
		return err
	}
	var sa sockaddr
	fd, errno := sysSocket(sa.set(address), unix.SOCK_STREAM)
	if errno != 0 {
		return &HostError{key, fmt.Errorf("%s: %w", a, os.NewSyscallError("socket", errno))}
	}
	defer func() { _ = unix.Close(fd) }()
	sysSetInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if errno := sysBind(fd, &sa); errno != 0 {
		err := fmt.Errorf("%s: %w", a, os.NewSyscallError("bind", errno))
		if errno == unix.EADDRNOTAVAIL {
			err = fmt.Errorf("%w (no interface of this host has that address)", err)
		}
		return &HostError{key, err}
	}
	return nil
}

// checkPort makes sure that this process may bind to the port of a. Capabilities, ip_unprivileged_port_start and more have a
// say in that, so that the kernel is asked; but the port is not taken, not even for a moment. A socket that is bound already
// cannot be bound again, and rights are looked at before that (inet_bind and inet6_bind; TCP and UDP alike).
func checkPort(key string, a config.Address) error {
	if a.IsUnix() || a.IP.Port() == 0 {
		return nil
	}
	var free, wanted sockaddr
	fd, errno := sysSocket(free.set(config.Address{IP: netip.AddrPortFrom(a.IP.Addr(), 0)}), unix.SOCK_STREAM)
	if errno != 0 {
		return nil // checkLocal tells
	}
	defer func() { _ = unix.Close(fd) }()
	if sysBind(fd, &free) != 0 {
		return nil
	}
	wanted.set(a)
	if errno := sysBind(fd, &wanted); errno == unix.EACCES {
		return &HostError{key, fmt.Errorf("%s: %w%s", a, os.NewSyscallError("bind", errno), portHint(a))}
	}
	return nil
}

// portHint explains why a port may not be bound to, where that is because of its number.
func portHint(a config.Address) string {
	start := 1024
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		start, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if int(a.IP.Port()) >= start {
		return ""
	}
	return fmt.Sprintf(" (a port below %d needs root or CAP_NET_BIND_SERVICE)", start)
}

// checkUnix makes sure that a socket could be made at path.
func checkUnix(key, path string) error {
	err := socketfile.InTheWay(path)
	if err == nil {
		if err = unix.Access(filepath.Dir(path), unix.W_OK|unix.X_OK); err != nil {
			err = fmt.Errorf("%s: %w", filepath.Dir(path), err)
		}
	}
	if err != nil {
		return &HostError{key, fmt.Errorf("unix:%s: %w", path, err)}
	}
	return nil
}
