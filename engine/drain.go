package engine

import (
	"context"
	"math"
	"time"

	"awe4lb/balancer"
)

// listen makes the shard take clients from exactly the bindings given. Whoever waits in the queue of a listener that goes
// is accepted first. It runs on the loop.
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
	kept := sh.listeners[:0]
	for _, l := range sh.listeners {
		b := byFD[l.fd]
		if b == nil {
			for !l.accept(acceptBudget) && !sh.paused {
			}
			sh.loop.Forget(l.fd)
			continue
		}
		l.front, l.fstats = b.front, sh.frontendStats(b.front.Config.Name)
		kept = append(kept, l)
		delete(byFD, l.fd)
	}
	sh.listeners = kept
	for fd, b := range byFD {
		l := &listener{sh: sh, fd: fd, address: b.address, front: b.front,
			fstats: sh.frontendStats(b.front.Config.Name)}
		sh.listeners = append(sh.listeners, l)
		if sh.paused {
			continue
		}
		if err := sh.loop.Listen(fd, l); err != nil {
			sh.pause()
		}
	}
}

// prune forgets the counters of what is no longer configured and no longer in use.
func (sh *shard) prune(snap *balancer.Snapshot) {
	if sh.flows != nil {
		sh.flows.prune()
	}
	for name, f := range sh.frontends {
		if snap.Frontend(name) == nil && f.open() == 0 && !(sh.flows != nil && sh.flows.counts(name)) {
			delete(sh.frontends, name)
		}
	}
	for name := range sh.pools {
		if snap.Pool(name) == nil {
			delete(sh.pools, name)
		}
	}
	for b := range sh.backends {
		if b.Active() == 0 && !snap.Has(b) {
			delete(sh.backends, b)
		}
	}
}

// drainPoll is how often Drain looks whether the last session has ended.
const drainPoll = 10 * time.Millisecond

// Drain lets nobody new in and waits until every session and flow has ended by itself or ctx is done; those that are left
// then are ended for the reason given, Drained or Killed. It returns their number. UDP sockets stay open: the flows there
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
	e.limit.Store(math.MaxInt64) // those in the queues are to be let in
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
	open := func() int64 { return e.sessions.Load() + e.flows.Load() }
	for open() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			cut := open()
			for _, sh := range e.shards {
				sh.loop.Call(func() { sh.endAll(reason()) })
			}
			return cut
		}
	}
	return 0
}

// Draining reports whether Drain has begun. Safe from any goroutine.
func (e *Engine) Draining() bool { return e.draining.Load() }
