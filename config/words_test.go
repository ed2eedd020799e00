package config

import (
	"net/netip"
	"testing"
)

func TestMatchInWords(t *testing.T) {
	for want, m := range map[string]Match{
		"sni is a.example or *.b.example":             {SNI: []string{"a.example", "*.b.example"}},
		"sni is none":                                 {SNI: []string{""}},
		"source in 10.0.0.0/8, and alpn has h2":       {Source: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, ALPN: []string{"h2"}},
		"not (sni fits x+)":                           {Not: &Match{SNIRegexp: []string{"x+"}}},
		"(sni ends with .a) or (sni starts with www)": {Any: []*Match{{SNIEndsWith: []string{".a"}}, {SNIStartsWith: []string{"www"}}}},
		"(sni contains a) and (sni contains b)":       {All: []*Match{{SNIContains: []string{"a"}}, {SNIContains: []string{"b"}}}},
	} {
		if got := m.String(); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}
