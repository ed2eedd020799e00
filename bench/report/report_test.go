package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"awe4lb/bench/hist"
	"awe4lb/bench/proc"
	"awe4lb/bench/stats"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// example is a made-up run with something of everything: a failed run, a noisy scenario, a missed bar, a lost race.
func example() *Results {
	r := &Results{
		Date: time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC), Commit: "abc1234", Command: "go run ./bench run", Subject: "awe4lb",
		Machine:    proc.Description{Kernel: "6.1", CPU: "Some CPU", Cores: 2, MemoryMB: 24105, Virtual: true, Autogroup: true},
		LoadBefore: [3]float64{0.1}, LoadAfter: [3]float64{3.2}, SameSession: true,
		Settings: Settings{Workers: 2, Rounds: 3, WindowSeconds: 1.5, WarmupSeconds: 0.3, OpenLoopRate: 10000},
		Systems: []System{{Name: "awe4lb", Version: "0.1", Note: "2 shards"}, {Name: "haproxy", Version: "2.6", Note: "nbthread 2"},
			{Name: "naive", Version: "go1.26"}, {Name: "nginx", Skipped: "nginx was left out"}},
		Scenarios: []Scenario{
			{Key: Keep64, Title: "keep-alive, 64 connections", Note: "requests, closed loop", Unit: PerRequest},
			{Key: Open64, Title: "fixed rate, 64 connections", Note: "requests, open loop", Unit: PerRequest, Open: true},
			{Key: Up1, Title: "1 stream up", Note: "bulk", Unit: PerGB},
			{Key: UDP100, Title: "UDP, 100 clients, 64 bytes", Note: "closed loop", Unit: PerRoundTrip},
			{Key: UDPOpen100, Title: "UDP, fixed rate, 100 clients", Note: "open loop", Unit: PerRoundTrip, Open: true, Offered: 20000},
			{Key: UDPOver1, Title: "UDP, overload, 1 client", Note: "open loop", Unit: PerRoundTrip, Open: true, Offered: 200000},
			{Key: TLSFull, Title: "TLS 1.3, full handshakes, ECDSA P-256", Note: "32 at a time", Unit: PerHandshake, TLS: true},
			{Key: TLSDown8, Title: "TLS, 8 streams down", Note: "as fast as it goes", Unit: PerGB, TLS: true},
			{Key: TLSFlood, Title: "TLS, 16 connections while 300 RSA handshakes a second arrive", Note: "requests, open loop", Unit: PerRequest, Open: true, Offered: 800, TLS: true}},
		Flows: []Flows{{System: "awe4lb", Flows: 9000, TimeoutSeconds: 6, Create: 51, Before: 10e6, After: 14.4e6, IdleCPU: 0.0004, Expire: 4.2, Overdue: 0.9},
			{System: "awe4lb", Flows: 9000, TimeoutSeconds: 6, Create: 55, Before: 10e6, After: 14.9e6, IdleCPU: -1, Expire: 5.4, Overdue: 0.8},
			{System: "naive", Flows: 9000, TimeoutSeconds: 6, Errors: "3 x timeout"},
			{System: "udp-nginx", Flows: 9000, TimeoutSeconds: 6, Create: 70, Loss: 0.01, Before: 24e6, After: 110e6, IdleCPU: 0, Expire: 19, Overdue: 0.05}},
		Memory: []Memory{{System: "awe4lb", Connections: 9000, Before: 10e6, After: 14e6}, {System: "haproxy", Connections: 9000, Before: 7e6, After: 36.7e6, IdleCPU: 0.01},
			{System: "naive", Connections: 3000, Errors: "3 x timeout"},
			{System: "awe4lb", Kind: MemoryTLS, Connections: 4000, Before: 13e6, After: 43e6}, {System: "haproxy", Kind: MemoryTLS, Connections: 4000, Before: 20e6, After: 100e6},
			{System: "awe4lb", Kind: MemoryHalfOpen, Connections: 4000, Before: 13e6, After: 133e6}, {System: "haproxy", Kind: MemoryHalfOpen, Connections: 4000, Before: 20e6, After: 196e6}},
		Stalls: []Stall{{System: "awe4lb", Streams: 8, Each: 200e6, Before: 10e6, After: 10.4e6, Sockets: 60e6, Absorbed: 64e6},
			{System: "haproxy", Streams: 8, Each: 200e6, Before: 7e6, After: 7.1e6, Sockets: 60e6, Absorbed: 58e6, Errors: "1 x short"}},
		Syscalls: []SyscallCount{{System: "awe4lb", Unit: PerRequest, Units: 1000, Calls: proc.Syscalls{"read": 2000, "sendto": 2000, "epoll_wait": 310, "nanosleep": 40}},
			{System: "haproxy", Unit: PerRequest, Units: 1000, Calls: proc.Syscalls{"recvfrom": 2000, "sendto": 2000, "epoll_wait": 60, "clock_gettime": 130}},
			{System: "haproxy", Unit: PerConnection, Units: 1000, Errors: "1 x reset"}},
		Verified: []Verified{{System: "awe4lb", Bytes: 512e6}, {System: "naive", Bytes: 1e6, Errors: "1 x mismatch"}, {System: "haproxy", Over: "TLS", Bytes: 134e6}},
		Failures: []Failure{{"naive", "round 2 of 3, keep-alive, 64 connections, naive: 3 x reset"}},
	}
	cost := map[string]float64{"awe4lb": 11, "haproxy": 13, "naive": 18}
	r.addUDPRuns()
	r.addTLSRuns()
	for round := 1; round <= 3; round++ {
		for _, s := range r.Scenarios {
			if s.Unit == PerRoundTrip || s.TLS {
				continue
			}
			for _, system := range []string{"awe4lb", "haproxy", "naive"} {
				run := Run{Round: round, Scenario: s.Key, System: system, Rate: 70000, Units: 1e5, CPU: cost[system] + float64(round), Switches: 0.2,
					P50: 800 * cost[system] / 13, P99: 2500, P999: 5000, Foreign: 0.01}
				if system == "awe4lb" {
					run.P99 = 2000 + 500*float64(round)
				}
				if s.Unit == PerGB {
					run = Run{Round: round, Scenario: s.Key, System: system, Rate: 1.2345, Units: 2, CPU: 40 * cost[system], Switches: 9000, Foreign: 0.12, Steal: 0.03, Bound: system == "naive"}
				}
				if s.Open {
					run.Rate, run.LagP99 = 10000, 80
				}
				if s.Key == Keep64 && system == "naive" && round == 2 {
					run.Errors = "3 x reset"
				}
				r.Runs = append(r.Runs, run)
			}
		}
	}
	for _, system := range []string{"awe4lb", "haproxy", "naive"} {
		h := new(hist.Histogram)
		for i := range 20000 {
			h.Record(time.Duration(cost[system]*10*(1+math.Pow(float64(i)/10000, 4))) * time.Microsecond)
		}
		r.Latencies = append(r.Latencies, Latency{Open64, system, h})
	}
	return r
}

