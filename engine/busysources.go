package engine

import (
	"cmp"
	"net/netip"
	"slices"
)

// SourceCount is a source of a frontend that limits what one may have, and what it has.
type SourceCount struct {
	Frontend string
	Source   netip.Prefix
	Open     int // sessions or flows
	Limit    int // of them
}

// sourceChunk is how many places of a stripe are looked at under its lock: some 300 ns, during which a shard may wait for it.
const sourceChunk = 256

// BusiestSources returns the n sources that are nearest to their limits, the nearest first, of one frontend, or of all where it
// is "". It looks at all that have sessions, some 2 ns each; it allocates, and is safe from any goroutine. A source that has
// sessions all the while is returned once.
func (e *Engine) BusiestSources(frontend string, n int) []SourceCount {
	var most []SourceCount
	cut := func() {
		slices.SortFunc(most, func(a, b SourceCount) int {
			return cmp.Or(cmp.Compare(b.Open*a.Limit, a.Open*b.Limit), cmp.Compare(b.Open, a.Open), cmp.Compare(a.Frontend, b.Frontend), a.Source.Addr().Compare(b.Source.Addr()))
		})
		most = most[:min(n, len(most))]
	}
	for _, f := range e.director.Snapshot().Frontends {
		g := guardOf(f)
		if g == nil || g.sources == nil || frontend != "" && frontend != f.Config.Name {
			continue
		}
		limit := g.limits.MaxConnectionsPerSource
		if g.limits.IsUDP() {
			limit = g.limits.UDP.MaxFlowsPerSource
		}
		g.sources.each(func(source netip.Prefix, open int) {
			most = append(most, SourceCount{f.Config.Name, source, open, limit})
			if len(most) >= 2*n+1024 {
				cut()
			}
		})
	}
	cut()
	return most
}

// each calls f for each source that has sessions, without a lock held. Safe from any goroutine.
func (t *sourceTable) each(f func(source netip.Prefix, open int)) {
	var chunk [sourceChunk]sourceNode
	for i := range t.stripes {
		s := &t.stripes[i]
		for at := 0; ; at += sourceChunk {
			s.mu.Lock()
			n := 0
			if at < int(s.used) { // places keep their source while it has sessions
				n = copy(chunk[:], s.nodes[at:s.used])
			}
			s.mu.Unlock()
			for j := range chunk[:n] {
				if node := &chunk[j]; node.count > 0 {
					f(t.prefixOf(node.prefix), int(node.count))
				}
			}
			if n < sourceChunk {
				break
			}
		}
	}
}

// prefixOf is sourcePrefix the other way round.
func (t *sourceTable) prefixOf(prefix [16]byte) netip.Prefix {
	if a := netip.AddrFrom16(prefix).Unmap(); a.Is4() {
		return netip.PrefixFrom(a, t.bits4)
	}
	return netip.PrefixFrom(netip.AddrFrom16(prefix), t.bits6)
}
