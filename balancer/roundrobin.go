package balancer

import "slices"

// roundRobin takes the members in turn, each as often as its weight says and spread evenly over the round. The round is
// worked out once; a pick is one atomic add, so the order is exact across all shards.
type roundRobin struct {
	members []*Member
	round   []uint16 // indexes into members
	live    *poolLive
	slow    int64 // see Member.part
}

// maxRound bounds the table: above it, weights are rounded to 1/16384 of the whole.
const maxRound = 1 << 14

func newRoundRobin(members []*Member, live *poolLive, slow int64) *roundRobin {
	weights := make([]int64, len(members))
	for i, m := range members {
		weights[i] = m.weight
	}
	return &roundRobin{members: members, round: smoothRound(weights), live: live, slow: slow}
}

// smoothRound returns a sequence in which each index appears in proportion to its weight, at even distances. Method:
// index i with weight w of n wants its k-th turn at (k + (i+½)/n)/w of the round; sort by that. Equal weights give
// 0, 1, 2 …; weights 5, 1, 1 give 0 0 0 1 0 0 2.
func smoothRound(weights []int64) []uint16 {
	var sum, div int64
	for _, w := range weights {
		sum += w
		div = gcd(div, w)
	}
	type turn struct {
		at    float64
		index uint16
	}
	turns := make([]turn, 0, min(sum/div, maxRound))
	for i, w := range weights {
		times := w / div
		if sum/div > maxRound {
			times = max(1, w*maxRound/sum)
		}
		phase := (float64(i) + 0.5) / float64(len(weights))
		for k := range times {
			turns = append(turns, turn{(float64(k) + phase) / float64(times), uint16(i)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	round := make([]uint16, len(turns))
	for i, t := range turns {
		round[i] = t.index
	}
	return round
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// pick passes over members that are not usable by taking further turns, so that their share is spread over the others
// and does not fall on their neighbour alone. So does a member in slow start with most of its turns. A second choice takes
// no turn: else every client would start with the same dead backend again.
func (r *roundRobin) pick(w wish) *Member {
	n := uint64(len(r.round))
	if len(w.tried) > 0 {
		for range 8 { // by weight, as long as that is likely to succeed
			if m := r.members[r.round[r.live.random()%n]]; m.usable(w) {
				return m
			}
		}
		return r.around(r.live.random()%n, w)
	}
	for range n {
		m := r.members[r.round[(r.live.turn.Add(1)-1)%n]]
		if (w.anybody || m.free() || m.usable(w)) && (r.slow == 0 || !m.turnsAway(r.slow, r.live.random())) {
			return m
		}
	}
	return r.around(r.live.random()%n, w) // perhaps somebody in slow start
}

// around returns the first member from a place in the round on that is usable.
func (r *roundRobin) around(start uint64, w wish) *Member {
	n := uint64(len(r.round))
	for i := range n {
		if m := r.members[r.round[(start+i)%n]]; m.usable(w) {
			return m
		}
	}
	return nil
}
