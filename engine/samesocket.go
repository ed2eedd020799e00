package engine

import "awe4lb/balancer"

// Which sockets a new configuration takes over. Mostly that is plain: those of the same address. Port 0 is not: the frontend has
// some port, may be changed into that very port, and may have port 0 more than once.

// isFree reports whether the key is one of port 0.
func (k bindKey) isFree() bool { return k.frontend != "" }

// takeOver returns which of the bindings in have, by their keys there, serve which keys of next. A port that somebody names is
// given to them first, also when it was a free one that the system chose; what is left of those with port 0 stays with whoever
// still has port 0 at the same address. Keys that others serve are left out.
func takeOver(have map[bindKey]*bound, next *balancer.Snapshot, others map[bindKey]bindKey) map[bindKey]bindKey {
	chosen, last := map[bindKey]bindKey{}, -1 // the keys of port 0 by where they are bound; the highest nth of them
	for key, b := range have {
		if key.isFree() {
			chosen[bindKey{udp: key.udp, address: b.local}] = key
			last = max(last, key.nth)
		}
	}
	served, taken := make(map[bindKey]bindKey, len(have)), map[bindKey]bool{}
	each := func(f func(key bindKey)) {
		for _, front := range next.Frontends {
			for _, key := range keysOf(front.Config) {
				if _, ok := others[key]; !ok {
					f(key)
				}
			}
		}
	}
	each(func(key bindKey) {
		was, ok := chosen[key]
		switch {
		case key.isFree():
		case have[key] != nil:
			served[key] = key
		case ok:
			served[key], taken[was] = was, true
		}
	})
	if last < 0 {
		return served
	}
	after := map[bindKey]int{} // which nth is next, by the key of the first
	each(func(key bindKey) {
		if !key.isFree() {
			return
		}
		first := key
		first.nth = 0
		for was := first; after[first] <= last && served[key] == (bindKey{}); after[first]++ {
			if was.nth = after[first]; have[was] != nil && !taken[was] {
				served[key] = was
			}
		}
	})
	return served
}
