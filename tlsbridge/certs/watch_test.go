package certs

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
	"awe4lb/tlsbridge"
)

func (r *rig) status(i int) CertificateStatus { return r.k.Status()[i] }

// TestChangedFiles walks a pair through what happens to files: it is replaced, half written, wrong, gone, back.
func TestChangedFiles(t *testing.T) {
	r := newRig(t, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	sv := r.load(frontend(aCert)).Servers["f"]
	first := r.serial(sv, "a.test")
	r.look()
	r.wantLog()

	// Seen once is not enough: the key may follow.
	cert, key := r.ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	r.write("a.test.pem", cert)
	r.k.look()
	r.write("a.test.key", key)
	r.k.look()
	if r.serial(sv, "a.test") != first {
		t.Error("used before it has settled")
	}
	r.look()
	second := r.serial(sv, "a.test")
	if second == first {
		t.Error("a new pair is not used")
	}
	r.wantLog(`msg="certificate has changed: new handshakes use it" for=frontends.f.tls.certificates[0]`, "names=[a.test]", "fingerprint="+r.status(0).Fingerprint)

	// A chain without its key: told once, and the old pair stays.
	other, _ := r.ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	r.write("a.test.pem", other)
	r.look()
	r.wantLog("certificate has changed and cannot be used: the old one stays in use", "the key does not belong to the certificate")
	r.look()
	r.wantLog()
	if r.serial(sv, "a.test") != second || !strings.Contains(r.status(0).Error, "does not belong") || len(r.k.Problems()) != 1 {
		t.Errorf("%+v %q", r.status(0), r.k.Problems())
	}
	// Another mistake is told as well; no file at all is one.
	if err := os.Remove(r.path("a.test.key")); err != nil {
		t.Fatal(err)
	}
	r.look()
	r.wantLog("cannot be used", "a.test.key: no such file or directory")
	r.look()
	r.wantLog()
	// The same bytes in new files are nothing new.
	r.write("a.test.pem", cert)
	r.write("a.test.key", key)
	r.look()
	r.wantLog("certificate: the files in use are back")
	if r.serial(sv, "a.test") != second || r.status(0).Error != "" || len(r.k.Problems()) != 0 {
		t.Errorf("%+v", r.status(0))
	}
	if c := r.k.Counters(); c != (Counters{ReloadsOK: 1, ReloadsFailed: 2}) {
		t.Errorf("%+v", c)
	}
}

// TestFilesBehindLinks: what Kubernetes does. The files are links into a folder that is itself a link, which is replaced.
func TestFilesBehindLinks(t *testing.T) {
	r := newRig(t, nil)
	put := func(n string) {
		t.Helper()
		cert, key := r.ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
		if err := os.Mkdir(r.path("..v"+n), 0o700); err != nil {
			t.Fatal(err)
		}
		r.write("..v"+n+"/tls.crt", cert)
		r.write("..v"+n+"/tls.key", key)
		if err := errors.Join(os.Symlink("..v"+n, r.path("..new")), os.Rename(r.path("..new"), r.path("..data"))); err != nil {
			t.Fatal(err)
		}
	}
	put("1")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, r.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	sv := r.load(frontend(`certificates = [{ cert = "DIR/tls.crt", key = "DIR/tls.key" }]`)).Servers["f"]
	first := r.serial(sv, "a.test")
	put("2")
	r.look()
	if r.serial(sv, "a.test") == first {
		t.Error("a swapped link is not noticed")
	}
}

const agreed = "[acme]\nagree = true\n"

// TestSameStamp: a file that is written again at once, with the same size and time, is read again.
func TestSameStamp(t *testing.T) {
	r := newRig(t, nil)
	path := r.write("secret", []byte(strings.Repeat("a", 32)))
	set := r.load(agreed + "[engine]\nticket_secret = \"DIR/secret\"\n" + frontend(`acme = ["a.test"]`))
	if set.secret.used != nil {
		t.Skip("more than 50 ms since the file was written")
	}
	before := set.tickets().Keys("f", r.now())
	info, _ := os.Stat(path)
	if err := errors.Join(os.WriteFile(path, []byte(strings.Repeat("b", 32)), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	r.look()
	r.look()
	if after := set.tickets().Keys("f", r.now()); after[0] == before[0] {
		t.Error("the new secret is not used")
	}
}

// TestWatchByItself: the Keeper's own goroutine does all this.
func TestWatchByItself(t *testing.T) {
	lbtest.CheckLeaks(t)
	r := newRig(t, nil)
	r.k.period = 5 * time.Millisecond
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	sv := r.load(frontend(aCert)).Servers["f"]
	first := r.serial(sv, "a.test")
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	lbtest.Eventually(t, "the new certificate", func() bool { return r.serial(sv, "a.test") != first })
}

// TestClientCA: who may connect changes with the file, sessions resume across it, but not those of who may no longer.
func TestClientCA(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := newRig(t, nil)
		other := lbtest.NewCA(t)
		r.issue(lbtest.Leaf{Names: []string{"a.test"}})
		r.write("clients.pem", r.ca.PEM)
		sv := r.load(frontend(aCert + "\nclient_ca = \"DIR/clients.pem\"")).Servers["f"]
		client := func(pair tls.Certificate) *tls.Config {
			c := r.client("a.test")
			c.Certificates, c.MaxVersion, c.ClientSessionCache = []tls.Certificate{pair}, version, tls.NewLRUClientSessionCache(1)
			return c
		}
		mine, theirs := client(r.ca.Pair("mine")), client(other.Pair("theirs"))
		wants := func(what string, c *tls.Config, admitted, resumed bool) {
			t.Helper()
			state, err, serverErr := shake(sv.Config, c)
			if (err == nil && serverErr == nil) != admitted || state.DidResume != resumed {
				t.Errorf("%s, %s: resumed %v, %v, %v", tls.VersionName(version), what, state.DidResume, err, serverErr)
			}
		}
		wants("ours", mine, true, false)
		wants("ours again", mine, true, true)
		wants("theirs", theirs, false, false)
		wants("nobody", client(tls.Certificate{}), false, false)
		r.write("clients.pem", r.ca.PEM, other.PEM)
		r.look()
		r.wantLog("client_ca has changed")
		wants("theirs, now", theirs, true, false)
		wants("ours, after the change", mine, true, true)
		r.write("clients.pem", other.PEM)
		r.look()
		wants("ours, no longer", mine, false, false)
		wants("theirs, still", theirs, true, true)
		// Nonsense changes nothing; a reload with the same table has what the file holds now.
		r.write("clients.pem", []byte("nonsense"))
		r.look()
		r.wantLog("client_ca has changed and cannot be used", "clients.pem: no certificate")
		wants("theirs, with nonsense in the file", theirs, true, true)
		r.write("clients.pem", r.ca.PEM)
		if again := r.load(frontend(aCert + "\nclient_ca = \"DIR/clients.pem\"")).Servers["f"]; again.Config != sv.Config {
			t.Error("another configuration")
		}
		wants("ours, after a reload", client(r.ca.Pair("mine")), true, false)
		wants("theirs, after a reload", theirs, false, false)
	}
}

// TestTicketKeys: keys change by the clock and with the secret's file; old ones are good for a while; two nodes with the
// same secret resume each other's sessions.
func TestTicketKeys(t *testing.T) {
	r, peer := newRig(t, nil), newRig(t, nil)
	secret := []byte(strings.Repeat("s", 32))
	for _, secretLine := range []string{"", "[engine]\nticket_secret = \"DIR/secret\"\n"} {
		r.issue(lbtest.Leaf{Names: []string{"a.test"}})
		r.write("secret", secret)
		sv := r.load(secretLine + frontend(aCert)).Servers["f"]
		client := r.client("a.test")
		resumes := func(what string, on *Server, want bool) {
			t.Helper()
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			if _, err, _ := shake(sv.Config, client); err != nil {
				t.Fatal(err)
			}
			if on == nil { // time passes
				r.pass(tlsbridge.TicketPeriod)
				r.k.look()
				on = sv
			}
			if state, err, _ := shake(on.Config, client); err != nil || state.DidResume != want {
				t.Errorf("%s: resumed %v, %v", what, state.DidResume, err)
			}
		}
		resumes("at once", sv, true)
		resumes("a period later", nil, true)
		current := r.k.set.tickets().Keys("f", r.now())[0]
		r.pass(tlsbridge.TicketPeriod)
		if r.k.look(); r.k.set.tickets().Keys("f", r.now())[0] == current || !r.k.rotate.After(r.now()) {
			t.Error("the keys do not change")
		}
		if secretLine == "" {
			continue
		}
		peer.issue(lbtest.Leaf{Names: []string{"a.test"}})
		peer.write("secret", secret)
		peer.ahead = r.ahead
		node := peer.load(secretLine + frontend(aCert)).Servers["f"]
		client.RootCAs.AddCert(parse(t, peer.ca.PEM))
		client.InsecureSkipVerify = true
		resumes("at another node", node, true)
		peer.write("secret", []byte(strings.Repeat("t", 32)))
		peer.look()
		peer.wantLog("ticket_secret has changed")
		resumes("at a node with another secret", node, false)
		peer.write("secret", []byte("short"))
		peer.look()
		peer.wantLog("ticket_secret has changed and cannot be used", "got 5 bytes")
	}
	r.load(frontend(aCert + "\nsession_tickets = false"))
}

// TestSelfSigned: a pair is made when there is none, by Commit, kept when there is one, and made anew when it has expired.
func TestSelfSigned(t *testing.T) {
	for _, files := range []string{`cert = "DIR/new.pem"`, `cert = "DIR/new.pem", key = "DIR/new.key"`} {
		r := newRig(t, nil)
		text := frontend("certificates = [{ " + files + `, self_signed = ["localhost", "*.local.test", "127.0.0.1", "::1"] }]`)
		cfg := r.parse(text)
		if errs := Check(cfg); len(errs) > 0 {
			t.Fatal(errs)
		}
		if notes := Notes(cfg); len(notes) != 1 || !strings.Contains(notes[0], "self_signed: a self-signed pair for localhost, *.local.test, 127.0.0.1, ::1 is made at the start") {
			t.Errorf("%q", notes)
		}
		set, err := r.k.Prepare(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(r.dir); len(left) > 0 {
			t.Errorf("Check or Prepare has written %v", left)
		}
		r.k.Commit(set)
		r.wantLog("a self-signed pair was made")
		sv := set.Servers["f"]
		for _, path := range sv.pairs[0].cert.paths {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", path, info, err)
			}
		}
		if left, _ := os.ReadDir(r.dir); len(left) != len(sv.pairs[0].cert.paths) {
			t.Errorf("files left behind: %v", left)
		}
		made, err := os.ReadFile(r.path("new.pem"))
		if err != nil {
			t.Fatal(err)
		}
		leaf := parse(t, made)
		for _, name := range []string{"localhost", "x.local.test", "127.0.0.1", "::1"} {
			client := &tls.Config{ServerName: name, RootCAs: rootsOf(t, made)}
			if _, err, _ := shake(sv.Config, client); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if leaf.IsCA || leaf.NotAfter.Sub(leaf.NotBefore) > 366*24*time.Hour {
			t.Errorf("an authority, or good for too long: until %v", leaf.NotAfter)
		}
		r.look()
		r.look()
		r.wantLog()
		if s := r.status(0); s.Origin != OriginSelfSigned || s.Unwritten {
			t.Errorf("%+v", s)
		}

		// It is kept, by a reload and a restart.
		if again := r.load(text).Servers["f"]; again != sv {
			t.Error("a reload has another")
		}
		r.logged()
		next := newRig(t, nil)
		next.dir = r.dir
		if kept := next.load(text).Servers["f"]; kept.pairs[0].certificate.Fingerprint() != sv.pairs[0].certificate.Fingerprint() {
			t.Error("a restart makes another")
		}
		next.wantLog()

		// Expired, it is made anew, while running or at the start.
		r.pass(366 * 24 * time.Hour)
		r.look()
		r.wantLog("a self-signed pair was made")
		if sv.pairs[0].certificate.NotAfter.Before(r.now()) || parse(t, read(t, r.path("new.pem"))).SerialNumber.Cmp(leaf.SerialNumber) == 0 {
			t.Error("no new one")
		}
		r.look()
		r.look()
		r.wantLog()
		last := newRig(t, nil)
		last.dir = r.dir
		last.pass(800 * 24 * time.Hour)
		last.load(text)
		last.wantLog("a self-signed pair was made")

		// Other names do not touch it.
		more := last.load(strings.Replace(text, `"localhost",`, `"localhost", "more.test",`, 1))
		last.wantLog("new.pem is there and has no name more.test; remove it to have another made")
		if len(more.Servers) != 1 {
			t.Error("no server")
		}
	}
}

// TestSelfSignedOwner: what root makes belongs to the user that the process becomes, who has to read it at a reload.
func TestSelfSignedOwner(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("only root gives files away")
	}
	r := newRig(t, nil)
	r.load("[engine]\nuser = \"nobody\"\n" + frontend(`certificates = [{ cert = "DIR/new.pem", self_signed = ["localhost"] }]`))
	info, err := os.Stat(r.path("new.pem"))
	if err != nil || strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid)) != nobody.Uid {
		t.Errorf("%+v %v", info, err)
	}
}

