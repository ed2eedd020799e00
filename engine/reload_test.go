package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// freePort returns an address nobody listens on now.
func freePort(t *testing.T) config.Address {
	return config.Address{IP: netip.MustParseAddrPort(lbtest.Free(t))}
}

// TestReloadUnderLoad reloads a hundred times, changing backends, policies and a second listener, while clients come and
// go. No request may fail, and nothing may be left over.
func TestReloadUnderLoad(t *testing.T) {
	backends := []string{lbtest.Echo(t), lbtest.Echo(t), lbtest.Echo(t)}
	r := newRig(t, backends, nil)
	address := r.address()
	long := r.dial() // one connection lives through all of it
	say(t, long, "begin")
	hear(t, long, "begin")
	fds := lbtest.FDs(t)
	stop := make(chan struct{})
	var served atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				q := fmt.Sprintf("%d/%d", w, i)
				_, _ = io.WriteString(c, q)
				_ = c.(*net.TCPConn).CloseWrite()
				if b, err := io.ReadAll(c); err != nil || string(b) != q {
					t.Errorf("got %q, %v; want %q", b, err, q)
				}
				c.Close()
				served.Add(1)
			}
		})
	}
	policies := []string{"random", "roundrobin", "leastconn"}
	extra := freePort(t)
	for i := range 100 {
		before := served.Load()
		r.apply(testConfig(backends[i%2:2+i%2], func(c *config.Config) {
			c.Pools[0].Policy = policies[i%3]
			if i%4 == 0 {
				c.Frontends[0].Addresses = append(c.Frontends[0].Addresses, extra)
			}
		}))
		say(t, long, "still here")
		hear(t, long, "still here")
		lbtest.Eventually(t, "traffic after a reload", func() bool { return served.Load() > before })
	}
	close(stop)
	wg.Wait()
	lbtest.Eventually(t, "as many descriptors as before", func() bool {
		runtime.GC() // the backends' io.Copy frees its pipes by finalizers
		return lbtest.FDs(t) <= fds
	})
	if got := r.address(); got != address {
		t.Errorf("listens on %s, was %s", got, address)
	}
}

func TestReloadKeepsSessionsOfRemovedParts(t *testing.T) {
	old, other := lbtest.Echo(t), lbtest.Named(t, "other")
	r := newRig(t, []string{old}, nil)
	address := r.address()
	c := r.dial()
	say(t, c, "before")
	hear(t, c, "before")
	key := r.d.Snapshot().Pools[0].Members[0].Backend

	// The frontend and the pool go; another frontend comes.
	report := r.apply(testConfig([]string{other}, func(c *config.Config) {
		c.Frontends[0].Name, c.Pools[0].Name, c.Frontends[0].Pool = "g", "q", "q"
	}))
	text := fmt.Sprint(report.Changes)
	for _, want := range []string{"frontend f removed: 1 session goes on", "pool p removed", "frontend g added",
		"pool q added", "listener " + address + " removed"} {
		if !strings.Contains(text, want) {
			t.Errorf("report %v does not say %q", text, want)
		}
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the removed listener still accepts")
	}
	say(t, c, "after")
	hear(t, c, "after")
	o := r.dial()
	hearEnd(t, o, "other")
	o.Close()
	if retired := r.d.Retired(); len(retired) != 1 || retired[0] != key || key.Active() != 1 {
		t.Errorf("retired %v; want the old backend with its session", retired)
	}
	if r.e.Stats().Frontends["f"] == nil {
		t.Error("the counters of a frontend with a session are gone")
	}

	// They come back: the same backend with its count.
	r.apply(testConfig([]string{old}, nil))
	if back := r.d.Snapshot().Pools[0].Members[0].Backend; back != key {
		t.Error("a backend that comes back is not the one it was")
	}
	c.Close()
	lbtest.Eventually(t, "its session is given back", func() bool { return key.Active() == 0 })
	r.apply(testConfig([]string{other}, nil))
	lbtest.Eventually(t, "nothing retired", func() bool { return len(r.d.Retired()) == 0 })
	if st := r.e.Stats(); st.Backends[key] != nil {
		t.Error("the counters of a backend that is gone for good are still there")
	}
}

