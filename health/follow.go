package health

import (
	"fmt"
	"time"

	"awe4lb/config"
)

// follower is a backend of a pool that follows the health of another pool. There are no probes and no streaks: it changes
// when the other does.
type follower struct {
	b    *backend
	pool string     // the other
	of   []*backend // those whose health counts: one that is up is enough; none: always up
}

// follow finds out who follows whom, and what follows from that.
func (p *Prober) follow(cfg *config.Config, now time.Time) {
	p.followers = nil
	for _, pool := range cfg.Pools {
		if !pool.Health.Checks() || pool.Health.Kind != "pool" {
			continue
		}
		other := cfg.Pool(pool.Health.Pool) // config has checked that it is there
		for _, c := range p.membersOf(pool) {
			f := &follower{b: p.backends[Key{pool.Name, c.Address}], pool: other.Name}
			for _, o := range p.membersOf(other) {
				if b := p.backends[Key{other.Name, o.Address}]; b != nil && (pool.Health.Follow == "any" || o.Address.SameHost(c.Address)) {
					f.of = append(f.of, b)
				}
			}
			p.followers = append(p.followers, f)
		}
	}
	p.evaluate(now)
}

// evaluate has followers change with those they follow.
func (p *Prober) evaluate(now time.Time) {
	for _, f := range p.followers {
		up, why := len(f.of) == 0, "pool "+f.pool+" has no health check for it"
		for _, o := range f.of {
			if o.streak.up {
				up, why = true, fmt.Sprintf("pool %s: %s is up", f.pool, o.key.Address)
				break
			}
			why = fmt.Sprintf("pool %s: %s is %s", f.pool, o.key.Address, o.streak.state())
			if len(f.of) > 1 {
				why = fmt.Sprintf("pool %s: none of %d backends is up", f.pool, len(f.of))
			}
		}
		if up != f.b.streak.up {
			before := f.b.streak.state()
			f.b.streak.up = up
			p.transition(f.b, before, why, now)
		}
	}
}