// TestSelfSignedUnwritten: a folder that takes no file does not keep the process from running.
func TestSelfSignedUnwritten(t *testing.T) {
	r := newRig(t, nil)
	if err := os.Mkdir(r.path("sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	set, err := r.k.Prepare(r.parse(frontend(`certificates = [{ cert = "DIR/sub/new.pem", self_signed = ["localhost"] }]`)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path("sub")); err != nil {
		t.Fatal(err)
	}
	r.k.Commit(set)
	r.wantLog("cannot be written: it lasts until the end of this process")
	if s := r.status(0); !s.Unwritten {
		t.Errorf("%+v", s)
	}
	if _, err, _ := shake(set.Servers["f"].Config, &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Error(err)
	}
	r.look()
	r.wantLog()
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, []byte("1"), false); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("2"), false); !errors.Is(err, fs.ErrExist) || string(read(t, path)) != "1" {
		t.Error(err)
	}
	if err := WriteFile(path, []byte("3"), true); err != nil || string(read(t, path)) != "3" {
		t.Error(err)
	}
}

// TestExpiryWarnings: each stage is told once, by its days, and no stage that is normal for a short life.
func TestExpiryWarnings(t *testing.T) {
	r := newRig(t, nil)
	const day = 24 * time.Hour
	lasting := func(days int) {
		from := time.Now().Add(-time.Hour)
		r.issue(lbtest.Leaf{Names: []string{"a.test"}, Until: from.Add(time.Duration(days) * day), Edit: notBefore(from)})
	}
	lasting(365)
	text := frontend(aCert)
	r.load(text)
	for _, s := range []struct {
		days int // at which it is asked
		want string
	}{{300, ""}, {336, "expires in 28 days"}, {337, ""}, {352, "expires in 12 days"}, {359, "expires in 5 days"}, {363, "expires in 46 hours"},
		{364, "expires in 22 hours"}, {364, ""}, {366, "certificate has EXPIRED"}, {400, ""}} {
		r.ahead = time.Duration(s.days) * day
		r.k.look()
		if s.want == "" {
			r.wantLog()
		} else {
			r.wantLog(s.want, "frontend=f", "a.test.pem")
		}
	}
	// One that comes late hears only the last; a reload repeats nothing; a new certificate begins anew.
	r.ahead = 0
	lasting(6) // 6 days: a month before is normal, a day is not
	r.load(text)
	r.wantLog("certificate has changed")
	r.ahead = 5*day + time.Hour
	r.k.look()
	r.wantLog("expires in 2")
	r.load(text)
	r.wantLog()
	r.ahead = 0
	expired := time.Now().Add(-time.Hour)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}, Until: expired})
	if notes := Notes(r.parse(text)); len(notes) != 1 || !strings.Contains(notes[0], "certificates[0].cert: "+r.path("a.test.pem")+": expired at") {
		t.Errorf("%q", notes)
	}
}

