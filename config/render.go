package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Values as TOML, and the way from JSON to it and back. The values are those of a Document.

// FromJSON returns the TOML that means the same as a JSON object. A null is an error, as TOML has none; a number with neither
// point nor exponent is an integer. The order is alphabetical.
func FromJSON(text []byte) ([]byte, error) {
	values, err := valuesOfJSON(text)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	renderTable(&b, nil, values)
	return []byte(b.String()), nil
}

// ToJSON returns a document as JSON, indented.
func (d *Document) ToJSON() ([]byte, error) {
	b, err := json.MarshalIndent(d.Values, "", "  ")
	return append(b, '\n'), err
}

func valuesOfJSON(text []byte) (map[string]any, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var values map[string]any
	if err := d.Decode(&values); err != nil {
		return nil, fmt.Errorf("not the JSON of a configuration: %w", err)
	}
	if values == nil {
		return nil, errors.New("not the JSON of a configuration: want an object")
	}
	return values, tidyJSON(values, "")
}

// checkJSON refuses what the decoder would take for something else: nesting without end, and a key given twice, of which it
// would forget one.
func checkJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	type level struct {
		keys  map[string]bool // nil in an array
		isKey bool            // the next string is one
	}
	var levels []level
	for {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("not valid JSON near byte %d: %w", d.InputOffset(), err)
		}
		top := len(levels) - 1
		switch delim, isDelim := token.(json.Delim); {
		case isDelim && (delim == '{' || delim == '['):
			if len(levels) == maxNesting {
				return fmt.Errorf("JSON nested more than %d deep", maxNesting)
			}
			next := level{}
			if delim == '{' {
				next = level{map[string]bool{}, true}
			}
			if top >= 0 {
				levels[top].isKey = levels[top].keys != nil
			}
			levels = append(levels, next)
		case isDelim:
			levels = levels[:top]
		case top >= 0 && levels[top].isKey:
			key, _ := token.(string)
			if levels[top].keys[key] {
				return fmt.Errorf("the key %s is given twice, near byte %d", quote(key), d.InputOffset())
			}
			levels[top].keys[key], levels[top].isKey = true, false
		case top >= 0:
			levels[top].isKey = levels[top].keys != nil
		}
		if len(levels) == 0 {
			if d.More() {
				return errors.New("more than one JSON value")
			}
			return nil
		}
	}
}

// tidyJSON makes v, which JSON gave, what TOML would have given.
func tidyJSON(v any, at string) error {
	fix := func(v any, at string) (any, error) {
		switch v := v.(type) {
		case nil:
			return nil, fmt.Errorf("%s is null: leave the key out", at)
		case json.Number:
			if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
				return n, nil
			}
			f, err := v.Float64()
			if err != nil {
				return nil, fmt.Errorf("%s: the number %s is too large", at, cut(string(v), maxShown))
			}
			return f, nil
		}
		return v, tidyJSON(v, at)
	}
	var err error
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			if v[key], err = fix(v[key], joinKey(at, key)); err != nil {
				return err
			}
		}
	case []any:
		for i := range v {
			if v[i], err = fix(v[i], fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// renderTable writes a table: its plain keys first, then those that are tables, each below a header.
func renderTable(b *strings.Builder, path []string, values map[string]any) {
	if len(path) > 0 {
		fmt.Fprintf(b, "[%s]\n", dottedKey(path))
	}
	keys := slices.Sorted(maps.Keys(values))
	for _, key := range keys {
		if _, isTable := values[key].(map[string]any); !isTable {
			renderKey(b, []string{key}, values[key])
		}
	}
	for _, key := range keys {
		if table, isTable := values[key].(map[string]any); isTable {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			renderTable(b, append(slices.Clone(path), key), table)
		}
	}
}

// renderKey writes a key with its value; an array of tables gets a line for each.
func renderKey(b *strings.Builder, path []string, value any) {
	fmt.Fprintf(b, "%s = %s\n", dottedKey(path), renderValue(value, true))
}

func dottedKey(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		if parts[i] = p; !bare(p) {
			parts[i] = renderString(p)
		}
	}
	return strings.Join(parts, ".")
}

// renderValue returns a value as TOML; lines says that an array of tables may take more than one.
func renderValue(v any, lines bool) string {
	switch v := v.(type) {
	case string:
		return renderString(v)
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return renderFloat(v)
	case time.Time:
		return v.Format(time.RFC3339Nano) // no key of ours is one: it only has to stay one
	case []map[string]any:
		return renderValue(arrayOf(v), lines)
	case []any:
		return renderArray(v, lines)
	case map[string]any:
		var all []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = append(all, dottedKey([]string{key})+" = "+renderValue(v[key], false))
		}
		if all == nil {
			return "{}"
		}
		return "{ " + strings.Join(all, ", ") + " }"
	}
	panic(fmt.Sprintf("config: no way to write a %T", v))
}

func renderArray(v []any, lines bool) string {
	all, tables := make([]string, len(v)), false
	for i := range v {
		all[i] = renderValue(v[i], false)
		_, isTable := v[i].(map[string]any)
		tables = tables || isTable
	}
	if tables && lines {
		return "[\n  " + strings.Join(all, ",\n  ") + ",\n]"
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func arrayOf(tables []map[string]any) []any {
	all := make([]any, len(tables))
	for i := range tables {
		all[i] = tables[i]
	}
	return all
}

func renderFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

func renderString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		case r == utf8.RuneError:
			b.WriteString(string(utf8.RuneError))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
