package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/lbtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// rig is an admin in front of a working engine.
type rig struct {
	t       testing.TB
	e       *engine.Engine
	udp     string // the backend of frontend d
	d       *balancer.Director
	s       *Server
	url     string
	reload  func() (*balancer.Report, error)
	configs *configsOf
	level   atomic.Int32
	ended   atomic.Bool
}

// newRig starts an engine on a free port with the backends given, and an admin for it.
func newRig(t testing.TB, backends ...string) *rig {
	t.Helper()
	r := &rig{t: t, d: balancer.NewDirector()}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	if r.e, err = engine.New(r.d, engine.Options{Shards: 2, ReadBuffer: 64 << 10, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.e.Close)
	r.d.Drive(r.e)
	text := "[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\nmax_connections = 2\nmax_connections_per_source = 1000\n" +
		"[pools.p]\npolicy = \"leastconn\"\nmax_connections = 1000\nqueue = { size = 10 }\nbackends = [\n"
	for i, b := range backends {
		text += fmt.Sprintf("{ address = %q, weight = %d },\n", b, i+1)
	}
	r.udp = lbtest.EchoDatagrams(t)
	text += "]\n[frontends.d]\nbind = [\"127.0.0.1:0\"]\nprotocol = \"udp\"\npool = \"d\"\nudp = { buffer_size = 100 }\n" +
		fmt.Sprintf("[pools.d]\npersistence = { max_entries = 100 }\noutliers = {}\nbackends = [{ address = %q }]\n", r.udp)
	text += "[pools.unused]\nbackends = [{ address = \"unix:/x\", weight = 0 }]\n"
	r.configs = newConfigs(r, filepath.Join(t.TempDir(), "test.toml"), []byte(text))
	r.s, err = Start(open(config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}), Options{
		Engine: r.e, Director: r.d, Configs: r.configs, Log: log, Version: "v1.2.3", Revision: "abc", File: "test.toml",
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Level:   func() slog.Level { return slog.Level(r.level.Load()) }, SetLevel: func(l slog.Level) { r.level.Store(int32(l)) },
		End:    func() { r.ended.Store(true) },
		Reload: func() (*balancer.Report, error) { return r.reload() },
		Reloads: func() Reloads {
			return Reloads{OK: 3, Failed: 1, Last: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), LastOK: true}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.s.Stop(context.Background()) })
	r.url = "http://" + r.s.Address()
	return r
}

// open is the configuration of an admin at an address, for everybody.
func open(a config.Address) *config.Admin { return &config.Admin{Address: a, Anonymous: "configure"} }

// do sends a request with headers given as pairs.
func (r *rig) do(method, path string, headers ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	return r.send(req)
}

func (r *rig) send(req *http.Request) (int, string, http.Header) {
	r.t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// datagrams has a client ask frontend d, hear, and send one datagram that is too large.
func (r *rig) datagrams() {
	r.t.Helper()
	c, err := net.Dial("udp", r.e.Listeners()[1].Address.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_, _ = c.Write(make([]byte, 101))
	_, _ = c.Write([]byte("ping"))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 10)); err != nil || n != 4 {
		r.t.Fatalf("%d bytes, %v", n, err)
	}
}

// traffic has a client ask and hear.
func (r *rig) traffic() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.e.Listeners()[0].Address.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "ping"); err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// golden compares got, with what differs from run to run replaced, with a file.
func golden(t *testing.T, name, got string, replace ...string) {
	t.Helper()
	got = strings.NewReplacer(replace...).Replace(got)
	for _, re := range []string{`("uptime_seconds": )[0-9.]+`, `("limit": )\d+`, `("go": ")[^"]+`, `(goversion=")[^"]+`,
		`(_sessions_limit )\d+`, `((?:duration|first_byte)_seconds_(?:sum|bucket).*) [0-9.e-]+`} {
		got = regexp.MustCompile(re).ReplaceAllString(got, "$1 *")
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test ./admin -update):\n%s", path, got)
	}
}

// TestMethodNotAllowed: what is said to be allowed is.
func TestMethodNotAllowed(t *testing.T) {
	r := newRig(t)
	for _, method := range []string{"PATCH", "OPTIONS"} {
		if status, _, h := r.do(method, "/api/v1/status"); status != 405 || h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow: %s", method, status, h.Get("Allow"))
		}
	}
}

