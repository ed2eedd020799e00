package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// Format of a list as bytes.
type Format uint8

const (
	Auto Format = iota // file: by the name's ending; http: by Content-Type; otherwise, and for exec: Text
	Text
	JSON
	TOML
)

func (f Format) String() string { return [...]string{"auto", "text", "json", "toml"}[f] }

// Decoding says how a list is written.
type Decoding struct {
	Format  Format
	Lenient bool   // leave out entries that make no sense, and count them, instead of refusing the list. Not for TOML
	Line    string // Text: a regular expression for lines, see text.go; "" = the grammar
	Paths   Paths  // JSON: where things are; the zero Paths know the usual places, see json.go
}

// decoder is a Decoding that was checked.
type decoder struct {
	format  Format
	lenient bool
	line    *regexp.Regexp
	groups  map[string]int
	paths   paths
	single  bool // JSON: an object without a list in it is an element itself
}

func newDecoder(d Decoding) (*decoder, error) {
	if d.Format > TOML {
		return nil, fmt.Errorf("format: got %d; want auto, text, json or toml", d.Format)
	}
	dec := &decoder{format: d.Format, lenient: d.Lenient}
	if d.Line != "" {
		if err := dec.compileLine(d.Line); err != nil {
			return nil, err
		}
	}
	var err error
	dec.paths, err = d.Paths.compile()
	return dec, err
}

// decode reads a whole list; auto is the format where the Decoding leaves it open. Bytes of any kind give a list or an
// error of reason ReasonDecode, never a panic; the error quotes them escaped.
func (d *decoder) decode(b []byte, auto Format) (List, error) {
	format := d.formatOf(auto)
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // of JSON too, which RFC 8259 leaves to us
	var list List
	var err error
	switch format {
	case JSON:
		list, err = d.json(b)
	case TOML:
		list, err = d.toml(b)
	default:
		list, err = d.text(b)
	}
	if err != nil {
		return List{}, fail(ReasonDecode, fmt.Errorf("%s: %w", format, err))
	}
	return list, nil
}

// formatOf is the format of what is read next; auto where the Decoding leaves it open.
func (d *decoder) formatOf(auto Format) Format {
	if d.format == Auto {
		return auto
	}
	return d.format
}

// entry adds what one entry gave, or its error, to list. It returns an error when that ends the list.
func (d *decoder) entry(list *List, where string, n int, b Backend, err error) error {
	if err == nil {
		err = b.Check()
	}
	if err == nil {
		list.Backends = append(list.Backends, b)
		return nil
	}
	err = fmt.Errorf("%s %d: %w", where, n, err)
	if !d.lenient {
		return err
	}
	if list.Skipped == 0 {
		list.Why = clip(err.Error())
	}
	list.Skipped++
	return nil
}

// value reads one value of a store of keys and values, which is a list of its own. An empty one means that the last part of
// its key is the address. Auto: JSON if it begins with { or [, otherwise Text.
func (d *decoder) value(key string, value []byte) (List, error) {
	text, auto := strings.TrimSpace(string(value)), Text
	switch {
	case text == "":
		text = key[strings.LastIndexByte(key, '/')+1:]
	case text[0] == '{' || text[0] == '[':
		auto = JSON
	}
	return d.decode([]byte(text), auto)
}

// join adds what a value gave, or its error, to list. It returns an error when that ends the list.
func (d *decoder) join(list *List, what string, more List, err error) error {
	if err != nil {
		if !d.lenient {
			return fmt.Errorf("%s: %w", what, err)
		}
		list.skip(what, err)
		return nil
	}
	list.Backends = append(list.Backends, more.Backends...)
	if more.Skipped > 0 && list.Skipped == 0 {
		list.Why = clip(what + ": " + more.Why)
	}
	list.Skipped += more.Skipped
	return nil
}

// parseNumber reads a whole number that is not negative.
func parseNumber(what, s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s: got %s; want a whole number", what, quote(s))
	}
	return int(n), nil
}

// readLimited reads everything, or fails when there is more than most bytes.
func readLimited(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, tooLarge(most)
	}
	return b, nil
}

func tooLarge(most int64) error {
	return fail(ReasonTooLarge, fmt.Errorf("more than %d bytes", most))
}

// defaultMaxBytes holds 10,000 backends with all they can say in a usual case.
const defaultMaxBytes = 4 << 20

func maxBytes(n int64) (int64, error) {
	switch {
	case n < 0:
		return 0, errors.New("max_bytes: want 1 or more, or 0 for 4 MiB")
	case n == 0:
		return defaultMaxBytes, nil
	}
	return n, nil
}
