// Package soak judges a long run: does a proxy that is kept busy grow? It gets samples and failures, and returns trends,
// a verdict, a page and pictures. It starts nothing and reads nothing.
//
// Only samples taken at rest are judged: after each cycle the load stops, and what the proxy still holds then should be
// what it held after the cycle before. The first half of the cycles is warm-up, in which pools and heaps may fill: what
// leaks goes on growing after that.
package soak

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"awe4lb/bench/plot"
	"awe4lb/bench/stats"
)

// Sample is one look at the proxy.
type Sample struct {
	Seconds    float64 // since the start
	RSS        int64   // bytes, of the process tree
	FDs        int
	Goroutines int  // -1 when unknown
	Flows      int  // UDP; 0 in a soak of TCP
	Rest       bool // the load was stopped and the proxy had a moment to settle
}

// Report is a soak and its outcome.
type Report struct {
	System   string
	Version  string
	Commit   string
	Dirty    bool
	Command  string
	Date     time.Time
	Kernel   string
	Cores    int
	Lasted   time.Duration
	Cycles   int
	Reloads  int
	Requests int64
	Bytes    int64 // of bulk, both directions
	Samples  []Sample
	Failures []string // of load, or of the proxy itself

	MaxGrowth int64 // bytes of RSS that the judged part of the run may add; a tenth of the median is always allowed
}

// minJudged is how many samples at rest a trend needs.
const minJudged = 4

// maxCountGrowth is how many descriptors or goroutines the judged part may add: a timer, a pooled pipe, no leak.
const maxCountGrowth = 4

// Trend is the growth of one figure over the judged samples at rest.
type Trend struct {
	Figure  string
	Unit    string
	Known   bool
	Judged  int     // samples
	Median  float64 // at rest
	PerHour float64 // slope, Theil and Sen
	Growth  float64 // slope times the judged time
	Allowed float64
	Pass    bool
}

// Trends returns the growth of memory, descriptors and goroutines.
func (r *Report) Trends() []Trend {
	mb := func(s Sample) (float64, bool) { return float64(s.RSS) / 1e6, true }
	fds := func(s Sample) (float64, bool) { return float64(s.FDs), true }
	goroutines := func(s Sample) (float64, bool) { return float64(s.Goroutines), s.Goroutines >= 0 }
	return []Trend{
		r.trend("memory (RSS)", "MB", mb, func(median float64) float64 { return max(float64(r.MaxGrowth)/1e6, median/10) }),
		r.trend("open files", "", fds, func(float64) float64 { return maxCountGrowth }),
		r.trend("goroutines", "", goroutines, func(float64) float64 { return maxCountGrowth }),
	}
}

func (r *Report) trend(figure, unit string, value func(Sample) (float64, bool), allowed func(median float64) float64) Trend {
	t := Trend{Figure: figure, Unit: unit, Pass: true}
	x, y := r.judged(value)
	t.Judged = len(x)
	if len(x) < minJudged {
		return t
	}
	t.Known = true
	t.Median = stats.Median(y)
	slope := stats.Slope(x, y)
	t.PerHour, t.Growth = slope*3600, slope*(x[len(x)-1]-x[0])
	t.Allowed = allowed(t.Median)
	t.Pass = t.Growth <= t.Allowed
	return t
}

// judged returns the samples at rest without the first half of them.
func (r *Report) judged(value func(Sample) (float64, bool)) (x, y []float64) {
	for _, s := range r.Samples {
		if v, ok := value(s); ok && s.Rest {
			x, y = append(x, s.Seconds), append(y, v)
		}
	}
	skip := len(x) / 2
	return x[skip:], y[skip:]
}

// Passed says whether nothing failed and nothing grew.
func (r *Report) Passed() bool {
	for _, t := range r.Trends() {
		if !t.Pass {
			return false
		}
	}
	return len(r.Failures) == 0
}

// Verdict is the outcome in a few words.
func (r *Report) Verdict() string {
	var wrong []string
	if n := len(r.Failures); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d failures", n))
	}
	judged := false
	for _, t := range r.Trends() {
		judged = judged || t.Known
		if !t.Pass {
			wrong = append(wrong, t.Figure+" grows")
		}
	}
	switch {
	case len(wrong) > 0:
		return "FAILED: " + strings.Join(wrong, ", ")
	case !judged:
		return "passed, but too short to judge growth"
	}
	return "passed"
}

