package tlsbridge

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

func mustParse(t testing.TB, cert, key []byte) *Certificate {
	t.Helper()
	c, err := ParseCertificate(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issue makes a certificate.
func issue(t testing.TB, ca *lbtest.CA, l lbtest.Leaf) *Certificate {
	t.Helper()
	cert, key := ca.Issue(l)
	return mustParse(t, cert, key)
}

func mustSet(t testing.TB, certs ...*Certificate) *CertificateSet {
	t.Helper()
	s, err := NewCertificateSet(certs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func join(pieces ...[]byte) []byte { return bytes.Join(pieces, nil) }

func TestParseCertificate(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"A.test", "*.a.test", "a.test", "10.0.0.1"}})
	for name, pieces := range map[string][2][]byte{
		"two files":         {cert, key},
		"one file":          {join(cert, key), nil},
		"key first":         {join(key, cert), nil},
		"chain":             {join(cert, ca.PEM), key},
		"text around":       {join([]byte("subject=…\n"), cert, []byte("\nend\n")), key},
		"same file twice":   {join(cert, key), join(cert, key)},
		"parameters before": {cert, join(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}), key)},
	} {
		c, err := ParseCertificate(pieces[0], pieces[1])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(c.Names, []string{"a.test", "*.a.test"}) || len(c.Warnings) > 0 {
			t.Errorf("%s: %q, warnings %q", name, c.Names, c.Warnings)
		}
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	issue(t, ca, lbtest.Leaf{Key: ed})
	rsaKey := lbtest.RSAKey(t)
	rsaCert, _ := ca.Issue(lbtest.Leaf{Key: rsaKey})
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey.(*rsa.PrivateKey))})
	mustParse(t, rsaCert, pkcs1)
}

func TestParseCertificateFails(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	other, otherKey := ca.Issue(lbtest.Leaf{Names: []string{"b.test"}})
	der, _ := pem.Decode(cert)
	for _, c := range []struct {
		name       string
		chain, key []byte
		want       string
	}{
		{"nothing", nil, nil, "no certificate: want PEM"},
		{"DER", der.Bytes, key, "got DER; want PEM"},
		{"only a key", key, nil, "got PRIVATE KEY; want CERTIFICATE"},
		{"no key", cert, nil, "no private key"},
		{"a foreign key", cert, otherKey, "the key does not belong to the certificate (a.test)"},
		{"wrong order", join(other, cert), key, "the key belongs to certificate 2 (a.test); want that one first"},
		{"encrypted", cert, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), "encrypted; want it without"},
		{"encrypted, old style", cert, []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"), "encrypted; want it without"},
		{"a broken key", cert, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "private key: "},
		{"a broken certificate", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), key, "certificate 1: "},
	} {
		if _, err := ParseCertificate(c.chain, c.key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestCertificateWarnings(t *testing.T) {
	ca, other := lbtest.NewCA(t), lbtest.NewCA(t)
	leaf := func(edit func(*x509.Certificate)) lbtest.Leaf {
		return lbtest.Leaf{Names: []string{"a.test"}, Edit: edit}
	}
	for want, l := range map[string]lbtest.Leaf{
		`name "a.*.test" never matches`: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"a.*.test"} }),
		"no subject alternative name":   leaf(func(c *x509.Certificate) { c.DNSNames = nil }),
		"allows neither servers":        leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }),
	} {
		c := issue(t, ca, l)
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], want) {
			t.Errorf("%q, want %q", c.Warnings, want)
		}
	}
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	if c := mustParse(t, join(cert, other.PEM), key); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "is not signed by certificate 2") {
		t.Errorf("%q", c.Warnings)
	}
}

func TestCertificateByName(t *testing.T) {
	ca := lbtest.NewCA(t)
	named := func(names ...string) *Certificate { return issue(t, ca, lbtest.Leaf{Names: names}) }
	def, wild, exact := named("default.test"), named("*.shop.test", "shop.test"), named("www.shop.test")
	s := mustSet(t, def, wild, exact)
	for name, c := range map[string]struct {
		want  *Certificate
		named bool
	}{
		"default.test":    {def, true},
		"WWW.Shop.test":   {exact, true},
		"a.shop.test":     {wild, true},
		"shop.test":       {wild, true},
		"a.b.shop.test":   {def, false},
		".shop.test":      {def, false},
		"other.test":      {def, false},
		"":                {def, false},
		"10.0.0.1":        {def, false},
		"*.shop.test":     {wild, true},
		"ashop.test":      {def, false},
		"default.test.":   {def, false},
		"localhost":       {def, false},
		"xn--a.shop.test": {wild, true},
	} {
		got, named := s.For(name)
		if len(got) != 1 || got[0] != c.want || named != c.named {
			t.Errorf("%q: %q %v", name, got[0].Names, named)
		}
	}
	if _, err := NewCertificateSet(nil); err == nil {
		t.Error("no error")
	}
	if twice := mustSet(t, def, named("default.test")); len(twice.Warnings) != 1 {
		t.Errorf("%q", twice.Warnings)
	} else if got, _ := twice.For("default.test"); len(got) != 1 || got[0] != def {
		t.Error("the second of two serves the name")
	}
}

