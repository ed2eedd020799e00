//go:build e2e

package e2e

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// TestClientCertificates: who is let in where client_auth asks for a certificate, and which alert tells the others why.
func TestClientCertificates(t *testing.T) {
	ca, clients, strangers := lbtest.NewCA(t), lbtest.NewCA(t), lbtest.NewCA(t)
	config := ""
	for _, auth := range []string{"require", "request"} {
		config += fmt.Sprintf(`
[frontends.%[1]s]
bind = ["127.0.0.1:0"]
pool = "test"
[frontends.%[1]s.tls]
certificates = [ { cert = %[2]q } ]
client_auth = %[1]q
client_ca = %[3]q
`, auth, pairFile(t, ca, "front.test"), lbtest.Files(t, "clients.pem", clients.PEM))
	}
	lb, sessions := startLogged(t, config+"[pools.test]\nbackends = [ { address = \""+echo(t)+"\" } ]\n")

	signed := func(by *lbtest.CA, leaf lbtest.Leaf) []string {
		leaf.Names = []string{"client"}
		cert, key := by.Issue(leaf)
		return []string{"-cert", lbtest.Files(t, "client.pem", cert, key)}
	}
	good, stranger := signed(clients, lbtest.Leaf{}), signed(strangers, lbtest.Leaf{})
	expired := signed(clients, lbtest.Leaf{Until: time.Now().Add(-time.Hour)})
	server := signed(clients, lbtest.Leaf{Edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }})

	const required, failure = "alert certificate required", "alert handshake failure"
	ended := 0
	for _, test := range []struct {
		frontend, who string
		shows         []string
		alert12       string // "": let in
		alert13       string
		detail        string
	}{
		{"require", "good", good, "", "", ""},
		{"require", "none", nil, failure, required, "client didn't provide a certificate"},
		{"require", "stranger", stranger, "alert unknown ca", "alert unknown ca", "signed by unknown authority"},
		{"require", "expired", expired, "alert certificate expired", "alert certificate expired", "certificate has expired"},
		{"require", "for servers", server, "alert bad certificate", "alert bad certificate", "incompatible key usage"},
		{"request", "good", good, "", "", ""},
		{"request", "none", nil, "", "", ""},
		{"request", "stranger", stranger, "alert unknown ca", "alert unknown ca", "signed by unknown authority"},
	} {
		for version, alert := range map[string]string{"-tls1_2": test.alert12, "-tls1_3": test.alert13} {
			t.Run(test.frontend+", "+test.who+version, func(t *testing.T) {
				p := sClient(t, ca, "front.test", lb.address(test.frontend), append(test.shows, version)...)
				ended++
				if alert == "" {
					p.exchange("salutations")
					p.quit()
					wantEnding(t, sessions, ended, "client_eof", "")
					return
				}
				p.expect(alert) // in TLS 1.3 after the client has taken the handshake for done
				wantEnding(t, sessions, ended, "handshake_failed", test.detail)
				if attempts := sessions.all()[ended-1].number("attempts"); attempts != 0 {
					t.Errorf("%v backends were connected for a client that is turned away", attempts)
				}
			})
		}
	}
}
