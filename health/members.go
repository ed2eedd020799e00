package health

import (
	"slices"
	"time"

	"awe4lb/config"
)

// membersOf returns the backends of a pool.
func (p *Prober) membersOf(pool *config.Pool) []*config.Backend {
	if members, ok := p.members[pool.Name]; ok {
		return members
	}
	return pool.Backends
}

// SetMembers says who the backends of a pool are from now on, and leaves all other pools alone: those that stay go on with
// what was counted, new ones begin with the initial state, those that are gone are forgotten. members is not to be changed
// any more. Never blocks for a probe.
func (p *Prober) SetMembers(pool string, members []*config.Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	table := p.cfg.Pool(pool)
	if table == nil || p.ctx.Err() != nil {
		return
	}
	before := p.membersOf(table)
	if p.members == nil {
		p.members = map[string][]*config.Backend{}
	}
	p.members[pool] = members
	if !table.Health.Checks() {
		return
	}
	now := time.Now()
	stay := make(map[config.Address]bool, len(members))
	var begin []*subject
	for _, c := range members {
		stay[c.Address] = true
		key := Key{pool, c.Address}
		b := p.backends[key]
		known := b != nil && b.sni == c.SNI
		if b == nil {
			b = p.enlist(key, table, nil, now)
			p.backends[key] = b
		}
		b.weight, b.sni = c.Weight, c.SNI
		if known || table.Health.Kind == "pool" {
			continue
		}
		was := b.subject
		if t := p.assign(b, table, c, nil); t != nil {
			begin = append(begin, t)
		}
		if was != nil && was != b.subject {
			p.leave(was, b)
		}
	}
	for _, c := range before {
		key := Key{pool, c.Address}
		if b := p.backends[key]; b != nil && !stay[c.Address] {
			delete(p.backends, key)
			p.remember(b)
			p.leave(b.subject, b)
		}
	}
	if p.dark[pool] && (len(members) == 0 || !p.isDark(pool)) {
		delete(p.dark, pool) // by a change of members, and not of health
	}
	p.begin(begin, now)
	if slices.ContainsFunc(p.cfg.Pools, func(o *config.Pool) bool {
		return o.Health.Checks() && o.Health.Kind == "pool" && (o.Name == pool || o.Health.Pool == pool)
	}) {
		p.follow(p.cfg, now)
	}
}

// leave takes b off those on whose behalf t is probed. With the last one t goes too.
func (p *Prober) leave(t *subject, b *backend) {
	if t == nil {
		return
	}
	t.backends = slices.DeleteFunc(t.backends, func(o *backend) bool { return o == b })
	if len(t.backends) == 0 {
		t.drop()
		delete(p.subjects, t.key)
	}
}