func TestExpiry(t *testing.T) {
	ca := lbtest.NewCA(t)
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	early := issue(t, ca, lbtest.Leaf{Names: []string{"soon.test"}, Until: soon})
	when, which := mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"late.test"}}), early).Expiry()
	if !when.Equal(soon) || which != early {
		t.Errorf("%v %q", when, which.Names)
	}
	// A chain ends with the first of its certificates that does.
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"late.test"}, Until: time.Now().Add(1000 * time.Hour)})
	if c := mustParse(t, join(cert, ca.PEM), key); time.Until(c.NotAfter) > 49*time.Hour {
		t.Errorf("%v", c.NotAfter)
	}
}

// rigFor starts a rig that terminates TLS as o says and echoes.
func rigFor(t testing.TB, o ServerOptions) (*rig, *tls.Config) {
	t.Helper()
	config, err := o.Build()
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, lbtest.Echo(t), rigOptions{server: config}), config
}

// visit makes a connection, says something, hears it, and returns what was negotiated.
func visit(t testing.TB, r *rig, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	c := tls.Client(r.dial(), config)
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		return tls.ConnectionState{}, err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		return tls.ConnectionState{}, err
	}
	return c.ConnectionState(), nil
}

// TestECDSAAndRSA: each client gets the kind of key it supports, by name and by default, and ECDSA if it supports both.
func TestECDSAAndRSA(t *testing.T) {
	ca := lbtest.NewCA(t)
	rsaKey := lbtest.RSAKey(t)
	var certs []*Certificate
	for _, names := range [][]string{{"default.test"}, {"*.a.test"}} {
		certs = append(certs, issue(t, ca, lbtest.Leaf{Names: names, Key: rsaKey}), issue(t, ca, lbtest.Leaf{Names: names}))
	}
	r, _ := rigFor(t, ServerOptions{Certificates: NewCertificates(mustSet(t, certs...))})
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	onlyECDSA := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	for _, name := range []string{"www.a.test", "default.test", "unknown.test"} {
		for _, c := range []struct {
			suites []uint16
			max    uint16
			want   x509.PublicKeyAlgorithm
		}{{nil, 0, x509.ECDSA}, {onlyRSA, tls.VersionTLS12, x509.RSA}, {onlyECDSA, tls.VersionTLS12, x509.ECDSA}} {
			config := clientConfig(ca, name)
			config.CipherSuites, config.MaxVersion = c.suites, c.max
			config.InsecureSkipVerify = name == "unknown.test"
			state, err := visit(t, r, config)
			if err != nil {
				t.Errorf("%s %v: %v", name, c.want, err)
			} else if got := state.PeerCertificates[0].PublicKeyAlgorithm; got != c.want {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
		}
	}
}

// TestHotSwap changes the certificate under load: no handshake fails, each client sees the old or the new one, and who
// has seen the new one never sees the old one again; sessions go on.
func TestHotSwap(t *testing.T) {
	ca := lbtest.NewCA(t)
	numbered := func(n int64) *CertificateSet {
		return mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}, Edit: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }}))
	}
	certs := NewCertificates(numbered(1))
	r, _ := rigFor(t, ServerOptions{Certificates: certs})
	old := tls.Client(r.dial(), clientConfig(ca, "a.test"))
	if err := old.Handshake(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var current atomic.Int64
	current.Store(1)
	stop := make(chan bool)
	for range 4 {
		wg.Go(func() {
			seen := int64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := current.Load()
				state, err := visit(t, r, clientConfig(ca, "a.test"))
				if err != nil {
					t.Error(err)
					return
				}
				if seen = state.PeerCertificates[0].SerialNumber.Int64(); seen < least {
					t.Errorf("certificate %d after %d", seen, least)
				}
			}
		})
	}
	for i := int64(2); i <= 20; i++ {
		certs.Store(numbered(i))
		current.Store(i)
		time.Sleep(10 * time.Millisecond) // some handshakes with each
	}
	close(stop)
	wg.Wait()
	if _, err := old.Write([]byte("still here")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(old, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	old.Close()
}

func TestStaple(t *testing.T) {
	ca := lbtest.NewCA(t)
	bare := issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})
	set := mustSet(t, bare)
	certs := NewCertificates(set)
	r, _ := rigFor(t, ServerOptions{Certificates: certs})
	stapled, err := set.Replace(bare, bare.WithStaple([]byte("an OCSP response")))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "an OCSP response"} {
		if i == 1 {
			certs.Store(stapled)
		}
		state, err := visit(t, r, clientConfig(ca, "a.test"))
		if err != nil || string(state.OCSPResponse) != want {
			t.Errorf("%q %v, want %q", state.OCSPResponse, err, want)
		}
	}
	if _, err := stapled.Replace(bare, bare); err == nil {
		t.Error("replaced what is not there")
	}
}

