package convert

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// gobetweenDiscovery is a discovery table whose kind is not static.
type gobetweenDiscovery struct {
	*gobetweenServer
	t    *table
	kind string
}

// key says what becomes of a key of gobetween's discovery.
type key struct {
	theirs string
	ours   string // "" = there is no equal
	write  func(d *gobetweenDiscovery, s *section, k key)
	why    string // there is no equal because
}

// kinds are the kinds of discovery with their keys. What awe4lb does not know of these, package config refuses, and so it
// becomes a comment: a kind or a key that it learns is mapped from then on.
var kinds = map[string]struct {
	ours    string
	changed string
	keys    []key
}{
	"srv": {"srv", "answers hold as long as their TTL says; failures keep what was found", []key{
		{theirs: "srv_lookup_pattern", ours: "name"},
		{theirs: "srv_lookup_server", ours: "servers", write: writeOne},
		{theirs: "srv_dns_protocol", why: "UDP is asked, and TCP when an answer does not fit"},
	}},
	"json": {"http", "the answer has to have status 200, which gobetween does not look at", []key{
		{theirs: "json_endpoint", ours: "url", write: writeURL},
		{ours: "format", write: fixed("json")},
		{theirs: "json_host_pattern", ours: "paths", write: writePaths},
		{theirs: "json_port_pattern", ours: "paths", write: ignore},
		{theirs: "json_weight_pattern", ours: "paths.weight"},
		{theirs: "json_priority_pattern", ours: "paths.priority"},
		{theirs: "json_sni_pattern", ours: "paths.sni"},
		{theirs: "json_max_connections_pattern", ours: "paths.max_connections"},
	}},
	"plaintext": {"http", "the answer has to have status 200, which gobetween does not look at", []key{
		{theirs: "plaintext_endpoint", ours: "url", write: writeURL},
		{ours: "format", write: fixed("text")},
		{ours: "lenient", write: set("true")},
		{theirs: "plaintext_regex_pattern", ours: "line"},
	}},
	"exec": {"exec", "the program gets no environment, and its path is absolute", []key{
		{theirs: "exec_command", ours: "command", write: writeList},
		{ours: "lenient", write: set("true")},
	}},
	"docker": {"docker", "changes come at once, by events", []key{
		{theirs: "docker_endpoint", ours: "url", write: writeDockerURL},
		{theirs: "docker_container_label", ours: "labels", write: writeOne},
		{theirs: "docker_container_private_port", ours: "port", write: writeInt},
		{ours: "published", write: set("true")},
		{theirs: "docker_container_host_env_var", ours: "host_env"},
		{ours: "sni_label", write: fixed("sni")},
		{theirs: "docker_tls_enabled", write: ignore},
		{theirs: "docker_tls_cert_path", ours: "cert", write: writeTLS},
		{theirs: "docker_tls_key_path", ours: "key", write: writeTLS},
		{theirs: "docker_tls_cacert_path", ours: "ca", write: writeTLS},
	}},
	"consul": {"consul", "changes come at once, by blocking queries", []key{
		{theirs: "consul_host", ours: "url", write: writeConsulURL},
		{theirs: "consul_service_name", ours: "service"},
		{theirs: "consul_service_tag", ours: "tags", write: writeOne},
		{theirs: "consul_service_passing_only", write: func(d *gobetweenDiscovery, s *section, k key) {
			if only, at := read(d.t, k.theirs, false); !only {
				d.changed(s, first(at, d.t.at), "instances whose checks warn get clients, those whose checks fail never do")
				s.set(at, "warning", "true")
			}
		}},
		{theirs: "consul_datacenter", ours: "datacenter"},
		{theirs: "consul_service_datacenter", why: "gobetween's sample calls it so, but it only knows consul_datacenter"},
		{theirs: "consul_acl_token", ours: "token"},
		{theirs: "consul_auth_username", why: "Consul has no such login; a proxy before it would"},
		{theirs: "consul_auth_password", why: "Consul has no such login; a proxy before it would"},
		{theirs: "consul_tls_enabled", write: ignore},
		{theirs: "consul_tls_cert_path", ours: "cert", write: writeTLS},
		{theirs: "consul_tls_key_path", ours: "key", write: writeTLS},
		{theirs: "consul_tls_cacert_path", ours: "ca", write: writeTLS},
	}},
	"lxd": {"lxd", "changes come at once, by events", []key{
		{theirs: "lxd_server_address", ours: "url"},
		{theirs: "lxd_server_remote_name", why: "certificates are given by path"},
		{theirs: "lxd_server_remote_password", ours: "password"},
		{theirs: "lxd_config_directory", why: "certificates are given by path, in cert and key"},
		{theirs: "lxd_generate_client_certs", why: "awe4lb cert self-signed makes one"},
		{theirs: "lxd_accept_server_cert", why: "the server's certificate is given by its fingerprint or its authority"},
		{theirs: "lxd_container_label_key", ours: "config_key"},
		{theirs: "lxd_container_label_value", ours: "config_value"},
		{theirs: "lxd_container_port", ours: "port", write: writeInt},
		{theirs: "lxd_container_port_key", ours: "port_key"},
		{theirs: "lxd_container_interface", ours: "interface"},
		{theirs: "lxd_container_interface_key", ours: "interface_key"},
		{theirs: "lxd_container_sni_key", ours: "sni_key"},
		{theirs: "lxd_container_address_type", ours: "family", write: func(d *gobetweenDiscovery, s *section, k key) {
			if kind, at := read(d.t, k.theirs, "IPv4"); d.oneOf(at, kind, "IPv4", "IPv6") && kind == "IPv6" {
				s.set(at, k.ours, quote("ipv6"))
			}
		}},
	}},
}

