package main

import (
	"time"

	"awe4lb/balancer"
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
	p.engine.BackendChanged(b)
	state := map[bool]string{false: "down", true: "up"}[x.Up]
	p.director.Record(balancer.Event{Pool: x.Pool, Backend: b.Name, What: "health", From: x.Before, To: state, Why: x.Why, After: x.After})
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

// agentAdvises hands what the agent of a backend wants to those who act on it. It is as healthChanged.
func (p *process) agentAdvises(key health.Key, a health.Advice) {
	advice := balancer.Advice{Percent: a.Percent, Orders: a.Order != "", Order: agentOrders[a.Order]}
	b, was := p.director.Advise(key.Pool, key.Address, advice)
	if b == nil {
		return
	}
	if is := b.State(); is != was {
		p.engine.BackendChanged(b)
		p.logs.Log.Info("an agent has changed the state of its backend", "pool", key.Pool, "backend", b.Name, "was", was.String(), "is", is.String())
	}
}

// agentOrders are the words of agents.
var agentOrders = map[string]balancer.Order{"ready": balancer.Admit, "drain": balancer.DrainIt, "maint": balancer.Maintain}
