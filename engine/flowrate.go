package engine

import "sync/atomic"

// rateTable bounds how fast each source prefix may begin flows or sessions. Shared by all shards, without a lock: a prefix has one
// word, changed by compare-and-swap. It never grows: 512 KiB whatever strangers do.
//
// Method: the generic cell rate algorithm. A bucket is one number, the time at which it would be full again; a bucket
// whose time has passed is full and need not be remembered. So a place is free as soon as its prefix has been quiet for as
// long as its burst takes at the rate, and when all four places of a prefix are taken, the one that is full again first gives way.
type rateTable struct {
	// Shared: atomics. A prefix' tag in the upper 16 bits, the time in the others, in units of rateUnit; where it bounds bytes
	// (caps), a mark on a course.
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
	set, tag := t.place(hash)
	step := uint64(max(1e9/int64(rate)/rateUnit, 1))
	most := step * uint64(burst)
	at := uint64(now/rateUnit) & timeMask
	for {
		place, old, ahead := findRate(set, tag, at, most) // no prefix is further ahead than its burst
		if ahead+step > most {
			return false
		}
		if place.CompareAndSwap(old, tag<<48|(at+ahead+step)&timeMask) {
			return true
		}
	}
}

// findRate returns the place of set that a prefix has, or may have, what is there, and how far in the future its bucket is full:
// 0 when it is full already. at is now; a time that is more than most after it is in the past.
func findRate(set []atomic.Uint64, tag, at, most uint64) (place *atomic.Uint64, old, ahead uint64) {
	for i := range set {
		v := set[i].Load()
		a := (v - at) & timeMask
		if a > most {
			a = 0
		}
		if v>>48 == tag {
			return &set[i], v, a
		}
		if place == nil || a < ahead {
			place, old, ahead = &set[i], v, a
		}
	}
	return place, old, 0 // somebody else's
}

// farthest is how many bytes ahead a bucket of bytes may be: 64 GiB. Marks have 48 bits, so that one of very long ago may be taken
// for one in the future; never for more than this.
const farthest = 1 << 36

// place returns the places that a hash has, and its tag: not 0, which an empty place has.
func (t *rateTable) place(hash uint64) (set []atomic.Uint64, tag uint64) {
	return t.places[hash%(uint64(len(t.places))/rateWays)*rateWays:][:rateWays], hash>>48 | 1
}

// ahead returns how many bytes it is from now, a mark on a course, until the bucket of that hash is full. Safe from any goroutine.
func (t *rateTable) ahead(hash uint64, now int64) int64 {
	set, tag := t.place(hash)
	_, _, ahead := findRate(set, tag, uint64(now)&timeMask, farthest)
	return int64(ahead)
}

// take takes n bytes from the bucket of that hash, whether it has them or not, and returns how many it was until that was full. Safe
// from any goroutine.
func (t *rateTable) take(hash uint64, now, n int64) (was int64) {
	set, tag := t.place(hash)
	at := uint64(now) & timeMask
	for {
		place, old, ahead := findRate(set, tag, at, farthest)
		if place.CompareAndSwap(old, tag<<48|(at+ahead+uint64(n))&timeMask) {
			return int64(ahead)
		}
	}
}
