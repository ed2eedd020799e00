package runner

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"

	"path/filepath"
	"strings"
	"time"
)

// awe4lb a second time, with all that protects switched on: an access list of ten thousand prefixes, limits of sources and rates
// that nobody meets, outliers, and a pool of ten that is checked each second. A third one has its backends change all the time.

const (
	guardPrefixes = 10_000
	guardPool     = 10
	flapsASecond  = 50
)

// guardFiles writes the access list and returns its path.
func guardFiles(p Place) (string, error) {
	var b strings.Builder
	for i := range guardPrefixes { // of 198.18.0.0/15 and 240.0.0.0/4, where no client is
		fmt.Fprintf(&b, "%d.%d.%d.0/24\n", 240+i>>16&7, i>>8&255, i&255)
	}
	return write(p.Dir, "denied.txt", b.String())
}

// guardFrontend is what a frontend with guards has besides; limits are of sessions, or of flows.
func guardFrontend(p Place, name string) string {
	limits := "max_connections = 1000000\nmax_connections_per_source = 1000000\nconnection_rate = 1000000\nconnection_rate_per_source = 1000000\n"
	if p.UDP != "" {
		limits = ""
	}
	return fmt.Sprintf(`%s[frontends.%s.access]
rules = [{ deny_file = %q }]
`, limits, name, filepath.Join(p.Dir, "denied.txt"))
}

// guardPoolTables is what its pool has besides. Checks go to the HTTP backend when port is not 0.
func guardPoolTables(name string, port string) string {
	at := ""
	if port != "" {
		at = fmt.Sprintf("address = \"127.0.0.1\"\nport = %s\n", port)
	}
	return fmt.Sprintf(`[pools.%s.outliers]
[pools.%s.health]
kind = "tcp"
interval = "1s"
%s`, name, name, at)
}

// flap changes weights and states of all backends but the first, by turns, flapsASecond times a second, until ctx is done. It
// reports what went wrong.
func flap(ctx context.Context, p Place) error {
	ticker := time.NewTicker(time.Second / flapsASecond)
	defer ticker.Stop()
	client := &http.Client{Timeout: 5 * time.Second}
	bodies := []string{`{"state": "drain"}`, `{"weight": 7}`, `{"state": "ready"}`, `{"weight": null}`}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		backend := p.HTTPBackend[1+n/len(bodies)%(len(p.HTTPBackend)-1)]
		at := url.URL{Scheme: "http", Host: p.AskAt, Path: "/api/v1/pools/http/backends/" + backend}
		req, err := http.NewRequest(http.MethodPatch, at.String(), bytes.NewBufferString(bodies[n%len(bodies)]))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("flapping: %w", err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("flapping: %s: %s", backend, res.Status)
		}
	}
}

// takes reports whether a system takes part in a scenario.
func (s System) takes(sc scenario) bool {
	return (!s.BulkOnly || sc.bulk) && (!s.FloodOnly || sc.flood) && (!s.Guarded || sc.guarded) && (!(s.Flaps || s.Asked) || sc.flaps)
}

// isVariant reports whether s differs from another system in a setting that only some scenarios are about.
func (s System) isVariant() bool { return s.BulkOnly || s.FloodOnly || s.Guarded || s.Asked }
