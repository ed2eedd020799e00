package admin

import (
	"testing"
	"time"

	"awe4lb/engine"
)

// TestLooks: who asks now and then has counters of now; of many who ask, ten a second have, and nobody's are older than that.
func TestLooks(t *testing.T) {
	var l looks
	now := time.Unix(1e9, 0)
	taken := 0
	ask := func() *engine.Stats { return l.take(now, func() *engine.Stats { taken++; return new(engine.Stats) }) }
	for range 100 { // ten seconds, ten a second
		ask()
		now = now.Add(time.Second / 10)
	}
	if taken != 100 {
		t.Errorf("%d looks for 100 who came one after the other", taken)
	}
	taken = 0
	was, since := ask(), now
	for range 2000 { // ten seconds, 200 a second
		now = now.Add(time.Second / 200)
		switch s := ask(); {
		case s != was:
			was, since = s, now
		case now.Sub(since) >= lookShared:
			t.Fatalf("counters of %v ago", now.Sub(since))
		}
	}
	if most := int(lookBurst/lookEvery) + 10*int(time.Second/lookEvery); taken < 100 || taken > most {
		t.Errorf("%d looks for 2000 in ten seconds; want 100 to %d", taken, most)
	}
	taken, now = 0, now.Add(2*time.Second)
	if ask(); taken != 1 {
		t.Error("who comes when all others have gone has old counters")
	}
}
