package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How each type of value is read, and the ranges in the tags of config.go.

// bounds is what a range tag says: "lo..hi", with "0|" in front when 0 is allowed besides.
type bounds struct {
	zero   bool
	lo, hi int64
}

// boundsOf reads a range tag; its ends are written like values of the type t.
func boundsOf(t reflect.Type, tag reflect.StructTag) bounds {
	var b bounds
	text, zero := strings.CutPrefix(tag.Get("range"), "0|")
	b.zero = zero
	lo, hi, ok := strings.Cut(text, "..")
	ends := [2]int64{}
	for i, s := range []string{lo, hi} {
		var err error
		switch {
		case t == typeDuration:
			var n time.Duration
			n, err = time.ParseDuration(s)
			ends[i] = int64(n)
		case t == typeSize:
			n, _, fits := parseSize(s)
			ends[i], ok = int64(n), ok && fits
		case t.Kind() == reflect.Uint32:
			ends[i], err = strconv.ParseInt(s, 8, 64)
		default:
			ends[i], err = strconv.ParseInt(s, 10, 64)
		}
		ok = ok && err == nil
	}
	if !ok {
		panic("config: bad range tag " + strconv.Quote(tag.Get("range")))
	}
	b.lo, b.hi = ends[0], ends[1]
	return b
}

func (b bounds) contain(n int64) bool { return b.zero && n == 0 || n >= b.lo && n <= b.hi }

// integer fills an int.
func (d *decoder) integer(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	b := boundsOf(v.Type(), tag)
	n, ok := raw.(int64)
	if !ok || !b.contain(n) {
		e := Error{Got: describe(raw), Want: fmt.Sprintf("an integer from %d to %d", b.lo, b.hi)}
		if b.zero {
			e.Want += ", or 0"
		}
		if ok {
			e.Got = strconv.FormatInt(n, 10)
		} else if s, isString := raw.(string); isString && s != "" && len(s) <= 10 && strings.Trim(s, "0123456789") == "" {
			e.Hint = "write " + s + " without quotes"
		}
		d.fail(p, e)
		p.bad = true
		d.places[v.Addr().Interface()] = p
		return
	}
	v.SetInt(n)
}

// boolean fills a bool.
func (d *decoder) boolean(p place, raw any, v reflect.Value) {
	b, ok := raw.(bool)
	if !ok {
		d.fail(p, Error{Got: describe(raw), Want: "true or false, without quotes"})
		return
	}
	v.SetBool(b)
}

// word fills a string; the oneof tag lists what it may be.
func (d *decoder) word(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	words := strings.Fields(tag.Get("oneof"))
	want := "text in quotes"
	if len(words) > 0 {
		want = list(quoted(words), "or")
	}
	if n, isNumber := raw.(float64); isNumber && slices.Contains(words, strconv.FormatFloat(n, 'f', 1, 64)) {
		d.fail(p, Error{Got: describe(raw), Want: want, Hint: fmt.Sprintf(`write "%.1f"`, n)})
		return
	}
	s, ok := d.text(&p, raw, v.Addr().Interface(), want)
	if !ok {
		return
	}
	if len(words) == 0 {
		v.SetString(s)
		return
	}
	for _, w := range words {
		if s == w {
			v.SetString(s)
			return
		}
	}
	c := complaint{want: list(words, "or")}
	if near := nearest(s, words); near != "" && !p.fromEnv {
		c.hint = didYouMean(near)
	}
	if ours := otherPolicies[s]; ours != "" && tag.Get("toml") == "policy" && !p.fromEnv {
		c.hint, c.fix = "", ours
	}
	if slices.Contains(words, "1.3") {
		c.hint, c.fix = "", fixVersion(s, words)
		if c.fix == "" && strings.Contains(strings.ToLower(s), "ssl") {
			c.hint = "SSL is broken, and not in Go"
		}
	}
	for _, w := range strings.Fields(tag.Get("later")) {
		if s == w {
			c.hint = quote(w) + " is not in this version of awe4lb"
		}
	}
	if p.fromEnv {
		c.hint = ""
	}
	d.refuse(p, c)
	p.bad = true
	d.places[v.Addr().Interface()] = p
}

