package top

import (
	"fmt"
	"strings"
	"time"

	"awe4lb/internal/human"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// headLines are the lines above the table, its title not counted.
const headLines = 4

// rows returns how many rows of a table the screen has.
func (m *Model) rows() int { return max(m.height-headLines-2, 1) }

// View draws the screen.
func (m *Model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	return v
}

// draw returns the screen: height lines, none wider than width.
func (m *Model) draw() string {
	p := m.page()
	lines := []string{m.who(), m.sessionsLine(), m.bytesLine(), m.tabsLine(p)}
	if m.help {
		lines = append(lines, strings.Split(help, "\n")...)
	} else {
		lines = append(lines, p.draw(m.list(), m.width, m.height-headLines-1)...)
		if shown, all := p.counts(m.list()); shown == 0 {
			lines = append(lines, m.nothing(all))
		}
	}
	lines = lines[:min(len(lines), max(m.height-1, 0))]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, m.lastLine())
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "")
	}
	return strings.Join(lines, "\n")
}

// who is the first line: whose process it is, and whether the picture is live.
func (m *Model) who() string {
	left := "awe4lb"
	if s := m.status; s != nil {
		left += " " + s.Version
		if s.State != "running" {
			left += " " + strings.ToUpper(s.State)
		}
		left += "  up " + human.Duration(m.now().Sub(s.Started))
	}
	left += "  " + m.api.Address()
	if m.sample.Version > 0 {
		left += fmt.Sprintf("  config %d", m.sample.Version)
	}
	if s := m.status; s != nil && !s.Config.LastOK {
		left += " (the last reload was refused)"
	}
	live := m.live()
	room := m.width - ansi.StringWidth(live) - 1
	return adjusted(human.Printable(left), max(room, 0), false) + " " + live
}

func (m *Model) live() string {
	since := m.now().Sub(m.heard).Truncate(time.Second)
	switch {
	case m.heard.IsZero() && m.cut == "":
		return painted("connecting", yellow)
	case m.heard.IsZero():
		return painted("NOT CONNECTED", red)
	case m.cut != "" || since >= staleAfter:
		return painted("STALE "+human.Duration(since), red+reverse)
	case m.paused:
		return painted("PAUSED", yellow)
	}
	return painted("live", green)
}

func (m *Model) sessionsLine() string {
	t := &m.sample.Totals
	sessions, flows := count(t.Sessions), count(t.Flows)
	if s := m.status; s != nil {
		sessions += "/" + count(s.Sessions.Limit)
		flows += "/" + count(s.Flows.Limit)
	}
	return "sessions " + bold(sessions) + "  flows " + bold(flows) + "  new " + bold(human.Rate(t.New)+"/s") + "  errors " + errorsOf(t.Errors)
}

func errorsOf(n float64) string {
	text := human.Rate(n) + "/s"
	if n > 0 {
		return painted(text, red)
	}
	return bold(text)
}

func (m *Model) bytesLine() string {
	t := &m.sample.Totals
	quantile := func(p *float64) string {
		if p == nil {
			return "–"
		}
		return human.Latency(*p)
	}
	return "c2b " + bold(human.Bytes(t.C2B)+"/s") + "  b2c " + bold(human.Bytes(t.B2C)+"/s") + "  connect p50 " + bold(quantile(t.ConnectP50)) +
		"  p99 " + bold(quantile(t.ConnectP99))
}

func (m *Model) tabsLine(p page) string {
	var tabs []string
	for i, name := range tabNames {
		text := fmt.Sprintf("%d %s", i+1, name)
		if m.width < 60 { // the number and what it begins with
			text = fmt.Sprintf("%d %.2s", i+1, name)
		}
		if i == m.tab {
			text = painted("["+text+"]", "1;"+reverse)
		} else {
			text = " " + text + " "
		}
		tabs = append(tabs, text)
	}
	return strings.Join(tabs, "") + m.narrowing(p)
}

// narrowing says what of a table is shown.
func (m *Model) narrowing(p page) string {
	l := m.list()
	shown, all := p.counts(l)
	var parts []string
	if (m.tab == tabBackends || m.tab == tabSessions) && m.pool != "" {
		of := m.pool
		if m.tab == tabSessions && m.of != "" {
			of += "/" + m.of
		}
		parts = append(parts, "of "+human.Printable(of))
	}
	if l.filter != "" {
		parts = append(parts, "/"+l.filter)
	}
	switch {
	case shown != all:
		parts = append(parts, fmt.Sprintf("%d of %d", shown, all))
	case m.tab == tabSessions && m.total > all:
		parts = append(parts, fmt.Sprintf("%d of %d", all, m.total))
	case m.tab == tabSessions && m.total < 0 && all == sessionsAtOnce:
		parts = append(parts, fmt.Sprintf("the first %d", all))
	default:
		parts = append(parts, fmt.Sprint(all))
	}
	return " " + strings.Join(parts, "  ")
}

// nothing says why a table is empty.
func (m *Model) nothing(all int) string {
	switch {
	case all > 0:
		return "none fits the filter; esc takes it away"
	case m.tab == tabSessions && m.trouble != "":
		return painted(human.Printable(m.trouble), red)
	case m.tab != tabEvents && m.heard.IsZero():
		return "waiting for the first sample"
	}
	return "none"
}

// lastLine is for what is asked, typed and told, in that order.
func (m *Model) lastLine() string {
	switch {
	case m.ask != nil:
		return painted(m.ask.text+" y/N ", "1;"+reverse)
	case m.prompt != nil:
		return bold(m.prompt.label) + m.prompt.text + painted(" ", reverse)
	case m.note != "":
		return bold(human.Printable(m.note))
	case m.cut != "":
		return painted(human.Printable("the stream is cut, trying again: "+strings.ReplaceAll(m.cut, "\n", "; ")), red)
	case m.help:
		return "any key ends the help"
	}
	return "d drain m maintenance e enable w weight x kill / filter <> sort ? help q quit"
}
