package config

// checkQueue warns of a queue in which nobody ever waits.
func (d *decoder) checkQueue(p *Pool) {
	q := p.Queue
	if q == nil || d.places[q].bad {
		return
	}
	at := d.places[q]
	if !q.Waits() {
		if !d.isSet(&q.Size) {
			d.warn(at, "there is no size, so that nobody waits", "")
		}
		return
	}
	if q.WhenDown {
		if p.PanicThreshold > 0 {
			d.warn(d.places[&q.WhenDown], "as long as panic_threshold is above 0, nobody waits for backends that checks find down: they are tried", "write panic_threshold = 0 in the pool")
		}
		return
	}
	if p.MaxConnections > 0 || p.Discovery != nil { // backends that are found may have max_connections
		return
	}
	for _, b := range p.Backends {
		if b.MaxConnections > 0 {
			return
		}
	}
	d.warn(at, "neither the pool nor a backend has max_connections, so that nobody waits", "")
}
