package main

import (
	"time"

	"awe4lb/health"
)

// healthChanged hands what the health checks find to those who act on it: the director first, so that nobody new comes, then
// the engine, about those who are there; and tells it once. It is called by one goroutine at a time and does not block.
func (p *process) healthChanged(x health.Transition) {
	b := p.director.SetHealth(x.Pool, x.Address, x.Up)
	if x.Initial || b == nil {
		return
	}
	pool, sessions := p.director.Snapshot().Pool(x.Pool), b.Active()
	p.engine.HealthChanged(b, !x.Up && pool != nil && pool.Config.OnDown == "cut")
	log, what := p.logs.Log, []any{"pool", x.Pool, "backend", b.Name, "why", x.Why, "was", x.Before, "for", x.After.Round(time.Millisecond)}
	if x.Up {
		log.Info("backend is up", what...)
	} else {
		log.Warn("backend is down", append(what, "sessions", sessions)...)
	}
	switch {
	case x.PoolDown && pool != nil:
		log.Error("no backend of the pool is up", "pool", x.Pool, "panic_threshold", pool.Config.PanicThreshold)
	case x.PoolUp:
		log.Info("the pool has a backend that is up again", "pool", x.Pool)
	}
}