// TestIndented: people get an answer that they can read, programs the same without the trouble.
func TestIndented(t *testing.T) {
	r := newRig(t)
	_, people, _ := r.do("GET", "/api/v1/pools")
	_, programs, _ := r.do("GET", "/api/v1/pools", "Accept", "application/json")
	var flat bytes.Buffer
	if err := json.Compact(&flat, []byte(people)); err != nil {
		t.Fatal(err)
	}
	if strings.Count(people, "\n  ") < 5 || flat.String() != strings.TrimSpace(programs) {
		t.Errorf("got %q for people and %q for programs; want the same, indented and not", people, programs)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	backend, down := lbtest.Echo(t), lbtest.Refused(t)
	r := newRig(t, backend, down)
	r.traffic().Close()
	lbtest.Eventually(t, "the session ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	held := r.traffic()
	defer held.Close()
	r.datagrams()

	// Which shard has what depends on the kernel's choice.
	perShard := regexp.MustCompile(`("sessions": )\d|("flows": )\d|(awe4lb_shard_(?:udp_)?sessions\{.*\}) \d`)
	replace := []string{r.udp, "127.0.0.1:UDP", r.e.Listeners()[1].Address.String(), "127.0.0.1:DATAGRAMS", backend, "127.0.0.1:BACKEND", down, "127.0.0.1:DOWN",
		r.e.Listeners()[0].Address.String(), "127.0.0.1:FRONTEND"}

	code, body, header := r.do("GET", "/api/v1/status")
	if code != 200 || header.Get("Content-Type") != "application/json" {
		t.Errorf("status: %d %v", code, header)
	}
	var st status
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		t.Fatal(err)
	}
	if open := st.Shards[0].Sessions + st.Shards[1].Sessions; open != 1 || st.Sessions.Open != 1 {
		t.Errorf("%d sessions on the shards, %d in all; want 1", open, st.Sessions.Open)
	}
	golden(t, "status.json", perShard.ReplaceAllString(body, "$1$2$3 *"), replace...)

	code, body, header = r.do("GET", "/metrics")
	if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("metrics: %d %v", code, header)
	}
	own, process, found := strings.Cut(body, "# TYPE go_")
	if !found || !strings.Contains(process, "process_resident_memory_bytes") {
		t.Error("no metrics of the process")
	}
	golden(t, "metrics.txt", perShard.ReplaceAllString(own, "$1$2$3 *"), replace...)
	checkExposition(t, body)
}

// checkExposition checks what Prometheus asks of the text format: one TYPE before the series of a family, names and
// labels well formed, no series twice.
func checkExposition(t *testing.T, text string) {
	t.Helper()
	line := regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]+="[^"]*",? ?)*\})? (\S+)$`)
	typed, seen := map[string]string{}, map[string]bool{}
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		if fields := strings.Fields(s.Text()); strings.HasPrefix(s.Text(), "# TYPE awe4lb_") {
			if typed[fields[2]] != "" {
				t.Errorf("two TYPE lines for %s", fields[2])
			}
			typed[fields[2]] = fields[3]
			continue
		}
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		m := line.FindStringSubmatch(s.Text())
		if m == nil {
			t.Errorf("malformed: %q", s.Text())
			continue
		}
		if seen[m[1]+m[2]] {
			t.Errorf("twice: %s%s", m[1], m[2])
		}
		seen[m[1]+m[2]] = true
		if !strings.HasPrefix(m[1], "awe4lb_") {
			continue
		}
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && typed[base] == "histogram" {
				name = base
			}
		}
		switch kind := typed[name]; {
		case kind == "":
			t.Errorf("%s has no TYPE", name)
		case kind == "counter" != strings.HasSuffix(name, "_total"):
			t.Errorf("%s is a %s: counters, and only they, end in _total", name, kind)
		}
	}
}

func TestReloadAnswers(t *testing.T) {
	r := newRig(t)
	_, mistakes := config.Parse("x.toml", []byte("a = 1\nb = 2\n"))
	for _, tc := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 200, `"version": 9`},
		{mistakes, 422, `"line": 2`},
		{&engine.BindError{Key: "frontends.f.bind[0]", Frontend: "f", Address: config.Address{Path: "/x"}, Err: errors.New("no")}, 409, "frontends.f.bind[0]: unix:/x: no; the running"},
		{&engine.HostError{Key: "pools.p.source", Err: errors.New("192.0.2.1: not ours")}, 409, "pools.p.source: 192.0.2.1: not ours; the running"},
		{&Refusal{422, errors.New("log file: no")}, 422, "log file: no; the running"},
		{errors.New("disk on fire"), 500, "disk on fire"},
	} {
		r.reload = func() (*balancer.Report, error) {
			if tc.err != nil {
				return nil, tc.err
			}
			return &balancer.Report{Version: 9, Changes: []balancer.Change{}}, nil
		}
		code, body, header := r.do("POST", "/api/v1/reload")
		if code != tc.code || !strings.Contains(body, tc.want) || !json.Valid([]byte(body)) {
			t.Errorf("%v: got %d %s; want %d and %s", tc.err, code, body, tc.code, tc.want)
		}
		if want := "application/problem+json"; tc.err != nil && header.Get("Content-Type") != want {
			t.Errorf("%v: Content-Type %q, want %s", tc.err, header.Get("Content-Type"), want)
		}
	}
}

