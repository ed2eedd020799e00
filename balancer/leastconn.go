package balancer

// leastConn takes the member with the fewest sessions for its weight, those still connecting included, so that a burst
// does not pile onto one. Ties go round.
type leastConn struct {
	members []*Member
	live    *poolLive
}

// pick compares (active+1)/weight, so that an idle pool is still shared by weight.
func (l *leastConn) pick(key uint64, tried []*Backend) *Member {
	n := len(l.members)
	start := int(l.live.turn.Add(1) % uint64(n))
	var best *Member
	var load int64 // best's active + 1
	for i := range n {
		at := start + i
		if at >= n {
			at -= n
		}
		m := l.members[at]
		if !m.usable(tried) {
			continue
		}
		if a := m.active.Load() + 1; best == nil || a*best.weight < load*m.weight {
			best, load = m, a
		}
	}
	return best
}
