package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// wantReset reads and wants nothing but a reset.
func wantReset(t testing.TB, c io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v; want a reset", b, err)
	}
}

// wantRefused connects, says something and wants a reset. It may come so soon that the connect sees it.
func (r *rig) wantRefused(something string) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address())
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		// Whichever call comes first after the reset takes the error.
		if _, err = io.WriteString(c, something); err == nil {
			var b []byte
			if b, err = io.ReadAll(c); len(b) > 0 {
				r.t.Errorf("got %q; want nothing", b)
			}
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		r.t.Errorf("got %v; want a reset", err)
	}
}

func TestRefusedBackendIsPassedOver(t *testing.T) {
	good := lbtest.Echo(t)
	r := newRig(t, []string{lbtest.Refused(t), lbtest.Refused(t), good}, nil)
	for i := range 60 {
		c := r.dial()
		say(t, c, fmt.Sprint("client ", i))
		hear(t, c, fmt.Sprint("client ", i))
		c.CloseWrite()
		hearEnd(t, c, "")
		c.Close()
	}
	ends := r.wantEnds(repeat(ClientEOF, 60)...)
	for _, rec := range ends {
		if rec.Backend != good || rec.Attempts < 1 || rec.Attempts > 3 {
			t.Fatalf("got %+v; want backend %s after 1 to 3 attempts", rec, good)
		}
	}
	if n := r.e.Stats().Pools["p"].Retries; n < 30 || n > 95 {
		t.Errorf("%d retries; want about one per client", n)
	}
}

func repeat(r Reason, n int) []Reason {
	rs := make([]Reason, n)
	for i := range rs {
		rs[i] = r
	}
	return rs
}

// TestBlackHole also shows that what the client said before the good backend was found reaches it once.
func TestBlackHole(t *testing.T) {
	r := newRig(t, []string{lbtest.Blackhole(t), lbtest.Echo(t)}, func(c *config.Config) {
		c.Pools[0].ConnectTimeout = 300 * time.Millisecond
	})
	for range 2 { // one of the two is given the black hole first
		c := r.dial()
		begun := time.Now()
		say(t, c, "said early")
		c.CloseWrite()
		hearEnd(t, c, "said early")
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
	}
	b := r.e.Stats().Backends
	for backend, st := range b {
		if st.ConnectErrors[ConnectTimeout] == 0 && st.Sessions == 0 {
			t.Errorf("%s: neither sessions nor timeouts", backend.Name)
		}
	}
}

func TestAllBackendsDown(t *testing.T) {
	for _, tc := range []struct {
		name     string
		backends []string
		want     Reason
		attempts uint8
	}{
		{"refused", []string{lbtest.Refused(t), lbtest.Refused(t), lbtest.Refused(t), lbtest.Refused(t)}, ConnectRefused, 3},
		{"one", []string{lbtest.Refused(t)}, ConnectRefused, 1},
		{"none", nil, NoBackend, 0},
		{"black hole", []string{lbtest.Blackhole(t)}, ConnectTimeout, 1},
		{"unreachable", []string{"255.255.255.255:1"}, ConnectFailed, 1},
		{"no such unix socket", []string{"unix:/nonexistent/socket"}, ConnectRefused, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.backends, func(c *config.Config) { c.Pools[0].ConnectTimeout = 200 * time.Millisecond })
			begun := time.Now()
			r.wantRefused("anybody?")
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
			if rec := r.wantEnds(tc.want)[0]; rec.Attempts != tc.attempts {
				t.Errorf("%d attempts, want %d", rec.Attempts, tc.attempts)
			}
		})
	}
}

func TestNoRoute(t *testing.T) {
	r := newRig(t, nil, func(c *config.Config) { c.Frontends[0].Pool = "" })
	r.wantRefused("")
	r.wantEnds(NoRoute)
}

