package main

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// wantResult runs awe4lb and checks how it ends and pieces of what it says, on both outputs.
func wantResult(t *testing.T, code int, args []string, pieces ...string) {
	t.Helper()
	got, stdout, stderr := result(t, args...)
	for _, p := range pieces {
		if !strings.Contains(stdout+stderr, p) {
			t.Errorf("%q does not say %q", args, p)
		}
	}
	if got != code || t.Failed() {
		t.Errorf("%q: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
}

func TestCertSelfSigned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.pem")
	wantResult(t, 0, []string{"cert", "self-signed", "--out", path},
		path+": a key and a certificate\n", "localhost, 127.0.0.1, ::1\n", "ECDSA P-256\n", "in 36", "(SHA-256)\n",
		`certificates = [{ cert = "`+path+`" }]`, "curl --cacert trust-me.pem https://localhost/\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil || pair.Leaf.VerifyHostname("127.0.0.1") != nil {
		t.Errorf("%v", err)
	}
	wantResult(t, 1, []string{"cert", "self-signed", "--out", path}, path+" is there already: --force replaces it")
	wantResult(t, 0, []string{"cert", "self-signed", "--out", path, "--force", "--days", "400", "*.a.test", "10.0.0.7"},
		"*.a.test, 10.0.0.7\n", "https://www.a.test/", "Browsers refuse certificates for more than 398 days")
	wantResult(t, 2, []string{"cert", "self-signed", "--out", path, "--force", "a b"}, `got "a b"; want a DNS name`)
	wantResult(t, 2, []string{"cert", "self-signed", "--days", "0"}, "--days: got 0; want 1 to 3650")
	wantResult(t, 1, []string{"cert", "self-signed", "--out", "/nonexistent/x.pem"}, "/nonexistent/x.pem: no such file or directory")
	wantResult(t, 0, []string{"cert"}, "self-signed", "show")
}

func TestCertShowConfigured(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	first := lbtest.Files(t, "first.pem", cert, key)
	cert, key = ca.Issue(lbtest.Leaf{Names: []string{"*.b.test"}})
	second := lbtest.Files(t, "second.pem", cert, key)
	made := filepath.Join(t.TempDir(), "made.pem")
	path := lbtest.Files(t, "awe4lb.toml", []byte(`
[frontends.f]
bind = ["127.0.0.1:0"]
pool = "p"
[frontends.f.tls]
certificates = [{ cert = "`+first+`" }, { cert = "`+second+`" }]
[frontends.g]
bind = ["127.0.0.1:0"]
pool = "p"
[frontends.g.tls]
certificates = [{ cert = "`+made+`", self_signed = ["g.test"] }]
[frontends.h]
bind = ["127.0.0.1:0"]
pool = "p"
[pools.p]
backends = [{ address = "127.0.0.1:1" }]
`))
	show := func(args ...string) []string { return append([]string{"cert", "show", "--config", path}, args...) }
	wantResult(t, 0, show("--frontend", "f", "WWW.b.test."), "frontend f, for www.b.test:\n", "file         "+second+"\n", "names        *.b.test\n", "in 23 hours\n")
	wantResult(t, 0, show("a.test"), "frontend f, for a.test:\n", first, "frontend g, no certificate has the name a.test: the default\n")
	wantResult(t, 1, show("-f", "f", "c.test"), "no certificate has the name c.test: the default\n", first, "it has: *.b.test, a.test\n", "awe4lb: no certificate has the name c.test\n")
	wantResult(t, 0, show(), "frontend f, for clients that ask for no name:\n", first)
	wantResult(t, 0, show("g.test"), made+" (not there yet: a self-signed pair is made at the start)")
	if _, err := os.Stat(made); err == nil {
		t.Error("show has written a pair")
	}
	wantResult(t, 1, show("-f", "h", "a.test"), `no frontend "h" that terminates TLS`)
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	wantResult(t, 1, show("a.test"), path+":6: frontends.f.tls.certificates[1].cert: "+second+": no such file or directory")
}

func TestCertShowRunning(t *testing.T) {
	ca := lbtest.NewCA(t)
	pair := ca.Pair("a.test")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	lbtest.ServeOn(t, l, func(c net.Conn) { _ = c.(*tls.Conn).Handshake() })
	roots := lbtest.Files(t, "ca.pem", ca.PEM)
	show := func(args ...string) []string {
		return append([]string{"cert", "show", "--connect", l.Addr().String()}, args...)
	}
	wantResult(t, 0, show("a.test", "--ca", roots), l.Addr().String()+", for a.test:\n", "names        a.test\n", "TLS 1.3, TLS_AES_128_GCM_SHA256\n",
		"key exchange X25519MLKEM768\n", "staple       none\n", "trust        yes\n")
	wantResult(t, 1, show("b.test"), "names        a.test\n", "trust        no: ", "serves a certificate that has not the name b.test")
	wantResult(t, 0, show(), "for clients that ask for no name:\n")
	plain := lbtest.Named(t, "hello, I am no TLS server")
	wantResult(t, 1, []string{"cert", "show", "--connect", plain, "a.test"}, "it does not speak TLS")
	wantResult(t, 1, []string{"cert", "show", "--connect", lbtest.Refused(t), "a.test"}, "connection refused")
	wantResult(t, 2, []string{"cert", "show", "--connect", "nowhere", "a.test"}, `got "nowhere"; want HOST:PORT`)
	wantResult(t, 2, show("--config", "x"), "none of the others can be")
}
