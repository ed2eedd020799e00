package runner

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/bench/hist"
	"awe4lb/bench/load"
	"awe4lb/bench/proc"
	"awe4lb/bench/report"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var examplePlace = Place{Dir: "/tmp/place", HTTP: "127.0.0.1:18080", Bulk: "127.0.0.1:18081",
	HTTPBackend: []string{"127.0.0.1:19001", "127.0.0.1:19003"}, BulkBackend: "127.0.0.1:19002",
	Workers: 2, MaxConns: 9900, Modules: "/usr/lib/nginx/modules"}

var exampleUDPPlace = Place{Dir: "/tmp/place", UDP: "127.0.0.1:18082", UDPBackend: "127.0.0.1:19003", FlowTimeout: 90 * time.Second,
	MaxFlows: 65536, Workers: 2, MaxConns: 9900, Modules: "/usr/lib/nginx/modules"}

var exampleTLSPlace = Place{Dir: "/tmp/place", TLS: "127.0.0.1:18443", TLSRSA: "127.0.0.1:18444", Bulk: "127.0.0.1:18445",
	ECDSA: "/tmp/place/ecdsa.pem", RSA: "/tmp/place/rsa.pem", HTTPBackend: []string{"127.0.0.1:19001"}, BulkBackend: "127.0.0.1:19002",
	Workers: 2, MaxConns: 9900, Modules: "/usr/lib/nginx/modules"}

func TestConfigurations(t *testing.T) {
	for name, text := range map[string]string{
		"awe4lb.toml":        awe4lbConfig(examplePlace),
		"haproxy.cfg":        haproxyConfig(examplePlace, false),
		"haproxy-splice.cfg": haproxyConfig(examplePlace, true),
		"nginx.conf":         nginxConfig(examplePlace),
		"gobetween.toml":     gobetweenConfig(examplePlace),
		"awe4lb-udp.toml":    awe4lbUDPConfig(exampleUDPPlace),
		"nginx-udp.conf":     nginxUDPConfig(exampleUDPPlace),
		"gobetween-udp.toml": gobetweenUDPConfig(exampleUDPPlace),
		"awe4lb-tls.toml":    awe4lbTLSConfig(exampleTLSPlace),
		"haproxy-tls.cfg":    haproxyTLSConfig(exampleTLSPlace),
		"nginx-tls.conf":     nginxTLSConfig(exampleTLSPlace),
	} {
		text = strings.Replace(text, "user root;\n", "", 1) // only there for root
		path := filepath.Join("testdata", name)
		if *update {
			os.MkdirAll("testdata", 0o755)
			os.WriteFile(path, []byte(text), 0o644)
		}
		if want, err := os.ReadFile(path); err != nil || text != string(want) {
			t.Errorf("%s differs from the golden file (%v); if that is meant: go test ./bench/runner -update", name, err)
		}
	}
}

