//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestDiscoveryChurn: a pool of a thousand whose source says another list ten times a second, a tenth of it exchanged each
// time, while clients come and go and sessions last. No request fails, no session ends, and what vanished is forgotten once
// nobody is on it. How long requests take and what it costs, with and without, is said and not judged: machines differ.
func TestDiscoveryChurn(t *testing.T) {
	const members, moved = 1000, 100
	// One listener is all backends: each has an address of 127.0.0.0/8. One that is gone from the list still answers.
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	lbtest.ServeOn(t, l, func(c net.Conn) { _, _ = io.Copy(c, c) })
	port := l.Addr().(*net.TCPAddr).Port

	var lists atomic.Int64
	var churn atomic.Bool
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		first := 0
		if churn.Load() {
			first = int(lists.Add(1)) * moved
		}
		var b bytes.Buffer
		for i := range members {
			n := (first + i) % 16000
			fmt.Fprintf(&b, "127.1.%d.%d:%d weight=%d\n", n/250, n%250+1, port, 1+n%3)
		}
		_, _ = w.Write(b.Bytes())
	}))
	defer source.Close()
	for _, policy := range []string{"roundrobin", "leastconn", "maglev"} {
		t.Run(policy, func(t *testing.T) {
			churn.Store(false)
			lb := start(t, fmt.Sprintf(`
[frontends.test]
bind = ["127.0.0.1:0"]
pool = "test"
[pools.test]
policy = %q
connect_attempts = 1
[pools.test.discovery]
kind = "http"
url = %q
allow = ["127.0.0.1"]
interval = "100ms"
jitter = 0
debounce = "0s"
[pools.test.health]
interval = "10s"
`, policy, source.URL))
			address := lb.address("test")
			lb.waitFor("all are found", func() bool { return lb.metric(`awe4lb_discovery_backends{pool="test"}`) == members })

			var long []net.Conn
			for range 50 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				long = append(long, c)
			}
			echo := func(c net.Conn) error {
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.WriteString(c, "ping"); err != nil {
					return err
				}
				_, err := io.ReadFull(c, make([]byte, 4))
				return err
			}
			// run has clients come and go at a pace of their own for a time, and returns how long they took.
			run := func(d time.Duration) []time.Duration {
				var mu sync.Mutex
				var took []time.Duration
				var clients sync.WaitGroup
				end := time.Now().Add(d)
				for range 4 {
					clients.Go(func() {
						pace := time.NewTicker(4 * time.Millisecond)
						defer pace.Stop()
						for time.Now().Before(end) {
							<-pace.C
							began := time.Now()
							c, err := net.Dial("tcp", address)
							if err == nil {
								err = echo(c)
								c.Close()
							}
							if err != nil {
								t.Errorf("a request failed: %v", err)
								return
							}
							mu.Lock()
							took = append(took, time.Since(began))
							mu.Unlock()
						}
					})
				}
				clients.Wait()
				slices.Sort(took)
				return took
			}
			idle := lb.metric("process_cpu_seconds_total")
			calm := run(2 * time.Second)
			idle = lb.metric("process_cpu_seconds_total") - idle
			before := lb.metric(`awe4lb_discovery_changes_total{pool="test"}`)
			cpu := lb.metric("process_cpu_seconds_total")
			churn.Store(true)
			busy := run(4 * time.Second)
			churn.Store(false)
			cpu = lb.metric("process_cpu_seconds_total") - cpu
			changes := lb.metric(`awe4lb_discovery_changes_total{pool="test"}`) - before
			for i, c := range long {
				if err := echo(c); err != nil {
					t.Errorf("session %d, on a backend that may have vanished: %v", i, err)
				}
				c.Close()
			}
			at := func(d []time.Duration, share float64) time.Duration {
				return d[int(share*float64(len(d)-1))].Round(time.Microsecond)
			}
			t.Logf("%s: %.1f changes a second of %d backends; requests calm %d, p50 %v, p99 %v; while it changes %d, p50 %v, p99 %v; CPU of one core %.1f %%, and %.1f %%",
				policy, changes/4, members, len(calm), at(calm, 0.5), at(calm, 0.99), len(busy), at(busy, 0.5), at(busy, 0.99), idle*50, cpu*25)
			if changes < 20 {
				t.Errorf("%v changes in 4 s: too few to show anything", changes)
			}
			if n := lb.metric(`awe4lb_pool_no_backend_total{pool="test"}`); n != 0 {
				t.Errorf("%v clients found no backend", n)
			}
			// With the sessions on them gone, nothing is left of those that vanished.
			lb.waitFor("series of those in the list alone", func() bool {
				return strings.Count(string(lb.get("/metrics")), "\nawe4lb_backend_up{") == members
			})
		})
	}
}
