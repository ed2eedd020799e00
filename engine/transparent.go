package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"awe4lb/config"

	"golang.org/x/sys/unix"
)

// Transparent flows send with their client's address, so a backend's answers are addressed to the client. They come back to
// this host only by the backends' routes, and to the flow's socket only by a rule of ours: docs/udp-transparent.md. Both
// halves of what can be checked here are checked before a datagram is lost.

// checkTransparent makes sure that a transparent frontend has the capability and the rules it needs, for each family of its
// backends.
func checkTransparent(cfg *config.Config, f *config.Frontend) error {
	v4, v6 := families(cfg, f)
	for _, family := range []struct {
		wanted, v4 bool
		number     int
		flag, any  string
	}{{v4, true, unix.AF_INET, "", "0.0.0.0/0"}, {v6, false, unix.AF_INET6, "-6 ", "::/0"}} {
		if !family.wanted {
			continue
		}
		fd, errno := sysSocket(family.number, unix.SOCK_DGRAM)
		if errno != 0 {
			return os.NewSyscallError("socket", errno)
		}
		errno = setTransparent(fd, family.v4)
		_ = unix.Close(fd)
		if errno == syscall.EPERM {
			return errors.New("needs CAP_NET_ADMIN to send with the clients' addresses (run as root, or setcap cap_net_admin+ep, or " +
				"AmbientCapabilities=CAP_NET_ADMIN in the unit; with engine.user it has to be in the configuration from the start)")
		}
		if errno != 0 {
			return os.NewSyscallError("setsockopt IP_TRANSPARENT", errno)
		}
		if ok, err := hasDivert(family.number); err != nil {
			return fmt.Errorf("read the routing rules: %w", err)
		} else if !ok {
			return fmt.Errorf("the host does not bring the backends' answers to us: no rule leads to a table with a local route for %s "+
				"(ip %sroute add local default dev lo table 100; ip %srule add iif INTERFACE ipproto udp sport PORT lookup 100; "+
				"see docs/udp-transparent.md)", family.any, family.flag, family.flag)
		}
	}
	return nil
}

// families returns which families the backends of f are of that the configuration names.
func families(cfg *config.Config, f *config.Frontend) (v4, v6 bool) {
	for _, p := range poolsOf(cfg, f) {
		for _, b := range p.Backends {
			v4 = v4 || b.Address.IP.Addr().Is4()
			v6 = v6 || b.Address.IP.Addr().Is6()
		}
	}
	return v4, v6
}

// discovers reports whether f has backends that are found.
func discovers(cfg *config.Config, f *config.Frontend) bool {
	return slices.ContainsFunc(poolsOf(cfg, f), func(p *config.Pool) bool { return p.Discovery != nil })
}

// poolsOf returns the pools that f leads to.
func poolsOf(cfg *config.Config, f *config.Frontend) (pools []*config.Pool) {
	names := []string{f.Pool}
	for _, r := range f.Routes {
		names = append(names, r.Pool)
	}
	for _, name := range names {
		if p := cfg.Pool(name); p != nil {
			pools = append(pools, p)
		}
	}
	return pools
}
