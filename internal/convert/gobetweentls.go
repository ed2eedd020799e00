package convert

import (
	"slices"
	"strings"

	"awe4lb/tlsbridge"
)

// tls writes how the server terminates TLS, and reports whether it wants certificates by ACME.
func (s *gobetweenServer) tls() (acme bool) {
	t := s.t.sub("tls")
	if s.protocol != "tls" {
		if t != nil {
			s.lost(nil, t.at, what("a table"), "the protocol is %s, so that it has no effect there either", s.protocol)
		}
		return false
	}
	at := s.t.at
	if t != nil {
		at = t.at
	}
	f := s.doc.section(at, "frontends", s.name, "tls")
	cert, certAt := read(t, "cert_path", "")
	key, keyAt := read(t, "key_path", "")
	hosts, hostsAt := read(t, "acme_hosts", []string(nil))
	if cert != "" {
		if s.acme != nil {
			s.changed(f, certAt, "with a table [acme] gobetween never uses this certificate; here it is used")
		}
		pair := "{ cert = " + s.text(cert)
		if key != "" {
			pair += ", key = " + s.text(key)
		}
		f.list(place{}, "certificates", []item{{pair + " }", certAt}})
	} else if keyAt.given() {
		s.lost(f, keyAt, key, "a key without a certificate")
	}
	if len(hosts) > 0 {
		f.set(hostsAt, "acme", s.texts(hosts))
		acme = true
	}
	s.handshake(f, t)
	tickets, at := read(t, "session_tickets", false)
	if !tickets {
		if !at.given() {
			f.comment("gobetween's default, whatever its sample says; that of awe4lb is true.")
		}
		f.set(at, "session_tickets", "false")
	}
	t.rest(f, unknownThere)
	return acme
}

// backendsTLS writes how a pool speaks TLS.
func (s *gobetweenServer) backendsTLS(pool string, list []backend) {
	t := s.t.sub("backends_tls")
	if t == nil {
		return
	}
	if s.udp() {
		s.lost(nil, t.at, what("a table"), "datagrams go as they are; gobetween does not start with this")
		return
	}
	p := s.doc.section(t.at, "pools", pool, "tls")
	ignore, ignoreAt := read(t, "ignore_verify", false)
	ca, caAt := read(t, "root_ca_cert_path", "")
	if ca != "" {
		p.set(caAt, "ca", s.text(ca))
	}
	cert, at := read(t, "cert_path", "")
	if cert != "" {
		p.set(at, "cert", s.text(cert))
	}
	if key, at := read(t, "key_path", ""); key != "" {
		p.set(at, "key", s.text(key))
	}
	s.handshake(p, t)
	if name := onlyName(list); name != "" && !ignore {
		p.comment("gobetween expects a certificate for the name that it connects to.")
		p.set(t.at, "server_name", s.text(name))
	}
	if ignore {
		p.set(ignoreAt, "insecure_skip_verify", "true")
	}
	if tickets, at := read(t, "session_tickets", false); !tickets {
		if !at.given() {
			p.comment("gobetween's default, whatever its sample says; that of awe4lb is true.")
		}
		p.set(at, "session_cache", "false")
	}
	t.rest(p, unknownThere)
}

// versions are gobetween's names of versions. Others mean the default there.
var versions = map[string]string{"tls1": "1.0", "tls1.1": "1.1", "tls1.2": "1.2", "tls1.3": "1.3"}

// handshake writes what tls and backends_tls have in common.
func (s *gobetweenServer) handshake(f *section, t *table) {
	for _, key := range []string{"min_version", "max_version"} {
		v, at := read(t, key, "")
		switch ours, ok := versions[v]; {
		case ok:
			f.set(at, key, quote(ours))
		case v != "":
			s.lost(f, at, v, "an unknown version, which is the default there too")
		}
	}
	if list, at := read(t, "ciphers", []string(nil)); len(list) > 0 {
		writeCiphers(s.run, f, t, list, at)
	}
	if prefer, at := read(t, "prefer_server_ciphers", false); at.given() {
		s.lost(f, at, prefer, "without effect there too, since 0.8.1: Go knows itself which is best")
	}
}

// writeCiphers writes those of list, which t has in ciphers, that can be chosen.
func writeCiphers(r *run, f *section, t *table, list []string, at place) {
	var ok []item
	for i, name := range list {
		if at := t.elem("ciphers", i); slices.Contains(tlsbridge.Ciphers(), name) {
			ok = append(ok, item{r.text(name), at})
		} else {
			r.lost(f, at, name, "%s", whyNotCipher(name))
		}
	}
	if len(ok) > 0 {
		f.list(at, "ciphers", ok)
	}
}

// whyNotCipher returns why a cipher suite cannot be chosen.
func whyNotCipher(name string) string {
	switch {
	case strings.HasPrefix(name, "TLS_AES_") || strings.HasPrefix(name, "TLS_CHACHA20_"):
		return "a suite of TLS 1.3, which always has all of its own"
	case strings.Contains(name, "_RC4_") || strings.Contains(name, "_3DES_") || strings.HasPrefix(name, "TLS_RSA_") || strings.HasSuffix(name, "_CBC_SHA256"):
		return "weak: no forward secrecy, or a broken cipher"
	}
	return "not a suite that can be chosen here"
}
