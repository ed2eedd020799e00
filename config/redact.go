package config

import (
	"bytes"
	"slices"
	"strings"
)

// NotShown stands for a secret in what Redact returns.
const NotShown = "(not shown)"

// Redact returns text, which is TOML, with every secret in it replaced by NotShown: strings below a key whose name is that of
// a secret anywhere in the configuration, and comments that mention such a key. "${NAME}" alone stays, since it tells no more
// than where the secret comes from. The error is an Errors; name stands for the file in it.
func Redact(name string, text []byte) ([]byte, error) {
	if _, err := ParseDocument(name, text); err != nil {
		return nil, err
	}
	s := strings.TrimPrefix(string(text), "\ufeff")
	p, keys := partsOf(s), secretKeys()
	hidden := []span{}
	for _, v := range p.strings {
		if slices.Contains(keys, v.key) && !isReference(s[v.from:v.to]) {
			hidden = append(hidden, span{from: v.from, to: v.to, key: `"` + NotShown + `"`})
		}
	}
	for _, c := range p.comments {
		if slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(s[c.from:c.to], key) }) {
			hidden = append(hidden, span{from: c.from, to: c.to, key: "# " + NotShown})
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
