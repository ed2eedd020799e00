package engine

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

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
		key := "frontends." + f.Name + ".bind"
		told := map[netip.Addr]bool{} // ranges have an address many times
		for _, a := range f.Addresses {
			switch {
			case a.IsUnix():
				note(checkUnix(key, a.Path))
			case !told[a.IP.Addr()]:
				told[a.IP.Addr()] = true
				note(checkLocal(key, a.IP.Addr()))
			}
		}
	}
	for _, p := range cfg.Pools {
		for _, source := range p.Source {
			note(checkLocal("pools."+p.Name+".source", source))
		}
		for _, b := range p.Backends {
			note(checkZone("pools."+p.Name+".backends", b.Address))
		}
	}
	for _, err := range checkDatagrams(cfg) {
		note(err)
	}
	return errs
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
