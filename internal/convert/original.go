package convert

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// original translates a configuration of the original awe4lb, 0.7 and the shape that it had before (match.and, match.or).
type original struct {
	*run
	names     names // of frontends
	poolNames names
}

const unknownOriginal = "the original awe4lb does not know this key here"

func (o *original) convert(top *table) {
	id, _ := read(top, "id", "")
	description, _ := read(top, "description", "")
	about := ""
	if id != "" || description != "" {
		about = ": " + strings.TrimSpace(id+" "+strconv.Quote(description))
	}
	o.doc.head = []string{
		"awe4lb.toml, made by awe4lb convert from " + o.file + ", a configuration of the original awe4lb" + about + ".",
		"",
		"What was changed or not carried over stands as a comment where it belongs. For every configuration these are other than " +
			"there: a backend is chosen when a client connects, not when it has said something; a connection ends one way at a time " +
			"(half_close_timeout); a backend that refuses is followed by the next (connect_attempts). See docs/migrating.md.",
	}
	a := o.doc.section(place{}, "admin")
	a.comment("Where the original listens too, unless --api-host and --api-port say otherwise.")
	a.set(place{}, "bind", quote("127.0.0.1:7070"))
	d := o.doc.section(place{}, "defaults")
	d.comment("The original has no limit; the default of awe4lb is 10m.")
	d.set(place{}, "idle_timeout", quote("0s"))
	for _, t := range top.subs("servers") {
		o.server(t)
	}
	top.rest(nil, unknownOriginal)
}

// server writes a frontend, with a pool for each match.
func (o *original) server(t *table) {
	id, _ := read(t, "id", "")
	name := o.names.take(cmp.Or(id, "server"), 48)
	if name != id {
		o.changed(nil, t.at, "is called %q here", name)
	}
	f := o.doc.section(t.at, "frontends", name)
	if bind, at := o.socket(t.sub("addr")); at.given() {
		f.list(place{}, "bind", []item{{o.text(o.bind(bind)), at}})
	}
	udp, tls := t.sub("udp"), t.sub("tls")
	if udp != nil {
		f.set(udp.at, "protocol", quote("udp"))
	}
	matches := t.subs("match")
	var certificates []item
	var pools []func()
	var last *table // the first match that takes everything
	for i, m := range matches {
		op, can := o.condition(f, m)
		if last != nil {
			o.lost(f, m.at, what("a match"), "never reached: the one at line %d takes everything", last.at.line)
			op, can = "", false
		}
		if pair := o.certificate(m.sub("tls")); pair.literal != "" && tls != nil {
			certificates = append(certificates, pair)
		} else if pair.literal != "" {
			o.lost(f, pair.from, what("a certificate"), "the server has no tls, so that none is shown")
		}
		if !can {
			continue
		}
		pool := name
		if len(matches) > 1 {
			pool = fmt.Sprintf("%s-%d", name, i+1)
		}
		pool = o.poolNames.take(pool, 64)
		if op == "" {
			last = m
			f.set(m.at, "pool", quote(pool))
		} else {
			r := o.doc.element(m.at, "frontends", name, "routes")
			r.set(m.at, "match", op)
			r.set(m.at, "pool", quote(pool))
		}
		pools = append(pools, func() { o.pool(pool, m, udp != nil) })
	}
	o.tls(name, tls, certificates, udp != nil)
	o.datagrams(name, udp)
	for _, write := range pools {
		write()
	}
	t.rest(nil, unknownOriginal)
}

// socket reads an address.
func (o *original) socket(t *table) (string, place) {
	host, hostAt := read(t, "host", "")
	port, portAt := read(t, "port", 0)
	t.rest(nil, unknownOriginal)
	if t == nil || host == "" || !portAt.given() {
		return "", place{}
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), hostAt
}

// condition returns when a match takes a connection, as an inline table; "" is always. It may be that this cannot be said.
func (o *original) condition(f *section, m *table) (literal string, can bool) {
	op := m.sub("op")
	for _, old := range []struct{ theirs, ours string }{{"and", "all"}, {"or", "any"}} {
		list := m.subs(old.theirs)
		if len(list) == 0 {
			continue
		}
		if literal != "" || op != nil {
			o.lost(f, m.o.get(old.theirs).place, what("conditions"), "one of op, and, or counts")
			continue
		}
		var parts []string
		for _, one := range list {
			part, can := o.op(f, one)
			if !can {
				return "", false
			}
			if part != "" {
				parts = append(parts, part)
			}
		}
		if len(parts) > 0 {
			literal = "{ " + old.ours + " = [" + strings.Join(parts, ", ") + "] }"
		}
	}
	if literal != "" || op == nil {
		return literal, true
	}
	return o.op(f, op)
}

