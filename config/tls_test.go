package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestGoodTLS(t *testing.T) {
	c := loadGood(t, "tls")
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %q", c.Warnings)
	}
	dir, err := filepath.Abs("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	f, p := c.Frontend("terminate"), c.Pool("tls").TLS
	certs := f.TLS.Certificates
	for got, want := range map[string]string{ // paths count from the folder of the file
		c.Engine.TicketSecret: dir + "/secrets/tickets",
		c.ACME.Storage:        dir + "/state/acme",
		f.TLS.ClientCA:        dir + "/clients.pem",
		certs[0].Cert:         dir + "/a.pem",
		certs[0].Key:          dir + "/keys/a.key",
		certs[0].OCSP:         dir + "/a.der",
		certs[1].Cert:         "/etc/b.pem",
		p.CA:                  dir + "/ca.pem",
		p.Cert:                dir + "/us.pem",
		p.Key:                 dir + "/us.key",
		p.ServerName:          "web.internal", // names are in lower case, without a trailing dot
		f.TLS.ACME[0]:         "www.example.com",
		f.TLS.ClientAuth:      "require", // what client_ca alone means
		c.ACME.EABHMAC:        "aHVudGVyMg",
	} {
		if got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
	if certs[1].Key != "" || certs[1].OCSP != "" {
		t.Errorf("files that nobody named: %+v", certs[1])
	}
	m := make([]Match, 0)
	for _, r := range f.Routes {
		m = append(m, r.Match)
	}
	if want := []Match{
		{SNI: []string{"api.example.com", "*.api.example.com"}, Not: &Match{Source: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		{Any: []*Match{{SNIRegexp: []string{"Shop-[0-9]+[.].*"}}, {All: []*Match{{SNIStartsWith: []string{"shop."}}, {ALPN: []string{"h2"}}}}}},
		{SNIEndsWith: []string{".legacy.example"}, SNIContains: []string{"-a"}},
		{SNI: []string{""}},
	}; !reflect.DeepEqual(m, want) {
		t.Errorf("conditions: got %+v\nwant %+v", m, want)
	}
	if !f.AsksName() || !f.AsksHello() || c.Frontend("challenges").AsksHello() {
		t.Error("who waits for a ClientHello is wrong")
	}
}

func TestWarningsTLS(t *testing.T) {
	got := strings.Join(loadGood(t, "warnings-tls").Warnings, "\n")
	const nested = "TLS of the clients is passed through here, and the pool has a tls table: TLS inside TLS (leave out the one of the pool, or terminate TLS in the frontend)"
	want := strings.NewReplacer("F:", "testdata/good/warnings-tls.toml:", "NESTED", nested).Replace(`F:1: acme: no frontend has names in tls.acme, so that no certificate is asked for
F:7: frontends.plain.unknown_name: no route of this frontend looks at the name, so that this has no effect
F:8: frontends.plain.starttls: there is neither a tls table nor a route on a name or protocol, so that this has no effect
F:13: frontends.plain.routes[1].match: this route never matches (frontends.plain.routes[0].match at line 10 has the same conditions and comes first)
F:19: frontends.challenges.acme_challenges: no frontend has names in tls.acme, so that there are no challenges to answer
F:23: frontends.through.pool: NESTED
F:26: frontends.through.routes[0].pool: NESTED
F:28: frontends.through.routes[1].match: this route never matches (frontends.through.routes[0].match at line 25 has the same conditions and comes first)
F:29: frontends.through.routes[1].pool: NESTED
F:34: frontends.both.tls.client_ca: client_auth is "none", so that this has no effect
F:35: frontends.both.unknown_name: no route of this frontend looks at the name, so that this has no effect
F:38: frontends.both.routes[0].pool: NESTED
F:47: pools.loose.tls.insecure_skip_verify: any certificate is taken: whoever gets between awe4lb and the backends can read and change everything (set ca to those who signed the backends' certificates, and server_name to the name in them)`)
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestAt: what is found wrong later can be told with its place.
func TestAt(t *testing.T) {
	c := loadGood(t, "tls")
	f := c.Frontend("terminate")
	const file = "testdata/good/tls.toml:"
	for _, tc := range []struct {
		field any
		want  string
	}{
		{&c.Engine.TicketSecret, file + "3: engine.ticket_secret"},
		{&c.ACME, file + "5: acme"},
		{&c.ACME.EABHMAC, file + "9: acme.eab_hmac_key"},
		{f, file + "12: frontends.terminate"},
		{&f.TLS, file + "30: frontends.terminate.tls"},
		{f.TLS, file + "30: frontends.terminate.tls"},
		{f.TLS.Certificates[1], file + "35: frontends.terminate.tls.certificates[1]"},
		{&f.TLS.Certificates[2].Key, file + "36: frontends.terminate.tls.certificates[2].key"},
		{&f.TLS.Certificates[2].SelfSigned[1], file + "36: frontends.terminate.tls.certificates[2].self_signed[1]"},
		{&f.TLS.ACME[0], file + "31: frontends.terminate.tls.acme[0]"},
		{&f.Routes[1].Match.Any[1].All[0].SNIStartsWith[0], file + "21: frontends.terminate.routes[1].match.any[1].all[0].sni_starts_with[0]"},
		{&c.Pool("tls").TLS.CA, file + "56: pools.tls.tls.ca"},
		{&f.TLS.MinVersion, ""}, // not in the file
		{&f.TLS.Certificates[1].Key, ""},
		{new(string), ""},
		{nil, ""},
	} {
		if got := c.At(tc.field); got != tc.want {
			t.Errorf("got %q; want %q", got, tc.want)
		}
	}
	odd, err := Parse("a\nb.toml", []byte("log.level = 'warn'"))
	if err != nil || odd.At(&odd.Log.Level) != `a\nb.toml:1: log.level` {
		t.Errorf("got %v, %q", err, odd.At(&odd.Log.Level))
	}
	if got := new(Config).At(&c.Log.Level); got != "" {
		t.Errorf("a configuration without a file: %q", got)
	}
}

// TestSecretIsNotPrinted: whoever prints a configuration, or a part of it, does not print the secret.
func TestSecretIsNotPrinted(t *testing.T) {
	c := loadGood(t, "tls")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{c.ACME, &c.ACME, c, *c} {
			if got := fmt.Sprintf(format, v); strings.Contains(got, "aHVudGVyMg") {
				t.Errorf("%s of a %T shows it", format, v)
			}
		}
	}
}