func TestRouteBySource(t *testing.T) {
	r := newRig(t, []string{lbtest.Named(t, "everybody")}, func(c *config.Config) {
		c.Frontends[0].Routes = []*config.Route{
			{Pool: "q", Match: config.Match{Source: []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}}}}
		c.Pools = append(c.Pools, &config.Pool{Name: "q", Policy: "roundrobin", ConnectTimeout: time.Second, ConnectAttempts: 1,
			Backends: backendConfigs([]string{lbtest.Named(t, "seven")})})
	})
	for source, want := range map[string]string{"127.0.0.1": "everybody", "127.0.0.7": "seven"} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		c, err := d.Dial("tcp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		hearEnd(t, c, want)
		c.Close()
	}
}

func TestClientGoneDuringConnect(t *testing.T) {
	hole := lbtest.Blackhole(t)
	slow := func(c *config.Config) { c.Pools[0].ConnectTimeout = 20 * time.Second }
	t.Run("reset", func(t *testing.T) {
		r := newRig(t, []string{hole}, slow)
		c := r.dial()
		lbtest.Eventually(t, "connecting", func() bool { return r.inState(connecting) == 1 })
		_ = c.SetLinger(0)
		c.Close()
		r.wantEnds(ClientRST) // long before the timeout
	})
	t.Run("one end said all", func(t *testing.T) {
		// FIN is not gone: the client may wait for an answer.
		r := newRig(t, []string{hole, lbtest.Echo(t)}, func(c *config.Config) {
			c.Pools[0].ConnectTimeout = 300 * time.Millisecond
			c.Pools[0].Backends[1].Priority = 1
		})
		c := r.dial()
		say(t, c, "question")
		c.CloseWrite()
		hearEnd(t, c, "question")
		r.wantEnds(ClientEOF)
	})
}

func TestSilentBackendIsIdle(t *testing.T) {
	r := newRig(t, []string{lbtest.Silent(t)}, func(c *config.Config) { c.Frontends[0].IdleTimeout = 400 * time.Millisecond })
	c := r.dial()
	say(t, c, "hello?")
	begun := time.Now()
	wantReset(t, c)
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("ended after %v, before idle_timeout", took)
	}
	r.wantEnds(IdleTimeout)
}

// TestOneWayStreamIsNotIdle keeps only one direction busy, for longer than idle_timeout.
func TestOneWayStreamIsNotIdle(t *testing.T) {
	const pieces = 20
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		for range pieces {
			_, _ = io.WriteString(c, "x")
			time.Sleep(50 * time.Millisecond) // the stream's pace
		}
	})}, func(c *config.Config) { c.Frontends[0].IdleTimeout = 300 * time.Millisecond })
	c := r.dial()
	hearEnd(t, c, strings.Repeat("x", pieces))
}

func TestHalfCloseTimeout(t *testing.T) {
	r := newRig(t, []string{lbtest.Silent(t)}, func(c *config.Config) {
		c.Frontends[0].HalfCloseTimeout = 300 * time.Millisecond
	})
	c := r.dial()
	say(t, c, "bye")
	c.CloseWrite()
	wantReset(t, c)
	r.wantEnds(HalfCloseTimeout)
}

func TestMaxLifetime(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) { c.Frontends[0].MaxLifetime = 500 * time.Millisecond })
	c := r.dial()
	begun := time.Now()
	var err error
	for err == nil { // busy all the time
		if _, err = c.Write([]byte("x")); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
	}
	if took := time.Since(begun); took < 440*time.Millisecond || took > 3*time.Second {
		t.Errorf("ended after %v; want 450 to 500 ms after the accept", took)
	}
	r.wantEnds(MaxLifetime)
}