// addUDPRuns lets nginx, which has no part in the example's TCP, be the reference of UDP.
func (r *Results) addUDPRuns() {
	r.Systems[3] = System{Name: "nginx", Version: "1.22", Note: "stream"}
	r.Systems = append(r.Systems, System{Name: "direct"}, System{Name: "gobetween", Skipped: "gobetween was left out"})
	for i := range r.Flows {
		if r.Flows[i].System == "udp-nginx" {
			r.Flows[i].System = "nginx"
		}
	}
	cost := map[string]float64{"awe4lb": 7, "nginx": 12, "direct": 0}
	for round := 1; round <= 3; round++ {
		for _, s := range r.Scenarios {
			if s.Unit != PerRoundTrip {
				continue
			}
			for system, cpu := range cost {
				run := Run{Round: round, Scenario: s.Key, System: system, Rate: 60000 + 1000*float64(round), Units: 6e4, CPU: cpu, Sent: 70000, P50: 900, P99: 4000, LoadCPU: 6, BackendCPU: 5}
				if s.Key == UDPOver1 && system == "nginx" {
					run.Rate, run.Loss, run.Moved = 20000, 0.55, 2
				}
				if system != "direct" || round == 1 {
					r.Runs = append(r.Runs, run)
				}
			}
		}
	}
	slices.SortStableFunc(r.Runs, func(a, b Run) int { return strings.Compare(a.System, b.System) })
	for _, system := range []string{"awe4lb", "nginx"} {
		h := new(hist.Histogram)
		for i := range 20000 {
			h.Record(time.Duration(cost[system]*20*(1+math.Pow(float64(i)/10000, 5))) * time.Microsecond)
		}
		r.Latencies = append(r.Latencies, Latency{UDPOpen100, system, h})
	}
}

