// Package convert turns the configurations of other balancers into an awe4lb.toml: gobetween's, as TOML or JSON, and the
// JSON of the original awe4lb.
//
// It keeps what a configuration means, and says of each thing for which that is not possible what becomes of it, with its
// line. What it writes always loads: whatever package config refuses is left in the text as a comment, with the reason.
// It knows nothing of files; docs/migrating.md is the same knowledge for people.
//
// source.go reads, gobetween*.go and original.go translate, document.go writes and mends.
package convert

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"awe4lb/config"
)

// Format is whose configuration a text is.
type Format string

// The formats. Auto tells them apart: in gobetween's, servers is a table, in the original awe4lb's an array.
const (
	Auto      Format = "auto"
	Gobetween Format = "gobetween"
	Original  Format = "original"
)

// Options say how to read a text.
type Options struct {
	From Format // "" is Auto

	// Env: ${NAME} in values stands for a variable of the environment, as gobetween has it with -e, and stays so. Otherwise
	// it is text.
	Env bool
}

// Result is a configuration that was converted.
type Result struct {
	From  Format
	TOML  []byte
	Notes []Note // in the order of the source
}

// Note is one thing that is not as it was.
type Note struct {
	Line int
	Key  string // in the source, such as servers.web.discovery.static_list[1]
	Lost bool   // there is no equal; else its meaning has changed
	Text string // what becomes of it
}

// String returns the note without the name of the file: LINE: KEY: TEXT.
func (n Note) String() string {
	what := "changed"
	if n.Lost {
		what = "not carried over"
	}
	return fmt.Sprintf("%d: %s: %s: %s", n.Line, n.Key, what, n.Text)
}

// ErrUnknown means that a text is neither gobetween's nor the original awe4lb's.
var ErrUnknown = errors.New(`neither gobetween's configuration, with tables [servers.NAME], nor that of the original awe4lb, with an array "servers"`)

// Convert translates text. name stands for its file in messages and comments. The error is a config.Errors where the text
// is not TOML or JSON. The result is the same for the same text. Safe from any goroutine.
func Convert(name string, text []byte, o Options) (*Result, error) {
	root, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	r := &run{file: name, env: o.Env, doc: &document{}, seen: map[Note]bool{}}
	if !root.isObject() {
		return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	top := r.table(root)
	from := o.From
	if from == "" || from == Auto {
		switch servers := root.object().get("servers"); {
		case servers.isObject():
			from = Gobetween
		case servers.isArray():
			from = Original
		case root.object().get("frontends") != nil || root.object().get("pools") != nil:
			return nil, fmt.Errorf("%s: this is awe4lb's own configuration already", name)
		default:
			return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
		}
	}
	switch from {
	case Gobetween:
		(&gobetween{run: r}).convert(top)
	case Original:
		(&original{run: r}).convert(top)
	default:
		return nil, fmt.Errorf("from: got %q; want auto, gobetween or original", from)
	}
	if err := r.mend(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	return &Result{From: from, TOML: []byte(r.doc.render().text), Notes: r.notes}, nil
}

// run is one conversion. Used once, by one goroutine.
type run struct {
	file  string
	env   bool
	doc   *document
	notes []Note
	seen  map[Note]bool
}

// place is where something stands in the source. The zero place is nowhere: the source does not say it.
type place struct {
	line int
	key  string
}

func (p place) given() bool { return p.line > 0 }

// changed notes that what stands at p means something else now, in the section and for the user. A nil section is none.
func (r *run) changed(s *section, p place, format string, args ...any) {
	r.note(s, p, false, format, args)
}

// lost notes that what stands at p, with its value, has no equal.
func (r *run) lost(s *section, p place, value any, format string, args ...any) {
	shown := show(p.key, value)
	if why := fmt.Sprintf(format, args...); why != "" {
		shown += ": " + why
	}
	r.note(s, p, true, "%s", []any{shown})
}

func (r *run) note(s *section, p place, lost bool, format string, args []any) {
	n := Note{p.line, p.key, lost, fmt.Sprintf(format, args...)}
	if !r.seen[n] {
		r.seen[n] = true
		r.notes = append(r.notes, n)
	}
	if s != nil {
		s.comment(r.file + ":" + n.String())
	}
}

// mend comments out what package config refuses, until it refuses nothing.
func (r *run) mend() error {
	const most = 100 // rounds; each takes away a level of what depends on what is wrong
	for range most {
		out := r.doc.render()
		_, err := config.Parse("awe4lb.toml", []byte(out.text))
		var errs config.Errors
		if err == nil {
			return nil
		} else if !errors.As(err, &errs) {
			return err
		}
		before := r.doc.off
		unset := 0
		for _, e := range errs {
			switch {
			case r.env && strings.HasPrefix(e.Problem, "the environment variable"):
				unset++ // of this process: what the value is can only be seen where it is set
			default:
				r.refuse(out, e)
			}
		}
		if unset == len(errs) {
			return nil
		}
		if r.doc.off == before {
			return fmt.Errorf("%s: the result is not good, which is a bug of awe4lb convert: %w", r.file, err)
		}
	}
	return fmt.Errorf("%s: the result does not become good, which is a bug of awe4lb convert", r.file)
}

// refuse comments out what e is about.
func (r *run) refuse(out rendered, e *config.Error) {
	s, l := out.at(e.Line)
	if s == nil || s.reason != "" { // nothing, or what an earlier mistake has taken away
		return
	}
	said := *e
	if said.Got != "" {
		said.Key = "" // the value tells
	}
	if strings.Contains(said.Hint, " at line ") {
		said.Hint = "" // a line of the result, which it has no more
	}
	why := strings.TrimPrefix(said.Error(), fmt.Sprintf("%s:%d: ", e.File, e.Line))
	p := s.from
	if l != nil {
		p = l.from
	}
	if l != nil && strings.HasPrefix(l.text, "kind = ") {
		l = nil // the other keys are for that kind
	}
	if p.given() {
		told := why
		if held := s.holds(); l == nil && held != "" {
			told += " (" + held + ")"
		}
		r.note(nil, p, true, "%s", []any{told})
	}
	reason := why
	if p.given() {
		reason = fmt.Sprintf("%s:%d: %s: not carried over: %s", r.file, p.line, p.key, why)
	}
	r.doc.turnOff(s, l, reason)
}
