package engine

import (
	"fmt"
	"time"

	"awe4lb/balancer"
)

// ejected is the complaint about a backend that is not used for a time: docs/operations.md.
const ejected = "a backend failed one client after the other: it is not used for a time"

// noteEjected counts that the target was ejected for d, 0 for not at all, and has it logged. Never blocks.
func (s *session) noteEjected(d time.Duration, last Reason) {
	if d > 0 {
		detail := last.String() + ", for " + d.String()
		s.bstats.Ejections++
		e := s.sh.eng
		e.complain(complaint{what: ejected, about: s.target.Name, detail: detail})
		select {
		case e.ejections <- ejection(s.target, detail):
		default: // hundreds at once: the counters have them all
		}
	}
}

func ejection(b *balancer.Backend, why string) balancer.Event {
	return balancer.Event{Time: time.Now(), Pool: b.Pool, Backend: b.Name, What: "outlier", From: balancer.Up.String(), To: balancer.Ejected.String(), Why: why}
}

// recordEjections puts them into the history, which shards cannot.
func (e *Engine) recordEjections() {
	for {
		select {
		case x := <-e.ejections:
			e.director.Record(x)
		case <-e.quit:
			return
		}
	}
}

// outlying is the same where it fails more of its clients than the others of its pool do.
const outlying = "a backend fails more clients than the others of its pool: it is not used for a time"

// judge compares the backends of pools, by counters that the shards keep anyway.
func (e *Engine) judge(pools []*balancer.Pool) {
	tallies := map[*balancer.Backend]balancer.Tally{}
	e.eachBackend(pools, func(b *balancer.Backend, st *BackendStats) {
		t := tallies[b]
		t.Attempts += st.Sessions
		t.Failures += st.Cuts
		for _, r := range [...]Reason{ConnectRefused, ConnectTimeout, ConnectFailed, ConnectTLS} {
			t.Attempts += st.ConnectErrors[r]
			t.Failures += st.ConnectErrors[r]
		}
		tallies[b] = t
	})
	for _, p := range pools {
		for _, v := range p.Judge(func(b *balancer.Backend) balancer.Tally { return tallies[b] }) {
			detail := fmt.Sprintf("%.1f %% of %d attempts in %v succeeded, %.1f %% on the average of %d backends; for %v",
				100*v.Rate, v.Attempts, v.Interval, 100*v.Average, v.NumBackends, v.For)
			e.complain(complaint{what: outlying, about: v.Backend.Name, detail: detail})
			e.director.Record(ejection(v.Backend, detail))
			sh := e.shards[0]
			sh.loop.Post(func() { sh.backendStats(v.Backend).Ejections++ }) // beside those that sessions met
		}
	}
}
