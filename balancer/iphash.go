package balancer

import (
	"hash/fnv"
	"math"
	"net/netip"
)

// ClientKey returns the hash that policies use of a client's address: 64 bits, the same in every process, so that a
// client finds its backend again after a restart. A client without an address, on a unix socket, has a key too.
func ClientKey(client netip.Addr) uint64 {
	b := client.Unmap().As16()
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return mix(h)
}

// mix spreads every bit of x over all of them: the finalizer of MurmurHash3.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

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
		h := fnv.New64a()
		_, _ = h.Write([]byte(m.Name))
		p.seeds = append(p.seeds, h.Sum64())
		p.even = p.even && m.weight == members[0].weight
	}
	return p
}

func (p *ipHash) pick(key uint64, tried []*Backend) *Member {
	var best *Member
	var high uint64
	var score float64
	for i, m := range p.members {
		if !m.usable(tried) {
			continue
		}
		h := mix(key ^ p.seeds[i])
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
