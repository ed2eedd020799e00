package admin

import (
	"testing"
	"time"

	"awe4lb/engine"
)

// TestCrowd: who asks now and then is none, who asks 200 times a second is one, and it is over soon after.
func TestCrowd(t *testing.T) {
	var c crowd
	now := time.Unix(1e9, 0)
	for i := range 200 {
		if now = now.Add(time.Second / 10); c.is(now) {
			t.Fatalf("a crowd after %d calls, ten a second", i)
		}
		c.comes(now, uint64(i))
	}
	for i := range 2000 {
		now = now.Add(time.Second / 200)
		c.comes(now, uint64(i))
		if is := c.is(now); is != (i >= 22) && (i < 20 || i > 24) {
			t.Fatalf("after %d calls, 200 a second: %v", i+1, is)
		}
	}
	if now = now.Add(crowdStays); c.is(now) {
		t.Error("it stays")
	}
	for range 2000 {
		now = now.Add(time.Second / 1000)
		if c.comes(now, 7); c.is(now) {
			t.Fatal("one client is a crowd")
		}
	}
}

// TestLooks: of a crowd ten a second have counters of their own, and nobody's are older than that; all others' are of now.
func TestLooks(t *testing.T) {
	var l looks
	now, taken := time.Unix(1e9, 0), 0
	ask := func(crowded bool) *engine.Stats {
		return l.take(now, crowded, func() *engine.Stats { taken++; return new(engine.Stats) })
	}
	was, since := ask(true), now
	for range 2000 { // ten seconds
		now = now.Add(time.Second / 200)
		switch s := ask(true); {
		case s != was:
			was, since = s, now
		case now.Sub(since) >= lookShared:
			t.Fatalf("counters of %v ago", now.Sub(since))
		}
	}
	if taken < 95 || taken > 101 {
		t.Errorf("%d looks in ten seconds", taken)
	}
	taken = 0
	for range 10 {
		ask(false)
	}
	if taken != 10 {
		t.Errorf("%d looks for ten who came one after the other", taken)
	}
}
