package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// The decoder puts the maps of the toml package into the structs of config.go, by the tags of their fields. Unlike the
// one in the toml package it goes on after a mistake, and knows where everything stands.

// decoder holds one configuration while it is made. Used once, by one goroutine.
type decoder struct {
	file     string
	folder   string                           // that paths of files count from
	lookup   func(name string) (string, bool) // the environment
	cfg      *Config
	errs     Errors
	warnings Errors

	// places tells where a field was set: the key is a pointer to the field. What the file does not set is not in here.
	// Strings that did not make it (see text) are in here too.
	places map[any]place

	matches, regexps int // counted by checkMatch

	files []*string // the fields that hold paths of files and folders
	uses  []Use     // of variables of the environment
}

// place is a spot in the file, and what stands there.
type place struct {
	path  string // such as frontends.web.bind[1]
	line  int
	after int // bytes from the beginning of the file
	node  *node

	shown   string // a string value as the file writes it, ${NAME} and all; "" for a secret
	fromEnv bool   // the value has a variable in it: never print it
	secret  bool   // the tag of the field says so: never print it
	bad     bool   // a mistake is already noted for the value
}

func newDecoder(file string, lookup func(string) (string, bool)) *decoder {
	return &decoder{file: file, lookup: lookup, cfg: newConfig(), places: make(map[any]place)}
}

// decode fills cfg from values. Fields follow each other as in the structs, so that [defaults] comes before those who
// inherit, wherever it stands in the file.
func (d *decoder) decode(tree *node, values map[string]any) {
	d.table(place{line: 1, node: tree}, values, reflect.ValueOf(d.cfg).Elem())
}

// key returns the place of a key in the table at p.
func (p place) key(key string) place { return p.down(joinKey(p.path, key), p.node.child(key)) }

// index returns the place of an element of the array at p.
func (p place) index(i int) place {
	return p.down(p.path+"["+strconv.Itoa(i)+"]", p.node.elem(i))
}

func (p place) down(path string, n *node) place {
	q := place{path: path, line: p.line, after: p.after, node: n}
	if n != nil {
		q.line, q.after = int(n.line), int(n.offset)
	}
	return q
}

// fail notes a mistake at p.
func (d *decoder) fail(p place, e Error) {
	e.File, e.Line, e.Key, e.offset = d.file, p.line, p.path, p.after
	d.errs = append(d.errs, &e)
}

// warn notes what is legal but surely a mistake.
func (d *decoder) warn(p place, problem, hint string) {
	d.warnings = append(d.warnings, &Error{File: d.file, Line: p.line, Key: p.path, Problem: problem, Hint: hint, offset: p.after})
}

// refuse notes that the string at p is not what c wants.
func (d *decoder) refuse(p place, c complaint) {
	e := Error{Got: p.got(), Want: c.want, Hint: c.hint}
	if c.fix != "" && !p.fromEnv && !p.secret && len(c.fix) <= maxShown {
		e.Hint = "write " + quote(c.fix)
	}
	d.fail(p, e)
}

// got returns the string at p, fit for a message.
func (p place) got() string {
	switch {
	case p.secret:
		return "a secret, which is not shown here"
	case p.fromEnv:
		return quote(p.shown) + ", whose value is not shown here"
	}
	return quote(p.shown)
}

// isSet reports whether the file sets a field, rightly or wrongly. field is a pointer to it.
func (d *decoder) isSet(field any) bool {
	_, ok := d.places[field]
	return ok
}

// structKey is one key that a table may have.
type structKey struct {
	key   string
	index []int
	field reflect.StructField
}

var keyCache sync.Map // reflect.Type to []structKey

// keysOf returns the keys of a struct of config.go in their order.
func keysOf(t reflect.Type) []structKey {
	if keys, ok := keyCache.Load(t); ok {
		return keys.([]structKey)
	}
	var keys []structKey
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous { // its keys stand in the same table
			for _, k := range keysOf(f.Type) {
				keys = append(keys, structKey{k.key, append([]int{i}, k.index...), k.field})
			}
		} else if key := f.Tag.Get("toml"); key != "-" && f.IsExported() {
			keys = append(keys, structKey{key, []int{i}, f})
		}
	}
	keyCache.Store(t, keys)
	return keys
}

func keyNames(t reflect.Type) []string {
	var names []string
	for _, k := range keysOf(t) {
		names = append(names, k.key)
	}
	return names
}

