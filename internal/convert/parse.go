package convert

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"awe4lb/config"
)

// What is read of a source; the bounds for TOML are those of package config.
const (
	maxText    = 4 << 20
	maxNesting = 64
)

// parse reads text as JSON when it begins with a brace, and else as TOML.
func parse(name string, text []byte) (*value, error) {
	fail := func(line int, problem string) error {
		return config.Errors{&config.Error{File: name, Line: line, Problem: problem}}
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if len(text) > maxText {
		return nil, fail(1, "the file is larger than 4 MiB")
	}
	if start := bytes.TrimLeft(text, " \t\r\n"); len(start) > 0 && start[0] == '{' {
		if !utf8.Valid(text) {
			return nil, fail(1, "the text is not UTF-8")
		}
		p := &jsonParser{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
		v, err := p.document()
		if err != nil {
			return nil, fail(p.line, err.Error())
		}
		return v, nil
	}
	d, err := config.ParseDocument(name, text)
	if err != nil {
		return nil, err
	}
	return fromTOML(d, "", nil, d.Values), nil
}

// fromTOML returns raw, which is at path, as a value.
func fromTOML(d *config.Document, key string, path []any, raw any) *value {
	line, _ := d.At(path...)
	v := &value{place{line, key}, raw}
	at := func(part any) []any { return append(slices.Clip(path), part) }
	var elems []any
	switch raw := raw.(type) {
	case map[string]any:
		o := &object{m: make(map[string]*value, len(raw))}
		offsets := make(map[string]int, len(raw))
		for k, e := range raw {
			o.keys = append(o.keys, k)
			o.m[k] = fromTOML(d, joinKey(key, k), at(k), e)
			_, offsets[k] = d.At(at(k)...)
		}
		slices.SortFunc(o.keys, func(a, b string) int {
			return cmp.Or(cmp.Compare(offsets[a], offsets[b]), strings.Compare(a, b))
		})
		v.raw = o
		return v
	case []any:
		elems = raw
	case []map[string]any:
		for _, m := range raw {
			elems = append(elems, m)
		}
	default:
		return v
	}
	list := make([]*value, len(elems))
	for i, e := range elems {
		list[i] = fromTOML(d, key+"["+strconv.Itoa(i)+"]", at(i), e)
	}
	v.raw = list
	return v
}

// joinKey returns the path of key inside path.
func joinKey(path, key string) string {
	if !bare(key) {
		if len(key) > 64 {
			key = string([]rune(key)[:min(16, utf8.RuneCountInString(key))]) + "…"
		}
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// jsonParser reads JSON by its tokens, to know their lines.
type jsonParser struct {
	text   []byte
	dec    *json.Decoder
	line   int // of the last token
	offset int64
}

func (p *jsonParser) document() (*value, error) {
	p.dec.UseNumber()
	v, err := p.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the document")
	}
	return v, nil
}

// token returns the next token.
func (p *jsonParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	end := p.dec.InputOffset()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		end = min(max(syntax.Offset, p.offset), int64(len(p.text)))
		err = fmt.Errorf("not valid JSON: %w", err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		end = int64(len(p.text))
		err = errors.New("not valid JSON: it ends too early")
	case err != nil:
		err = fmt.Errorf("not valid JSON: %w", err)
	}
	p.line += bytes.Count(p.text[p.offset:end], []byte("\n"))
	p.offset = end
	return t, err
}

func (p *jsonParser) value(key string, depth int) (*value, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	v := &value{place{p.line, key}, t}
	if depth > maxNesting {
		return nil, fmt.Errorf("arrays and objects are more than %d deep in each other", maxNesting)
	}
	switch t := t.(type) {
	case json.Number:
		if n, err := t.Int64(); err == nil {
			v.raw = n
		} else if f, err := t.Float64(); err == nil {
			v.raw = f
		} else {
			return nil, fmt.Errorf("the number %.40s is too large", t.String())
		}
	case json.Delim:
		if t == '[' {
			list := []*value{}
			for p.dec.More() {
				e, err := p.value(key+"["+strconv.Itoa(len(list))+"]", depth+1)
				if err != nil {
					return nil, err
				}
				list = append(list, e)
			}
			v.raw = list
		} else {
			if v.raw, err = p.object(key, depth); err != nil {
				return nil, err
			}
		}
		if _, err := p.token(); err != nil { // what closes it
			return nil, err
		}
	}
	return v, nil
}

func (p *jsonParser) object(key string, depth int) (*object, error) {
	o := &object{m: map[string]*value{}}
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("not valid JSON: a key has to be text")
		}
		path := joinKey(key, name)
		if len(path) > 1024 {
			return nil, errors.New("keys are too long")
		}
		if first, twice := o.m[name]; twice {
			return nil, fmt.Errorf("%s: given twice; the first is at line %d", path, first.line)
		}
		line := p.line
		e, err := p.value(path, depth+1)
		if err != nil {
			return nil, err
		}
		e.line = line
		o.keys, o.m[name] = append(o.keys, name), e
	}
	return o, nil
}
