package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"github.com/VictoriaMetrics/metricsql"
)

// family is what a scrape says of one.
type family struct {
	kind   string
	labels map[string]bool // of its series, le apart
}

// scrapeEverything returns the families of an awe4lb whose configuration has something of each kind that has series.
func scrapeEverything(t *testing.T) map[string]*family {
	t.Helper()
	dir := t.TempDir()
	prefixes := filepath.Join(dir, "prefixes")
	if err := os.WriteFile(prefixes, []byte("192.0.2.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	echo := lbtest.Echo(t)
	list := filepath.Join(dir, "list")
	if err := os.WriteFile(list, []byte(echo+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := startInstance(t, fmt.Sprintf(`
[admin]
bind = "127.0.0.1:0"
[acme]
directory = "https://%s/directory"
agree = true
storage = %q
[frontends.secure]
bind = ["127.0.0.1:0"]
pool = "timed"
max_connections_per_source = 100
access = { rules = [{ deny_file = %q }] }
tls = { certificates = [{ cert = "local.pem", self_signed = ["localhost"] }] }
[frontends.wanting]
bind = ["127.0.0.1:0"]
pool = "measured"
tls = { acme = ["wanted.example"] }
[frontends.datagrams]
bind = ["127.0.0.1:0"]
protocol = "udp"
pool = "datagrams"
[pools.timed]
policy = "leasttime"
backends = [{ address = %q }]
health = { kind = "tcp", interval = "100ms" }
outliers = {}
max_connections = 100
queue = { size = 10 }
persistence = {}
[pools.measured]
policy = "leastbandwidth"
backends = [{ address = %q }]
[pools.datagrams]
backends = [{ address = %q }]
[pools.found]
discovery = { kind = "file", path = %q }
`, lbtest.Refused(t), filepath.Join(dir, "acme"), prefixes, echo, echo, lbtest.EchoDatagrams(t), list))
	c, err := tls.Dial("tcp", in.address("secure"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(in.adminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return familiesOf(t, string(text))
}

func familiesOf(t *testing.T, text string) map[string]*family {
	t.Helper()
	series := regexp.MustCompile(`^([a-z0-9_]+)(?:\{(.*)\})? \S+$`)
	label := regexp.MustCompile(`([a-z_0-9]+)="(?:[^"\\]|\\.)*"`)
	all := map[string]*family{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if fields := strings.Fields(line); strings.HasPrefix(line, "# TYPE ") {
			all[fields[2]] = &family{fields[3], map[string]bool{}}
		}
		m := series.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		f := all[m[1]]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(m[1], suffix); ok && f == nil {
				f = all[base]
			}
		}
		if f == nil {
			t.Fatalf("a series without a family: %s", line)
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" {
				f.labels[l[1]] = true
			}
		}
	}
	return all
}

func (f *family) labelList() string { return strings.Join(slices.Sorted(maps.Keys(f.labels)), ", ") }

// TestMetricsAreDocumented holds the table of docs/metrics.md against a scrape: every family, its type and its labels.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "\n## Native\n")
	if !ok {
		t.Fatal("docs/metrics.md has no section Native")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	all, listed := scrapeEverything(t), map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(awe4lb_[a-z0-9_]+)` \\| ([a-z]+) \\| ([a-z_, ]*)\\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		name, kind, labels, meaning := m[1], m[2], m[3], m[4]
		if listed[name] {
			t.Errorf("%s is listed twice", name)
		}
		listed[name] = true
		f := all[name]
		if f == nil {
			t.Errorf("docs/metrics.md has %s, which does not exist", name)
			continue
		}
		want := strings.FieldsFunc(labels, func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(want)
		if got := f.labelList(); kind != f.kind || got != strings.Join(want, ", ") {
			t.Errorf("%s: docs/metrics.md says %s with %v; it is a %s with %s", name, kind, want, f.kind, got)
		}
		if len(meaning) < 5 {
			t.Errorf("%s: docs/metrics.md does not say what it means", name)
		}
	}
	for name, f := range all {
		if strings.HasPrefix(name, "awe4lb_") && !listed[name] {
			t.Errorf("docs/metrics.md lacks | `%s` | %s | %s | … |", name, f.kind, f.labelList())
		}
	}

	// A label of a push must be none of these: each series has a label once.
	names := map[string]bool{"nth": true} // of certificates that are the same but for that
	for _, f := range all {
		maps.Copy(names, f.labels)
	}
	for name := range names {
		if _, err := config.Parse("x.toml", fmt.Appendf(nil, "[admin.push]\nlabels = '%s=\"a\"'\n", name)); err == nil {
			t.Errorf("admin.push.labels may be %s, which series have: see ownLabels in config/push.go", name)
		}
	}
}

// queries returns what a dashboard, or a file of rules, asks for: where, and the query.
func queries(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	text, err := os.ReadFile("docs/grafana/awe4lb.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard any
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if title, ok := v["title"].(string); ok {
				path += "/" + title
			}
			for key, child := range v {
				if expr, ok := child.(string); ok && key == "expr" {
					found[path+"#"+expr] = expr
				}
				if query, ok := child.(string); ok && (key == "definition" || key == "query" && v["refId"] == "variable") {
					found[path+"#"+query] = labelValues.ReplaceAllString(query, "$1")
				}
				walk(path, child)
			}
		case []any:
			for _, child := range v {
				walk(path, child)
			}
		}
	}
	walk("awe4lb.json", dashboard)
	for _, file := range []string{"docs/prometheus/alerts.yml", "docs/prometheus/rules.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range regexp.MustCompile(`(?m)^ +expr: (?:'(.*)'|(.*))$`).FindAllStringSubmatch(string(text), -1) {
			found[file+"#"+m[1]+m[2]] = m[1] + m[2]
			n++
		}
		if all := strings.Count(string(text), "expr:"); n != all || n == 0 {
			t.Errorf("%s: %d of %d expressions read: write each on one line", file, n, all)
		}
	}
	return found
}

// TestAlertsHaveRunbooks: every alert says who is wanted, and docs/operations.md what to do.
func TestAlertsHaveRunbooks(t *testing.T) {
	alerts, err := os.ReadFile("docs/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := strings.Split(string(alerts), "- alert: ")[1:]
	for _, rule := range rules {
		name, _, _ := strings.Cut(rule, "\n")
		severity := regexp.MustCompile(`labels: \{ severity: (page|ticket) \}`).FindStringSubmatch(rule)
		if severity == nil || !strings.Contains(rule, "runbook: docs/operations.md#"+strings.ToLower(name)+"\n") || !strings.Contains(rule, "summary: '") {
			t.Errorf("%s lacks a severity, a summary or a runbook", name)
			continue
		}
		if !strings.Contains(string(page), fmt.Sprintf("| <a id=%q></a>`%s` | %s | ", strings.ToLower(name), name, severity[1])) {
			t.Errorf("docs/operations.md does not say what to do about %s (%s)", name, severity[1])
		}
	}
	if listed := strings.Count(string(page), "></a>`Awe4lb"); listed != len(rules) || listed == 0 {
		t.Errorf("docs/operations.md has %d alerts, there are %d", listed, len(rules))
	}
}

// labelValues are queries for values of a variable.
var labelValues = regexp.MustCompile(`^label_values\((.*), *([a-z_]+)\)$`)

// TestQueriesNameExistingSeries: whatever the dashboard and the rules ask for exists, with the labels they ask for.
func TestQueriesNameExistingSeries(t *testing.T) {
	all := scrapeEverything(t)
	recorded := map[string]bool{}
	rules, err := os.ReadFile("docs/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +- record: (\S+)$`).FindAllStringSubmatch(string(rules), -1) {
		recorded[m[1]] = true
	}
	asked := queries(t)
	if len(asked) < 40 {
		t.Errorf("only %d queries", len(asked))
	}
	added := map[string]bool{"job": true, "instance": true, "le": true} // by Prometheus, or a push
	used := map[string]bool{}
	for where, query := range asked {
		for from, to := range map[string]string{"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"} {
			query = strings.ReplaceAll(query, from, to)
		}
		expr, err := metricsql.Parse(query)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		labels := map[string]bool{} // that the series of this query have
		metricsql.VisitAll(expr, func(e metricsql.Expr) {
			m, ok := e.(*metricsql.MetricExpr)
			if !ok {
				return
			}
			for _, filters := range m.LabelFilterss {
				name := ""
				for _, f := range filters {
					if f.Label == "__name__" {
						name = f.Value
					}
				}
				used[name] = true
				f := all[name]
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					if base, ok := strings.CutSuffix(name, suffix); ok && f == nil {
						f = all[base]
					}
				}
				switch {
				case name == "up" || recorded[name]:
					maps.Copy(labels, map[string]bool{"server": true, "pool": true, "backend": true})
					continue
				case f == nil:
					t.Errorf("%s: there is no %q", where, name)
					continue
				}
				maps.Copy(labels, f.labels)
				for _, l := range filters {
					if l.Label != "__name__" && !f.labels[l.Label] && !added[l.Label] {
						t.Errorf("%s: %s has no label %s", where, name, l.Label)
					}
				}
			}
		})
		metricsql.VisitAll(expr, func(e metricsql.Expr) {
			if a, ok := e.(*metricsql.AggrFuncExpr); ok {
				for _, l := range a.Modifier.Args {
					if !labels[l] && !added[l] {
						t.Errorf("%s: no series of it has the label %s", where, l)
					}
				}
			}
		})
	}
	for _, name := range []string{"awe4lb_backend_up", "awe4lb_certificate_not_after_timestamp_seconds", "awe4lb_udp_datagrams_dropped_total", "process_cpu_seconds_total"} {
		if !used[name] {
			t.Errorf("nothing asks for %s: are the queries read at all?", name)
		}
	}
}