// discovery reads where backends come from: a static list, or what it returns.
func (s *gobetweenServer) discovery() *gobetweenDiscovery {
	t := s.t.sub("discovery")
	if t == nil {
		return nil
	}
	kind, at := read(t, "kind", "")
	if kind == "static" {
		list, _ := read(t, "static_list", []string(nil))
		for i, text := range list {
			at := t.elem("static_list", i)
			if b, ok := parseBackend(text, at); ok {
				s.backends = append(s.backends, b)
			} else {
				s.lost(nil, at, text, "want HOST:PORT[ weight=N][ priority=N][ max_connections=N][ sni=NAME]")
			}
		}
		for _, key := range []string{"failpolicy", "interval", "timeout"} {
			t.take(key) // nothing is fetched
		}
		t.rest(nil, "not for kind static")
		return nil
	}
	if _, known := kinds[kind]; !known {
		s.lost(s.front, first(at, t.at), kind, "gobetween knows static, srv, docker, json, exec, plaintext, consul and lxd")
		return nil
	}
	return &gobetweenDiscovery{s, t, kind}
}

// write writes the table of a pool.
func (d *gobetweenDiscovery) write(pool string) {
	s := d.doc.section(d.t.at, "pools", pool, "discovery")
	k := kinds[d.kind]
	_, at := read(d.t, "kind", "")
	if k.changed != "" {
		d.changed(s, at, "%s", k.changed)
	}
	s.set(at, "kind", quote(k.ours))
	for _, key := range k.keys {
		switch {
		case key.write != nil:
			if key.theirs == "" || d.t.has(key.theirs) {
				key.write(d, s, key)
			}
		case key.ours == "":
			if v := d.t.take(key.theirs); v != nil && v.raw != nil {
				d.lost(s, v.place, v.raw, "%s", key.why)
			}
		default:
			if text, at := read(d.t, key.theirs, ""); text != "" {
				s.set(at, key.ours, d.text(text))
			}
		}
	}
	d.common(s)
	d.t.rest(s, "not for kind "+d.kind)
}

// common writes what every kind has.
func (d *gobetweenDiscovery) common(s *section) {
	interval, at := read(d.t, "interval", time.Duration(0))
	switch {
	case interval > 0:
		s.set(at, "interval", quote(duration(interval)))
	case d.kind != "srv" && d.kind != "consul" && d.kind != "docker" && d.kind != "lxd":
		d.changed(s, first(at, d.t.at), "without an interval gobetween asks once, at the start; here the default is 10s")
	}
	timeout, at := read(d.t, "timeout", time.Duration(0))
	if timeout > 0 {
		s.set(at, "timeout", quote(duration(timeout)))
	} else if at.given() {
		d.lost(s, at, timeout, "a question always has a limit")
	}
	fail, at := read(d.t, "failpolicy", "keeplast")
	if d.oneOf(at, fail, "keeplast", "setempty") && fail == "setempty" {
		s.set(at, "on_failure", quote("empty"))
	}
}

