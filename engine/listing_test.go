package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// list returns all whom f means, by pages of some size.
func (r *rig) list(f SessionFilter, size int) []SessionInfo {
	r.t.Helper()
	var all []SessionInfo
	for after, pages := "", 0; ; pages++ {
		page, next, err := r.e.ListSessions(context.Background(), f, after, size)
		if err != nil || len(page) > size || pages > 10_000 {
			r.t.Fatalf("page %d from %q: %d, %v", pages, after, len(page), err)
		}
		all = append(all, page...)
		if after = next; next == "" {
			return all
		}
	}
}

// TestListSessions: everybody is listed once, whatever the pages, and with what is known of them.
func TestListSessions(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t), lbtest.Echo(t)}, nil)
	clients := map[netip.AddrPort]*net.TCPConn{}
	for i := range 40 {
		c := r.dial()
		say(t, c, strings.Repeat("x", i+1))
		hear(t, c, strings.Repeat("x", i+1))
		clients[netip.MustParseAddrPort(c.LocalAddr().String())] = c
	}
	for _, size := range []int{1, 7, 20, MaxPage} {
		all := r.list(SessionFilter{}, size)
		seen := map[SessionID]bool{}
		for _, s := range all {
			if seen[s.ID] {
				t.Errorf("%v twice", s.ID)
			}
			seen[s.ID] = true
			if clients[s.Client] == nil || s.Frontend != "f" || s.Pool != "p" || s.Backend == "" || s.State != "open" || s.Protocol != "tcp" ||
				s.C2B != s.B2C || s.C2B == 0 || s.C2B > 40 || s.Age <= 0 || s.Age > time.Minute || time.Since(s.Started) > time.Minute {
				t.Errorf("%+v", s)
			}
			if id, err := ParseSessionID(s.ID.String()); id != s.ID || err != nil {
				t.Errorf("%v: parsed as %v, %v", s.ID, id, err)
			}
		}
		if len(seen) != 40 {
			t.Errorf("pages of %d: %d sessions; want 40", size, len(seen))
		}
	}
	backend := r.d.Snapshot().Pools[0].Members[1].Name
	one := r.list(SessionFilter{}, 40)[17]
	for _, tc := range []struct {
		f    SessionFilter
		want int
	}{
		{SessionFilter{Backend: backend}, 20}, {SessionFilter{Frontend: "g"}, 0}, {SessionFilter{Pool: "p", Frontend: "f"}, 40},
		{SessionFilter{Client: netip.MustParsePrefix("127.0.0.0/8")}, 40}, {SessionFilter{Client: netip.MustParsePrefix("10.0.0.0/8")}, 0},
		{SessionFilter{Protocol: "udp"}, 0}, {SessionFilter{ID: one.ID}, 1}, {SessionFilter{ID: SessionID{99, 1}}, 0},
	} {
		if got := r.list(tc.f, 9); len(got) != tc.want {
			t.Errorf("%+v: %d sessions; want %d", tc.f, len(got), tc.want)
		}
	}

	// One by its id, half of the others by their backend.
	if n, err := r.e.KillSessions(context.Background(), SessionFilter{ID: one.ID}); n != 1 || err != nil {
		t.Errorf("killed %d, %v; want 1", n, err)
	}
	if _, err := clients[one.Client].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client heard %v", err)
	}
	rest := len(r.list(SessionFilter{Backend: backend}, 100))
	if n, err := r.e.KillSessions(context.Background(), SessionFilter{Backend: backend}); n != rest || err != nil {
		t.Errorf("killed %d, %v; want %d", n, err, rest)
	}
	r.wantEnds(slices.Repeat([]Reason{Killed}, rest+1)...)
	for a, c := range clients {
		if _, err := io.WriteString(c, "y"); err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
			if alive := slices.ContainsFunc(r.list(SessionFilter{}, 40), func(s SessionInfo) bool { return s.Client == a }); alive != (err == nil) {
				t.Errorf("%v: listed %v, %v", a, alive, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := r.e.ListSessions(ctx, SessionFilter{}, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for _, after := range []string{"x", "1", "0-z1", "-1-s1", "0-s", "0-fffffffffff"} {
		if _, _, err := r.e.ListSessions(context.Background(), SessionFilter{}, after, 1); err == nil {
			t.Errorf("after %q: no error", after)
		}
	}
	for _, id := range []string{"", "1", "1-", "-5", "1-0", "x-1", "1-zz", "1-fffffffffffffffff"} {
		if _, err := ParseSessionID(id); err == nil {
			t.Errorf("id %q: no error", id)
		}
	}
}

// TestListWhileTheyChange: who is there all the time is listed exactly once, though others come and go between the slices of a
// walk.
func TestListWhileTheyChange(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.Echo(t)}, nil)
	stay := map[netip.AddrPort]int{}
	for range 30 {
		c := r.dial()
		say(t, c, "x")
		hear(t, c, "x")
		stay[netip.MustParseAddrPort(c.LocalAddr().String())] = 0
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if c, err := net.Dial("tcp", r.address()); err == nil {
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
				c.Close()
			}
		}
	}()
	for range 50 {
		for _, s := range r.list(SessionFilter{}, 3) {
			if n, ok := stay[s.Client]; ok {
				stay[s.Client] = n + 1
			}
		}
	}
	close(stop)
	<-done
	for a, n := range stay {
		if n != 50 {
			t.Errorf("%v: listed %d times; want 50", a, n)
		}
	}
}

