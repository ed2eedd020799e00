package balancer

import (
	"sync/atomic"
	"time"
)

// Outliers: backends that fail one client after the other, whatever checks say of them. What counts is in a row: attempts to
// connect that failed, and sessions that the backend reset before it had said anything.
//
//	Up ──failures in a row──▶ Ejected ──ejection, each time twice as long──▶ on trial: Up, and one failure ejects it again
//	▲                                                                                       │
//	└────────────────────────────────────── it serves a client ─────────────────────────────┘
//
// A backend serves when it is connected, and has said something. No more than config.Outliers.MaxEjected percent of a pool's
// backends are ejected at once: then the trouble is more likely ours, or the network's.

// Failed notes that a client could not be connected to b, and reports whether that ejects b, and for how long. Safe from any
// goroutine; never blocks.
func (p *Pool) Failed(b *Backend) (ejected time.Duration) { return p.note(b, &b.failures) }

// Cut notes that b reset a session before it had said anything. It returns what Failed does.
func (p *Pool) Cut(b *Backend) (ejected time.Duration) { return p.note(b, &b.cuts) }

// Served notes that b was connected, or with answered that it has said something to a client. Safe from any goroutine; two
// loads when all is well.
func (p *Pool) Served(b *Backend, answered bool) {
	if p.Config.Outliers == nil {
		return
	}
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
	if !answered {
		return
	}
	if b.cuts.Load() != 0 {
		b.cuts.Store(0)
	}
	if b.ejections.Load() != 0 && b.condition.Load()&isEjected == 0 {
		b.ejections.Store(0)
	}
}

func (p *Pool) note(b *Backend, row *atomic.Int32) time.Duration {
	o := p.Config.Outliers
	if o == nil || int(row.Add(1)) < o.Failures || b.condition.Load()&isEjected != 0 || !p.mayEject(o.MaxEjected) {
		return 0
	}
	if b.exchange(isEjected, isEjected)&isEjected != 0 {
		return 0 // another shard was first
	}
	n := b.ejections.Add(1)
	d := o.Ejection
	for range n - 1 {
		if d *= 2; d >= o.MaxEjection {
			break
		}
	}
	d = min(d, o.MaxEjection)
	time.AfterFunc(d, func() {
		row.Store(int32(o.Failures) - 1) // on trial
		b.change(isEjected, 0)
	})
	return d
}

// mayEject reports whether one more backend may be ejected, so that at most percent of those with a weight are.
func (p *Pool) mayEject(percent int) bool {
	ejected, all := 1, 0
	for _, m := range p.Members {
		if m.Weight() == 0 {
			continue
		}
		all++
		if m.condition.Load()&isEjected != 0 {
			ejected++
		}
	}
	return ejected*100 <= all*percent
}
