package convert

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gobetween translates a configuration of gobetween 0.8 (github.com/yyyar/gobetween): what its keys do was read in its
// source, not only in its documentation.
type gobetween struct {
	*run
	names     names // of frontends
	poolNames names
	defaults  *table
	acme      *table // nil: there is none
}

func (g *gobetween) convert(top *table) {
	g.doc.head = []string{
		"awe4lb.toml, made by awe4lb convert from " + g.file + ", a configuration of gobetween.",
		"",
		"What was changed or not carried over stands as a comment where it belongs. For every configuration of gobetween these are " +
			"other than there: a connection ends one way at a time (half_close_timeout), a backend that refuses is followed by the next " +
			"(connect_attempts), an attempt to connect takes at most connect_timeout, when too few backends are up all are tried " +
			"(panic_threshold), and health checks count results in a row. See docs/migrating.md.",
	}
	g.logging(top.sub("logging"))
	g.admin(top)
	g.defaults, g.acme = top.sub("defaults"), top.sub("acme")
	defaults := g.doc.section(place{}, "defaults")
	defaults.comment("gobetween has no limit unless it is told one; the default of awe4lb is 10m.")
	defaults.set(place{}, "idle_timeout", quote("0s"))

	acme := g.doc.section(g.at(g.acme), "acme")
	servers, tables := top.named("servers")
	wanted := false
	for i, t := range tables {
		s := &gobetweenServer{gobetween: g, t: t, name: g.names.take(servers[i], 48)}
		if s.name != servers[i] {
			g.changed(nil, t.at, "is called %q here: a name is of letters, digits, '-', '_' and '.'", s.name)
		}
		wanted = s.convert() || wanted
	}
	g.issuer(acme, wanted)
	// What a server inherits was read there, if any server has asked.
	for _, key := range []string{"max_connections", "client_idle_timeout", "backend_idle_timeout", "backend_connection_timeout"} {
		g.defaults.take(key)
	}
	g.defaults.rest(nil, unknownThere)
	top.rest(nil, unknownThere)
}

const unknownThere = "gobetween does not know this key here"

func (g *gobetween) at(t *table) place {
	if t == nil {
		return place{}
	}
	return t.at
}

func (g *gobetween) logging(t *table) {
	s := g.doc.section(g.at(t), "log")
	level, at := read(t, "level", "info")
	s.set(at, "level", g.text(level))
	format, at := read(t, "format", "text")
	if at.given() {
		g.changed(s, at, "the lines have other fields")
	}
	s.set(at, "format", g.text(format))
	output, at := read(t, "output", "stdout")
	if !at.given() {
		s.comment("gobetween's default; that of awe4lb is stderr.")
	}
	s.set(at, "output", g.text(output))
	t.rest(s, unknownThere)
}

// admin brings together what gobetween has on three ports.
func (g *gobetween) admin(top *table) {
	api, metrics, profiler := top.sub("api"), top.sub("metrics"), top.sub("profiler")
	s := g.doc.section(g.at(api), "admin")
	on, _ := read(api, "enabled", false)
	bind, at := read(api, "bind", ":8888")
	measured, enabledAt := read(metrics, "enabled", false)
	metricsBind, metricsAt := read(metrics, "bind", ":9284")
	switch {
	case on:
		if !at.given() {
			at = api.at
		}
		g.changed(s, at, "compat keeps the calls /servers, /dump and /ping; awe4lb's own are at /api/v1")
		s.set(api.at, "compat", quote("gobetween"))
		if measured {
			g.changed(s, first(metricsAt, enabledAt), "metrics are at %s/metrics too, and have other names, see docs/operations.md", "admin.bind")
		}
	case measured:
		at, bind = first(metricsAt, enabledAt), metricsBind
		g.changed(s, at, "metrics have other names, see docs/operations.md; the API, which was off, is at the same address, for reading")
		s.set(place{}, "anonymous", quote("read"))
	default:
		s.comment("gobetween's API and metrics were off.")
		s.set(place{}, "bind", quote(""))
	}
	if on || measured {
		s.set(at, "bind", g.text(g.loopback(s, at, bind)))
	}
	if t := api.sub("basic_auth"); t != nil {
		g.lost(s, t.at, what("a login and a password"), "passwords are kept as hashes: awe4lb password makes one for [admin.users.NAME]. Until "+
			"then who shows no credentials may read, and nobody may change anything")
		s.set(t.at, "anonymous", quote("read"))
		for _, key := range []string{"login", "password"} {
			t.take(key)
		}
		t.rest(s, unknownThere)
	}
	if t := api.sub("tls"); t != nil {
		a := g.doc.section(t.at, "admin", "tls")
		for _, k := range []struct{ theirs, ours string }{{"cert_path", "cert"}, {"key_path", "key"}} {
			if path, at := read(t, k.theirs, ""); path != "" {
				a.set(at, k.ours, g.text(path))
			}
		}
		t.rest(a, unknownThere)
	}
	if cors, at := read(api, "cors", false); cors {
		g.lost(s, at, cors, "pages of other origins may not use the admin")
	}
	if on, _ := read(profiler, "enabled", false); on {
		g.lost(s, profiler.at, what("a profiler"), "awe4lb has none")
	}
	profiler.take("bind")
	for _, t := range []*table{api, metrics, profiler} {
		t.rest(s, unknownThere)
	}
}

