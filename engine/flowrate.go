package engine

import "sync/atomic"

// rateTable bounds how fast each source prefix may begin flows or sessions. Shared by all shards, without a lock: a prefix has one
// word, changed by compare-and-swap. It never grows: 512 KiB whatever strangers do.
//
// Method: the generic cell rate algorithm. A bucket is one number, the time at which it would be full again; a bucket
// whose time has passed is full and need not be remembered. So a place is free as soon as its prefix has been quiet for as
// long as its burst takes at the rate, and when all four places of a prefix are taken, the one that is full again first gives way.
type rateTable struct {
	// Shared: atomics. A prefix' tag in the upper 16 bits, the time in the others, in units of rateUnit.
	places [1 << 16]atomic.Uint64
}

const (
	rateUnit = 64 // ns; 48 bits of them are 208 days, and times are compared as differences
	rateWays = 4
	timeMask = 1<<48 - 1
)

// allow counts one more for the prefix with that hash, at now (ns, by one clock for all callers), unless that is more
// than rate a second after a burst. Never blocks or allocates; safe from any goroutine.
func (t *rateTable) allow(hash uint64, now int64, rate, burst int) bool {
	set := t.places[hash%(uint64(len(t.places))/rateWays)*rateWays:][:rateWays]
	tag := hash>>48 | 1 // an empty place has tag 0
	step := uint64(max(1e9/int64(rate)/rateUnit, 1))
	most := step * uint64(burst)
	at := uint64(now/rateUnit) & timeMask
	for {
		// ahead is how far in the future a bucket is full; one that is full already is 0 ahead.
		best, old, ahead := -1, uint64(0), uint64(0)
		for i := range set {
			v := set[i].Load()
			a := (v - at) & timeMask
			if a > most { // in the past, no prefix is further ahead than its burst
				a = 0
			}
			if v>>48 == tag {
				best, old, ahead = i, v, a
				break
			}
			if best < 0 || a < ahead {
				best, old, ahead = i, v, a
			}
		}
		if old>>48 != tag {
			ahead = 0 // somebody else's
		}
		if ahead+step > most {
			return false
		}
		if set[best].CompareAndSwap(old, tag<<48|(at+ahead+step)&timeMask) {
			return true
		}
	}
}
