package balancer

import "math/rand/v2"

// random draws a member in proportion to weight, in constant time: Walker's alias method (Vose 1991). Slot i keeps
// itself with probability keep[i]/2^32 and gives way to alias[i] otherwise.
type random struct {
	members []*Member
	keep    []uint64 // 0..2^32
	alias   []int32
}

func newRandom(members []*Member) *random {
	n := len(members)
	r := &random{members: members, keep: make([]uint64, n), alias: make([]int32, n)}
	var sum int64
	for _, m := range members {
		sum += m.weight
	}
	share := make([]int64, n) // weight * n, to be compared with sum, in whole numbers
	var small, large []int
	for i, m := range members {
		share[i] = m.weight * int64(n)
		if share[i] < sum {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		r.keep[s] = uint64(float64(share[s]) / float64(sum) * (1 << 32))
		r.alias[s] = int32(l)
		if share[l] -= sum - share[s]; share[l] < sum {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		r.keep[i] = 1 << 32
	}
	return r
}

// pick draws a few times; when all draws are unusable it weighs the usable members one by one, so that it finds the
// last of a thousand too.
func (r *random) pick(key uint64, tried []*Backend) *Member {
	for range 3 {
		x := rand.Uint64()
		i := int((x >> 32) * uint64(len(r.members)) >> 32)
		if x&(1<<32-1) >= r.keep[i] {
			i = int(r.alias[i])
		}
		if m := r.members[i]; m.usable(tried) {
			return m
		}
	}
	var chosen *Member
	var sum int64
	for _, m := range r.members {
		if !m.usable(tried) {
			continue
		}
		if sum += m.weight; rand.Int64N(sum) < m.weight { // reservoir of one
			chosen = m
		}
	}
	return chosen
}
