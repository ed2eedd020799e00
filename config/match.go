package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// Routes and their conditions.

// What bounds the work that a route makes for each connection, and at each reload.
const (
	maxMatchDepth = 8    // of not, any and all in each other
	maxMatches    = 4096 // tables of conditions below not, any and all in all frontends
	maxRegexps    = 1024 // in all frontends
	maxRegexp     = 1000 // instructions of one when compiled: 3 ms for the longest name, at the very worst that was found
)

// AsksName reports whether a condition in m looks at the name in the ClientHello.
func (m *Match) AsksName() bool {
	return m.some(func(m *Match) bool {
		return len(m.SNI)+len(m.SNIStartsWith)+len(m.SNIEndsWith)+len(m.SNIContains)+len(m.SNIRegexp) > 0
	})
}

// AsksHello reports whether a condition in m looks at anything in the ClientHello.
func (m *Match) AsksHello() bool {
	return m.AsksName() || m.some(func(m *Match) bool { return len(m.ALPN) > 0 })
}

// some reports whether yes holds for m or a table inside of it.
func (m *Match) some(yes func(*Match) bool) bool {
	if yes(m) || m.Not != nil && m.Not.some(yes) {
		return true
	}
	inside := func(m *Match) bool { return m.some(yes) }
	return slices.ContainsFunc(m.Any, inside) || slices.ContainsFunc(m.All, inside)
}

// CompileNameRegexp returns the expression that a pattern of sni_regexp means: the whole name, in any case. It fails for
// patterns that validation refuses.
func CompileNameRegexp(pattern string) (*regexp.Regexp, error) {
	if _, err := syntax.Parse(pattern, syntax.Perl); err != nil { // by itself: "a)|(b" would be right in parentheses
		return nil, err
	}
	return regexp.Compile(`\A(?i:` + pattern + `)\z`)
}

// AsksHello reports whether a route of f looks at the ClientHello, so that f waits for one.
func (f *Frontend) AsksHello() bool {
	return slices.ContainsFunc(f.Routes, func(r *Route) bool { return r.Match.AsksHello() })
}

// AsksName reports whether a route of f looks at the name in the ClientHello.
func (f *Frontend) AsksName() bool {
	return slices.ContainsFunc(f.Routes, func(r *Route) bool { return r.Match.AsksName() })
}

func (d *decoder) checkRoutes(f *Frontend) {
	first := make(map[string]place) // by conditions
	for _, r := range f.Routes {
		table := d.places[r]
		if table.bad {
			continue
		}
		d.checkMissing(&r.Pool, table.key("pool"), "the name of a pool")
		if !d.checkMissing(&r.Match, table.key("match"), matchWant) {
			before := len(d.errs)
			d.checkMatch(f, &r.Match, d.places[&r.Match], 0)
			if len(d.errs) == before && !d.places[&r.Match].bad {
				d.checkReached(&r.Match, first)
			}
		}
		if p, ok := d.places[&r.Passthrough]; ok && r.Passthrough {
			switch {
			case f.IsUDP():
				d.fail(p, Error{Problem: "is for connections, and this frontend speaks udp"})
			case f.TLS == nil:
				d.fail(p, Error{Problem: "the frontend has no tls table to make an exception from", Hint: "without one all TLS is passed through: leave the key out"})
			}
		}
	}
}

// checkReached warns of a route that an earlier one with the same conditions keeps from matching.
func (d *decoder) checkReached(m *Match, first map[string]place) {
	key, at := m.key(), d.places[m]
	if other, twice := first[key]; twice {
		d.warn(at, "this route never matches", fmt.Sprintf("%s at line %d has the same conditions and comes first", other.path, other.line))
		return
	}
	first[key] = at
}

// key returns a text that is the same for the same conditions.
func (m *Match) key() string {
	var b strings.Builder
	source := slices.SortedFunc(slices.Values(m.Source), netip.Prefix.Compare)
	fmt.Fprint(&b, source)
	for _, list := range [][]string{m.SNI, m.SNIStartsWith, m.SNIEndsWith, m.SNIContains, m.SNIRegexp, m.ALPN} {
		fmt.Fprintf(&b, "%q", slices.Sorted(slices.Values(list)))
	}
	if m.Not != nil {
		fmt.Fprintf(&b, "(%s)", m.Not.key())
	}
	for _, list := range [][]*Match{m.Any, m.All} {
		b.WriteByte('[')
		for _, m := range list {
			fmt.Fprintf(&b, "(%s)", m.key())
		}
		b.WriteByte(']')
	}
	return b.String()
}

const (
	matchWant = `conditions, such as source = ["10.0.0.0/8"] or sni = ["www.example.com"]`
	instead   = "for every connection, use the pool of the frontend"
)

