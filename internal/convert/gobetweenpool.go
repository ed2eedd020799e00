package convert

import (
	"strconv"
	"strings"
	"time"
)

// policies are ours for gobetween's ways to balance, with what is other.
var policies = map[string]struct{ ours, changed string }{
	"weight":         {"random", ""},
	"roundrobin":     {"roundrobin", ""},
	"leastconn":      {"leastconn", ""},
	"leastbandwidth": {"leastbandwidth", ""},
	"iphash":         {"maglev", "of all hashes this one moves the fewest clients when backends change, where gobetween's moves nearly all; they move once when you change over"},
	"iphash1":        {"iphash", "the hash is another one, so that clients move once when you change over"},
}

// routes writes the pools of the server and the ways to them.
func (s *gobetweenServer) routes(d *gobetweenDiscovery) {
	sni := s.t.sub("sni")
	if sni == nil || s.udp() {
		if sni != nil {
			s.lost(s.front, sni.at, what("a table"), "datagrams have no names")
		}
		name := s.poolNames.pool(s.name, "")
		s.front.set(place{}, "pool", quote(name))
		s.pool(name, s.backends, d)
		return
	}
	if timeout, at := read(sni, "read_timeout", 2*time.Second); timeout > 0 {
		if !at.given() {
			s.front.comment("How long gobetween waits for a ClientHello.")
		}
		s.front.set(at, "hello_timeout", quote(duration(timeout)))
	} else {
		s.lost(s.front, at, timeout, "here there is always a limit")
	}
	matching, at := read(sni, "hostname_matching_strategy", "exact")
	if !s.oneOf(at, matching, "exact", "regexp") {
		matching = "exact"
	}
	unexpected, unexpectedAt := read(sni, "unexpected_hostname_strategy", "default")
	if !s.oneOf(unexpectedAt, unexpected, "default", "reject", "any") {
		unexpected = "default"
	}
	if d != nil {
		s.lost(s.front, sni.at, what("a table"), "names of discovered backends do not make routes here: write a route and a pool for each name")
	}

	var patterns []string // in the order of the list
	byName := map[string][]backend{}
	for _, b := range s.backends {
		if _, there := byName[b.sni]; !there && b.sni != "" {
			patterns = append(patterns, b.sni)
		}
		byName[b.sni] = append(byName[b.sni], b)
	}
	rest := byName[""]
	pool := ""
	switch {
	case unexpected == "reject" && len(patterns) > 0:
		s.front.set(unexpectedAt, "unknown_name", quote("reject"))
	case unexpected == "any" && len(patterns) > 0:
		s.front.comment("Names that no backend is for go to all of them, as gobetween's strategy any has it.")
		rest, pool = s.backends, s.poolNames.pool(s.name, "any")
		for _, b := range s.backends {
			if b.most > 0 && b.sni != "" {
				s.changed(s.front, b.at, "max_connections counts in each of the two pools that it is in")
			}
		}
	case len(rest) > 0 || d != nil || len(patterns) == 0:
		pool = s.poolNames.pool(s.name, "")
	}
	if unexpected == "reject" && len(patterns) > 0 && len(byName[""]) > 0 {
		s.lost(s.front, byName[""][0].at, byName[""][0].address, "backends without a name get nothing there either, with the strategy reject")
	}
	if pool != "" {
		s.front.set(place{}, "pool", quote(pool))
	}
	if len(patterns) > 0 {
		s.changed(s.front, sni.at, "connections that do not begin with a ClientHello are refused; gobetween takes them for some without a name")
	}
	if matching == "regexp" && len(patterns) > 0 {
		s.changed(s.front, at, "patterns match in any case, and a name that several match goes to the backends of the first one only")
	}
	var pools []string
	for _, p := range patterns {
		r := s.doc.element(byName[p][0].at, "frontends", s.name, "routes")
		match := "{ sni = [" + s.text(p) + "] }"
		if matching == "regexp" {
			match = "{ sni_regexp = [" + s.text(".*(?:"+p+").*") + "] }" // theirs is not anchored
		}
		name := s.poolNames.pool(s.name, p)
		r.set(byName[p][0].at, "match", match)
		r.set(place{}, "pool", quote(name))
		pools = append(pools, name)
	}
	if pool != "" {
		s.pool(pool, rest, d)
	}
	for i, p := range patterns {
		s.pool(pools[i], byName[p], nil)
	}
	sni.rest(s.front, unknownThere)
}

// pool makes the name of a pool of a server, for names in a ClientHello.
func (n *names) pool(server, of string) string {
	words := strings.FieldsFunc(of, func(r rune) bool { return !bare(string(r)) })
	for _, w := range words {
		server += "-" + w
	}
	return n.take(server, 64)
}

// pool lets a pool of the server be written.
func (s *gobetweenServer) pool(name string, list []backend, d *gobetweenDiscovery) {
	s.pools = append(s.pools, func() { s.writePool(name, list, d) })
}

