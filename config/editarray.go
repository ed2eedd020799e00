package config

import (
	"reflect"
	"slices"
	"strings"
)

// How an array in a text becomes another: element by element, so that what stays is not touched, nor a comment beside it. The
// comment on the line of an element goes with it; one that has a line to itself stays.
//
//	[ { address = "a:1" }, { address = "b:1" } ]      one line: the comma goes with the element
//	[
//	  # all of them                                   stays, also when the array becomes empty
//	  { address = "a:1" }, # the old one              a line, which comes and goes as a whole
//	]

// maxArraySteps and maxArrayPairs bound what it costs: beyond, the array is written anew.
const (
	maxArraySteps = 64
	maxArrayPairs = 1 << 20
)

// rewriteArray returns the text with the elements that differ removed, replaced and added in the array that s assigns.
func (e *editor) rewriteArray(s *statement, value any) (string, bool) {
	is, ok := value.([]any)
	was, wasArray := valueAt(e.values(), s.path).([]any)
	if !ok || !wasArray {
		return "", false
	}
	steps, ok := stepsBetween(was, is)
	if !ok {
		return "", false
	}
	a := &array{text: e.text[s.value.from:s.value.to]}
	for _, step := range steps {
		if !a.scan() {
			return "", false
		}
		switch step.what {
		case replaceElement:
			a.cut(a.all[step.at].from, a.all[step.at].to, renderValue(step.value, false))
		case addElement:
			a.add(step.at, renderValue(step.value, false))
		case removeElement:
			a.remove(step.at)
		}
	}
	// The shapes of TOML are many: where one was not foreseen, the array is written anew.
	if d, err := ParseDocument("array", []byte("a = "+a.text+"\n")); err != nil || !reflect.DeepEqual(plain(d.Values["a"]), value) {
		return "", false
	}
	return e.text[:s.value.from] + a.text + e.text[s.value.to:], true
}

type arrayStep struct {
	what  int
	at    int // the element; for addElement that before which it comes
	value any
}

const (
	replaceElement = iota
	addElement
	removeElement
)

// stepsBetween returns how was becomes is, from the end to the beginning, so that no step moves what another is about.
func stepsBetween(was, is []any) (steps []arrayStep, ok bool) {
	pairs, ok := alike(was, is)
	if !ok {
		return nil, false
	}
	pairs = append([][2]int{{-1, -1}}, pairs...)
	i, j := len(was), len(is)
	for _, p := range slices.Backward(pairs) {
		gone, come := i-p[0]-1, j-p[1]-1
		if gone == come { // each in the place of another
			for n := range gone {
				steps = append(steps, arrayStep{replaceElement, p[0] + 1 + n, is[p[1]+1+n]})
			}
		} else {
			for n := range come {
				steps = append(steps, arrayStep{addElement, i, is[j-1-n]})
			}
			for n := range gone {
				steps = append(steps, arrayStep{removeElement, i - 1 - n, nil})
			}
		}
		if i, j = p[0], p[1]; i >= 0 && !reflect.DeepEqual(was[i], is[j]) {
			steps = append(steps, arrayStep{replaceElement, i, is[j]})
		}
		if len(steps) > maxArraySteps {
			return nil, false
		}
	}
	return steps, true
}

