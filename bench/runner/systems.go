package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Place is where one instance of a system stands: its addresses, and what it may use. Two frontends, HTTP and bulk, each
// with its backend; the same two over TLS, and HTTP a second time with an RSA certificate, when TLS is set; or, when UDP is
// set, that one alone. What a program is measured for is measured in a process for each.
type Place struct {
	Dir         string // for its files
	HTTP, Bulk  string // listen addresses
	HTTPBackend []string
	BulkBackend string
	TLS         string // HTTP over TLS; then HTTP is not used, and Bulk is TLS
	TLSRSA      string // the same with the RSA certificate
	ECDSA, RSA  string // PEM files, certificate and key in one
	TLSNice     int    // awe4lb: engine.tls_nice
	UDP         string
	UDPBackend  string
	FlowTimeout time.Duration // UDP: how long a flow may be idle
	MaxFlows    int           // UDP: one descriptor per flow
	Admin       string        // awe4lb's admin address; "" = off
	AskAt       string        // the admin address that clients of the API turn to; "" = there are none
	Guarded     bool          // awe4lb: with all that protects
	Workers     int           // threads, processes or shards
	MaxConns    int           // what the open-files limit allows: two descriptors per proxied connection
	Modules     string        // nginx: the directory of dynamic modules; "" = stream is built in
}

// System is a proxy that can be measured.
type System struct {
	Name    string
	Kind    string // which of the functions below writes its configuration
	Binary  string
	Version string
	Note    string   // its settings in words, for the report
	For     []family // what it is measured for
	// BulkOnly systems take part in bulk scenarios only: they differ from another system in nothing else.
	BulkOnly bool
	// FloodOnly systems take part in the flood of handshakes only, likewise.
	FloodOnly bool
	TLSNice   int // awe4lb: engine.tls_nice
	// Guarded systems take part where what protects may show, and those that also have Flaps, whose backends change all the
	// time, where that may.
	Guarded, Flaps bool
	// Asked systems have clients of their API meanwhile, and take part where that may show in the traffic.
	Asked bool
	// Elsewhere has the clients of Flaps and Asked turn to the API of another process of the same, which relays nothing: what
	// the traffic feels then is the machine that they share.
	Elsewhere bool
	// FDsPerConn is what one idle proxied connection holds open: 2 sockets, more where pipes are kept.
	FDsPerConn int
}

// kinds maps a kind to the function that prepares an instance: it writes configuration into p.Dir and returns the
// command line. Settings are equal as far as the programs allow: no logs, the same workers and backlog, long timeouts,
// TCP_NODELAY, half-close on. Buffer sizes are each program's own defaults.
var kinds = map[string]func(s System, p Place) (argv, env []string, err error){
	"awe4lb": func(s System, p Place) ([]string, []string, error) {
		if p.Guarded {
			if _, err := guardFiles(p); err != nil {
				return nil, nil, err
			}
		}
		path, err := write(p.Dir, "awe4lb.toml", p.pick(awe4lbConfig, awe4lbUDPConfig, awe4lbTLSConfig))
		return []string{s.Binary, "run", "--config", path}, nil, err
	},
	"haproxy": func(s System, p Place) ([]string, []string, error) {
		path, err := write(p.Dir, "haproxy.cfg", p.pick(func(p Place) string { return haproxyConfig(p, false) }, nil, haproxyTLSConfig))
		return []string{s.Binary, "-db", "-f", path}, nil, err
	},
	"haproxy-splice": func(s System, p Place) ([]string, []string, error) {
		path, err := write(p.Dir, "haproxy-splice.cfg", haproxyConfig(p, true))
		return []string{s.Binary, "-db", "-f", path}, nil, err
	},
	"nginx": func(s System, p Place) ([]string, []string, error) {
		path, err := write(p.Dir, "nginx.conf", p.pick(nginxConfig, nginxUDPConfig, nginxTLSConfig))
		return []string{s.Binary, "-e", filepath.Join(p.Dir, "error.log"), "-p", p.Dir, "-c", path}, nil, err
	},
	"naive": func(s System, p Place) ([]string, []string, error) {
		return []string{s.Binary, "naive", p.HTTP + "=" + p.HTTPBackend[0], p.Bulk + "=" + p.BulkBackend},
			[]string{fmt.Sprintf("GOMAXPROCS=%d", p.Workers)}, nil
	},
	"gobetween": func(s System, p Place) ([]string, []string, error) {
		path, err := write(p.Dir, "gobetween.toml", p.pick(gobetweenConfig, gobetweenUDPConfig, nil))
		return []string{s.Binary, "from-file", path}, []string{fmt.Sprintf("GOMAXPROCS=%d", p.Workers)}, err
	},
	"gost": func(s System, p Place) ([]string, []string, error) {
		return []string{s.Binary, "-L", "tcp://" + p.HTTP + "/" + p.HTTPBackend[0], "-L", "tcp://" + p.Bulk + "/" + p.BulkBackend},
			[]string{fmt.Sprintf("GOMAXPROCS=%d", p.Workers), "GOST_LOGGER_LEVEL=fatal"}, nil
	},
}

