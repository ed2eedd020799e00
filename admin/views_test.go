package admin

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestViews holds each compatible view against a file: its names, types and labels are those of others and may not change.
func TestViews(t *testing.T) {
	backend, down := lbtest.Echo(t), lbtest.Refused(t)
	r := newRig(t, backend, down)
	r.traffic().Close()
	lbtest.Eventually(t, "the session ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	held := r.traffic()
	defer held.Close()
	r.datagrams()
	host := func(address string) string {
		_, port, _ := net.SplitHostPort(address)
		return `port="` + port + `"`
	}
	for name := range views {
		if name == "" {
			continue
		}
		code, text, header := r.do("GET", "/metrics?view="+name)
		if code != 200 || header.Get("Content-Type") != textFormat {
			t.Errorf("%s: %d %v", name, code, header)
		}
		checkExposition(t, text)
		own, process, has := strings.Cut(text, "\n# TYPE go_")
		if has != (name == "gobetween") || has && !strings.Contains(process, "process_resident_memory_bytes") {
			t.Errorf("%s: metrics of the process: %v", name, has)
		}
		own = regexp.MustCompile(`(?m)^((?:envoy_server_uptime|haproxy_process_(?:uptime|start_time)_seconds|haproxy_process_max_(?:fds|connections)|\w+_time_average_seconds\{.*\}|\w+_ms_(?:sum|bucket)\{.*\})) \S+`).ReplaceAllString(own, "$1 *")
		golden(t, "metrics-"+name+".txt", own+"\n", r.udp, "127.0.0.1:UDP", backend, "127.0.0.1:BACKEND", down, "127.0.0.1:DOWN",
			host(r.udp), `port="UDP"`, host(backend), `port="BACKEND"`, host(down), `port="DOWN"`)
		if name == "gobetween" && regexp.MustCompile(`(?m)^# TYPE gobetween_\S+ [^g]`).MatchString(own) {
			t.Error("gobetween has gauges only")
		}
	}
}

func TestViewsRefuse(t *testing.T) {
	r := newRig(t, "127.0.0.1:1")
	for query, want := range map[string]string{
		"view=nginx":                        `view: got \"nginx\"; want gobetween, haproxy or envoy`,
		"vieww=haproxy":                     `\"vieww\" is not known here`,
		"metrics=a":                         `\"metrics\" is not known here`,
		"no-maint":                          `\"no-maint\" is not known here`,
		"view=gobetween&scope=server":       `\"scope\" is not known here`,
		"view=envoy&no-maint":               `\"no-maint\" is not known here`,
		"view=haproxy&scope=pool":           `scope: got \"pool\"; want backend, frontend, global, listener, server, sticktable, * or nothing`,
		"scope=server":                      `scope: got \"server\"; want backend, certificate, discovery, frontend, pool, process, * or nothing`,
		"view=haproxy&usedonly":             `\"usedonly\" is not known here`,
		"view=" + strings.Repeat("x", 2000): `view: got`,
	} {
		if code, body, header := r.do("GET", "/metrics?"+query); code != 400 || !strings.Contains(body, want) || header.Get("Content-Type") != "application/problem+json" || len(body) > 1000 {
			t.Errorf("%.80s: %d %s; want 400 and %s", query, code, body, want)
		}
	}
}

// families returns the names of the families of a text that begin so.
func families(text, prefix string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(m[1], prefix) {
			found[m[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TestFilters: HAProxy's filters, and scopes of the native view. No answer is in parts that were not asked for.
func TestFilters(t *testing.T) {
	r := newRig(t, "127.0.0.1:1", "127.0.0.1:2")
	if err := r.d.Order("p", "127.0.0.1:2", balancer.Maintain, "test"); err != nil {
		t.Fatal(err)
	}
	get := func(query string) string {
		t.Helper()
		code, body, _ := r.do("GET", "/metrics?"+query)
		if code != 200 {
			t.Fatalf("%s: %d %s", query, code, body)
		}
		return body
	}
	scopes := func(text string) string {
		found := map[string]bool{}
		for _, f := range families(text, "") {
			scope := strings.Join(strings.SplitN(f, "_", 3)[:2], "_")
			found[scope] = true
		}
		return strings.Join(slices.Sorted(maps.Keys(found)), " ")
	}
	const all = "haproxy_backend haproxy_frontend haproxy_process haproxy_server"
	for query, want := range map[string]string{
		"":                                   all,
		"&scope=*":                           all,
		"&extra-counters&desc-labels":        all,
		"&scope=server":                      "haproxy_server",
		"&scope=frontend&scope=global":       "haproxy_frontend haproxy_process",
		"&scope=server&scope=":               "",
		"&scope=server&scope=&scope=backend": "haproxy_backend",
		"&scope=listener&scope=sticktable":   "",
	} {
		if got := scopes(get("view=haproxy" + query)); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	if got := families(get("view=haproxy&metrics=haproxy_server_status,haproxy_frontend_status"), ""); !slices.Equal(got, []string{"haproxy_frontend_status", "haproxy_server_status"}) {
		t.Errorf("two metrics: %v", got)
	}
	if got := get("view=haproxy&scope=server&metrics=-haproxy_server_check_status,-haproxy_server_status"); strings.Contains(got, "_status") || !strings.Contains(got, "haproxy_server_weight") {
		t.Errorf("all but two: %v", families(got, ""))
	}
	in := `haproxy_server_status{proxy="p",server="127.0.0.1:2",state="MAINT"} 1`
	if with, without := get("view=haproxy"), get("view=haproxy&no-maint"); !strings.Contains(with, in) || strings.Contains(without, `"127.0.0.1:2"`) ||
		!strings.Contains(without, `haproxy_backend_agg_server_status{proxy="p",state="MAINT"} 1`) {
		t.Error("no-maint leaves out the servers in maintenance, and nothing else")
	}

	native := map[string]string{"pool": "awe4lb_pool_", "backend": "awe4lb_backend_ awe4lb_health_", "certificate": "awe4lb_certificate_ awe4lb_acme_ awe4lb_ocsp_"}
	for scope, prefixes := range native {
		for _, f := range families(get("scope="+scope), "") {
			if !slices.ContainsFunc(strings.Fields(prefixes), func(p string) bool { return strings.HasPrefix(f, p) }) {
				t.Errorf("scope %s has %s", scope, f)
			}
		}
	}
	parts := 0
	for _, scope := range []string{"process", "frontend", "pool", "backend", "certificate", "discovery"} {
		n := len(families(get("scope="+scope), "awe4lb_"))
		if n == 0 {
			t.Errorf("scope %s is empty", scope)
		}
		parts += n
	}
	if whole := len(families(get(""), "awe4lb_")); parts != whole {
		t.Errorf("the scopes have %d families, together there are %d", parts, whole)
	}
}

// TestLabelEscapes: a value may be any bytes, such as the path of a file; the format has three escapes.
func TestLabelEscapes(t *testing.T) {
	for value, want := range map[string]string{
		"a":            `a`,
		"a\tb":         "a\tb",
		"\u200b\x01é":  "\u200b\x01é",
		"a\"b\\c\nd":   `a\"b\\c\nd`,
		"not \xff\xfe": "not \uFFFD",
	} {
		if got := labels("l", value); got != `l="`+want+`"` {
			t.Errorf("%q: got %s, want %q", value, got, want)
		}
	}
	path := filepath.Join(t.TempDir(), "with\u00a0space \"and\" quote.txt")
	if err := os.WriteFile(path, []byte("10.0.0.0/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "127.0.0.1:1")
	cfg, err := config.Parse("test.toml", fmt.Appendf(nil, "[frontends.f]\nbind = [\"127.0.0.1:0\"]\naccess = { rules = [{ deny_file = %q }] }\n", path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.d.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	_, body, _ := r.do("GET", "/metrics")
	if want := `awe4lb_access_list_stale{file="` + strings.ReplaceAll(path, `"`, `\"`) + `"} 0`; !strings.Contains(body, want+"\n") {
		t.Errorf("no %s", want)
	}
}

// seriesOf returns the names and labels of all series of awe4lb in a text.
func seriesOf(text string) map[string]float64 {
	all := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^((?:awe4lb|gobetween|haproxy|envoy)_[^{ ]+(?:\{.*\})?) (\S+)$`).FindAllStringSubmatch(text, -1) {
		all[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	return all
}

// TestSeriesComeAndGo: each view has series for what is configured, from the first scrape on and with the same for every
// object of a kind, and none for what is gone.
func TestSeriesComeAndGo(t *testing.T) {
	r := newRig(t)
	apply := func(text string) {
		t.Helper()
		cfg, err := config.Parse("test.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.d.Apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	const base = "[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[pools.p]\nbackends = [{ address = \"127.0.0.1:1\" }]\n"
	more := func(n int) string {
		text := base
		for i := range n {
			text += fmt.Sprintf("[frontends.x%d]\nbind = [\"127.0.0.1:0\"]\npool = \"x%d\"\n[pools.x%d]\nbackends = [{ address = \"127.0.0.2:%d\" }, { address = \"127.0.0.3:%d\" }]\n", i, i, i, i+1, i+1)
		}
		return text
	}
	for name := range views {
		count := func() int {
			t.Helper()
			_, text, _ := r.do("GET", "/metrics?view="+name)
			checkExposition(t, text)
			return len(seriesOf(text))
		}
		apply(base)
		before := count()
		apply(more(1))
		each := count() - before
		if each <= 0 {
			t.Errorf("view %q: %d series for a frontend, a pool and two backends", name, each)
		}
		for range 3 {
			apply(more(5))
			if n := count(); n != before+5*each {
				t.Errorf("view %q: %d series, want %d + 5 · %d", name, n, before, each)
			}
			apply(base)
			if n := count(); n != before {
				t.Errorf("view %q: %d series are left of what is gone", name, n-before)
			}
		}
	}
}

// TestClientsAddNoSeries: whoever comes, from wherever, asking for whatever name.
func TestClientsAddNoSeries(t *testing.T) {
	backend := lbtest.Echo(t)
	r := newRig(t)
	cfg, err := config.Parse("test.toml", fmt.Appendf(nil, "[frontends.f]\nbind = [\"127.0.0.1:0\"]\nmax_connections_per_source = 10\nconnection_rate_per_source = 100\n"+
		"[[frontends.f.routes]]\nmatch = { sni = [\"*.example\"] }\npool = \"p\"\n[pools.p]\nbackends = [{ address = %q }]\n", backend))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.d.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	sets := func() map[string]string {
		all := map[string]string{}
		for name := range views {
			_, text, _ := r.do("GET", "/metrics?view="+name)
			all[name] = strings.Join(slices.Sorted(maps.Keys(seriesOf(text))), "\n")
		}
		return all
	}
	before := sets()
	const clients = 1000
	for i := range clients {
		visit(t, r.e.Listeners()[0].Address.String(), i)
	}
	lbtest.Eventually(t, "all sessions ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	if n := r.e.Stats().Frontends["f"].Accepted; n != clients {
		t.Fatalf("%d clients came, want %d", n, clients)
	}
	if after := sets(); !maps.Equal(after, before) {
		t.Error("clients have added series")
	}
}

// visit is a client with an address and a name of its own.
func visit(t *testing.T, address string, i int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1+byte(i>>16), byte(i>>8), byte(i))}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(lbtest.ClientHello(fmt.Sprintf("n%06d.example", i)))
}

// TestSumsNeverFall: what a pool has counted stays counted when a backend goes, also where the counters are of before.
func TestSumsNeverFall(t *testing.T) {
	t.Run("counters of now", func(t *testing.T) { sumsNeverFall(t, false) })
	t.Run("counters that are shared", func(t *testing.T) { sumsNeverFall(t, true) })
}

func sumsNeverFall(t *testing.T, shared bool) {
	backend := lbtest.Echo(t)
	r := newRig(t, backend)
	for range 3 {
		r.traffic().Close()
	}
	lbtest.Eventually(t, "the sessions ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	scrape := func() map[string]float64 {
		all := map[string]float64{}
		for _, name := range []string{"haproxy", "envoy"} {
			_, text, _ := r.do("GET", "/metrics?view="+name)
			kinds := map[string]string{}
			for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)`).FindAllStringSubmatch(text, -1) {
				kinds[m[1]] = m[2]
			}
			for s, v := range seriesOf(text) {
				family, _, _ := strings.Cut(s, "{")
				if kinds[family] == "counter" && !strings.Contains(s, "server=") {
					all[s] = v
				}
			}
		}
		return all
	}
	before := scrape()
	if before[`haproxy_backend_sessions_total{proxy="p"}`] != 3 || before[`envoy_cluster_upstream_cx_tx_bytes_total{envoy_cluster_name="p"}`] != 12 {
		t.Fatalf("%v", before)
	}
	if shared {
		r.s.crowd.mu.Lock()
		r.s.crowd.paid = time.Now().Add(time.Hour)
		r.s.crowd.mu.Unlock()
		r.s.looks.mu.Lock()
		r.s.looks.at = time.Now().Add(time.Hour)
		r.s.looks.mu.Unlock()
	}
	cfg, err := config.Parse("test.toml", []byte("[frontends.g]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[pools.p]\nbackends = [{ address = \"127.0.0.1:1\" }]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.d.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	after := scrape()
	for s, v := range before {
		// What belongs to a frontend or a pool that is gone goes; all others stay.
		if now, there := after[s]; there && now < v {
			t.Errorf("%s: %v, was %v", s, now, v)
		}
	}
	if n := after[`haproxy_backend_sessions_total{proxy="p"}`]; n != 3 {
		t.Errorf("the pool has %v sessions after its backend went; want 3", n)
	}
	if n := after["haproxy_process_connections_total"]; n != 3 {
		t.Errorf("the process has %v connections after its frontend went; want 3", n)
	}
}

// TestCheckStates holds HAProxy's words for checks against ours.
func TestCheckStates(t *testing.T) {
	for _, tc := range []struct {
		kind, result, want string
	}{
		{"tcp", "good", "L4OK"}, {"tcp", "bad", "L4CON"}, {"tls", "good", "L6OK"}, {"tls", "bad", "L6RSP"}, {"http", "good", "L7OK"}, {"grpc", "bad", "L7RSP"},
		{"exec", "good", "PROCOK"}, {"exec", "bad", "PROCERR"}, {"tcp", "unknown", "SOCKERR"},
	} {
		now := time.Now()
		b := &backendStatus{Health: &healthStatus{Kind: tc.kind, LastResult: tc.result, LastCheck: &now}}
		if got := checkState(b); got != tc.want || !slices.Contains(checkStates, got) {
			t.Errorf("%s, %s: got %s, want %s", tc.kind, tc.result, got, tc.want)
		}
	}
	if got := checkState(&backendStatus{}); got != "" {
		t.Errorf("without a check: %q", got)
	}
	for _, tc := range []struct {
		state         string
		changes, want uint64
	}{{"up", 0, 0}, {"down", 1, 1}, {"up", 2, 1}, {"down", 3, 2}, {"up", 1, 0}, {"down", 2, 1}} {
		if got := timesDown(&healthStatus{State: tc.state, Changes: tc.changes}); got != tc.want {
			t.Errorf("%+v: got %d", tc, got)
		}
	}
}
