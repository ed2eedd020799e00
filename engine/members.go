package engine

import (
	"maps"

	"awe4lb/balancer"
)

// Members of a pool that come and go without a reload: no listener, certificate or access list is looked at.

// PrepareMembers looks up the zones of the members of pool. One that there is no interface for is told of: connecting there
// fails. It implements balancer.Plane.
func (e *Engine) PrepareMembers(pool *balancer.Pool) {
	looked := map[string]bool{} // up; once each, since it blocks
	for _, m := range pool.Members {
		zone := m.Address.IP.Addr().Zone()
		if zone == "" || looked[zone] {
			continue
		}
		looked[zone] = true
		if err := checkZone("pools."+pool.Config.Name+".discovery", m.Address); err != nil {
			e.log.Warn("a backend that was found cannot be reached", "pool", pool.Config.Name, "backend", m.Name, "error", err)
		}
	}
}

// CommitMembers has the shards follow a change of the members of a pool: flows of those that are gone go as their frontend's
// on_backend_gone says, sessions stay. It implements balancer.Plane; it does not wait for the shards.
func (e *Engine) CommitMembers(pool string, gone []*balancer.Backend) {
	for _, sh := range e.shards {
		sh.loop.Post(func() {
			if sh.flows != nil {
				sh.flows.healthChanged(pool)
				sh.flows.prune()
			}
			sh.forget(gone)
			sh.followQueues(e.director.Snapshot())
		})
	}
	if q := e.director.Snapshot().Pool(pool).Queue(); q != nil {
		q.Call() // there may be room now; after what was posted above
	}
}

// forget drops what the shard keeps of backends that are no longer members, once they have no session left. Unlike prune it
// looks only at those, since lists may change many times a second.
func (sh *shard) forget(gone []*balancer.Backend) {
	snap := sh.eng.director.Snapshot()
	sh.gone = append(sh.gone, gone...)
	left := sh.gone[:0]
	dropped := map[*balancer.Backend]bool{}
	for _, b := range sh.gone {
		switch {
		case snap.Has(b): // it is back
		case b.Active() > 0:
			left = append(left, b)
		default:
			sh.settle(snap, b)
			dropped[b] = true
		}
	}
	clear(sh.gone[len(left):])
	sh.gone = left
	if len(dropped) > 0 && len(sh.origins) > 0 {
		maps.DeleteFunc(sh.origins, func(key originKey, _ origin) bool { return dropped[key.backend] })
	}
}
