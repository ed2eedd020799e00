package engine

import (
	"fmt"
	"net"
	"strconv"
	"sync"

	"awe4lb/config"
)

// zones holds the interface indexes of the IPv6 zones in the configuration: looking one up blocks.
var zones sync.Map

// learnZones looks up the zones of all addresses to listen on and of all backends.
func learnZones(cfg *config.Config) error {
	for _, f := range cfg.Frontends {
		for _, a := range f.Addresses {
			if a.IP.Addr().Zone() == "" {
				continue
			}
			if err := checkZone(f.BindKey(a), a); err != nil {
				return err
			}
		}
	}
	for _, p := range cfg.Pools {
		for i, b := range p.Backends {
			if b.Address.IP.Addr().Zone() == "" {
				continue
			}
			if err := checkZone(backendKey(p, i), b.Address); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkZone looks up the zone of a, if it has one.
func checkZone(key string, a config.Address) error {
	zone := a.IP.Addr().Zone()
	if zone == "" {
		return nil
	}
	i, err := net.InterfaceByName(zone)
	if n, bad := strconv.Atoi(zone); err != nil && bad == nil {
		i, err = net.InterfaceByIndex(n)
	}
	if err != nil {
		return &HostError{key, fmt.Errorf("%s: no interface %q on this host", a, zone)}
	}
	zones.Store(zone, uint32(i.Index))
	return nil
}

// zoneIndex returns the interface index of an IPv6 zone, given by name or number; 0 when learnZones did not see it.
func zoneIndex(zone string) uint32 {
	if i, ok := zones.Load(zone); ok {
		return i.(uint32)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}
