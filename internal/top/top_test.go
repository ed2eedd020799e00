package top

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/client"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// rig is a model with an admin that notes what is asked of it.
type rig struct {
	*Model
	t *testing.T

	mu    sync.Mutex
	calls []string // guarded by mu: method, path, query and body
	code  int      // guarded by mu: what orders are answered with
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, code: 200}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body any
		_ = json.NewDecoder(req.Body).Decode(&body)
		r.mu.Lock()
		defer r.mu.Unlock()
		text, _ := json.Marshal(body)
		if req.URL.Path == "/api/v1/status" {
			fmt.Fprint(w, `{}`)
			return
		}
		r.calls = append(r.calls, fmt.Sprintf("%s %s %s", req.Method, req.URL.RequestURI(), text))
		if r.code != 200 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(r.code)
			fmt.Fprintf(w, `{"detail": "this needs the role operate"}`)
			return
		}
		switch {
		case strings.HasSuffix(req.URL.Path, "/sessions"):
			_ = json.NewEncoder(w).Encode(client.SessionList{Sessions: sessions})
		case req.Method == "PATCH":
			fmt.Fprint(w, `{"state": "drain", "weight": 7, "open": 3}`)
		default:
			fmt.Fprint(w, `{}`)
		}
	}))
	t.Cleanup(s.Close)
	api, err := client.New(client.Options{Address: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	r.Model = newModel(context.Background(), api)
	r.now, r.zone = func() time.Time { return noon }, time.UTC
	return r
}

var sessions = []client.Session{
	{ID: "1-1-1", Protocol: "tcp", Frontend: "web", Pool: "web", Backend: "10.0.0.1:80", Client: "192.0.2.7:40001", State: "open", Age: 61, Idle: 1, Bytes: client.Bytes{C2B: 1 << 20, B2C: 34 << 20}, SNI: "a.example\x1b[2J"},
	{ID: "1-2-1", Protocol: "tcp", Frontend: "web", Pool: "web", Backend: "10.0.0.2:80", Client: "[2001:db8::7]:40002", State: "connecting", Age: 0.2},
}

// sampleOf has a pool web with three backends and a pool many with n.
func sampleOf(n int) *client.Sample {
	p50, p99 := 180e-6, 2.4e-3
	s := &client.Sample{Time: noon, Version: 3, Totals: client.Totals{Sessions: 1234, Flows: 7, New: 45.2, C2B: 1.2e6, B2C: 34e6, Errors: 0.5, ConnectP50: &p50, ConnectP99: &p99},
		Frontends: []client.SampleFrontend{{Name: "web", Flowing: client.Flowing{Open: 1234, New: 45.2, C2B: 1.2e6, B2C: 34e6}}, {Name: "dns"}},
		Pools: []client.SamplePool{{Name: "web", Up: 1, Down: 1, Other: 1, Flowing: client.Flowing{Open: 1234, New: 45.2}, Backends: []client.SampleBackend{
			{Address: "10.0.0.1:80", State: "up", Weight: 1, Flowing: client.Flowing{Open: 900, New: 40, C2B: 1e6, B2C: 30e6}, ConnectP99: &p99},
			{Address: "10.0.0.2:80", State: "down", Weight: 1, Flowing: client.Flowing{Open: 34}, Errors: 0.5},
			{Address: "[2001:db8::10]:80", State: "drain", Weight: 10, Flowing: client.Flowing{Open: 300, New: 5.2, C2B: 2e5, B2C: 4e6}},
		}}}}
	many := client.SamplePool{Name: "many", Up: n}
	for i := range n {
		many.Backends = append(many.Backends, client.SampleBackend{Address: fmt.Sprintf("10.1.%d.%d:80", i/250, i%250), State: "up", Weight: 1, Flowing: client.Flowing{Open: int64(i)}})
	}
	if n > 0 {
		s.Pools = append(s.Pools, many)
	}
	return s
}

func statusOf() *client.Status {
	s := &client.Status{Version: "1.2.3", State: "running", Started: noon.Add(-2*time.Hour - 13*time.Minute), Sessions: client.Usage{Open: 1234, Limit: 4837}, Flows: client.Usage{Open: 7, Limit: 9674}}
	s.Config.LastOK = true
	s.Frontends = []client.Frontend{{Name: "web", Protocol: "tcp", Listeners: []string{"127.0.0.1:8080"}}, {Name: "dns", Protocol: "udp", Listeners: []string{"127.0.0.1:5353"}}}
	s.Pools = []client.Pool{{Name: "web", Backends: []client.Backend{
		{Pool: "web", Address: "10.0.0.1:80", Health: &client.Health{Kind: "tcp", State: "up", Since: noon.Add(-time.Hour)}},
		{Pool: "web", Address: "10.0.0.2:80", Health: &client.Health{Kind: "tcp", State: "down", Since: noon.Add(-90 * time.Second), LastError: "connection refused"}},
	}}}
	return s
}

var events = []client.Event{
	{Time: noon.Add(-90 * time.Second), Pool: "web", Backend: "10.0.0.2:80", What: "health", From: "up", To: "down", Why: "connection refused"},
	{Time: noon.Add(-time.Hour), Pool: "web", Backend: "[2001:db8::10]:80", What: "order", From: "up", To: "drain", By: "basic:ops"},
}

// fed has heard of everything.
func fed(t *testing.T, n int) *rig {
	r := newRig(t)
	r.send(sampleMsg{sampleOf(n)}, statusMsg{statusOf(), nil}, eventsMsg{events})
	return r
}

// send feeds messages, and does what they lead to but for ticks and batches.
func (r *rig) send(msgs ...tea.Msg) {
	r.t.Helper()
	for _, msg := range msgs {
		if _, cmd := r.Update(msg); cmd != nil {
			next := cmd()
			switch next.(type) {
			case nil, tea.BatchMsg, tea.QuitMsg:
			default:
				r.send(next)
			}
		}
	}
}

// press feeds keys, named as bubbletea names them.
func (r *rig) press(keys ...string) {
	r.t.Helper()
	for _, name := range keys {
		k := tea.Key{Text: name}
		switch name {
		case "enter":
			k = tea.Key{Code: tea.KeyEnter}
		case "esc":
			k = tea.Key{Code: tea.KeyEscape}
		case "down":
			k = tea.Key{Code: tea.KeyDown}
		case "pgdown":
			k = tea.Key{Code: tea.KeyPgDown}
		case "backspace":
			k = tea.Key{Code: tea.KeyBackspace}
		case "space":
			k = tea.Key{Code: tea.KeySpace, Text: " "}
		default:
			k.Code = []rune(name)[0]
		}
		r.send(tea.KeyPressMsg(k))
	}
}

// screen returns what is seen, and checks that it fits.
func (r *rig) screen() string {
	r.t.Helper()
	text := r.View().Content
	lines := strings.Split(text, "\n")
	if len(lines) != max(r.height, 1) {
		r.t.Errorf("%d lines on a screen of %d", len(lines), r.height)
	}
	for i, line := range lines {
		if w := ansi.StringWidth(line); w > r.width {
			r.t.Errorf("line %d has %d cells on a screen of %d: %q", i, w, r.width, line)
		}
	}
	return strings.ReplaceAll(ansi.Strip(text), r.api.Address(), "127.0.0.1:7070")
}

func (r *rig) wants(parts ...string) {
	r.t.Helper()
	for _, part := range parts {
		if !strings.Contains(r.screen(), part) {
			r.t.Errorf("no %q in\n%s", part, r.screen())
		}
	}
}

func (r *rig) lastCall() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.calls) == 0 {
		return ""
	}
	return r.calls[len(r.calls)-1]
}

