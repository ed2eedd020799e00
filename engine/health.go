package engine

import "awe4lb/balancer"

// BackendChanged has the shards act on a change of b: flows leave those of its pool that are gone now, and the sessions of one that is down
// as the pool says. Those that are still connecting are left alone: they find out by themselves. It implements balancer.Plane. Never blocks; safe from any goroutine.
func (e *Engine) BackendChanged(b *balancer.Backend) {
	p := e.director.Snapshot().Pool(b.Pool)
	cut := b.State() == balancer.Down && p != nil && p.Config.OnDown == "cut"
	for _, sh := range e.shards {
		sh.loop.Post(func() {
			if cut {
				sh.cutSessions(b)
			}
			if sh.flows != nil {
				sh.flows.healthChanged(b.Pool)
			}
		})
	}
}

// cutSessions resets the sessions on b. It looks at all sessions of the shard: some 5 ns each.
func (sh *shard) cutSessions(b *balancer.Backend) {
	var on []*session // to end one may do things to the list
	for s := sh.sessions.next; s != &sh.sessions; s = s.next {
		if s.target == b && s.state == open {
			on = append(on, s)
		}
	}
	for _, s := range on {
		if s.target == b && s.state == open {
			s.end(BackendDown)
		}
	}
}

// healthChanged finds out which targets of a pool are gone now: one that is down is, while others of its pool are not.
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
	return b.State() == balancer.Down && p != nil && !p.AllDown()
}
