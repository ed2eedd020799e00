//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestPostgresTLS has psql and pgbench ask for TLS in PostgreSQL's way, before two PostgreSQLs with a certificate and a
// password each: by name and passed through, terminated, encrypted again, and only towards the backend.
func TestPostgresTLS(t *testing.T) {
	ca := lbtest.NewCA(t)
	ports := map[string]int{}
	for _, name := range []string{"orders", "stock"} {
		cert, key := ca.Issue(lbtest.Leaf{Names: []string{name + ".test"}})
		// Who proves by a password is bound to the backend's certificate where there is TLS from end to end.
		ports[name], _ = startPostgresAs(t, "host all guarded 127.0.0.1/32 scram-sha-256", append(cert, key...), "cluster_name="+name,
			"ssl=on", "ssl_cert_file=CERT", "ssl_key_file=CERT")
	}
	lb := start(t, fmt.Sprintf(`
[frontends.through]
bind = ["127.0.0.1:0"]
starttls = "postgres"
unknown_name = "reject"
[[frontends.through.routes]]
match = { sni = ["orders.test"] }
pool = "orders"
[[frontends.through.routes]]
match = { sni = ["stock.test", "*.stock.test"] }
pool = "stock"

[frontends.ended]
bind = ["127.0.0.1:0"]
starttls = "postgres"
pool = "orders"
tls = { certificates = [ { cert = %[1]q } ] }

[frontends.again]
bind = ["127.0.0.1:0"]
starttls = "postgres"
pool = "encrypted"
tls = { certificates = [ { cert = %[1]q } ] }

[frontends.begun]
bind = ["127.0.0.1:0"]
pool = "encrypted"

[pools.orders]
backends = [ { address = "127.0.0.1:%[3]d" } ]

[pools.stock]
backends = [ { address = "127.0.0.1:%[4]d" } ]

[pools.encrypted]
backends = [ { address = "127.0.0.1:%[3]d" } ]
tls = { server_name = "orders.test", ca = %[2]q, starttls = "postgres" }
`, pairFile(t, ca, "front.test"), lbtest.Files(t, "ca.pem", ca.PEM), ports["orders"], ports["stock"]))

	// to is how libpq is told to connect. It sends host as SNI.
	to := func(frontend, host, mode string) string {
		return fmt.Sprintf("host=%s hostaddr=127.0.0.1 port=%s dbname=postgres user=postgres sslmode=%s sslrootcert=%s", host,
			lb.port(frontend), mode, lbtest.Files(t, "ca.pem", ca.PEM))
	}
	ask := func(t *testing.T, to, question string) string {
		t.Helper()
		return strings.TrimSpace(run(t, "psql", "-At", "-c", question, to))
	}
	const who = "select current_setting('cluster_name'), ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
	for _, name := range []string{"orders", "stock"} {
		direct := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=postgres", ports[name])
		ask(t, direct, "create role guarded login superuser password 'secret'")
		run(t, "pgbench", "-i", "-q", direct)
	}

	for _, test := range []struct{ frontend, host, mode, want string }{
		{"through", "orders.test", "verify-full", "orders|t|TLSv1.3"},
		{"through", "stock.test", "verify-full", "stock|t|TLSv1.3"},
		{"through", "a.stock.test", "require", "stock|t|TLSv1.3"},
		{"ended", "front.test", "verify-full", "orders|f|"},
		{"ended", "other.test", "require", "orders|f|"},
		{"again", "front.test", "verify-full", "orders|t|TLSv1.3"},
		{"begun", "127.0.0.1", "disable", "orders|t|TLSv1.3"},
	} {
		t.Run(test.frontend+", "+test.host+", sslmode="+test.mode, func(t *testing.T) {
			conn := to(test.frontend, test.host, test.mode)
			if got := ask(t, conn, who); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if test.mode == "require" {
				return
			}
			// 20 MB of answer.
			if got, want := ask(t, conn, "select repeat('0123456789', 2000000)"), strings.Repeat("0123456789", 2000000); got != want {
				t.Errorf("%d bytes that are not the 20 MB asked for", len(got))
			}
			pgbench(t, "-c", "8", "-j", "2", "-t", "50", conn)
			pgbench(t, "-S", "-C", "-c", "8", "-j", "2", "-t", "5", conn)
		})
	}

	guarded := func(conn, binding string) string {
		return strings.Replace(conn, "user=postgres", "user=guarded password=secret", 1) + " channel_binding=" + binding
	}
	for _, test := range []struct{ frontend, host, binding string }{
		{"through", "orders.test", "require"}, // nobody is in between
		{"ended", "front.test", "prefer"},     // the backend has no TLS that could be bound to
		{"again", "front.test", "disable"},
	} {
		t.Run("password, "+test.frontend, func(t *testing.T) {
			if got := ask(t, guarded(to(test.frontend, test.host, "verify-full"), test.binding), "select current_user"); got != "guarded" {
				t.Errorf("got %q", got)
			}
		})
	}

	const wantsTLS = "FATAL:  awe4lb: this address wants TLS (sslmode=require)"
	for name, test := range map[string]struct{ conn, want string }{
		"an unknown name":         {to("through", "bills.test", "require"), "tlsv1 unrecognized name"},
		"no TLS, by name":         {to("through", "orders.test", "disable"), wantsTLS},
		"no TLS, where it ends":   {to("ended", "front.test", "disable"), wantsTLS},
		"another's certificate":   {to("through", "a.stock.test", "verify-full"), `server certificate for "stock.test" does not match host name "a.stock.test"`},
		"a password bound to us":  {guarded(to("again", "front.test", "require"), "prefer"), "SCRAM channel binding check failed"},
		"TLS where there is none": {to("begun", "127.0.0.1", "require"), "SSL"},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			p := launch(t, nil, "psql", "-c", "select 1", test.conn)
			lbtest.EventuallyIn(t, 20*time.Second, "psql has ended", p.ended)
			if code := p.cmd.ProcessState.ExitCode(); code != 2 || !p.out.has(test.want) {
				t.Errorf("exit code %d, want 2, and %q; psql said:\n%s", code, test.want, p.out)
			}
		})
	}
}