var (
	typeDuration = reflect.TypeFor[time.Duration]()
	typeSize     = reflect.TypeFor[Size]()
	typeAddress  = reflect.TypeFor[Address]()
	typePrefix   = reflect.TypeFor[netip.Prefix]()
	typeIP       = reflect.TypeFor[netip.Addr]()
)

// isValue reports whether the struct t is one value, written as a string.
func isValue(t reflect.Type) bool { return t == typeAddress || t == typePrefix || t == typeIP }

// isNamed reports whether t points to a struct that a table by name stands for.
func isNamed(t reflect.Type) bool {
	if t.Kind() != reflect.Pointer {
		return false
	}
	_, ok := t.Elem().FieldByName("Name")
	return ok
}

// table fills the struct v.
func (d *decoder) table(p place, raw any, v reflect.Value) {
	d.places[v.Addr().Interface()] = p
	m, ok := raw.(map[string]any)
	if !ok {
		e := Error{Got: describeIn(raw, v.Type()), Want: "a table"}
		if s, isString := raw.(string); isString && len(s) <= maxShown {
			switch v.Type() {
			case reflect.TypeFor[Backend]():
				e.Hint = "write { address = " + quote(s) + " }"
			case reflect.TypeFor[CertificateFiles]():
				e.Hint = "write { cert = " + quote(s) + ", key = … }"
			}
		}
		d.fail(p, e)
		p.bad = true
		d.places[v.Addr().Interface()] = p
		return
	}
	names := keyNames(v.Type())
	for _, k := range keysOf(v.Type()) {
		if raw, ok := m[k.key]; ok {
			d.value(p.key(k.key), raw, v.FieldByIndex(k.index), k.field.Tag)
		}
	}
	if s := sourceOf(v); s != nil {
		names = append(names, d.options(p, m, s, names)...)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(names, key) {
			d.fail(p.key(key), unknownKey(key, v.Type()))
		}
	}
}

// value fills the field v, which is of any type that config.go uses.
func (d *decoder) value(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	p.secret = tag.Get("secret") != ""
	d.places[v.Addr().Interface()] = p
	switch t := v.Type(); t {
	case typeDuration:
		d.duration(p, raw, v, tag)
	case typeSize:
		d.size(p, raw, v, tag)
	case typeAddress:
		parsed(d, p, raw, v, backendWant, parseBackend)
	case typePrefix:
		parsed(d, p, raw, v, "a prefix such as \"10.0.0.0/8\", or an IP address", parsePrefix)
	case typeIP:
		if tag.Get("remote") != "" {
			parsed(d, p, raw, v, "an IP address, in quotes", parseRemote)
			return
		}
		parsed(d, p, raw, v, "an IP address, in quotes", parseSource)
	default:
		switch t.Kind() {
		case reflect.String:
			d.word(p, raw, v, tag)
		case reflect.Bool:
			d.boolean(p, raw, v)
		case reflect.Int:
			d.integer(p, raw, v, tag)
		case reflect.Uint32:
			d.mode(p, raw, v, tag)
		case reflect.Struct:
			d.table(p, raw, v)
		case reflect.Pointer: // a table that may be absent
			elem := fresh(t.Elem(), &d.cfg.Defaults)
			d.table(p, raw, elem.Elem())
			v.Set(elem)
		case reflect.Slice:
			switch e := t.Elem(); {
			case isNamed(e):
				d.named(p, raw, v)
			case e.Kind() == reflect.Pointer:
				d.tables(p, raw, v)
			default:
				d.list(p, raw, v, tag)
			}
		default:
			panic("config: no way to decode a " + t.String())
		}
	}
}

// named fills a slice from tables by name, in the order of the file.
func (d *decoder) named(p place, raw any, v reflect.Value) {
	m, ok := raw.(map[string]any)
	if !ok {
		d.fail(p, Error{Got: describeIn(raw, v.Type().Elem().Elem()), Want: "tables by name, such as [" + p.path + ".web]"})
		p.bad = true
		d.places[v.Addr().Interface()] = p
		return
	}
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		na, nb := p.node.child(a), p.node.child(b)
		if na == nil || nb == nil {
			return strings.Compare(a, b)
		}
		return cmp.Compare(na.offset, nb.offset)
	})
	for _, name := range names {
		at := p.key(name)
		if !validName(name) {
			d.fail(at, Error{Got: quote(name), Want: "a name of letters, digits, '-', '_' and '.', at most 64"})
		}
		elem := fresh(v.Type().Elem().Elem(), &d.cfg.Defaults)
		elem.Elem().FieldByName("Name").SetString(name)
		d.table(at, m[name], elem.Elem())
		v.Set(reflect.Append(v, elem))
	}
}