// addTLSRuns lets the flood be lost as configured by default, and won with threads that give way.
func (r *Results) addTLSRuns() {
	r.Systems = append(r.Systems, System{Name: niceName, Version: "0.1", Note: "engine.tls_nice = 19"})
	cost := map[string]float64{"awe4lb": 440, "haproxy": 650, niceName: 900}
	for round := 1; round <= 3; round++ {
		for _, s := range r.Scenarios {
			for _, system := range []string{"awe4lb", "haproxy", niceName} {
				if !s.TLS || system == niceName && s.Key != TLSFlood {
					continue
				}
				run := Run{Round: round, Scenario: s.Key, System: system, Rate: 1e6 / cost[system], Units: 1000, CPU: cost[system] + float64(round), P50: 500, P99: 9000}
				if s.Key == TLSFlood {
					run.P99, run.Rate, run.Flood = map[string]float64{"awe4lb": 18000, "haproxy": 9000, niceName: 3000}[system], 800, 300
				}
				r.Runs = append(r.Runs, run)
			}
		}
	}
	for system, scale := range map[string]float64{"awe4lb": 900, "haproxy": 400, niceName: 200} {
		h := new(hist.Histogram)
		for i := range 5000 {
			h.Record(time.Duration(scale*(1+math.Pow(float64(i)/2500, 4))) * time.Microsecond)
		}
		r.Latencies = append(r.Latencies, Latency{TLSFlood, system, h})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs from the golden file (%v); if that is meant: go test ./bench/report -update", name, err)
	}
}

func TestMarkdownAndFigures(t *testing.T) {
	r := example()
	var b bytes.Buffer
	if err := r.Markdown(&b, "figures"); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.md", b.Bytes())
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "%!") {
		t.Error("the page contains NaN or a broken format")
	}
	for _, f := range r.Figures() {
		golden(t, f.Name, []byte(f.SVG))
	}
}

func TestMarkdownOfAlmostNothing(t *testing.T) {
	r := &Results{Subject: "awe4lb", Systems: []System{{Name: "awe4lb", Skipped: "does not build"}, {Name: "naive"}},
		Scenarios: []Scenario{{Key: Keep64, Title: "keep-alive", Note: "requests", Unit: PerRequest}},
		Runs:      []Run{{Scenario: Keep64, System: "naive", Errors: "all wrong"}}}
	var b bytes.Buffer
	if err := r.Markdown(&b, "figures"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"awe4lb was not measured:** does not build", "Not measured: awe4lb", "all 1 runs failed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page does not say %q:\n%s", want, b.String())
		}
	}
	if len(r.Figures()) != 0 {
		t.Error("pictures of nothing")
	}
}

func TestVerdicts(t *testing.T) {
	less := Bar{Want: 1, Stretch: 0.85}
	more := Bar{Want: 1, Stretch: 1.2, Higher: true}
	for _, c := range []struct {
		bar  Bar
		o    Outcome
		want string
	}{
		{less, Outcome{}, "not measured"},
		{less, Outcome{Measured: true, Value: 0.8, Low: 0.8, High: 0.8}, "met, stretch too"},
		{less, Outcome{Measured: true, Value: 0.9, Low: 0.88, High: 0.95}, "met"},
		{less, Outcome{Measured: true, Value: 0.97, Low: 0.9, High: 1.1}, "met, within the noise"},
		{less, Outcome{Measured: true, Value: 1.2, Low: 1.1, High: 1.3}, "missed"},
		{more, Outcome{Measured: true, Value: 1.3, Low: 1.3, High: 1.3}, "met, stretch too"},
		{more, Outcome{Measured: true, Value: 0.95, Low: 0.9, High: 1.02}, "missed, within the noise"},
		{Bar{Want: 4.2}, Outcome{Measured: true, Value: 4.1, Low: 4.1, High: 4.1}, "met"},
	} {
		if got := c.bar.Verdict(c.o); got != c.want {
			t.Errorf("%+v against %v: got %q, want %q", c.o, c.bar.Want, got, c.want)
		}
	}
}