// Summary returns the outcome as plain lines for a terminal.
func (r *Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d cycles, %d reloads, %d requests and connections, %.1f GB in %s\n", r.System, r.Cycles, r.Reloads, r.Requests, float64(r.Bytes)/1e9, r.Lasted.Round(time.Second))
	for _, t := range r.Trends() {
		if !t.Known {
			fmt.Fprintf(&b, "  %-13s not judged: %d samples at rest, want %d\n", t.Figure, t.Judged, minJudged)
			continue
		}
		fmt.Fprintf(&b, "  %-13s %.1f %s at rest, slope %+.2f %s per hour, grew %+.2f of %.2f allowed\n", t.Figure, t.Median, t.Unit, t.PerHour, t.Unit, t.Growth, t.Allowed)
	}
	fmt.Fprintf(&b, "%s\n", r.Verdict())
	return b.String()
}

// Markdown writes the page; figures is the directory of the pictures, relative to it.
func (r *Report) Markdown(w io.Writer, figures string) error {
	var b strings.Builder
	dirty := ""
	if r.Dirty {
		dirty = " with local changes"
	}
	fmt.Fprintf(&b, "# Soak of %s, %s\n\n**%s**\n\n", r.System, r.Date.Format("2 January 2006"), r.Verdict())
	fmt.Fprintf(&b, "Commit `%s`%s, %s, Linux %s, %d cores. Repeat it with `%s`.\n\n", r.Commit, dirty, r.Version, r.Kernel, r.Cores, r.Command)
	fmt.Fprintf(&b, "%d cycles in %s: keep-alive requests, short connections, bulk both ways with every byte compared, readers that stall, and\n", r.Cycles, r.Lasted.Round(time.Second))
	fmt.Fprintf(&b, "reloads under load (%d of them); %d requests and connections and %.1f GB in all. After each cycle the load stops; only these\n", r.Reloads, r.Requests, float64(r.Bytes)/1e9)
	b.WriteString("samples at rest are judged, without the first half of them. Slopes are medians over all pairs of samples (Theil and Sen).\n\n")
	b.WriteString("| figure | at rest | slope per hour | growth in the judged time | allowed | |\n| --- | ---: | ---: | ---: | ---: | --- |\n")
	for _, t := range r.Trends() {
		if !t.Known {
			fmt.Fprintf(&b, "| %s | – | – | – | – | not judged |\n", t.Figure)
			continue
		}
		word := "steady"
		if !t.Pass {
			word = "**grows**"
		}
		fmt.Fprintf(&b, "| %s | %.1f %s | %+.2f | %+.2f | %.2f | %s |\n", t.Figure, t.Median, t.Unit, t.PerHour, t.Growth, t.Allowed, word)
	}
	if len(r.Failures) > 0 {
		b.WriteString("\n## Failures\n\n")
		for _, f := range r.Failures {
			fmt.Fprintf(&b, "- %s\n", f)
		}
	}
	for _, f := range r.Figures() {
		fmt.Fprintf(&b, "\n![%s](%s/%s)\n", f.Title, figures, f.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Figure is one picture of the page.
type Figure struct {
	Name, Title, SVG string
}

// Figures draws memory and descriptors over time, and goroutines when they are known.
func (r *Report) Figures() []Figure {
	var out []Figure
	add := func(name, title, unit string, trend Trend, value func(Sample) (float64, bool)) {
		c := plot.Time{Title: title, Sub: "dots: at rest, after each cycle; dashed: the trend that is judged", Unit: unit}
		for _, s := range r.Samples {
			v, ok := value(s)
			if !ok {
				continue
			}
			c.X, c.Y = append(c.X, s.Seconds), append(c.Y, v)
			if s.Rest {
				c.Dots = append(c.Dots, len(c.X)-1)
			}
		}
		if len(c.X) == 0 {
			return
		}
		if x, _ := r.judged(value); trend.Known && !math.IsNaN(trend.PerHour) {
			middle := (x[0] + x[len(x)-1]) / 2
			c.Trend = func(at float64) float64 { return trend.Median + (at-middle)*trend.PerHour/3600 }
		}
		out = append(out, Figure{name, title, c.SVG()})
	}
	trends := r.Trends()
	add("memory.svg", r.System+": memory", "MB", trends[0], func(s Sample) (float64, bool) { return float64(s.RSS) / 1e6, true })
	add("files.svg", r.System+": open files", "files", trends[1], func(s Sample) (float64, bool) { return float64(s.FDs), true })
	add("goroutines.svg", r.System+": goroutines", "", trends[2], func(s Sample) (float64, bool) { return float64(s.Goroutines), s.Goroutines >= 0 })
	return out
}
