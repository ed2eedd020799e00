package balancer

import "awe4lb/config"

// identities are the objects that outlive snapshots, by what they are.
type identities struct {
	frontends map[string]*FrontendLive
	pools     map[string]*poolLive
	backends  map[backendKey]*Backend
	orders    map[backendKey]orders // never changed
}

type backendKey struct {
	pool    string
	address config.Address
}

// build makes the snapshot of a configuration. It takes from known what exists already, makes the rest anew and leaves
// known as it is: nothing has happened until the Director publishes the result.
func build(cfg *config.Config, version uint64, known identities) *Snapshot {
	s := &Snapshot{
		Version:   version,
		Config:    cfg,
		frontends: make(map[string]*Frontend, len(cfg.Frontends)),
		pools:     make(map[string]*Pool, len(cfg.Pools)),
		backends:  map[*Backend]bool{},
	}
	for _, c := range cfg.Pools {
		p := buildPool(c, cfg.Engine.Zone, known)
		s.Pools = append(s.Pools, p)
		s.pools[c.Name] = p
		for _, m := range p.Members {
			s.backends[m.Backend] = true
		}
	}
	for _, c := range cfg.Frontends {
		f := &Frontend{Config: c, Live: known.frontends[c.Name], pool: s.pools[c.Pool]}
		if f.Live == nil {
			f.Live = new(FrontendLive)
		}
		f.routes = newRoutes(c, s.pools)
		s.Frontends = append(s.Frontends, f)
		s.frontends[c.Name] = f
	}
	return s
}

// buildPool makes a pool; zone is our own.
func buildPool(c *config.Pool, zone string, known identities) *Pool {
	p := &Pool{Config: c, live: known.pools[c.Name], zone: zone, threshold: c.PanicThreshold, keyed: keyedBy(c)}
	members := make([]*Backend, len(c.Backends))
	for i, bc := range c.Backends {
		members[i] = known.backends[backendKey{c.Name, bc.Address}]
		if members[i] != nil && p.live == nil {
			p.live = members[i].live // a pool comes back while its sessions go on
		}
	}
	if p.live == nil {
		p.live = newPoolLive()
	}
	for i, bc := range c.Backends {
		b := members[i]
		if b == nil {
			b = &Backend{Pool: c.Name, Address: bc.Address, Name: bc.Address.String(), live: p.live}
			b.begin(c)
			known.orders[backendKey{c.Name, bc.Address}].apply(b)
		}
		p.Members = append(p.Members, &Member{Backend: b, Config: bc, limit: int64(bc.MaxConnections)})
	}
	tiers := newTiers(c, zone, p.weighed(), p.live)
	p.tiers.Store(&tiers)
	return p
}

// identitiesOf collects the identities a snapshot uses.
func identitiesOf(s *Snapshot) identities {
	ids := identities{map[string]*FrontendLive{}, map[string]*poolLive{}, map[backendKey]*Backend{}, nil}
	for _, f := range s.Frontends {
		ids.frontends[f.Config.Name] = f.Live
	}
	for _, p := range s.Pools {
		ids.pools[p.Config.Name] = p.live
		for _, m := range p.Members {
			ids.backends[backendKey{m.Pool, m.Address}] = m.Backend
		}
	}
	return ids
}
