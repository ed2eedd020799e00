package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// table is one kind of table that a file may hold.
type table struct {
	label string // as messages write it: [log.access], [[frontends.NAME.routes]]; "" is the top of the file
	typ   reflect.Type
}

// tables lists every kind of table, in the order of config.go.
var tables = sync.OnceValue(func() []table {
	var all []table
	var walk func(path string, t reflect.Type, array bool)
	walk = func(path string, t reflect.Type, array bool) {
		label := ""
		switch {
		case array:
			label = "[[" + path + "]]"
		case path != "":
			label = "[" + path + "]"
		}
		all = append(all, table{label, t})
		for _, f := range keysOf(t) {
			inside := joinKey(path, f.key)
			switch ft := f.field.Type; {
			case ft == reflect.TypeFor[*Match](), ft == reflect.TypeFor[[]*Match](): // in itself: once is enough
			case ft.Kind() == reflect.Struct && !isValue(ft):
				walk(inside, ft, false)
			case ft.Kind() == reflect.Pointer:
				walk(inside, ft.Elem(), false)
			case ft.Kind() == reflect.Slice && isNamed(ft.Elem()):
				walk(inside+".NAME", ft.Elem().Elem(), false)
			case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Pointer:
				walk(inside, ft.Elem().Elem(), true)
			}
		}
	}
	walk("", reflect.TypeFor[Config](), false)
	for _, name := range slices.Sorted(maps.Keys(sourceKinds)) {
		all = append(all, table{kindLabel(name), sourceKinds[name].options})
	}
	all = append(all, table{"[pools.NAME.discovery.paths]", reflect.TypeFor[ListPaths]()})
	return all
})

// kindLabel is the label of the keys that go with a kind of source.
func kindLabel(kind string) string { return `[pools.NAME.discovery] with kind = "` + kind + `"` }

// secretKeys lists the keys whose values are never printed.
var secretKeys = sync.OnceValue(func() []string {
	var keys []string
	for _, tb := range tables() {
		for _, k := range keysOf(tb.typ) {
			if k.field.Tag.Get("secret") != "" && !slices.Contains(keys, k.key) {
				keys = append(keys, k.key)
			}
		}
	}
	return keys
})

// elsewhere are the words that other balancers use for our keys.
var elsewhere = map[reflect.Type]map[string]string{
	reflect.TypeFor[Config](): {"backends": "pools", "upstreams": "pools", "listeners": "frontends", "global": "engine"},
	reflect.TypeFor[Engine](): {"workers": "shards", "threads": "shards", "nbthread": "shards", "maxconn": "max_connections"},
	reflect.TypeFor[Frontend](): {
		"address": "bind", "addresses": "bind", "listen": "bind", "port": "bind", "default_backend": "pool", "backend": "pool",
		"upstream": "pool", "maxconn": "max_connections", "timeout": "idle_timeout", "rules": "routes", "mode": "protocol",
		"accept_proxy": "proxy_protocol", "ssl": "tls", "unexpected_hostname_strategy": "unknown_name",
	},
	reflect.TypeFor[FrontendTLS](): {
		"cert": "certificates", "key": "certificates", "crt": "certificates", "cert_path": "certificates", "key_path": "certificates",
		"ca": "client_ca", "verify": "client_auth", "domains": "acme", "hosts": "acme", "prefer_server_ciphers": "ciphers", "ecdh_curves": "curves",
	},
	reflect.TypeFor[CertificateFiles](): {"crt": "cert", "certificate": "cert", "chain": "cert", "private_key": "key", "names": "self_signed"},
	reflect.TypeFor[Access]():           {"rule": "rules", "policy": "default"},
	reflect.TypeFor[AccessRule]():       {"source": "allow", "block": "deny", "reject": "deny", "blacklist": "deny", "whitelist": "allow", "file": "deny_file"},
	reflect.TypeFor[PoolTLS](): {
		"sni": "server_name", "verifyhost": "server_name", "root_ca": "ca", "root_ca_cert_path": "ca", "client_cert": "cert", "certificate": "cert",
		"client_key": "key", "ignore_verify": "insecure_skip_verify", "insecure": "insecure_skip_verify",
	},
	reflect.TypeFor[ACME](): {"url": "directory", "server": "directory", "cache_dir": "storage", "agree_tos": "agree"},
	reflect.TypeFor[UDP](): {
		"timeout": "idle_timeout", "ttl": "idle_timeout", "max_sessions": "max_flows", "max_connections": "max_flows",
		"buffer": "buffer_size", "proxy_timeout": "idle_timeout", "proxy_requests": "max_requests", "proxy_responses": "max_responses",
	},
	reflect.TypeFor[Pool](): {
		"servers": "backends", "server": "backends", "upstreams": "backends", "targets": "backends", "nodes": "backends",
		"members": "backends", "balance": "policy", "algorithm": "policy", "strategy": "policy", "retries": "connect_attempts",
		"bind": "source", "timeout": "connect_timeout", "slowstart": "slow_start", "warmup": "slow_start", "hash": "hash_key", "key": "hash_key",
	},
	reflect.TypeFor[Health](): {
		"type": "kind", "protocol": "kind", "inter": "interval", "fastinter": "interval_down", "passes": "rise", "fails": "fall",
		"healthy_threshold": "rise", "unhealthy_threshold": "fall", "initial_status": "initial", "expected_status": "status", "url": "path",
		"uri": "path", "exec_command": "command", "args": "command", "probe_send": "send", "probe_recv": "expect", "recv": "expect", "receive": "expect",
		"exec_expected_positive_output": "output_up", "exec_expected_negative_output": "output_down", "sni": "server_name",
		"expected_body": "body", "service_name": "service", "authority": "host", "header": "headers",
	},
	reflect.TypeFor[Discovery](): {
		"type": "kind", "failpolicy": "on_failure", "fail_policy": "on_failure", "timeout_ms": "timeout", "interval_ms": "interval", "source": "sources",
		"lookup_server": "servers", "lookup_pattern": "name", "exec_command": "command", "http_endpoint": "url", "endpoint": "url", "hosts": "sources",
	},
	reflect.TypeFor[Backend](): {"addr": "address", "host": "address", "url": "address", "server": "address", "maxconn": "max_connections"},
	reflect.TypeFor[Match](): {"src": "source", "ip": "source", "client": "source", "cidr": "source", "server_name": "sni", "hostname": "sni", "host": "sni",
		"or": "any", "and": "all", "protocols": "alpn"},
}

