//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// startRedis starts a Redis that keeps nothing, and returns its address.
func startRedis(t *testing.T) string {
	t.Helper()
	port := lbtest.FreePort(t)
	r := launch(t, nil, "redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--dir", t.TempDir(),
		"--save", "", "--appendonly", "no")
	r.waitFor("redis listens", func() bool { return listens(local(port)) })
	return local(port)
}

func TestRedis(t *testing.T) {
	lb := start(t, balance(startRedis(t)))
	port := lb.port("test")
	cli := func(args ...string) string {
		t.Helper()
		return run(t, "redis-cli", append([]string{"-e", "-p", port}, args...)...)
	}
	if got := cli("PING"); got != "PONG\n" {
		t.Fatalf("PING: got %q", got)
	}

	for _, pipeline := range []string{"1", "16"} {
		t.Run("benchmark -P "+pipeline, func(t *testing.T) {
			const n = 100000
			cli("CONFIG", "RESETSTAT")
			out := run(t, "redis-benchmark", "-p", port, "-q", "-n", fmt.Sprint(n), "-P", pipeline, "-t", "set,get")
			if strings.Contains(strings.ToLower(out), "error") || strings.Count(out, "requests per second") != 2 {
				t.Errorf("redis-benchmark said %q", out)
			}
			for _, command := range []string{"set", "get"} {
				calls, failed := commandStats(cli("INFO", "commandstats"), command)
				if calls != n || failed != 0 {
					t.Errorf("Redis saw %d of %d %s, %d of them failed", calls, n, command, failed)
				}
			}
			for _, line := range regexp.MustCompile(`[A-Z]+: [0-9.]+ requests per second`).FindAllString(out, -1) {
				t.Log(line)
			}
		})
	}
	t.Run("a value of 50 MB", func(t *testing.T) {
		path := sample(t, t.TempDir(), "value", 50<<20)
		value, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if out, code := runWith(t, bytes.NewReader(value), "redis-cli", "-e", "-p", port, "-x", "SET", "big"); out != "OK\n" || code != 0 {
			t.Fatalf("SET: got %q, exit code %d", out, code)
		}
		if got := cli("GET", "big"); got != string(value)+"\n" {
			t.Errorf("GET: %d bytes that are not the %d that were set", len(got)-1, len(value))
		}
	})
	t.Run("publish and subscribe", func(t *testing.T) {
		// The subscriber's connection is one the server alone talks on.
		sub := launch(t, nil, "redis-cli", "-p", port, "SUBSCRIBE", "news")
		sub.waitFor("subscribed", func() bool { return sub.out.has("subscribe\nnews\n1\n") })
		var script strings.Builder
		var want strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&script, "PUBLISH news item-%d\n", i)
			fmt.Fprintf(&want, "message\nnews\nitem-%d\n", i)
		}
		heard, _ := runWith(t, strings.NewReader(script.String()), "redis-cli", "-e", "-p", port)
		if heard != strings.Repeat("1\n", 1000) {
			t.Errorf("publishing: got %q; want 1 listener each time", heard)
		}
		lbtest.Eventually(t, "everything published has come, in order", func() bool { return sub.out.has(want.String()) })
	})
}

// commandStats reads calls and failures of a command from INFO commandstats.
func commandStats(info, command string) (calls, failed int) {
	m := regexp.MustCompile(`cmdstat_` + command + `:calls=(\d+).*rejected_calls=(\d+),failed_calls=(\d+)`).FindStringSubmatch(info)
	if m == nil {
		return 0, 0
	}
	calls, _ = strconv.Atoi(m[1])
	rejected, _ := strconv.Atoi(m[2])
	failed, _ = strconv.Atoi(m[3])
	return calls, rejected + failed
}
