package engine

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestOutliers: a backend that refuses, or resets before it says anything, is soon left alone.
func TestOutliers(t *testing.T) {
	watch := func(c *config.Config) {
		c.Pools[0].Outliers = &config.Outliers{Failures: 3, Ejection: time.Minute, MaxEjection: time.Minute, MaxEjected: 50}
	}
	t.Run("refuses", func(t *testing.T) {
		good := lbtest.Named(t, "g")
		r := newRig(t, []string{lbtest.Refused(t), good}, watch)
		for range 20 {
			c := r.dial()
			hear(t, c, "g")
			c.Close()
		}
		lbtest.Eventually(t, "sessions ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
		attempts := 0
		for _, rec := range r.records() {
			attempts += int(rec.Attempts) - 1
		}
		if attempts != 3 {
			t.Errorf("%d attempts in vain; want 3", attempts)
		}
	})
	t.Run("resets", func(t *testing.T) {
		var visits atomic.Int32
		bad := lbtest.Serve(t, func(c *net.TCPConn) {
			visits.Add(1)
			_ = c.SetLinger(0)
		})
		r := newRig(t, []string{bad, lbtest.Named(t, "g")}, watch)
		for range 20 {
			c := r.dial()
			_, _ = c.Read(make([]byte, 1))
			c.Close()
			lbtest.Eventually(t, "the session ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
		}
		if n := visits.Load(); n != 3 {
			t.Errorf("%d visits; want 3", n)
		}
	})
}

// records returns the records of the sessions that have ended.
func (r *rig) records() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Record(nil), r.ended...)
}
