package balancer

import "awe4lb/config"

// identities are the objects that outlive snapshots, by what they are.
type identities struct {
	frontends map[string]*FrontendLive
	pools     map[string]*poolLive
	backends  map[backendKey]*Backend
	orders    map[backendKey]orders // never changed
	rosters   map[string]roster
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
	}
	for _, c := range cfg.Pools {
		p := buildPool(c, known.rosters[c.Name].backends(c), hereOf(cfg), known)
		s.Pools = append(s.Pools, p)
		s.pools[c.Name] = p
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

// buildPool makes a pool of backends.
func buildPool(c *config.Pool, backends []*config.Backend, us here, known identities) *Pool {
	p := &Pool{Config: c, live: known.pools[c.Name], us: us, threshold: c.PanicThreshold, limit: int64(c.MaxConnections), keyed: keyedBy(c),
		Members: make([]*Member, 0, len(backends)), members: make(map[config.Address]*Member, len(backends))}
	knownAs := make([]*Backend, len(backends))
	for i, bc := range backends {
		knownAs[i] = known.backends[backendKey{c.Name, bc.Address}]
		if knownAs[i] != nil && p.live == nil {
			p.live = knownAs[i].live // a pool comes back while its sessions go on
		}
	}
	if p.live == nil {
		p.live = newPoolLive()
		p.live.counting.Store(p.limit > 0)
	}
	for i, bc := range backends {
		b := knownAs[i]
		if b == nil {
			b = newBackend(c.Name, bc.Address, p.live)
			b.begin(c)
			known.orders[backendKey{c.Name, bc.Address}].apply(b)
		}
		m := &Member{Backend: b, Config: bc, limit: int64(bc.MaxConnections)}
		p.Members = append(p.Members, m)
		p.members[bc.Address] = m
	}
	tiers := newTiers(c, us, p.weighed(), p.live)
	p.tiers.Store(&tiers)
	p.sticks = newSticks(c.Persistence, p.Members, p.live.sticks)
	return p
}

// identitiesOf collects the identities a snapshot uses.
func identitiesOf(s *Snapshot) identities {
	ids := identities{map[string]*FrontendLive{}, map[string]*poolLive{}, map[backendKey]*Backend{}, nil, nil}
	for _, f := range s.Frontends {
		ids.frontends[f.Config.Name] = f.Live
	}
	for _, p := range s.Pools {
		ids.addPool(p)
	}
	return ids
}

func (ids *identities) addPool(p *Pool) {
	ids.pools[p.Config.Name] = p.live
	for _, m := range p.Members {
		ids.backends[backendKey{m.Pool, m.Address}] = m.Backend
	}
}
