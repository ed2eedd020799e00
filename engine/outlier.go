package engine

import (
	"time"

	"awe4lb/balancer"
)

// ejected is the complaint about a backend that is not used for a time: docs/operations.md.
const ejected = "a backend failed one client after the other: it is not used for a time"

// tellEjected has it logged that b was ejected for d, 0 for not at all. Never blocks.
func (e *Engine) tellEjected(b *balancer.Backend, d time.Duration, last Reason) {
	if d > 0 {
		e.complain(complaint{what: ejected, about: b.Name, detail: last.String() + ", for " + d.String()})
	}
}
