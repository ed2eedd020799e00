package config

import (
	"bytes"
	"cmp"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// NotShown stands for a secret in what Redact returns.
const NotShown = "(not shown)"

// Redact returns text, which is TOML, with every secret in it replaced by NotShown: values below a key whose name is that of a
// secret anywhere in the configuration, values that stand where no configuration has one (a misspelt key, or a string where a
// table should be, may hold anything), and comments beside one, that mention such a key, or that look like an assignment to one that
// no configuration has. "${NAME}"
// alone stays, since it tells no more than where the secret comes from. The error is an Errors; name stands for the file in it.
func Redact(name string, text []byte) ([]byte, error) {
	if _, err := ParseDocument(name, text); err != nil {
		return nil, err
	}
	s := strings.TrimPrefix(string(text), "\ufeff")
	p := partsOf(s)
	hidden := []span{}
	for _, v := range p.values {
		if !isShown(v.path) && !isReference(s[v.from:v.to]) {
			hidden = append(hidden, span{from: v.from, to: v.to, key: `"` + NotShown + `"`})
		}
	}
	values := slices.Clone(hidden)
	for _, block := range blocksOf(s, p.comments) {
		if slices.ContainsFunc(block, func(c span) bool { return mayHoldSecret(s[c.from:c.to]) || follows(s, c, values) }) {
			for _, c := range block {
				hidden = append(hidden, span{from: c.from, to: c.to, key: "# " + NotShown})
			}
		}
	}
	slices.SortFunc(hidden, func(a, b span) int { return a.from - b.from })
	var out bytes.Buffer
	at := 0
	for _, h := range hidden {
		out.WriteString(s[at:h.from])
		out.WriteString(h.key)
		at = h.to
	}
	out.WriteString(s[at:])
	return out.Bytes(), nil
}

// isReference reports whether a string as TOML has it is one variable of the environment and nothing else.
func isReference(quoted string) bool {
	s := strings.Trim(quoted, `"'`)
	name, isReference := strings.CutPrefix(s, "${")
	return isReference && strings.HasSuffix(name, "}") && variableName(strings.TrimSuffix(name, "}"))
}

// isShown reports whether the value of a key may be shown: a configuration has a value there, and it is no secret there or under
// the same name elsewhere.
func isShown(path []string) bool {
	return !slices.Contains(secretKeys(), path[len(path)-1]) && isValueAt(reflect.TypeFor[Config](), path)
}

// isValueAt reports whether there is a value at path in a table of type t, and not a table or nothing.
func isValueAt(t reflect.Type, path []string) bool {
	if len(path) == 0 {
		return false
	}
	types := []reflect.Type{t}
	if t == reflect.TypeFor[Source]() || t == reflect.TypeFor[Discovery]() {
		for _, kind := range sourceKinds {
			types = append(types, kind.options)
		}
	}
	for _, t := range types {
		for _, k := range keysOf(t) {
			if k.key != path[0] {
				continue
			}
			inner, named := tableOf(k.field.Type)
			rest := path[1:]
			if named && len(rest) > 0 {
				rest = rest[1:]
			}
			if inner == nil && len(rest) == 0 && k.field.Tag.Get("secret") == "" || inner != nil && isValueAt(inner, rest) {
				return true
			}
		}
	}
	return false
}

// tableOf returns the type of the table that a field of type t is, or has several of, and whether those are by name; nil for values.
func tableOf(t reflect.Type) (table reflect.Type, named bool) {
	if t.Kind() == reflect.Slice {
		t, named = t.Elem(), isNamed(t.Elem())
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isValue(t) {
		return nil, false
	}
	return t, named
}

// holdsSecrets reports whether a table of type t, or one inside of it, has a secret.
func holdsSecrets(t reflect.Type) bool { return secretHolders()[t] }

var secretHolders = sync.OnceValue(func() map[reflect.Type]bool {
	holds := map[reflect.Type]bool{reflect.TypeFor[Source](): true, reflect.TypeFor[Discovery](): true} // by their options
	for found := true; found; {
		found = false
		for _, tb := range tables() {
			for _, k := range keysOf(tb.typ) {
				inner, _ := tableOf(k.field.Type)
				if !holds[tb.typ] && (k.field.Tag.Get("secret") != "" || inner != nil && holds[inner]) {
					holds[tb.typ], found = true, true
				}
			}
		}
	}
	return holds
})

// blocksOf returns comments, those that stand on lines next to each other together: what is commented out may take several.
func blocksOf(text string, comments []span) (blocks [][]span) {
	for i, c := range comments {
		if i > 0 && strings.TrimSpace(text[comments[i-1].to:c.from]) == "" && strings.Count(text[comments[i-1].to:c.from], "\n") == 1 {
			blocks[len(blocks)-1] = append(blocks[len(blocks)-1], c)
		} else {
			blocks = append(blocks, []span{c})
		}
	}
	return blocks
}

// follows reports whether a comment stands on the line on which one of the values ends.
func follows(text string, comment span, values []span) bool {
	line := strings.LastIndexByte(text[:comment.from], '\n') + 1
	i, _ := slices.BinarySearchFunc(values, line, func(v span, at int) int { return cmp.Compare(v.to, at) })
	return i < len(values) && values[i].to <= comment.from
}

// mayHoldSecret reports whether a line mentions the key of a secret, or looks like an assignment to a key that is none of ours.
func mayHoldSecret(line string) bool {
	lower := strings.ToLower(line)
	if slices.ContainsFunc(secretKeys(), func(key string) bool { return strings.Contains(lower, key) }) {
		return true
	}
	m := assignment.FindStringSubmatch(line)
	return m != nil && !ourKeys()[m[1]]
}

// assignment is what a line that was commented out begins with; the last part of its key is a group.
var assignment = regexp.MustCompile(`^[#\s]*(?:[\w"'-]+\s*\.\s*)*["']?([\w-]+)["']?\s*=`)

var ourKeys = sync.OnceValue(func() map[string]bool {
	keys := map[string]bool{}
	for _, tb := range tables() {
		for _, key := range keyNames(tb.typ) {
			keys[key] = true
		}
	}
	return keys
})
