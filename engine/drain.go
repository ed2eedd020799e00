package engine

import (
	"context"
	"slices"
	"time"

	"awe4lb/balancer"
)

// listen makes the shard take clients from exactly the bindings given. Whoever waits in the queue of a listener that goes
// is still served: see leave. It runs on the loop.
func (sh *shard) listen(wanted map[bindKey]*bound) {
	byFD, datagrams := map[int]*bound{}, map[int]*bound{}
	for _, b := range wanted {
		switch {
		case b.udp:
			datagrams[b.fds[sh.number]] = b
		case sh.number < len(b.fds):
			byFD[b.fds[sh.number]] = b
		}
	}
	if sh.flows == nil && len(datagrams) > 0 {
		sh.flows = newFlows(sh)
	}
	if sh.flows != nil {
		sh.flows.listen(datagrams)
	}
	var kept, leaving []*listener
	for _, l := range sh.listeners {
		b := byFD[l.fd]
		if b == nil {
			leaving = append(leaving, l)
			continue
		}
		l.front, l.fstats, l.gate = b.front, sh.frontendStats(b.front.Config.Name), b.gate
		kept = append(kept, l)
		delete(byFD, l.fd)
	}
	sh.listeners = kept
	for fd, b := range byFD {
		l := &listener{sh: sh, fd: fd, address: b.address, own: b.binding, front: b.front, gate: b.gate,
			fstats: sh.frontendStats(b.front.Config.Name)}
		sh.listeners = append(sh.listeners, l)
		if sh.paused {
			continue
		}
		if err := sh.loop.Listen(fd, l); err != nil {
			sh.pause()
		}
	}
	for _, l := range leaving {
		l.leave()
	}
}

// prune forgets the counters of what is no longer configured and no longer in use. Those of frontends stay: their totals
// go on when one comes back, and clients in the queue of a listener that goes are still to be counted.
func (sh *shard) prune(snap *balancer.Snapshot) {
	if sh.flows != nil {
		sh.flows.prune()
	}
	if sh.pruned == snap {
		return
	}
	sh.pruned = snap
	for name := range sh.pools {
		if snap.Pool(name) == nil {
			delete(sh.pools, name)
		}
	}
	for b := range sh.backends {
		switch {
		case snap.Has(b):
		case b.Active() == 0:
			sh.settle(snap, b)
		default:
			sh.pruned = nil // next time, perhaps
		}
	}
	sh.gone = slices.DeleteFunc(sh.gone, func(b *balancer.Backend) bool { return sh.backends[b] == nil })
	for key := range sh.origins {
		if !snap.Has(key.backend) {
			delete(sh.origins, key)
		}
	}
}

// settle drops the counters of a backend that is no longer configured and has no session left; its pool keeps their sum.
func (sh *shard) settle(snap *balancer.Snapshot, b *balancer.Backend) {
	st := sh.backends[b]
	if st == nil {
		return
	}
	if p := snap.Pool(b.Pool); p != nil {
		sh.poolStats(p).Gone.Add(st)
	}
	delete(sh.backends, b)
}

// drainPoll is how often Drain looks whether the last session has ended.
const drainPoll = 10 * time.Millisecond

// Drain lets nobody new in and waits until every session, those of the clients in the queues included, and every flow has
// ended by itself or ctx is done; those that are left then are ended for the reason given, Drained or Killed. It returns their number. UDP sockets stay open: the flows there
// are need them. A flow ends once it has been quiet for unreplied_timeout.
func (e *Engine) Drain(ctx context.Context, reason func() Reason) int64 {
	e.draining.Store(true)
	e.mu.Lock()
	stay := map[bindKey]*bound{}
	for key, b := range e.bindings {
		if b.udp {
			stay[key] = b
		}
	}
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			sh.listen(stay)
			if sh.flows != nil {
				sh.flows.drain()
			}
		})
	}
	for key, b := range e.bindings {
		if stay[key] == nil {
			b.close()
		}
	}
	e.bindings = stay
	e.mu.Unlock()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for e.sessions.Load() > 0 || e.leaving.Load() > 0 || e.lingering.Load() > 0 || e.flows.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			e.cutting.Store(true)
			cut := int64(0)
			for _, sh := range e.shards {
				sh.loop.Call(func() {
					why := reason()
					cut += int64(sh.open)
					if sh.flows != nil {
						cut += int64(sh.flows.table.used)
					}
					sh.endAll(why)
					cut += sh.turnAway(why)
				})
			}
			return cut
		}
	}
	return 0
}

// Draining reports whether Drain has begun. Safe from any goroutine.
func (e *Engine) Draining() bool { return e.draining.Load() }
