package balancer

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"runtime"
	"sync/atomic"
)

// stickTable remembers the backend of each client, for all shards. It is of a fixed size and made of buckets: a client has
// its place in one of them, and where that is full of others, the one who has not been seen for longest gives way.
//
// No shard ever waits for another. Whoever changes a bucket makes its seq odd meanwhile, some 10 ns; whoever reads takes
// what it has read for good only if seq was even and is the same afterwards. A shard that finds seq odd for long, because the
// kernel has put the other one to sleep just then, goes on as if the table did not exist (stickCounts.skipped). Method: seqlock,
// Lameter 2005, with a compare-and-swap for writers.
type stickTable struct {
	// Set once, never changed.
	by       stickBy
	v4, v6Hi uint64 // masks of what counts of an address
	v6Lo     uint64
	seed     maphash.Seed // so that nobody can choose addresses that meet in one bucket
	buckets  []stickBucket

	// Shared: atomics.
	counts [stickStripes]stickCounts
}

// stickBy says what of a client a table goes by: the first bits of its address.
type stickBy struct{ v4, v6 int }

const (
	stickWays    = 8
	stickStripes = 8   // of counters, so that shards seldom write to the same cache line
	stickTries   = 100 // looks at a bucket that is being changed, a nanosecond or two each
)

// stickBucket is 232 bytes, 29 for an entry. An entry whose id is 0 is free.
type stickBucket struct {
	seq  atomic.Uint32
	used [stickWays]atomic.Uint32 // seconds of stickClock at which the client last came; may change while seq stands still
	hi   [stickWays]atomic.Uint64 // the client: 16 bytes of its address, IPv4 as mapped
	lo   [stickWays]atomic.Uint64
	id   [stickWays]atomic.Uint64 // the backend: Backend.id
}

// stickCounts is what happened, for some of the buckets.
type stickCounts struct {
	hits, misses, moves, overflows, evictions, skipped atomic.Uint64

	_ [16]byte
}

type stickKey struct{ hi, lo uint64 }

// newStickTable returns a table for entries clients, rounded up to whole buckets.
func newStickTable(by stickBy, entries int) *stickTable {
	t := &stickTable{by: by, seed: maphash.MakeSeed(), buckets: make([]stickBucket, (entries+stickWays-1)/stickWays)}
	t.v4 = ^uint64(0) << (32 - by.v4)
	t.v6Hi, t.v6Lo = ^uint64(0)<<max(64-by.v6, 0), ^uint64(0)<<min(128-by.v6, 64)
	return t
}

// stickClock returns the time in seconds.
func stickClock() uint32 { return uint32(uint64(clock()) / 1e9) }

// key returns what counts of a client.
func (t *stickTable) key(client netip.Addr) stickKey {
	a := client.As16()
	k := stickKey{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
	if k.isIPv4() {
		k.lo &= t.v4
	} else {
		k.hi &= t.v6Hi
		k.lo &= t.v6Lo
	}
	return k
}

func (k stickKey) isIPv4() bool { return k.hi == 0 && k.lo>>32 == 0xffff }

// prefix returns the clients that k stands for.
func (t *stickTable) prefix(k stickKey) netip.Prefix {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], k.hi)
	binary.BigEndian.PutUint64(a[8:], k.lo)
	if k.isIPv4() {
		return netip.PrefixFrom(netip.AddrFrom16(a).Unmap(), t.by.v4)
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), t.by.v6)
}

// bucket returns where a client has its place, and what counts what happens to it.
func (t *stickTable) bucket(k stickKey) (*stickBucket, *stickCounts) {
	h := maphash.Comparable(t.seed, k)
	at := (h >> 32) * uint64(len(t.buckets)) >> 32
	return &t.buckets[at], &t.counts[h%stickStripes]
}

// find returns the backend of a client and notes that it came, or 0 when none is known, or none since ttl seconds before now. It
// reports false when it could not look.
func (b *stickBucket) find(k stickKey, now, ttl uint32) (id uint64, ok bool) {
	for range stickTries {
		seq := b.seq.Load()
		if seq&1 != 0 {
			continue
		}
		i, id, used := b.look(k)
		if b.seq.Load() != seq {
			continue
		}
		if id == 0 || expired(used, now, ttl) {
			return 0, true
		}
		if now != used {
			b.used[i].CompareAndSwap(used, now) // whoever has the place by now: it is as good as new
		}
		return id, true
	}
	return 0, false
}

// look returns where a client is, its backend, 0 when it is nowhere, and when it last came.
func (b *stickBucket) look(k stickKey) (at int, id uint64, used uint32) {
	for i := range stickWays {
		if b.lo[i].Load() == k.lo && b.hi[i].Load() == k.hi {
			if id := b.id[i].Load(); id != 0 {
				return i, id, b.used[i].Load()
			}
		}
	}
	return 0, 0, 0
}

