package top

import (
	"slices"
	"strings"

	"awe4lb/internal/human"

	"github.com/charmbracelet/x/ansi"
)

// column is one of a table of T.
type column[T any] struct {
	title   string
	width   int // cells
	rank    int // the higher, the sooner it goes where there is no room; 0 stays
	grows   bool
	right   bool // adjusted to the right, and sorted with the largest first
	cell    func(*T) string
	compare func(a, b *T) int
}

// table is how rows of T are shown.
type table[T any] struct {
	columns []column[T]
	id      func(*T) string // what stays the same when values change
	style   func(*T) string // how the terminal is told to paint a row; "" is plainly
	rows    []T

	memo *[]*T // what shown found: a table lives for one look, with one list
}

// list is where the user is in a table. It follows the id of a row: rows move under the cursor, and an order must not reach a
// neighbour.
type list struct {
	selected string // id; "" before the first drawing
	at       int    // where that was the last time
	first    int    // the first row on the screen
	sort     int    // column, or -1: as rows come
	reverse  bool
	filter   string // parts of text with spaces between, all of which a row has to have
}

// page is a table with its rows, whatever they are.
type page interface {
	titles() []string
	// draw returns the title and at most height-1 rows, none wider than width.
	draw(l *list, width, height int) []string
	// move moves the cursor by rows.
	move(l *list, by int)
	// counts returns how many rows the filter leaves, and how many there are.
	counts(l *list) (shown, all int)
}

func (t *table[T]) titles() (all []string) {
	for _, c := range t.columns {
		all = append(all, c.title)
	}
	return all
}

// shown returns the rows that the filter leaves, in order.
func (t *table[T]) shown(l *list) []*T {
	if t.memo == nil {
		t.memo = new(t.filtered(l))
	}
	return *t.memo
}

func (t *table[T]) filtered(l *list) []*T {
	words := strings.Fields(strings.ToLower(l.filter))
	out := make([]*T, 0, len(t.rows))
	for i := range t.rows {
		if r := &t.rows[i]; t.has(r, words) {
			out = append(out, r)
		}
	}
	if l.sort >= 0 && l.sort < len(t.columns) {
		c := t.columns[l.sort]
		slices.SortStableFunc(out, func(a, b *T) int {
			if c.right != l.reverse {
				a, b = b, a
			}
			return c.compare(a, b)
		})
	} else if l.reverse {
		slices.Reverse(out)
	}
	return out
}

func (t *table[T]) has(r *T, words []string) bool {
	if len(words) == 0 {
		return true
	}
	var text strings.Builder
	for _, c := range t.columns {
		text.WriteString(strings.ToLower(c.cell(r)) + " ")
	}
	for _, w := range words {
		if !strings.Contains(text.String(), w) {
			return false
		}
	}
	return true
}

// find puts the cursor on the row it was on, or where that was.
func (t *table[T]) find(l *list, shown []*T) {
	at := slices.IndexFunc(shown, func(r *T) bool { return t.id(r) == l.selected })
	if at < 0 {
		at = max(min(l.at, len(shown)-1), 0)
	}
	l.at, l.selected = at, ""
	if at < len(shown) {
		l.selected = t.id(shown[at])
	}
}

func (t *table[T]) move(l *list, by int) {
	shown := t.shown(l)
	t.find(l, shown)
	l.at = max(min(l.at+by, len(shown)-1), 0)
	if l.at < len(shown) {
		l.selected = t.id(shown[l.at])
	}
}

func (t *table[T]) counts(l *list) (shown, all int) { return len(t.shown(l)), len(t.rows) }

// current returns the row under the cursor, or nil.
func (t *table[T]) current(l *list) *T {
	shown := t.shown(l)
	t.find(l, shown)
	if l.at < len(shown) {
		return shown[l.at]
	}
	return nil
}

func (t *table[T]) draw(l *list, width, height int) []string {
	shown := t.shown(l)
	t.find(l, shown)
	rows := max(height-1, 0)
	if l.at < l.first {
		l.first = l.at
	} else if l.at >= l.first+rows {
		l.first = l.at - rows + 1
	}
	l.first = max(min(l.first, len(shown)-rows), 0)

	columns := t.fitting(width)
	var title []string
	for _, c := range columns {
		text := c.title
		if l.sort >= 0 && l.sort < len(t.columns) && t.columns[l.sort].title == c.title {
			if c.right != l.reverse {
				text = "▼" + text
			} else {
				text = "▲" + text
			}
		}
		title = append(title, adjusted(text, c.width, c.right))
	}
	lines := []string{bold(ansi.Truncate(strings.Join(title, " "), width, ""))}
	for i := l.first; i < len(shown) && len(lines) <= rows; i++ {
		var cells []string
		for _, c := range columns {
			cells = append(cells, adjusted(human.Printable(c.cell(shown[i])), c.width, c.right))
		}
		line := ansi.Truncate(strings.Join(cells, " "), width, "")
		style := ""
		if t.style != nil {
			style = t.style(shown[i])
		}
		if i == l.at {
			style += reverse
			line += strings.Repeat(" ", max(width-ansi.StringWidth(line), 0))
		}
		lines = append(lines, painted(line, style))
	}
	return lines
}

// fitting returns the columns that have room in width, with the rest of it given to one that grows.
func (t *table[T]) fitting(width int) []column[T] {
	columns := slices.Clone(t.columns)
	need := func() (n int) {
		for _, c := range columns {
			n += c.width + 1
		}
		return n - 1
	}
	for need() > width {
		least := 0
		for i, c := range columns {
			if c.rank >= columns[least].rank {
				least = i
			}
		}
		if columns[least].rank == 0 {
			break
		}
		columns = slices.Delete(columns, least, least+1)
	}
	for i := range columns {
		if columns[i].grows && need() < width {
			columns[i].width += width - need()
		}
	}
	return columns
}

// adjusted returns text in exactly width cells. What is cut ends in …
func adjusted(text string, width int, right bool) string {
	text = ansi.Truncate(text, width, "…")
	room := strings.Repeat(" ", max(width-ansi.StringWidth(text), 0))
	if right {
		return room + text
	}
	return text + room
}

// How the terminal is told to paint: SGR parameters, of which bubbletea takes those away that the terminal, or NO_COLOR, does
// not want.
const (
	red     = "31;"
	green   = "32;"
	yellow  = "33;"
	reverse = "7;"
)

func painted(text, style string) string {
	if style == "" {
		return text
	}
	return "\x1b[" + strings.TrimSuffix(style, ";") + "m" + text + "\x1b[0m"
}

func bold(text string) string { return painted(text, "1;") }
