package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxFile is far above any real configuration (65536 backends take 4 MB) and keeps a wrong path, such as a log or a
// disk, from being read into memory.
const maxFile = 4 << 20

// Load returns the configuration in the file at path, whole and validated. It fails with what the system says when the
// file cannot be read, and else with an Errors that holds every mistake. It reads the file once, from beginning to
// end, so that a pipe will do.
func Load(path string) (*Config, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Read returns the text that Load parses; of a file that is too large, as much as shows that.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Parse returns the configuration in text, whole and validated. The error is an Errors that holds every mistake; when
// the text is not TOML, that is the only one. name stands for the file in messages. ${NAME} in a value is taken from
// the environment of the process.
func Parse(name string, text []byte) (*Config, error) {
	return ParseIn(filepath.Dir(name), name, text)
}

// ParseIn is Parse of a text whose paths of files count from a folder of their own.
func ParseIn(folder, name string, text []byte) (*Config, error) {
	tree, values, errs := read(text)
	if errs != nil {
		for _, e := range errs {
			e.File = name
		}
		return nil, errs
	}
	d := newDecoder(name, os.LookupEnv)
	d.folder = folder
	d.decode(tree, values)
	d.validate()
	if len(d.errs) > 0 {
		d.errs.sort()
		return nil, d.errs
	}
	d.warnings.sort()
	for _, w := range d.warnings {
		d.cfg.Warnings = append(d.cfg.Warnings, w.Error())
	}
	d.cfg.at, d.cfg.place = d.positions()
	d.cfg.reach = d.reached()
	return d.cfg, nil
}

// positions returns Config.at and Config.place, with what of the places outlives the decoder.
func (d *decoder) positions() (at func(field any) *Error, place func(path string) *Error) {
	type position struct {
		path string
		line int
	}
	all := make(map[any]position, len(d.places))
	for field, p := range d.places {
		all[field] = position{p.path, p.line}
	}
	file := d.file
	at = func(field any) *Error {
		p, ok := all[field]
		if !ok {
			return nil
		}
		return &Error{File: file, Line: p.line, Key: p.path}
	}
	// It is asked when something is wrong, and rarely: no second map.
	place = func(path string) *Error {
		var found *Error
		if path == "" {
			return &Error{File: file}
		}
		for _, p := range all {
			if p.path == path && (found == nil || p.line < found.Line) {
				found = &Error{File: file, Line: p.line, Key: p.path}
			}
		}
		return found
	}
	return at, place
}

// read turns text into the values of the toml package and the tree of their positions. The errors lack the file.
func read(text []byte) (*node, map[string]any, Errors) {
	fail := func(e *Error) (*node, map[string]any, Errors) { return nil, nil, Errors{e} }
	if len(text) > maxFile {
		return fail(&Error{Line: 1, Problem: "the file is larger than 4 MiB", Want: "a configuration"})
	}
	s := strings.TrimPrefix(string(text), "\ufeff")
	if i := invalidUTF8(s); i >= 0 {
		return fail(&Error{Line: lineOf(s, i), Got: fmt.Sprintf("the byte 0x%02x", s[i]), Want: "text in UTF-8"})
	}
	sc := scan(s, nil)
	if sc.tooMuch != "" {
		return fail(&Error{Line: sc.line, Got: sc.tooMuch, Want: "less of that"})
	}
	values, problem := decodeTOML(s)
	var errs Errors
	for _, t := range sc.again {
		e := &Error{
			Line:    int(t.second.line),
			Key:     t.path,
			Problem: fmt.Sprintf("given twice; the first is at line %d", t.first.line),
			offset:  int(t.second.offset),
		}
		if problem != nil && problem.Line == e.Line {
			return fail(e) // this is what the decoder stopped at, and we can say it better
		}
		errs = append(errs, e)
	}
	if problem != nil {
		return fail(problem)
	}
	return sc.root, values, errs
}

// decodeTOML runs the toml package over text. Our own recover stands behind the one it has, because it panics for what
// it takes to be its own bugs.
func decodeTOML(text string) (values map[string]any, problem *Error) {
	defer func() {
		if r := recover(); r != nil {
			values, problem = nil, &Error{
				Line:    scan(text, nil).line,
				Problem: "not valid TOML near this line: " + cut(escape(fmt.Sprint(r)), maxMessage),
			}
		}
	}()
	_, err := toml.Decode(text, &values)
	if err == nil {
		return values, nil
	}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return nil, &Error{Line: 1, Problem: "not valid TOML: " + cut(escape(err.Error()), maxMessage)}
	}
	e := &Error{
		Line:    lineOf(text, pe.Position.Start),
		Problem: "not valid TOML: " + cut(escape(sentence(pe.Message)), maxMessage),
	}
	if got, ok := strings.CutPrefix(pe.Message, `expected value but found "`); ok && strings.IndexFunc(got, unicode.IsLetter) == 0 {
		e.Hint = "text needs quotes"
	}
	if namesSecret(text, pe.Position.Start) {
		e.Problem, e.Hint = "not valid TOML", "the line names a secret, so that no more is said of it"
	}
	return nil, e
}

// namesSecret reports whether what stands at a byte may be a secret: the line names the key of one, or what the scanner was
// reading is of one, or of a key that is none of ours. Messages of the toml package quote what they did not expect.
func namesSecret(text string, offset int) bool {
	offset = min(max(offset, 0), len(text))
	line := text[strings.LastIndexByte(text[:offset], '\n')+1:]
	line, _, _ = strings.Cut(line, "\n")
	for _, key := range secretKeys() {
		if strings.Contains(line, key) {
			return true
		}
	}
	at := scan(text, nil) // where it stopped
	return at.assigning > 0 && !isShown(at.path)
}

// lineOf returns the line of a byte. ParseError has a line too, but at the end of a file it is one too low.
func lineOf(text string, offset int) int {
	return 1 + strings.Count(text[:min(max(offset, 0), len(text))], "\n")
}

// sentence brings a message of the toml package into our style: it starts in lower case and ends without a full stop.
func sentence(s string) string {
	s = strings.TrimSuffix(s, ".")
	if r, n := utf8.DecodeRuneInString(s); n > 0 {
		s = string(unicode.ToLower(r)) + s[n:]
	}
	return s
}

// invalidUTF8 returns the offset of the first byte of s that is not UTF-8, or -1.
func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return i
			}
		}
	}
	return -1
}
