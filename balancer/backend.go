package balancer

import (
	"sync/atomic"

	"awe4lb/config"
)

// Backend is one address in one pool, for as long as any snapshot or session knows it. Compare by pointer.
type Backend struct {
	// Set once, never changed.
	Pool    string
	Address config.Address
	Name    string // Address as text

	// Shared: atomics. On a cache line of their own: every shard writes here.
	_      [64]byte
	active atomic.Int64
	_      [56]byte
}

// Active returns the sessions that hold b now, those still connecting included. Safe from any goroutine.
func (b *Backend) Active() int64 { return b.active.Load() }

// Release gives back what Pool.Pick counted. Safe from any goroutine.
func (b *Backend) Release() { b.active.Add(-1) }

// acquire counts one more session on b unless that would be more than limit; 0 is no limit.
func (b *Backend) acquire(limit int64) bool {
	if n := b.active.Add(1); limit > 0 && n > limit {
		b.active.Add(-1)
		return false
	}
	return true
}

// Member is a backend in a snapshot: the identity, and what the configuration says of it at that time.
type Member struct {
	*Backend
	Config *config.Backend

	weight, limit int64
}

// usable reports whether m may be picked now, given what was tried before.
func (m *Member) usable(tried []*Backend) bool {
	if m.weight == 0 || m.limit > 0 && m.active.Load() >= m.limit {
		return false
	}
	for _, b := range tried {
		if b == m.Backend {
			return false
		}
	}
	return true
}
