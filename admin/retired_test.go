package admin

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/lbtest"
)

// TestFrontendRenamedAndBack: a frontend that a reload takes away stays in sight until its last session has ended, and
// one that comes back counts on.
func TestFrontendRenamedAndBack(t *testing.T) {
	backend := lbtest.Echo(t)
	r := newRig(t, backend)
	named := func(name string, more string) {
		t.Helper()
		cfg, err := config.Parse("test.toml", fmt.Appendf(nil, "[frontends.%s]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n%s"+
			"[pools.p]\nbackends = [{ address = %q }]\n", name, more, backend))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.d.Apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	value := func(metric string) (n int) {
		t.Helper()
		_, text, _ := r.do("GET", "/metrics")
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(metric) + ` (\d+)$`).FindStringSubmatch(text)
		if m == nil {
			return -1
		}
		n, _ = strconv.Atoi(m[1])
		return n
	}
	const active = `awe4lb_server_connections_active{server="f",protocol="tcp"}`
	const total = `awe4lb_server_connections_total{server="f",protocol="tcp"}`
	ended := func() int {
		return value(`awe4lb_server_connections_ended_total{server="f",protocol="tcp",reason="client_eof"}`)
	}

	r.traffic().Close()
	// The engine is asked, again and again: counters of an admin who is asked so often may be of before.
	lbtest.Eventually(t, "the first session has ended", func() bool { return r.e.Stats().Frontends["f"].Ended[engine.ClientEOF] == 1 })
	held := r.traffic()
	named("g", "")
	if n, all := value(active), value(total); n != 1 || all != 2 {
		t.Errorf("renamed: %d open, %d accepted; want 1 and 2", n, all)
	}
	var st status
	_, body, _ := r.do("GET", "/api/v1/status")
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		t.Fatal(err)
	}
	if len(st.Frontends) != 2 || st.Frontends[0].Name != "g" || st.Frontends[0].Retired ||
		st.Frontends[1].Name != "f" || !st.Frontends[1].Retired || st.Frontends[1].Open != 1 {
		t.Errorf("status: %+v", st.Frontends)
	}

	// It comes back while its session lives: limits count that session too.
	named("f", "max_connections = 1\n")
	if n := value(active); n != 1 {
		t.Errorf("back: %d open, want 1", n)
	}
	if live := r.d.Snapshot().Frontend("f").Live; live.Acquire(1) {
		live.Release()
		t.Error("the session that began under the old configuration does not count towards max_connections")
	}

	// It goes, its session ends, it is gone; and when it comes back its totals go on.
	named("g", "")
	held.Close()
	lbtest.Eventually(t, "f is gone", func() bool { return len(r.d.RetiredFrontends()) == 0 })
	if n := value(active); n != -1 {
		t.Errorf("gone: %d open; want no such series", n)
	}
	named("f", "")
	if n, all, done := value(active), value(total), ended(); n != 0 || all != 2 || done != 2 {
		t.Errorf("back at last: %d open, %d accepted, %d ended; want 0, 2 and 2", n, all, done)
	}
}