// unknownKey fills in what can be said about a key that the table t does not have.
func unknownKey(key string, t reflect.Type) Error {
	e := Error{Problem: "unknown key"}
	keys := keyNames(t)
	ours, translated := elsewhere[t][key]
	near, found := nearest(key, keys), homes()[key]
	switch top := t == reflect.TypeFor[Config](); {
	case translated:
		e.Hint = "here it is " + quote(ours)
	case len(found) > 0 && !(top && near != ""):
		e.Hint = "belongs to " + list(found, "or")
	case near != "":
		e.Hint = didYouMean(near)
	default:
		e.Want = list(keys, "or")
	}
	return e
}

// homes are the tables that have a key, by key: a file of nothing but wrong keys asks for each.
var homes = sync.OnceValue(func() map[string][]string {
	const top = "the top of the file"
	labels := map[string][]string{}
	for _, tb := range tables() {
		for _, k := range keysOf(tb.typ) {
			key := k.key
			switch {
			case slices.Contains(labels[key], tb.label) || slices.Contains(labels[key], top):
			case tb.label == "":
				labels[key] = []string{top}
			case tb.label == "[pools.NAME.tcp]" && key == "backlog":
			case tb.typ == reflect.TypeFor[Health]() && key == "port": // who asks for a port means an address to listen on or to connect to
			case strings.Contains(tb.label, " with kind ") || tb.typ == reflect.TypeFor[ListPaths](): // such words mean something else there
			default:
				labels[key] = append(labels[key], tb.label)
			}
		}
	}
	return labels
})

// quoted wraps each word in quotes of its own.
func quoted(words []string) []string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = quote(w)
	}
	return q
}

func didYouMean(word string) string { return "did you mean " + quote(word) + "?" }

// nearest returns the word that s was surely meant to be, or "" when none is near: one begins the other, or at most a
// third of the letters are wrong.
func nearest(s string, words []string) string {
	s = fold(s)
	if len(s) > maxShown || len(words) > 1000 {
		return ""
	}
	best, least := "", maxShown
	for _, w := range words {
		if len(w) > maxShown {
			continue
		}
		folded := fold(w)
		most := max(1, len(w)/3)
		d := most + 1
		if len(s) >= 3 && strings.HasPrefix(folded, s) || len(w) >= 3 && strings.HasPrefix(s, folded) {
			d = 1
		}
		if n := len(s) - len(folded); max(n, -n) <= most {
			d = min(d, editDistance(s, folded))
		}
		if d < least && d <= most && d < len(s) {
			best, least = w, d
		}
	}
	return best
}

// fold makes words alike that people mix up.
func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// editDistance counts the letters to insert, delete, replace or swap with their neighbour to make b of a. Method:
// optimal string alignment, bytes for letters.
func editDistance(a, b string) int {
	before := make([]int, len(b)+1) // the row two above
	above := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
