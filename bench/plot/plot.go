// Package plot draws the three kinds of picture a benchmark needs, as SVG text: bars against a reference, latency over
// percentiles, and values over time. It knows nothing of proxies except that one series may be the subject, which is
// drawn in the strong colour while the others step back.
//
// The pictures carry their own background, light or dark by the reader's colour scheme, so that they can be embedded in
// any page. Colours are those of Okabe and Ito, which stay apart for colour-blind eyes; nothing is told by colour alone.
package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Series is one line or one kind of bar.
type Series struct {
	Name    string
	Subject bool // the one the picture is about
}

// rivals are the colours of everything but the subject, in the order the series come.
var rivals = []string{"#e69f00", "#cc79a7", "#009e73", "#d55e00", "#8c8c8c", "#b8a100", "#7a5195"}

const subjectColour = "#0072b2"

// palette gives every series its colour, by order, so that the pictures of one report agree when their series do.
func palette(series []Series) map[string]string {
	out := map[string]string{}
	next := 0
	for _, s := range series {
		if s.Subject {
			out[s.Name] = subjectColour
			continue
		}
		out[s.Name] = rivals[next%len(rivals)]
		next++
	}
	return out
}

// style is shared by all pictures. Plain classes: some viewers know neither variables nor media queries, and those get
// the light version.
const style = `
text{font-family:"Inter","Segoe UI","Helvetica Neue",Helvetica,Arial,"DejaVu Sans",sans-serif;font-size:13px;fill:#24292f}
.title{font-size:17px;font-weight:600}
.sub{font-size:12.5px;fill:#57606a}
.small{font-size:12px;fill:#57606a}
.strong{font-weight:600}
.card{fill:#ffffff;stroke:#d0d7de}
.grid{stroke:#e4e8ec;stroke-width:1}
.axis{stroke:#8c959f;stroke-width:1}
.ref{stroke:#24292f;stroke-width:1.4;stroke-dasharray:5 4}
.whisker{stroke:#24292f;stroke-width:1.2;opacity:.65}
.value{stroke:#ffffff;stroke-width:4px;paint-order:stroke;stroke-linejoin:round}
@media (prefers-color-scheme: dark){
text{fill:#e6edf3}
.sub,.small{fill:#9da7b1}
.card{fill:#161b22;stroke:#30363d}
.grid{stroke:#2a313a}
.axis{stroke:#6e7681}
.ref,.whisker{stroke:#e6edf3}
.value{stroke:#161b22}
.subject-fill{fill:#3f9fe0}
.subject-line{stroke:#3f9fe0}
}
`

// canvas collects SVG elements.
type canvas struct {
	b             strings.Builder
	width, height float64
}

func newCanvas(width, height float64, title, sub string) *canvas {
	c := &canvas{width: width, height: height}
	fmt.Fprintf(&c.b, `<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %s %s" role="img" aria-label="%s">`+"\n",
		num(width), num(height), num(width), num(height), html.EscapeString(title))
	fmt.Fprintf(&c.b, "<style>%s</style>\n", style)
	fmt.Fprintf(&c.b, `<rect class="card" x="0.5" y="0.5" width="%s" height="%s" rx="8"/>`+"\n", num(width-1), num(height-1))
	c.text(24, 34, "title", "start", title)
	c.text(24, 54, "sub", "start", sub)
	return c
}

func (c *canvas) String() string { return c.b.String() + "</svg>\n" }

func (c *canvas) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(&c.b, `<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`+"\n", num(x), num(y), class, anchor, html.EscapeString(s))
}

// heading is a strong text with a smaller one behind it, however long the first is.
func (c *canvas) heading(x, y float64, s, note string) {
	fmt.Fprintf(&c.b, `<text class="value" x="%s" y="%s"><tspan class="strong">%s</tspan><tspan class="small" dx="10">%s</tspan></text>`+"\n",
		num(x), num(y), html.EscapeString(s), html.EscapeString(note))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&c.b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, num(x1), num(y1), num(x2), num(y2))
}

func (c *canvas) rect(x, y, w, h float64, class, fill string, opacity float64) {
	fmt.Fprintf(&c.b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s" rx="2" fill="%s" fill-opacity="%s"/>`+"\n",
		class, num(x), num(y), num(max(w, 0)), num(h), fill, num(opacity))
}

// path draws a polyline; dash is an SVG dash pattern, "" for a solid line.
func (c *canvas) path(points [][2]float64, class, stroke, dash string, width float64) {
	var d strings.Builder
	for i, p := range points {
		d.WriteByte("ML"[min(i, 1)])
		d.WriteString(num(p[0]) + " " + num(p[1]))
	}
	if dash != "" {
		dash = ` stroke-dasharray="` + dash + `"`
	}
	fmt.Fprintf(&c.b, `<path class="%s" d="%s" fill="none" stroke="%s" stroke-width="%s" stroke-linejoin="round" stroke-linecap="round"%s/>`+"\n",
		class, d.String(), stroke, num(width), dash)
}

// num writes a coordinate with at most one decimal: enough for a screen, and stable in golden files.
func num(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// label writes a value the way a person would: about three significant digits, no exponent.
func label(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 0.1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// ticks returns round values from 0 to at least top, about n of them.
func ticks(top float64, n int) []float64 {
	if top <= 0 || math.IsInf(top, 0) || math.IsNaN(top) {
		top = 1
	}
	raw := top / float64(n)
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if step*m >= raw {
			step *= m
			break
		}
	}
	var out []float64
	for i := 0; ; i++ {
		v := float64(i) * step
		out = append(out, v)
		if v >= top {
			return out
		}
	}
}

// tickLabel writes an axis value without needless zeros.
func tickLabel(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}
