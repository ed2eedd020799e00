package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Edit returns text, which is TOML, with the value at path set, or removed when value is nil; path are the keys that lead to
// it through tables, one at least. Value is of the types of a Document. Nothing else changes: not another key, no comment outside of what is
// replaced, no order. Where a table is replaced by one that is alike, only what differs is.
//
// It fails with an Errors when text is not TOML, and with ErrEdit where the place cannot be changed in the text.
func Edit(text []byte, path []string, value any) ([]byte, error) {
	before, err := ParseDocument("configuration", text)
	if err != nil {
		return nil, err
	}
	bom := ""
	if s, ok := strings.CutPrefix(string(text), "\ufeff"); ok {
		bom, text = "\ufeff", []byte(s)
	}
	want, err := withValue(plain(before.Values).(map[string]any), path, plain(value))
	if err != nil {
		return nil, err
	}
	e := &editor{text: string(text)}
	e.change(path, valueAt(plain(before.Values), path), plain(value))
	// A table may have been there only for what it held.
	for n := 1; n <= len(path); n++ {
		if now := e.values(); valueAt(want, path[:n]) != nil && valueAt(now, path[:n]) == nil && (n > 1 || n == len(path)) {
			e.insert(path[:n], map[string]any{})
		}
	}
	if now := e.values(); e.failed || now == nil || !sameValues(now, want) {
		return nil, fmt.Errorf("%s: %w", dottedKey(path), ErrEdit)
	}
	return []byte(bom + e.text), nil
}

// ErrEdit means that the text has a shape in which Edit cannot change one thing alone.
var ErrEdit = errors.New("the text cannot be changed at that place alone: change the whole configuration")

// editor changes a text step by step. Used once.
type editor struct {
	text   string
	failed bool
}

// change brings what is at path from old to value; nil is nothing.
func (e *editor) change(path []string, old, value any) {
	if reflect.DeepEqual(old, value) || e.failed {
		return
	}
	was, wasTable := old.(map[string]any)
	is, isTable := value.(map[string]any)
	written := e.assigned(path)
	switch {
	case old == nil:
		e.insert(path, value)
	case written != nil:
		e.rewrite(written, path, value)
	case value == nil:
		e.remove(path)
	case wasTable && isTable:
		for _, key := range slices.Sorted(maps.Keys(was)) {
			e.change(append(slices.Clone(path), key), was[key], is[key])
		}
		for _, key := range slices.Sorted(maps.Keys(is)) {
			if was[key] == nil {
				e.change(append(slices.Clone(path), key), nil, is[key])
			}
		}
	default: // an array of tables, or a table that is to be something else
		e.remove(path)
		e.insert(path, value)
	}
}

// assigned returns the statement that gives path, or a table around it, its whole value; nil when headers and dotted keys do.
func (e *editor) assigned(path []string) *statement {
	for _, s := range partsOf(e.text).statements {
		if !s.header && hasPrefix(path, s.path) {
			return &s
		}
	}
	return nil
}

// rewrite changes what is at path within the value that s assigns.
func (e *editor) rewrite(s *statement, path []string, value any) {
	if len(path) == len(s.path) {
		if value == nil {
			e.remove(path)
			return
		}
		if text, ok := e.rewriteArray(s, value); ok {
			e.text = text
			return
		}
		e.splice(s.value, renderValue(value, true))
		return
	}
	root, ok := valueAt(e.values(), s.path).(map[string]any)
	if !ok {
		e.failed = true
		return
	}
	whole, err := withValue(root, path[len(s.path):], value)
	if err != nil {
		e.failed = true
		return
	}
	e.splice(s.value, renderValue(whole, true))
}

// splice puts text in the place of a span.
func (e *editor) splice(at span, text string) { e.text = e.text[:at.from] + text + e.text[at.to:] }

// remove takes away what headers and assignments say of path, with the comments between two lines of it, and with one of the blank
// lines around a table, so that tables that come and go leave none.
func (e *editor) remove(path []string) {
	type run struct {
		from, to, last int
		table          bool
	}
	var runs []run
	for i, s := range partsOf(e.text).statements {
		if !hasPrefix(s.path, path) {
			continue
		}
		from, to := e.lines(s.span)
		if n := len(runs) - 1; n >= 0 && runs[n].last == i-1 {
			runs[n].to, runs[n].last = to, i
		} else {
			runs = append(runs, run{from, to, i, s.header})
		}
	}
	for _, r := range slices.Backward(runs) {
		before, after := e.text[:r.from], e.text[r.to:]
		if rest, blank := withoutBlankLine(after); r.table && (after == "" || blank) {
			if less, ok := withoutLastBlankLine(before); ok {
				before = less
			} else if before == "" {
				after = rest
			}
		}
		e.text = before + after
	}
}

// withoutBlankLine returns text without the blank line it begins with, and whether it does.
func withoutBlankLine(text string) (string, bool) {
	if rest, ok := strings.CutPrefix(text, "\r\n"); ok {
		return rest, true
	}
	return strings.CutPrefix(text, "\n")
}

// withoutLastBlankLine returns text without the blank line it ends with, and whether it does.
func withoutLastBlankLine(text string) (string, bool) {
	line := strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	return line, line != text && (line == "" || strings.HasSuffix(line, "\n"))
}