// TestTickets: sessions resume across configurations, processes with the same secret, and one change of keys; not with
// another domain's keys, and not for ever.
func TestTickets(t *testing.T) {
	ca := lbtest.NewCA(t)
	options := ServerOptions{Certificates: NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))}
	secret := bytes.Repeat([]byte("s"), 32)
	now := time.Now()
	newTickets := func(secret []byte) *Tickets {
		tickets, err := NewTickets(secret, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return tickets
	}
	for _, shared := range [][]byte{nil, secret} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			a, configA := rigFor(t, options)
			b, configB := rigFor(t, options) // another shard, or another node
			tickets := newTickets(shared)
			others := tickets
			if shared != nil {
				others = newTickets(shared)
			}
			client := clientConfig(ca, "a.test")
			client.MaxVersion = version
			resumes := func(r *rig, what string, want bool) {
				t.Helper()
				client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				if _, err := visit(t, a, client); err != nil {
					t.Fatal(err)
				}
				state, err := visit(t, r, client)
				if err != nil || state.DidResume != want {
					t.Errorf("%s, %s, shared %v: resumed %v, %v", what, tls.VersionName(version), shared != nil, state.DidResume, err)
				}
			}
			tickets.Apply(configA, "f", now)
			others.Apply(configB, "f", now)
			resumes(a, "the same", true)
			resumes(b, "another configuration", true)
			others.Apply(configB, "f", now.Add(2*time.Hour))
			resumes(b, "two periods later", true)
			others.Apply(configB, "f", now.Add(3*time.Hour))
			resumes(b, "three periods later", false)
			others = newTickets(shared)
			others.Apply(configB, "g", now)
			resumes(b, "another domain", false)
			if shared != nil {
				others.Apply(configB, "f", now.Add(-time.Hour))
				resumes(b, "a clock an hour late", true)
			}
		}
	}
	options.NoTickets = true
	r, _ := rigFor(t, options)
	client := clientConfig(ca, "a.test")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		if state, err := visit(t, r, client); err != nil || state.DidResume {
			t.Errorf("resumed %v, %v", state.DidResume, err)
		}
	}
}

func TestTicketKeys(t *testing.T) {
	if _, err := NewTickets(make([]byte, 31), 0); err == nil || !strings.Contains(err.Error(), "got 31 bytes") {
		t.Error(err)
	}
	if _, err := NewTickets(nil, time.Second); err == nil {
		t.Error("no error")
	}
	random, _ := NewTickets(nil, 0)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	if next := random.Next(now); !next.After(now) || next.Sub(now) > TicketPeriod || random.Next(next) != next.Add(TicketPeriod) {
		t.Errorf("next %v", next)
	}
	keys := random.Keys("f", now)
	if len(keys) != 1 || random.Keys("f", now)[0] != keys[0] || random.Keys("g", now)[0] == keys[0] {
		t.Errorf("%d keys", len(keys))
	}
	for i := 1; i < 10; i++ {
		keys = random.Keys("f", now.Add(time.Duration(i)*TicketPeriod))
	}
	if len(keys) != 3 || len(random.random) != 3 {
		t.Errorf("%d keys, %d secrets", len(keys), len(random.random))
	}
	shared, _ := NewTickets(make([]byte, 32), 0)
	again, _ := NewTickets(make([]byte, 32), 0)
	if got := shared.Keys("f", now); len(got) != 4 || !slices.Equal(got, again.Keys("f", now)) {
		t.Errorf("%d keys", len(got))
	}
}
