package balancer

import (
	"net/netip"

	"awe4lb/config"
)

// route sends clients that match to a pool.
type route struct {
	source []netip.Prefix
	pool   *Pool
}

func newRoute(cfg *config.Route, pool *Pool) route {
	return route{source: cfg.Match.Source, pool: pool}
}

// matches reports whether every condition of the route holds.
func (r *route) matches(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	for _, p := range r.source {
		if p.Contains(client) {
			return true
		}
	}
	return false
}