// loopback returns where the admin may listen instead of bind.
func (g *gobetween) loopback(s *section, at place, bind string) string {
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return bind
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return bind
	}
	g.changed(s, at, "%q is reached by others, which takes [admin.users.NAME] or [admin.tokens.NAME]; until then the admin listens on loopback", bind)
	return "127.0.0.1:" + port
}

// issuer writes [acme], for names that servers want.
func (g *gobetween) issuer(s *section, wanted bool) {
	if g.acme == nil {
		if wanted {
			s.comment("gobetween asks Let's Encrypt only when it has a table [acme].")
			s.set(place{}, "agree", "true")
		}
		return
	}
	challenge, at := read(g.acme, "challenge", "http")
	if challenge != "http" {
		g.lost(s, at, challenge, "it did not work there; here HTTP-01 and TLS-ALPN-01 are answered")
	}
	bind, at := read(g.acme, "http_bind", "0.0.0.0:80")
	if folder, at := read(g.acme, "cache_dir", "/tmp"); at.given() {
		g.lost(s, at, folder, "what is in there has another form: certificates are asked for anew, and kept in storage")
	}
	g.acme.rest(s, unknownThere)
	if !wanted {
		g.changed(s, g.acme.at, "no server has acme_hosts, so that there is nothing to ask for")
		return
	}
	g.changed(s, g.acme.at, "gobetween agrees to the authority's terms by itself: read them, and see docs/acme.md")
	s.set(g.acme.at, "agree", "true")
	f := g.doc.section(first(at, g.acme.at), "frontends", g.names.take("acme-http", 64))
	f.comment("Answers the authority's HTTP-01 challenges; everything else that comes here is refused.")
	f.list(place{}, "bind", []item{{g.text(g.bind(bind)), at}})
	f.set(place{}, "acme_challenges", "true")
}

// bind returns an address to listen on as awe4lb writes it.
func (r *run) bind(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return s
	}
	if n, err := net.LookupPort("tcp", port); err == nil && port != "" && strings.Trim(port, "0123456789") != "" {
		port = strconv.Itoa(n) // a name of /etc/services
	}
	switch host {
	case "", "0.0.0.0", "::": // Go and Java listen on both families
		return "*:" + port
	case "localhost":
		return "127.0.0.1:" + port
	}
	return net.JoinHostPort(host, port)
}

// first returns the first of places that is given.
func first(places ...place) place {
	for _, p := range places {
		if p.given() {
			return p
		}
	}
	return place{}
}

// names makes names that awe4lb takes, each once.
type names struct{ taken map[string]bool }

// take returns a name like s of at most most bytes.
func (n *names) take(s string, most int) string {
	if n.taken == nil {
		n.taken = map[string]bool{}
	}
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && (bare(string(r)) || r == '.') {
			return r
		}
		return '-'
	}, s)
	if clean == "" {
		clean = "unnamed"
	}
	name := clean[:min(len(clean), most)]
	for i := 2; n.taken[name]; i++ {
		end := "-" + strconv.Itoa(i)
		name = clean[:min(len(clean), most-len(end))] + end
	}
	n.taken[name] = true
	return name
}

// inherited reads a key of a server, or else of [defaults].
func inherited[T int | time.Duration](s *gobetweenServer, key string, otherwise T) (T, place) {
	if v, at := read(s.t, key, otherwise); at.given() {
		return v, at
	}
	return read(s.defaults, key, otherwise)
}

// oneOf reports whether a word is one of those that a key takes, and notes if it is not.
func (r *run) oneOf(at place, word string, words ...string) bool {
	if slices.Contains(words, word) {
		return true
	}
	r.lost(nil, at, word, "gobetween knows %s", strings.Join(words, ", "))
	return false
}
