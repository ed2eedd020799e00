package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/crypto/ocsp"
)

// responder is an OCSP responder of the test's own.
type responder struct {
	t   testing.TB
	r   *rig
	url string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, request *ocsp.Request) // nil: says that it is good
	asked  int
}

func newResponder(r *rig) *responder {
	o := &responder{t: r.t, r: r}
	server := httptest.NewServer(o)
	o.url = server.URL
	r.t.Cleanup(server.Close)
	return o
}

func (o *responder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	body, _ := io.ReadAll(request.Body)
	question, err := ocsp.ParseRequest(body)
	if err != nil || request.Header.Get("Content-Type") != "application/ocsp-request" {
		o.t.Errorf("a bad question: %v", err)
		return
	}
	if o.answer != nil {
		o.answer(w, question)
		return
	}
	_, _ = w.Write(o.response(question, ocsp.Response{}))
}

// response signs a response, that the certificate is good for a day if template does not say otherwise.
func (o *responder) response(question *ocsp.Request, template ocsp.Response) []byte {
	issuer, key := o.r.ca.Authority()
	return signResponse(o.t, issuer, issuer, key, question, template, o.r.now())
}

func signResponse(t testing.TB, issuer, by *x509.Certificate, key crypto.Signer, question *ocsp.Request, template ocsp.Response, now time.Time) []byte {
	t.Helper()
	template.SerialNumber = question.SerialNumber
	if template.ThisUpdate.IsZero() {
		template.ThisUpdate = now.Add(-time.Minute)
	}
	if template.NextUpdate.IsZero() {
		template.NextUpdate = now.Add(24 * time.Hour)
	}
	der, err := ocsp.CreateResponse(issuer, by, template, key)
	if err != nil {
		t.Error(err)
	}
	return der
}

