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

// learnZones looks up the zones of all backends.
func learnZones(cfg *config.Config) error {
	for _, p := range cfg.Pools {
		for _, b := range p.Backends {
			zone := b.Address.IP.Addr().Zone()
			if zone == "" {
				continue
			}
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return fmt.Errorf("pools.%s.backends: %s: no interface %q on this host", p.Name, b.Address, zone)
			}
			zones.Store(zone, uint32(i.Index))
		}
	}
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
