package certs

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// rig is a Keeper with a clock and a log of the test's own, and a folder of files.
type rig struct {
	t   testing.TB
	k   *Keeper
	ca  *lbtest.CA
	dir string

	mu    sync.Mutex
	ahead time.Duration // of the real clock
	log   bytes.Buffer
}

func newRig(t testing.TB, issuer Issuer) *rig {
	t.Helper()
	r := &rig{t: t, ca: lbtest.NewCA(t), dir: t.TempDir()}
	r.k = New(slog.New(slog.NewTextHandler(r, nil)), issuer)
	r.k.period = time.Hour // the test looks itself
	r.k.now = r.now
	t.Cleanup(r.k.Close)
	return r
}

// Write is for the log.
func (r *rig) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

// logged returns what was logged since the last call.
func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.log.String()
	r.log.Reset()
	return text
}

func (r *rig) wantLog(pieces ...string) {
	r.t.Helper()
	text := r.logged()
	for _, p := range pieces {
		if !strings.Contains(text, p) {
			r.t.Errorf("the log does not say %q:\n%s", p, text)
		}
	}
	if len(pieces) == 0 && text != "" {
		r.t.Errorf("the log says:\n%s", text)
	}
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.ahead)
}

// pass lets time pass, for the Keeper.
func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += d
}

// look looks often enough for a change to be used: it is seen, and then it is seen to have settled.
func (r *rig) look() {
	r.pass(time.Second)
	r.k.look()
	r.pass(time.Second)
	r.k.look()
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name string, pieces ...[]byte) string {
	r.t.Helper()
	if err := WriteFile(r.path(name), bytes.Join(pieces, nil), true); err != nil {
		r.t.Fatal(err)
	}
	return r.path(name)
}

// issue writes a pair for names into NAME.pem and NAME.key, of the first name.
func (r *rig) issue(l lbtest.Leaf) {
	r.t.Helper()
	cert, key := r.ca.Issue(l)
	r.write(l.Names[0]+".pem", cert)
	r.write(l.Names[0]+".key", key)
}

// parse reads a configuration in which DIR stands for the folder.
func (r *rig) parse(text string) *config.Config {
	r.t.Helper()
	cfg, err := config.Parse("awe4lb.toml", []byte(strings.ReplaceAll(text, "DIR", r.dir)))
	if err != nil {
		r.t.Fatal(err)
	}
	return cfg
}

func (r *rig) load(text string) *Set {
	r.t.Helper()
	set, err := r.k.Prepare(r.parse(text))
	if err != nil {
		r.t.Fatal(err)
	}
	r.k.Commit(set)
	return set
}

const pools = `
[pools.p]
backends = [{ address = "127.0.0.1:1" }]
`

// frontend returns a configuration with one frontend, f, whose tls table has some lines.
func frontend(lines string) string {
	return pools + "[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[frontends.f.tls]\n" + lines + "\n"
}

const aCert = `certificates = [{ cert = "DIR/a.test.pem", key = "DIR/a.test.key" }]`

// shake makes a handshake with a server configuration and returns what the client, and the server, make of it.
func shake(server, client *tls.Config) (state tls.ConnectionState, err, serverErr error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return state, err, err
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		s := tls.Server(conn, server)
		if err = s.Handshake(); err == nil {
			_, err = s.Write([]byte("x")) // with it come tickets
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		state = c.ConnectionState()
		c.Close()
	}
	return state, err, <-done
}

func (r *rig) client(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: r.ca.Pool}
}

// serial returns the serial number of what a frontend serves for a name, "" after a failed handshake.
func (r *rig) serial(sv *Server, name string) string {
	r.t.Helper()
	state, err, _ := shake(sv.Config, r.client(name))
	if err != nil {
		r.t.Error(err)
		return ""
	}
	return state.PeerCertificates[0].SerialNumber.String()
}

