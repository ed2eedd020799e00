package config

import (
	"strings"
	"testing"
	"time"
)

// TestQueue: a queue has its defaults, and whoever asks for one in which nobody can ever wait is told.
func TestQueue(t *testing.T) {
	const head = "[frontends.web]\nbind = ['127.0.0.1:8080']\npool = 'web'\n[pools.web]\n"
	const one = "backends = [{ address = '10.0.0.1:80' }]\n"
	for _, c := range []struct {
		pool, warns string
		want        *Queue
	}{
		{one, "", nil},
		{"max_connections = 5\n" + one + "queue = { size = 9 }", "", &Queue{9, 5 * time.Second, false}},
		{"backends = [{ address = '10.0.0.1:80', max_connections = 1 }]\nqueue = { size = 1 }", "", &Queue{1, 5 * time.Second, false}},
		{one + "panic_threshold = 0\nqueue = { size = 1, when_down = true, timeout = '1ms' }", "", &Queue{1, time.Millisecond, true}},
		{"max_connections = 5\n" + one + "queue = { size = 0 }", "", &Queue{0, 5 * time.Second, false}},
		{"max_connections = 5\n" + one + "queue = { timeout = '1s' }", "there is no size", &Queue{0, time.Second, false}},
		{one + "queue = { size = 1 }", "neither the pool nor a backend has max_connections", &Queue{1, 5 * time.Second, false}},
		{"queue = { size = 1 }\ndiscovery = { kind = 'file', path = '/etc/hosts' }", "", &Queue{1, 5 * time.Second, false}},
		{one + "queue = { size = 1, when_down = true }", "panic_threshold = 0", &Queue{1, 5 * time.Second, true}},
	} {
		cfg, err := Parse("test.toml", []byte(head+c.pool))
		if err != nil {
			t.Errorf("%s: %v", c.pool, err)
			continue
		}
		got := cfg.Pools[0].Queue
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: got %+v; want %+v", c.pool, got, c.want)
		}
		if got.Waits() != (c.want != nil && c.want.Size > 0) {
			t.Errorf("%s: Waits is %v", c.pool, got.Waits())
		}
		warnings := strings.Join(cfg.Warnings, "\n")
		if c.warns == "" && warnings != "" || !strings.Contains(warnings, c.warns) {
			t.Errorf("%s: warnings %q; want %q", c.pool, warnings, c.warns)
		}
	}
	cfg, err := Parse("test.toml", []byte("[engine]\nconnection_burst = 5\n"+head+one))
	if err != nil || len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], "there is no connection_rate") {
		t.Errorf("a burst without a rate: %v, %v", cfg, err)
	}
}
