package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

func TestServerOptions(t *testing.T) {
	ca := lbtest.NewCA(t)
	certs := NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))
	config, err := (&ServerOptions{Certificates: certs}).Build()
	if err != nil || config.MinVersion != tls.VersionTLS12 || config.MaxVersion != tls.VersionTLS13 || config.CipherSuites != nil ||
		config.CurvePreferences != nil || config.ClientAuth != tls.NoClientCert {
		t.Errorf("defaults: %+v %v", config, err)
	}
	config, err = (&ServerOptions{Certificates: certs, ClientCA: ca.PEM, Protocol: Protocol{MinVersion: "1.0", MaxVersion: "1.2",
		Ciphers: Ciphers(), Curves: []string{"X25519", "P-256"}, ALPN: []string{"h2", "http/1.1"}}}).Build()
	if err != nil || config.MinVersion != tls.VersionTLS10 || config.MaxVersion != tls.VersionTLS12 || len(config.CipherSuites) == 0 ||
		!slices.Equal(config.CurvePreferences, []tls.CurveID{tls.X25519, tls.CurveP256}) ||
		config.ClientAuth != tls.RequireAndVerifyClientCert || len(config.NextProtos) != 2 {
		t.Errorf("%+v %v", config, err)
	}
}

func TestOptionsFail(t *testing.T) {
	ca := lbtest.NewCA(t)
	leafPEM, _ := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	certs := NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))
	list := func(s ...string) []string { return s }
	for _, c := range []struct {
		o    ServerOptions
		want string
	}{
		{ServerOptions{Protocol: Protocol{MinVersion: "ssl3"}}, `min_version: got "ssl3"; want 1.0, 1.1, 1.2 or 1.3: Go has no SSL, which is broken`},
		{ServerOptions{Protocol: Protocol{MaxVersion: "TLSv1.2"}}, `max_version: got "TLSv1.2"; want "1.2"`},
		{ServerOptions{Protocol: Protocol{MinVersion: "tls1"}}, `min_version: got "tls1"; want "1.0"`},
		{ServerOptions{Protocol: Protocol{MinVersion: "1.4"}}, `min_version: got "1.4"; want 1.0, 1.1, 1.2 or 1.3`},
		{ServerOptions{Protocol: Protocol{MinVersion: "1.3", MaxVersion: "1.2"}}, `min_version: got "1.3", which is above max_version "1.2"`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("TLS_AES_128_GCM_SHA256")}}, `ciphers: got "TLS_AES_128_GCM_SHA256": Go does not let one choose suites of TLS 1.3, it always has all three; leave it out`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("TLS_RSA_WITH_AES_128_GCM_SHA256")}}, `ciphers: got "TLS_RSA_WITH_AES_128_GCM_SHA256", which is weak`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("ECDHE-ECDSA-AES128-GCM-SHA256")}}, `ciphers: got "ECDHE-ECDSA-AES128-GCM-SHA256", OpenSSL's name; want "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("ECDHE-RSA-CHACHA20-POLY1305")}}, `want "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("ECDHE-RSA-AES256-GCM-SHA384")}}, `want "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("ECDHE-RSA-AES128-SHA")}}, `want "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"`},
		{ServerOptions{Protocol: Protocol{Ciphers: list("HIGH:!aNULL")}}, `ciphers: got "HIGH:!aNULL"; want one of TLS_ECDHE`},
		{ServerOptions{Protocol: Protocol{MinVersion: "1.3", Ciphers: Ciphers()[:1]}}, `ciphers: they have no effect with min_version 1.3`},
		{ServerOptions{Protocol: Protocol{Curves: list("secp256r1")}}, `curves: got "secp256r1"; want "P-256"`},
		{ServerOptions{Protocol: Protocol{Curves: list("x25519mlkem768")}}, `curves: got "x25519mlkem768"; want "X25519MLKEM768"`},
		{ServerOptions{Protocol: Protocol{Curves: list("brainpool")}}, `curves: got "brainpool"; want X25519MLKEM768, SecP256r1MLKEM768, SecP384r1MLKEM1024, X25519, P-256, P-384, P-521`},
		{ServerOptions{Protocol: Protocol{MaxVersion: "1.2", Curves: list("X25519MLKEM768")}}, `curves: the post-quantum ones need TLS 1.3, and max_version is 1.2`},
		{ServerOptions{Protocol: Protocol{ALPN: list("h2", "")}}, `alpn: got a name of 0 bytes; want 1 to 255`},
		{ServerOptions{Protocol: Protocol{ALPN: list("h2", "h2")}}, `alpn: "h2" is there twice`},
		{ServerOptions{ClientAuth: "require"}, `client_ca: got none; want the certificates of those who sign client certificates, in PEM`},
		{ServerOptions{ClientAuth: "maybe"}, `client_auth: got "maybe"; want none, request or require`},
		{ServerOptions{ClientAuth: "none", ClientCA: ca.PEM}, `client_ca: it has no effect with client_auth none`},
		{ServerOptions{ClientCA: leafPEM}, `client_ca: certificate 1 (a.test) is not an authority's`},
		{ServerOptions{ClientCA: []byte("x")}, `client_ca: no certificate: want PEM`},
	} {
		c.o.Certificates = certs
		config, err := c.o.Build()
		var option *OptionError
		if config != nil || !errors.As(err, &option) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	_, err := (&ServerOptions{ClientAuth: "?", Protocol: Protocol{MinVersion: "2", Curves: list("x")}}).Build()
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 4 {
		t.Errorf("want every mistake at once: %q", lines)
	}
	for _, c := range []struct {
		o    ClientOptions
		want string
	}{
		{ClientOptions{ServerName: "*.a.test"}, `server_name: got "*.a.test"; want a DNS name or an IP address`},
		{ClientOptions{ServerName: "a test"}, `server_name: got "a test"`},
		{ClientOptions{ServerName: "a.test:443"}, `server_name: got "a.test:443"`},
		{ClientOptions{CA: ca.PEM, InsecureSkipVerify: true}, `insecure_skip_verify: with it ca has no effect; want one of the two`},
		{ClientOptions{CA: []byte("x")}, `ca: no certificate: want PEM`},
	} {
		if len(c.o.CA) == 0 {
			c.o.CA = ca.PEM
		}
		if _, err := c.o.Build(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// TestVersionsAndCurves: what was asked for is what is spoken.
func TestVersionsAndCurves(t *testing.T) {
	ca := lbtest.NewCA(t)
	certs := NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))
	for _, c := range []struct {
		o       Protocol
		max     uint16 // the client's
		version uint16 // 0: refused
		curve   tls.CurveID
	}{
		{Protocol{}, 0, tls.VersionTLS13, tls.X25519MLKEM768},
		{Protocol{Curves: []string{"P-384"}}, 0, tls.VersionTLS13, tls.CurveP384},
		{Protocol{MaxVersion: "1.2", Curves: []string{"X25519"}}, 0, tls.VersionTLS12, tls.X25519},
		{Protocol{}, tls.VersionTLS11, 0, 0},
		{Protocol{}, tls.VersionTLS10, 0, 0},
		{Protocol{MinVersion: "1.3"}, tls.VersionTLS12, 0, 0},
		{Protocol{MinVersion: "1.0"}, tls.VersionTLS10, tls.VersionTLS10, tls.X25519},
	} {
		r, _ := rigFor(t, ServerOptions{Certificates: certs, Protocol: c.o})
		client := clientConfig(ca, "a.test")
		client.MinVersion, client.MaxVersion = tls.VersionTLS10, c.max
		state, err := visit(t, r, client)
		if c.version == 0 {
			if err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
				t.Errorf("%+v: %v", c, err)
			}
		} else if err != nil || state.Version != c.version || state.CurveID != c.curve {
			t.Errorf("%+v: %v, %s, %v", c, err, tls.VersionName(state.Version), state.CurveID)
		}
	}
}

