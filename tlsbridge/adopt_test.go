package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// dialOnce makes a session with a backend, hears a byte from it, so that its tickets have come, and returns what was agreed on.
func dialOnce(t testing.TB, backend string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := net.Dial("tcp", backend)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, config)
	defer c.Close()
	_, err = io.ReadFull(c, make([]byte, 1))
	return c.ConnectionState(), err
}

// TestAdopt exchanges authorities and certificate under a configuration in use: the next handshake goes by them, and no
// session from before is resumed.
func TestAdopt(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ca, other := lbtest.NewCA(t), lbtest.NewCA(t)
		config := serverConfig(ca, "b.test")
		config.ClientAuth, config.MaxVersion = tls.RequestClientCert, version
		shown := make(chan string, 1)
		backend := tlsBackend(t, config, func(b *tls.Conn) {
			name := ""
			if certs := b.ConnectionState().PeerCertificates; len(certs) > 0 {
				name = certs[0].DNSNames[0]
			}
			shown <- name
			_, _ = b.Write([]byte("x"))
		})
		client := func(ca *lbtest.CA, certificate *Certificate) *Client {
			c, err := (&ClientOptions{CA: ca.PEM, Certificate: certificate}).Build()
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := client(ca, issue(t, ca, lbtest.Leaf{Names: []string{"one"}}))
		use := c.Config("b.test")
		wants := func(what, name string, resumed bool) {
			t.Helper()
			state, err := dialOnce(t, backend, use)
			if err != nil || state.DidResume != resumed {
				t.Fatalf("%s, %s: resumed %v, %v", tls.VersionName(version), what, state.DidResume, err)
			}
			if got := <-shown; got != name {
				t.Errorf("%s, %s: we showed %q", tls.VersionName(version), what, got)
			}
		}
		wants("first", "one", false)
		wants("again", "one", true)
		c.Adopt(client(ca, issue(t, ca, lbtest.Leaf{Names: []string{"two"}})))
		wants("another certificate", "two", false)
		wants("again", "two", true)
		c.Adopt(client(other, nil))
		var untrusted *tls.CertificateVerificationError
		if _, err := dialOnce(t, backend, use); !errors.As(err, &untrusted) {
			t.Errorf("%s: a backend that is no longer trusted: %v", tls.VersionName(version), err)
		}
		c.Adopt(client(ca, nil))
		wants("trusted again, no certificate", "", false)
		wants("again", "", true)
	}
}

// TestNoNameToExpect: a backend without a host (a unix socket) is not trusted under any name it likes.
func TestNoNameToExpect(t *testing.T) {
	ca := lbtest.NewCA(t)
	backend := tlsBackend(t, serverConfig(ca, "b.test"), func(b *tls.Conn) { _, _ = b.Write([]byte("x")) })
	c, err := (&ClientOptions{CA: ca.PEM}).Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialOnce(t, backend, c.Config("")); err == nil || !strings.Contains(err.Error(), "want server_name") {
		t.Error(err)
	}
}

// TestNoCertificateYet: a frontend may wait for its certificate; clients get an alert until it is there.
func TestNoCertificateYet(t *testing.T) {
	ca := lbtest.NewCA(t)
	certs := new(Certificates)
	if _, err := (&ServerOptions{Certificates: certs}).Build(); err == nil || err.Error() != "certificates: got none; want one at least" {
		t.Error(err)
	}
	r, _ := rigFor(t, ServerOptions{Certificates: certs, MayBeEmpty: true})
	if _, err := visit(t, r, clientConfig(ca, "a.test")); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Error(err)
	}
	certs.Store(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))
	if _, err := visit(t, r, clientConfig(ca, "a.test")); err != nil {
		t.Error(err)
	}
}

func TestHas(t *testing.T) {
	ca := lbtest.NewCA(t)
	s := mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test", "*.b.test"}}))
	for name, want := range map[string]bool{"a.test": true, "x.b.test": true, "b.test": false, "x.y.b.test": false, "": false,
		"10.0.0.1": false, "c.test": false, ".b.test": false} {
		if s.Has([]byte(name)) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	name := []byte("a.rather.long.name.that.is.nowhere.test")
	if n := testing.AllocsPerRun(100, func() { s.Has(name) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// TestWhereMistakesAre: in the key or the chain, and in which element of a list.
func TestWhereMistakesAre(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	other, otherKey := ca.Issue(lbtest.Leaf{Names: []string{"b.test"}})
	for _, c := range []struct {
		chain, key []byte
		want       bool
	}{{cert, otherKey, true}, {cert, []byte("x"), true}, {cert, nil, true}, {[]byte("x"), key, false}, {join(other, cert), key, false}} {
		var wrong *KeyError
		if _, err := ParseCertificate(c.chain, c.key); err == nil || errors.As(err, &wrong) != c.want {
			t.Errorf("%v: about the key %v", err, !c.want)
		}
	}
	_, err := (&ClientOptions{CA: ca.PEM, Protocol: Protocol{Ciphers: []string{Ciphers()[0], "x"}, Curves: []string{"X25519", "P-256", "x"},
		ALPN: []string{""}, MinVersion: "0"}}).Build()
	want := map[string]int{"ciphers": 1, "curves": 2, "alpn": 0, "min_version": -1}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		option := e.(*OptionError)
		if at, ok := want[option.Key]; !ok || option.Index != at {
			t.Errorf("%v: at %d", option, option.Index)
		}
		delete(want, option.Key)
	}
	if len(want) > 0 {
		t.Errorf("no mistake in %v", want)
	}
}
