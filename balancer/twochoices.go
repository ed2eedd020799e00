package balancer

// twoChoices draws two members by weight and takes the one with fewer sessions for its weight, the first when they are
// alike. The fullest backend then has hardly more than the average, at the cost of two looks, and unlike with leastconn
// many balancers beside each other do not all run to the same idle backend. Method: Mitzenmacher, "The power of two
// choices in randomized load balancing", 2001.
type twoChoices struct{ *random }

func (p *twoChoices) pick(w wish) *Member {
	x := p.live.random()
	a := p.draw(x)
	x = mix(x)
	b := p.draw(x)
	if a == b {
		b = p.draw(mix(x))
	}
	if p.slow > 0 || len(w.tried) > 0 || a == b || !a.free() || !b.free() {
		if a, b = p.two(w, a); b == nil {
			return a
		}
	}
	mine, other := a.active.Load()*b.weight, b.active.Load()*a.weight
	if p.slow > 0 {
		mine, other = mine*b.part(p.slow), other*a.part(p.slow)
	}
	if other < mine {
		a = b
	}
	return a
}
