package balancer

import (
	"bytes"
	"net/netip"
	"regexp"
	"strings"

	"awe4lb/config"
)

// Hello is what routes ask of a ClientHello.
type Hello interface {
	ServerName() []byte          // in lower case without a trailing dot; empty: none, or an IP address
	Offers(protocol string) bool // by ALPN
}

// client is what conditions are held against.
type client struct {
	address netip.Addr // IPv4 as such, without a zone; zero for unix sockets
	name    []byte     // empty: none
	hello   Hello      // nil: none was read
}

// match is a config.Match made ready for use. Immutable. All conditions that are there must hold.
type match struct {
	source   []netip.Prefix // nil: no condition, here and below
	names    *names
	starts   [][]byte
	ends     [][]byte
	contains [][]byte
	regexps  []*regexp.Regexp
	alpn     []string
	not      *match
	any      []*match
	all      []*match
}

func newMatch(cfg *config.Match) *match {
	m := &match{
		source:   cfg.Source,
		names:    newNames(cfg.SNI),
		starts:   texts(cfg.SNIStartsWith),
		ends:     texts(cfg.SNIEndsWith),
		contains: texts(cfg.SNIContains),
		alpn:     cfg.ALPN,
		any:      newMatches(cfg.Any),
		all:      newMatches(cfg.All),
	}
	for _, pattern := range cfg.SNIRegexp {
		expr, err := config.CompileNameRegexp(pattern)
		if err != nil {
			panic("balancer: an expression passed validation and cannot be compiled: " + err.Error())
		}
		m.regexps = append(m.regexps, expr)
	}
	if cfg.Not != nil {
		m.not = newMatch(cfg.Not)
	}
	return m
}

func newMatches(cfgs []*config.Match) []*match {
	var list []*match
	for _, cfg := range cfgs {
		list = append(list, newMatch(cfg))
	}
	return list
}

func texts(list []string) [][]byte {
	var out [][]byte
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}

// holds reports whether every condition of m holds for c. The cheap ones come first.
func (m *match) holds(c *client) bool {
	switch {
	case m.source != nil && !m.holdsSource(c),
		m.names != nil && !m.names.has(c.name),
		m.starts != nil && !oneFits(m.starts, c.name, bytes.HasPrefix),
		m.ends != nil && !oneFits(m.ends, c.name, bytes.HasSuffix),
		m.contains != nil && !oneFits(m.contains, c.name, bytes.Contains),
		m.alpn != nil && !m.holdsALPN(c),
		m.not != nil && m.not.holds(c):
		return false
	}
	for _, inner := range m.all {
		if !inner.holds(c) {
			return false
		}
	}
	return (m.any == nil || m.holdsAny(c)) && (m.regexps == nil || m.holdsRegexp(c))
}

func (m *match) holdsSource(c *client) bool {
	for _, p := range m.source {
		if p.Contains(c.address) {
			return true
		}
	}
	return false
}

func (m *match) holdsALPN(c *client) bool {
	if c.hello == nil {
		return false
	}
	for _, protocol := range m.alpn {
		if c.hello.Offers(protocol) {
			return true
		}
	}
	return false
}

func (m *match) holdsAny(c *client) bool {
	for _, inner := range m.any {
		if inner.holds(c) {
			return true
		}
	}
	return false
}

func (m *match) holdsRegexp(c *client) bool {
	for _, expr := range m.regexps {
		if expr.Match(c.name) {
			return true
		}
	}
	return false
}

func oneFits(parts [][]byte, name []byte, fits func(name, part []byte) bool) bool {
	for _, part := range parts {
		if fits(name, part) {
			return true
		}
	}
	return false
}

// names is a set of names and wildcards.
type names struct {
	exact    map[string]struct{} // "" is no name
	wildcard map[string]struct{} // by what follows the *, the dot included
}

// newNames returns the set of patterns, which config has checked and brought into lower case, or nil for none.
func newNames(patterns []string) *names {
	if len(patterns) == 0 {
		return nil
	}
	n := &names{map[string]struct{}{}, map[string]struct{}{}}
	for _, pattern := range patterns {
		if rest, ok := strings.CutPrefix(pattern, "*"); ok {
			n.wildcard[rest] = struct{}{}
		} else {
			n.exact[pattern] = struct{}{}
		}
	}
	return n
}

func (n *names) has(name []byte) bool {
	if _, ok := n.exact[string(name)]; ok {
		return true
	}
	_, ok := n.wildcard[string(parent(name))]
	return ok
}

// parent returns what follows the first label of a name, the dot included: what a * in front would stand before. Empty
// for a name of one label.
func parent(name []byte) []byte {
	if i := bytes.IndexByte(name, '.'); i > 0 {
		return name[i:]
	}
	return nil
}
