package balancer

import "math/bits"

// random draws a member in proportion to weight, in constant time: Walker's alias method (Vose 1991). Slot i keeps
// itself with probability keep/2^32 and gives way to alias otherwise.
type random struct {
	members []*Member
	slots   []aliasSlot
	live    *poolLive
	slow    int64 // see Member.part
}

type aliasSlot struct {
	keep  uint64 // 0..2^32
	alias uint
}

func newRandom(members []*Member, live *poolLive, slow int64) *random {
	n := len(members)
	r := &random{members: members, slots: make([]aliasSlot, n), live: live, slow: slow}
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
		r.slots[s] = aliasSlot{uint64(float64(share[s]) / float64(sum) * (1 << 32)), uint(l)}
		if share[l] -= sum - share[s]; share[l] < sum {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		r.slots[i] = aliasSlot{1 << 32, uint(i)}
	}
	return r
}

// draw returns the member that 32 random bits stand for, usable or not.
func (r *random) draw(x uint32) *Member { return r.members[r.drawIndex(x)] }

// drawIndex is draw by index. Times the number of slots the bits give a slot, and what is left over says whether that one keeps
// itself. By arithmetic: a branch there is one that nobody can predict, 3 ns on the average.
func (r *random) drawIndex(x uint32) uint {
	at := uint64(x) * uint64(len(r.slots))
	i := uint(at >> 32)
	slot := &r.slots[i]
	_, keeps := bits.Sub64(at&(1<<32-1), slot.keep, 0)
	return choose(keeps, i, slot.alias)
}

// choose returns a if yes is 1 and b if it is 0.
func choose(yes uint64, a, b uint) uint { return b ^ (a^b)&uint(-yes) }

// pick draws a few times; when all draws are in vain it weighs the usable members one by one, so that it finds the
// last of a thousand too.
func (r *random) pick(w wish) *Member {
	for range 3 {
		x := r.live.random()
		if m := r.draw(uint32(x >> 32)); (w.anybody || m.free() && len(w.tried) == 0 || m.usable(w)) && (r.slow == 0 || !m.turnsAway(r.slow, mix(x))) {
			return m
		}
	}
	return r.weigh(w)
}

// weigh looks at every member: a reservoir of one.
func (r *random) weigh(w wish) *Member {
	var chosen *Member
	var sum uint64
	for _, m := range r.members {
		if !m.usable(w) {
			continue
		}
		weight := uint64(m.weight * m.part(r.slow))
		if sum += weight; r.live.random()%sum < weight {
			chosen = m
		}
	}
	return chosen
}

// two draws two members, for policies that compare them. The first is a if that will do; a may be nil. Where there is no second
// one it is nil. It is by lot too, and by weight except where that mostly gives the first one again or nobody.
func (r *random) two(w wish, a *Member) (first, second *Member) {
	if a == nil || !a.usable(w) || r.slow > 0 && a.turnsAway(r.slow, r.live.random()) {
		if a = r.pick(w); a == nil {
			return nil, nil
		}
	}
	for range 2 {
		x := r.live.random()
		if b := r.draw(uint32(x >> 32)); b != a && b.usable(w) && (r.slow == 0 || !b.turnsAway(r.slow, mix(x))) {
			return a, b
		}
	}
	n := len(r.members)
	start := int(r.live.random() % uint64(n))
	for i := range n {
		if b := r.members[(start+i)%n]; b != a && b.usable(w) {
			return a, b
		}
	}
	return a, nil
}
