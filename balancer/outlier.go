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
// Also those that fail more of their clients than the others of their pool do, in a row or not: see successrate.go. They are
// ejected by the same rules, and how long the next time is forgotten when they have been compared again and found alike.
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
	if b.ejections.Load() != 0 && b.condition.Load()&isEjected == 0 && (!b.slack.Load() || p.Config.Outliers.SuccessRate == nil) {
		b.ejections.Store(0)
	}
}

func (p *Pool) note(b *Backend, row *atomic.Int32) time.Duration {
	o := p.Config.Outliers
	if o == nil || int(row.Add(1)) < o.Failures {
		return 0
	}
	return p.eject(b, row, byFailures)
}

// cause is why a backend was ejected.
type cause uint8

const (
	byFailures cause = iota
	byRate
	numCauses = iota
)

// Ejections returns how often b was ejected for failures in a row, and for its success rate. Safe from any goroutine.
func (b *Backend) Ejections() (failures, rate uint64) {
	return b.ejected[byFailures].Load(), b.ejected[byRate].Load()
}

// eject takes b out of use for a time, unless it is, or too many are. When the time is over, one more in row ejects it again.
func (p *Pool) eject(b *Backend, row *atomic.Int32, why cause) time.Duration {
	o := p.Config.Outliers
	if b.condition.Load()&isEjected != 0 || !p.mayEject(o.MaxEjected) {
		return 0
	}
	if b.exchange(isEjected, isEjected)&isEjected != 0 {
		return 0 // another shard was first
	}
	b.ejected[why].Add(1)
	if why == byRate {
		b.slack.Store(true)
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
