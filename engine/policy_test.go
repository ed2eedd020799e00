package engine

import (
	"fmt"
	"io"
	"math"
	"net"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestPoliciesOnSockets counts which backend clients reach, weights 1, 2 and 5.
func TestPoliciesOnSockets(t *testing.T) {
	weights := []int{1, 2, 5}
	const rounds = 80 // 8 clients each
	for policy, slack := range map[string]float64{
		"roundrobin": 0,
		"random":     5, // standard deviations: less than one run in a million fails
	} {
		t.Run(policy, func(t *testing.T) {
			var backends []string
			for i := range weights {
				backends = append(backends, lbtest.Named(t, fmt.Sprint(i)))
			}
			r := newRig(t, backends, func(c *config.Config) {
				c.Pools[0].Policy = policy
				for i, w := range weights {
					c.Pools[0].Backends[i].Weight = w
				}
			})
			got := map[string]int{}
			for range 8 * rounds {
				c := r.dial()
				b, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				got[string(b)]++
			}
			for i, w := range weights {
				n, p := float64(8*rounds), float64(w)/8
				if off := math.Abs(float64(got[fmt.Sprint(i)]) - n*p); off > slack*math.Sqrt(n*p*(1-p)) {
					t.Errorf("weight %d: %d clients, want %v; all: %v", w, got[fmt.Sprint(i)], n*p, got)
				}
			}
		})
	}
	t.Run("leastconn", func(t *testing.T) {
		var backends []string
		for range weights {
			backends = append(backends, lbtest.Serve(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "x")
				_, _ = c.Read(make([]byte, 1)) // until the client goes
			}))
		}
		r := newRig(t, backends, func(c *config.Config) {
			c.Pools[0].Policy = "leastconn"
			for i, w := range weights {
				c.Pools[0].Backends[i].Weight = w
			}
		})
		// Held open, they are spread by weight exactly.
		var held [][]net.Conn
		for range rounds / 8 {
			var round []net.Conn
			for range 8 {
				c := r.dial()
				hear(t, c, "x")
				round = append(round, c)
			}
			held = append(held, round)
			for i, m := range r.d.Snapshot().Pools[0].Members {
				if n := int(m.Active()); n != weights[i]*len(held) {
					t.Fatalf("after %d clients weight %d has %d", 8*len(held), weights[i], n)
				}
			}
		}
	})
}