func (s *gobetweenServer) writePool(name string, list []backend, d *gobetweenDiscovery) {
	p := s.doc.section(s.t.at, "pools", name)
	balance, at := read(s.t, "balance", "weight")
	policy, known := policies[balance]
	if !known {
		s.lost(p, at, balance, "gobetween knows weight, roundrobin, leastconn, leastbandwidth, iphash and iphash1")
		balance, policy = "weight", policies["weight"]
	}
	if policy.changed != "" {
		s.changed(p, at, "%s", policy.changed)
	}
	if !at.given() {
		p.comment(`gobetween's default, "weight": by lot, by weight, those of the lowest priority first.`)
	}
	p.set(at, "policy", quote(policy.ours))
	if limit, at := inherited(s, "backend_connection_timeout", time.Duration(0)); limit > 0 {
		p.set(at, "connect_timeout", quote(duration(limit)))
	} else if at.given() {
		s.lost(p, at, limit, "an attempt always has a limit, 5s unless it is set")
	}
	if t := s.t.sub("proxy_protocol"); t != nil {
		s.proxyProtocol(p, t)
	}
	s.list(p, name, list, balance == "weight")
	s.backendsTLS(name, list)
	s.health(name)
	if d != nil {
		d.write(name)
	}
}

func (s *gobetweenServer) proxyProtocol(p *section, t *table) {
	version, at := read(t, "version", "")
	switch {
	case version != "1":
		s.lost(p, first(at, t.at), version, "gobetween knows version 1 only")
	case s.protocol != "tcp":
		s.lost(p, at, version, "gobetween sends it for protocol tcp only")
	default:
		p.set(at, "send_proxy", quote("v1"))
	}
	t.rest(p, unknownThere)
}

// health writes how backends are checked.
func (s *gobetweenServer) health(pool string) {
	t := s.t.sub("healthcheck")
	if t == nil {
		return
	}
	h := s.doc.section(t.at, "pools", pool, "health")
	kind, at := read(t, "kind", "none")
	switch kind {
	case "none":
		t.rest(h, "nothing is checked")
		return
	case "ping":
		if s.udp() {
			s.lost(h, at, kind, "a connection says nothing of datagrams; gobetween does not start with this")
			t.rest(h, "nothing is checked")
			return
		}
		h.set(at, "kind", quote("tcp"))
	case "exec":
		h.set(at, "kind", quote("exec"))
		s.execCheck(h, t)
	case "probe":
		s.probe(h, t)
	default:
		s.lost(h, at, kind, "gobetween knows none, ping, probe and exec")
		return
	}
	interval, at := read(t, "interval", 2*time.Second)
	if at.given() {
		h.set(at, "interval", quote(duration(interval)))
	}
	timeout, at := read(t, "timeout", time.Duration(0))
	switch {
	case timeout > interval && interval > 0:
		s.changed(h, at, "a check cannot take longer than the interval: %s", duration(interval))
		h.set(at, "timeout", quote(duration(interval)))
	case timeout > 0:
		h.set(at, "timeout", quote(duration(timeout)))
	case at.given():
		s.lost(h, at, timeout, "a check always has a limit: 1s, or the interval if that is shorter")
	}
	for _, k := range []struct{ theirs, ours string }{{"passes", "rise"}, {"fails", "fall"}} {
		n, at := read(t, k.theirs, 1)
		h.set(at, k.ours, strconv.Itoa(n))
	}
	if status, at := read(t, "initial_status", "healthy"); s.oneOf(at, status, "healthy", "unhealthy") && status == "unhealthy" {
		h.set(at, "initial", quote("down"))
	}
	t.rest(h, "not for kind "+kind)
}

func (s *gobetweenServer) execCheck(h *section, t *table) {
	if command, at := read(t, "exec_command", ""); command != "" {
		h.set(at, "command", s.texts([]string{command, "$host", "$port"}))
	}
	good, at := read(t, "exec_expected_positive_output", "")
	if good != "" {
		s.changed(h, at, "any other output leaves a backend as it is, always; gobetween takes it down if the last check was good")
		h.set(at, "output_up", s.text(good))
	}
	if bad, at := read(t, "exec_expected_negative_output", ""); bad != "" {
		h.set(at, "output_down", s.text(bad))
	}
}

func (s *gobetweenServer) probe(h *section, t *table) {
	protocol, at := read(t, "probe_protocol", "tcp")
	if !s.oneOf(at, protocol, "tcp", "tls", "udp") {
		protocol = "tcp"
	}
	h.set(at, "kind", quote(protocol))
	if send, at := read(t, "probe_send", ""); send != "" {
		h.set(at, "send", s.text(send))
	}
	receive, at := read(t, "probe_recv", "")
	if strategy, strategyAt := read(t, "probe_strategy", "starts_with"); strategy == "regexp" {
		s.changed(h, strategyAt, "the expression is tried on what has come as it comes, not once on exactly so many bytes")
		h.set(at, "expect_regexp", s.text(receive))
		if n, at := read(t, "probe_recv_len", 0); n > 0 {
			h.set(at, "read_limit", strconv.Itoa(n))
		}
	} else if s.oneOf(strategyAt, strategy, "starts_with", "regexp") && receive != "" {
		h.set(at, "expect", s.text(receive))
	}
}
