//go:build !race

package load

import (
	"runtime"
	"testing"
	"time"
)

// TestDatagramsAllocateNothing compares a short run with a long one: what differs is what a datagram costs, at both ends.
func TestDatagramsAllocateNothing(t *testing.T) {
	to, _ := echo(t)
	mallocs := func(count int64) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		mustPass(t, measure(t, Config{Mode: UDP, Target: to, Conns: 100, Count: count, Timeout: 10 * time.Second}))
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	const more = 50_000
	mallocs(100)
	short, long := mallocs(100), mallocs(100+more)
	if extra := int64(long) - int64(short); extra > more/100 {
		t.Errorf("%d more round trips made %d more allocations, want none", more, extra)
	}
}
