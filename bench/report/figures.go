package report

import (
	"fmt"
	"math"
	"slices"

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
	counts := func(units ...Unit) func(Scenario) bool {
		return func(s Scenario) bool { return slices.Contains(units, s.Unit) && !s.TLS }
	}
	secure := func(units ...Unit) func(Scenario) bool {
		return func(s Scenario) bool { return slices.Contains(units, s.Unit) && s.TLS }
	}
	if b, ok := r.cpuBars("Proxy CPU per request and per connection", Reference, counts(PerRequest, PerConnection)); ok {
		add("cpu-requests.svg", b.Title, b.SVG())
	}
	if b, ok := r.cpuBars("Proxy CPU per gigabyte", Reference, counts(PerGB)); ok {
		add("cpu-bulk.svg", b.Title, b.SVG())
	}
	if l, ok := r.latencyCurves("Latency at a fixed rate", Open64, fmt.Sprintf("64 connections, %s requests/s", thousands(r.Settings.OpenLoopRate))); ok {
		add("latency.svg", l.Title, l.SVG())
	}
	idle := memoryFigure{"", "idle connections"}
	if b, ok := r.memoryBars("User memory per idle connection", "proxied connections that have had one request; less is better; without the kernel's socket buffers", idle); ok {
		add("memory.svg", b.Title, b.SVG())
	}
	if b, ok := r.cpuBars("Proxy CPU per TLS handshake", Reference, secure(PerHandshake)); ok {
		add("tls-handshakes.svg", b.Title, b.SVG())
	}
	if b, ok := r.cpuBars("Proxy CPU per TLS request and per gigabyte", Reference, secure(PerRequest, PerGB)); ok {
		add("tls-cpu.svg", b.Title, b.SVG())
	}
	if l, ok := r.latencyCurves("Latency while RSA handshakes arrive", TLSFlood, fmt.Sprintf("16 TLS connections, %s requests/s", thousands(r.offered(TLSFlood)))); ok {
		add("tls-latency.svg", l.Title, l.SVG())
	}
	if b, ok := r.memoryBars("User memory per TLS connection", "less is better; without the kernel's socket buffers",
		memoryFigure{MemoryTLS, "idle connections"}, memoryFigure{MemoryHalfOpen, "half-open handshakes"}); ok {
		add("tls-memory.svg", b.Title, b.SVG())
	}
	if b, ok := r.cpuBars("Proxy CPU per UDP round trip", UDPReference, counts(PerRoundTrip)); ok {
		add("udp-cpu.svg", b.Title, b.SVG())
	}
	if b, ok := r.goodputBars(); ok {
		add("udp-goodput.svg", b.Title, b.SVG())
	}
	for _, s := range r.Scenarios {
		if s.Key != UDPOpen100 {
			continue
		}
		if l, ok := r.latencyCurves("UDP latency at a fixed rate", UDPOpen100, fmt.Sprintf("100 clients, %s datagrams/s", thousands(s.Offered))); ok {
			add("udp-latency.svg", l.Title, l.SVG())
		}
	}
	if b, ok := r.flowBars("User memory per UDP flow", "flows that have had one round trip; less is better; without the kernel's sockets", "kB (1000 bytes) per flow",
		flowFigure{"idle flows", "growth of the process tree's PSS", "kB", func(f Flows) float64 { return f.PerFlow() / 1000 }}); ok {
		add("udp-memory.svg", b.Title, b.SVG())
	}
	if b, ok := r.flowBars("Proxy CPU per UDP flow", "less is better", "µs of CPU per flow",
		flowFigure{"a new flow", "with its first round trip", "µs", func(f Flows) float64 { return f.Create }},
		flowFigure{"an expired flow", "", "µs", func(f Flows) float64 { return f.Expire }}); ok {
		add("udp-flows.svg", b.Title, b.SVG())
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

func (r *Results) cpuBars(title, reference string, include func(Scenario) bool) (plot.Bars, bool) {
	b := plot.Bars{Title: title, Sub: "ratio to " + reference + " in the same round, median; less is better; whiskers: quartiles of the rounds",
		Axis: "CPU of the proxy, " + reference + " = 1", Series: r.series(), Reference: 1, RefLabel: reference}
	for _, s := range r.Scenarios {
		if !include(s) {
			continue
		}
		note := s.Note
		if s.Offered > 0 {
			note = thousands(s.Offered) + " datagrams/s offered"
			if s.TLS {
				note = thousands(s.Offered) + " requests/s offered"
			}
		} else if s.Open {
			note = thousands(r.Settings.OpenLoopRate) + " requests/s offered"
		}
		g := plot.Group{Label: s.Title, Note: note}
		for _, sys := range r.Measured() {
			cpus := r.Values(s.Key, sys.Name, CPU)
			ratio := r.Ratio(s.Key, sys.Name, reference, CPU, stats.Min)
			if len(cpus) == 0 || math.IsNaN(ratio.Median) || stats.Max(cpus) == 0 {
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

func (r *Results) latencyCurves(title, scenario, load string) (plot.Percentiles, bool) {
	p := plot.Percentiles{Title: title, Sub: load + " offered, from the intended send time, all rounds together; lower is better",
		Series: r.series()}
	for _, s := range r.Measured() {
		h := r.latencyOf(scenario, s.Name)
		if h == nil || h.Count() < 100*minTail {
			continue
		}
		p.Lines = append(p.Lines, plot.PercentileLine{Series: s.Name,
			Quantile: func(q float64) float64 { return float64(h.Quantile(q)) / 1e3 },
			Max:      min(0.9999, 1-minTail/float64(h.Count()))})
	}
	return p, len(p.Lines) > 0
}

// memoryFigure is one kind of Memory.
type memoryFigure struct{ kind, label string }

func (r *Results) memoryBars(title, sub string, figures ...memoryFigure) (plot.Bars, bool) {
	b := plot.Bars{Title: title, Sub: sub, Axis: "kB (1000 bytes) per connection", Series: r.series()}
	for _, figure := range figures {
		g := plot.Group{Label: figure.label, Note: "growth of the process tree's PSS"}
		for _, s := range r.Measured() {
			if m, ok := r.memoryOf(figure.kind, s.Name); ok {
				g.Bars = append(g.Bars, plot.Bar{Series: s.Name, Value: m.PerConnection() / 1000, Text: "kB"})
			}
		}
		if len(g.Bars) > 0 {
			b.Groups = append(b.Groups, g)
		}
	}
	return b, len(b.Groups) > 0
}

// offered returns the rate of an open scenario.
func (r *Results) offered(scenario string) float64 {
	for _, s := range r.Scenarios {
		if s.Key == scenario && s.Offered > 0 {
			return s.Offered
		}
	}
	return r.Settings.OpenLoopRate
}

// goodputBars shows what still comes back when more is offered than can be done.
func (r *Results) goodputBars() (plot.Bars, bool) {
	b := plot.Bars{Title: "UDP goodput under overload", Sub: "round trips per second, median; more is better; whiskers: quartiles of the rounds; behind: share of what was sent that is lost",
		Axis: "thousand round trips per second", Series: r.series()}
	for _, s := range r.Scenarios {
		if s.Key != UDPOver1 && s.Key != UDPOver100 {
			continue
		}
		g := plot.Group{Label: s.Title, Note: thousands(s.Offered) + " datagrams/s offered"}
		for _, sys := range r.Measured() {
			v := r.Values(s.Key, sys.Name, Rate)
			if len(v) == 0 {
				continue
			}
			g.Bars = append(g.Bars, plot.Bar{Series: sys.Name, Value: stats.Median(v) / 1e3, Low: stats.Quantile(v, 0.25) / 1e3, High: stats.Quantile(v, 0.75) / 1e3,
				Text: "(" + fixed(100*stats.Median(r.Values(s.Key, sys.Name, Loss)), 0) + " % lost)"})
		}
		if len(g.Bars) > 0 {
			b.Groups = append(b.Groups, g)
		}
	}
	return b, len(b.Groups) > 0
}

// flowFigure is one figure of a flow's life.
type flowFigure struct {
	label, note, unit string
	of                func(Flows) float64
}

func (r *Results) flowBars(title, sub, axis string, figures ...flowFigure) (plot.Bars, bool) {
	b := plot.Bars{Title: title, Sub: sub, Axis: axis, Series: r.series()}
	any := false
	for _, figure := range figures {
		g := plot.Group{Label: figure.label, Note: figure.note}
		for _, s := range r.Measured() {
			if f, ok := r.flowsOf(s.Name); ok && figure.of(f) >= 0 {
				g.Bars = append(g.Bars, plot.Bar{Series: s.Name, Value: figure.of(f), Text: figure.unit})
				any = true
			}
		}
		b.Groups = append(b.Groups, g)
	}
	return b, any
}