// TestIssuer: certificates come and go by themselves; challenges are answered, whatever else the frontend asks for.
func TestIssuer(t *testing.T) {
	lbtest.CheckLeaks(t)
	issuer := &fakeIssuer{changed: make(chan struct{}, 1), certs: map[string]*tlsbridge.Certificate{}}
	r := newRig(t, issuer)
	issuer.ca = r.ca
	r.write("clients.pem", r.ca.PEM)
	set := r.load(agreed + frontend("acme = [\"a.test\", \"b.test\"]\nclient_ca = \"DIR/clients.pem\"\nalpn = [\"h2\"]"))
	sv := set.Servers["f"]
	if strings.Join(issuer.wanted, " ") != "a.test b.test" {
		t.Errorf("wanted %q", issuer.wanted)
	}
	client := r.client("a.test")
	client.Certificates = []tls.Certificate{r.ca.Pair("me")}
	if _, err, serverErr := shake(sv.Config, client); err == nil || !errors.Is(serverErr, tlsbridge.ErrNoCertificate) {
		t.Errorf("%v, %v", err, serverErr)
	}
	challenge := &tls.Config{ServerName: "b.test", RootCAs: r.ca.Pool, NextProtos: []string{"acme-tls/1"}}
	challenges := func() {
		t.Helper()
		state, err, _ := shake(sv.Config, challenge)
		if err != nil || state.NegotiatedProtocol != "acme-tls/1" || state.PeerCertificates[0].SerialNumber.Int64() != 77 {
			t.Errorf("%v %v", state.NegotiatedProtocol, err)
		}
	}
	challenges()
	if s := r.k.Status(); len(s) != 2 || s[1].Names[0] != "b.test" || s[1].Origin != OriginACME || !s[1].NotAfter.IsZero() {
		t.Errorf("%+v", s)
	}
	if !sv.Knows([]byte("b.test")) || sv.Knows([]byte("c.test")) {
		t.Error("it must know the names it waits for, and no others")
	}
	issuer.issue(t, "a.test")
	lbtest.Eventually(t, "the certificate", func() bool {
		_, err, _ := shake(sv.Config, client)
		return err == nil
	})
	if s := r.k.Status(); len(s) != 2 || s[0].NotAfter.IsZero() || s[0].Frontend != "f" || !s[1].NotAfter.IsZero() {
		t.Errorf("%+v", s)
	}
	challenges()
	r.load(pools)
	if len(issuer.wanted) != 0 {
		t.Errorf("still wanted %q", issuer.wanted)
	}
}