// TestGuard has the requests that a page in a browser could send; none may have an effect.
func TestGuard(t *testing.T) {
	r := newRig(t)
	reloads := 0
	r.reload = func() (*balancer.Report, error) { reloads++; return &balancer.Report{}, nil }
	address := r.s.Address()
	for _, tc := range []struct {
		method, path string
		headers      []string
		code         int
	}{
		{"GET", "/healthz", nil, 200},
		{"HEAD", "/healthz", nil, 200},
		{"GET", "/", nil, 200},
		{"GET", "/nowhere", nil, 404},
		{"DELETE", "/healthz", nil, 405},
		{"GET", "/api/v1/reload", nil, 405},
		{"GET", "/api/v1/../../etc/passwd", nil, 404},
		{"GET", "/healthz", []string{"Host", "localhost:1"}, 200},
		{"GET", "/healthz", []string{"Host", "[::1]:7070"}, 200},
		{"GET", "/healthz", []string{"Host", "evil.example"}, 403},
		{"GET", "/healthz", []string{"Host", "127.0.0.1.evil.example"}, 403},
		{"GET", "/healthz", []string{"Host", "[::1].evil.example"}, 400},
		{"GET", "/healthz", []string{"Host", "localhost.evil.example:7070"}, 403},
		{"GET", "/healthz", []string{"Host", "10.0.0.1"}, 403},
		{"POST", "/api/v1/reload", []string{"Host", "evil.example"}, 403},
		{"POST", "/api/v1/reload", []string{"Origin", "http://evil.example"}, 403},
		{"POST", "/api/v1/reload", []string{"Origin", "null"}, 403},
		{"POST", "/api/v1/reload", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", "/api/v1/reload", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"POST", "/api/v1/reload", []string{"Origin", "http://" + address, "Sec-Fetch-Site", "same-origin"}, 200},
		{"POST", "/api/v1/reload", []string{"Origin", "https://" + address, "Sec-Fetch-Site", "same-origin"}, 200}, // through a proxy that ends TLS
		{"POST", "/api/v1/reload", []string{"Origin", "ftp://" + address}, 403},
		{"POST", "/api/v1/reload", []string{"Origin", "http://" + address + ".evil.example"}, 403},
		// What a foreign page has the browser load: nothing, but for a link that somebody follows.
		{"GET", "/api/v1/status", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 403},
		{"GET", "/api/v1/stream", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, 403},
		{"HEAD", "/metrics", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		{"GET", "/metrics", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 200},
		{"GET", "/metrics", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 200},
		{"GET", "/metrics", []string{"Origin", "http://evil.example"}, 403}, // of a browser that says no more
		{"POST", "/api/v1/reload", nil, 200},
	} {
		before := reloads
		code, body, _ := r.do(tc.method, tc.path, tc.headers...)
		if code != tc.code {
			t.Errorf("%s %s %v: %d %s; want %d", tc.method, tc.path, tc.headers, code, body, tc.code)
		}
		if reloaded := reloads > before; reloaded != (tc.method == "POST" && tc.code == 200) {
			t.Errorf("%s %s %v: reloaded %v", tc.method, tc.path, tc.headers, reloaded)
		}
	}
}

func TestHugeAndSlowRequests(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("tcp", r.s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", 100<<20)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode < 400 {
		t.Errorf("100 MiB of body: %v, %v; want a refusal", res, err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	r := newRig(t)
	for range 2 { // the second finds what the first left behind
		s, err := Start(open(config.Address{Path: path}), r.s.o)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
		if _, err := Start(open(config.Address{Path: path}), r.s.o); err == nil {
			t.Error("a second admin took the socket over")
		}
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		res, err := client.Get("http://any.name/healthz")
		if err != nil || res.StatusCode != 200 {
			t.Errorf("got %v, %v", res, err)
		}
		client.CloseIdleConnections()
		s.Stop(context.Background())
	}
}

// TestNothingLeaks: starting, asking and stopping again and again leaves no descriptor behind.
func TestNothingLeaks(t *testing.T) {
	r := newRig(t)
	before := lbtest.FDs(t)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 20 {
		s, err := Start(open(config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}), r.s.o)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Get("http://" + s.Address() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		s.Stop(context.Background())
	}
	lbtest.Eventually(t, "as many descriptors as before", func() bool { return lbtest.FDs(t) <= before })
}

// runs is what runs, for who asks nothing else.
type runs struct{ Configs }

func (runs) Running() *Running { return &Running{} }

// BenchmarkScrape1000 is a scrape of 1,000 backends, and what of it is making the text: the rest is the client's.
func BenchmarkScrape1000(b *testing.B) {
	var backends []*config.Backend
	for i := range 1000 {
		backends = append(backends, &config.Backend{Weight: 1,
			Address: config.Address{IP: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1))}})
	}
	d := balancer.NewDirector()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	e, err := engine.New(d, engine.Options{Shards: 2, ReadBuffer: 64 << 10, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	d.Drive(e)
	if _, err := d.Apply(&config.Config{Pools: []*config.Pool{{Name: "p", Policy: "random", Backends: backends}}}); err != nil {
		b.Fatal(err)
	}
	s, err := Start(&config.Admin{Address: config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, Anonymous: "configure"}, Options{Engine: e, Director: d, Log: log,
		Configs: runs{}, Reloads: func() Reloads { return Reloads{} }})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Stop(context.Background())
	b.Run("http", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			res, err := http.Get("http://" + s.Address() + "/metrics")
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				b.Fatal(res.Status)
			}
		}
	})
	for name := range views {
		b.Run("text="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.text(&viewQuery{view: views[name]})
			}
		})
	}
}