// pick writes the configuration for what the place is for.
func (p Place) pick(tcp, udp, tls func(Place) string) string {
	switch {
	case p.UDP != "":
		return udp(p)
	case p.TLS != "":
		return tls(p)
	}
	return tcp(p)
}

func write(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

func awe4lbConfig(p Place) string {
	var backends []string
	for _, b := range p.HTTPBackend {
		backends = append(backends, fmt.Sprintf("{ address = %q }", b))
	}
	guards, tables := "", ""
	if p.Guarded {
		guards, tables = guardFrontend(p, "http"), guardPoolTables("http", "")
	}
	return fmt.Sprintf(`[log]
level = "warn"
[admin]
bind = %q
[engine]
shards = %d
[defaults]
connect_timeout = "10s"
idle_timeout = "1h"
[frontends.http]
bind = [%q]
pool = "http"
%s[frontends.bulk]
bind = [%q]
pool = "bulk"
[pools.http]
policy = "roundrobin"
backends = [%s]
%s[pools.bulk]
policy = "roundrobin"
backends = [{ address = %q }]
`, p.Admin, p.Workers, p.HTTP, guards, p.Bulk, strings.Join(backends, ", "), tables, p.BulkBackend)
}

func haproxyConfig(p Place, splice bool) string {
	option, pipes, conns := "", "", p.MaxConns
	if splice {
		// splice-auto hardly ever engages here (CPU per GB x0.95-1.2 of plain haproxy, 2026-11-22); asked for outright,
		// splicing does (x0.5-0.7). haproxy refuses to start unless connections and pipes fit into the open-files limit.
		option, pipes, conns = "    option splice-request\n    option splice-response\n", "    maxpipes 256\n", p.MaxConns-512
	}
	var servers strings.Builder
	for i, b := range p.HTTPBackend {
		fmt.Fprintf(&servers, "    server s%d %s\n", i, b)
	}
	return fmt.Sprintf(`global
    nbthread %d
    maxconn %d
%sdefaults
    mode tcp
    backlog 4096
    maxconn %d
    timeout connect 10s
    timeout client 1h
    timeout server 1h
%sfrontend http
    bind %s
    default_backend http
frontend bulk
    bind %s
    default_backend bulk
backend http
    balance roundrobin
%sbackend bulk
    server s %s
`, p.Workers, conns, pipes, conns, option, p.HTTP, p.Bulk, servers.String(), p.BulkBackend)
}

// nginxHead is what both protocols have in common.
func nginxHead(p Place) string {
	module, user := "", ""
	if p.Modules != "" {
		module = fmt.Sprintf("load_module %s;\n", filepath.Join(p.Modules, "ngx_stream_module.so"))
	}
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	return fmt.Sprintf(`%s%sdaemon off;
worker_processes %d;
worker_rlimit_nofile %d;
pid %s;
error_log %s crit;
`, module, user, p.Workers, 2*p.MaxConns+100, filepath.Join(p.Dir, "nginx.pid"), filepath.Join(p.Dir, "error.log"))
}

func nginxConfig(p Place) string {
	var servers strings.Builder
	for _, b := range p.HTTPBackend {
		fmt.Fprintf(&servers, "        server %s max_fails=0;\n", b)
	}
	return nginxHead(p) + fmt.Sprintf(`events { worker_connections %d; }
stream {
    access_log off;
    tcp_nodelay on;
    proxy_half_close on;
    proxy_connect_timeout 10s;
    proxy_timeout 1h;
    upstream http {
%s    }
    server {
        listen %s reuseport backlog=4096;
        proxy_pass http;
    }
    server {
        listen %s reuseport backlog=4096;
        proxy_pass %s;
    }
}
`, 2*p.MaxConns, servers.String(), p.HTTP, p.Bulk, p.BulkBackend)
}

func gobetweenConfig(p Place) string {
	server := func(name, bind, backend string) string {
		return fmt.Sprintf(`[servers.%s]
bind = %q
protocol = "tcp"
balance = "roundrobin"
max_connections = %d
client_idle_timeout = "1h"
backend_idle_timeout = "1h"
backend_connection_timeout = "10s"
[servers.%s.discovery]
kind = "static"
static_list = [%q]
`, name, bind, p.MaxConns, name, backend)
	}
	return "[logging]\nlevel = \"error\"\n[api]\nenabled = false\n" +
		server("http", p.HTTP, p.HTTPBackend[0]) + server("bulk", p.Bulk, p.BulkBackend)
}