func TestGolden(t *testing.T) {
	for _, size := range []struct{ w, h int }{{80, 24}, {120, 40}, {44, 12}} {
		for i, name := range tabNames {
			r := fed(t, 50)
			r.api = must(client.New(client.Options{Address: "127.0.0.1:7070"})) // its length counts
			r.send(tea.WindowSizeMsg{Width: size.w, Height: size.h}, sessionsMsg{list: client.SessionList{Sessions: sessions}})
			r.tab = i
			path := filepath.Join("testdata", fmt.Sprintf("%s-%dx%d.txt", name, size.w, size.h))
			got := trimmed(r.screen())
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || got != string(want) {
				t.Errorf("%s: %v: got\n%s\nwant\n%s", path, err, got, want)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// trimmed returns text without blanks at the ends of lines.
func trimmed(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestEverySize: whatever the size of the terminal, nothing is drawn outside of it.
func TestEverySize(t *testing.T) {
	r := fed(t, 20)
	for w := 1; w < 130; w += 3 {
		for h := 1; h < 30; h++ {
			r.send(tea.WindowSizeMsg{Width: w, Height: h})
			for r.tab = range numTabs {
				r.screen()
			}
			r.tab, r.help = 0, true
			r.screen()
			r.help = false
		}
	}
}

func TestOrders(t *testing.T) {
	r := fed(t, 0)
	patch := func(address, body string) string {
		return "PATCH /api/v1/pools/web/backends/" + address + " " + body
	}
	// Nothing is done before y.
	r.press("d")
	r.wants("drain web/10.0.0.1:80 (900 open go on)? y/N")
	if call := r.lastCall(); call != "" {
		t.Fatalf("asked too late: %s", call)
	}
	r.press("n")
	r.wants("nothing is done")
	r.press("d", "enter")
	r.wants("nothing is done")
	if call := r.lastCall(); call != "" {
		t.Fatalf("done without y: %s", call)
	}
	for _, tc := range []struct {
		keys []string
		want string
	}{
		{[]string{"d", "y"}, patch("10.0.0.1:80", `{"state":"drain"}`)},
		{[]string{"down", "m", "y"}, patch("10.0.0.2:80", `{"state":"maintenance"}`)},
		{[]string{"e", "y"}, patch("10.0.0.2:80", `{"state":"ready"}`)},
		{[]string{"w", "4", "2", "backspace", "enter", "y"}, patch("10.0.0.2:80", `{"weight":4}`)},
		{[]string{"w", "enter", "y"}, patch("10.0.0.2:80", `{"weight":null}`)},
	} {
		r.press(tc.keys...)
		if call := r.lastCall(); call != tc.want {
			t.Errorf("%v: %s; want %s", tc.keys, call, tc.want)
		}
		r.wants(": drain, weight 7, 3 open")
	}
	r.press("w", "x", "enter")
	r.wants(`weight: got "x"; want a number from 0 to 1000`)

	// A refusal is told.
	r.mu.Lock()
	r.code = 403
	r.mu.Unlock()
	r.press("d", "y")
	r.wants("not done: this needs the role operate")

	// Elsewhere there is no backend to order anything of.
	r.press("2", "d")
	r.wants("choose a backend first")
}

func TestKill(t *testing.T) {
	r := fed(t, 0)
	r.press("x")
	r.wants("choose a session first")
	r.press("4")
	r.wants("192.0.2.7:40001", "2001:db8::7")
	r.press("down", "x")
	r.wants("end the session of [2001:db8::7]:40002 to 10.0.0.2:80? y/N")
	r.press("y")
	if call := r.lastCall(); call != "DELETE /api/v1/sessions/1-2-1 null" {
		t.Error(call)
	}
	r.wants("ended: [2001:db8::7]:40002")
	if strings.Contains(r.View().Content, "\x1b[2J") {
		t.Error("a name that a client sent steers the terminal")
	}
}

// TestCursorStays: a row that moves takes the cursor along, so that an order reaches who was chosen.
func TestCursorStays(t *testing.T) {
	r := fed(t, 0)
	r.press(">", ">", ">", ">", ">", "down") // by open, the largest first: 900, 300, 34
	r.wants("▼OPEN")
	if b := r.backends().current(r.list()); b.Address != "[2001:db8::10]:80" {
		t.Fatalf("on %s", b.Address)
	}
	s := sampleOf(0)
	s.Pools[0].Backends[2].Open = 5000
	r.send(sampleMsg{s})
	if b := r.backends().current(r.list()); b.Address != "[2001:db8::10]:80" || r.list().at != 0 {
		t.Errorf("on %s, row %d", b.Address, r.list().at)
	}
	r.press("r")
	r.screen()
	if b := r.backends().current(r.list()); b.Address != "[2001:db8::10]:80" || r.list().at != 2 {
		t.Errorf("the other way round: on %s, row %d", b.Address, r.list().at)
	}
	// One that is gone leaves the cursor where it was.
	s = sampleOf(0)
	s.Pools[0].Backends = s.Pools[0].Backends[:2]
	r.send(sampleMsg{s})
	r.screen()
	if b := r.backends().current(r.list()); b == nil || r.list().at != 1 {
		t.Errorf("on %v, row %d", b, r.list().at)
	}
}

func TestFilterAndNarrowing(t *testing.T) {
	r := fed(t, 1000)
	r.wants("1003")
	r.press("/", "w", "e", "b", "space", "d", "o", "w", "n")
	r.wants("filter: web down", "1 of 1003", "10.0.0.2:80")
	r.press("enter", "d")
	r.wants("drain web/10.0.0.2:80")
	r.press("n", "esc")
	r.wants("1003")
	r.press("/", "z", "z", "enter")
	r.wants("none fits the filter")
	r.press("/", "esc")
	r.wants("/zz")
	r.press("esc", "2", "enter")
	r.wants("of web  3")
	r.press("enter")
	if call := r.lastCall(); call != "GET /api/v1/sessions?backend=10.0.0.1%3A80&limit=500&pool=web null" {
		t.Error(call)
	}
	r.wants("of web/10.0.0.1:80")
	r.press("esc", "esc")
	r.wants("1003")
}

// TestScroll: a thousand backends, and the row under the cursor is always seen.
func TestScroll(t *testing.T) {
	r := fed(t, 1000)
	for range 60 {
		r.press("pgdown")
		b := r.backends().current(r.list())
		r.wants(b.Address)
	}
	r.wants("10.1.3.249:80")
	r.press("g")
	r.wants("10.0.0.1:80")
	r.press("G")
	r.wants("10.1.3.249:80")
}

func TestStale(t *testing.T) {
	r := newRig(t)
	r.wants("connecting", "waiting for the first sample")
	r.send(cutMsg{errors.New("connection refused")})
	r.wants("NOT CONNECTED", "trying again: connection refused")
	r.send(sampleMsg{sampleOf(0)})
	r.wants("live")
	r.now = func() time.Time { return noon.Add(7 * time.Second) }
	r.wants("STALE 7s")
	r.send(sampleMsg{sampleOf(0)})
	r.wants("live")
	r.send(cutMsg{errors.New("the stream has ended")})
	r.wants("STALE 0s", "trying again: the stream has ended")
	// What happened in between is asked for when it is back.
	_, cmd := r.Update(sampleMsg{sampleOf(0)})
	if cmd == nil {
		t.Error("events are not asked for again")
	}
}

func TestPaused(t *testing.T) {
	r := fed(t, 0)
	r.press("space")
	s := sampleOf(0)
	s.Totals.New = 99999
	r.send(sampleMsg{s})
	r.wants("PAUSED", "new 45.2/s")
	r.press("space")
	r.send(sampleMsg{s})
	r.wants("live", "new 100k/s")
}

func TestEventsComeLive(t *testing.T) {
	r := fed(t, 0)
	r.press("5")
	r.send(changeMsg{[]client.Event{{Time: noon, Pool: "web", Backend: "10.0.0.2:80", What: "health", From: "down", To: "up"}}})
	r.wants("down → up", "up → down", "by basic:ops")
	if lines := strings.Split(r.screen(), "\n"); !strings.Contains(lines[headLines+1], "down → up") {
		t.Errorf("the newest is not the first:\n%s", r.screen())
	}
}

func TestQuitAndHelp(t *testing.T) {
	r := fed(t, 0)
	r.press("?")
	r.wants("this help; quit")
	r.press("x")
	r.wants("d drain m")
	for _, k := range []tea.Key{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, cmd := r.Update(tea.KeyPressMsg(k))
		if cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%v does not quit", k)
		}
	}
}

// BenchmarkDraw: a thousand backends, sorted and filtered, once.
func BenchmarkDraw(b *testing.B) {
	m := newModel(context.Background(), must(client.New(client.Options{})))
	m.Update(sampleMsg{sampleOf(1000)})
	m.lists[0].sort, m.lists[0].filter = 4, "up"
	b.ReportAllocs()
	for b.Loop() {
		m.draw()
	}
}