// checkMatch checks the table of conditions at match, depth tables below that of the route.
func (d *decoder) checkMatch(f *Frontend, m *Match, match place, depth int) {
	if match.bad {
		return
	}
	hint := ""
	if depth == 0 {
		hint = instead
	} else if d.matches++; d.matches > maxMatches {
		if d.matches == maxMatches+1 {
			d.fail(match, Error{Got: fmt.Sprintf("%d tables of conditions up to here", d.matches), Want: fmt.Sprintf("at most %d below not, any and all in all frontends", maxMatches)})
		}
		return
	}
	if depth > maxMatchDepth {
		d.fail(match, Error{Problem: "too many conditions in each other", Want: fmt.Sprintf("at most %d of not, any and all", maxMatchDepth)})
		return
	}
	given := false
	v := reflect.ValueOf(m).Elem()
	for _, k := range keysOf(v.Type()) {
		field := v.FieldByIndex(k.index)
		p, ok := d.places[field.Addr().Interface()]
		if !ok {
			continue
		}
		given = true
		if field.Kind() == reflect.Slice && !field.IsNil() && field.Len() == 0 {
			d.fail(p, Error{Got: "an empty array", Want: conditionWant(k.key), Hint: hint})
		}
		if f.IsUDP() && (k.key == "alpn" || strings.HasPrefix(k.key, "sni")) {
			d.fail(p, Error{Problem: "is for connections, and this frontend speaks udp", Hint: "of a datagram only the source is looked at"})
		}
	}
	if !given && (match.node == nil || len(match.node.keys) == 0) {
		d.fail(match, Error{Got: "an empty table", Want: matchWant, Hint: hint})
	}
	d.checkNames(m)
	if m.Not != nil {
		d.checkMatch(f, m.Not, d.places[m.Not], depth+1)
	}
	for _, list := range [][]*Match{m.Any, m.All} {
		for _, m := range list {
			d.checkMatch(f, m, d.places[m], depth+1)
		}
	}
}

// conditionWant returns what belongs into the array of a condition.
func conditionWant(key string) string {
	switch key {
	case "source":
		return "one prefix or more"
	case "alpn":
		return "one protocol or more"
	case "any", "all":
		return "one table of conditions or more"
	}
	return "one string or more"
}

// checkNames checks the conditions on the ClientHello in m itself, and brings names into the form that they are compared in.
func (d *decoder) checkNames(m *Match) {
	d.each(m.SNI, parseNamePattern)
	d.each(m.SNIStartsWith, func(s string) (string, *complaint) {
		if strings.HasPrefix(s, ".") {
			return "", &complaint{want: partWant, hint: "no name begins with a dot"}
		}
		return parseNamePart(s)
	})
	d.each(m.SNIEndsWith, func(s string) (string, *complaint) { return parseNamePart(strings.TrimSuffix(s, ".")) })
	d.each(m.SNIContains, parseNamePart)
	d.each(m.SNIRegexp, d.parseRegexp)
	d.each(m.ALPN, parseALPN)
}

// each replaces every element of a list by what read makes of it.
func (d *decoder) each(list []string, read func(string) (string, *complaint)) {
	for i := range list {
		p, ok := d.places[&list[i]]
		if !ok || p.bad {
			continue
		}
		s, c := read(list[i])
		if c != nil {
			d.refuse(p, *c)
			continue
		}
		list[i] = s
	}
}

// once refuses elements that are in the list already, and lists without any.
func (d *decoder) once(list *[]string, want string) {
	if p, ok := d.places[list]; ok && *list != nil && len(*list) == 0 {
		d.fail(p, Error{Got: "an empty array", Want: want, Hint: "for none, leave the key out"})
	}
	first := make(map[string]place)
	for i, s := range *list {
		p, ok := d.places[&(*list)[i]]
		if !ok || p.bad {
			continue
		}
		if other, twice := first[s]; twice {
			d.fail(p, Error{Got: p.got(), Want: "each once", Hint: other.path + " is the same"})
			continue
		}
		first[s] = p
	}
}

// parseRegexp checks an element of sni_regexp.
func (d *decoder) parseRegexp(s string) (string, *complaint) {
	c := &complaint{want: "a regular expression in the syntax of RE2"}
	if d.regexps++; d.regexps > maxRegexps {
		c.want = fmt.Sprintf("at most %d regular expressions in all frontends", maxRegexps)
		return "", c
	}
	if s == "" {
		c.hint = `no name is sni = [""]`
		return "", c
	}
	expr, err := CompileNameRegexp(s)
	var wrong *syntax.Error
	switch {
	case errors.As(err, &wrong):
		c.hint = string(wrong.Code) // the rest of the error repeats the value, which may be from the environment
	case err != nil:
		c.hint = "it cannot be compiled"
	case tooLarge(expr.String()):
		c.hint = fmt.Sprintf("it is too large: compiled it has more than %d instructions", maxRegexp)
	default:
		return s, nil
	}
	return "", c
}

func tooLarge(expr string) bool {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return true
	}
	prog, err := syntax.Compile(parsed.Simplify())
	return err != nil || len(prog.Inst) > maxRegexp
}

// parseALPN reads the name of an application protocol.
func parseALPN(s string) (string, *complaint) {
	if s == "" || len(s) > 255 {
		return "", &complaint{want: `a protocol of 1 to 255 bytes, such as "h2" or "http/1.1"`}
	}
	return s, nil
}
