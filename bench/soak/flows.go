package soak

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"awe4lb/bench/plot"
)

// FlowReport is a soak of the UDP flow table: strangers by the hundred thousand, each a source address and port of its
// own, beside a few live clients. Three things are promised: memory stays within what the table's limit allows, live
// clients do not notice, and every flow is gone soon after its idle timeout.
type FlowReport struct {
	Report // its Cycles, Samples, Failures; Samples carry Flows

	Live     int           // clients that go on all the time
	MaxFlows int           // the table's limit
	Timeout  time.Duration // how long a flow may be idle
	Grace    time.Duration // after that, all must be gone: a tick of the table's clock and a second
	Rate     float64       // strangers per second while they come

	Strangers    int64 // sources that sent a datagram each
	LiveSent     int64
	LiveLost     int64
	LiveMoved    int64 // live flows that were made anew: the proxy had forgotten them
	Left         []int // flows that were there, beside the live ones, when all of a cycle's should have been gone
	LeftAtTheEnd int   // when the live ones should have been gone too; -1 when nobody looked
}

const (
	// perFlowAllowed is user memory: more than the 0.6 kB promised, since tables grow by doubling.
	perFlowAllowed = 1500
	// baseAllowed is for buffers and a heap that may double before it is collected.
	baseAllowed = 32e6
	// liveLossAllowed: a shared machine may stop a process for longer than a socket's buffer lasts.
	liveLossAllowed = 0.001
)

// Promise is one of the three, and what came of it.
type Promise struct {
	What string
	Got  string
	Kept bool
}

// Promises judges them.
func (r *FlowReport) Promises() []Promise {
	first, peak, flows := int64(0), int64(0), 0
	for i, s := range r.Samples {
		if i == 0 {
			first = s.RSS
		}
		peak, flows = max(peak, s.RSS), max(flows, s.Flows)
	}
	allowed := first + int64(r.MaxFlows)*perFlowAllowed + baseAllowed
	steady := true
	for _, t := range r.Trends() {
		steady = steady && t.Pass
	}
	growth := "steady at rest"
	if !steady {
		growth = "GROWS at rest"
	}
	loss := 0.0
	if r.LiveSent > 0 {
		loss = float64(r.LiveLost) / float64(r.LiveSent)
	}
	worst := 0
	if len(r.Left) > 0 {
		worst = slices.Max(r.Left)
	}
	end := "nobody looked at the end"
	if r.LeftAtTheEnd >= 0 {
		end = fmt.Sprintf("%d when the live ones had stopped too", r.LeftAtTheEnd)
	}
	return []Promise{
		{"memory is bounded", fmt.Sprintf("%.1f MB at first, %.1f MB at most, %.1f MB allowed; %s; %d flows at most", float64(first)/1e6, float64(peak)/1e6, float64(allowed)/1e6, growth, flows),
			peak <= allowed && steady},
		{"live flows are unharmed", fmt.Sprintf("%d of %d datagrams lost (%.3f %%), %d of %d flows made anew", r.LiveLost, r.LiveSent, loss*100, r.LiveMoved, r.Live),
			r.LiveSent > 0 && loss <= liveLossAllowed && r.LiveMoved == 0},
		{fmt.Sprintf("all flows are gone %s after their last datagram", r.Timeout+r.Grace), fmt.Sprintf("at most %d left in %d looks, %s", worst, len(r.Left), end),
			len(r.Left) > 0 && worst == 0 && r.LeftAtTheEnd == 0},
	}
}

// Passed says whether every promise was kept and nothing failed.
func (r *FlowReport) Passed() bool {
	return len(r.Failures) == 0 && !slices.ContainsFunc(r.Promises(), func(p Promise) bool { return !p.Kept })
}

// Verdict is the outcome in a few words.
func (r *FlowReport) Verdict() string {
	var wrong []string
	if n := len(r.Failures); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d failures", n))
	}
	for _, p := range r.Promises() {
		if !p.Kept {
			wrong = append(wrong, "not so: "+p.What)
		}
	}
	if len(wrong) > 0 {
		return "FAILED: " + strings.Join(wrong, ", ")
	}
	return "passed"
}

// Summary returns the outcome as plain lines for a terminal.
func (r *FlowReport) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d cycles, %d strangers in %s\n", r.System, r.Cycles, r.Strangers, r.Lasted.Round(time.Second))
	for _, p := range r.Promises() {
		word := "kept  "
		if !p.Kept {
			word = "BROKEN"
		}
		fmt.Fprintf(&b, "  %s  %s: %s\n", word, p.What, p.Got)
	}
	fmt.Fprintf(&b, "%s\n", r.Verdict())
	return b.String()
}

// Markdown writes the page; figures is the directory of the pictures, relative to it.
func (r *FlowReport) Markdown(w io.Writer, figures string) error {
	var b strings.Builder
	dirty := ""
	if r.Dirty {
		dirty = " with local changes"
	}
	fmt.Fprintf(&b, "# Soak of %s over UDP, %s\n\n**%s**\n\n", r.System, r.Date.Format("2 January 2006"), r.Verdict())
	fmt.Fprintf(&b, "Commit `%s`%s, %s, Linux %s, %d cores. Repeat it with `%s`.\n\n", r.Commit, dirty, r.Version, r.Kernel, r.Cores, r.Command)
	fmt.Fprintf(&b, "%d cycles in %s. In each, strangers come at %.0f/s, every one from an address and port of its own, and send one datagram: the\n", r.Cycles, r.Lasted.Round(time.Second), r.Rate)
	fmt.Fprintf(&b, "first half of them are answered, the second half are not. Then nobody new comes until all their flows should be gone. %d strangers in\n", r.Strangers)
	fmt.Fprintf(&b, "all; %d live clients go on all the while. The table holds %d flows, which may be idle for %s.\n\n", r.Live, r.MaxFlows, r.Timeout)
	b.WriteString("| promise | | what was seen |\n| --- | --- | --- |\n")
	for _, p := range r.Promises() {
		word := "kept"
		if !p.Kept {
			word = "**broken**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.What, word, p.Got)
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

// Figures draws flows over time, and what Report draws: memory, files, goroutines.
func (r *FlowReport) Figures() []Figure {
	c := plot.Time{Title: r.System + ": UDP flows", Sub: "dots: when all but the live ones should be gone; dashed: the table's limit", Unit: "flows",
		Trend: func(float64) float64 { return float64(r.MaxFlows) }}
	reached := false
	for _, s := range r.Samples {
		c.X, c.Y = append(c.X, s.Seconds), append(c.Y, float64(s.Flows))
		if s.Rest {
			c.Dots = append(c.Dots, len(c.X)-1)
		}
		reached = reached || s.Flows > r.MaxFlows/2
	}
	if !reached { // a limit far above the curve would only flatten it
		c.Trend, c.Sub = nil, "dots: when all but the live ones should be gone"
	}
	return append([]Figure{{"flows.svg", c.Title, c.SVG()}}, r.Report.Figures()...)
}

// Write puts page and pictures into dir and returns the page's path. Nothing is overwritten.
func (r *FlowReport) Write(dir string) (string, error) {
	return write(dir, "soak-udp-", &r.Report, r)
}