func TestMaxConnections(t *testing.T) {
	t.Run("frontend", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) { c.Frontends[0].MaxConnections = 3 })
		var held []*net.TCPConn
		for range 3 {
			c := r.dial()
			say(t, c, "in")
			hear(t, c, "in")
			held = append(held, c)
		}
		r.wantRefused("")
		r.wantEnds(Limit)
		held[0].Close()
		lbtest.Eventually(t, "room again", func() bool { n, _ := r.e.Sessions(); return n == 2 })
		c := r.dial()
		say(t, c, "in")
		hear(t, c, "in")
	})
	t.Run("backend, exactly", func(t *testing.T) {
		a, b := lbtest.Echo(t), lbtest.Echo(t)
		r := newRig(t, []string{a, b}, func(c *config.Config) {
			c.Pools[0].Backends[0].MaxConnections = 5
			c.Pools[0].Backends[1].MaxConnections = 2
		})
		address := r.address()
		var wg sync.WaitGroup
		var mu sync.Mutex
		served := 0
		release := make(chan struct{})
		for range 20 {
			wg.Go(func() {
				c, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, "x")
				if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
					mu.Lock()
					served++
					mu.Unlock()
					<-release
				}
			})
		}
		lbtest.Eventually(t, "all clients served or refused", func() bool {
			st := r.e.Stats()
			return st.Frontends["f"].Ended[BackendLimit]+st.Frontends["f"].open() == 20 && st.Frontends["f"].open() == 7 &&
				r.inState(open) == 7
		})
		for _, m := range r.d.Snapshot().Pools[0].Members {
			if m.Active() != int64(m.Config.MaxConnections) {
				t.Errorf("%s: %d sessions, want %d", m.Name, m.Active(), m.Config.MaxConnections)
			}
		}
		close(release)
		wg.Wait()
		if served != 7 {
			t.Errorf("%d served, want 7", served)
		}
		lbtest.Eventually(t, "counts back to 0", func() bool {
			return r.d.Snapshot().Pools[0].Members[0].Active()+r.d.Snapshot().Pools[0].Members[1].Active() == 0
		})
	})
}

func TestPriorityTiers(t *testing.T) {
	down := lbtest.Refused(t)
	r := newRig(t, []string{down, lbtest.Named(t, "standby")}, func(c *config.Config) {
		c.Pools[0].Backends[1].Priority = 10
	})
	for range 5 {
		hearEnd(t, r.dial(), "standby")
	}
	lbtest.ServeAt(t, down, func(c *net.TCPConn) { _, _ = io.WriteString(c, "first") })
	for range 5 {
		hearEnd(t, r.dial(), "first")
	}
}

func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	echo := lbtest.ServeUnix(t, out, func(c net.Conn) { _, _ = io.Copy(c, c) })
	r := newRig(t, []string{echo}, func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{{Path: in}}
	})
	const size = 16 << 20
	for range 4 {
		c, err := net.Dial("unix", in)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.Copy(c, lbtest.NewStream(1, size))
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		if err := lbtest.NewStream(1, size).Check(c); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if rec := r.wantEnds(repeat(ClientEOF, 4)...)[0]; rec.Client.IsValid() || rec.Backend != "unix:"+out {
		t.Errorf("got %+v", rec)
	}
}

func TestIPv6(t *testing.T) {
	if _, err := os.Stat("/proc/net/if_inet6"); os.IsNotExist(err) {
		t.Skip("the kernel has no IPv6")
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	lbtest.ServeAt(t, address, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	r := newRig(t, []string{address}, func(c *config.Config) {
		c.Frontends[0].Addresses = []config.Address{{IP: netip.MustParseAddrPort("[::1]:0")}}
	})
	c := r.dial()
	say(t, c, "six")
	hear(t, c, "six")
	c.CloseWrite()
	hearEnd(t, c, "")
	if rec := r.wantEnds(ClientEOF)[0]; rec.Client.Addr() != netip.MustParseAddr("::1") {
		t.Errorf("client %v", rec.Client)
	}
}

func TestSourceAddresses(t *testing.T) {
	seen := make(chan string, 4)
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		seen <- host
	})}, func(c *config.Config) {
		c.Pools[0].Source = []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.3")}
	})
	got := map[string]bool{}
	for range 8 { // each shard takes them in turn
		hearEnd(t, r.dial(), "")
		got[<-seen] = true
	}
	if len(got) != 2 || !got["127.0.0.2"] || !got["127.0.0.3"] {
		t.Errorf("connected from %v; want 127.0.0.2 and 127.0.0.3", got)
	}
}