func (o *responder) set(answer func(http.ResponseWriter, *ocsp.Request)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

func (o *responder) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

// issue writes a pair for a.test, with the issuer after it, whose OCSP responder is o.
func (o *responder) issue(edits ...func(*x509.Certificate)) {
	o.t.Helper()
	cert, key := o.r.ca.Issue(lbtest.Leaf{Names: []string{"a.test"}, Until: time.Now().Add(90 * 24 * time.Hour), Edit: func(c *x509.Certificate) {
		c.NotBefore = time.Now().Add(-time.Hour)
		c.OCSPServer = []string{"ldap://nobody.test", o.url}
		for _, edit := range edits {
			edit(c)
		}
	}})
	o.r.write("a.test.pem", cert, o.r.ca.PEM)
	o.r.write("a.test.key", key)
}

// staple returns what a client gets.
func (r *rig) staple(sv *Server) []byte {
	r.t.Helper()
	client := r.client("a.test")
	client.Time = r.now
	client.InsecureSkipVerify = true
	state, err, _ := shake(sv.Config, client)
	if err != nil {
		r.t.Error(err)
	}
	return state.OCSPResponse
}

// settled waits until the responder has been asked, or not, and returns the staple's status.
func (r *rig) answered() StapleStatus {
	r.t.Helper()
	lbtest.Eventually(r.t, "an answer", func() bool {
		r.k.mu.Lock()
		defer r.k.mu.Unlock()
		return r.k.fetching == 0
	})
	return r.status(0).Staple
}

func TestStapling(t *testing.T) {
	lbtest.CheckLeaks(t)
	r := newRig(t, nil)
	o := newResponder(r)
	o.issue()
	sv := r.load(frontend(aCert)).Servers["f"]
	if s := r.answered(); s.State != StapleGood || s.Since.IsZero() || s.Until.Sub(r.now()) < 23*time.Hour || s.Error != "" ||
		s.Next.Before(r.now().Add(9*time.Hour)) || s.Next.After(r.now().Add(12*time.Hour)) {
		t.Fatalf("%+v", s)
	}
	r.wantLog("OCSP response stapled", "names=[a.test]")
	first := r.staple(sv)
	if _, err := ocsp.ParseResponse(first, nil); err != nil {
		t.Fatal(err)
	}
	r.look()
	if o.count() != 1 {
		t.Errorf("asked %d times", o.count())
	}

	// Half of its life later there is another.
	r.pass(12 * time.Hour)
	r.k.look()
	r.answered()
	second := r.staple(sv)
	if bytes.Equal(first, second) || o.count() != 2 {
		t.Errorf("no new staple, asked %d times", o.count())
	}
	r.wantLog()

	// A responder that is down is asked again, not too often; the old response serves until it expires.
	o.set(func(w http.ResponseWriter, _ *ocsp.Request) { http.Error(w, "down", http.StatusServiceUnavailable) })
	r.pass(12 * time.Hour)
	r.k.look()
	if s := r.answered(); s.State != StapleGood || !strings.Contains(s.Error, "answers 503") {
		t.Errorf("%+v", s)
	}
	r.wantLog("no new OCSP response: the old one is good for a while", "answers 503", "responder="+o.url)
	before := o.count()
	for range 3 * 60 * 2 { // three hours
		r.pass(30 * time.Second)
		r.k.look()
		r.answered()
	}
	if n := o.count() - before; n < 6 || n > 12 {
		t.Errorf("asked %d times in three hours", n)
	}
	r.wantLog()
	if !bytes.Equal(r.staple(sv), second) {
		t.Error("the old staple is gone")
	}
	r.pass(10 * time.Hour)
	r.k.look()
	if s := r.answered(); s.State != StapleFailed || !s.Until.IsZero() || r.staple(sv) != nil {
		t.Errorf("an expired staple is still there: %+v", s)
	}
	r.wantLog("the OCSP response has expired and is no longer stapled")
	if r.k.Counters().StapleFailures < 7 {
		t.Errorf("%+v", r.k.Counters())
	}

	// It comes back; a reload keeps the response, and a new certificate gets its own.
	o.set(nil)
	r.pass(time.Hour)
	r.k.look()
	if s := r.answered(); s.State != StapleGood || s.Error != "" {
		t.Errorf("%+v", s)
	}
	before = o.count()
	third := r.staple(sv)
	sv = r.load(frontend(aCert + "\nmin_version = \"1.3\"")).Servers["f"]
	if r.answered(); o.count() != before || !bytes.Equal(r.staple(sv), third) {
		t.Error("a reload has forgotten the staple")
	}
	o.issue()
	r.look()
	if r.answered(); bytes.Equal(r.staple(sv), third) || r.status(0).Staple.State != StapleGood || len(r.k.staples) != 1 {
		t.Errorf("%+v, %d staples", r.status(0).Staple, len(r.k.staples))
	}
	sv = r.load(frontend(aCert + "\nocsp_stapling = false")).Servers["f"]
	if r.answered(); r.staple(sv) != nil || r.status(0).Staple.State != StapleOff || len(r.k.staples) != 0 {
		t.Errorf("%+v", r.status(0).Staple)
	}
}

// TestRevoked: what a responder says of a revoked certificate is shouted, and nothing is stapled.
func TestRevoked(t *testing.T) {
	r := newRig(t, nil)
	o := newResponder(r)
	o.issue()
	sv := r.load(frontend(aCert)).Servers["f"]
	r.answered()
	r.logged()
	o.set(func(w http.ResponseWriter, q *ocsp.Request) {
		_, _ = w.Write(o.response(q, ocsp.Response{Status: ocsp.Revoked, RevokedAt: time.Now().Add(-time.Hour)}))
	})
	r.pass(13 * time.Hour)
	r.k.look()
	if s := r.answered(); s.State != StapleRevoked || r.staple(sv) != nil {
		t.Errorf("%+v", s)
	}
	r.wantLog("level=ERROR", "CERTIFICATE REVOKED by its issuer")
	r.pass(time.Hour)
	r.k.look()
	r.answered()
	r.wantLog()
	o.set(nil) // it was on hold
	r.pass(time.Hour)
	r.k.look()
	if s := r.answered(); s.State != StapleGood || r.staple(sv) == nil {
		t.Errorf("%+v", s)
	}
}

// TestBadResponses: what is not to be stapled, and why.
func TestBadResponses(t *testing.T) {
	r := newRig(t, nil)
	o := newResponder(r)
	o.issue()
	issuer, key := r.ca.Authority()
	other, otherKey := lbtest.NewCA(t).Authority()
	delegate := func(usage ...x509.ExtKeyUsage) (*x509.Certificate, crypto.Signer) {
		k := lbtest.ECDSAKey(t)
		cert, _ := r.ca.Issue(lbtest.Leaf{Key: k, Names: []string{"responder.test"}, Edit: func(c *x509.Certificate) { c.ExtKeyUsage = usage }})
		return parse(t, cert), k
	}
	allowed, allowedKey := delegate(x509.ExtKeyUsageOCSPSigning)
	web, webKey := delegate(x509.ExtKeyUsageServerAuth)
	for _, c := range []struct {
		name string
		make func(q *ocsp.Request) []byte
		want string // "" if it is stapled
	}{
		{"good", func(q *ocsp.Request) []byte { return o.response(q, ocsp.Response{}) }, ""},
		{"delegated", func(q *ocsp.Request) []byte {
			return signResponse(t, issuer, allowed, allowedKey, q, ocsp.Response{Certificate: allowed}, r.now())
		}, ""},
		{"with the issuer's certificate", func(q *ocsp.Request) []byte {
			return signResponse(t, issuer, issuer, key, q, ocsp.Response{Certificate: issuer}, r.now())
		}, ""},
		{"by a web server of the same authority", func(q *ocsp.Request) []byte {
			return signResponse(t, issuer, web, webKey, q, ocsp.Response{Certificate: web}, r.now())
		}, "who may not sign any"},
		{"by another authority", func(q *ocsp.Request) []byte {
			return signResponse(t, issuer, other, otherKey, q, ocsp.Response{}, r.now())
		}, "bad OCSP signature"},
		{"by another authority that says so", func(q *ocsp.Request) []byte {
			return signResponse(t, issuer, other, otherKey, q, ocsp.Response{Certificate: other}, r.now())
		}, "bad OCSP signature"},
		{"another certificate", func(*ocsp.Request) []byte {
			return o.response(&ocsp.Request{SerialNumber: allowed.SerialNumber}, ocsp.Response{})
		}, "no response matching the supplied certificate"},
		{"unknown", func(q *ocsp.Request) []byte { return o.response(q, ocsp.Response{Status: ocsp.Unknown}) }, "does not know the certificate"},
		{"old", func(q *ocsp.Request) []byte {
			return o.response(q, ocsp.Response{ThisUpdate: r.now().Add(-48 * time.Hour), NextUpdate: r.now().Add(-time.Hour)})
		}, "was good until"},
		{"of tomorrow", func(q *ocsp.Request) []byte {
			return o.response(q, ocsp.Response{ThisUpdate: r.now().Add(24 * time.Hour), NextUpdate: r.now().Add(48 * time.Hour)})
		}, "is the clock right?"},
		{"try later", func(*ocsp.Request) []byte { return ocsp.TryLaterErrorResponse }, "try later"},
		{"a web page", func(*ocsp.Request) []byte { return []byte("<html>log in first</html>") }, "asn1"},
		{"endless", func(*ocsp.Request) []byte { return make([]byte, 1<<20) }, "more than 64 kB"},
		{"empty", func(*ocsp.Request) []byte { return nil }, "asn1"},
	} {
		o.set(func(w http.ResponseWriter, q *ocsp.Request) { _, _ = w.Write(c.make(q)) })
		r.load(pools) // forgets
		sv := r.load(frontend(aCert)).Servers["f"]
		s := r.answered()
		stapled := r.staple(sv) != nil
		if c.want == "" && (s.State != StapleGood || !stapled) || c.want != "" && (s.State != StapleFailed || stapled || !strings.Contains(s.Error, c.want)) {
			t.Errorf("%s: %+v, stapled %v; want %q", c.name, s, stapled, c.want)
		}
	}
}

// TestMustStaple: a certificate that is worth nothing without a staple is told apart.
func TestMustStaple(t *testing.T) {
	r := newRig(t, nil)
	o := newResponder(r)
	feature, _ := asn1.Marshal([]int{5})
	must := func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidTLSFeature, Value: feature})
	}
	o.issue(must)
	o.set(func(w http.ResponseWriter, _ *ocsp.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	r.load(frontend(aCert))
	r.answered()
	r.wantLog("level=ERROR", "no OCSP response for a certificate that demands one")
	if notes := Notes(r.parse(frontend(aCert + "\nocsp_stapling = false"))); len(notes) != 1 || !strings.Contains(notes[0], "and ocsp_stapling is off") {
		t.Errorf("%q", notes)
	}
	o.issue(must, func(c *x509.Certificate) { c.OCSPServer = nil })
	if notes := Notes(r.parse(frontend(aCert))); len(notes) != 1 || !strings.Contains(notes[0], "demands a stapled OCSP response, and names no responder") {
		t.Errorf("%q", notes)
	}
}

// TestStapleFile: a response in a file is watched, and judged like any other.
func TestStapleFile(t *testing.T) {
	r := newRig(t, nil)
	o := newResponder(r)
	o.issue()
	leaf := parse(t, read(t, r.path("a.test.pem")))
	issuer, _ := r.ca.Authority()
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	q, _ := ocsp.ParseRequest(question)
	r.write("a.ocsp", o.response(q, ocsp.Response{}))
	sv := r.load(frontend(`certificates = [{ cert = "DIR/a.test.pem", key = "DIR/a.test.key", ocsp = "DIR/a.ocsp" }]` + "\nocsp_stapling = false")).Servers["f"]
	if s := r.status(0).Staple; s.State != StapleGood || !s.Next.IsZero() || !bytes.Equal(r.staple(sv), read(t, r.path("a.ocsp"))) {
		t.Errorf("%+v", s)
	}
	r.pass(time.Hour)
	r.write("a.ocsp", o.response(q, ocsp.Response{}))
	r.look()
	r.wantLog("OCSP response has changed")
	if !bytes.Equal(r.staple(sv), read(t, r.path("a.ocsp"))) {
		t.Error("the new response is not stapled")
	}
	r.write("a.ocsp", o.response(&ocsp.Request{SerialNumber: issuer.SerialNumber}, ocsp.Response{}))
	r.look()
	if s := r.status(0).Staple; s.State != StapleGood || !strings.Contains(s.Error, "no response matching") || r.staple(sv) == nil {
		t.Errorf("a wrong response: %+v", s)
	}
	r.pass(48 * time.Hour)
	r.look()
	if r.staple(sv) != nil || o.count() != 0 {
		t.Error("an expired response is stapled, or the responder was asked")
	}
}

// FuzzJudge: what a responder may say does not bring us down, and only what the issuer signed is good.
func FuzzJudge(f *testing.F) {
	ca := lbtest.NewCA(f)
	issuer, key := ca.Authority()
	cert, _ := ca.Issue(lbtest.Leaf{Names: []string{"a.test"}})
	leaf := parse(f, cert)
	now := time.Now()
	good := signResponse(f, issuer, issuer, key, &ocsp.Request{SerialNumber: leaf.SerialNumber}, ocsp.Response{}, now)
	f.Add(good)
	f.Add(signResponse(f, issuer, issuer, key, &ocsp.Request{SerialNumber: leaf.SerialNumber}, ocsp.Response{Certificate: issuer}, now))
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, der []byte) {
		if v, err := judge(der, leaf, issuer, now); err == nil && v.until.After(now.Add(25*time.Hour)) {
			t.Errorf("good until %v", v.until)
		}
	})
}

// TestOpenSSLSeesTheStaple: to other software, too, it is one.
func TestOpenSSLSeesTheStaple(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	r := newRig(t, nil)
	o := newResponder(r)
	o.issue()
	sv := r.load(frontend(aCert)).Servers["f"]
	r.answered()
	l, err := tls.Listen("tcp", "127.0.0.1:0", sv.Config)
	if err != nil {
		t.Fatal(err)
	}
	lbtest.ServeOn(t, l, func(c net.Conn) { _ = c.(*tls.Conn).Handshake() })
	out, _ := exec.Command("openssl", "s_client", "-connect", l.Addr().String(), "-servername", "a.test", "-status",
		"-CAfile", r.write("ca.pem", r.ca.PEM)).CombinedOutput()
	for _, want := range []string{"OCSP Response Status: successful", "Cert Status: good", "Verify return code: 0 (ok)"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("openssl does not say %q:\n%s", want, out)
		}
	}
}