func TestRivalsAcceptTheirConfigurations(t *testing.T) {
	for _, c := range []struct {
		kind  string
		place Place
	}{{"haproxy", examplePlace}, {"haproxy-splice", examplePlace}, {"nginx", examplePlace}, {"nginx", exampleUDPPlace},
		{"haproxy", exampleTLSPlace}, {"nginx", exampleTLSPlace}} {
		kind, place := c.kind, c.place
		place.Dir = t.TempDir()
		if place.TLS != "" {
			e := &env{dir: place.Dir}
			if err := e.makeCertificates(); err != nil {
				t.Fatal(err)
			}
			place.ECDSA, place.RSA = e.ecdsa, e.rsa
		}
		binary := findBinary(strings.TrimSuffix(kind, "-splice"))
		if binary == "" {
			t.Logf("%s is not installed: %s", kind, AptInstall)
			continue
		}
		if kind == "nginx" {
			place.Modules, _ = nginxModules(binary)
		}
		argv, _, err := kinds[kind](System{Binary: binary}, place)
		if err != nil {
			t.Fatal(err)
		}
		check := "-c"
		if kind == "nginx" {
			check = "-t"
		}
		if out, err := exec.Command(argv[0], append(argv[1:], check)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
}

func TestParseNginxBuild(t *testing.T) {
	dynamic := "nginx version: nginx/1.22.1\nconfigure arguments: --modules-path=/usr/lib/nginx/modules --with-stream=dynamic --with-stream_ssl_module"
	if dir, builtIn := parseNginxBuild(dynamic); dir != "/usr/lib/nginx/modules" || builtIn {
		t.Errorf("dynamic: got %q, %v", dir, builtIn)
	}
	if _, builtIn := parseNginxBuild("configure arguments: --with-http_ssl_module --with-stream"); !builtIn {
		t.Error("built in: not seen")
	}
}

func TestOrderIsFair(t *testing.T) {
	const n = 4
	first, pairs := make([]int, n), map[[2]int]int{}
	for round := range 2 * n {
		o := order(n, round)
		seen := map[int]bool{}
		for i, s := range o {
			seen[s] = true
			if i > 0 {
				pairs[[2]int{o[i-1], s}]++
			}
		}
		if len(seen) != n {
			t.Fatalf("round %d: %v is no permutation", round, o)
		}
		first[o[0]]++
	}
	for s, times := range first {
		if times != 2 {
			t.Errorf("over %d rounds system %d ran first %d times, want 2", 2*n, s, times)
		}
	}
	for p, times := range pairs {
		if back := pairs[[2]int{p[1], p[0]}]; back != times {
			t.Errorf("%d ran %d times after %d, but %d times before it", p[1], times, p[0], back)
		}
	}
	if order(1, 5)[0] != 0 {
		t.Error("one system")
	}
}

func TestFillRun(t *testing.T) {
	h := new(hist.Histogram)
	for i := range 1000 {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	cpu := []load.Share{{Name: "proxy", Usage: proc.Usage{Total: time.Second, User: 100 * time.Millisecond, System: 900 * time.Millisecond, Switches: 500}},
		{Name: "backend", Usage: proc.Usage{Total: 2 * time.Second}}, {Name: "generator", Usage: proc.Usage{Total: 3 * time.Second}}}
	var run report.Run
	fillRun(&run, report.PerRequest, &load.Result{Seconds: 2, Units: 100_000, Latency: h, CPU: cpu})
	if run.Rate != 50_000 || run.CPU != 10 || run.BackendCPU != 20 || run.LoadCPU != 30 || run.Switches != 0.005 || run.User != 0.1 {
		t.Errorf("requests: %+v", run)
	}
	if math.Abs(run.P50-500) > 3 || math.Abs(run.P99-990) > 5 {
		t.Errorf("percentiles: %v, %v", run.P50, run.P99)
	}
	run = report.Run{}
	fillRun(&run, report.PerGB, &load.Result{Seconds: 2, BytesUp: 1e9, BytesDown: 3e9, CPU: cpu})
	if run.Units != 4 || run.Rate != 2 || run.CPU != 250 {
		t.Errorf("bulk: %+v", run)
	}
	run = report.Run{}
	fillRun(&run, report.PerRoundTrip, &load.Result{Seconds: 2, Units: 90_000, CPU: cpu, Datagrams: &load.Datagrams{Sent: 100_000, Lost: 10_000, Moved: 3}})
	if run.Rate != 45_000 || run.Sent != 50_000 || run.Loss != 0.1 || run.Moved != 3 || math.Abs(run.CPU-11.11) > 0.01 {
		t.Errorf("UDP: %+v", run)
	}
	run = report.Run{}
	fillRun(&run, report.PerRequest, &load.Result{Seconds: 2})
	if run.Errors == "" || math.IsNaN(run.CPU) {
		t.Errorf("nothing done: %+v, want an error and no NaN", run)
	}
}

func TestProgress(t *testing.T) {
	clock := time.Unix(1000, 0)
	show := func(terminal bool) string {
		var b bytes.Buffer
		p := NewProgress(&b)
		p.terminal, p.width, p.now = terminal, 60, func() time.Time { return clock }
		p.Begin(3, 90*time.Second)
		p.Step("round 1", "haproxy")
		clock = clock.Add(60 * time.Second) // twice as long as thought
		p.Done(30 * time.Second)
		p.Step("round 1", "nginx")
		p.Done(30 * time.Second)
		p.Say("warning: busy")
		p.Step("round 2, a very long title that does not fit into the line", "nginx")
		p.End()
		return b.String()
	}
	plain := "[1/3] round 1, 1:30 min left\nwarning: busy\n[3/3] round 2, a very long title that does not fit into the line, 30 s left\n"
	if got := show(false); got != plain {
		t.Errorf("plain:\n%s\nwant:\n%s", got, plain)
	}
	want := "\r\x1b[K[1/3] round 1: haproxy, 1:30 min left" +
		"\r\x1b[K[2/3] round 1: nginx, 2:00 min left" +
		"\r\x1b[Kwarning: busy\n" +
		"\r\x1b[K[3/3] round 2, a very long title that does not fit into th…" +
		"\r\x1b[K"
	if got := show(true); got != want {
		t.Errorf("terminal:\n%q\nwant:\n%q", got, want)
	}
}

func TestProcessesAreStopped(t *testing.T) {
	p, err := NewProcesses(0)
	if err != nil {
		t.Fatal(err)
	}
	// A shell that ignores SIGTERM at first is stopped by the second; its child is left an orphan and killed.
	q, err := p.Start(Spec{Name: "stubborn", Argv: []string{"sh", "-c", `trap 'trap - TERM' TERM; sleep 1000 & echo up >&2; while :; do wait; done`}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); q.Output() != "up" || len(proc.Tree(q.PID)) < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("the shell does not come up: %q", q.Output())
		}
		time.Sleep(time.Millisecond)
	}
	me, _ := proc.ReadStat(os.Getpid())
	if s, err := proc.ReadStat(q.PID); err != nil || s.Session != me.Session {
		t.Errorf("session %d, want ours, %d: each has its own scheduling group", s.Session, me.Session)
	}
	family := proc.Tree(q.PID)
	p.StopAll()
	for _, pid := range family {
		for deadline := time.Now().Add(5 * time.Second); ; {
			if s, err := proc.ReadStat(pid); err != nil || s.State == 'Z' {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still there", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if !q.Ended() {
		t.Error("not ended")
	}
	if _, err := p.Start(Spec{Name: "nobody", Argv: []string{"/does/not/exist"}}); err == nil || !strings.Contains(err.Error(), "start nobody") {
		t.Errorf("got %v, want an error that names the program", err)
	}
}

func TestReadResultOpensTheGates(t *testing.T) {
	var asked bytes.Buffer
	q := &Process{Out: io.NopCloser(strings.NewReader("ready\ndone\n{\"mode\":\"requests\",\"units\":7}\n")), In: nopWriteCloser{&asked}}
	var called []string
	r, err := readResult(q, &gates{
		ready: func() error { called = append(called, "ready"); return nil },
		done:  func() error { called = append(called, "done"); return nil }})
	if err != nil || r.Units != 7 || !reflect.DeepEqual(called, []string{"ready", "done"}) || asked.String() != "\n\n" {
		t.Errorf("result %+v, %v; called %v, answered %q", r, err, called, asked.String())
	}
	q.Out = io.NopCloser(strings.NewReader("what is this\n"))
	if _, err := readResult(q, nil); err == nil {
		t.Error("nonsense must be an error")
	}
	q.Out = io.NopCloser(strings.NewReader("ready\n"))
	if _, err := readResult(q, &gates{ready: func() error { return fmt.Errorf("no tracer") }}); err == nil || err.Error() != "no tracer" {
		t.Errorf("got %v, want the gate's error", err)
	}
}

type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }

func TestGoroutinesFromMetrics(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "# TYPE go_goroutines gauge\ngo_threads 9\ngo_goroutines 42\n")
	}))
	defer s.Close()
	for url, want := range map[string]int{s.URL + "/metrics": 42, s.URL + "/else": -1, "": -1, "http://127.0.0.1:1/": -1} {
		if got := goroutines(url); got != want {
			t.Errorf("%q: got %d, want %d", url, got, want)
		}
	}
}