// alike returns which elements of was are which of is, in order: as many as there can be. Backends are told apart by their
// addresses, others by all that they are.
func alike(was, is []any) (pairs [][2]int, ok bool) {
	name := func(list []any) []string {
		names := make([]string, len(list))
		for i, v := range list {
			if table, isTable := v.(map[string]any); isTable && table["address"] != nil {
				v = []any{table["address"]}
			}
			names[i] = renderValue(v, false)
		}
		return names
	}
	a, b := name(was), name(is)
	from := 0
	for from < len(a) && from < len(b) && a[from] == b[from] {
		pairs = append(pairs, [2]int{from, from})
		from++
	}
	to := 0
	for to < len(a)-from && to < len(b)-from && a[len(a)-1-to] == b[len(b)-1-to] {
		to++
	}
	inA, inB := a[from:len(a)-to], b[from:len(b)-to]
	if len(inA) > 0 && len(inB) > maxArrayPairs/len(inA) {
		return nil, false
	}
	// most[i][j] is how many pairs there are of what comes from i and j on.
	most := make([][]int, len(inA)+1)
	for i := range most {
		most[i] = make([]int, len(inB)+1)
	}
	for i := len(inA) - 1; i >= 0; i-- {
		for j := len(inB) - 1; j >= 0; j-- {
			if most[i][j] = max(most[i+1][j], most[i][j+1]); inA[i] == inB[j] {
				most[i][j] = most[i+1][j+1] + 1
			}
		}
	}
	for i, j := 0, 0; i < len(inA) && j < len(inB); {
		switch {
		case inA[i] == inB[j]:
			pairs = append(pairs, [2]int{from + i, from + j})
			i, j = i+1, j+1
		case most[i+1][j] >= most[i][j+1]:
			i++
		default:
			j++
		}
	}
	for n := range to {
		pairs = append(pairs, [2]int{len(a) - to + n, len(b) - to + n})
	}
	return pairs, true
}

// array is the text of one, brackets included, that changes step by step.
type array struct {
	text string

	// Found by scan.
	all    []span
	commas []int // after each element; -1: none
}

// scan finds where the elements stand.
func (a *array) scan() bool {
	a.all, a.commas = nil, nil
	if !strings.HasPrefix(a.text, "[") {
		return false
	}
	s := &scanner{text: a.text, pos: 1, line: 1, root: &node{line: 1}, nesting: 1}
	for {
		s.skipLines()
		if s.take(']') {
			return true
		}
		from := s.pos
		if !s.value(&node{}) {
			return false
		}
		a.all = append(a.all, span{from: from, to: from + len(strings.TrimRight(a.text[from:s.pos], " \t"))})
		s.skipLines()
		comma := s.pos
		switch c, _ := s.peek(); {
		case s.take(','):
		case c == ']':
			comma = -1
		default:
			return false
		}
		a.commas = append(a.commas, comma)
	}
}

func (a *array) cut(from, to int, text string) { a.text = a.text[:from] + text + a.text[to:] }

// lineOf returns where the line of a place begins and ends, with its newline. The first begins after the bracket.
func (a *array) lineOf(at int) (from, to int) {
	from = max(strings.LastIndexByte(a.text[:at], '\n')+1, 1)
	if n := strings.IndexByte(a.text[at:], '\n'); n >= 0 {
		return from, at + n + 1
	}
	return from, len(a.text)
}

// isFirst reports whether a line of its own begins with what stands at a place.
func (a *array) isFirst(at int) bool {
	from, _ := a.lineOf(at)
	return from > 1 && strings.TrimLeft(a.text[from:at], " \t") == ""
}

// isLast reports whether nothing but a comment follows on the line.
func (a *array) isLast(at int) bool {
	_, to := a.lineOf(at)
	rest := strings.TrimSpace(a.text[at:to])
	return strings.HasSuffix(a.text[at:to], "\n") && (rest == "" || rest[0] == '#')
}

func (a *array) isSameLine(from, to int) bool { return !strings.Contains(a.text[from:to], "\n") }

