package balancer

import (
	"cmp"
	"slices"
)

// subset divides members into the n that the process of that name uses first, and the others: a rendezvous hash, so that each of
// many processes uses others, and a member that comes or goes changes one place in some of the subsets. Both keep their order.
func subset(members []*Member, n int, name string) (ours, rest []*Member) {
	if len(members) <= n {
		return members, nil
	}
	seed := mix(hashText(name))
	score := func(m *Member) uint64 { return mix(seed ^ m.id) }
	byScore := slices.Clone(members)
	slices.SortFunc(byScore, func(a, b *Member) int { return cmp.Compare(score(b), score(a)) })
	first := make(map[*Member]bool, n)
	for _, m := range byScore[:n] {
		first[m] = true
	}
	for _, m := range members {
		if first[m] {
			ours = append(ours, m)
		} else {
			rest = append(rest, m)
		}
	}
	return ours, rest
}
