package engine

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
)

// sourceTable counts the sessions of each source prefix of a frontend, exactly, for all shards. It is of a fixed size: a
// prefix that finds no place is not counted, and its clients are let in. 7 MiB at most, of which only those pages take
// memory that were used.
//
// It has locks, though nothing on a shard should: two shards that begin sessions of one new prefix must agree on its place.
// One is held for some 30 ns and there are 64, so that shards meet only over the clients of one prefix, or by chance.
type sourceTable struct {
	// Set once, never changed.
	bits4, bits6 int // of a source prefix
	seed         maphash.Seed

	stripes [sourceStripes]sourceStripe
}

const (
	sourceStripes = 64
	sourcePlaces  = 4096 // prefixes in one stripe: 262,144 in all
)

type sourceStripe struct {
	// Guarded by mu.
	mu    sync.Mutex
	heads []uint32     // of chains, by hash; numbers of places from 1, 0 is the end
	nodes []sourceNode // place n is nodes[n-1]
	free  uint32       // chain of places that were used and are free
	used  uint32       // places ever used
	live  uint32       // prefixes in the stripe
	_     [64 - 8]byte // the next one is another shard's
}

type sourceNode struct {
	prefix [16]byte
	count  uint32
	next   uint32
}

// newSourceTable returns a table for prefixes of so many bits, with so many places in a stripe.
func newSourceTable(bits4, bits6, places int) *sourceTable {
	t := &sourceTable{bits4: bits4, bits6: bits6, seed: maphash.MakeSeed()}
	heads, nodes := make([]uint32, sourceStripes*places), make([]sourceNode, sourceStripes*places)
	for i := range t.stripes {
		t.stripes[i].heads, t.stripes[i].nodes = heads[i*places:][:places:places], nodes[i*places:][:places:places]
	}
	return t
}

// sourceVerdict is a sourceTable's answer.
type sourceVerdict uint8

const (
	counted   sourceVerdict = iota // and to be given back
	overLimit                      // the prefix has its limit
	untracked                      // there is no place for the prefix
)

// acquire counts one more session of the client's prefix unless that would be more than limit. Never blocks but for other
// shards' turns; never allocates; safe from any goroutine.
func (t *sourceTable) acquire(client netip.Addr, limit int) sourceVerdict {
	prefix := sourcePrefix(client, t.bits4, t.bits6)
	s, head := t.place(&prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := *head; n != 0; n = s.nodes[n-1].next {
		if node := &s.nodes[n-1]; node.prefix == prefix {
			if int64(node.count) >= int64(limit) {
				return overLimit
			}
			node.count++
			return counted
		}
	}
	n := s.free
	switch {
	case n != 0:
		s.free = s.nodes[n-1].next
	case int(s.used) < len(s.nodes):
		s.used++
		n = s.used
	default:
		return untracked
	}
	s.nodes[n-1] = sourceNode{prefix, 1, *head}
	*head = n
	s.live++
	return counted
}

// release gives back what acquire counted for the same client.
func (t *sourceTable) release(client netip.Addr) {
	prefix := sourcePrefix(client, t.bits4, t.bits6)
	s, link := t.place(&prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; *link != 0; link = &s.nodes[*link-1].next {
		n := *link
		node := &s.nodes[n-1]
		if node.prefix != prefix {
			continue
		}
		if node.count--; node.count == 0 {
			*link = node.next
			node.next, s.free = s.free, n
			s.live--
		}
		return
	}
	panic("engine: a source is released that was not counted")
}

// dismiss is release where t may be nil: nobody counts.
func (t *sourceTable) dismiss(client netip.Addr) {
	if t != nil {
		t.release(client)
	}
}

// heldTable is a table that flows of a shard are counted in: they have no pointers, and it may be that of a configuration
// before.
type heldTable struct {
	table *sourceTable
	flows int // 0: the place is free
}

// hold returns the number under which a flow counted in t is to remember it; 0 for nil.
func (fl *flows) hold(t *sourceTable) uint16 {
	if t == nil {
		return 0
	}
	free := 0
	for i := range fl.held { // one for each frontend, and those of reloads that still have flows
		if h := &fl.held[i]; h.table == t {
			h.flows++
			return uint16(i)
		} else if i > 0 && h.flows == 0 {
			free = i
		}
	}
	if free == 0 {
		if len(fl.held) == 0 {
			fl.held = append(fl.held, heldTable{})
		}
		fl.held = append(fl.held, heldTable{})
		free = len(fl.held) - 1
	}
	fl.held[free] = heldTable{t, 1}
	return uint16(free)
}

// letGo gives back what f's source has of it.
func (fl *flows) letGo(f *flow) {
	if f.held == 0 {
		return
	}
	h := &fl.held[f.held]
	h.table.release(f.key.clientIP())
	if h.flows--; h.flows == 0 {
		h.table = nil
	}
}

// place returns the stripe of a prefix and the head of its chain there.
func (t *sourceTable) place(prefix *[16]byte) (*sourceStripe, *uint32) {
	h := maphash.Bytes(t.seed, prefix[:])
	s := &t.stripes[h%sourceStripes]
	return s, &s.heads[h/sourceStripes%uint64(len(s.heads))]
}

// tracked returns the number of prefixes that have sessions. Safe from any goroutine.
func (t *sourceTable) tracked() int {
	n := 0
	for i := range t.stripes {
		s := &t.stripes[i]
		s.mu.Lock()
		n += int(s.live)
		s.mu.Unlock()
	}
	return n
}

// sourcePrefix returns the prefix that a client belongs to; IPv4 as mapped. It is made from bits4 bits of IPv4 or bits6 of
// IPv6.
func sourcePrefix(client netip.Addr, bits4, bits6 int) [16]byte {
	client = client.Unmap()
	bits := bits6
	if client.Is4() {
		bits = bits4
	}
	p, _ := client.Prefix(bits)
	return p.Addr().As16()
}

var prefixSeed = maphash.MakeSeed()

// prefixHash returns the hash of the source prefix that a client belongs to.
func prefixHash(client netip.Addr, bits4, bits6 int) uint64 {
	b := sourcePrefix(client, bits4, bits6)
	return maphash.Bytes(prefixSeed, b[:])
}

// bucket bounds how often something happens in all, for all shards. The zero bucket is full. Method: as rateTable's.
type bucket struct {
	_    [64]byte
	full atomic.Int64 // when it is full again, ns
	_    [56]byte
}

// allow takes one at now (ns, by one clock for all callers), unless that is more than rate a second after a burst. Never
// blocks or allocates; safe from any goroutine.
func (b *bucket) allow(now int64, rate, burst int) bool {
	step := max(1e9/int64(rate), 1)
	most := now + step*int64(burst)
	for {
		old := b.full.Load()
		next := max(old, now) + step
		if old > most { // from a larger burst, before a reload: begin anew
			next = now + step
		}
		if next > most {
			return false
		}
		if b.full.CompareAndSwap(old, next) {
			return true
		}
	}
}
