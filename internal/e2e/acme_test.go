//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// pebbleModule is Let's Encrypt's CA for tests. Debian has no package of it; it comes from the Go module proxy.
const pebbleModule = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"

// buildPebble returns the path of the program, built at the first call: 45 s of processor the first time on a machine, a
// second from then on.
var buildPebble = sync.OnceValues(func() (string, error) {
	dir := filepath.Dir(binary)
	install := exec.Command("go", "install", pebbleModule)
	install.Dir = dir // not in this module
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w\n%s", pebbleModule, err, out)
	}
	return filepath.Join(dir, "pebble"), nil
})

// pebble is a CA. It finds names in the zone of a named and validates at two ports.
type pebble struct {
	*program
	settings string // [acme] for it, with a storage folder of its own
	root     []byte // its certificate, in PEM
}

func startPebble(t *testing.T, tlsPort, httpPort int) *pebble {
	t.Helper()
	path, err := buildPebble()
	if err != nil {
		t.Fatal(err)
	}
	web, dir := lbtest.NewCA(t), openDir(t)
	cert, key := web.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	address, manage := lbtest.Free(t), lbtest.Free(t)
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "managementListenAddress": manage,
		"certificate": write(t, dir, "pebble.pem", string(cert)), "privateKey": write(t, dir, "pebble.key", string(key)),
		"httpPort": httpPort, "tlsPort": tlsPort, "retryAfter": map[string]int{"authz": 0, "order": 0},
		"profiles": map[string]any{"default": map[string]any{"validityPeriod": 90 * 24 * 3600}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := &pebble{settings: fmt.Sprintf("[acme]\ndirectory = \"https://%s/dir\"\nca = %q\nstorage = %q\nemail = \"ops@example.com\"\nagree = true\n",
		address, write(t, dir, "ca.pem", string(web.PEM)), filepath.Join(dir, "acme"))}
	dns := startNamed(t, "dns", lbtest.FreePort(t))
	p.program = launch(t, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_VA_ALWAYS_VALID=0")
	}, path, "-config", write(t, dir, "pebble.json", string(conf)), "-dnsserver", dns.address)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: web.Pool}, DisableKeepAlives: true}}
	p.waitFor("pebble's root", func() bool {
		answer, err := client.Get("https://" + manage + "/roots/0")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		p.root, err = io.ReadAll(answer.Body)
		return err == nil && answer.StatusCode == http.StatusOK
	})
	return p
}

// TestACME gets a certificate from pebble, which can validate in one way only, and serves it, after a restart too.
func TestACME(t *testing.T) {
	web := startWebAs(t, "nginx", "", `
				location = / { default_type text/plain; return 200 "nginx"; }
				location /.well-known/acme-challenge/ { default_type text/plain; return 200 "somebody else's"; }`)
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			https, http := lbtest.FreePort(t), lbtest.FreePort(t)
			name := kind + ".here.test"
			ports := map[string][2]int{"tls-alpn-01": {https, lbtest.FreePort(t)}, "http-01": {lbtest.FreePort(t), http}}[kind]
			ca := startPebble(t, ports[0], ports[1])
			config := ca.settings + fmt.Sprintf(`
[frontends.https]
bind = ["127.0.0.1:%d"]
pool = "web"
tls = { acme = [%q], alpn = ["http/1.1"] }

[frontends.http]
bind = ["127.0.0.1:%d"]
pool = "web"
acme_challenges = true

[pools.web]
backends = [ { address = %q } ]
`, https, name, http, web.address)
			trust := x509.NewCertPool()
			if !trust.AppendCertsFromPEM(ca.root) {
				t.Fatalf("pebble's root is %q", ca.root)
			}
			// check returns the certificate that is served, once it was tried out.
			check := func(lb *awe4lb) *x509.Certificate {
				t.Helper()
				secure, plain := newBrowser(t, ca.root, local(https)), newBrowser(t, ca.root, local(http))
				if got := secure.get("https://" + name + "/"); got != "nginx" {
					t.Errorf("over TLS: got %q", got)
				}
				if got := plain.get("http://" + name + "/"); got != "nginx" {
					t.Errorf("over HTTP: got %q", got)
				}
				if got := plain.get("http://" + name + "/.well-known/acme-challenge/unknown"); got != "somebody else's" {
					t.Errorf("a challenge that is not ours: got %q", got)
				}
				c, err := tls.Dial("tcp", local(https), &tls.Config{RootCAs: trust, ServerName: name})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				return c.ConnectionState().PeerCertificates[0]
			}

			lb := start(t, config)
			lb.waitFor("the certificate is there", func() bool {
				s := lb.status()
				return len(s.ACME) == 1 && s.ACME[0].State == "valid"
			})
			first := check(lb)
			if !strings.HasPrefix(first.Issuer.CommonName, "Pebble Intermediate") {
				t.Errorf("the issuer is %q", first.Issuer.CommonName)
			}
			challenged := map[string]string{"tls-alpn-01": "https", "http-01": "http"}[kind]
			if n := lb.frontend(challenged).Ended["challenge"]; n == 0 {
				t.Errorf("no session of frontend %s ended as a challenge", challenged)
			}
			lb.stop()

			ca.end(syscall.SIGKILL)
			lb = start(t, config)
			if again := check(lb); !again.Equal(first) {
				t.Error("another certificate after a restart without the CA")
			}
		})
	}
}