// op returns one operation, on the name, the client's address or both.
func (o *original) op(f *section, t *table) (literal string, can bool) {
	var parts []string
	for _, c := range []struct{ theirs, ours string }{
		{"equals", "sni"}, {"startsWith", "sni_starts_with"}, {"endsWith", "sni_ends_with"}, {"contains", "sni_contains"},
	} {
		if s, at := read(t.sub("sni"), c.theirs, ""); at.given() {
			parts = append(parts, c.ours+" = ["+o.text(s)+"]")
		}
	}
	host := t.sub("host")
	for _, how := range []string{"equals", "startsWith", "endsWith", "contains"} {
		s, at := read(host, how, "")
		if !at.given() {
			continue
		}
		prefix, ok := prefixOf(how, s)
		if !ok {
			o.lost(f, at, s, "a client's address is compared by prefix here, not as text: this match is left out, with its pool")
			return "", false
		}
		parts = append(parts, "source = ["+quote(prefix)+"]")
	}
	t.sub("sni").rest(f, unknownOriginal)
	host.rest(f, unknownOriginal)
	t.rest(f, unknownOriginal)
	if len(parts) == 0 {
		return "", true
	}
	return "{ " + strings.Join(parts, ", ") + " }", true
}

// prefixOf returns the addresses whose text fits, as one prefix, if that is possible.
func prefixOf(how, s string) (string, bool) {
	if ip, err := netip.ParseAddr(s); err == nil && how == "equals" {
		return ip.String(), true
	}
	parts := strings.Split(s, ".")
	if n := len(parts) - 1; how == "startsWith" && n >= 1 && n <= 3 && parts[n] == "" {
		p, err := netip.ParsePrefix(strings.Join(parts[:n], ".") + strings.Repeat(".0", 4-n) + "/" + strconv.Itoa(8*n))
		return p.String(), err == nil
	}
	return "", false
}

// certificate returns a certificate with its key, or nothing.
func (o *original) certificate(t *table) item {
	cert, at := read(t, "certPath", "")
	key, _ := read(t, "keyPath", "")
	if cert == "" {
		return item{}
	}
	pair := "{ cert = " + o.text(cert)
	if key != "" {
		pair += ", key = " + o.text(key)
	}
	return item{pair + " }", at}
}

// tls writes how a server terminates TLS.
func (o *original) tls(name string, t *table, more []item, udp bool) {
	if t == nil || udp {
		if t != nil {
			o.lost(nil, t.at, what("a table"), "a server has udp or tls")
		}
		return
	}
	f := o.doc.section(t.at, "frontends", name, "tls")
	var all []item
	for _, c := range append([]item{o.certificate(t.sub("base"))}, more...) {
		same := func(other item) bool { return other.literal == c.literal }
		if c.literal != "" && !slices.ContainsFunc(all, same) {
			all = append(all, c)
		}
	}
	if len(all) > 0 {
		f.list(t.at, "certificates", all)
	}
	t.sub("base").rest(f, unknownOriginal)
	o.protocols(f, t)
	if list, at := read(t, "ciphers", []string(nil)); len(list) > 0 {
		writeCiphers(o.run, f, t, list, at)
	}
	t.rest(f, unknownOriginal)
}

