//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// browser is curl that trusts a CA and finds every name at one address.
type browser struct {
	t      *testing.T
	always []string
}

func newBrowser(t *testing.T, ca []byte, address string) browser {
	return browser{t, []string{"--silent", "--show-error", "--fail", "--max-time", "30", "--cacert", lbtest.Files(t, "ca.pem", ca),
		"--connect-to", "::" + address}}
}

// get is what curl says, which must end well.
func (b browser) get(args ...string) string {
	b.t.Helper()
	return run(b.t, "curl", append(b.always, args...)...)
}

// fail is curl's exit code where it must not.
func (b browser) fail(args ...string) int {
	b.t.Helper()
	_, code := runWith(b.t, nil, "curl", append(b.always, args...)...)
	return code
}

// curl's exit codes.
const (
	curlHandshake  = 35 // failed, by an alert of the server
	curlReset      = 56 // while it read
	curlDistrusts  = 60 // the server's certificate
	curlNoProtocol = 52 // nothing came
)

// TestTerminateBeforeNginx: what curl and awe4lb agree on by ALPN is what nginx speaks, HTTP/2 without TLS for one.
func TestTerminateBeforeNginx(t *testing.T) {
	ca, files := lbtest.NewCA(t), openDir(t)
	server := fmt.Sprintf(`
				location = / { default_type text/plain; return 200 "$server_protocol$https"; }
				location /files/ { alias %s/; dav_methods PUT; }`, files)
	h2, h1 := startWebAs(t, "h2", "http2", server), startWebAs(t, "h1", "", server)
	lb := start(t, fmt.Sprintf(`
[frontends.test]
bind = ["127.0.0.1:0"]
pool = "h1"
unknown_name = "reject"

[[frontends.test.routes]]
match = { alpn = ["h2"] }
pool = "h2"

[frontends.test.tls]
certificates = [ { cert = %q }, { cert = %q } ]
alpn = ["h2", "http/1.1"]

[pools.h1]
backends = [ { address = %q } ]

[pools.h2]
backends = [ { address = %q } ]
`, pairFile(t, ca, "a.test"), pairFile(t, ca, "*.b.test"), h1.address, h2.address))
	curl := newBrowser(t, ca.PEM, lb.address("test"))
	const bytes = 20 << 20
	sent := sample(t, files, "big", bytes)

	for _, version := range []string{"1.2", "1.3"} {
		for option, want := range map[string]string{"--http2": "HTTP/2.0", "--http1.1": "HTTP/1.1", "--no-alpn": "HTTP/1.1"} {
			t.Run("TLS "+version+", "+option, func(t *testing.T) {
				curl := browser{t, append(curl.always, "--tls-max", version, option)}
				if got := curl.get("https://a.test/"); got != want {
					t.Errorf("nginx was spoken to in %q, want %q", got, want)
				}
				if got := curl.get("--write-out", " %{num_connects} ", "https://one.b.test/", "https://one.b.test/"); got != want+" 1 "+want+" 0 " {
					t.Errorf("got %q; want one connection for two requests", got)
				}
				got := filepath.Join(t.TempDir(), "got")
				curl.get("--output", got, "https://one.b.test/files/big")
				curl.get("--upload-file", sent, "https://one.b.test/files/up"+version+option)
				if sha256Of(t, got) != sha256Of(t, sent) {
					t.Error("what came is not what nginx has")
				}
				if sha256Of(t, filepath.Join(files, "up"+version+option)) != sha256Of(t, sent) {
					t.Error("what nginx has is not what was sent")
				}
			})
		}
	}
	t.Run("names without a certificate", func(t *testing.T) {
		for _, name := range []string{"c.test", "two.one.b.test", "b.test", "127.0.0.1"} {
			if code := curl.fail("https://" + name + "/"); code != curlHandshake {
				t.Errorf("%s: curl ended with %d, want %d", name, code, curlHandshake)
			}
		}
	})
	t.Run("without TLS", func(t *testing.T) {
		if code := curl.fail("http://a.test/"); code != curlReset && code != curlNoProtocol {
			t.Errorf("curl ended with %d, want %d or %d", code, curlReset, curlNoProtocol)
		}
		if n := lb.frontend("test").Ended["not_tls"]; n != 1 {
			t.Errorf("%d ended for not_tls, want 1", n)
		}
	})
}

