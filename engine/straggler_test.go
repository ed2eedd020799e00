package engine

import (
	"io"
	"net"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestStragglersOfRemoved: a client who was let in before a reload and is routed after it goes by the old snapshot, to a
// backend that is no longer there by then. It goes as all others of that backend, be they walked over by now or not.
func TestStragglersOfRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		do      string
		timeout time.Duration
		rate    int
	}{
		"cut":             {"cut", time.Minute, 0},
		"drain, evenly":   {"drain", 300 * time.Millisecond, 0},
		"drain, by rate":  {"drain", time.Minute, 20},
		"keep":            {"keep", 100 * time.Millisecond, 0},
		"drain, after it": {"drain", 100 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			late := name == "drain, after it"
			edit := func(c *config.Config) {
				accepts("required")(c) // a client who says nothing yet is not routed yet
				p := c.Pools[0]
				p.OnRemoved, p.DrainTimeout, p.DrainRate = tc.do, tc.timeout, tc.rate
			}
			other := lbtest.Echo(t)
			r := newRig(t, []string{lbtest.Echo(t)}, edit)
			header := string(header(1, "192.0.2.1:1"))
			const n = 6
			var clients []*net.TCPConn
			for range n {
				clients = append(clients, r.dial())
			}
			served := clients[:0:0]
			if !late { // one who is walked over, so that a drain is under way
				c := r.dial()
				say(t, c, header+"x")
				hear(t, c, "x")
				served = append(served, c)
			}
			lbtest.Eventually(t, "all are let in", func() bool { return r.letIn() == n+len(served) })
			r.apply(testConfig([]string{other}, edit))
			if late {
				lbtest.Eventually(t, "the drain is over", func() bool { return r.pacing() == 0 })
			}
			for _, c := range clients {
				say(t, c, header+"y")
			}
			if tc.do == "keep" {
				for _, c := range clients {
					hear(t, c, "y")
					c.Close()
				}
				served[0].Close()
				r.wantEnds(repeat(ClientEOF, n+1)...)
				return
			}
			r.wantEnds(repeat(BackendRemoved, n+len(served))...)
			lbtest.Eventually(t, "nobody is paced", func() bool { return r.pacing() == 0 })
		})
	}
}

// letIn returns how many sessions there are on all shards. Unlike Engine.Sessions it counts none whose accept is under way.
func (r *rig) letIn() (n int) {
	for _, sh := range r.e.shards {
		sh.loop.Call(func() { n += sh.open })
	}
	return n
}

// pacing returns how many paces are under way on all shards.
func (r *rig) pacing() (n int) {
	for _, sh := range r.e.shards {
		sh.loop.Call(func() { n += len(sh.paces) })
	}
	return n
}

// TestStragglersAreCounted: sessions on a backend that was removed before they picked it count for a limit that comes later.
func TestStragglersAreCounted(t *testing.T) {
	edit := func(limit int) func(*config.Config) {
		return func(c *config.Config) {
			accepts("required")(c)
			c.Pools[0].OnRemoved, c.Pools[0].MaxConnections = "keep", limit
		}
	}
	other := lbtest.Echo(t)
	r := newRig(t, []string{lbtest.Echo(t)}, edit(0))
	var clients []*net.TCPConn
	for range 4 {
		clients = append(clients, r.dial())
	}
	lbtest.Eventually(t, "all are let in", func() bool { return r.letIn() == 4 })
	r.apply(testConfig([]string{other}, edit(0)))
	for _, c := range clients {
		say(t, c, string(header(1, "192.0.2.1:1"))+"y")
		hear(t, c, "y")
	}
	r.apply(testConfig([]string{other}, edit(10)))
	if n := r.d.Snapshot().Pool("p").Active(); n != 4 {
		t.Errorf("%d are counted; want 4", n)
	}
	for _, c := range clients {
		c.Close()
	}
	r.wantEnds(repeat(ClientEOF, 4)...)
	if n := r.d.Snapshot().Pool("p").Active(); n != 0 {
		t.Errorf("%d are counted after the end; want 0", n)
	}
}

