package config

import (
	"cmp"
	"fmt"
	"strings"
)

// String returns the conditions in words, for people: `sni is *.shop.example, and source in 10.0.0.0/8`.
func (m *Match) String() string {
	var all []string
	add := func(what string, list []string) {
		words := make([]string, len(list))
		for i, w := range list {
			words[i] = cmp.Or(w, "none") // sni = [""] is no name
		}
		if len(words) > 0 {
			all = append(all, what+" "+strings.Join(words, " or "))
		}
	}
	if len(m.Source) > 0 {
		var list []string
		for _, p := range m.Source {
			list = append(list, p.String())
		}
		add("source in", list)
	}
	add("sni is", m.SNI)
	add("sni starts with", m.SNIStartsWith)
	add("sni ends with", m.SNIEndsWith)
	add("sni contains", m.SNIContains)
	add("sni fits", m.SNIRegexp)
	add("alpn has", m.ALPN)
	if m.Not != nil {
		all = append(all, fmt.Sprintf("not (%s)", m.Not))
	}
	group := func(list []*Match, between string) {
		var parts []string
		for _, inner := range list {
			parts = append(parts, fmt.Sprintf("(%s)", inner))
		}
		if len(parts) > 0 {
			all = append(all, strings.Join(parts, between))
		}
	}
	group(m.Any, " or ")
	group(m.All, " and ")
	return strings.Join(all, ", and ")
}