// remove takes away an element, its comma and what else of its line is about it.
func (a *array) remove(i int) {
	e, end := a.all[i], a.all[i].to
	hasNext := i+1 < len(a.all)
	if c := a.commas[i]; c >= 0 && (a.isSameLine(e.to, c) || !hasNext) {
		end = c + 1
	}
	from, to := a.lineOf(e.from)
	_, lineEnd := a.lineOf(end)
	switch {
	case i > 0 && a.commas[i-1] >= from: // the comma before it is on its line
		switch comma := a.commas[i-1]; {
		case a.isFirst(comma) && a.isLast(e.to): // and first on it, as the others may have theirs
			a.cut(from, to, "")
		case hasNext && end == e.to: // its comma is on the next line
			a.cut(comma, e.to, "")
		case end > e.to:
			a.cut(comma+1, end, "")
		default:
			a.cut(a.all[i-1].to, end, "")
		}
	case hasNext && a.commas[i] >= end: // likewise, and there is none before
		next := a.all[i+1].from
		if _, here := a.lineOf(e.to); a.isFirst(e.from) && a.isLast(e.to) && strings.Contains(a.text[here:next], "#") {
			a.cut(a.commas[i], next, "")
			a.cut(from, here, "")
		} else {
			a.cut(e.from, next, "")
		}
	case a.isFirst(e.from) && a.isLast(end):
		a.cut(from, lineEnd, "")
	case hasNext && a.isSameLine(end, a.all[i+1].from):
		a.cut(e.from, a.all[i+1].from, "")
	case hasNext && a.isLast(end) && strings.TrimSpace(a.text[lineEnd:a.all[i+1].from]) == "":
		a.cut(e.from, a.all[i+1].from, "")
	case a.isLast(end): // behind the bracket
		a.cut(len(strings.TrimRight(a.text[:e.from], " \t")), lineEnd-len(a.newline()), "")
	default:
		for strings.ContainsRune(" \t", rune(a.text[end])) {
			end++
		}
		a.cut(e.from, end, "")
	}
	if i > 0 && !hasNext && a.commas[i] < 0 && a.commas[i-1] < from { // the last has none behind it
		a.cut(a.commas[i-1], a.commas[i-1]+1, "")
	}
	if strings.TrimSpace(a.text[1:len(a.text)-1]) == "" {
		a.text = "[]"
	}
}

// add puts an element before the one at i, or at the end.
func (a *array) add(i int, text string) {
	switch {
	case len(a.all) == 0:
		a.addFirst(text)
	case i == 0 && a.isFirst(a.all[0].from):
		from, _ := a.lineOf(a.all[0].from)
		a.cut(from, from, a.text[from:a.all[0].from]+text+","+a.newline())
	case i == 0:
		a.cut(a.all[0].from, a.all[0].from, text+", ")
	default:
		a.addAfter(i-1, text)
	}
}

// addFirst puts an element into an empty array, below the comments there.
func (a *array) addFirst(text string) {
	end := len(a.text) - 1
	if !strings.Contains(a.text, "#") {
		a.text = "[" + text + "]"
		return
	}
	from, _ := a.lineOf(end)
	indent := a.indent(from - 1)
	if indent == "" {
		indent = a.text[from:end] + "  "
	}
	a.cut(from, from, indent+text+","+a.newline())
}

// addAfter puts an element behind another: on the next line where that one ends its line, or where each has one.
func (a *array) addAfter(i int, text string) {
	e, comma, isEnd := a.all[i], a.commas[i], i+1 == len(a.all)
	onLine := comma >= 0 && a.isSameLine(e.to, comma)
	indent := a.indent(e.from)
	_, to := a.lineOf(e.to)
	switch {
	case !isEnd && !onLine: // commas are first on their lines
		a.cut(to, to, a.indent(comma)+", "+text+a.newline())
	case i > 0 && comma < 0 && a.isFirst(a.commas[i-1]) && a.isSameLine(a.commas[i-1], e.from) && a.isLast(e.to): // likewise
		a.cut(to, to, a.indent(a.commas[i-1])+", "+text+a.newline())
	case onLine && a.isLast(comma+1), !onLine && a.isLast(e.to):
		if !a.isFirst(e.from) && !isEnd && a.isFirst(a.all[i+1].from) {
			indent = a.indent(a.all[i+1].from)
		}
		end := ""
		if onLine {
			end = ","
		}
		a.cut(to, to, indent+text+end+a.newline())
		if !onLine {
			a.cut(e.to, e.to, ",")
		}
	case isEnd && a.isFirst(e.from):
		a.cut(e.to, e.to, ","+a.newline()+indent+text)
	default:
		a.cut(e.to, e.to, ", "+text)
	}
}

// indent returns the blanks that the line of a place begins with.
func (a *array) indent(at int) string {
	from, _ := a.lineOf(at)
	line := a.text[from:]
	return line[:len(line)-len(strings.TrimLeft(line, " \t"))]
}

// newline returns how lines end.
func (a *array) newline() string {
	if strings.Contains(a.text, "\r\n") {
		return "\r\n"
	}
	return "\n"
}
