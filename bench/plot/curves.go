package plot

import (
	"fmt"
	"math"
	"slices"
)

// Percentiles is a chart of latency over percentile, the tail stretched: each nine gets the same room.
type Percentiles struct {
	Title  string
	Sub    string
	Series []Series
	Lines  []PercentileLine
}

// PercentileLine is the latency of one series.
type PercentileLine struct {
	Series   string
	Quantile func(q float64) float64 // microseconds at a share 0..1
	Max      float64                 // share up to which there is enough data to draw, such as 0.9999
}

const (
	chartWidth  = 900.0
	chartHeight = 420.0
	chartLeft   = 76.0
	chartRight  = 150.0
	chartTop    = 84.0
	chartBottom = 56.0
)

// dashes tell lines apart where colour does not; the subject's line is solid.
var dashes = []string{"7 4", "2 4", "10 4 2 4", "4 3", "1 3", "12 5", "6 2 2 2"}

// SVG draws the chart. The vertical axis is logarithmic.
func (p Percentiles) SVG() string {
	nines := 2.0
	for _, l := range p.Lines {
		nines = max(nines, math.Round(-math.Log10(1-l.Max)))
	}
	low, high := math.Inf(1), 0.0
	for _, l := range p.Lines {
		low = min(low, l.Quantile(0))
		high = max(high, l.Quantile(l.Max))
	}
	if high <= 0 {
		low, high = 1, 1000
	}
	low = math.Pow(10, math.Floor(math.Log10(max(low, 1))))
	high = math.Pow(10, math.Ceil(math.Log10(max(high, low*10))))

	c := newCanvas(chartWidth, chartHeight, p.Title, p.Sub)
	right, bottom := chartWidth-chartRight, chartHeight-chartBottom
	x := func(q float64) float64 { return chartLeft + -math.Log10(1-q)/nines*(right-chartLeft) }
	y := func(v float64) float64 {
		return bottom - math.Log10(max(v, low)/low)/math.Log10(high/low)*(bottom-chartTop)
	}
	for v := low; v <= high*1.001; v *= 10 {
		c.line(chartLeft, y(v), right, y(v), "grid")
		c.text(chartLeft-8, y(v)+4, "small", "end", duration(v))
		if v < high/1.001 {
			for _, m := range []float64{2, 5} {
				c.line(chartLeft, y(v*m), right, y(v*m), "grid")
				c.text(chartLeft-8, y(v*m)+4, "small", "end", duration(v*m))
			}
		}
	}
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999} {
		if -math.Log10(1-q) > nines+0.01 {
			break
		}
		c.line(x(q), chartTop, x(q), bottom, "grid")
		c.text(x(q), bottom+18, "small", "middle", percent(q))
	}
	c.line(chartLeft, bottom, right, bottom, "axis")
	c.line(chartLeft, chartTop, chartLeft, bottom, "axis")
	c.text((chartLeft+right)/2, bottom+40, "small", "middle", "share of requests that were at least as fast")
	c.text(chartLeft-8, chartTop-12, "small", "end", "latency")

	colours := palette(p.Series)
	var ends []endLabel
	dash := 0
	for _, s := range p.Series {
		pattern, width, class := "", 2.8, "subject-line"
		if !s.Subject {
			pattern, width, class = dashes[dash%len(dashes)], 1.9, ""
			dash++
		}
		i := slices.IndexFunc(p.Lines, func(l PercentileLine) bool { return l.Series == s.Name })
		if i < 0 {
			continue
		}
		l := p.Lines[i]
		var points [][2]float64
		last := -math.Log10(1 - l.Max)
		for n := 0.0; n <= last+1e-9; n += 0.02 {
			q := 1 - math.Pow(10, -n)
			points = append(points, [2]float64{x(q), y(l.Quantile(q))})
		}
		c.path(points, class, colours[s.Name], pattern, width)
		ends = append(ends, endLabel{s.Name, points[len(points)-1], s.Subject, colours[s.Name], pattern})
	}
	drawEndLabels(c, ends, right)
	return c.String()
}

