//go:build e2e && prometheus

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// These tests want Debian's prometheus, which `make test-prometheus` unpacks; PROMETHEUS is where.

func tool(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("PROMETHEUS"), "usr/bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make test-prometheus`", err)
	}
	return path
}

// views are the queries of GET /metrics.
var views = map[string]string{"native": "", "gobetween": "?view=gobetween", "haproxy": "?view=haproxy", "envoy": "?view=envoy"}

// TestPromtoolMetrics: promtool finds nothing to say about our own series, nor about HAProxy's; gobetween's and Envoy's names
// are what they are, but the text is well formed.
func TestPromtoolMetrics(t *testing.T) {
	lb := start(t, balance(lbtest.Echo(t))+`health = { kind = "tcp", interval = "100ms" }
[frontends.datagrams]
bind = ["127.0.0.1:0"]
protocol = "udp"
pool = "test"
[frontends.secure]
bind = ["127.0.0.1:0"]
pool = "test"
tls = { certificates = [{ cert = "secure.pem", self_signed = ["localhost"] }] }
`)
	for name, query := range views {
		cmd := exec.Command(tool(t, "promtool"), "check", "metrics")
		cmd.Stdin = strings.NewReader(string(lb.get("/metrics" + query)))
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 { // 3: it read everything and has remarks
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for line := range strings.Lines(string(out)) {
			series, remark, _ := strings.Cut(strings.TrimSpace(line), " ")
			known := strings.HasPrefix(series, "go_") || strings.HasPrefix(series, "process_") || // of a library
				name == "envoy" && (strings.Contains(remark, "_total") || strings.Contains(remark, "abbreviated units")) ||
				name == "gobetween" && (strings.Contains(remark, "_total") || strings.Contains(remark, `"_count"`))
			if !known && series != "" {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

// TestPromtoolRules: the rules are well formed and their tests pass, and what the dashboard asks for is PromQL.
func TestPromtoolRules(t *testing.T) {
	docs := "../../docs/"
	promtool := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(tool(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	promtool("check", "rules", docs+"prometheus/alerts.yml", docs+"prometheus/rules.yml")
	promtool("test", "rules", docs+"prometheus/alerts_test.yml")

	dashboard, err := os.ReadFile(docs + "grafana/awe4lb.json")
	if err != nil {
		t.Fatal(err)
	}
	rules, n := "groups:\n- name: dashboard\n  rules:\n", 0
	for _, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(dashboard, -1) {
		var expr string
		if err := json.Unmarshal(m[1], &expr); err != nil {
			t.Fatal(err)
		}
		quoted, _ := json.Marshal(strings.ReplaceAll(expr, "$__rate_interval", "5m"))
		rules += fmt.Sprintf("  - record: panel:%d\n    expr: %s\n", n, quoted)
		n++
	}
	if n < 50 {
		t.Errorf("only %d queries", n)
	}
	promtool("check", "rules", write(t, openDir(t), "dashboard.yml", rules))
}

// prometheus is a running Prometheus.
type prometheus struct {
	*program
	url string
}

// startPrometheus has Prometheus scrape every view of lb each second.
func startPrometheus(t *testing.T, lb *awe4lb) *prometheus {
	t.Helper()
	dir := openDir(t)
	rules, err := os.ReadFile("../../docs/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	conf := "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\nrule_files: [rules.yml]\nscrape_configs:\n"
	for name, query := range views {
		conf += fmt.Sprintf("- job_name: %s\n  static_configs: [{ targets: [%q] }]\n", name, strings.TrimPrefix(lb.admin, "http://"))
		if query != "" {
			conf += fmt.Sprintf("  params: { view: [%s] }\n", name)
		}
	}
	write(t, dir, "rules.yml", string(rules))
	address := lbtest.Free(t)
	p := &prometheus{url: "http://" + address}
	p.program = launch(t, nil, tool(t, "prometheus"), "--config.file="+write(t, dir, "prometheus.yml", conf), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=warn")
	p.waitFor("Prometheus is ready", func() bool {
		res, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return p
}

// query returns the values of an instant query, by the labels of its series.
func (p *prometheus) query(expr string) map[string]float64 {
	p.t.Helper()
	res, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	var answer struct {
		Status string
		Data   struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil || answer.Status != "success" {
		p.t.Fatalf("%s: %v\n%s", expr, err, body)
	}
	values := map[string]float64{}
	for _, r := range answer.Data.Result {
		values[fmt.Sprint(r.Metric)], _ = strconv.ParseFloat(r.Value[1].(string), 64)
	}
	return values
}

// TestPrometheusThroughReloads: while clients come and go and the configuration changes twenty times, no scrape fails, no
// counter of what stays goes backwards, and rates are those of the clients.
func TestPrometheusThroughReloads(t *testing.T) {
	const reloads, pace = 20, 10 * time.Millisecond
	backends := []string{lbtest.Echo(t), lbtest.Echo(t)}
	steady := func(extra string) string { return balance(append(slices.Clone(backends), extra)...) }
	lb := start(t, steady("127.0.0.1:1"))
	p := startPrometheus(t, lb)
	address := lb.address("test")

	var visits atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = io.WriteString(c, "x")
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			if err != nil {
				t.Error(err)
			}
			c.Close()
			visits.Add(1)
		}
	})
	scrapes := func() float64 {
		most := 0.0
		for _, n := range p.query(`count_over_time(up{job="native"}[10m])`) {
			most = max(most, n)
		}
		return most
	}
	begun := time.Now()
	for i := range reloads {
		before := scrapes()
		// A backend, a pool and a frontend go, others come; the frontend under test keeps its socket.
		text := steady(fmt.Sprintf("127.0.0.2:%d", i+1)) + fmt.Sprintf(`
[frontends.x%d]
bind = ["127.0.0.1:0"]
pool = "x%d"
[pools.x%d]
backends = [{ address = %q }]
`, i, i, i, backends[0])
		lb.edit(text)
		if err := lb.reload(); err != nil {
			t.Fatal(err)
		}
		p.waitFor("a scrape after the reload", func() bool { return scrapes() > before })
	}
	took := time.Since(begun)
	rate := p.query(`sum(rate(awe4lb_server_connections_total{server="test"}[10s]))`)
	close(stop)
	clients.Wait()

	window := fmt.Sprintf("[%ds]", int(time.Since(begun).Seconds())+60)
	for series, least := range p.query("min_over_time(up" + window + ")") {
		if least != 1 {
			t.Errorf("a scrape failed: %s", series)
		}
	}
	if up := p.query("up"); len(up) != len(views) {
		t.Errorf("%v", up)
	}
	for _, names := range []string{`awe4lb_.+_total|awe4lb_.+_(bucket|count|sum)`, `haproxy_.+_total`, `envoy_.+_(total|bucket|count|attempt|success)`, `gobetween_.+_(total|bytes)`} {
		selector := `{__name__=~"` + names + `"}`
		if n := p.query("count(" + selector + ")"); len(n) != 1 {
			t.Errorf("%s: %v series", names, n)
		}
		// resets drops the name, so it is kept as a label of its own.
		named := `label_replace(` + selector + `, "series", "$1", "__name__", "(.+)")`
		for series, n := range p.query("resets(" + named + strings.TrimSuffix(window, "]") + ":1s]) > 0") {
			t.Errorf("%v times backwards: %s", n, series)
		}
	}
	actual := float64(visits.Load()) / took.Seconds()
	for _, r := range rate {
		t.Logf("rate() says %.1f clients a second, %.1f came", r, actual)
		if r < actual/2 || r > actual*2 {
			t.Errorf("rate() says %.1f clients a second, %.1f came", r, actual)
		}
	}
	if len(rate) != 1 {
		t.Errorf("rate: %v", rate)
	}
	lbtest.EventuallyIn(t, 30*time.Second, "the last scrape has every client", func() bool {
		for _, v := range p.query(`awe4lb_server_connections_total{server="test"}`) {
			return int64(v) == visits.Load()
		}
		return false
	})
	if n := p.query(`server:awe4lb_connections:rate5m{server="test"}`); len(n) != 1 {
		t.Errorf("recorded: %v", n)
	}
	// What a reload took away is gone, and was there.
	if n := p.query(`count(awe4lb_pool_backends{pool=~"x.*",state="up"})`); n["map[]"] != 1 {
		t.Errorf("pools that reloads made: %v, want the last one", n)
	}
	if n := p.query(`count(last_over_time(awe4lb_pool_backends{pool=~"x.*",state="up"}` + window + `))`); n["map[]"] < reloads/2 {
		t.Errorf("pools that were ever scraped: %v, want about %d", n, reloads)
	}
}

// TestClientsAddNoSeries: 100,000 clients, each with an address and a name of its own, add not one series to any view.
func TestClientsAddNoSeries(t *testing.T) {
	const all = 100_000
	lb := start(t, fmt.Sprintf(`
[frontends.test]
bind = ["127.0.0.1:0"]
max_connections_per_source = 100
connection_rate_per_source = 1000
[[frontends.test.routes]]
match = { sni = ["*.example"] }
pool = "test"
[pools.test]
backends = [{ address = %q }]
`, lbtest.Echo(t)))
	ours := regexp.MustCompile(`(?m)^(awe4lb|gobetween|haproxy|envoy)_`)
	series := func() (n int) {
		for _, query := range views {
			n += len(ours.FindAll(lb.get("/metrics"+query), -1))
		}
		return n
	}
	before := series()
	address, hello := lb.address("test"), string(lbtest.ClientHello("n000000.example"))
	var next atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := next.Add(1) - 1; i < all; i = next.Add(1) - 1 {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1+byte(i>>16), byte(i>>8), byte(i))}}
				c, err := d.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, strings.Replace(hello, "n000000.", fmt.Sprintf("n%06d.", i), 1))
				_, _ = c.Read(make([]byte, 1))
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
	}
	clients.Wait()
	lb.waitFor("all sessions have ended", func() bool { return lb.status().Sessions.Open == 0 })
	if n := lb.frontend("test").Accepted; n != all {
		t.Errorf("%d clients came, want %d", n, all)
	}
	if after := series(); after != before || before < 100 {
		t.Errorf("%d series after %d clients, %d before", after, all, before)
	}
}
