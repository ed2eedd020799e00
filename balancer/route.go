package balancer

import (
	"net/netip"
	"slices"
	"strings"

	"awe4lb/config"
)

// Choice is where a client's connection goes.
type Choice struct {
	Pool        *Pool // nil: nowhere
	Passthrough bool  // TLS is left to the backend though the frontend has a tls table
	Unknown     bool  // no route matched, and there are some that look at the name; see config.Frontend.UnknownName
}

// routes are the routes of a frontend. Immutable. The first in order that matches decides.
//
// A frontend of a thousand sites has a thousand routes, each with a name or two. So the routes that have the condition sni
// are found by name, in one map for whole names and one for wildcards, and only those that can match are tried, together
// with the routes without it. What a connection costs does not depend on how many names there are (BenchmarkRoute: 45-60
// ns, with 1,000 routes as with 10; 2026-11, two shared cores).
type routes struct {
	list  []route
	exact map[string][]int32 // numbers of routes in list, in order; "" is no name
	wild  map[string][]int32 // by what follows the *, the dot included
	rest  []int32            // without the condition sni

	asksName, asksHello bool

	unknown string   // config.Frontend.UnknownName
	others  []Choice // for unknown = "any"
}

// route is one route and where it leads.
type route struct {
	match  *match // without the condition sni, which the maps stand for
	choice Choice
}

// newRoutes makes the routes of a frontend; pools are those of the snapshot.
func newRoutes(cfg *config.Frontend, pools map[string]*Pool) routes {
	rs := routes{exact: map[string][]int32{}, wild: map[string][]int32{}, unknown: cfg.UnknownName}
	for i, c := range cfg.Routes {
		conditions := c.Match
		conditions.SNI = nil
		rs.list = append(rs.list, route{newMatch(&conditions), Choice{Pool: pools[c.Pool], Passthrough: c.Passthrough}})
		rs.asksName = rs.asksName || c.Match.AsksName()
		rs.asksHello = rs.asksHello || c.Match.AsksHello()
		if len(c.Match.SNI) == 0 {
			rs.rest = append(rs.rest, int32(i))
		}
		for _, pattern := range c.Match.SNI {
			m, key := rs.exact, pattern
			if after, ok := strings.CutPrefix(pattern, "*"); ok {
				m, key = rs.wild, after
			}
			if numbers := m[key]; len(numbers) == 0 || numbers[len(numbers)-1] != int32(i) {
				m[key] = append(numbers, int32(i))
			}
		}
	}
	for i := range rs.list {
		rs.asksHello = rs.asksHello || hashesName(rs.list[i].choice.Pool)
	}
	rs.asksHello = rs.asksHello || hashesName(pools[cfg.Pool])
	if rs.unknown == "any" {
		rs.others = rs.everyPool(pools[cfg.Pool])
	}
	return rs
}

// leadingTo returns f with now wherever it leads to was: f itself when it does not. What is expensive to make of a route
// does not know its pool, and is shared.
func (f *Frontend) leadingTo(was, now *Pool) *Frontend {
	leads := func(c Choice) bool { return c.Pool == was }
	if f.pool != was && !slices.ContainsFunc(f.routes.list, func(r route) bool { return leads(r.choice) }) {
		return f
	}
	g := *f
	g.routes.list, g.routes.others = slices.Clone(f.routes.list), slices.Clone(f.routes.others)
	if g.pool == was {
		g.pool = now
	}
	for i := range g.routes.list {
		if c := &g.routes.list[i].choice; leads(*c) {
			c.Pool = now
		}
	}
	for i := range g.routes.others {
		if c := &g.routes.others[i]; leads(*c) {
			c.Pool = now
		}
	}
	return &g
}

func hashesName(p *Pool) bool { return p != nil && p.AsksName() }

// everyPool returns the pools of all routes and then last, each once. A pool that several routes lead to is reached as the
// first of them reaches it.
func (rs *routes) everyPool(last *Pool) []Choice {
	var all []Choice
	seen := map[*Pool]bool{nil: true}
	add := func(c Choice) {
		if !seen[c.Pool] {
			seen[c.Pool] = true
			c.Unknown = true
			all = append(all, c)
		}
	}
	for i := range rs.list {
		add(rs.list[i].choice)
	}
	add(Choice{Pool: last})
	return all
}

// first returns the first route that matches c, or nil.
func (rs *routes) first(c *client) *route {
	// Three lists of numbers, each in order, taken as one.
	exact, wild, rest := rs.exact[string(c.name)], rs.wild[string(parent(c.name))], rs.rest
	for {
		least := &exact
		if before(wild, *least) {
			least = &wild
		}
		if before(rest, *least) {
			least = &rest
		}
		if len(*least) == 0 {
			return nil
		}
		r := &rs.list[(*least)[0]]
		if r.match.holds(c) {
			return r
		}
		*least = (*least)[1:]
	}
}

// before reports whether a begins with a lower number than b. An empty list comes last.
func before(a, b []int32) bool { return len(a) > 0 && (len(b) == 0 || a[0] < b[0]) }

// NeedsHello reports whether a route of f looks at the ClientHello, its name or its application protocols, or a pool that f
// leads to goes by the name.
func (f *Frontend) NeedsHello() bool { return f.routes.asksHello }

// AsksName reports whether a route of f looks at the name in the ClientHello.
func (f *Frontend) AsksName() bool { return f.routes.asksName }

// Route returns where a client's connection goes. A client on a unix socket has the zero address, which is in no prefix.
// hello is nil when none was read: then the client has no name and offers nothing.
//
// When no route matches and none looks at the name, that is the frontend's pool. When some look at the name, the client's
// name is unknown, whether it has one or not, and config.Frontend.UnknownName decides. Safe from any goroutine; never
// blocks or allocates.
func (f *Frontend) Route(address netip.Addr, hello Hello) Choice {
	c := client{address: address.Unmap().WithZone(""), hello: hello}
	if hello != nil {
		c.name = hello.ServerName()
	}
	if r := f.routes.first(&c); r != nil {
		return r.choice
	}
	if !f.routes.asksName {
		return Choice{Pool: f.pool}
	}
	switch f.routes.unknown {
	case "reject":
		return Choice{Unknown: true}
	case "any":
		n := f.Live.turn.Add(1) - 1
		return f.routes.others[n%uint64(len(f.routes.others))]
	}
	return Choice{Pool: f.pool, Unknown: true}
}