// lines widens a span to whole lines.
func (e *editor) lines(s span) (from, to int) {
	from = strings.LastIndexByte(e.text[:s.from], '\n') + 1
	if to = strings.IndexByte(e.text[s.to:], '\n'); to < 0 {
		return from, len(e.text)
	}
	return from, s.to + to + 1
}

// insert adds what is not there yet.
func (e *editor) insert(path []string, value any) {
	parent := path[:len(path)-1]
	all := partsOf(e.text).statements
	if s := e.assigned(parent); s != nil {
		e.rewrite(s, path, value)
		return
	}
	if s := dotted(all, parent); s != nil { // only there can the table be written to
		var b strings.Builder
		renderKey(&b, path[s.context:], value)
		e.after(s, b.String())
		return
	}
	table, isTable := value.(map[string]any)
	if !isTable {
		e.insertKey(all, path, value)
		return
	}
	var b strings.Builder
	b.WriteByte('\n')
	renderTable(&b, path, table)
	e.beside(all, path, b.String())
}

// beside adds tables below the last line of the frontend or pool that path is in, else at the end.
func (e *editor) beside(all []statement, path []string, text string) {
	for i := len(all) - 1; i >= 0 && len(path) >= 2; i-- {
		if hasPrefix(all[i].path, path[:2]) {
			if i+1 == len(all) || all[i+1].header {
				e.after(&all[i], text)
				return
			}
			break
		}
	}
	e.append(text)
}

// insertKey adds a key that is no table to the table that its parents are.
func (e *editor) insertKey(all []statement, path []string, value any) {
	parent := path[:len(path)-1]
	var b strings.Builder
	renderKey(&b, path[len(parent):], value)
	var last *statement
	for i := range all {
		s := &all[i]
		if s.header && slices.Equal(s.path, parent) || !s.header && s.context == len(parent) && hasPrefix(s.path, parent) {
			last = s
		}
	}
	switch {
	case last != nil:
		e.after(last, b.String())
	case len(parent) == 0 && len(all) > 0:
		from, _ := e.lines(all[0].span)
		e.splice(span{from: from, to: from}, b.String())
	case len(parent) == 0:
		e.append(b.String())
	default:
		e.beside(all, path, "\n["+dottedKey(parent)+"]\n"+b.String())
	}
}

// after adds lines below a statement.
func (e *editor) after(s *statement, text string) {
	_, to := e.lines(s.span)
	if to > 0 && e.text[to-1] != '\n' {
		text = "\n" + text
	}
	e.splice(span{from: to, to: to}, text)
}

// append adds lines at the end.
func (e *editor) append(text string) {
	if e.text == "" {
		text = strings.TrimPrefix(text, "\n")
	} else if !strings.HasSuffix(e.text, "\n") {
		text = "\n" + text
	}
	e.text += text
}

// values returns what the text means now, nil when it is no TOML any more.
func (e *editor) values() map[string]any {
	d, err := ParseDocument("configuration", []byte(e.text))
	if err != nil {
		return nil
	}
	return plain(d.Values).(map[string]any)
}

// dotted returns the last statement that makes the table at path by a dotted key below the header of a table around it.
func dotted(all []statement, path []string) (last *statement) {
	for i := range all {
		if s := &all[i]; !s.header && s.context < len(path) && len(s.path) > len(path) && hasPrefix(s.path, path) {
			last = s
		}
	}
	return last
}

func hasPrefix(path, prefix []string) bool {
	return len(path) >= len(prefix) && slices.Equal(path[:len(prefix)], prefix)
}

// plain returns a copy of v with arrays of one kind.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key := range v {
			m[key] = plain(v[key])
		}
		return m
	case []map[string]any:
		return plain(arrayOf(v))
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plain(v[i])
		}
		return list
	}
	return v
}

// valueAt returns what is at path, nil when nothing is.
func valueAt(v any, path []string) any {
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// withValue returns a copy of values, which are plain, with the one at path set or, by nil, removed.
func withValue(values map[string]any, path []string, value any) (map[string]any, error) {
	m := maps.Clone(values)
	if m == nil {
		m = map[string]any{}
	}
	key := path[0]
	switch inner, isTable := m[key].(map[string]any); {
	case len(path) == 1 && value == nil:
		delete(m, key)
	case len(path) == 1:
		m[key] = value
	case m[key] != nil && !isTable:
		return nil, fmt.Errorf("%s is no table: %w", dottedKey(path[:1]), ErrEdit)
	case m[key] == nil && value == nil:
	default:
		next, err := withValue(inner, path[1:], value)
		if err != nil {
			return nil, err
		}
		m[key] = next
	}
	return m, nil
}

// sameValues compares configurations; a table of tables by name that is empty is as good as none.
func sameValues(a, b map[string]any) bool {
	trimmed := func(m map[string]any) map[string]any {
		m = maps.Clone(m)
		maps.DeleteFunc(m, func(_ string, v any) bool { t, ok := v.(map[string]any); return ok && len(t) == 0 })
		return m
	}
	return reflect.DeepEqual(trimmed(a), trimmed(b))
}
