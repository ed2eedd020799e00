package balancer

import "math"

// ipHash takes the member that scores highest for the client. When a member goes, only its clients move; when one comes,
// it takes its share from all. Method: weighted rendezvous hashing, score = weight / -ln(hash) with the hash in (0, 1).
type ipHash struct {
	members []*Member
	seeds   []uint64 // by member, from its address
	even    bool     // all weights are the same: comparing hashes will do
}

func newIPHash(members []*Member) *ipHash {
	p := &ipHash{members: members, even: true}
	for _, m := range members {
		p.seeds = append(p.seeds, hashText(m.Name))
		p.even = p.even && m.weight == members[0].weight
	}
	return p
}

func (p *ipHash) pick(w wish) *Member {
	var best *Member
	var high uint64
	var score float64
	for i, m := range p.members {
		if !m.usable(w) {
			continue
		}
		h := mix(w.key ^ p.seeds[i])
		if p.even {
			if best == nil || h > high {
				best, high = m, h
			}
			continue
		}
		s := float64(m.weight) / -math.Log((float64(h>>11)+0.5)/(1<<53))
		if best == nil || s > score {
			best, score = m, s
		}
	}
	return best
}
