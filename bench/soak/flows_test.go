package soak

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// flooded is a soak of the flow table in which all went well.
func flooded(cycles int) *FlowReport {
	r := &FlowReport{Report: *grown(0, 0, 0), Live: 100, MaxFlows: 16000, Timeout: 10 * time.Second, Grace: 2 * time.Second, Rate: 5000,
		Strangers: int64(cycles) * 50000, LiveSent: 1e6, LiveLost: 3}
	r.Cycles, r.Lasted, r.Command = cycles, time.Duration(cycles)*24*time.Second, "go run ./bench soak-udp"
	for i := range cycles {
		at := float64(i) * 24
		r.Samples = append(r.Samples, Sample{Seconds: at, RSS: 20e6, FDs: 120, Goroutines: 10, Flows: 100},
			Sample{Seconds: at + 10, RSS: 29e6, FDs: 16020, Goroutines: 10, Flows: 16000},
			Sample{Seconds: at + 22, RSS: 21e6, FDs: 120, Goroutines: 10, Flows: 100, Rest: true})
		r.Left = append(r.Left, 0)
	}
	return r
}

func TestFlowVerdicts(t *testing.T) {
	for want, spoil := range map[string]func(r *FlowReport){
		"passed":                                       func(r *FlowReport) {},
		"FAILED: 1 failures":                           func(r *FlowReport) { r.Failures = []string{"after 3s: 1 x answer to another client"} },
		"FAILED: not so: memory is bounded":            func(r *FlowReport) { r.Samples[4].RSS = 90e6 },
		"FAILED: not so: live flows are unharmed":      func(r *FlowReport) { r.LiveMoved = 1 },
		"FAILED: not so: live flows are unharmed ":     func(r *FlowReport) { r.LiveLost = 2000 },
		"FAILED: not so: live flows are unharmed  ":    func(r *FlowReport) { r.LiveSent, r.LiveLost = 0, 0 },
		"FAILED: not so: all flows are gone 12s after": func(r *FlowReport) { r.Left[2] = 1 },
		"FAILED: not so: all flows are gone 12s":       func(r *FlowReport) { r.LeftAtTheEnd = 4 },
		"FAILED: not so: all flows are gone":           func(r *FlowReport) { r.LeftAtTheEnd = -1 },
		"FAILED: not so: all flows are":                func(r *FlowReport) { r.Left = nil },
		"FAILED: not so: memory is bounded ": func(r *FlowReport) {
			for i := range r.Samples {
				r.Samples[i].RSS += int64(i) * 1e6 / 2 // within bounds, but without an end
			}
		},
	} {
		r := flooded(10)
		spoil(r)
		if got := r.Verdict(); !strings.HasPrefix(got, strings.TrimSpace(want)) || r.Passed() != (want == "passed") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFlowGolden(t *testing.T) {
	r := flooded(10)
	r.Left[3], r.Failures = 7, []string{"after 80s: 7 flows are left"}
	var b bytes.Buffer
	if err := r.Markdown(&b, "figures"); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"soak-udp.md": b.Bytes(), "summary-udp.txt": []byte(r.Summary()), "flows.svg": []byte(r.Figures()[0].SVG)}
	for name, got := range files {
		path := filepath.Join("testdata", name)
		if *update {
			os.WriteFile(path, got, 0o644)
		}
		if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the golden file (%v); if that is meant: go test ./bench/soak -update", name, err)
		}
	}
	path, err := r.Write(t.TempDir())
	if err != nil || filepath.Base(path) != "soak-udp-2026-11-22-abc1234.md" {
		t.Errorf("%s, %v", path, err)
	}
}
