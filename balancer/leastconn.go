package balancer

import (
	"math"
	"sync/atomic"
)

// leastConn takes the member with the fewest sessions for its weight, those still connecting included, so that a burst
// does not pile onto one. Ties go round. What it compares is (active+1)/weight, so that an idle pool is still shared by
// weight; that is a member's load.
//
// To look at a hundred members takes 100 ns and more. So they are in groups, and of each group a bound is kept that the load
// of no usable member is below. A pick looks only into the group with the lowest bound, which then rises to what was found there,
// the session that comes included; and into the next one, should nobody be as low as the bound said. A bound falls when a
// session ends (see seat). With 100 members that is 13 bounds and mostly one group of 8.
//
// While several shards pick, a bound may be too high for a moment: then somebody is picked who is among the least but not the
// least.
type leastConn struct {
	// Set once, never changed. By member.
	members []*Member
	active  []*atomic.Int64
	each    []int64 // what one session adds to the load
	seats   []seat
	live    *poolLive
	slow    int64 // see Member.part

	// Shared: atomics.
	bounds []atomic.Int64
	states atomic.Uint64 // the generation of states that bounds are of
}

// groupSize is a little less than the root of a hundred. With thousands of members the bounds are many, and still fewer than
// the members.
const groupSize = 8

// seat is where a member is in a leastConn.
type seat struct {
	bound *atomic.Int64
	each  int64
}

// maxEach bounds what a session adds, so that a load fits 63 bits. Above it, weights are rounded to a millionth.
const maxEach = 1 << 30

func newLeastConn(members []*Member, live *poolLive, slow int64) *leastConn {
	l := &leastConn{members: members, live: live, slow: slow, bounds: make([]atomic.Int64, (len(members)+groupSize-1)/groupSize)}
	scale := int64(1)
	for _, m := range members {
		if scale = scale / gcd(scale, m.weight) * m.weight; scale > maxEach {
			scale = maxEach
			break
		}
	}
	for i, m := range members {
		l.active = append(l.active, &m.Backend.active)
		l.each = append(l.each, scale/m.weight)
		l.seats = append(l.seats, seat{&l.bounds[i/groupSize], scale / m.weight})
	}
	return l
}

func (l *leastConn) pick(w wish) *Member {
	start := int(uint32(l.live.turn.Add(1)) % uint32(len(l.members)))
	if len(w.tried) > 0 || w.down || l.slow > 0 {
		return l.scan(start, w)
	}
	if states := l.live.states.Load(); l.states.Load() != states { // somebody may be back who is below the bound
		l.states.Store(states)
		for g := range l.bounds {
			l.bounds[g].Store(0)
		}
	}
	first := start / groupSize
	for range 2 * len(l.bounds) {
		g, bound, next := l.lowest(first)
		at, load, rest := l.look(g, start, w)
		if load > next { // not the least
			l.bounds[g].CompareAndSwap(bound, load)
			continue
		}
		if at < 0 {
			return l.scan(start, w) // a bound that is too high for a moment may hide the last place
		}
		if risen := min(rest, load+l.each[at]); risen > bound {
			l.bounds[g].CompareAndSwap(bound, risen) // unless a session has ended meanwhile
		}
		return l.members[at]
	}
	return l.scan(start, w) // others were always faster
}

// lowest returns the group with the lowest bound, the first from a group on, that bound, and the lowest of the others. Who is
// lowest nobody can predict: min and max are no branches.
func (l *leastConn) lowest(from int) (group int, bound, next int64) {
	bound, next = math.MaxInt64, math.MaxInt64
	group = from
	for g := from; g < len(l.bounds); g++ {
		b := l.bounds[g].Load()
		next = min(next, max(bound, b))
		if b < bound {
			group = g
		}
		bound = min(bound, b)
	}
	for g := range from {
		b := l.bounds[g].Load()
		next = min(next, max(bound, b))
		if b < bound {
			group = g
		}
		bound = min(bound, b)
	}
	return group, bound, next
}

// look returns the usable member of a group with the least load, that load, and the least of the others; -1 and the greatest
// load there is where there is none. w has tried nothing.
func (l *leastConn) look(group, start int, w wish) (at int, load, rest int64) {
	low := group * groupSize
	high := min(low+groupSize, len(l.members))
	i := low + start%groupSize
	if i >= high {
		i = low
	}
	at, load, rest = -1, math.MaxInt64, math.MaxInt64
	if w.anybody {
		for range high - low {
			x := (l.active[i].Load() + 1) * l.each[i]
			rest = min(rest, max(load, x))
			if x < load {
				at = i
			}
			load = min(load, x)
			if i++; i == high {
				i = low
			}
		}
		return at, load, rest
	}
	for range high - low {
		if x := (l.active[i].Load() + 1) * l.each[i]; x < rest && (l.members[i].free() || l.members[i].usable(w)) {
			if x < load {
				at, load, rest = i, x, load
			} else {
				rest = x
			}
		}
		if i++; i == high {
			i = low
		}
	}
	return at, load, rest
}

// scan looks at every member: for a second choice, and where weights change with time.
func (l *leastConn) scan(start int, w wish) *Member {
	var best *Member
	load := int64(math.MaxInt64)
	for i := range l.members {
		at := start + i
		if at >= len(l.members) {
			at -= len(l.members)
		}
		m := l.members[at]
		x := (l.active[at].Load() + 1) * l.each[at]
		if part := m.part(l.slow); part < whole {
			x = int64(float64(x) * whole / float64(part))
		}
		if x < load && m.usable(w) {
			best, load = m, x
		}
	}
	return best
}

// released follows the end of a session that leaves the member with active ones.
func (s *seat) released(active int64) {
	load := (active + 1) * s.each
	for {
		bound := s.bound.Load()
		if load >= bound || s.bound.CompareAndSwap(bound, load) {
			return
		}
	}
}

// sit makes backends tell the pickers of s when a session ends, where those want to hear of it.
func (s *Snapshot) sit() {
	for _, p := range s.Pools {
		p.sit(*p.tiers.Load())
	}
}

func (p *Pool) sit(tiers []*tier) {
	for _, m := range p.Members {
		m.seat.Store(nil)
	}
	for _, t := range tiers {
		if l, ok := t.picker.(*leastConn); ok {
			for i, m := range l.members {
				m.seat.Store(&l.seats[i])
			}
		}
	}
}