func TestSourceThatIsNotOurs(t *testing.T) {
	r := newRig(t, []string{lbtest.Named(t, "as before")}, nil)
	_, err := r.d.Apply(testConfig(nil, func(c *config.Config) {
		c.Pools[0].Source = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	}))
	if err == nil || !strings.Contains(err.Error(), "pools.p.source[0]: 192.0.2.1: bind: cannot assign requested address (no interface") {
		t.Errorf("got %v", err)
	}
	hearEnd(t, r.dial(), "as before")
}

func TestFastOpenAndUserTimeout(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		for _, tcp := range []*config.TCP{&c.Frontends[0].TCP, &c.Pools[0].TCP} {
			tcp.FastOpen, tcp.UserTimeout, tcp.Keepalive, tcp.Backlog = true, 5*time.Second, 7*time.Second, 99
		}
	})
	for range 3 { // the first of them gets the cookie
		c := r.dial()
		say(t, c, "fast")
		hear(t, c, "fast")
		c.CloseWrite()
		hearEnd(t, c, "")
	}
}

// TestServerFirstWithFastOpen has a client that says nothing: then nothing carries the SYN.
func TestServerFirstWithFastOpen(t *testing.T) {
	r := newRig(t, []string{lbtest.Named(t, "220")}, func(c *config.Config) { c.Pools[0].TCP.FastOpen = true })
	hearEnd(t, r.dial(), "220")
}

// TestMaxConnectionsUnderLoad: while clients come to four shards all the time, no backend has more than its limit at once, and
// each has that many. The backends count: a session is over for them before awe4lb knows.
func TestMaxConnectionsUnderLoad(t *testing.T) {
	limits := []int{7, 3, 1}
	var most, now [3]atomic.Int64
	var backends []string
	for i := range limits {
		backends = append(backends, lbtest.Serve(t, func(c *net.TCPConn) {
			n := now[i].Add(1)
			for old := most[i].Load(); n > old && !most[i].CompareAndSwap(old, n); old = most[i].Load() {
			}
			_, _ = io.WriteString(c, "x")
			_, _ = io.ReadFull(c, make([]byte, 1)) // the client wants to go
			now[i].Add(-1)
		}))
	}
	for _, policy := range []string{"roundrobin", "leastconn", "p2c"} {
		t.Run(policy, func(t *testing.T) {
			for i := range most {
				most[i].Store(0)
			}
			r := newRigOf(t, 4, backends, func(c *config.Config) {
				c.Pools[0].Policy = policy
				for i, n := range limits {
					c.Pools[0].Backends[i].MaxConnections = n
				}
			})
			var served, refused atomic.Int64
			var wg sync.WaitGroup
			reached := func() bool {
				for i, n := range limits {
					if most[i].Load() < int64(n) {
						return false
					}
				}
				return true
			}
			patience := time.Now().Add(20 * time.Second) // for all limits to be reached, on a machine that is slow
			for range 24 {
				wg.Go(func() {
					for n := 0; n < 60 || !reached() && time.Now().Before(patience); n++ {
						c, err := net.Dial("tcp", r.address())
						if err != nil { // the reset is here already
							refused.Add(1)
							continue
						}
						_ = c.SetDeadline(time.Now().Add(20 * time.Second))
						if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
							refused.Add(1)
						} else {
							served.Add(1)
							_, _ = c.Write([]byte("x"))
							_, _ = io.Copy(io.Discard, c)
						}
						c.Close()
					}
				})
			}
			wg.Wait()
			for i, n := range limits {
				if got := most[i].Load(); got != int64(n) {
					t.Errorf("backend %d had %d sessions at once, want %d", i, got, n)
				}
			}
			if served.Load() == 0 || refused.Load() == 0 {
				t.Errorf("%d served, %d refused: no load", served.Load(), refused.Load())
			}
			lbtest.Eventually(t, "all given back", func() bool {
				for _, m := range r.d.Snapshot().Pools[0].Members {
					if m.Active() != 0 {
						return false
					}
				}
				return true
			})
			if ends := r.e.Stats().Frontends["f"].Ended; ends[BackendLimit] != uint64(refused.Load()) || ends[NoBackend] > 0 {
				t.Errorf("%d refused; ends: %v", refused.Load(), ends)
			}
		})
	}
}
