package balancer

import (
	"math/bits"
	"slices"
	"strings"
)

// maglev looks the client's key up in a table in which each member has places in proportion to its weight. Every process
// with the same members makes the same table, in whatever order they stand. When the members change, nearly only the
// clients of those that came or went move. Method: Eisenbud et al., "Maglev", NSDI 2016, section 3.4; with weights, a
// member takes its turn to fill a place as often as its weight is of the greatest.
//
// Members that are down, full or tried stay in the table, so that nobody else's clients move. Theirs look a second place
// up, and a third, each by another hash of the key: the same for the same client, and spread over all others by weight.
type maglev struct {
	members []*Member
	table   []uint16 // indexes into members
}

// The sizes of tables, primes: 500 places for each member of the least weight, the most where that is too much. So with
// equal weights nobody has more than 0.2 % above its share, and of 100 members one can go and less than 1 % of the clients
// of the others move (TestMaglevMoves). The largest table takes 256 KiB and 10 ms to fill.
var tableSizes = []int{1021, 4093, 16381, 65521, 131071}

const placesEach = 500

func tableSize(weights, lightest int64) int {
	for _, size := range tableSizes {
		if int64(size) >= placesEach*weights/lightest {
			return size
		}
	}
	return tableSizes[len(tableSizes)-1]
}

func newMaglev(members []*Member) *maglev {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b *Member) int { return strings.Compare(a.Name, b.Name) })
	return &maglev{members, fillTable(members)}
}

// fillTable makes the table. Every member has a permutation of the places, from its name, and in turn takes the first place
// on it that is free.
func fillTable(members []*Member) []uint16 {
	var sum, heaviest int64
	lightest := members[0].weight
	for _, m := range members {
		sum += m.weight
		heaviest, lightest = max(heaviest, m.weight), min(lightest, m.weight)
	}
	size := tableSize(sum, lightest)
	const free = 1<<16 - 1
	table := make([]uint16, size)
	for i := range table {
		table[i] = free
	}
	// The permutation is offset, offset+skip, offset+2*skip … modulo size, which is prime.
	type walk struct{ at, skip int }
	walks := make([]walk, len(members))
	for i, m := range members {
		h := mix(hashText(m.Name))
		walks[i] = walk{int(h % uint64(size)), int(mix(h^0x9e3779b97f4a7c15)%uint64(size-1)) + 1}
	}
	credit := make([]int64, len(members))
	for left := size; ; {
		for i, m := range members {
			if credit[i] += m.weight; credit[i] < heaviest {
				continue
			}
			credit[i] -= heaviest
			w := &walks[i]
			for table[w.at] != free {
				if w.at += w.skip; w.at >= size {
					w.at -= size
				}
			}
			table[w.at] = uint16(i)
			if left--; left == 0 {
				return table
			}
		}
	}
}

// at returns the member at the place that a key stands for. The high bits decide: no division.
func (g *maglev) at(key uint64) *Member {
	place, _ := bits.Mul64(key, uint64(len(g.table)))
	return g.members[g.table[place]]
}

// otherLooks bounds the places looked up after the first before the members are gone through one by one.
const otherLooks = 8

func (g *maglev) pick(w wish) *Member {
	key := w.key
	if m := g.at(key); w.anybody || len(w.tried) == 0 && m.free() || m.usable(w) {
		return m
	}
	for range otherLooks {
		key = mix(key + 0x9e3779b97f4a7c15)
		if m := g.at(key); m.usable(w) {
			return m
		}
	}
	n := len(g.members)
	start := int(key % uint64(n))
	for i := range n {
		if m := g.members[(start+i)%n]; m.usable(w) {
			return m
		}
	}
	return nil
}
