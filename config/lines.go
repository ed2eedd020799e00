package config

import (
	"errors"
	"slices"
	"strings"
)

// Tables as they stand in a text: their lines, comments and all, for people who edit one and not the whole.

// ErrNoTable means that a text has no such table.
var ErrNoTable = errors.New("no such table")

// TableLines returns the lines of text, which is TOML, in which the table at path stands: its headers, what is below them, and
// the comments that touch one of these without a blank line between. Where the table has no lines of its own, since a table
// around it is written in one, they are those it would have. It fails with ErrNoTable, or an Errors when text is no TOML.
func TableLines(text []byte, path []string) ([]byte, error) {
	d, err := ParseDocument("configuration", text)
	if err != nil {
		return nil, err
	}
	table, ok := valueAt(plain(d.Values), path).(map[string]any)
	if !ok {
		return nil, ErrNoTable
	}
	s := strings.TrimPrefix(string(text), "\ufeff")
	var b strings.Builder
	runs := runsOf(s, path)
	for i, r := range runs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(s[r.from:r.to])
		if !strings.HasSuffix(s[:r.to], "\n") {
			b.WriteByte('\n')
		}
	}
	if runs == nil {
		renderTable(&b, path, table)
	}
	return []byte(b.String()), nil
}

// SetTableLines returns text, which is TOML, with lines in the place of those that TableLines returns. Nothing else changes. above
// is how many lines of the result stand above them; -1 where they could not be put in as they are, and what they mean was.
//
// It fails with an Errors about lines, of which name is the file, where they are no TOML or hold anything but the table at path;
// with ErrNoTable where text has none; and with ErrEdit as Edit.
func SetTableLines(text []byte, path []string, name string, lines []byte) (out []byte, above int, err error) {
	before, err := ParseDocument("configuration", text)
	if err != nil {
		return nil, 0, err
	}
	if _, ok := valueAt(plain(before.Values), path).(map[string]any); !ok {
		return nil, 0, ErrNoTable
	}
	given, err := ParseDocument(name, lines)
	if err != nil {
		return nil, 0, err
	}
	value, err := onlyTable(given, path, name)
	if err != nil {
		return nil, 0, err
	}
	want, err := withValue(plain(before.Values).(map[string]any), path, value)
	if err != nil {
		return nil, 0, err
	}
	s, bom := strings.CutPrefix(string(text), "\ufeff")
	if now, above, ok := spliceLines(s, path, strings.TrimPrefix(string(lines), "\ufeff")); ok {
		if e := (&editor{text: now}).values(); e != nil && sameValues(e, want) {
			if bom {
				now = "\ufeff" + now
			}
			return []byte(now), above, nil
		}
	}
	out, err = Edit(text, path, value)
	return out, -1, err
}

// onlyTable returns the table at path, which is all that a document may hold.
func onlyTable(d *Document, path []string, name string) (map[string]any, error) {
	values := plain(d.Values).(map[string]any)
	for i, key := range path {
		for _, other := range sortedKeys(values) {
			if other != key {
				at := append(slices.Clone(path[:i]), other)
				line, _ := d.At(anyOf(at)...)
				return nil, Errors{{File: name, Line: line, Key: dottedKey(at), Problem: "it is not of this table", Want: "[" + dottedKey(path) + "] and nothing else"}}
			}
		}
		inner, ok := values[key].(map[string]any)
		if !ok {
			return nil, Errors{{File: name, Line: 1, Problem: "the table is not there", Want: "[" + dottedKey(path) + "]"}}
		}
		values = inner
	}
	return values, nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func anyOf(path []string) []any {
	out := make([]any, len(path))
	for i, key := range path {
		out[i] = key
	}
	return out
}

// spliceLines puts lines in the place of the table's own; of more than one run, in that of the first. It reports whether there
// are such.
func spliceLines(text string, path []string, lines string) (out string, above int, ok bool) {
	runs := runsOf(text, path)
	if runs == nil {
		return "", 0, false
	}
	if strings.Contains(text[runs[0].from:runs[0].to], "\r\n") {
		lines = strings.ReplaceAll(strings.ReplaceAll(lines, "\r\n", "\n"), "\n", "\r\n")
	}
	if !strings.HasSuffix(lines, "\n") {
		lines += "\n"
	}
	var b strings.Builder
	b.WriteString(text[:runs[0].from])
	b.WriteString(lines)
	at := runs[0].to
	for _, r := range runs[1:] {
		b.WriteString(text[at:r.from])
		at = r.to
		for blank := true; blank && at < len(text); { // one gap stays of the two around what has moved
			end := lineEnd(text, at)
			if blank = strings.TrimSpace(text[at:end]) == ""; blank {
				at = end
			}
		}
	}
	b.WriteString(text[at:])
	return b.String(), strings.Count(text[:runs[0].from], "\n"), true
}

// runsOf returns the pieces of text, of whole lines, that are the table at path and nothing else; nil when any of the table stands
// elsewhere.
func runsOf(text string, path []string) (runs []span) {
	p := partsOf(text)
	for i, s := range p.statements {
		if !hasPrefix(s.path, path) {
			if hasPrefix(path, s.path) && !s.header {
				return nil // a table around it is written in one
			}
			continue
		}
		if !s.header && s.context < len(path) {
			return nil
		}
		if i == 0 || !hasPrefix(p.statements[i-1].path, path) {
			runs = append(runs, span{from: commentsAbove(text, s.from)})
		}
		runs[len(runs)-1].to = lineEnd(text, s.to)
	}
	for i := range runs {
		runs[i].to = commentsBelow(text, runs[i].to)
	}
	return runs
}

// lineEnd returns where the line of a place ends, the newline included.
func lineEnd(text string, at int) int {
	if n := strings.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(text)
}

// commentsAbove returns where the line of a statement begins, or the first of the comments that touch it from above.
func commentsAbove(text string, at int) int {
	at = strings.LastIndexByte(text[:at], '\n') + 1
	for at > 0 {
		above := strings.LastIndexByte(text[:at-1], '\n') + 1
		if !isComment(text[above:at]) {
			break
		}
		at = above
	}
	return at
}

// commentsBelow returns where comments end that touch the line that ends at a place, unless they touch a header below as well:
// then they are that one's.
func commentsBelow(text string, at int) int {
	to := at
	for to < len(text) && isComment(text[to:lineEnd(text, to)]) {
		to = lineEnd(text, to)
	}
	if to < len(text) && strings.TrimSpace(text[to:lineEnd(text, to)]) != "" {
		return at
	}
	return to
}

func isComment(line string) bool { return strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") }
