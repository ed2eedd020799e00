package balancer

import (
	"math/bits"
	"sync/atomic"
)

// twoChoices draws two members by weight and takes the one with fewer sessions for its weight, the first when they are
// alike. The fullest backend then has hardly more than the average, at the cost of two looks, and unlike with leastconn
// many balancers beside each other do not all run to the same idle backend. Method: Mitzenmacher, "The power of two
// choices in randomized load balancing", 2001.
type twoChoices struct {
	*random
	loads []memberLoad // by member
}

// memberLoad is what is compared, side by side.
type memberLoad struct {
	active *atomic.Int64
	weight int64
}

func newTwoChoices(r *random) *twoChoices {
	p := &twoChoices{random: r}
	for _, m := range r.members {
		p.loads = append(p.loads, memberLoad{&m.Backend.active, m.weight})
	}
	return p
}

func (p *twoChoices) pick(w wish) *Member {
	x := p.live.random()
	i, j := p.drawIndex(uint32(x>>32)), p.drawIndex(uint32(x))
	_, same := bits.Sub64(uint64(i^j), 1, 0)
	j = choose(same, p.other(i, x), j)
	if p.slow > 0 || i == j || !w.anybody && (len(w.tried) > 0 || !p.members[i].free() || !p.members[j].free()) {
		return p.pickSlowly(w, p.members[i])
	}
	a, b := &p.loads[i], &p.loads[j]
	_, less := bits.Sub64(uint64(b.active.Load()*a.weight), uint64(a.active.Load()*b.weight), 0)
	return p.members[choose(less, j, i)]
}

// other returns a member by lot that is not the one at i, where there is one.
func (p *twoChoices) other(i uint, x uint64) uint {
	n := uint(len(p.members))
	i += 1 + uint(x*0x9e3779b97f4a7c15>>32)*(n-1)>>32
	_, within := bits.Sub64(uint64(i), uint64(n), 0)
	return choose(within, i, i-n)
}

// pickSlowly is pick where there is more to ask than who has fewer. a is the first that was drawn.
func (p *twoChoices) pickSlowly(w wish, a *Member) *Member {
	a, b := p.two(w, a)
	if b == nil {
		return a
	}
	mine, other := a.active.Load()*b.weight, b.active.Load()*a.weight
	if p.slow > 0 {
		mine, other = mine*b.part(p.slow), other*a.part(p.slow)
	}
	if other < mine {
		return b
	}
	return a
}