func validName(s string) bool {
	for i := range len(s) {
		if s[i] != '.' && !bareByte(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// tables fills a slice from [[tables]], or from an array of inline tables, which is the same.
func (d *decoder) tables(p place, raw any, v reflect.Value) {
	var elems []any
	switch raw := raw.(type) {
	case []any:
		elems = raw
	case []map[string]any:
		for _, m := range raw {
			elems = append(elems, m)
		}
	default:
		d.fail(p, Error{Got: describeIn(raw, v.Type().Elem().Elem()), Want: "an array of tables"})
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(elems)))
	for i, raw := range elems {
		elem := fresh(v.Type().Elem().Elem(), &d.cfg.Defaults)
		d.table(p.index(i), raw, elem.Elem())
		v.Set(reflect.Append(v, elem))
	}
}

// list fills a slice of plain values.
func (d *decoder) list(p place, raw any, v reflect.Value, tag reflect.StructTag) {
	elems, ok := raw.([]any)
	if !ok {
		e := Error{Got: describe(raw), Want: "an array of strings"}
		if v.Type().Elem().Kind() == reflect.Int {
			e.Want = "an array of integers"
			if n, isInt := raw.(int64); isInt {
				e.Hint = fmt.Sprintf("write [%d]", n)
			}
		} else if s, isString := raw.(string); isString && len(s) <= maxShown {
			e.Hint = "write [" + quote(s) + "]"
		}
		if p.secret {
			e.Got, e.Hint = "something else, which is not shown here", ""
		}
		d.fail(p, e)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(elems), len(elems))) // whole at once: places points into it
	for i, raw := range elems {
		d.value(p.index(i), raw, v.Index(i), tag)
	}
}

// text returns the string at p with its variables put in. Whatever happens, p and places learn what the file says.
func (d *decoder) text(p *place, raw any, field any, want string) (string, bool) {
	s, ok := raw.(string)
	if !ok {
		e := Error{Got: describe(raw), Want: want}
		if p.secret {
			e.Got = "something else, which is not shown here"
		}
		d.fail(*p, e)
		p.bad = true
		d.places[field] = *p
		return "", false
	}
	out, used, unset, bad := expand(s, d.lookup)
	p.fromEnv = len(used) > 0
	for _, name := range used {
		d.uses = append(d.uses, Use{Field: field, Key: lastKey(p.path), Name: name})
	}
	if p.secret {
		bad = cut(bad, len("${"))
	} else {
		p.shown = s
	}
	defer func() { d.places[field] = *p }()
	switch {
	case bad != "":
		d.fail(*p, Error{Got: quote(bad), Want: "${NAME}", Hint: `a literal "${" is written "$${"`})
		p.bad = true
	case unset != nil:
		problem := "the environment variable " + list(short(unset), "and") + " is not set"
		if len(unset) > 1 {
			problem = "the environment variables " + list(short(unset), "and") + " are not set"
		}
		d.fail(*p, Error{Problem: problem})
		p.bad = true
	case p.secret && out == NotShown:
		d.fail(*p, Error{Got: quote(out), Want: "the secret itself", Hint: "this is what is shown in its place"})
		p.bad = true
	case !utf8.ValidString(out) || strings.ContainsFunc(out, unicode.IsControl):
		d.fail(*p, Error{Got: p.got(), Want: "text without control characters"})
		p.bad = true
	}
	return out, !p.bad
}

// short cuts names that are too long to print.
func short(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = cut(name, maxShown)
	}
	return out
}

// describeIn is describe for what stands in the place of a table of type t: where that has secrets, it may be one.
func describeIn(raw any, t reflect.Type) string {
	if _, isTable := raw.(map[string]any); isTable || !holdsSecrets(t) {
		return describe(raw)
	}
	return "something else, which is not shown here"
}

// describe says what kind of value raw is, and which one if it is small.
func describe(raw any) string {
	switch raw := raw.(type) {
	case string:
		return quote(raw)
	case bool:
		return strconv.FormatBool(raw)
	case int64:
		return "the integer " + strconv.FormatInt(raw, 10)
	case float64:
		return "the number " + strings.ToLower(strconv.FormatFloat(raw, 'g', -1, 64))
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	}
	return "an array"
}
