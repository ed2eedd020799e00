package convert

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// gobetweenServer translates one of gobetween's servers: a frontend, and a pool for each name that its backends are for.
type gobetweenServer struct {
	*gobetween
	t    *table
	name string

	protocol string
	backends []backend // of a static list
	front    *section
	pools    []func() // write them, once the frontend is whole
}

// convert writes the server, and reports whether it wants certificates by ACME.
func (s *gobetweenServer) convert() (acme bool) {
	protocol, at := read(s.t, "protocol", "tcp")
	if !s.oneOf(at, protocol, "tcp", "tls", "udp") {
		protocol = "tcp"
	}
	s.protocol = protocol
	s.front = s.doc.section(s.t.at, "frontends", s.name)
	f := s.front
	if bind, at := read(s.t, "bind", ""); at.given() {
		f.list(place{}, "bind", []item{{s.text(s.bind(bind)), at}})
	}
	if s.protocol == "udp" {
		f.set(at, "protocol", quote("udp"))
	}
	most, at := inherited(s, "max_connections", 0)
	switch {
	case most > 0 && s.udp():
		s.lost(f, at, most, "gobetween does not hold it for udp; here udp.max_flows is the limit")
	case most > 0:
		f.set(at, "max_connections", strconv.Itoa(most))
	}
	s.idle()
	s.routes(s.discovery())
	s.access()
	acme = s.tls()
	s.datagrams()
	for _, write := range s.pools {
		write()
	}
	s.t.rest(nil, unknownThere)
	return acme
}

func (s *gobetweenServer) udp() bool { return s.protocol == "udp" }

// idle brings together the limits of both sides.
func (s *gobetweenServer) idle() {
	client, clientAt := inherited(s, "client_idle_timeout", time.Duration(0))
	backend, backendAt := inherited(s, "backend_idle_timeout", time.Duration(0))
	if s.udp() {
		return // see datagrams
	}
	limit, at := client, clientAt
	if limit == 0 || backend > 0 && backend < limit {
		limit, at = backend, backendAt
	}
	if limit == 0 {
		return
	}
	s.changed(s.front, at, "a session ends when neither side has said anything for so long, not when one is silent while the other talks")
	if client > 0 && backend > 0 && client != backend {
		other, is := backendAt, backend
		if at == backendAt {
			other, is = clientAt, client
		}
		s.lost(s.front, other, is, "one limit holds for both sides, and the shorter is taken")
	}
	s.front.set(at, "idle_timeout", quote(duration(limit)))
}

func (s *gobetweenServer) access() {
	t := s.t.sub("access")
	if t == nil {
		return
	}
	a := s.doc.section(t.at, "frontends", s.name, "access")
	if def, at := read(t, "default", "allow"); at.given() && s.oneOf(at, def, "allow", "deny") {
		a.set(at, "default", quote(def))
	}
	list, at := read(t, "rules", []string(nil))
	var rules []item
	for i, rule := range list {
		at := t.elem("rules", i)
		words := strings.Fields(rule)
		if len(words) != 2 || words[0] != "allow" && words[0] != "deny" {
			s.lost(a, at, rule, `want "allow PREFIX" or "deny PREFIX"`)
			continue
		}
		if p, err := netip.ParsePrefix(words[1]); err == nil {
			words[1] = p.Masked().String()
		}
		rules = append(rules, item{"{ " + words[0] + " = [" + s.text(words[1]) + "] }", at})
	}
	if len(rules) > 0 {
		a.list(at, "rules", rules)
	}
	t.rest(a, unknownThere)
}

// datagrams writes what holds for flows.
func (s *gobetweenServer) datagrams() {
	t := s.t.sub("udp")
	if !s.udp() {
		if t != nil {
			s.lost(nil, t.at, what("a table"), "the protocol is %s, so that it has no effect there either", s.protocol)
		}
		return
	}
	at := s.t.at
	if t != nil {
		at = t.at
	}
	u := s.doc.section(at, "frontends", s.name, "udp")
	requests, requestsAt := read(t, "max_requests", 0)
	responses, responsesAt := read(t, "max_responses", 0)
	transparent, transparentAt := read(t, "transparent", false)
	switch {
	case requests == 1:
		s.changed(u, requestsAt, "1 means there that each datagram goes to a backend of its own and nothing comes back")
		u.set(requestsAt, "mode", quote("datagram"))
		u.set(requestsAt, "replies", "false")
	case requests > 1:
		s.changed(u, requestsAt, "gobetween only logs an error after so many; here the client gets a backend anew")
		u.set(requestsAt, "max_requests", strconv.Itoa(requests))
	}
	if responses > 0 {
		u.set(responsesAt, "max_responses", strconv.Itoa(responses))
	}
	if transparent {
		s.changed(u, transparentAt, "answers are relayed too; the host needs routes for that, see docs/udp-transparent.md")
		u.set(transparentAt, "transparent", "true")
	}
	s.flowIdle(u)
	t.rest(u, unknownThere)
}

// flowIdle writes when a flow ends.
func (s *gobetweenServer) flowIdle(u *section) {
	client, clientAt := inherited(s, "client_idle_timeout", time.Duration(0))
	backend, backendAt := inherited(s, "backend_idle_timeout", time.Duration(0))
	if client == 0 && backend == 0 {
		u.comment("gobetween had no limit here; a flow that ends begins anew with the next datagram. The default is 60s.")
		return
	}
	limit, at := client, clientAt
	if limit == 0 || backend > 0 && backend < limit {
		limit, at = backend, backendAt
	}
	s.changed(u, at, "a flow ends when no datagram came from either side for so long; gobetween's counted each side for itself")
	if client > 0 && backend > 0 && client != backend {
		other, is := backendAt, backend
		if at == backendAt {
			other, is = clientAt, client
		}
		s.lost(u, other, is, "one limit holds for both sides, and the shorter is taken")
	}
	u.set(at, "idle_timeout", quote(duration(limit)))
	u.comment("The default of 5s would end a flow earlier whose backend does not answer.")
	u.set(at, "unreplied_timeout", quote(duration(limit)))
}
