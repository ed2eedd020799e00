package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Write puts page, raw numbers and pictures into dir and returns the page's path. The name is date and commit, and a
// number when that name is taken: earlier results are never overwritten.
func (r *Results) Write(dir string) (string, error) {
	name := r.Date.Format("2006-01-02") + "-" + r.Commit
	if r.Dirty {
		name += "-dirty"
	}
	name, err := ClaimName(dir, name)
	if err != nil {
		return "", err
	}
	for _, f := range r.Figures() {
		if err := os.WriteFile(filepath.Join(dir, name, f.Name), []byte(f.SVG), 0o644); err != nil {
			return "", err
		}
	}
	raw, err := r.RawJSON()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), raw, 0o644); err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := r.Markdown(&text, name); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".md")
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}

// ClaimName makes the directory dir/name for the pictures of a new page and returns name, with a number when it was
// taken. Making the directory is what claims the name: two runs cannot get the same.
func ClaimName(dir, name string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for n, try := 2, name; ; n++ {
		err := os.Mkdir(filepath.Join(dir, try), 0o755)
		if err == nil || !os.IsExist(err) {
			return try, err
		}
		try = fmt.Sprintf("%s-%d", name, n)
	}
}

// RawJSON returns everything that was measured: one line per field, and per element of a list, so that two files can be
// compared by eye and by diff.
func (r *Results) RawJSON() ([]byte, error) {
	var b bytes.Buffer
	v := reflect.ValueOf(*r)
	b.WriteString("{\n")
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fmt.Fprintf(&b, "%q: ", name)
		if f := v.Field(i); f.Kind() == reflect.Slice && f.Len() > 0 {
			b.WriteString("[")
			for j := range f.Len() {
				text, err := json.Marshal(f.Index(j).Interface())
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				fmt.Fprintf(&b, "%s\n  %s", map[bool]string{false: ",", true: ""}[j == 0], text)
			}
			b.WriteString("\n]")
		} else {
			text, err := json.Marshal(f.Interface())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			b.Write(text)
		}
		if i < v.NumField()-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	b.WriteString("}\n")
	return b.Bytes(), nil
}

// Summary returns the bars as plain lines for a terminal; when the subject was not measured, the ratios of the others.
func (r *Results) Summary() string {
	var b strings.Builder
	for _, bar := range r.bars() {
		o := bar.measure(r)
		if !o.Measured {
			continue
		}
		sign := "<="
		if bar.Higher {
			sign = ">="
		}
		unit := bar.Unit
		if o.Noise != "" {
			unit += "  (noisy)"
		}
		fmt.Fprintf(&b, "%-62s %s %-5s measured %-6s %s %s\n", bar.Figure, sign, trim(bar.Want), fixed(o.Value, 2), bar.Verdict(o), strings.TrimSpace(unit))
	}
	if b.Len() == 0 {
		fmt.Fprintf(&b, "%s was not measured; the others are in the report.\n", r.Subject)
	}
	return b.String()
}