// endLabel names a line at its right end.
type endLabel struct {
	name    string
	at      [2]float64
	subject bool
	colour  string
	dash    string
}

// drawEndLabels writes the names beside the lines' ends, pushed apart where they would touch.
func drawEndLabels(c *canvas, ends []endLabel, right float64) {
	slices.SortStableFunc(ends, func(a, b endLabel) int { return int(math.Copysign(1, a.at[1]-b.at[1])) })
	y := math.Inf(-1)
	for _, e := range ends {
		y = max(e.at[1], y+17)
		c.path([][2]float64{{right + 8, y}, {right + 34, y}}, map[bool]string{true: "subject-line"}[e.subject], e.colour, e.dash, 2.4)
		c.text(right+40, y+4, map[bool]string{true: "strong", false: "small"}[e.subject], "start", e.name)
	}
}

func percent(q float64) string {
	if q == 0 {
		return "0 %"
	}
	return tickLabel(q*100) + " %"
}

// duration writes microseconds with the unit that keeps the number short.
func duration(us float64) string {
	switch {
	case us >= 1e6:
		return tickLabel(us/1e6) + " s"
	case us >= 1e3:
		return tickLabel(us/1e3) + " ms"
	}
	return tickLabel(us) + " µs"
}

// Time is a chart of one value over time, with dots for chosen samples.
type Time struct {
	Title string
	Sub   string
	Unit  string // of the value
	X     []float64
	Y     []float64 // in Unit; X in seconds
	Dots  []int     // indexes to mark
	Trend func(x float64) float64
}

// SVG draws the chart. The vertical axis begins at 0: a flat line must look flat.
func (t Time) SVG() string {
	const height = 300.0
	top, span := 0.0, 1.0
	for i := range t.X {
		top, span = max(top, t.Y[i]), max(span, t.X[i])
	}
	axis := ticks(top, 5)
	end := axis[len(axis)-1]
	c := newCanvas(chartWidth, height, t.Title, t.Sub)
	right, bottom := chartWidth-32, height-chartBottom
	x := func(v float64) float64 { return chartLeft + v/span*(right-chartLeft) }
	y := func(v float64) float64 { return bottom - v/end*(bottom-chartTop) }
	for _, v := range axis {
		c.line(chartLeft, y(v), right, y(v), "grid")
		c.text(chartLeft-8, y(v)+4, "small", "end", tickLabel(v))
	}
	unit, per := "seconds", 1.0
	if span > 300 {
		unit, per = "minutes", 60
	}
	if span > 4*3600 {
		unit, per = "hours", 3600
	}
	for _, v := range ticks(span/per, 8) {
		if v*per > span*1.001 {
			break
		}
		c.line(x(v*per), chartTop, x(v*per), bottom, "grid")
		c.text(x(v*per), bottom+18, "small", "middle", tickLabel(v))
	}
	c.line(chartLeft, bottom, right, bottom, "axis")
	c.text((chartLeft+right)/2, bottom+40, "small", "middle", unit+" since the start")
	c.text(chartLeft-8, chartTop-12, "small", "end", t.Unit)
	var points [][2]float64
	for i := range t.X {
		points = append(points, [2]float64{x(t.X[i]), y(t.Y[i])})
	}
	if len(points) > 0 {
		c.path(points, "subject-line", subjectColour, "", 1.6)
	}
	for _, i := range t.Dots {
		fmt.Fprintf(&c.b, `<circle class="subject-fill" cx="%s" cy="%s" r="3.4" fill="%s"/>`+"\n", num(points[i][0]), num(points[i][1]), subjectColour)
	}
	if t.Trend != nil && len(t.X) > 0 {
		a, b := t.X[0], t.X[len(t.X)-1]
		c.line(x(a), y(max(0, t.Trend(a))), x(b), y(max(0, t.Trend(b))), "ref")
	}
	return c.String()
}