// TestWalkInSlices: a walk over more than a slice visits all, also when those visited end, and the next ones with them.
func TestWalkInSlices(t *testing.T) {
	r := newRigOf(t, 1, []string{lbtest.Echo(t)}, nil)
	const n = 2*walkSlice + 10
	sh := r.e.shards[0]
	f := r.d.Snapshot().Frontends[0]
	done := make(chan int, 1)
	sh.loop.Call(func() {
		for i := range n { // sessions without sockets: they are only to be visited
			s := sh.session()
			s.f, s.front, s.live, s.fstats = f, f.Config, f.Live, sh.frontendStats("f")
			s.state, s.started, s.fault = connecting, sh.stamp(0), none
			s.client.open(-1, false)
			s.backend.open(-1, false)
			f.Live.Acquire(0)
			r.e.sessions.Add(1)
			_ = i
		}
		visited := 0
		w := &walk{session: func(s *session) bool {
			visited++
			if visited%3 == 0 && s.next != &sh.sessions {
				s.next.end(Killed) // the one to be visited next
				visited++
			}
			s.end(Killed)
			return true
		}, done: func() { done <- visited }}
		w.start(sh, 0)
	})
	select {
	case visited := <-done:
		if visited != n {
			t.Errorf("%d visited; want %d", visited, n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the walk does not end")
	}
	sh.loop.Call(func() {
		if sh.walks != nil || sh.open != 0 {
			t.Errorf("walks left: %v; %d open", sh.walks, sh.open)
		}
	})
}

// TestListFlows: flows are listed and ended as sessions are.
func TestListFlows(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.NamedDatagrams(t, "a")}, nil)
	var all []*udpClient
	for range 20 {
		c := r.client()
		if got := c.ask("?"); got != "a" {
			t.Fatalf("got %q", got)
		}
		all = append(all, c)
	}
	for _, size := range []int{1, 6, 100} {
		seen := map[SessionID]bool{}
		for _, f := range r.list(SessionFilter{Protocol: "udp"}, size) {
			seen[f.ID] = true
			if f.Protocol != "udp" || f.Frontend != "f" || f.Pool != "p" || f.State != "replied" || f.Asked != 1 || f.Answered != 1 || f.C2B != 1 || f.B2C != 1 ||
				!f.Client.IsValid() || f.Age <= 0 || f.Idle < 0 || f.Idle > time.Minute {
				t.Errorf("%+v", f)
			}
		}
		if len(seen) != 20 {
			t.Errorf("pages of %d: %d flows", size, len(seen))
		}
	}
	one := r.list(SessionFilter{}, 100)[3]
	if n, err := r.e.KillSessions(context.Background(), SessionFilter{ID: one.ID}); n != 1 || err != nil {
		t.Errorf("killed %d, %v", n, err)
	}
	if n, err := r.e.KillSessions(context.Background(), SessionFilter{Client: netip.MustParsePrefix("127.0.0.1/32")}); n != 19 || err != nil {
		t.Errorf("killed %d, %v", n, err)
	}
	r.wantEnds(slices.Repeat([]Reason{Killed}, 20)...)
	if got := all[0].ask("?"); got != "a" { // the client's next datagram begins another
		t.Errorf("got %q", got)
	}
}

// TestOrderReachesSessions: the director's orders and weights turn new sessions away from a backend at once; those it has go on.
func TestOrderReachesSessions(t *testing.T) {
	r := newRig(t, []string{lbtest.Named(t, "a"), lbtest.Named(t, "b")}, func(c *config.Config) { c.Pools[0].PanicThreshold = 1 })
	a := r.d.Snapshot().Pools[0].Members[0].Name
	names := func() map[string]int {
		got := map[string]int{}
		for range 10 {
			c := r.dial()
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			got[string(b)]++
			c.Close()
		}
		return got
	}
	for _, tc := range []struct {
		do   func() error
		want int
	}{
		{func() error { return r.d.Order("p", a, balancer.DrainIt, "") }, 0},
		{func() error { return r.d.Order("p", a, balancer.Admit, "") }, 5},
		{func() error { return r.d.SetWeight("p", a, 0, "") }, 0},
		{func() error { return r.d.SetWeight("p", a, 4, "") }, 8},
		{func() error { return r.d.ResetWeight("p", a, "") }, 5},
	} {
		if err := tc.do(); err != nil {
			t.Fatal(err)
		}
		if got := names(); got["a"] != tc.want {
			t.Errorf("%v; want %d for a", got, tc.want)
		}
	}
	if events := fmt.Sprint(r.d.Events()); !strings.Contains(events, "drain") || !strings.Contains(events, "weight") {
		t.Errorf("events: %s", events)
	}
}
