package engine

import (
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestLifetimeJitter: sessions begun together are to end at different times, none later than max_lifetime and none
// earlier than nine tenths of it.
func TestLifetimeJitter(t *testing.T) {
	const sessions, life = 200, time.Hour
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) { c.Frontends[0].MaxLifetime = life })
	for range sessions {
		r.dial()
	}
	lbtest.Eventually(t, "all are open", func() bool { return r.inState(open) == sessions })
	tenths := [10]int{} // of the jitter
	for _, sh := range r.e.shards {
		sh.loop.Call(func() {
			for s := sh.sessions.next; s != &sh.sessions; s = s.next {
				early := int64(life) - (s.dies - s.started)
				if early < 0 || early > int64(life)/10 {
					t.Errorf("a session of %v is to end %v before its time", life, time.Duration(early))
					return
				}
				tenths[min(early*100/int64(life), 9)]++
			}
		})
	}
	for i, n := range tenths { // 20 are expected in each; fewer than 3 come once in a million runs
		if n < 3 {
			t.Errorf("%d sessions in tenth %d: %v", n, i, tenths)
		}
	}
}