// TestFiles: certificates by name, one PEM or two, shared by frontends.
func TestFiles(t *testing.T) {
	lbtest.CheckLeaks(t)
	r := newRig(t, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	cert, key := r.ca.Issue(lbtest.Leaf{Names: []string{"*.b.test"}})
	r.write("b.pem", cert, key)
	set := r.load(frontend(`certificates = [{ cert = "DIR/a.test.pem", key = "DIR/a.test.key" }, { cert = "DIR/b.pem" }]
alpn = ["h2"]
[frontends.g]
bind = ["127.0.0.1:0"]
pool = "p"
[frontends.g.tls]
certificates = [{ cert = "DIR/b.pem" }]`))
	f, g := set.Servers["f"], set.Servers["g"]
	if r.serial(f, "a.test") == r.serial(f, "www.b.test") || r.serial(f, "x.b.test") != r.serial(g, "www.b.test") {
		t.Error("the wrong certificates")
	}
	if f.pairs[1] != g.pairs[0] {
		t.Error("a pair that two frontends have is read twice")
	}
	for name, want := range map[string]bool{"a.test": true, "www.b.test": true, "b.test": false, "": false, "c.test": false} {
		if f.Knows([]byte(name)) != want {
			t.Errorf("knows %q: %v", name, !want)
		}
	}
	if allocs := testing.AllocsPerRun(10, func() { f.Knows([]byte("nobody.here.test")) }); allocs > 0 {
		t.Errorf("Knows allocates %v times", allocs)
	}
	client := r.client("a.test")
	client.NextProtos = []string{"h2"}
	if state, err, _ := shake(f.Config, client); err != nil || state.NegotiatedProtocol != "h2" {
		t.Errorf("%v %v", state.NegotiatedProtocol, err)
	}
	status := r.k.Status()
	if len(status) != 3 || status[0].Frontend != "f" || status[0].File != r.path("a.test.pem") || status[2].Frontend != "g" ||
		status[1].Fingerprint != status[2].Fingerprint || status[0].Origin != OriginFile || status[0].Key != "ECDSA P-256" ||
		status[0].Changed.IsZero() || status[0].NotAfter.IsZero() || status[0].Staple.State != StapleOff || status[0].Error != "" {
		t.Errorf("%+v", status)
	}
	r.look()
	r.wantLog()
}

// TestReload: what is the same stays the same object, what has changed on disk is read again.
func TestReload(t *testing.T) {
	r := newRig(t, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	r.write("ca.pem", r.ca.PEM)
	text := frontend(aCert) + "[pools.p.tls]\nca = \"DIR/ca.pem\"\n[pools.q]\nbackends = [{ address = \"127.0.0.1:1\" }]\n[pools.q.tls]\ninsecure_skip_verify = true\n"
	first := r.load(text)
	before := r.serial(first.Servers["f"], "a.test")
	cache := tls.NewLRUClientSessionCache(1)
	client := r.client("a.test")
	client.ClientSessionCache = cache
	if _, err, _ := shake(first.Servers["f"].Config, client); err != nil {
		t.Fatal(err)
	}

	second := r.load("# the same\n" + text)
	if second.Servers["f"].Config != first.Servers["f"].Config || second.Clients["p"] != first.Clients["p"] || second.Clients["q"] != first.Clients["q"] {
		t.Error("a reload that changes nothing makes new objects")
	}
	if r.serial(second.Servers["f"], "a.test") != before {
		t.Error("another certificate")
	}
	r.logged()
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	third := r.load(text)
	if third.Servers["f"].Config != first.Servers["f"].Config || r.serial(first.Servers["f"], "a.test") == before {
		t.Error("a changed file is not read at a reload")
	}
	r.wantLog("certificate has changed: new handshakes use it")
	if state, err, _ := shake(third.Servers["f"].Config, client); err != nil || !state.DidResume {
		t.Errorf("resumed %v, %v", state.DidResume, err)
	}

	fourth := r.load(strings.Replace(text, aCert, aCert+"\nmin_version = \"1.3\"", 1))
	if fourth.Servers["f"].Config == first.Servers["f"].Config || fourth.Clients["p"] != first.Clients["p"] {
		t.Error("another table has the same objects, or the other way round")
	}
	if state, err, _ := shake(fourth.Servers["f"].Config, client); err != nil || !state.DidResume {
		t.Errorf("with another table: resumed %v, %v", state.DidResume, err)
	}
	// A set that is not committed changes nothing.
	serial := r.serial(fourth.Servers["f"], "a.test")
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	if _, err := r.k.Prepare(r.parse(text)); err != nil {
		t.Fatal(err)
	}
	if r.serial(fourth.Servers["f"], "a.test") != serial {
		t.Error("Prepare has changed what is in use")
	}
	if set := r.load(pools); len(set.Servers) != 0 || len(r.k.Status()) != 0 {
		t.Error("there is something left")
	}
}

// TestMistakes: every mistake at once, each with the place it is at.
func TestMistakes(t *testing.T) {
	r := newRig(t, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	r.issue(lbtest.Leaf{Names: []string{"b.test"}})
	r.write("empty")
	r.write("short", []byte("secret"))
	for _, other := range []string{"a3.pem", "a5.pem", "a6.pem"} { // one file serves once in a frontend
		if err := os.Symlink("a.test.pem", r.path(other)); err != nil {
			t.Fatal(err)
		}
	}
	text := `[engine]
ticket_secret = "DIR/short"
[frontends.f]
bind = ["127.0.0.1:0"]
pool = "p"
[frontends.f.tls]
certificates = [
  { cert = "DIR/none.pem", key = "DIR/a.test.key" },
  { cert = "DIR/a.test.pem", key = "DIR/b.test.key" },
  { cert = "DIR/a.test.key", key = "DIR/a.test.key" },
  { cert = "DIR/a3.pem" },
  { cert = "DIR", key = "DIR/empty" },
  { cert = "DIR/a5.pem", key = "DIR/a.test.key", ocsp = "DIR/a.test.pem" },
  { cert = "DIR/a6.pem", key = "DIR/new.key", self_signed = ["a.test"] },
  { cert = "/nonexistent/new.pem", self_signed = ["a.test"] },
  { cert = "DIR/new.pem", self_signed = ["b.test"] },
]
ciphers = [
  "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
  "AES128-SHA",
]
client_ca = "DIR/a.test.pem"
[frontends.g]
bind = ["127.0.0.1:0"]
pool = "p"
[frontends.g.tls]
certificates = [{ cert = "DIR/a.test.pem", key = "DIR/a.test.key" }]
curves = ["X25519", "curve"]
[pools.p]
backends = [{ address = "127.0.0.1:1" }]
[pools.p.tls]
ca = "DIR/empty"
cert = "DIR/a.test.pem"
key = "DIR/b.test.key"
`
	cfg, err := config.Parse("awe4lb.toml", []byte(strings.ReplaceAll(text, "DIR", r.dir)))
	if err != nil {
		t.Fatal(err)
	}
	set, err := r.k.Prepare(cfg)
	var errs Errors
	if set != nil || !errors.As(err, &errs) {
		t.Fatalf("%v %v", set, err)
	}
	want := []string{
		"awe4lb.toml:2: engine.ticket_secret: secret: got 6 bytes; want at least 32",
		"awe4lb.toml:8: frontends.f.tls.certificates[0].cert: DIR/none.pem: no such file or directory",
		"awe4lb.toml:9: frontends.f.tls.certificates[1].key: DIR/b.test.key: the key does not belong to the certificate (a.test)",
		"awe4lb.toml:10: frontends.f.tls.certificates[2].cert: DIR/a.test.key: no certificate: got PRIVATE KEY; want CERTIFICATE",
		"awe4lb.toml:11: frontends.f.tls.certificates[3].cert: DIR/a3.pem: no private key: want PEM",
		"awe4lb.toml:12: frontends.f.tls.certificates[4].cert: DIR: got a directory; want a file",
		"awe4lb.toml:13: frontends.f.tls.certificates[5].ocsp: DIR/a.test.pem: no OCSP response; want one in DER",
		"awe4lb.toml:14: frontends.f.tls.certificates[6].self_signed: got DIR/a6.pem and no DIR/new.key; want both, or neither",
		"awe4lb.toml:15: frontends.f.tls.certificates[7].cert: /nonexistent/new.pem: it is to be made, and /nonexistent is no folder",
		`awe4lb.toml:20: frontends.f.tls.ciphers[1]: got "AES128-SHA"; want`,
		"awe4lb.toml:22: frontends.f.tls.client_ca: DIR/a.test.pem: certificate 1 (a.test) is not an authority's",
		`awe4lb.toml:28: frontends.g.tls.curves[1]: got "curve"; want X25519`,
		"awe4lb.toml:32: pools.p.tls.ca: DIR/empty: it is empty",
	}
	for i, w := range want {
		if i >= len(errs) {
			t.Errorf("missing: %s", w)
		} else if w = strings.ReplaceAll(w, "DIR", r.dir); !strings.HasPrefix(errs[i].Error(), w) {
			t.Errorf("got  %s\nwant %s", errs[i], w)
		}
	}
	for _, e := range errs[min(len(want), len(errs)):] {
		t.Errorf("and %s", e)
	}
	if got := Check(cfg); len(got) != len(errs) {
		t.Errorf("Check finds %d mistakes, Prepare %d", len(got), len(errs))
	}
	if len(r.k.Status()) != 0 {
		t.Error("something is in use")
	}
}

// TestPoolsFollowFiles: authorities and our certificate towards backends change while configurations are in use.
func TestPoolsFollowFiles(t *testing.T) {
	r := newRig(t, nil)
	other := lbtest.NewCA(t)
	r.write("ca.pem", r.ca.PEM)
	cert, key := r.ca.Issue(lbtest.Leaf{Names: []string{"one"}})
	r.write("own.pem", cert, key)
	set := r.load(pools + "[frontends.f]\nbind=[\"127.0.0.1:0\"]\npool=\"p\"\n[pools.p.tls]\nca = \"DIR/ca.pem\"\ncert = \"DIR/own.pem\"\nserver_name = \"b.test\"\n")
	config := set.Clients["p"].Config("10.0.0.1")
	backend := func(ca *lbtest.CA) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{ca.Pair("b.test")}, ClientAuth: tls.RequestClientCert}
	}
	mine, theirs := backend(r.ca), backend(other)
	for _, want := range []bool{false, true} {
		if state, err, _ := shake(mine, config); err != nil || state.DidResume != want {
			t.Fatalf("resumed %v, %v", state.DidResume, err)
		}
	}
	if _, err, _ := shake(theirs, config); err == nil {
		t.Error("a stranger is trusted")
	}
	if status := r.k.Status(); len(status) != 1 || status[0].Pool != "p" || !slices.Equal(status[0].Names, []string{"one"}) {
		t.Errorf("%+v", status)
	}

	r.write("ca.pem", other.PEM)
	cert, key = r.ca.Issue(lbtest.Leaf{Names: []string{"two"}})
	r.write("own.pem", cert, key)
	r.look()
	r.wantLog("towards backends has changed", "names=[two]")
	if _, err, _ := shake(mine, config); err == nil {
		t.Error("who is no longer trusted resumes a session")
	}
	seen := ""
	theirs.VerifyConnection = func(state tls.ConnectionState) error {
		seen = fmt.Sprint(state.PeerCertificates[0].DNSNames)
		return nil
	}
	if _, err, _ := shake(theirs, config); err != nil || seen != "[two]" {
		t.Errorf("%v, we showed %s", err, seen)
	}
}

// TestSecretMistake: a secret that is no good is a mistake beside frontends without one.
func TestSecretMistake(t *testing.T) {
	r := newRig(t, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	_, err := r.k.Prepare(r.parse("[engine]\nticket_secret = \"DIR/none\"\n" + frontend(aCert)))
	if err == nil || err.Error() != "awe4lb.toml:2: engine.ticket_secret: "+r.path("none")+": no such file or directory" {
		t.Error(err)
	}
}

// TestNotes: what is odd and does not keep a configuration from being used.
func TestNotes(t *testing.T) {
	r := newRig(t, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	r.write("secret", bytes.Repeat([]byte("s"), 32))
	r.write("ca.pem", r.ca.PEM)
	if err := os.Symlink("a.test.pem", r.path("again.pem")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.test.key", "secret"} {
		if err := os.Chmod(r.path(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	notes := Notes(r.parse("[engine]\nticket_secret = \"DIR/secret\"\n" + frontend(aCert) +
		"[frontends.g]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[frontends.g.tls]\ncertificates = [{ cert = \"DIR/a.test.pem\", key = \"DIR/a.test.key\" }, { cert = \"DIR/again.pem\", key = \"DIR/a.test.key\" }]\n"))
	for i, want := range []string{
		"awe4lb.toml:2: engine.ticket_secret: everybody on this host may read " + r.path("secret") + ": chmod 600 it",
		"awe4lb.toml:10: frontends.f.tls.certificates[0].key: everybody on this host may read the key in " + r.path("a.test.key"),
		"awe4lb.toml:15: frontends.g.tls.certificates[1].key: everybody on this host may read the key in " + r.path("a.test.key"),
		"awe4lb.toml:15: frontends.g.tls.certificates: \"a.test\" is in two certificates with the same kind of key; the first serves it",
	} {
		if i >= len(notes) || !strings.HasPrefix(notes[i], want) {
			t.Errorf("%q; want %s", notes, want)
		}
	}
}

// TestAnyTable: without a file to say where things are, mistakes have a path.
func TestAnyTable(t *testing.T) {
	r := newRig(t, nil)
	cfg := &config.Config{Frontends: []*config.Frontend{{Name: "f", TLS: &config.FrontendTLS{Certificates: []*config.CertificateFiles{{Cert: "/none"}}}}}}
	_, err := r.k.Prepare(cfg)
	if err == nil || err.Error() != "frontends.f.tls.certificates[0].cert: /none: no such file or directory" {
		t.Error(err)
	}
}
