package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// options are the socket options that we set, as the kernel has them.
type options map[string]int

// optionsOf reads the options of a TCP socket.
func optionsOf(t *testing.T, fd int) options {
	t.Helper()
	o := options{}
	for name, at := range map[string][2]int{
		"nodelay":      {unix.IPPROTO_TCP, unix.TCP_NODELAY},
		"keepalive":    {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		"idle":         {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		"interval":     {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		"user_timeout": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		"fastopen":     {unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT},
		"queue":        {unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
		"bind_no_port": {unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT},
		"reuseport":    {unix.SOL_SOCKET, unix.SO_REUSEPORT},
	} {
		v, err := unix.GetsockoptInt(fd, at[0], at[1])
		if err != nil {
			t.Fatalf("getsockopt %s: %v", name, err)
		}
		o[name] = v
	}
	return o
}

// want compares the options named in w.
func (o options) want(t *testing.T, whose string, w options) {
	t.Helper()
	got := options{}
	for name := range w {
		got[name] = o[name]
	}
	if !maps.Equal(got, w) {
		t.Errorf("%s: %v, want %v", whose, got, w)
	}
}

// only runs f on the loop of the one session that is open.
func (r *rig) only(f func(*session)) {
	r.t.Helper()
	n := 0
	for _, sh := range r.e.shards {
		sh.loop.Call(func() {
			for s := sh.sessions.next; s != &sh.sessions; s = s.next {
				n++
				f(s)
			}
		})
	}
	if n != 1 {
		r.t.Fatalf("%d sessions are open, want 1", n)
	}
}

// The kernel's own times for keepalive, where we set none.
func systemOptions(t *testing.T) options {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return optionsOf(t, fd)
}

// TestSocketOptions reads the options back from both sockets of a session and from the listeners.
func TestSocketOptions(t *testing.T) {
	system := systemOptions(t)
	for _, tc := range []struct {
		frontend, pool  config.TCP
		client, backend options
	}{
		{
			config.TCP{NoDelay: true, Keepalive: 27 * time.Second, UserTimeout: 12345 * time.Millisecond},
			config.TCP{NoDelay: true, Keepalive: 45 * time.Second, UserTimeout: 6789 * time.Millisecond},
			options{"nodelay": 1, "keepalive": 1, "idle": 27, "interval": 3, "user_timeout": 12345},
			options{"nodelay": 1, "keepalive": 1, "idle": 45, "interval": 5, "user_timeout": 6789},
		},
		{ // one side apart from the other
			config.TCP{NoDelay: true, Keepalive: time.Second},
			config.TCP{UserTimeout: time.Second},
			options{"nodelay": 1, "keepalive": 1, "idle": 1, "interval": 1, "user_timeout": 0},
			options{"nodelay": 0, "keepalive": 0, "idle": system["idle"], "interval": system["interval"], "user_timeout": 1000},
		},
		{
			config.TCP{},
			config.TCP{NoDelay: true, Keepalive: time.Minute},
			options{"nodelay": 0, "keepalive": 0, "idle": system["idle"], "interval": system["interval"], "user_timeout": 0},
			options{"nodelay": 1, "keepalive": 1, "idle": 60, "interval": 6, "user_timeout": 0},
		},
	} {
		t.Run(fmt.Sprintf("%+v", tc.frontend), func(t *testing.T) {
			edit := func(c *config.Config) { c.Frontends[0].TCP, c.Pools[0].TCP = tc.frontend, tc.pool }
			// Set at the start, and changed by a reload on listeners that are open.
			for name, start := range map[string]func(backend string) *rig{
				"start": func(backend string) *rig { return newRig(t, []string{backend}, edit) },
				"reload": func(backend string) *rig {
					r := newRig(t, []string{backend}, func(c *config.Config) {
						c.Frontends[0].TCP = config.TCP{NoDelay: !tc.frontend.NoDelay, UserTimeout: time.Hour, Keepalive: 99 * time.Second}
					})
					r.apply(testConfig([]string{backend}, edit))
					return r
				},
			} {
				t.Run(name, func(t *testing.T) {
					r := start(lbtest.Echo(t))
					c := r.dial()
					for range 3 { // TCP_NODELAY comes with the second send
						say(t, c, "x")
						hear(t, c, "x")
					}
					client := tc.client
					if name == "reload" && client["keepalive"] == 0 { // the times stay; nobody looks at them
						client = maps.Clone(client)
						delete(client, "idle")
						delete(client, "interval")
					}
					r.only(func(s *session) {
						optionsOf(t, int(s.client.fd)).want(t, "client", client)
						s.Expire() // as it will when it is old enough for keepalive
						optionsOf(t, int(s.backend.fd)).want(t, "backend", tc.backend)
					})
				})
			}
		})
	}
}

// TestBackendOptionsComeWhenTheyMatter: a session that sends one small request and is young has neither of those that
// cost a system call each; what must be there before connect(2) is.
func TestBackendOptionsComeWhenTheyMatter(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
		c.Pools[0].TCP = config.TCP{NoDelay: true, Keepalive: time.Minute, UserTimeout: time.Second}
	})
	c := r.dial()
	say(t, c, "small")
	hear(t, c, "small")
	r.only(func(s *session) {
		optionsOf(t, int(s.backend.fd)).want(t, "after one small request", options{"nodelay": 0, "keepalive": 0, "user_timeout": 1000})
	})
	c.Close()
	r.wantEnds(ClientEOF)
	c = r.dial()
	big := string(make([]byte, nagleSafe+1))
	say(t, c, big)
	hear(t, c, big)
	r.only(func(s *session) {
		optionsOf(t, int(s.backend.fd)).want(t, "after one large request", options{"nodelay": 1, "keepalive": 0})
	})
}

// TestFastOpenAndSourceOptions reads back what only a configuration that asks for it gets.
func TestFastOpenAndSourceOptions(t *testing.T) {
	for _, on := range []int{0, 1} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			r := newRig(t, []string{lbtest.Echo(t)}, func(c *config.Config) {
				c.Frontends[0].TCP.FastOpen, c.Pools[0].TCP.FastOpen = on == 1, on == 1
				c.Frontends[0].TCP.Backlog = 77
				if on == 1 {
					c.Pools[0].Source = []netip.Addr{netip.MustParseAddr("127.0.0.9")}
				}
			})
			c := r.dial()
			say(t, c, "x")
			hear(t, c, "x")
			r.only(func(s *session) {
				fd := int(s.backend.fd)
				optionsOf(t, fd).want(t, "backend", options{"fastopen": on, "bind_no_port": on, "reuseport": 0})
				if from, err := localAddress(fd); err != nil || on == 1 && from.IP.Addr().String() != "127.0.0.9" || from.IP.Port() == 0 {
					t.Errorf("connected from %v, %v", from, err)
				}
			})
			for _, sh := range r.e.shards {
				sh.loop.Call(func() {
					l := sh.listeners[0]
					optionsOf(t, l.fd).want(t, "listener", options{"queue": 77 * on, "reuseport": 1})
					info, err := unix.GetsockoptTCPInfo(l.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
					if err != nil || info.Sacked != 77 { // of a listener: its backlog
						t.Errorf("backlog %d, %v; want 77", info.Sacked, err)
					}
				})
			}
		})
	}
}
