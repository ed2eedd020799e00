//go:build !race

package engine

import (
	"net"
	"runtime"
	"slices"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestDatagramsAllocateNothing is the gate of the datagram path, whoever allocates in the process: a datagram and its answer
// over an open flow, alone and in trains, in every mode.
func TestDatagramsAllocateNothing(t *testing.T) {
	for _, mode := range []string{"flow", "datagram", "shared", "gro", "proxied", "proxied once", "announced", "announced once", "both"} {
		t.Run(mode, func(t *testing.T) {
			r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
				u := &c.Frontends[0].UDP
				switch mode {
				case "proxied", "proxied once":
					accepts("required")(c)
				case "announced":
					announced("every", "unique_id", "crc32c")(c)
				case "announced once":
					announced("first")(c)
				case "both":
					accepts("required")(c)
					announced("every", "unique_id", "crc32c")(c)
				case "datagram":
					u.Mode = mode
				case "shared":
					u.SharedSource = append(u.SharedSource, anyIP)
				case "gro":
					u.GRO = true
				}
			})
			c := r.client()
			b := make([]byte, 1200)
			switch mode {
			case "proxied once":
				c.ask(toldDatagram("198.51.100.7:1", "x"))
			case "proxied", "both":
				copy(b, toldDatagram("198.51.100.7:1", ""))
			}
			out, in := slices.Clone(b), make([]byte, 1500)
			const burst = 10
			ping := func() {
				for range burst {
					if _, err := c.Write(out); err != nil {
						t.Fatal(err)
					}
				}
				for range burst {
					if _, err := c.Read(in); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 50 {
				ping()
			}
			// All allocations of the process are counted; the test's own backend makes a closure for each datagram.
			var before, after runtime.MemStats
			const rounds = 500
			runtime.ReadMemStats(&before)
			for range rounds {
				ping()
			}
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > rounds*burst*21/20 {
				t.Errorf("%d allocations in %d round trips; want one each, the backend's", n, rounds*burst)
			}
		})
	}
}

// TestFlowsAllocateNothing: making and ending flows, again and again, leaves nothing to the collector either.
func TestFlowsAllocateNothing(t *testing.T) {
	backend := lbtest.EchoDatagrams(t)
	r := newUDPRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].UDP.MaxResponses = 1 })
	r.e.SetAccess(false)
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := r.client()
	b := make([]byte, 100)
	visit := func() { // each answer ends the flow
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 {
		visit()
	}
	var before, after runtime.MemStats
	const rounds = 4000
	runtime.ReadMemStats(&before)
	for range rounds {
		visit()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > rounds*11/10 { // the backend's closure, and netpoll's attachment when it escapes
		t.Errorf("%.2f allocations a flow; want the backend's one", float64(n)/rounds)
	}
}