func TestALPN(t *testing.T) {
	ca := lbtest.NewCA(t)
	certs := NewCertificates(mustSet(t, issue(t, ca, lbtest.Leaf{Names: []string{"a.test"}})))
	r, _ := rigFor(t, ServerOptions{Certificates: certs, Protocol: Protocol{ALPN: []string{"h2", "x"}}})
	for offer, want := range map[string]string{"": "", "x h2": "h2", "y x": "x", "y": "refused"} {
		client := clientConfig(ca, "a.test")
		client.NextProtos = strings.Fields(offer)
		state, err := visit(t, r, client)
		got := state.NegotiatedProtocol
		if err != nil && strings.Contains(err.Error(), "no application protocol") {
			got = "refused"
		}
		if got != want {
			t.Errorf("%q: %q %v, want %q", offer, got, err, want)
		}
	}
}

// TestClient speaks to backends: whom to expect, by name, by the backend's own host or its address; a client certificate;
// sessions that resume, one backend's not at another.
func TestClient(t *testing.T) {
	ca := lbtest.NewCA(t)
	mine := issue(t, ca, lbtest.Leaf{Names: []string{"balancer"}})
	states := make(chan tls.ConnectionState, 1)
	for _, c := range []struct {
		name  string
		o     ClientOptions
		certs []string // the backend's names
		auth  tls.ClientAuthType
		host  string
		want  string // how the session ends, "" when all is well
	}{
		{"by name", ClientOptions{ServerName: "b.test"}, []string{"b.test"}, 0, "127.0.0.1", ""},
		{"by host", ClientOptions{}, []string{"b.test"}, 0, "b.test.", ""},
		{"by address", ClientOptions{}, []string{"127.0.0.1"}, 0, "127.0.0.1", ""},
		{"other name", ClientOptions{ServerName: "c.test"}, []string{"b.test"}, 0, "", "not c.test"},
		{"other address", ClientOptions{}, []string{"127.0.0.2"}, 0, "127.0.0.1", "not 127.0.0.1"},
		{"anybody", ClientOptions{InsecureSkipVerify: true}, []string{"x"}, 0, "b.test", ""},
		{"certificate", ClientOptions{Certificate: mine}, []string{"b.test"}, tls.RequireAndVerifyClientCert, "b.test", ""},
		{"no certificate", ClientOptions{}, []string{"b.test"}, tls.RequireAndVerifyClientCert, "b.test", "certificate required"},
		{"TLS 1.2", ClientOptions{Protocol: Protocol{MaxVersion: "1.2"}}, []string{"b.test"}, 0, "b.test", ""},
		{"ALPN", ClientOptions{Protocol: Protocol{ALPN: []string{"p"}}}, []string{"b.test"}, 0, "b.test", ""},
	} {
		config := serverConfig(ca, c.certs...)
		config.ClientAuth, config.ClientCAs, config.NextProtos = c.auth, ca.Pool, []string{"p", "q"}
		if !c.o.InsecureSkipVerify {
			c.o.CA = ca.PEM
		}
		client, err := c.o.Build()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		backend := tlsBackend(t, config, func(b *tls.Conn) {
			states <- b.ConnectionState()
			_, _ = io.Copy(b, b)
		})
		r := newRig(t, backend, rigOptions{client: client.Config(c.host)})
		for i := range 2 {
			conn, err := net.Dial("tcp", r.address)
			if err == nil {
				_, _ = conn.Write([]byte("x"))
				_, err = io.ReadFull(conn, make([]byte, 1))
				conn.Close()
			}
			why := r.wantEnds()
			if c.want != "" {
				if err == nil || !strings.Contains(why, c.want) {
					t.Errorf("%s: %v, ended by %q", c.name, err, why)
				}
				break
			}
			if err != nil {
				t.Errorf("%s: %v, ended by %q", c.name, err, why)
				break
			}
			state := <-states
			if state.DidResume != (i == 1) {
				t.Errorf("%s, %d: resumed %v", c.name, i, state.DidResume)
			}
			if c.auth != 0 && state.PeerCertificates[0].Subject.CommonName != "balancer" {
				t.Errorf("%s: %v", c.name, state.PeerCertificates)
			}
			if len(c.o.ALPN) > 0 && state.NegotiatedProtocol != "p" {
				t.Errorf("%s: ALPN %q", c.name, state.NegotiatedProtocol)
			}
		}
	}
	// Each backend has its own session; NoSessions has none; ALPN can be said for one connection.
	client, err := (&ClientOptions{CA: ca.PEM, Protocol: Protocol{ALPN: []string{"a"}}}).Build()
	if err != nil {
		t.Fatal(err)
	}
	a, b := client.Config("a.test"), client.Config("b.test", "h2")
	if a.ClientSessionCache == b.ClientSessionCache || a.ServerName != "a.test" || a.NextProtos[0] != "a" || b.NextProtos[0] != "h2" {
		t.Error("configurations share what they should not")
	}
	if client, _ := (&ClientOptions{CA: ca.PEM, NoSessions: true}).Build(); client.Config("a").ClientSessionCache != nil {
		t.Error("a session cache")
	}
}