// fakeIssuer has what the test gives it. It is only used by one goroutine at a time but for the certificates.
type fakeIssuer struct {
	ca      *lbtest.CA
	changed chan struct{}
	wanted  []string
	certs   map[string]*tlsbridge.Certificate
}

func (f *fakeIssuer) Manage(_ config.ACME, names []string) error {
	f.wanted = names
	return nil
}

func (f *fakeIssuer) Certificate(name string) *tlsbridge.Certificate { return f.certs[name] }
func (f *fakeIssuer) Changed() <-chan struct{}                       { return f.changed }

func (f *fakeIssuer) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, key := f.ca.Issue(lbtest.Leaf{Names: []string{hello.ServerName}, Edit: serial(77)})
	pair, err := tls.X509KeyPair(cert, key)
	return &pair, err
}

func (f *fakeIssuer) issue(t testing.TB, name string) {
	t.Helper()
	c, err := tlsbridge.ParseCertificate(f.ca.Issue(lbtest.Leaf{Names: []string{name}}))
	if err != nil {
		t.Fatal(err)
	}
	f.certs[name] = c
	f.changed <- struct{}{}
}

// BenchmarkLook is a look at 1,000 pairs that have not changed.
func BenchmarkLook(b *testing.B) {
	r := newRig(b, nil)
	r.issue(lbtest.Leaf{Names: []string{"a.test"}})
	cert, key := read(b, r.path("a.test.pem")), read(b, r.path("a.test.key"))
	var list strings.Builder
	for i := range 1000 {
		name := strconv.Itoa(i)
		r.write(name+".pem", cert)
		r.write(name+".key", key)
		list.WriteString(`{ cert = "DIR/` + name + `.pem", key = "DIR/` + name + `.key" },` + "\n")
	}
	r.load(frontend("certificates = [" + list.String() + "]"))
	r.look()
	r.look()
	b.ReportAllocs()
	for b.Loop() {
		r.k.look()
	}
}
