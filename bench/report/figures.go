package report

import (
	"fmt"
	"math"

	"awe4lb/bench/plot"
	"awe4lb/bench/stats"
)

// Figure is one picture of the page.
type Figure struct {
	Name  string // of the file
	Title string
	SVG   string
}

// minTail is how many samples must lie beyond a percentile before a curve is drawn up to it.
const minTail = 10

// Figures draws the pictures that the results have data for.
func (r *Results) Figures() []Figure {
	var out []Figure
	add := func(name, title, svg string) { out = append(out, Figure{name, title, svg}) }
	isBulk := func(s Scenario) bool { return s.Unit == PerGB }
	if b, ok := r.cpuBars("Proxy CPU per request and per connection", func(s Scenario) bool { return !isBulk(s) }); ok {
		add("cpu-requests.svg", b.Title, b.SVG())
	}
	if b, ok := r.cpuBars("Proxy CPU per gigabyte", isBulk); ok {
		add("cpu-bulk.svg", b.Title, b.SVG())
	}
	if l, ok := r.latencyCurves(); ok {
		add("latency.svg", l.Title, l.SVG())
	}
	if b, ok := r.memoryBars(); ok {
		add("memory.svg", b.Title, b.SVG())
	}
	return out
}

// series lists all systems, so that each has the same colour in every picture.
func (r *Results) series() []plot.Series {
	var out []plot.Series
	for _, s := range r.Measured() {
		out = append(out, plot.Series{Name: s.Name, Subject: s.Name == r.Subject})
	}
	return out
}

func (r *Results) cpuBars(title string, include func(Scenario) bool) (plot.Bars, bool) {
	b := plot.Bars{Title: title, Sub: "ratio to haproxy in the same round, median; less is better; whiskers: quartiles of the rounds",
		Axis: "CPU of the proxy, haproxy = 1", Series: r.series(), Reference: 1, RefLabel: "haproxy"}
	for _, s := range r.Scenarios {
		if !include(s) {
			continue
		}
		note := s.Note
		if s.Open {
			note = thousands(r.Settings.OpenLoopRate) + " requests/s offered"
		}
		g := plot.Group{Label: s.Title, Note: note}
		for _, sys := range r.Measured() {
			cpus := r.Values(s.Key, sys.Name, CPU)
			ratio := r.Ratio(s.Key, sys.Name, Reference, CPU, stats.Min)
			if len(cpus) == 0 || math.IsNaN(ratio.Median) {
				continue
			}
			text := fixed(stats.Median(cpus), 1) + " µs"
			if s.Unit == PerGB {
				text = fixed(stats.Median(cpus), 0) + " ms"
			}
			g.Bars = append(g.Bars, plot.Bar{Series: sys.Name, Value: ratio.Median, Low: ratio.Low, High: ratio.High, Text: "(" + text + ")"})
		}
		if len(g.Bars) > 0 {
			b.Groups = append(b.Groups, g)
		}
	}
	return b, len(b.Groups) > 0
}

func (r *Results) latencyCurves() (plot.Percentiles, bool) {
	p := plot.Percentiles{Title: "Latency at a fixed rate",
		Sub:    fmt.Sprintf("64 connections, %s requests/s offered, from the intended send time, all rounds together; lower is better", thousands(r.Settings.OpenLoopRate)),
		Series: r.series()}
	for _, s := range r.Measured() {
		h := r.latencyOf(Open64, s.Name)
		if h == nil || h.Count() < 100*minTail {
			continue
		}
		p.Lines = append(p.Lines, plot.PercentileLine{Series: s.Name,
			Quantile: func(q float64) float64 { return float64(h.Quantile(q)) / 1e3 },
			Max:      min(0.9999, 1-minTail/float64(h.Count()))})
	}
	return p, len(p.Lines) > 0
}

func (r *Results) memoryBars() (plot.Bars, bool) {
	b := plot.Bars{Title: "User memory per idle connection", Sub: "proxied connections that have had one request; less is better; without the kernel's socket buffers",
		Axis: "kB (1000 bytes) per connection", Series: r.series()}
	g := plot.Group{Label: "idle connections", Note: "growth of the process tree's PSS"}
	for _, s := range r.Measured() {
		if m, ok := r.memoryOf(s.Name); ok {
			g.Bars = append(g.Bars, plot.Bar{Series: s.Name, Value: m.PerConnection() / 1000, Text: "kB"})
		}
	}
	b.Groups = append(b.Groups, g)
	return b, len(g.Bars) > 0
}
