package convert

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is one value of the source, with its place.
type value struct {
	place
	raw any // nil, string, bool, int64, float64, *object, []*value, or something else that no key wants
}

// object is a table with its keys in the order of the file.
type object struct {
	keys []string
	m    map[string]*value
	used map[string]bool // the keys that were read; see table
}

func (v *value) isObject() bool { return v.object() != nil }

func (v *value) isArray() bool {
	if v == nil {
		return false
	}
	_, ok := v.raw.([]*value)
	return ok
}

// object returns what v holds if it is a table, or nil.
func (v *value) object() *object {
	if v == nil {
		return nil
	}
	o, _ := v.raw.(*object)
	return o
}

// empty reports whether v says nothing.
func (v *value) empty() bool {
	list, isList := v.raw.([]*value)
	return v.raw == nil || v.raw == "" || isList && len(list) == 0
}

// get returns the value of a key, or nil. A nil object has none.
func (o *object) get(key string) *value {
	if o == nil {
		return nil
	}
	return o.m[key]
}

// table reads an object and remembers what of it was read. A nil table is an empty one.
type table struct {
	r  *run
	at place
	o  *object
}

// table returns a table over v, which is an object.
func (r *run) table(v *value) *table {
	o := v.object()
	if o.used == nil {
		o.used = map[string]bool{}
	}
	return &table{r, v.place, o}
}

// sub returns the table at key, or nil when there is none; anything else there is noted.
func (t *table) sub(key string) *table {
	v := t.take(key)
	if v == nil || v.raw == nil {
		return nil
	}
	if !v.isObject() {
		t.r.lost(nil, v.place, v.raw, "want a table")
		return nil
	}
	return t.r.table(v)
}

// subs returns the tables in the array at key.
func (t *table) subs(key string) (all []*table) {
	v := t.take(key)
	if v == nil || v.raw == nil {
		return nil
	}
	elems, ok := v.raw.([]*value)
	if !ok {
		t.r.lost(nil, v.place, v.raw, "want an array of tables")
	}
	for _, e := range elems {
		if e.isObject() {
			all = append(all, t.r.table(e))
		} else {
			t.r.lost(nil, e.place, e.raw, "want a table")
		}
	}
	return all
}

// named returns the tables in the table at key, by name and in the order of the file.
func (t *table) named(key string) (names []string, all []*table) {
	in := t.sub(key)
	if in == nil {
		return nil, nil
	}
	for _, name := range in.o.keys {
		if s := in.sub(name); s != nil {
			names, all = append(names, name), append(all, s)
		}
	}
	return names, all
}

// take returns the value at key and marks it as read.
func (t *table) take(key string) *value {
	if t == nil {
		return nil
	}
	t.o.used[key] = true
	return t.o.get(key)
}

// has reports whether the source gives a key, without reading it.
func (t *table) has(key string) bool {
	return t != nil && t.o.get(key) != nil && t.o.get(key).raw != nil
}

// rest notes what nobody has read. Empty texts and arrays, of which gobetween's dump is full, say nothing.
func (t *table) rest(s *section, why string) {
	if t == nil {
		return
	}
	for _, key := range t.o.keys {
		if v := t.o.get(key); !t.o.used[key] && !v.empty() {
			t.r.lost(s, v.place, v.raw, "%s", why)
		}
	}
}

// read returns the value of a key and its place, or otherwise and nowhere when the source does not give it, or gives
// something of another kind, which is noted.
func read[T string | bool | int | []string | time.Duration](t *table, key string, otherwise T) (T, place) {
	v := t.take(key)
	if v == nil || v.raw == nil {
		return otherwise, place{}
	}
	var out any
	var want string
	switch any(otherwise).(type) {
	case string:
		want = "text"
		if s, ok := v.raw.(string); ok {
			out = s
		}
	case bool:
		want = "true or false"
		if b, ok := v.raw.(bool); ok {
			out = b
		}
	case int:
		want = "a whole number"
		switch n := v.raw.(type) {
		case int64:
			if n >= math.MinInt32 && n <= math.MaxInt32 {
				out = int(n)
			}
		case float64:
			if n == math.Trunc(n) && math.Abs(n) <= math.MaxInt32 {
				out = int(n)
			}
		}
	case time.Duration:
		want = `a duration such as "5s"`
		if s, ok := v.raw.(string); ok {
			if d, err := time.ParseDuration(s); err == nil && d >= 0 {
				out = d
			}
		}
	case []string:
		want = "an array of strings"
		if elems, ok := v.raw.([]*value); ok {
			list := make([]string, 0, len(elems))
			for _, e := range elems {
				if s, ok := e.raw.(string); ok {
					list = append(list, s)
				} else {
					t.r.lost(nil, e.place, e.raw, "want text")
				}
			}
			out = list
		}
	}
	if out == nil {
		t.r.lost(nil, v.place, v.raw, "want %s", want)
		return otherwise, place{}
	}
	return out.(T), v.place
}

// elem returns the place of an element of the array at p.
func (t *table) elem(key string, i int) place {
	if elems, ok := t.o.get(key).raw.([]*value); ok {
		n := -1
		for _, e := range elems {
			if _, isText := e.raw.(string); isText {
				if n++; n == i {
					return e.place
				}
			}
		}
	}
	return t.o.get(key).place
}

// secrets are parts of keys whose values are never shown.
var secrets = []string{"password", "token", "login", "secret"}

// isSecret reports whether the value of a key is never shown.
func isSecret(key string) bool {
	last := strings.ToLower(key[strings.LastIndexByte(key, '.')+1:])
	return slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(last, s) }) && !strings.HasSuffix(last, "path")
}

// what describes a value that is not worth showing.
type what string

// show returns a value for a message: cut, on one line, and not if it is a secret.
func show(key string, raw any) string {
	if isSecret(key) {
		return "(not shown)"
	}
	const most = 60
	s := ""
	switch v := raw.(type) {
	case string:
		s = strconv.Quote(v)
	case what:
		return string(v)
	case []*value:
		return fmt.Sprintf("an array of %d", len(v))
	case *object:
		return "a table"
	case []string:
		s = fmt.Sprintf("%q", v)
	case time.Duration:
		s = quote(duration(v))
	case float64:
		s = strconv.FormatFloat(v, 'g', -1, 64)
	default:
		s = fmt.Sprint(v)
	}
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}
