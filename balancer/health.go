package balancer

import "awe4lb/config"

// begin gives a new backend the state that its pool's health check begins with.
func (b *Backend) begin(c *config.Pool) {
	if c.Health.Checks() && c.Health.Initial != "up" {
		b.SetState(Down)
	}
}

// SetHealth says whether checks find the backend at address in a pool up, from now on and in every snapshot to come. It
// returns the backend, or nil when there is none: it has been taken away meanwhile. Safe from any goroutine, but only
// one may say it of a backend.
func (d *Director) SetHealth(pool string, address config.Address, up bool) *Backend {
	p := d.Snapshot().Pool(pool)
	if p == nil {
		return nil
	}
	m := p.Member(address)
	if m == nil {
		return nil
	}
	if up {
		m.SetState(Up)
	} else {
		m.SetState(Down)
	}
	return m.Backend
}

// forgetHealth has all backends be up that nobody checks: their pool may have had a check before.
func (s *Snapshot) forgetHealth() {
	for _, p := range s.Pools {
		p.forgetHealth()
	}
}

func (p *Pool) forgetHealth() {
	if p.Config.Health.Checks() {
		return
	}
	for _, m := range p.Members {
		m.SetState(Up)
	}
}

// AllDown reports whether p has members and none of those that have a weight is up.
func (p *Pool) AllDown() bool {
	some := false
	for _, m := range p.Members {
		if m.Weight() == 0 {
			continue
		}
		if m.State() == Up {
			return false
		}
		some = true
	}
	return some
}