func TestOptionErrorsTeach(t *testing.T) {
	quiet := NewProgress(io.Discard)
	for want, o := range map[string]Options{
		`scenario "fast"`: {Scenarios: []string{"fast"}},
		`system "caddy"`:  {Systems: []string{"caddy"}},
		`system "gost"`:   {Systems: []string{"gost"}},
	} {
		o.Progress = quiet
		if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
}

func TestScenariosMatchTheBars(t *testing.T) {
	keys := map[string]bool{}
	for _, s := range scenarios() {
		if keys[s.Key] {
			t.Errorf("two scenarios %q", s.Key)
		}
		keys[s.Key] = true
	}
	for _, k := range []string{report.Keep1, report.Keep64, report.Keep512, report.Open64, report.Short64,
		report.Up1, report.Up8, report.Down1, report.Down8, report.Both1, report.Both8,
		report.UDP1, report.UDP100, report.UDP10k, report.UDP1Large, report.UDP100Large, report.UDP10kLarge,
		report.UDPTrains, report.UDPOpen100, report.UDPOver1, report.UDPOver100,
		report.TLSFull, report.TLS12Full, report.TLSRSA, report.TLSResumed, report.TLS12Resumed, report.TLSKeep64, report.TLSUp8, report.TLSDown8, report.TLSFlood} {
		if !keys[k] {
			t.Errorf("no scenario %q, which a bar is about", k)
		}
	}
}

func TestGroupsOfScenarios(t *testing.T) {
	for name, c := range map[string]struct {
		o        Options
		families []family
		has, not string
	}{
		"all by default":        {Options{}, []family{overTCP, overUDP, overTLS}, report.UDPOver1, ""},
		"quick":                 {Options{Quick: true}, []family{overTCP, overUDP, overTLS}, report.UDP100, report.UDPOver1},
		"udp alone":             {Options{Scenarios: []string{"udp"}}, []family{overUDP}, report.UDP10kLarge, report.Keep64},
		"quick tcp":             {Options{Quick: true, Scenarios: []string{"tcp"}}, []family{overTCP}, report.Keep64, report.Keep512},
		"one more than a group": {Options{Quick: true, Scenarios: []string{"udp", report.UDPOver1}}, []family{overUDP}, report.UDPOver1, report.UDP1Large},
		"all of the quick run":  {Options{Quick: true, Scenarios: []string{"all"}}, []family{overTCP, overUDP, overTLS}, report.UDP100, report.Keep512},
		"tls alone":             {Options{Scenarios: []string{"tls"}}, []family{overTLS}, report.TLS12Resumed, report.Keep64},
		"quick tls":             {Options{Quick: true, Scenarios: []string{"tls"}}, []family{overTLS}, report.TLSFlood, report.TLS12Full},
	} {
		e := &env{o: c.o, res: new(report.Results)}
		p, err := e.pickScenarios()
		if err != nil || !slices.Equal(p.families, c.families) {
			t.Errorf("%s: %v, %v; want %v", name, p.families, err, c.families)
		}
		has := map[string]bool{}
		for _, s := range p.scenarios {
			has[s.Key] = true
		}
		if !has[c.has] || has[c.not] {
			t.Errorf("%s: %v; want %s and not %s", name, has, c.has, c.not)
		}
	}
}

func TestSumOfAMetric(t *testing.T) {
	page := "# TYPE flows gauge\nflows_total 9\nflows{frontend=\"a b\"} 3\nflows{frontend=\"c\"} 4\nother 5\n"
	for metric, want := range map[string]int{"flows": 7, "flows_total": 9, "none": -1} {
		got, err := sumOf(strings.NewReader(page), metric)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%s: got %d, %v; want %d", metric, got, err, want)
		}
	}
}

// TestRecede: in a process of its own, since who has receded stays so.
func TestRecede(t *testing.T) {
	if os.Getenv("AWE4LB_BENCH_RECEDE") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestRecede$", "-test.count=1")
		cmd.Env = append(os.Environ(), "AWE4LB_BENCH_RECEDE=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	p, err := NewProcesses(0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.StopAll()
	if err := p.Recede(); err != nil {
		t.Fatal(err)
	}
	q, err := p.Start(Spec{Name: "child", Argv: []string{"sleep", "1000"}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	priority := func(id int) int {
		n, err := syscall.Getpriority(syscall.PRIO_PROCESS, id) // 20 less the priority
		if err != nil {
			t.Fatal(err)
		}
		return 20 - n
	}
	runtime.LockOSThread() // 0 is this thread
	defer runtime.UnlockOSThread()
	if us, child := priority(0), priority(q.PID); us != 19 || child == 19 {
		t.Errorf("priorities: ours %d, want 19; the child's %d, want another", us, child)
	}
}