// TestRemovedListenerServesItsQueue has clients that are in the accept queue when their listener goes.
func TestRemovedListenerServesItsQueue(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, nil)
	address := r.address()
	for _, sh := range r.e.shards { // keep the shards from accepting
		sh.loop.Call(sh.pause)
	}
	var clients []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	r.apply(testConfig(nil, func(c *config.Config) { c.Frontends, c.Pools = nil, nil }))
	for i, c := range clients {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		q := fmt.Sprint("queued ", i)
		say(t, c, q)
		hear(t, c, q)
	}
}

func TestReloadThatCannotBindChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := newRig(t, []string{lbtest.Named(t, "as before")}, nil)
	version := r.d.Snapshot().Version
	fds := lbtest.FDs(t)
	_, err = r.d.Apply(testConfig([]string{lbtest.Named(t, "never")}, func(c *config.Config) {
		c.Frontends[0].Addresses = append(c.Frontends[0].Addresses, freePort(t),
			config.Address{IP: netip.MustParseAddrPort(taken.Addr().String())})
	}))
	var bind *BindError
	if !errors.As(err, &bind) || !strings.Contains(err.Error(), "frontends.f.bind: "+taken.Addr().String()+": bind: address already in use (another process") {
		t.Errorf("got %v", err)
	}
	if r.d.Snapshot().Version != version {
		t.Error("a snapshot was published")
	}
	if n := lbtest.FDs(t); n > fds+1 { // + the backend "never"
		t.Errorf("%d descriptors, were %d", n, fds)
	}
	hearEnd(t, r.dial(), "as before")
}

// TestTwoEnginesDoNotShareAnAddress: SO_REUSEPORT alone would let them.
func TestTwoEnginesDoNotShareAnAddress(t *testing.T) {
	a := newRig(t, nil, nil)
	b := newRig(t, nil, nil)
	_, err := b.d.Apply(testConfig(nil, func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{a.e.Listeners()[0].Address}
	}))
	if err == nil {
		t.Error("the second engine listens where the first does")
	}
}

// TestWildcardBesideSpecific: two frontends may share a port when one is more specific.
func TestWildcardBesideSpecific(t *testing.T) {
	specific := freePort(t)
	wildcard := config.Address{IP: netip.AddrPortFrom(netip.IPv4Unspecified(), specific.IP.Port())}
	for _, order := range [][]config.Address{{specific, wildcard}, {wildcard, specific}} {
		r := newRig(t, []string{lbtest.Named(t, "first")}, func(c *config.Config) {
			c.Frontends[0].Addresses = order[:1]
			f := *c.Frontends[0]
			f.Name, f.Addresses, f.Pool = "g", order[1:], "q"
			p := *c.Pools[0]
			p.Name, p.Backends = "q", backendConfigs([]string{lbtest.Named(t, "second")})
			c.Frontends, c.Pools = append(c.Frontends, &f), append(c.Pools, &p)
		})
		for address, want := range map[string]string{
			fmt.Sprint("127.0.0.1:", specific.IP.Port()): map[bool]string{true: "first", false: "second"}[order[0] == specific],
			fmt.Sprint("127.0.0.9:", specific.IP.Port()): map[bool]string{true: "first", false: "second"}[order[0] == wildcard],
		} {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			hearEnd(t, c, want)
			c.Close()
		}
		r.e.Close()
	}
}

func TestAddressMovesBetweenFrontends(t *testing.T) {
	address := freePort(t)
	r := newRig(t, []string{lbtest.Named(t, "one")}, func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{address}
	})
	hearEnd(t, r.dial(), "one")
	report := r.apply(testConfig([]string{lbtest.Named(t, "two")}, func(c *config.Config) {
		c.Frontends[0].Name = "renamed"
		c.Frontends[0].Addresses = []config.Address{address}
	}))
	if !strings.Contains(fmt.Sprint(report.Changes), "from frontend f to renamed") {
		t.Errorf("report %v", report.Changes)
	}
	hearEnd(t, r.dial(), "two")
	if st := r.e.Stats().Frontends["renamed"]; st.Accepted != 1 {
		t.Errorf("counted %d for the new frontend, want 1", st.Accepted)
	}
}

func TestUnixSocketFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	edit := func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{{Path: path}}
		c.Frontends[0].UnixMode = 0o600
	}
	// A file left over by a process that was killed.
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	r := newRig(t, []string{lbtest.Named(t, "hello")}, edit)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hearEnd(t, c, "hello")
	// In use: not taken over.
	other := newRig(t, nil, nil)
	if _, err := other.d.Apply(testConfig(nil, edit)); err == nil {
		t.Error("a second engine took the socket over")
	}
	r.apply(testConfig(nil, nil))
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestDrain(t *testing.T) {
	t.Run("sessions end by themselves", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Echo(t)}, nil)
		address := r.address()
		c := r.dial()
		say(t, c, "busy")
		hear(t, c, "busy")
		done := make(chan int64)
		go func() { done <- r.e.Drain(context.Background(), func() Reason { return Drained }) }()
		lbtest.Eventually(t, "nobody listens", func() bool {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
			}
			return err != nil && r.e.Draining()
		})
		say(t, c, "last words")
		hear(t, c, "last words")
		select {
		case <-done:
			t.Fatal("drained with a session open")
		default:
		}
		c.Close()
		if cut := <-done; cut != 0 {
			t.Errorf("%d cut, want none", cut)
		}
	})
	t.Run("time is up", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Echo(t)}, nil)
		c := r.dial()
		say(t, c, "busy")
		hear(t, c, "busy")
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if cut := r.e.Drain(ctx, func() Reason { return Drained }); cut != 1 {
			t.Errorf("%d cut, want 1", cut)
		}
		wantReset(t, c)
		r.wantEnds(Drained)
	})
}

// TestSessionLimit: clients beyond the limit wait in the accept queue and are served when there is room.
func TestSessionLimit(t *testing.T) {
	const limit = 4
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) { c.Engine.MaxConnections = limit })
	address := r.address()
	var wg sync.WaitGroup
	var most atomic.Int64
	for i := range 40 {
		wg.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			q := fmt.Sprint("waited ", i)
			_, _ = io.WriteString(c, q)
			b := make([]byte, len(q))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != q {
				t.Errorf("got %q, %v", b, err)
			}
			n, _ := r.e.Sessions()
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > limit+2 { // an accept that each shard may be about to give up counts too
		t.Errorf("%d sessions at once, limit %d", n, limit)
	}
	pauses := uint64(0)
	for _, sh := range r.e.Stats().Shards {
		pauses += sh.AcceptPauses
	}
	if pauses == 0 {
		t.Error("accepting never paused")
	}
}

// TestStalledReaderIsBounded: while the client does not read, the engine holds one buffer or pipe for it, whatever the
// backend has to say.
func TestStalledReaderIsBounded(t *testing.T) {
	for _, splice := range []bool{true, false} {
		t.Run(fmt.Sprint("splice ", splice), func(t *testing.T) {
			var pushed atomic.Int64
			r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
				b := make([]byte, 64<<10)
				for range 200 << 20 / len(b) {
					n, err := c.Write(b)
					pushed.Add(int64(n))
					if err != nil {
						return
					}
				}
			})}, func(c *config.Config) { c.Engine.Splice = splice })
			c := r.dial()
			lbtest.Eventually(t, "the flow has stopped", func() bool {
				before := pushed.Load()
				if before == 0 {
					return false
				}
				for range 100 {
					if pushed.Load() != before {
						return false
					}
					time.Sleep(2 * time.Millisecond) // quiet for 200 ms
				}
				return true
			})
			held := 0
			for _, sh := range r.e.shards {
				sh.loop.Call(func() {
					for s := sh.sessions.next; s != &sh.sessions; s = s.next {
						held += len(s.client.buf) + len(s.backend.buf)
						if p := s.client.pipe; p != nil {
							held += p.fill
						}
					}
				})
			}
			if held == 0 || held > 1<<20 {
				t.Errorf("%d bytes held; want some, and at most 1 MiB", held)
			}
			if n := pushed.Load(); n > 64<<20 {
				t.Errorf("the backend could push %d MB at a client that does not read", n>>20)
			}
			c.Close()
		})
	}
}