// TestReencryptBeforeNginx: nginx wants a certificate of ours, and both ends keep to HTTP/2.
func TestReencryptBeforeNginx(t *testing.T) {
	ca, inner, files := lbtest.NewCA(t), lbtest.NewCA(t), openDir(t)
	pair := pairFile(t, inner, "web.internal")
	web := startWebAs(t, "nginx", "ssl http2", fmt.Sprintf(`
				ssl_certificate %[1]s;
				ssl_certificate_key %[1]s;
				ssl_client_certificate %[2]s;
				ssl_verify_client on;
				ssl_protocols TLSv1.2 TLSv1.3;
				ssl_session_cache shared:tls:1m;
				location = / { default_type text/plain; return 200 "$server_protocol $ssl_protocol $ssl_server_name $ssl_client_s_dn $ssl_session_reused"; }
				location /files/ { alias %[3]s/; dav_methods PUT; }`, pair, lbtest.Files(t, "inner.pem", inner.PEM), files))
	var config strings.Builder
	fmt.Fprintf(&config, "[engine]\nshards = 1\n") // resumes what it began
	for _, version := range []string{"1.2", "1.3"} {
		fmt.Fprintf(&config, `
[frontends."%[1]s"]
bind = ["127.0.0.1:0"]
pool = "%[1]s"

[frontends."%[1]s".tls]
certificates = [ { cert = %[2]q } ]
alpn = ["h2", "http/1.1"]

[pools."%[1]s"]
backends = [ { address = %[3]q } ]

[pools."%[1]s".tls]
server_name = "web.internal"
ca = %[4]q
cert = %[5]q
max_version = "%[1]s"
`, version, pairFile(t, ca, "front.test"), web.address, lbtest.Files(t, "inner.pem", inner.PEM), pairFile(t, inner, "balancer"))
	}
	lb := start(t, config.String())
	sent := sample(t, files, "big", 20<<20)
	for _, version := range []string{"1.2", "1.3"} {
		curl := newBrowser(t, ca.PEM, lb.address(version))
		for i, reused := range []string{".", "r"} {
			if got, want := curl.get("https://front.test/"), "HTTP/2.0 TLSv"+version+" web.internal CN=balancer "+reused; got != want {
				t.Errorf("request %d: got %q, want %q", i+1, got, want)
			}
		}
		if got := curl.get("--http1.1", "https://front.test/"); !strings.HasPrefix(got, "HTTP/1.1 ") {
			t.Errorf("got %q, want HTTP/1.1", got)
		}
		got := filepath.Join(t.TempDir(), "got")
		curl.get("--upload-file", sent, "https://front.test/files/up"+version)
		curl.get("--output", got, "https://front.test/files/up"+version)
		if sha256Of(t, got) != sha256Of(t, sent) {
			t.Errorf("TLS %s: what came back is not what was sent", version)
		}
	}
}

// TestPassThroughBeforeNginx: two nginx with a certificate each; curl takes no other's.
func TestPassThroughBeforeNginx(t *testing.T) {
	ca := lbtest.NewCA(t)
	webs := map[string]*web{}
	for _, name := range []string{"a", "b", "c"} {
		names := map[string][]string{"a": {"a.test"}, "b": {"b.test", "*.b.test"}, "c": {"c.test"}}[name]
		webs[name] = startWebAs(t, name, "ssl http2", fmt.Sprintf(`
				ssl_certificate %[1]s;
				ssl_certificate_key %[1]s;
				location = / { default_type text/plain; return 200 "%[2]s $ssl_server_name $server_protocol"; }`, pairFile(t, ca, names...), name))
	}
	routes := func(frontend string) string {
		return fmt.Sprintf(`
[[frontends.%[1]s.routes]]
match = { sni = ["a.test"] }
pool = "a"
[[frontends.%[1]s.routes]]
match = { sni = ["b.test", "*.b.test"], not = { sni_starts_with = ["no."] } }
pool = "b"
`, frontend)
	}
	// Unknown names: "reject" turns them away, "elsewhere" has a pool for them, "nowhere" has none.
	config := "[frontends.reject]\nbind = [\"127.0.0.1:0\"]\npool = \"c\"\nunknown_name = \"reject\"\n" + routes("reject") +
		"[frontends.elsewhere]\nbind = [\"127.0.0.1:0\"]\npool = \"c\"\n" + routes("elsewhere") +
		"[frontends.nowhere]\nbind = [\"127.0.0.1:0\"]\n" + routes("nowhere")
	for name, w := range webs {
		config += fmt.Sprintf("[pools.%s]\nbackends = [ { address = %q } ]\n", name, w.address)
	}
	lb := start(t, config)
	for _, test := range []struct {
		frontend, name, want string
		code                 int
	}{
		{"reject", "a.test", "a a.test HTTP/2.0", 0},
		{"reject", "A.TEST", "a a.test HTTP/2.0", 0},
		{"reject", "b.test", "b b.test HTTP/2.0", 0},
		{"reject", "x.b.test", "b x.b.test HTTP/2.0", 0},
		{"reject", "no.b.test", "", curlHandshake},
		{"reject", "c.test", "", curlHandshake},
		{"reject", "127.0.0.1", "", curlHandshake}, // without SNI
		{"elsewhere", "b.test", "b b.test HTTP/2.0", 0},
		{"elsewhere", "c.test", "c c.test HTTP/2.0", 0},
		{"elsewhere", "no.b.test", "", curlDistrusts}, // c's certificate is for c.test
		{"nowhere", "a.test", "a a.test HTTP/2.0", 0},
		{"nowhere", "c.test", "", curlHandshake},
	} {
		curl := newBrowser(t, ca.PEM, lb.address(test.frontend))
		url := "https://" + test.name + "/"
		if test.code != 0 {
			if code := curl.fail(url); code != test.code {
				t.Errorf("%s of %s: curl ended with %d, want %d", test.name, test.frontend, code, test.code)
			}
		} else if got := curl.get(url); got != test.want {
			t.Errorf("%s of %s: got %q, want %q", test.name, test.frontend, got, test.want)
		}
	}
	if ended := lb.frontend("reject").Ended; ended["unknown_name"] != 3 {
		t.Errorf("frontend reject: %v; want 3 unknown names", ended)
	}
}
