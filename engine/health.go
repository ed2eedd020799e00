package engine

import "awe4lb/balancer"

// BackendChanged has the shards act on a change of b: flows leave those of its pool that are gone now, and sessions go as
// the pool says, or stay once b is back. It implements balancer.Plane. Never blocks; safe from any goroutine.
func (e *Engine) BackendChanged(b *balancer.Backend) {
	o, ok := e.paceOf(b)
	for _, sh := range e.shards {
		sh.loop.Post(func() {
			if ok {
				sh.pace(b, o)
			} else if p := sh.paces[b]; p != nil {
				p.stop()
			}
			if sh.flows != nil {
				sh.flows.healthChanged(b.Pool)
			}
		})
	}
}

// healthChanged finds out which targets of a pool are gone now: one that is down is, or in maintenance, while others of its
// pool are not.
func (fl *flows) healthChanged(pool string) {
	fl.wake()
	snap := fl.sh.eng.director.Snapshot()
	cut := false
	for _, t := range fl.targets[1:] {
		if t != nil && t.backend.Pool == pool {
			t.gone = isGone(t.backend, snap)
			cut = cut || t.gone && t.flows > 0
		}
	}
	if cut {
		fl.cutGone()
	}
}

// isGone reports whether flows should leave b, if they may.
func isGone(b *balancer.Backend, snap *balancer.Snapshot) bool {
	if !snap.Has(b) {
		return true
	}
	p := snap.Pool(b.Pool)
	if p == nil {
		return false
	}
	switch b.State() {
	case balancer.Down:
	case balancer.Maintenance:
		if p.Config.OnMaintenance == "keep" {
			return false
		}
	default:
		return false
	}
	return !p.AllDown()
}