// fixVersion returns what "TLSv1.2", "tls12", "1" or "tls1" was surely meant to be among versions, or "".
func fixVersion(s string, versions []string) string {
	s = strings.TrimLeft(strings.ToLower(s), "tlsv_ ")
	for _, v := range versions {
		if s == v || s == strings.ReplaceAll(v, ".", "") || s == strings.ReplaceAll(v, ".", "_") || s+".0" == v {
			return v
		}
	}
	return ""
}

// duration fills a time.Duration from a string such as "1m30s".
func (d *decoder) duration(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	b := boundsOf(v.Type(), tag)
	c := complaint{want: fmt.Sprintf(`a duration such as %q, from %s to %s`, "5s", shortDuration(b.lo), shortDuration(b.hi))}
	if b.zero {
		c.want += `, or "0s"`
	}
	if n, ok := raw.(int64); ok {
		e := Error{Got: describe(raw), Want: c.want}
		if n >= 0 && n < 1e9 && b.contain(n*int64(time.Second)) {
			e.Hint = fmt.Sprintf(`write "%ds"`, n)
		}
		d.fail(p, e)
		return
	}
	s, ok := d.text(&p, raw, v.Addr().Interface(), c.want)
	if !ok {
		return
	}
	n, err := time.ParseDuration(s)
	if err != nil || !b.contain(int64(n)) {
		if err != nil {
			c.fix = fixDuration(s)
		}
		d.refuse(p, c)
		return
	}
	v.SetInt(int64(n))
}

// fixDuration returns what "5", "5 s", "5S", "5sec" or "1d" was surely meant to be, or "".
func fixDuration(s string) string {
	unit := strings.ToLower(strings.TrimLeft(s, "0123456789"))
	n, err := strconv.ParseUint(s[:len(s)-len(unit)], 10, 16)
	if err != nil {
		return ""
	}
	switch strings.TrimSpace(unit) {
	case "", "s", "sec", "secs", "second", "seconds":
		return fmt.Sprintf("%ds", n)
	case "m", "min", "mins", "minute", "minutes":
		return fmt.Sprintf("%dm", n)
	case "h", "hour", "hours":
		return fmt.Sprintf("%dh", n)
	case "d", "day", "days":
		return fmt.Sprintf("%dh", 24*n)
	case "ms", "msec":
		return fmt.Sprintf("%dms", n)
	}
	return ""
}

// shortDuration returns 1m for what String calls 1m0s.
func shortDuration(n int64) string {
	s := time.Duration(n).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// size fills a Size from an integer or a string such as "64KiB".
func (d *decoder) size(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	b := boundsOf(v.Type(), tag)
	c := complaint{want: fmt.Sprintf(`a size such as "64KiB", from %v to %v`, Size(b.lo), Size(b.hi))}
	if n, ok := raw.(int64); ok {
		if !b.contain(n) {
			d.fail(p, Error{Got: strconv.FormatInt(n, 10), Want: c.want})
			return
		}
		v.SetInt(n)
		return
	}
	s, ok := d.text(&p, raw, v.Addr().Interface(), c.want)
	if !ok {
		return
	}
	n, fix, ok := parseSize(s)
	if !ok || !b.contain(int64(n)) {
		c.fix = fix
		d.refuse(p, c)
		return
	}
	v.SetInt(int64(n))
}

// mode fills the permission bits of a file from an octal string such as "0660".
func (d *decoder) mode(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	b := boundsOf(v.Type(), tag)
	c := complaint{want: fmt.Sprintf(`octal digits in quotes such as "0660", from "%04o" to "%04o"`, b.lo, b.hi)}
	if _, ok := raw.(int64); ok {
		// toml reads 0o660 as 432 and 660 as 660; nobody knows which was meant.
		d.fail(p, Error{Got: describe(raw), Want: c.want})
		return
	}
	s, ok := d.text(&p, raw, v.Addr().Interface(), c.want)
	if !ok {
		return
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || len(s) < 3 || !b.contain(int64(n)) {
		d.refuse(p, c)
		return
	}
	v.SetUint(n)
}

// parsed fills v with what parse makes of a string.
func parsed[T any](d *decoder, p place, raw any, v reflect.Value, want string, parse func(string) (T, *complaint)) {
	s, ok := d.text(&p, raw, v.Addr().Interface(), want)
	if !ok {
		return
	}
	value, c := parse(s)
	if c != nil {
		d.refuse(p, *c)
		return
	}
	v.Set(reflect.ValueOf(value))
}