// protocols writes versions of TLS, which have names of Java.
func (o *original) protocols(f *section, t *table) {
	var all []string
	list, at := read(t, "protocols", []string(nil))
	for i, p := range list {
		v, ok := map[string]string{"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}[p]
		if !ok {
			o.lost(f, t.elem("protocols", i), p, "want TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")
			continue
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return
	}
	f.set(at, "min_version", quote(slices.Min(all)))
	f.set(at, "max_version", quote(slices.Max(all)))
}

// datagrams writes what holds for flows.
func (o *original) datagrams(name string, t *table) {
	if t == nil {
		return
	}
	u := o.doc.section(t.at, "frontends", name, "udp")
	size, at := read(t, "bufferSize", 16384)
	if at.given() {
		o.changed(u, at, "a datagram that is larger is dropped and counted, not cut")
		u.set(at, "buffer_size", strconv.Itoa(size))
	}
	idle, at := read(t, "idleTimeoutMs", 60000)
	if at.given() {
		o.changed(u, at, "counts from the last datagram, not from the first")
	}
	limit := quote(duration(time.Duration(idle) * time.Millisecond))
	u.set(at, "idle_timeout", limit)
	u.comment("The default of 5s would end a flow earlier whose backend does not answer.")
	u.set(at, "unreplied_timeout", limit)
	most, at := read(t, "maxSessions", 4096)
	u.set(at, "max_flows", strconv.Itoa(most))
	t.rest(u, unknownOriginal)
}

// pool writes the pool of a match.
func (o *original) pool(name string, m *table, udp bool) {
	p := o.doc.section(m.at, "pools", name)
	t := m.sub("pool")
	kind, at := read(t, "type", "random")
	policy, known := map[string]string{"random": "random", "roundRobin": "roundrobin", "leastConn": "leastconn", "ipHash": "iphash", "weight": "random"}[kind]
	if !known {
		o.lost(p, at, kind, "the original knows roundRobin, leastConn, ipHash and weight")
		policy = "random"
	}
	if kind == "ipHash" {
		o.changed(p, at, "every backend is used, where the original leaves out the last, and clients move once")
	}
	p.set(at, "policy", quote(policy))
	if kind == "ipHash" && udp {
		p.comment("The original takes the client's port into account for UDP.")
		p.set(at, "hash_key", quote("source_port"))
	}
	var list []backend
	for _, h := range t.subs("hosts") {
		address, at := o.socket(h.sub("addr"))
		weight, _ := read(h, "weight", -1)
		priority, _ := read(h, "priority", -1)
		h.take("state") // what it was when the file was saved
		h.rest(p, unknownOriginal)
		if !at.given() {
			o.lost(p, h.at, what("a table"), "want addr with host and port")
			continue
		}
		list = append(list, backend{address: address, weight: weight, priority: priority, most: -1, at: at})
	}
	o.list(p, name, list, kind == "weight")
	if tls := m.sub("tls"); tls != nil {
		if open, at := read(tls, "open", false); open {
			s := o.doc.section(at, "pools", name, "tls")
			s.comment("open: TLS to the backends, whoever they are.")
			s.set(at, "insecure_skip_verify", "true")
		}
		tls.rest(p, unknownOriginal)
	}
	o.health(name, m.sub("healthCheck"), m.at, udp)
	o.discover(name, m.sub("discover"))
	t.rest(p, unknownOriginal)
	m.rest(p, unknownOriginal)
}

// health writes the check that a match has, which for TCP there always is.
func (o *original) health(pool string, t *table, at place, udp bool) {
	if t == nil && udp {
		return
	}
	if t != nil {
		at = t.at
	}
	h := o.doc.section(at, "pools", pool, "health")
	if exec := t.sub("exec"); exec != nil {
		command, at := read(exec, "command", "")
		args, _ := read(exec, "args", []string(nil))
		h.set(exec.at, "kind", quote("exec"))
		if command != "" {
			h.set(at, "command", o.texts(append([]string{command}, args...)))
		}
		exec.rest(h, unknownOriginal)
	} else {
		h.set(at, "kind", quote("tcp"))
	}
	interval, at := read(t, "intervalMs", 5000)
	h.set(at, "interval", quote(duration(time.Duration(interval)*time.Millisecond)))
	timeout, at := read(t, "timeoutMs", 2500)
	h.set(at, "timeout", quote(duration(time.Duration(timeout)*time.Millisecond)))
	h.comment("One result decides, and there is none before the first.")
	h.set(place{}, "rise", "1")
	h.set(place{}, "fall", "1")
	h.set(place{}, "initial", quote("checking"))
	t.rest(h, unknownOriginal)
}

// discover writes where backends come from. See kinds: what package config does not know becomes a comment.
func (o *original) discover(pool string, t *table) {
	if t == nil {
		return
	}
	d := o.doc.section(t.at, "pools", pool, "discovery")
	text := func(from *table, theirs, ours string) {
		if s, at := read(from, theirs, ""); s != "" {
			d.set(at, ours, o.text(s))
		}
	}
	web, exec, k8s := t.sub("http"), t.sub("exec"), t.sub("k8s")
	switch {
	case web != nil:
		d.set(web.at, "kind", quote("http"))
		if s, at := read(web, "endpoint", ""); s != "" {
			if strings.HasPrefix(s, "https:") {
				o.changed(d, at, "the server's certificate is checked; the original takes any")
			}
			o.url(d, at, s)
		}
		text(web, "format", "format")
		web.rest(d, unknownOriginal)
	case exec != nil:
		d.set(exec.at, "kind", quote("exec"))
		command, at := read(exec, "command", "")
		args, _ := read(exec, "args", []string(nil))
		if command != "" {
			d.set(at, "command", o.texts(append([]string{command}, args...)))
		}
		text(exec, "format", "format")
		exec.rest(d, unknownOriginal)
	case k8s != nil:
		d.set(k8s.at, "kind", quote("kubernetes"))
		o.changed(d, k8s.at, "the certificate of the API is checked; the original takes any")
		text(k8s, "apiUri", "url")
		text(k8s, "tokenPath", "token_file")
		text(k8s, "namespace", "namespace")
		text(k8s, "service", "service")
		if port, at := read(k8s, "port", 0); at.given() {
			d.set(at, "port", quote(strconv.Itoa(port)))
		}
		d.set(k8s.at, "node_port", "true")
		k8s.rest(d, unknownOriginal)
	}
	interval, at := read(t, "intervalMs", 10000)
	d.set(at, "interval", quote(duration(time.Duration(interval)*time.Millisecond)))
	timeout, at := read(t, "timeoutMs", 9900)
	d.set(at, "timeout", quote(duration(time.Duration(timeout)*time.Millisecond)))
	t.rest(d, unknownOriginal)
}
