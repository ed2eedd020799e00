package tlsbridge

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// Defaults of a Gate. A half-open handshake takes some 20 kB.
const (
	GateLimit       = 8192
	GatePrefixLimit = 1024
	GateBits4       = 24
	GateBits6       = 48
)

// Gate bounds the clients of a frontend that have connected and not finished their handshake, in all and by source
// prefix. It is of a fixed size: two rows of counters, in which a prefix has one place each, chosen by a keyed hash; the
// lower of the two counts, so a prefix is turned away for others' sake only if it shares both places with them.
// Safe from any goroutine; never blocks or allocates.
type Gate struct {
	// Set once, never changed.
	limit, prefixLimit int32 // 0: none
	bits4, bits6       int
	seed               maphash.Seed

	// Shared: atomics.
	inside  atomic.Int32
	entered atomic.Uint64
	full    atomic.Uint64
	crowded atomic.Uint64
	rows    [2][gateRow]atomic.Int32
}

const gateRow = 2048 // places; 16 kB for both rows

// Verdict is a Gate's answer.
type Verdict uint8

const (
	Admitted Verdict = iota // and to leave again
	Full                    // the frontend has its limit
	Crowded                 // the source prefix has its limit
)

// NewGate returns a Gate for limit clients and prefixLimit of one source prefix, bits4 and bits6 long; a limit of 0 is
// none, other values of 0 are the defaults above.
func NewGate(limit, prefixLimit, bits4, bits6 int) *Gate {
	if bits4 <= 0 || bits4 > 32 {
		bits4 = GateBits4
	}
	if bits6 <= 0 || bits6 > 128 {
		bits6 = GateBits6
	}
	return &Gate{limit: int32(limit), prefixLimit: int32(prefixLimit), bits4: bits4, bits6: bits6, seed: maphash.MakeSeed()}
}

// Enter lets a client in, who must Leave with the same address, or says why not. An invalid address (a unix socket) has
// no prefix.
func (g *Gate) Enter(source netip.Addr) Verdict {
	if n := g.inside.Add(1); g.limit > 0 && n > g.limit {
		g.inside.Add(-1)
		g.full.Add(1)
		return Full
	}
	if g.prefixLimit > 0 && source.IsValid() {
		a, b := g.places(source)
		if n := min(a.Add(1), b.Add(1)); n > g.prefixLimit {
			a.Add(-1)
			b.Add(-1)
			g.inside.Add(-1)
			g.crowded.Add(1)
			return Crowded
		}
	}
	g.entered.Add(1)
	return Admitted
}

// Leave takes out a client that was admitted: its handshake has ended, one way or the other.
func (g *Gate) Leave(source netip.Addr) {
	g.inside.Add(-1)
	if g.prefixLimit > 0 && source.IsValid() {
		a, b := g.places(source)
		a.Add(-1)
		b.Add(-1)
	}
}

// places returns the counters of source's prefix, one in each row.
func (g *Gate) places(source netip.Addr) (a, b *atomic.Int32) {
	source = source.Unmap()
	key := source.As16()
	bits := g.bits6
	if source.Is4() {
		bits = 96 + g.bits4 // IPv4 sits in the last four bytes
	}
	for i := (bits + 7) / 8; i < len(key); i++ {
		key[i] = 0
	}
	if odd := bits % 8; odd != 0 {
		key[bits/8] &= 0xff << (8 - odd)
	}
	h := maphash.Bytes(g.seed, key[:])
	return &g.rows[0][h%gateRow], &g.rows[1][h>>32%gateRow]
}

// GateStats are a Gate's counters and its level.
type GateStats struct {
	Inside                 int
	Entered, Full, Crowded uint64
}

// Stats returns the counters.
func (g *Gate) Stats() GateStats {
	return GateStats{int(g.inside.Load()), g.entered.Load(), g.full.Load(), g.crowded.Load()}
}
