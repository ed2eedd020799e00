package balancer

import (
	"strconv"
	"time"

	"awe4lb/config"
)

// The weight of a backend is what somebody ordered at run time, or else what is configured, of which its agent may want another
// percentage. Pickers are made for weights; so when one changes, those of its pool are made anew and take the place of the old ones
// by one store. No snapshot is published: nothing but the pickers has changed.

// Weight returns the weight of m as it is now. Safe from any goroutine.
func (m *Member) Weight() int {
	if w := m.weightOrder.Load(); w > 0 {
		return int(w - 1)
	}
	w := m.Config.Weight
	percent := m.percent.Load() - 1
	if w == 0 || percent < 0 {
		return w
	}
	if percent == 0 {
		return 0
	}
	return max(w*int(percent)/100, 1)
}

// OrderedWeight returns the weight that was ordered, or -1. Safe from any goroutine.
func (b *Backend) OrderedWeight() int { return int(b.weightOrder.Load()) - 1 }

// AgentPercent returns the percentage of its weight that b's agent wants, or -1. Safe from any goroutine.
func (b *Backend) AgentPercent() int { return int(b.percent.Load()) - 1 }

// AgentOrder returns what b's agent wants of it. Safe from any goroutine.
func (b *Backend) AgentOrder() Order {
	switch c := b.condition.Load(); {
	case c&agentMaintains != 0:
		return Maintain
	case c&agentDrains != 0:
		return DrainIt
	}
	return Admit
}

// arrange makes the pickers for the weights of now and has the next pick use them. The Director's mu is held.
func (p *Pool) arrange() {
	tiers := newTiers(p.Config, p.us, p.weighed(), p.live)
	p.sit(tiers) // bounds of leastConn begin at 0, so that it does not matter who ends meanwhile
	p.tiers.Store(&tiers)
	p.live.roomMade() // a backend that had no weight may have one
}

// weighed returns the members with their weights of now, for pickers.
func (p *Pool) weighed() []*Member {
	members := make([]*Member, len(p.Members))
	for i, m := range p.Members {
		weighed := *m
		weighed.weight = int64(m.Weight())
		members[i] = &weighed
	}
	return members
}

// Advice is what the agent of a backend wants. What it does not mention stays as it was.
type Advice struct {
	Percent int // of its weight; -1: not mentioned
	Order   Order
	Orders  bool // it says Order
}

// arrangeDelay is how long changes of weights by agents wait for others of their kind: then the pickers are made once.
const arrangeDelay = 50 * time.Millisecond

// Advise has the backend at address in a pool be as its agent wants: its order at once, its weight within 50 ms. What somebody
// has ordered comes before it. It returns the backend and its state before; nil when there is none. Never blocks; safe from
// any goroutine, but only one may say it of a backend.
func (d *Director) Advise(pool string, address config.Address, a Advice) (b *Backend, was State) {
	p := d.Snapshot().Pool(pool)
	if p == nil {
		return nil, Up
	}
	for _, m := range p.Members {
		if m.Address != address {
			continue
		}
		was = m.State()
		if a.Orders {
			was = m.change(agentDrains|agentMaintains, [...]uint32{0, agentDrains, agentMaintains}[a.Order])
		}
		if is := m.State(); is != was {
			d.Record(Event{Pool: pool, Backend: m.Name, What: "agent", From: was.String(), To: is.String(), Why: "the agent says " + a.Order.String()})
		}
		if before := m.Weight(); a.Percent >= 0 && m.percent.Swap(int32(a.Percent)+1) != int32(a.Percent)+1 {
			if is := m.Weight(); is != before {
				if before == 0 {
					m.startSlow()
				}
				d.Record(Event{Pool: pool, Backend: m.Name, What: "agent", From: strconv.Itoa(before), To: strconv.Itoa(is),
					Why: "the agent says " + strconv.Itoa(a.Percent) + "%"})
				d.arrangeSoon(pool)
			}
		}
		return m.Backend, was
	}
	return nil, Up
}

// arrangeSoon has the pickers of a pool made anew, and does not wait.
func (d *Director) arrangeSoon(pool string) {
	d.staleMu.Lock()
	defer d.staleMu.Unlock()
	if len(d.stale) == 0 {
		time.AfterFunc(arrangeDelay, d.arrangeStale)
	}
	d.stale[pool] = true
}

func (d *Director) arrangeStale() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.staleMu.Lock()
	stale := d.stale
	d.stale = map[string]bool{}
	d.staleMu.Unlock()
	for name := range stale {
		if p := d.current.Load().Pool(name); p != nil {
			p.arrange()
		}
	}
}

// forgetAdvice has all backends obey no agent whose pool asks none: it may have asked one before.
func (s *Snapshot) forgetAdvice() {
	for _, p := range s.Pools {
		if h := p.Config.Health; h != nil && h.Kind == "agent" {
			continue
		}
		stale := false
		for _, m := range p.Members {
			m.change(agentDrains|agentMaintains, 0)
			stale = m.percent.Swap(0) != 0 || stale
		}
		if stale {
			p.arrange()
		}
	}
}
