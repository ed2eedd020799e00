package engine

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestOutliers: a backend that refuses, or resets before it says anything, is soon left alone.
func TestOutliers(t *testing.T) {
	watch := func(c *config.Config) {
		c.Pools[0].Outliers = &config.Outliers{Failures: 3, Ejection: time.Minute, MaxEjection: time.Minute, MaxEjected: 50}
	}
	t.Run("refuses", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Refused(t), lbtest.Named(t, "g")}, watch)
		for range 20 {
			c := r.dial()
			hear(t, c, "g")
			c.Close()
		}
		if n := r.e.Stats().Pools["p"].Retries; n != 3 {
			t.Errorf("%d attempts in vain; want 3", n)
		}
		lbtest.Eventually(t, "it is in the history", func() bool {
			events := r.d.Events()
			return len(events) == 1 && events[0].What == "outlier" && events[0].To == "ejected" && events[0].Why == "connect_refused, for 1m0s"
		})
		if n := r.e.Stats().Backends[r.d.Snapshot().Pools[0].Members[0].Backend].Ejections; n != 1 {
			t.Errorf("%d ejections counted; want 1", n)
		}
	})
	t.Run("does not answer", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Blackhole(t), lbtest.Named(t, "g")}, func(c *config.Config) {
			watch(c)
			c.Pools[0].ConnectTimeout = 30 * time.Millisecond
		})
		for range 10 {
			c := r.dial()
			hear(t, c, "g")
			c.Close()
		}
		if n := r.e.Stats().Backends[r.d.Snapshot().Pools[0].Members[0].Backend].ConnectErrors[ConnectTimeout]; n != 3 {
			t.Errorf("%d attempts timed out; want 3", n)
		}
	})
	t.Run("resets", func(t *testing.T) {
		var visits atomic.Int32
		bad := lbtest.Serve(t, func(c *net.TCPConn) {
			visits.Add(1)
			_ = c.SetLinger(0)
		})
		r := newRig(t, []string{bad, lbtest.Named(t, "g")}, watch)
		visit := func() {
			t.Helper()
			if c, err := net.Dial("tcp", r.address()); err == nil { // the reset may be here already
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}
			lbtest.Eventually(t, "the session ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
		}
		// A reset that comes before the connection is noticed counts as one that failed: of those there may be two before each cut.
		backend := r.d.Snapshot().Pools[0].Members[0].Backend
		for i := 0; i < 20 && backend.State() == balancer.Up; i++ {
			visit()
		}
		before := visits.Load()
		if backend.State() != balancer.Ejected || before < 3 || before > 9 {
			t.Fatalf("%v after %d visits; want 3 to 9", backend.State(), before)
		}
		for range 10 {
			visit()
		}
		if n := visits.Load() - before; n > 0 {
			t.Errorf("%d visits more", n)
		}
	})
}

// TestSuccessRate: of five backends that all serve most of their clients, the one that resets every third is ejected.
func TestSuccessRate(t *testing.T) {
	var backends []string
	for range 4 {
		backends = append(backends, lbtest.Named(t, "g"))
	}
	var visits atomic.Int32
	backends = append(backends, lbtest.Serve(t, func(c *net.TCPConn) {
		if visits.Add(1)%3 == 0 {
			_ = c.SetLinger(0)
			return
		}
		_, _ = io.WriteString(c, "g")
	}))
	r := newRig(t, backends, func(c *config.Config) {
		c.Pools[0].Outliers = &config.Outliers{Failures: 1000, Ejection: time.Minute, MaxEjection: time.Minute, MaxEjected: 50,
			SuccessRate: &config.SuccessRate{Interval: time.Second, MinRequests: 6, MinBackends: 5, Deviation: 190, Margin: 5}}
	})
	bad := r.d.Snapshot().Pools[0].Members[4].Backend
	deadline := time.Now().Add(30 * time.Second)
	for bad.State() == balancer.Up {
		if time.Now().After(deadline) {
			t.Fatalf("not ejected after %d visits; %+v", visits.Load(), r.e.Stats().Backends[bad])
		}
		if c, err := net.Dial("tcp", r.address()); err == nil { // the reset may be here already
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}
	if failures, rate := bad.Ejections(); failures != 0 || rate != 1 {
		t.Errorf("%d and %d ejections", failures, rate)
	}
	for i, m := range r.d.Snapshot().Pools[0].Members[:4] {
		if m.State() != balancer.Up {
			t.Errorf("backend %d: %v", i, m.State())
		}
	}
	before := visits.Load()
	for range 20 {
		c := r.dial()
		hearEnd(t, c, "g")
		c.Close()
	}
	if n := visits.Load() - before; n != 0 {
		t.Errorf("%d visits more", n)
	}
	if st := r.e.Stats().Backends[bad]; st.Cuts+st.ConnectErrors[ConnectRefused]+st.ConnectErrors[ConnectFailed] == 0 {
		t.Errorf("nothing counted: %+v", st)
	}
}
