package convert

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// document is the awe4lb.toml in the making: sections in the order in which they were begun.
type document struct {
	head     []string // comments at the top
	sections []*section
	off      int // how much of it is commented out
}

// section is a table with its header, and what is said of it.
type section struct {
	path   string // as the header has it
	array  bool   // an element of an array of tables
	from   place
	lines  []*line
	reason string // why it is commented out; "" when it is not
}

// line is one line below a header: a comment, a key with its value, or a part of a value over several lines.
type line struct {
	text    string
	from    place
	comment bool
	part    *line  // of a part, the line that the value begins at
	reason  string // why it is commented out; "" when it is not
}

// section begins a table: path are its keys.
func (d *document) section(from place, path ...string) *section { return d.begin(from, false, path) }

// element begins the next element of an array of tables.
func (d *document) element(from place, path ...string) *section { return d.begin(from, true, path) }

func (d *document) begin(from place, array bool, path []string) *section {
	for i, p := range path {
		if !bare(p) {
			path[i] = quote(p)
		}
	}
	s := &section{path: strings.Join(path, "."), array: array, from: from}
	d.sections = append(d.sections, s)
	return s
}

// comment adds a comment.
func (s *section) comment(text string) { s.lines = append(s.lines, &line{text: text, comment: true}) }

// set adds a key; literal is its value as TOML.
func (s *section) set(from place, key, literal string) {
	s.lines = append(s.lines, &line{text: key + " = " + literal, from: from})
}

// item is one element of an array, as TOML.
type item struct {
	literal string
	from    place
}

// list adds a key with an array, one element a line; a single one stays on the line of the key.
func (s *section) list(from place, key string, items []item) {
	if len(items) == 1 {
		s.set(items[0].from, key, "["+items[0].literal+"]")
		return
	}
	first := &line{text: key + " = [", from: from}
	s.lines = append(s.lines, first)
	for _, i := range items {
		s.lines = append(s.lines, &line{text: "  " + i.literal + ",", from: i.from, part: first})
	}
	s.lines = append(s.lines, &line{text: "]", part: first})
}

// hasKeys reports whether there is more in s than comments.
func (s *section) hasKeys() bool {
	for _, l := range s.lines {
		if !l.comment {
			return true
		}
	}
	return false
}

// holds returns the keys of s with their values on one line, cut, without secrets.
func (s *section) holds() string {
	const most = 120
	var all []string
	for _, l := range s.lines {
		key, _, isKey := strings.Cut(l.text, " = ")
		secret := isSecret(key) || key == "url" && strings.ContainsAny(l.text, "?@")
		if !l.comment && isKey && l.part == nil && !secret && !strings.HasSuffix(l.text, "[") {
			all = append(all, l.text)
		}
	}
	held := strings.Join(all, ", ")
	if r := []rune(held); len(r) > most {
		held = string(r[:most]) + "…"
	}
	return held
}

// turnOff comments out a line, or without one a section with those inside of it. The end of an array stands for all of it.
func (d *document) turnOff(s *section, l *line, reason string) {
	if l == nil {
		if s.reason == "" {
			s.reason = reason
			d.off++
		}
		for _, o := range d.sections {
			if strings.HasPrefix(o.path, s.path+".") && o.reason == "" {
				o.reason = "belongs to what is left out above"
				d.off++
			}
		}
		return
	}
	if l.part != nil && l.text == "]" {
		l = l.part
	}
	if l.reason == "" {
		l.reason = reason
		d.off++
	}
}

// rendered is the text of a document, and what each of its lines is.
type rendered struct {
	text  string
	lines []spot
}

type spot struct {
	s *section
	l *line // nil: the header
}

// at returns what a line of the text, from 1, is: a section and, unless it is its header, a line of it.
func (r rendered) at(n int) (*section, *line) {
	if n < 1 || n > len(r.lines) {
		return nil, nil
	}
	return r.lines[n-1].s, r.lines[n-1].l
}

const width = 118 // of a comment

// render writes the document.
func (d *document) render() rendered {
	var out rendered
	var b strings.Builder
	put := func(text string, of spot) {
		b.WriteString(text)
		b.WriteByte('\n')
		out.lines = append(out.lines, of)
	}
	say := func(text string) {
		text = strings.Map(func(r rune) rune {
			if !strconv.IsPrint(r) || r == utf8.RuneError {
				return ' '
			}
			return r
		}, text)
		if text == "" {
			put("#", spot{})
		}
		for _, l := range wrap(text, width-2) {
			put(strings.TrimRight("# "+l, " "), spot{})
		}
	}
	for _, h := range d.head {
		say(h)
	}
	for _, s := range d.sections {
		if len(s.lines) == 0 && s.reason == "" && !s.array {
			continue
		}
		if b.Len() > 0 {
			put("", spot{})
		}
		off := ""
		if s.reason != "" {
			say(s.reason)
			off = "# "
		}
		if s.hasKeys() {
			header := "[" + s.path + "]"
			if s.array {
				header = "[" + header + "]"
			}
			put(off+header, spot{s, nil})
		}
		for _, l := range s.lines {
			if l.comment {
				say(l.text)
				continue
			}
			whole := l.part != nil && l.part.reason != "" // all of the value is out
			if l.reason != "" && !whole {
				say(l.reason)
			}
			if off != "" || l.reason != "" || whole {
				put("# "+l.text, spot{})
			} else {
				put(l.text, spot{s, l})
			}
		}
	}
	out.text = b.String()
	return out
}

// wrap breaks text into lines of at most n characters, at spaces where there are any.
func wrap(text string, n int) (lines []string) {
	for text != "" {
		if utf8.RuneCountInString(text) <= n {
			return append(lines, text)
		}
		end := len(string([]rune(text)[:n]))
		if i := strings.LastIndexByte(text[:end+1], ' '); i > 2 && strings.TrimSpace(text[:i]) != "" {
			lines, text = append(lines, text[:i]), "  "+strings.TrimLeft(text[i:], " ")
			continue
		}
		lines, text = append(lines, text[:end]), "  "+text[end:]
	}
	return lines
}

// bare reports whether TOML lets key stand without quotes.
func bare(key string) bool {
	for _, c := range []byte(key) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return key != ""
}

// quote returns s as a string of TOML: in single quotes where that saves escapes.
func quote(s string) string {
	printable := func(r rune) bool { return strconv.IsPrint(r) && r != utf8.RuneError }
	if strings.ContainsAny(s, `\"`) && !strings.Contains(s, "'") && strings.IndexFunc(s, func(r rune) bool { return !printable(r) }) < 0 {
		return "'" + s + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case printable(r):
			b.WriteRune(r)
		default:
			const hex = "0123456789abcdef"
			b.WriteString(`\U`)
			for shift := 28; shift >= 0; shift -= 4 {
				b.WriteByte(hex[r>>shift&15])
			}
		}
	}
	b.WriteByte('"')
	return b.String()
}

// text returns s as a value for awe4lb.toml, where ${NAME} is a variable of the environment.
func (r *run) text(s string) string {
	if !r.env {
		s = strings.ReplaceAll(s, "${", "$${")
	}
	return quote(s)
}

// texts returns an array.
func (r *run) texts(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = r.text(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// duration writes d as people do.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
