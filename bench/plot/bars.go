package plot

import "math"

// Bars is a chart of horizontal bars in groups, each bar with its name and its value written out.
type Bars struct {
	Title     string
	Sub       string // what is better, and what the whiskers are
	Axis      string // what the numbers are, with the unit
	Series    []Series
	Groups    []Group
	Reference float64 // a dashed line at this value; 0 = none
	RefLabel  string
}

// Group is one row of bars.
type Group struct {
	Label string
	Note  string // behind it, smaller
	Bars  []Bar
}

// Bar is one value of one series. Low and High draw a whisker when they differ. Text is written behind the value.
type Bar struct {
	Series    string
	Value     float64
	Low, High float64
	Text      string
}

const (
	barsWidth  = 920.0
	barsLeft   = 170.0 // where bars begin: the series' name is before
	barsRight  = 150.0 // room for the value
	barHeight  = 15.0
	barStep    = 19.0
	barsHead   = 22.0 // for a group's label and note
	groupGap   = 18.0
	barsTop    = 84.0
	barsBottom = 48.0
)

// SVG draws the chart. A NaN value is drawn as "not measured".
func (b Bars) SVG() string {
	top, rows := b.Reference, 0.0
	for _, g := range b.Groups {
		rows += barsHead + float64(len(g.Bars))*barStep + groupGap
		for _, bar := range g.Bars {
			for _, v := range []float64{bar.Value, bar.High} {
				if !math.IsNaN(v) {
					top = max(top, v)
				}
			}
		}
	}
	axis := ticks(top, 6)
	end := axis[len(axis)-1]
	height := barsTop + rows + barsBottom
	c := newCanvas(barsWidth, height, b.Title, b.Sub)
	x := func(v float64) float64 { return barsLeft + v/end*(barsWidth-barsLeft-barsRight) }
	bottom := barsTop + rows
	for _, v := range axis {
		c.line(x(v), barsTop-6, x(v), bottom, "grid")
		c.text(x(v), bottom+16, "small", "middle", tickLabel(v))
	}
	c.line(barsLeft, barsTop-6, barsLeft, bottom, "axis")
	c.text((barsLeft+barsWidth-barsRight)/2, bottom+35, "small", "middle", b.Axis)

	if b.Reference > 0 {
		c.line(x(b.Reference), barsTop-6, x(b.Reference), bottom, "ref")
		c.text(x(b.Reference), barsTop-12, "small", "middle", b.RefLabel)
	}

	colours, subjects := palette(b.Series), map[string]bool{}
	for _, s := range b.Series {
		subjects[s.Name] = s.Subject
	}
	y := barsTop + groupGap/2
	for i, g := range b.Groups {
		if i > 0 {
			c.line(24, y-groupGap/2, barsWidth-24, y-groupGap/2, "grid")
		}
		c.heading(24, y+10, g.Label, g.Note)
		y += barsHead
		for _, bar := range g.Bars {
			b.drawBar(c, bar, y, x, colours[bar.Series], subjects[bar.Series])
			y += barStep
		}
		y += groupGap
	}
	return c.String()
}

func (b Bars) drawBar(c *canvas, bar Bar, y float64, x func(float64) float64, colour string, subject bool) {
	nameClass, fillClass, opacity := "small", "", 0.7
	if subject {
		nameClass, fillClass, opacity = "strong", "subject-fill", 1.0
	}
	c.text(barsLeft-8, y+12, nameClass, "end", bar.Series)
	if math.IsNaN(bar.Value) {
		c.text(barsLeft+6, y+12, "small", "start", "not measured")
		return
	}
	c.rect(barsLeft, y, x(bar.Value)-barsLeft, barHeight, fillClass, colour, opacity)
	right := x(bar.Value)
	if bar.High > bar.Low {
		mid := y + barHeight/2
		c.line(x(bar.Low), mid, x(bar.High), mid, "whisker")
		c.line(x(bar.Low), mid-3, x(bar.Low), mid+3, "whisker")
		c.line(x(bar.High), mid-3, x(bar.High), mid+3, "whisker")
		right = max(right, x(bar.High))
	}
	text := label(bar.Value)
	if bar.Text != "" {
		text += "  " + bar.Text
	}
	c.text(right+6, y+12, nameClass+" value", "start", text)
}