func TestFailedRunsDoNotCount(t *testing.T) {
	r := example()
	if n := r.SubjectFailures(); n != 0 {
		t.Errorf("%d failures of the subject, want none: naive is a rival", n)
	}
	r.Failures = append(r.Failures, Failure{"awe4lb", "x"}, Failure{"", "y"})
	if n := r.SubjectFailures(); n != 2 {
		t.Errorf("%d failures of the subject or of nobody, want 2", n)
	}
	if n := len(r.Values(Keep64, "naive", CPU)); n != 2 {
		t.Errorf("%d good runs of naive, want 2 of 3", n)
	}
	if ratio := r.Ratio(Keep64, "naive", "haproxy", CPU, stats.Min); ratio.Rounds != 2 {
		t.Errorf("ratio over %d rounds, want 2", ratio.Rounds)
	}
	if m, ok := r.memoryOf("", "naive"); ok {
		t.Errorf("a failed memory measurement counts: %+v", m)
	}
}

func TestRawJSONReadsBack(t *testing.T) {
	r := example()
	raw, err := r.RawJSON()
	if err != nil {
		t.Fatal(err)
	}
	var back Results
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	again, err := back.RawJSON()
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("the raw numbers do not survive: %v", err)
	}
	if len(back.Runs) != len(r.Runs) || back.latencyOf(Open64, "awe4lb").Count() != 20000 {
		t.Error("runs or latencies were lost")
	}
}

func TestWriteOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	r := example()
	first, err1 := r.Write(dir)
	second, err2 := r.Write(dir)
	if err1 != nil || err2 != nil || filepath.Base(first) != "2026-11-22-abc1234.md" || filepath.Base(second) != "2026-11-22-abc1234-2.md" {
		t.Errorf("wrote %s (%v) and %s (%v)", first, err1, second, err2)
	}
	text, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"2026-11-22-abc1234-2/cpu-requests.svg", "2026-11-22-abc1234-2/latency.svg"} {
		if !bytes.Contains(text, []byte("("+link+")")) {
			t.Errorf("the page does not show %s", link)
		}
		if _, err := os.Stat(filepath.Join(dir, link)); err != nil {
			t.Error(err)
		}
	}
}

func TestThousands(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.8: "1,234,568", -1000: "-1,000", math.NaN(): "–"} {
		if got := thousands(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}

func TestBarsAreThoseOfWhatWasMeasured(t *testing.T) {
	for name, c := range map[string]struct {
		r     *Results
		n     int
		first string
	}{
		"UDP alone":            {&Results{Flows: []Flows{{}}}, 9, "UDP "},
		"TCP alone":            {&Results{Scenarios: []Scenario{{Unit: PerGB}}}, 24, "CPU per keep-alive"},
		"TCP, bytes compared":  {&Results{Verified: []Verified{{}}}, 24, "CPU per keep-alive"},
		"TLS alone":            {&Results{Scenarios: []Scenario{{Unit: PerGB, TLS: true}}}, 13, "TLS "},
		"TLS, its memory":      {&Results{Memory: []Memory{{Kind: MemoryHalfOpen}}}, 13, "TLS "},
		"TLS, bytes compared":  {&Results{Verified: []Verified{{Over: "TLS"}}}, 13, "TLS "},
		"all, and the flood":   {example(), 24 + 9 + 14, "CPU per keep-alive"},
		"nothing was measured": {&Results{}, 0, ""},
	} {
		bars := c.r.bars()
		if len(bars) != c.n || c.n > 0 && !strings.HasPrefix(bars[0].Figure, c.first) {
			t.Errorf("%s: %d bars, want %d that begin with %q", name, len(bars), c.n, c.first)
		}
	}
	want := map[string]string{"p99, 16 connections, while RSA handshakes arrive, vs haproxy": "missed", "the same with engine.tls_nice = 19 (the default is 0)": "met, stretch too",
		"user memory per idle TLS connection, vs haproxy": "met", "user memory per half-open handshake, vs haproxy": "missed"}
	for _, b := range example().tlsBars() {
		if verdict, ok := want[b.Figure]; ok && b.Verdict(b.measure(example())) != verdict {
			t.Errorf("%s: got %q, want %q", b.Figure, b.Verdict(b.measure(example())), verdict)
		}
		delete(want, b.Figure)
	}
	if len(want) > 0 {
		t.Errorf("no bars %v", want)
	}
	f, ok := example().flowsOf("awe4lb")
	if !ok || math.Abs(f.Expire-4.8) > 1e-9 || f.IdleCPU != 0.0004 || f.Create != 53 {
		t.Errorf("medians of the flows: %+v", f)
	}
}
