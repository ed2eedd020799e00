package config

import (
	"reflect"
	"strings"
)

// rewriteArray returns the text with one element of the array that s assigns removed, replaced or added at its end, where that
// is all that value says: comments beside the others stay.
func (e *editor) rewriteArray(s *statement, value any) (string, bool) {
	is, ok := value.([]any)
	was, wasArray := valueAt(e.values(), s.path).([]any)
	if !ok || !wasArray || len(was) == 0 || len(is) == 0 {
		return "", false
	}
	same := 0
	for same < len(was) && same < len(is) && reflect.DeepEqual(was[same], is[same]) {
		same++
	}
	all := elements(e.text, s.value)
	if len(all) != len(was) {
		return "", false
	}
	switch {
	case len(is) == len(was)+1 && same == len(was): // added
		last := all[same-1]
		text := ", " + renderValue(is[same], false)
		if line := e.text[:last.from]; strings.Contains(e.text[s.value.from:last.from], "\n") { // each on a line of its own
			line = line[strings.LastIndexByte(line, '\n')+1:]
			text = ",\n" + line[:len(line)-len(strings.TrimLeft(line, " \t"))] + renderValue(is[same], false)
		}
		return e.text[:last.to] + text + e.text[last.to:], true
	case len(is) == len(was) && same < len(was) && reflect.DeepEqual(was[same+1:], is[same+1:]): // replaced
		at := all[same]
		return e.text[:at.from] + renderValue(is[same], false) + e.text[at.to:], true
	case len(is) == len(was)-1 && reflect.DeepEqual(was[same+1:], is[same:]): // removed, with its comma
		return e.withoutElement(s, all, same), true
	}
	return "", false
}

// withoutElement removes an element and, when nothing else is left on it, its line.
func (e *editor) withoutElement(s *statement, all []span, i int) string {
	from, to := all[i].from, all[i].to
	if i+1 < len(all) {
		to = skipComma(e.text, to)
	} else { // the last: the comma before it goes, unless one follows
		if after := skipComma(e.text, to); after > to && after <= s.value.to {
			to = after
		}
	}
	line := strings.LastIndexByte(e.text[:from], '\n') + 1
	end := strings.IndexByte(e.text[to:], '\n')
	if rest := e.text[to:max(to, to+end)]; end >= 0 && line > s.value.from && strings.TrimSpace(e.text[line:from]) == "" &&
		(strings.TrimSpace(rest) == "" || strings.HasPrefix(strings.TrimSpace(rest), "#")) {
		from, to = line, to+end+1
	}
	return e.text[:from] + e.text[to:]
}

// skipComma returns the place after the comma that follows, which is on the same line; at when there is none.
func skipComma(text string, at int) int {
	rest := strings.TrimLeft(text[at:], " \t")
	if !strings.HasPrefix(rest, ",") {
		return at
	}
	return len(text) - len(rest) + 1
}

// elements returns where the elements of the array at a span stand.
func elements(text string, array span) []span {
	if array.from >= len(text) || text[array.from] != '[' {
		return nil
	}
	s := &scanner{text: text[:array.to], pos: array.from + 1, line: 1, root: &node{line: 1}, nesting: 1}
	var all []span
	for {
		s.skipLines()
		if s.take(']') {
			return all
		}
		from := s.pos
		if !s.value(&node{}) {
			return nil
		}
		all = append(all, span{from: from, to: from + len(strings.TrimRight(text[from:s.pos], " \t"))})
		s.skipLines()
		if c, _ := s.peek(); c != ']' && !s.take(',') {
			return nil
		}
	}
}
