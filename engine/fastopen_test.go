package engine

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"awe4lb/balancer"
	"awe4lb/config"
)

func TestFastOpenInVain(t *testing.T) {
	asking := func(frontend, pool bool) *config.Config {
		return testConfig(nil, func(c *config.Config) {
			c.Frontends[0].TCP.FastOpen, c.Pools[0].TCP.FastOpen = frontend, pool
		})
	}
	const f, p = "frontends.f.tcp.fastopen", "pools.p.tcp.fastopen"
	for _, tc := range []struct {
		frontend, pool bool
		bits           int
		want           []string
	}{
		{false, false, 0, nil},
		{true, true, 0, []string{f, p}},
		{true, true, 1, []string{f}},
		{true, true, 2, []string{p}},
		{true, true, 3, nil},
		{true, false, 1024 + 2, nil},
	} {
		if got := fastOpenInVain(asking(tc.frontend, tc.pool), tc.bits); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: got %v", tc, got)
		}
	}

	// It reaches the log, as this kernel has it.
	text, err := os.ReadFile(fastOpenSysctl)
	if err != nil {
		t.Skip(err)
	}
	var log bytes.Buffer
	d := balancer.NewDirector()
	e, err := New(d, Options{Shards: 1, ReadBuffer: 64 << 10, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	d.Drive(e)
	_, err = d.Apply(asking(true, false))
	e.Close()
	if err != nil {
		t.Fatal(err)
	}
	off := !slices.Contains([]string{"2", "3"}, strings.TrimSpace(string(text)))
	if warned := strings.Contains(log.String(), "setting="+f); warned != off {
		t.Errorf("tcp_fastopen is %s and the log says %q", text, log.String())
	}
}