// TestStragglersAreForgotten: what the shards keep of a backend that had vanished before somebody came to it goes with them, with
// nobody asking for the counters, and they are counted.
func TestStragglersAreForgotten(t *testing.T) {
	a, b := lbtest.Echo(t), lbtest.Echo(t)
	r := newRig(t, nil, func(c *config.Config) {
		accepts("required")(c)
		discovered(c)
		c.Pools[0].OnRemoved = "keep"
	})
	r.d.SetBackends("p", backendConfigs([]string{a}))
	const n = 8 // on both shards
	var clients []*net.TCPConn
	for range n {
		clients = append(clients, r.dial())
	}
	lbtest.Eventually(t, "all are let in", func() bool { return r.letIn() == n })
	r.d.SetBackends("p", backendConfigs([]string{b}))
	for _, c := range clients {
		say(t, c, string(header(1, "192.0.2.1:1"))+"x")
		hear(t, c, "x")
		c.Close()
	}
	r.wantEnds(repeat(ClientEOF, n)...)
	r.d.SetBackends("p", backendConfigs([]string{a, b}))
	r.d.SetBackends("p", backendConfigs([]string{b}))
	kept, counted := 0, uint64(0)
	for _, sh := range r.e.shards {
		sh.loop.Call(func() {
			kept += len(sh.backends) + len(sh.gone)
			if p := sh.pools["p"]; p != nil {
				counted += p.Gone.Sessions
			}
		})
	}
	if kept != 0 || counted != n {
		t.Errorf("%d backends are kept, and the pool counts %d sessions; want none and %d", kept, counted, n)
	}
}

// TestMaintenanceWhileConnecting: who was about to have a session on a backend when it was taken out for maintenance goes as
// those who had one.
func TestMaintenanceWhileConnecting(t *testing.T) {
	for _, do := range []string{"cut", "drain", "keep"} {
		t.Run(do, func(t *testing.T) {
			address, serve := busyUnix(t)
			r := newRig(t, []string{address}, func(c *config.Config) {
				p := c.Pools[0]
				p.ConnectTimeout, p.OnMaintenance, p.DrainTimeout = time.Minute, do, 300*time.Millisecond
			})
			c := r.dial()
			say(t, c, "x")
			lbtest.Eventually(t, "it waits", func() bool { return r.inState(connecting) == 1 })
			if err := r.d.Order("p", address, balancer.Maintain, "test"); err != nil {
				t.Fatal(err)
			}
			lbtest.Eventually(t, "those who were there are seen to", func() bool { return r.pacing() == 0 })
			serve(func(b net.Conn) { _, _ = io.Copy(b, b) })
			if do == "keep" {
				hear(t, c, "x")
				c.Close()
				r.wantEnds(ClientEOF)
				return
			}
			r.wantEnds(BackendMaintenance)
		})
	}
}

// TestMaintenanceTakenBackWhileConnecting: who was about to have a session when the backend was taken out for maintenance stays
// where it is back by then, or comes back before its turn; and one on a backend that was removed besides goes as on_removed says.
func TestMaintenanceTakenBackWhileConnecting(t *testing.T) {
	for _, tc := range []struct{ do, then string }{{"cut", "back"}, {"drain", "back"}, {"drain", "back when open"}, {"cut", "removed"}, {"drain", "removed"}} {
		t.Run(tc.do+", "+tc.then, func(t *testing.T) {
			address, serve := busyUnix(t)
			r := newRig(t, nil, func(c *config.Config) {
				discovered(c)
				p := c.Pools[0]
				p.ConnectTimeout, p.OnMaintenance, p.OnRemoved, p.DrainTimeout = time.Minute, tc.do, "keep", time.Minute
			})
			r.d.SetBackends("p", backendConfigs([]string{address}))
			c := r.dial()
			say(t, c, "x")
			lbtest.Eventually(t, "it waits", func() bool { return r.inState(connecting) == 1 })
			order := func(o balancer.Order) {
				if err := r.d.Order("p", address, o, "test"); err != nil {
					t.Fatal(err)
				}
			}
			order(balancer.Maintain)
			paced := map[string]int{"cut": 0, "drain": 1}[tc.do] // a drain waits for those who are connecting
			lbtest.Eventually(t, "those who were there are seen to", func() bool { return r.pacing() == paced })
			switch tc.then {
			case "back":
				order(balancer.Admit)
			case "removed":
				r.d.SetBackends("p", nil)
			}
			serve(func(b net.Conn) { _, _ = io.Copy(b, b) })
			hear(t, c, "x")
			if tc.then == "back when open" {
				if r.pacing() != 1 {
					t.Error("it is not told to go")
				}
				order(balancer.Admit)
			}
			if n := r.pacing(); n != 0 {
				t.Errorf("%d paces", n)
			}
			say(t, c, "y")
			hear(t, c, "y")
			c.Close()
			r.wantEnds(ClientEOF)
		})
	}
}
