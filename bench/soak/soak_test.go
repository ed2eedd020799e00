package soak

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// grown is a soak whose figures at rest grow by so much per cycle of one minute.
func grown(cycles int, rssPerCycle int64, fdsEvery int) *Report {
	r := &Report{System: "awe4lb", Version: "0.1", Commit: "abc1234", Command: "go run ./bench soak", Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		Kernel: "6.1", Cores: 2, Lasted: time.Duration(cycles) * time.Minute, Cycles: cycles, Reloads: 13 * cycles, Requests: 1e6, Bytes: 5e9, MaxGrowth: 4e6}
	for i := range cycles {
		at := float64(i) * 60
		fds := 20
		if fdsEvery > 0 {
			fds += i / fdsEvery
		}
		busy := int64(8e6 * (1 + math.Sin(float64(i))))
		r.Samples = append(r.Samples, Sample{Seconds: at + 20, RSS: 30e6 + busy, FDs: fds + 128, Goroutines: 12},
			Sample{Seconds: at + 55, RSS: 20e6 + int64(i)*rssPerCycle, FDs: fds, Goroutines: 10, Rest: true})
	}
	return r
}

func TestVerdicts(t *testing.T) {
	failed := grown(12, 0, 0)
	failed.Failures = []string{"after 3s: requests: 1 x reset"}
	warmUp := grown(12, 0, 0)
	warmUp.Samples[1].RSS = 1e6 // small at first: pools and heap fill
	peak := grown(12, 0, 0)
	peak.Samples[13].RSS = 90e6 // one look that was taken too early
	for want, r := range map[string]*Report{
		"passed":                                 grown(12, 0, 0),
		"FAILED: memory (RSS) grows":             grown(12, 1e6, 0),
		"FAILED: open files grows":               grown(12, 0, 1),
		"FAILED: 1 failures":                     failed,
		"passed, but too short to judge growth":  grown(3, 5e6, 1),
		"FAILED: memory (RSS) grows, open files": grown(12, 1e6, 1),
	} {
		if got := r.Verdict(); !strings.HasPrefix(got, want) || (want == "passed" && got != want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for name, r := range map[string]*Report{"warm-up": warmUp, "one peak": peak, "slow": grown(12, 1e5, 0)} {
		if !r.Passed() {
			t.Errorf("%s: %s", name, r.Verdict())
		}
	}
}

func TestSlopePerHour(t *testing.T) {
	trend := grown(20, 1e5, 0).Trends()[0] // 0.1 MB a minute
	if math.Abs(trend.PerHour-6) > 1e-6 || trend.Judged != 10 {
		t.Errorf("got %+v, want 6 MB per hour over 10 samples", trend)
	}
}

func TestGolden(t *testing.T) {
	r := grown(12, 1e6, 0)
	r.Failures = []string{"after 3s: requests: 1 x reset"}
	var b bytes.Buffer
	if err := r.Markdown(&b, "figures"); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"soak.md": b.Bytes(), "summary.txt": []byte(r.Summary())}
	for _, f := range r.Figures() {
		files[f.Name] = []byte(f.SVG)
	}
	for name, got := range files {
		path := filepath.Join("testdata", name)
		if *update {
			os.MkdirAll("testdata", 0o755)
			os.WriteFile(path, got, 0o644)
		}
		if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the golden file (%v); if that is meant: go test ./bench/soak -update", name, err)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path, err := grown(6, 0, 0).Write(dir)
	if err != nil || filepath.Base(path) != "soak-2026-11-22-abc1234.md" {
		t.Fatalf("%s, %v", path, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "soak-2026-11-22-abc1234", "memory.svg")); err != nil {
		t.Error(err)
	}
}
