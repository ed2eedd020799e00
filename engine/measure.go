package engine

import (
	"time"

	"awe4lb/balancer"
)

// measure works out, once a second, what pools with leastbandwidth go by, and compares the success rates of pools that want
// that, while there are any. It sums counters that the shards keep anyway: on the path of the bytes there is nothing more to
// do, not even in such pools. One posted function a second for each shard is what it costs; rates kept by the shards themselves
// would cost an atomic add for every piece relayed.
func (e *Engine) measure() {
	for {
		select {
		case <-e.measured:
		case <-e.quit:
			return
		}
		if !e.measureWhile() {
			return
		}
	}
}

// measureWhile measures until no pool wants it, or returns false when the engine ends.
func (e *Engine) measureWhile() bool {
	tick := time.NewTicker(balancer.BandwidthInterval)
	defer tick.Stop()
	last := time.Now()
	for {
		pools, judged, due := measuredPools(e.director.Snapshot())
		if len(pools)+judged == 0 {
			return true
		}
		if len(pools) > 0 {
			bytes := e.bytesOf(pools)
			now := time.Now()
			passed := max(now.Sub(last), time.Millisecond)
			last = now
			for _, p := range pools {
				p.Measure(func(b *balancer.Backend) uint64 { return bytes[b] }, passed)
			}
		}
		if len(due) > 0 {
			e.judge(due)
		}
		select {
		case <-tick.C:
		case <-e.quit:
			return false
		}
	}
}

// measuredPools returns the pools of which bandwidths are wanted, how many want success rates to be compared, and those for which
// it is time to.
func measuredPools(snap *balancer.Snapshot) (pools []*balancer.Pool, judged int, due []*balancer.Pool) {
	for _, p := range snap.Pools {
		if p.Measures() {
			pools = append(pools, p)
		}
		if wanted, now := p.Judges(); wanted {
			judged++
			if now {
				due = append(due, p)
			}
		}
	}
	return pools, judged, due
}

// bytesOf returns what the backends of pools have moved so far, both directions together.
func (e *Engine) bytesOf(pools []*balancer.Pool) map[*balancer.Backend]uint64 {
	sum := map[*balancer.Backend]uint64{}
	e.eachBackend(pools, func(b *balancer.Backend, st *BackendStats) { sum[b] += st.Bytes[ToClient] + st.Bytes[ToBackend] })
	return sum
}

// eachBackend calls do for each backend of pools on each shard that has used it, on that shard and on one after the other.
func (e *Engine) eachBackend(pools []*balancer.Pool, do func(*balancer.Backend, *BackendStats)) {
	for _, sh := range e.shards {
		sh.loop.Call(func() {
			for _, p := range pools {
				for _, m := range p.Members {
					if st := sh.backends[m.Backend]; st != nil {
						do(m.Backend, st)
					}
				}
			}
		})
	}
}
