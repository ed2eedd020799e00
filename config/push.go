package config

import (
	"net/url"
	"slices"
	"strings"
)

func (d *decoder) checkPush(c *AdminPush, serves bool) {
	if p, ok := d.places[&c.URL]; ok && !p.bad && c.URL != "" {
		u, err := url.Parse(c.URL)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "":
			d.refuse(p, complaint{want: "an http or https URL without a user, such as http://127.0.0.1:8428/api/v1/import/prometheus"})
		case !serves:
			d.warn(p, "nothing is pushed while the admin is off", "give admin.bind an address, such as 127.0.0.1:0 or a unix socket")
		}
	}
	p, ok := d.places[&c.Labels]
	if !ok || p.bad || c.Labels == "" {
		return
	}
	switch problem := pushLabelProblem(c.Labels); problem {
	case "":
	case "syntax":
		d.refuse(p, complaint{want: `names and quoted values, such as instance="a",zone="b"`})
	default:
		d.refuse(p, complaint{want: "labels that no series has, each once", hint: problem + " is taken"})
	}
}

// ownLabels are those that awe4lb's series have: a label may be on a series only once.
var ownLabels = []string{"answer", "backend", "cause", "compiler", "direction", "file", "goversion", "key", "kind", "le", "limit", "name", "nth", "origin", "pool", "protocol",
	"quantile", "reason", "result", "revision", "server", "shard", "source", "state", "version"}

// pushLabelProblem returns "" for a list of labels as between the braces of Prometheus' text format, else "syntax", or the name
// that is taken.
func pushLabelProblem(text string) string {
	seen := map[string]bool{}
	for rest := text; ; {
		name, after, ok := strings.Cut(rest, `="`)
		if !ok || !isLabelName(name) {
			return "syntax"
		}
		if seen[name] || slices.Contains(ownLabels, name) {
			return name
		}
		seen[name] = true
		end := endOfLabelValue(after)
		if end < 0 {
			return "syntax"
		}
		rest = after[end+1:]
		if rest == "" {
			return ""
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return "syntax"
		}
	}
}

// endOfLabelValue returns where the quote is that ends a value, -1 when there is none or the value is not well formed.
func endOfLabelValue(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i
		case '\n':
			return -1
		case '\\':
			if i++; i == len(s) || !strings.ContainsRune(`\"n`, rune(s[i])) {
				return -1
			}
		}
	}
	return -1
}

func isLabelName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && !strings.HasPrefix(s, "__")
}
