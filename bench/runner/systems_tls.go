package runner

import "fmt"

// The same systems with TLS towards the clients: three frontends (HTTP, HTTP with the RSA certificate, bulk), TLS 1.2 and
// 1.3 with AES-128-GCM and X25519 only, tickets on, hour-long timeouts of handshakes. The backends are plain.

const tlsSuites = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"

// awe4lbTLSConfig leaves the suites to Go, which prefers AES-128-GCM for clients that do, in TLS 1.3 too.
func awe4lbTLSConfig(p Place) string {
	nice := ""
	if p.TLSNice > 0 {
		nice = fmt.Sprintf("tls_nice = %d\n", p.TLSNice)
	}
	frontend := func(name, bind, pool, cert string) string {
		return fmt.Sprintf(`[frontends.%s]
bind = [%q]
pool = %q
hello_timeout = "10m"
max_handshakes = 0
max_handshakes_per_prefix = 0
[frontends.%s.tls]
certificates = [{ cert = %q }]
curves = ["X25519"]
handshake_timeout = "10m"
`, name, bind, pool, name, cert)
	}
	return fmt.Sprintf(`[log]
level = "warn"
[admin]
bind = %q
[engine]
shards = %d
%s[defaults]
connect_timeout = "10s"
idle_timeout = "1h"
%s%s%s[pools.http]
policy = "roundrobin"
backends = [{ address = %q }]
[pools.bulk]
policy = "roundrobin"
backends = [{ address = %q }]
`, p.Admin, p.Workers, nice, frontend("ecdsa", p.TLS, "http", p.ECDSA), frontend("rsa", p.TLSRSA, "http", p.RSA), frontend("bulk", p.Bulk, "bulk", p.ECDSA),
		p.HTTPBackend[0], p.BulkBackend)
}

func haproxyTLSConfig(p Place) string {
	frontend := func(name, bind, backend, cert string) string {
		return fmt.Sprintf("frontend %s\n    bind %s ssl crt %s\n    default_backend %s\n", name, bind, cert, backend)
	}
	return fmt.Sprintf(`global
    nbthread %d
    maxconn %d
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-bind-ciphers %s
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-curves X25519
defaults
    mode tcp
    backlog 4096
    maxconn %d
    timeout connect 10s
    timeout client 1h
    timeout server 1h
%s%s%sbackend http
    server s %s
backend bulk
    server s %s
`, p.Workers, p.MaxConns, tlsSuites, p.MaxConns, frontend("ecdsa", p.TLS, "http", p.ECDSA), frontend("rsa", p.TLSRSA, "http", p.RSA),
		frontend("bulk", p.Bulk, "bulk", p.ECDSA), p.HTTPBackend[0], p.BulkBackend)
}

func nginxTLSConfig(p Place) string {
	server := func(bind, backend, cert string) string {
		return fmt.Sprintf(`    server {
        listen %s ssl reuseport backlog=4096;
        ssl_certificate %s;
        ssl_certificate_key %s;
        proxy_pass %s;
    }
`, bind, cert, cert, backend)
	}
	return nginxHead(p) + fmt.Sprintf(`events { worker_connections %d; }
stream {
    access_log off;
    tcp_nodelay on;
    proxy_half_close on;
    proxy_connect_timeout 10s;
    proxy_timeout 1h;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers %s;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_ecdh_curve X25519;
    ssl_session_cache shared:bench:20m;
    ssl_session_tickets on;
    ssl_handshake_timeout 10m;
%s%s%s}
`, 2*p.MaxConns, tlsSuites, server(p.TLS, p.HTTPBackend[0], p.ECDSA), server(p.TLSRSA, p.HTTPBackend[0], p.RSA), server(p.Bulk, p.BulkBackend, p.ECDSA))
}
