package engine

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// withHealth gives the pool of a testConfig a health check. Nobody probes: the test says who is up.
func withHealth(c *config.Config) {
	c.Pools[0].Health = &config.Health{Kind: "tcp", Initial: "up"}
	c.Pools[0].PanicThreshold = 1
}

// health says of the n-th backend whether it is up.
func (r *rig) health(n int, up bool) {
	r.t.Helper()
	m := r.d.Snapshot().Pools[0].Members[n]
	b := r.d.SetHealth(m.Pool, m.Address, up)
	if b == nil {
		r.t.Fatal("no such backend")
	}
	r.e.BackendChanged(b)
	for _, sh := range r.e.shards {
		sh.loop.Call(func() {}) // the post before it was done
	}
}

// TestBackendDown: sessions of a backend that goes down are reset or go on, as is wanted, and those of others are left alone.
func TestBackendDown(t *testing.T) {
	for _, cut := range []bool{false, true} {
		r := newRig(t, []string{lbtest.Echo(t), lbtest.Echo(t)}, func(c *config.Config) {
			withHealth(c)
			if cut {
				c.Pools[0].OnDown = "cut"
			}
		})
		var clients []io.ReadWriter
		for range 8 {
			c := r.dial()
			say(t, c, "a")
			hear(t, c, "a")
			clients = append(clients, c)
		}
		r.health(0, false)
		if cut {
			r.wantEnds(BackendDown, BackendDown, BackendDown, BackendDown)
		}
		alive := 0
		for _, c := range clients {
			_, err := io.WriteString(c, "b")
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			switch {
			case err == nil:
				alive++
			case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE):
				t.Errorf("a client that was cut heard %v", err)
			}
		}
		if want := map[bool]int{false: 8, true: 4}[cut]; alive != want {
			t.Errorf("cut %v: %d of 8 sessions live; want %d", cut, alive, want)
		}
	}
}

// TestFlowsLeaveWhoIsDown: a flow whose backend is down goes to another, and stays where it is when all are.
func TestFlowsLeaveWhoIsDown(t *testing.T) {
	for _, gone := range []string{"move", "keep", "cut"} {
		r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a"), lbtest.NamedDatagrams(t, "b")}, func(c *config.Config) {
			withHealth(c)
			c.Frontends[0].UDP.OnBackendGone = gone
		})
		c := r.client()
		first, other, n := c.ask("?"), "b", 0
		if first == "b" {
			other, n = "a", 1
		}
		r.health(n, false)
		if gone == "cut" {
			r.wantEnds(BackendRemoved)
		}
		want := map[string]string{"move": other, "keep": first, "cut": other}[gone]
		if got := c.ask("?"); got != want {
			t.Errorf("%s: the flow of %s went to %s; want %s", gone, first, got, want)
		}
		r.health(1-n, false) // now all are
		for range 3 {
			if got := c.ask("?"); got != want {
				t.Errorf("%s: all are down, and the flow went to %s; want %s", gone, got, want)
			}
		}
		r.health(n, true)
		if got := c.ask("?"); gone != "keep" && got != first {
			t.Errorf("%s: %s is up again, and the flow went to %s", gone, first, got)
		}
	}
}
