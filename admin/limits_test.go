package admin

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// hits returns awe4lb_limit_hits_total of a limit.
func (r *rig) hits(limit string) int {
	r.t.Helper()
	_, text, _ := r.do("GET", "/metrics")
	m := regexp.MustCompile(`awe4lb_limit_hits_total\{limit="` + limit + `"\} (\d+)`).FindStringSubmatch(text)
	if m == nil {
		r.t.Fatalf("no limit %q in the metrics", limit)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// oneTooMany connects to the frontend. A refusal may come so soon that the connect sees it.
func (r *rig) oneTooMany() {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.e.Listeners()[0].Address.String(), 10*time.Second)
	if err == nil {
		r.t.Cleanup(func() { c.Close() })
	} else if !errors.Is(err, syscall.ECONNRESET) {
		r.t.Fatal(err)
	}
}

// TestLimitHits meets each limit and finds it counted under its own name, and under no other.
func TestLimitHits(t *testing.T) {
	want := func(r *rig, met string) {
		t.Helper()
		for _, limit := range []string{"frontend_max_connections", "pool_max_connections", "backend_max_connections", "process_sessions", "descriptors"} {
			if n := r.hits(limit); (n > 0) != (limit == met) {
				t.Errorf("%s met: %d hits of %s", met, n, limit)
			}
		}
	}
	apply := func(r *rig, backend, more string) {
		t.Helper()
		cfg, err := config.Parse("test.toml", fmt.Appendf(nil, "%s[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n"+
			"[pools.p]\nbackends = [{ address = %q }]\n", more, backend))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.d.Apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("frontend_max_connections", func(t *testing.T) { // of which newRig has 2
		r := newRig(t, lbtest.Echo(t))
		r.traffic()
		r.traffic()
		r.oneTooMany()
		lbtest.Eventually(t, "refused", func() bool { return r.hits("frontend_max_connections") > 0 })
		want(r, "frontend_max_connections")
	})
	full := func(met, pool, backend string) {
		t.Run(met, func(t *testing.T) {
			echo, datagrams := lbtest.Echo(t), lbtest.EchoDatagrams(t)
			r := newRig(t)
			cfg, err := config.Parse("test.toml", fmt.Appendf(nil, "[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n"+
				"[frontends.d]\nbind = [\"127.0.0.1:0\"]\nprotocol = \"udp\"\npool = \"d\"\n"+
				"[pools.p]\n%s\nbackends = [{ address = %q%s }]\n[pools.d]\n%s\nbackends = [{ address = %q%s }]\n", pool, echo, backend, pool, datagrams, backend))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.d.Apply(cfg); err != nil {
				t.Fatal(err)
			}
			r.traffic()
			r.oneTooMany()
			lbtest.Eventually(t, "refused", func() bool { return r.hits(met) == 1 })
			address := ""
			for _, l := range r.e.Listeners() {
				if l.Frontend == "d" {
					address = l.Address.String()
				}
			}
			for range 2 { // the first one's flow takes the place
				c, err := net.Dial("udp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if n, _ := r.e.Flows(); n == 0 {
					lbtest.Eventually(t, "a flow", func() bool { n, _ := r.e.Flows(); return n == 1 })
				}
			}
			lbtest.Eventually(t, "dropped", func() bool { return r.hits(met) == 2 })
			want(r, met)
			_, text, _ := r.do("GET", "/metrics")
			for _, name := range []string{"p", "d"} {
				for _, limit := range []string{"pool_max_connections", "backend_max_connections"} {
					n := 0
					if limit == met {
						n = 1
					}
					if series := fmt.Sprintf("awe4lb_pool_full_total{pool=%q,limit=%q} %d\n", name, limit, n); !strings.Contains(text, series) {
						t.Errorf("the metrics lack %s", series)
					}
				}
				if series := fmt.Sprintf("awe4lb_pool_no_backend_total{pool=%q} 0\n", name); !strings.Contains(text, series) {
					t.Errorf("the metrics lack %s", series)
				}
			}
			_, view, _ := r.do("GET", "/api/v1/limits")
			if n := strings.Count(view, `"hits": 1`); n != 2 {
				t.Errorf("%d limits of the pools were met once; want 2: %s", n, view)
			}
		})
	}
	full("pool_max_connections", "max_connections = 1", "")
	full("backend_max_connections", "", ", max_connections = 1")
	t.Run("process_sessions", func(t *testing.T) {
		backend := lbtest.Echo(t)
		r := newRig(t)
		apply(r, backend, "[engine]\nmax_connections = 1\n")
		r.traffic()
		r.oneTooMany()
		lbtest.Eventually(t, "paused", func() bool { return r.hits("process_sessions") > 0 })
		want(r, "process_sessions")
	})
	t.Run("descriptors", func(t *testing.T) {
		backend := lbtest.Echo(t)
		r := newRig(t)
		apply(r, backend, "")
		r.hits("descriptors") // the connection for asking is open from now on
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		release := lbtest.Hoard(t)
		a := r.e.Listeners()[0].Address.IP
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}); err != nil {
			t.Fatal(err)
		}
		paused := func() bool {
			for _, sh := range r.e.Stats().Shards {
				if sh.AcceptPauses > 0 {
					return true
				}
			}
			return false
		}
		lbtest.Eventually(t, "paused", paused)
		release()
		want(r, "descriptors")
	})
}