// expired reports whether more than ttl seconds have passed. Shards do not read the clock in the order in which they come here.
func expired(used, now, ttl uint32) bool { return int64(now)-int64(used) > int64(ttl) }

// put makes to the backend of a client that had from, 0 for none, and returns to; unless it has another by now, which another
// shard gave it: then it returns that one. evicted says that somebody else had to give way. It reports false when it could not
// look.
func (b *stickBucket) put(k stickKey, from, to uint64, now, ttl uint32) (id uint64, evicted, ok bool) {
	if !b.lock() {
		return 0, false, false
	}
	defer b.unlock()
	at, id, used := b.look(k)
	switch {
	case id == 0:
		at, evicted = b.room(now, ttl)
	case id != from && !expired(used, now, ttl):
		return id, false, true
	}
	b.hi[at].Store(k.hi)
	b.lo[at].Store(k.lo)
	b.id[at].Store(to)
	b.used[at].Store(now)
	return to, evicted, true
}

// room returns a place: one that is free or expired, or that of the client who has not come for longest. The bucket is locked.
func (b *stickBucket) room(now, ttl uint32) (at int, evicts bool) {
	longest := int64(-1 << 62)
	for i := range stickWays {
		if b.id[i].Load() == 0 {
			return i, false
		}
		if idle := int64(now) - int64(b.used[i].Load()); idle > longest {
			at, longest = i, idle
		}
	}
	return at, longest <= int64(ttl)
}

// remove forgets what a client has, and reports whether that was something. It may have to wait for a shard: not for the data path.
func (b *stickBucket) remove(k stickKey) bool {
	b.wait()
	defer b.unlock()
	at, id, _ := b.look(k)
	if id == 0 {
		return false
	}
	b.id[at].Store(0)
	return true
}

// clear forgets all, as remove does, and returns how many that were.
func (b *stickBucket) clear() int {
	b.wait()
	defer b.unlock()
	n := 0
	for i := range stickWays {
		if b.id[i].Swap(0) != 0 {
			n++
		}
	}
	return n
}

func (b *stickBucket) lock() bool {
	for range stickTries {
		if seq := b.seq.Load(); seq&1 == 0 && b.seq.CompareAndSwap(seq, seq+1) {
			return true
		}
	}
	return false
}

func (b *stickBucket) wait() {
	for !b.lock() {
		runtime.Gosched()
	}
}

func (b *stickBucket) unlock() { b.seq.Add(1) }

// stuck is an entry by itself.
type stuck struct {
	key  stickKey
	id   uint64
	used uint32
}

// at returns the entry at a place, counted through all buckets; its id is 0 when there is none. Not for the data path.
func (t *stickTable) at(place int) stuck {
	b, i := &t.buckets[place/stickWays], place%stickWays
	for {
		seq := b.seq.Load()
		e := stuck{stickKey{b.hi[i].Load(), b.lo[i].Load()}, b.id[i].Load(), b.used[i].Load()}
		if seq&1 == 0 && b.seq.Load() == seq {
			return e
		}
		runtime.Gosched()
	}
}

// entry returns the entry of k; its id is 0 when there is none. Not for the data path.
func (b *stickBucket) entry(k stickKey) stuck {
	for {
		seq := b.seq.Load()
		_, id, used := b.look(k)
		if seq&1 == 0 && b.seq.Load() == seq {
			return stuck{k, id, used}
		}
		runtime.Gosched()
	}
}

// places returns how many entries there is room for.
func (t *stickTable) places() int { return len(t.buckets) * stickWays }

// copyFrom takes over what another table with the same keys has, as far as there is room, and its counters. Nobody uses t yet.
func (t *stickTable) copyFrom(old *stickTable, now, ttl uint32) {
	for i := range old.places() {
		if e := old.at(i); e.id != 0 && !expired(e.used, now, ttl) {
			b, counts := t.bucket(e.key)
			at, evicts := b.room(now, ttl)
			if evicts {
				counts.evictions.Add(1)
				if b.used[at].Load() > e.used { // the older one gives way
					continue
				}
			}
			b.hi[at].Store(e.key.hi)
			b.lo[at].Store(e.key.lo)
			b.id[at].Store(e.id)
			b.used[at].Store(e.used)
		}
	}
	for i := range old.counts {
		from, to := &old.counts[i], &t.counts[i]
		to.hits.Add(from.hits.Load())
		to.misses.Add(from.misses.Load())
		to.moves.Add(from.moves.Load())
		to.overflows.Add(from.overflows.Load())
		to.evictions.Add(from.evictions.Load())
		to.skipped.Add(from.skipped.Load())
	}
}
