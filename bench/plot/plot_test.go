package plot

import (
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares an SVG with testdata/name; go test ./bench/plot -update rewrites it. Look at it after that.
func golden(t *testing.T, name, got string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(got)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%s is not XML: %v", name, err)
		}
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(got, bad) {
			t.Errorf("%s contains %s", name, bad)
		}
	}
	path := "testdata/" + name
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from the golden file; if that is meant: go test ./bench/plot -update", name)
	}
}

var systems = []Series{{"awe4lb", true}, {"haproxy", false}, {"nginx", false}, {"naive <go>", false}}

func TestBars(t *testing.T) {
	golden(t, "bars.svg", Bars{
		Title: "Proxy CPU per request", Sub: "less is better; whiskers: quartiles of the rounds", Axis: "ratio to haproxy",
		Series: systems, Reference: 1, RefLabel: "haproxy = 1",
		Groups: []Group{
			{Label: "keep-alive, 1 connection", Note: "closed loop", Bars: []Bar{
				{Series: "awe4lb", Value: 0.8, Low: 0.75, High: 0.91, Text: "12.3 µs"},
				{Series: "haproxy", Value: 1, Text: "15.4 µs"},
				{Series: "nginx", Value: 0.97, Low: 0.9, High: 1.02},
				{Series: "naive <go>", Value: 1.5, Low: 1.4, High: 1.66}}},
			{Label: "short connections", Bars: []Bar{{Series: "awe4lb", Value: math.NaN()}, {Series: "haproxy", Value: 1}}},
		}}.SVG())
}

func TestPercentiles(t *testing.T) {
	curve := func(base float64) func(q float64) float64 {
		return func(q float64) float64 { return base * (1 + 3*math.Pow(-math.Log10(1-min(q, 0.99999)), 2)) }
	}
	golden(t, "percentiles.svg", Percentiles{
		Title: "Latency", Sub: "64 connections, 10,000 requests/s offered", Series: systems,
		Lines: []PercentileLine{{"awe4lb", curve(60), 0.9999}, {"haproxy", curve(70), 0.9999}, {"nginx", curve(71), 0.999}, {"naive <go>", curve(150), 0.9999}},
	}.SVG())
	golden(t, "percentiles-empty.svg", Percentiles{Title: "Latency", Series: systems}.SVG())
}

func TestTime(t *testing.T) {
	var x, y []float64
	for i := range 50 {
		x, y = append(x, float64(i)*12), append(y, 20+5*math.Sin(float64(i)))
	}
	golden(t, "time.svg", Time{Title: "Memory", Sub: "dots: at rest", Unit: "MB", X: x, Y: y, Dots: []int{10, 20, 30, 40},
		Trend: func(x float64) float64 { return 18 + x/1000 }}.SVG())
	golden(t, "time-empty.svg", Time{Title: "Memory"}.SVG())
}

func TestTicksCoverTheirRange(t *testing.T) {
	for _, top := range []float64{0, 0.003, 0.9, 1, 1.01, 7, 99, 12345, math.NaN()} {
		got := ticks(top, 6)
		if last := got[len(got)-1]; last < top || len(got) < 2 || len(got) > 14 {
			t.Errorf("ticks up to %v: %v", top, got)
		}
	}
}

func TestLabels(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0123: "0.012", 0.5: "0.50", 3.14159: "3.14", 42.42: "42.4", 1234.5: "1234"} {
		if got := label(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{1: "1 µs", 500: "500 µs", 2000: "2 ms", 5e6: "5 s"} {
		if got := duration(v); got != want {
			t.Errorf("%v us: got %q, want %q", v, got, want)
		}
	}
}
