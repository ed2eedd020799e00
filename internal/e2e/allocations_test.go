//go:build e2e

package e2e

import (
	"path/filepath"
	"testing"
)

// In steady state neither a request nor a connection makes the process allocate: there is nothing for the garbage
// collector to do, and no pause in anybody's traffic.
func TestNoAllocations(t *testing.T) {
	t.Run("access log off", func(t *testing.T) {
		requests, connections := allocations(t, "")
		if requests >= 0.01 {
			t.Errorf("%.4f allocations per request; want less than 0.01", requests)
		}
		if connections >= 0.1 {
			t.Errorf("%.4f allocations per connection; want less than 0.1", connections)
		}
	})
	t.Run("access log on", func(t *testing.T) {
		allocations(t, "\n[log.access]\noutput = \""+filepath.Join(t.TempDir(), "access.log")+"\"\n")
	})
}

// allocations measures what the process allocates for a request over a connection that is there, and for a connection
// with one request.
func allocations(t *testing.T, more string) (perRequest, perConnection float64) {
	t.Helper()
	lb := start(t, balance(echo(t))+more)
	address := lb.address("test")
	live := dial(t, address, 16)
	// A scrape costs some hundred allocations of its own: the difference of two in a row.
	count := func(n int, work func(n int) error) float64 {
		t.Helper()
		const name = "go_memstats_mallocs_total"
		first := lb.metric(name)
		before := lb.metric(name)
		if err := work(n); err != nil {
			t.Fatal(err)
		}
		return max(0, lb.metric(name)-before-(before-first)) / float64(n)
	}
	visits := func(n int) error { return short(address, n, 16) }
	for range 2 { // warm up: buffers, recycled sessions, the admin's own pools
		count(2000, live.ask)
		count(2000, visits)
	}
	perRequest, perConnection = count(20000, live.ask), count(5000, visits)
	t.Logf("%.4f allocations per request, %.4f per connection", perRequest, perConnection)
	return perRequest, perConnection
}