// fixed writes a word that gobetween's kind implies.
func fixed(word string) func(*gobetweenDiscovery, *section, key) {
	return func(_ *gobetweenDiscovery, s *section, k key) { s.set(place{}, k.ours, quote(word)) }
}

// set writes what gobetween's kind implies.
func set(literal string) func(*gobetweenDiscovery, *section, key) {
	return func(_ *gobetweenDiscovery, s *section, k key) { s.set(place{}, k.ours, literal) }
}

func ignore(d *gobetweenDiscovery, _ *section, k key) { d.t.take(k.theirs) }

func writeList(d *gobetweenDiscovery, s *section, k key) {
	if list, at := read(d.t, k.theirs, []string(nil)); len(list) > 0 {
		s.set(at, k.ours, d.texts(list))
	}
}

// writeOne writes a word as an array of one.
func writeOne(d *gobetweenDiscovery, s *section, k key) {
	if text, at := read(d.t, k.theirs, ""); text != "" {
		s.set(at, k.ours, d.texts([]string{text}))
	}
}

func writeInt(d *gobetweenDiscovery, s *section, k key) {
	if n, at := read(d.t, k.theirs, 0); at.given() {
		s.set(at, k.ours, fmt.Sprint(n))
	}
}

// writeConsulURL makes a URL of a host.
func writeConsulURL(d *gobetweenDiscovery, s *section, k key) {
	host, at := read(d.t, k.theirs, "")
	if host == "" {
		return
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host += ":8500"
	}
	scheme := "http"
	if d.tls() {
		scheme = "https"
	}
	s.set(at, k.ours, d.text(scheme+"://"+host))
}

// writeDockerURL writes where a daemon is. By TLS gobetween speaks it whatever the scheme; here http has none. Without TLS it
// speaks none with tcp, and one without a scheme is of tcp.
func writeDockerURL(d *gobetweenDiscovery, s *section, k key) {
	text, at := read(d.t, k.theirs, "")
	if text == "" {
		return
	}
	if !strings.Contains(text, "://") {
		text = "tcp://" + text
	}
	scheme, rest, _ := strings.Cut(text, "://")
	switch tls := d.tls(); {
	case tls && scheme != "unix":
		text = "https://" + rest
	case !tls && scheme == "tcp":
		text = "http://" + rest
	}
	s.set(at, k.ours, d.text(text))
}

// tls reports whether what knows the backends is asked by TLS.
func (d *gobetweenDiscovery) tls() bool {
	on, _ := read(d.t, d.kind+"_tls_enabled", false)
	return on
}

// writeTLS writes the path of a certificate or key, at which gobetween looks only when TLS is enabled.
func writeTLS(d *gobetweenDiscovery, s *section, k key) {
	text, at := read(d.t, k.theirs, "")
	switch {
	case text == "":
	case d.tls():
		s.set(at, k.ours, d.text(text))
	default:
		d.lost(s, at, text, "gobetween does not look at it without %s_tls_enabled", d.kind)
	}
}

// writeURL writes where an HTTP server is. awe4lb asks this machine only if it is told that it may.
func writeURL(d *gobetweenDiscovery, s *section, k key) {
	if text, at := read(d.t, k.theirs, ""); text != "" {
		d.url(s, at, text)
	}
}

// url writes the keys that say which HTTP server to ask.
func (r *run) url(s *section, at place, text string) {
	s.set(at, "url", r.text(text))
	u, err := url.Parse(text)
	if err != nil {
		return
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
		s.comment("This machine is asked only where that is said.")
		s.set(at, "allow", r.texts([]string{"127.0.0.0/8", "::1"}))
	}
}

// writePaths writes where host and port are: both or neither.
func writePaths(d *gobetweenDiscovery, s *section, k key) {
	for _, name := range []string{"host", "port"} {
		text, at := read(d.t, "json_"+name+"_pattern", name)
		s.set(at, k.ours+"."+name, d.text(text))
	}
}
