package balancer

import (
	"fmt"
	"slices"

	"awe4lb/config"
)

// picker chooses among the members of one tier, by one policy. It is made once per snapshot and asked by all shards.
type picker interface {
	// pick returns a usable member that is not in tried, or nil when there is none. key is ClientKey of the client, for
	// policies that go by it. It may ask usable more than once, and the answer may change in between. Never blocks or allocates; safe from any goroutine.
	pick(key uint64, tried []*Backend) *Member
}

// newPicker makes the picker of a policy for the members of a tier, none of which has weight 0. config has checked the
// name.
func newPicker(policy string, members []*Member, live *poolLive) picker {
	switch policy {
	case "random":
		return newRandom(members)
	case "roundrobin":
		return newRoundRobin(members, live)
	case "leastconn":
		return &leastConn{members: members, live: live}
	case "iphash":
		return newIPHash(members)
	}
	panic(fmt.Sprintf("balancer: policy %q passed validation and has no picker", policy))
}

// tiers makes the pickers of a pool, one for each priority in use, lowest number first.
func tiers(cfg *config.Pool, members []*Member, live *poolLive) []picker {
	byPriority := map[int][]*Member{}
	for _, m := range members {
		if m.weight > 0 {
			byPriority[m.Config.Priority] = append(byPriority[m.Config.Priority], m)
		}
	}
	priorities := make([]int, 0, len(byPriority))
	for p := range byPriority {
		priorities = append(priorities, p)
	}
	slices.Sort(priorities)
	pickers := make([]picker, 0, len(priorities))
	for _, p := range priorities {
		pickers = append(pickers, newPicker(cfg.Policy, byPriority[p], live))
	}
	return pickers
}
