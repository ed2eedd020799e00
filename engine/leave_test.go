package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// queue connects n clients to address; who they are is known by their number.
func queue(t *testing.T, network, address string, n int) []net.Conn {
	t.Helper()
	var clients []net.Conn
	for range n {
		c, err := net.DialTimeout(network, address, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		clients = append(clients, c)
	}
	return clients
}

// serveAll has every client ask, hear and hang up, all at once, and reports the first that was not served.
func serveAll(t *testing.T, clients []net.Conn) {
	t.Helper()
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			defer c.Close()
			q := fmt.Sprint("queued ", i)
			if _, err := c.Write([]byte(q)); err != nil {
				t.Error(i, err)
				return
			}
			b := make([]byte, len(q))
			if n, err := io.ReadFull(c, b); err != nil || string(b[:n]) != q {
				t.Errorf("client %d: got %q, %v", i, b[:n], err)
			}
		})
	}
	wg.Wait()
}

// full starts an engine with room for limit sessions, takes that room, and waits until every shard has met the limit.
func full(t *testing.T, limit int, edit func(*config.Config)) (r *rig, held []net.Conn) {
	t.Helper()
	r = newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		c.Engine.MaxConnections = limit
		if edit != nil {
			edit(c)
		}
	})
	network, address := r.listens()
	held = queue(t, network, address, limit)
	for _, c := range held {
		say(t, c, "mine")
		hear(t, c, "mine")
	}
	return r, held
}

// listens returns the network and address of the first listener, as package net has them.
func (r *rig) listens() (network, address string) {
	if a := r.e.Listeners()[0].Address; a.IsUnix() {
		return "unix", a.Path
	}
	return "tcp", r.address()
}

// TestDrainServesTheQueueAtTheLimit: clients who wait in the accept queue for room when the process drains get their
// room as sessions end, however many they are, and never more of them at once than the limit.
func TestDrainServesTheQueueAtTheLimit(t *testing.T) {
	const limit, waiting = 4, 300
	r, held := full(t, limit, nil)
	clients := queue(t, "tcp", r.address(), waiting)
	address := r.address()
	cut := make(chan int64)
	go func() { cut <- r.e.Drain(context.Background(), func() Reason { return Drained }) }()
	lbtest.Eventually(t, "draining", r.e.Draining)
	for _, c := range held {
		c.Close()
	}
	serveAll(t, clients)
	if n := <-cut; n != 0 {
		t.Errorf("%d cut, want none", n)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("still listening after the drain")
	}
	st := r.e.Stats().Frontends["f"]
	if st.Accepted != limit+waiting || st.Ended[ClientEOF] != limit+waiting {
		t.Errorf("%d accepted, %d ended well; want %d", st.Accepted, st.Ended[ClientEOF], limit+waiting)
	}
}

// TestDrainCountsWhomItTurnsAway: those still in the queue when the time is up are reset, each counted as drained.
func TestDrainCountsWhomItTurnsAway(t *testing.T) {
	const limit, waiting = 4, 300
	r, _ := full(t, limit, nil)
	clients := queue(t, "tcp", r.address(), waiting)
	ctx, cancel := context.WithCancel(context.Background())
	cut := make(chan int64)
	go func() { cut <- r.e.Drain(ctx, func() Reason { return Drained }) }()
	lbtest.Eventually(t, "the listeners are leaving", func() bool { return r.e.leaving.Load() > 0 })
	cancel()
	if n := <-cut; n != limit+waiting {
		t.Errorf("%d cut, want %d", n, limit+waiting)
	}
	for _, c := range clients {
		wantReset(t, c.(*net.TCPConn))
	}
	st := r.e.Stats().Frontends["f"]
	if st.Accepted != limit+waiting || st.Ended[Drained] != limit+waiting {
		t.Errorf("%d accepted, %d drained; want %d", st.Accepted, st.Ended[Drained], limit+waiting)
	}
	if n := r.e.sessions.Load(); n != 0 {
		t.Errorf("%d sessions counted after the end", n)
	}
}

// TestReloadServesTheQueueAtTheLimit is the same for a listener that a reload takes away, on both kinds of sockets; and
// meanwhile the address comes back.
func TestReloadServesTheQueueAtTheLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.sock")
	for name, edit := range map[string]func(*config.Config){
		"tcp":  func(c *config.Config) { c.Frontends[0].Addresses = []config.Address{freePort(t)} },
		"unix": func(c *config.Config) { c.Frontends[0].Addresses = []config.Address{{Path: path}} },
	} {
		t.Run(name, func(t *testing.T) {
			const limit, waiting = 4, 200
			r, held := full(t, limit, edit)
			network, address := r.listens()
			again := r.e.Listeners()[0].Address
			clients := queue(t, network, address, waiting)
			limited := func(c *config.Config) { c.Engine.MaxConnections = limit }
			r.apply(testConfig(nil, func(c *config.Config) { limited(c); c.Frontends, c.Pools = nil, nil }))
			r.apply(testConfig([]string{lbtest.Named(t, "the new one")}, func(c *config.Config) {
				limited(c)
				c.Frontends[0].Name, c.Frontends[0].Addresses = "g", []config.Address{again}
			}))
			for _, c := range held {
				c.Close()
			}
			serveAll(t, clients)
			lbtest.Eventually(t, "the old listeners are gone", func() bool { return r.e.leaving.Load() == 0 })
			if n := r.e.Stats().Frontends["f"].Accepted; n != limit+waiting {
				t.Errorf("%d accepted, want %d", n, limit+waiting)
			}
			var wg sync.WaitGroup
			for _, c := range queue(t, network, address, 8) { // twice the limit: those served first have to go first
				wg.Go(func() {
					defer c.Close()
					if b, err := io.ReadAll(c); err != nil || string(b) != "the new one" {
						t.Errorf("got %q, %v; want \"the new one\" and the end", b, err)
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestDrainServesTheQueueWithoutDescriptors has the process itself run out: what the queue holds is served as
// descriptors come back.
func TestDrainServesTheQueueWithoutDescriptors(t *testing.T) {
	const waiting = 200
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) { c.Pools[0].ConnectTimeout = time.Minute })
	for _, sh := range r.e.shards { // keep the shards from accepting
		sh.loop.Call(sh.pause)
	}
	clients := queue(t, "tcp", r.address(), waiting)
	release := lbtest.Hoard(t)
	cut := make(chan int64)
	go func() { cut <- r.e.Drain(context.Background(), func() Reason { return Drained }) }()
	lbtest.Eventually(t, "the listeners are leaving", func() bool { return r.e.leaving.Load() > 0 })
	release()
	serveAll(t, clients)
	if n := <-cut; n != 0 {
		t.Errorf("%d cut, want none", n)
	}
}
