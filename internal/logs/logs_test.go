package logs

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/lbtest"
)

var record = engine.Record{
	Start: time.Date(2026, 11, 22, 12, 0, 0, 120_000_000, time.UTC), Duration: 3_456_789,
	Frontend: "web", Pool: "app", Backend: "10.0.0.1:80", Client: netip.MustParseAddrPort("[2001:db8::1]:5000"),
	Connect: 214_000, C2B: 78, B2C: 311, Attempts: 2, Reason: engine.BackendEOF,
}

func TestLines(t *testing.T) {
	flow := record
	flow.UDP, flow.Asked, flow.Answered, flow.Reason, flow.Attempts = true, 2, 3, engine.IdleTimeout, 1
	flow.Frontend, flow.Pool, flow.Backend, flow.Client = "dns", "dns", "10.0.0.1:53", netip.MustParseAddrPort("192.0.2.1:5000")
	refused := engine.Record{Start: record.Start, Frontend: "web", Reason: engine.Limit}
	for _, tc := range []struct {
		r          *engine.Record
		text, json string
	}{
		{&record,
			"2026-11-22T12:00:00.123Z reason=backend_eof frontend=web client=[2001:db8::1]:5000 pool=app backend=10.0.0.1:80 attempts=2 connect=0.000214 duration=0.003456 c2b=78 b2c=311\n",
			`{"time":"2026-11-22T12:00:00.123Z","reason":"backend_eof","frontend":"web","client":"[2001:db8::1]:5000","pool":"app","backend":"10.0.0.1:80","attempts":2,"connect":0.000214,"duration":0.003456,"c2b":78,"b2c":311}` + "\n"},
		{&refused,
			"2026-11-22T12:00:00.120Z reason=limit frontend=web client=unix pool=- backend=- attempts=0 connect=- duration=0 c2b=0 b2c=0\n",
			`{"time":"2026-11-22T12:00:00.120Z","reason":"limit","frontend":"web","client":"unix","pool":null,"backend":null,"attempts":0,"connect":null,"duration":0,"c2b":0,"b2c":0}` + "\n"},
		{&flow,
			"2026-11-22T12:00:00.123Z reason=idle_timeout frontend=dns client=192.0.2.1:5000 pool=dns backend=10.0.0.1:53 attempts=1 connect=0.000214 duration=0.003456 c2b=78 b2c=311 c2b_datagrams=2 b2c_datagrams=3\n",
			`{"time":"2026-11-22T12:00:00.123Z","reason":"idle_timeout","frontend":"dns","client":"192.0.2.1:5000","pool":"dns","backend":"10.0.0.1:53","attempts":1,"connect":0.000214,"duration":0.003456,"c2b":78,"b2c":311,"c2b_datagrams":2,"b2c_datagrams":3}` + "\n"},
	} {
		if got := string(appendText(nil, tc.r)); got != tc.text {
			t.Errorf("text:\n%swant\n%s", got, tc.text)
		}
		got := string(appendJSON(nil, tc.r))
		if got != tc.json || !json.Valid([]byte(got)) {
			t.Errorf("json:\n%swant\n%s", got, tc.json)
		}
	}
}

func TestLinesAllocateNothing(t *testing.T) {
	b := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { b = appendJSON(appendText(b[:0], &record), &record) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func apply(t *testing.T, l *Logs, c config.Log) {
	t.Helper()
	f, _, err := l.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	f()
}

func TestApplyAndReopen(t *testing.T) {
	dir := t.TempDir()
	a, b, access := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "access")
	l := New()
	apply(t, l, config.Log{Level: "info", Format: "text", Output: a})
	with := l.Log.With("shard", 3).WithGroup("g").With("x", 1)
	with.Info("one", "y", 2)
	l.Log.Debug("not shown")
	apply(t, l, config.Log{Level: "debug", Format: "json", Output: b, Access: config.AccessLog{Output: access, Format: "text"}})
	with.Debug("two", "y", 2)
	if got := read(t, a); !strings.Contains(got, "level=INFO msg=one shard=3 g.x=1 g.y=2") || strings.Count(got, "\n") != 1 {
		t.Errorf("a: %s", got)
	}
	if got := read(t, b); !strings.Contains(got, `"level":"DEBUG","msg":"two","shard":3,"g":{"x":1,"y":2}`) {
		t.Errorf("b: %s", got)
	}

	l.Access(&record)
	l.Flush()
	if err := os.Rename(access, access+".1"); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	l.Access(&record)
	l.Access(&record)
	l.Flush()
	if old, now := strings.Count(read(t, access+".1"), "\n"), strings.Count(read(t, access), "\n"); old != 1 || now != 2 {
		t.Errorf("%d lines before the rotation, %d after; want 1 and 2", old, now)
	}
	if info, err := os.Stat(access); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode %v, %v; want nothing for others", info.Mode(), err)
	}
}

// TestChangeUnderLoad: no line is lost when the access log moves while it is written.
func TestChangeUnderLoad(t *testing.T) {
	dir := t.TempDir()
	l := New()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	apply(t, l, config.Log{Level: "info", Output: "stderr", Access: config.AccessLog{Output: paths[0], Format: "text"}})
	const lines = 20_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range lines {
			l.Access(&record)
			if i%64 == 0 {
				l.Flush()
			}
		}
		l.Flush()
	})
	for i := range 50 {
		apply(t, l, config.Log{Level: "info", Output: "stderr", Access: config.AccessLog{Output: paths[i%2], Format: "text"}})
	}
	wg.Wait()
	if n := strings.Count(read(t, paths[0])+read(t, paths[1]), "\n"); n != lines {
		t.Errorf("%d lines, want %d", n, lines)
	}
}

func TestBadOutputs(t *testing.T) {
	l := New()
	before := l.current.Load()
	for _, c := range []config.Log{
		{Level: "info", Output: "/nonexistent/x"},
		{Level: "info", Output: "stderr", Access: config.AccessLog{Output: "/nonexistent/y"}},
	} {
		if _, _, err := l.Prepare(c); err == nil || !strings.Contains(err.Error(), "/nonexistent/") {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	if l.current.Load() != before {
		t.Error("the logs changed")
	}
	if !l.Log.Enabled(t.Context(), slog.LevelError) {
		t.Error("errors are not logged")
	}
}

// TestDiscard: what was prepared and not applied leaves no descriptor behind, and the logs as they were.
func TestDiscard(t *testing.T) {
	lbtest.CheckLeaks(t)
	dir := t.TempDir()
	l := New()
	before := l.current.Load()
	for range 10 {
		_, discard, err := l.Prepare(config.Log{Level: "info", Output: filepath.Join(dir, "a"),
			Access: config.AccessLog{Output: filepath.Join(dir, "b"), Format: "text"}})
		if err != nil {
			t.Fatal(err)
		}
		discard()
	}
	if l.current.Load() != before {
		t.Error("the logs changed")
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, output := range []string{"stderr", there, filepath.Join(dir, "new")} {
		if errs := Check(config.Log{Output: output, Access: config.AccessLog{Output: output}}); errs != nil {
			t.Errorf("%s: %v", output, errs)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("the file was made")
	}
	for _, output := range []string{dir, filepath.Join(dir, "no", "x"), filepath.Join(there, "x")} {
		errs := Check(config.Log{Output: output, Access: config.AccessLog{Output: output}})
		if len(errs) != 2 || !strings.HasPrefix(errs[0].Error(), "log.output: ") ||
			!strings.HasPrefix(errs[1].Error(), "log.access.output: ") || !strings.Contains(errs[0].Error(), output) {
			t.Errorf("%s: got %v", output, errs)
		}
	}
}
