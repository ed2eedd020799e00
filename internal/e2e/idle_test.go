//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// 5,000 sessions that say nothing cost some memory each and nothing else, and nobody beside them notices.
func TestIdleSessions(t *testing.T) {
	const n = 5000
	lb := start(t, balance(echo(t)))
	pid := lb.cmd.Process.Pid
	address := lb.address("test")
	live := dial(t, address, 16)
	if err := live.ask(1000); err != nil { // so that all that is made once is there
		t.Fatal(err)
	}
	before := memoryOf(t, pid)

	dial(t, address, n)
	if open := lb.status().Sessions.Open; open != n+len(live) {
		t.Fatalf("%d sessions are open, want %d", open, n+len(live))
	}
	each := float64(memoryOf(t, pid).pss-before.pss) * 1024 / n
	t.Logf("%.0f bytes for each of %d idle sessions", each, n)
	if each > 1000 {
		t.Errorf("%.0f bytes of memory per idle session; want at most 1 kB", each)
	}

	// Nothing happens now but the sessions' timers. On a machine that is busy with other things the better of two counts.
	const watched = 5 * time.Second
	used := watched
	for try := 0; try < 2 && used > watched/100; try++ {
		before := cpuOf(t, pid)
		time.Sleep(watched)
		used = cpuOf(t, pid) - before
		t.Logf("%v of processor in %v of idleness: %.2f %%", used, watched, 100*used.Seconds()/watched.Seconds())
	}
	if used > watched/100 {
		t.Errorf("idle, and used %v of processor in %v; want less than 1 %%", used, watched)
	}

	if err := live.ask(20000); err != nil {
		t.Errorf("a live session beside the idle ones: %v", err)
	}
	if err := short(address, 1000, 16); err != nil {
		t.Errorf("a new session beside the idle ones: %v", err)
	}
	if open := lb.status().Sessions.Open; open != n+len(live) {
		t.Errorf("%d sessions are open at the end, want %d", open, n+len(live))
	}
}
