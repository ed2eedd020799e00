//go:build !race

// The race detector has threads of its own before Go starts any.
package loop

import (
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestMonitorStat finds the thread that runs a hundred times a second and more while others are busy, whatever they do.
func TestMonitorStat(t *testing.T) {
	fd, err := monitorStat()
	if err != nil {
		t.Fatal(err)
	}
	c := &Calm{stat: fd}
	defer c.Close()
	first, ok := c.monitorRuns()
	if !ok {
		t.Fatal("no number of runs")
	}
	lbtest.Eventually(t, "the monitor runs while a goroutine spins", func() bool {
		for began := time.Now(); time.Since(began) < 20*time.Millisecond; {
		}
		runs, ok := c.monitorRuns()
		return ok && runs >= first+10
	})
}
