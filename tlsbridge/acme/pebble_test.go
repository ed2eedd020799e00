//go:build e2e

package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// pebbleModule is Let's Encrypt's CA for tests. It comes from the Go module proxy, so that Go alone is enough to run them.
const pebbleModule = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"

// buildPebble returns the path of the program, built at the first call. Go's build cache makes that fast from the second
// run on.
var buildPebble = sync.OnceValues(func() (string, error) {
	install := exec.Command("go", "install", pebbleModule)
	install.Dir = pebbleDir // not in this module
	install.Env = append(os.Environ(), "GOBIN="+pebbleDir, "GOFLAGS=")
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w\n%s", pebbleModule, err, out)
	}
	return filepath.Join(pebbleDir, "pebble"), nil
})

var pebbleDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "awe4lb-pebble-")
	if err != nil {
		panic(err)
	}
	pebbleDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// pebble is a CA that validates at a site.
type pebble struct {
	t       *testing.T
	config  string
	address string
	dns     string
	log     *os.File
	process *exec.Cmd

	settings config.ACME // for clients, with a storage folder of its own
}

// pebbleOptions are settings of pebble.
type pebbleOptions struct {
	eab      map[string]string // key IDs and keys; not empty: required
	validity time.Duration     // of certificates; default 90 days
}

// startPebble starts a CA that looks for every name at the site.
func startPebble(t *testing.T, s *site, o pebbleOptions) *pebble {
	t.Helper()
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	p := &pebble{t: t, address: lbtest.Refused(t), dns: serveDNS(t)}
	if o.validity == 0 {
		o.validity = 90 * 24 * time.Hour
	}
	b, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": p.address, "managementListenAddress": "",
		"certificate": lbtest.Files(t, "pebble.pem", cert), "privateKey": lbtest.Files(t, "pebble.key", key),
		"httpPort": s.http.Addr().(*net.TCPAddr).Port, "tlsPort": s.tls.Addr().(*net.TCPAddr).Port,
		"externalAccountBindingRequired": len(o.eab) > 0, "externalAccountMACKeys": o.eab,
		"retryAfter": map[string]int{"authz": 0, "order": 0}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"validityPeriod": int(o.validity.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.config = lbtest.Files(t, "pebble.json", b)
	if p.log, err = os.Create(filepath.Join(t.TempDir(), "pebble.log")); err != nil {
		t.Fatal(err)
	}
	p.settings = config.ACME{Directory: "https://" + p.address + "/dir", CA: lbtest.Files(t, "ca.pem", ca.PEM),
		Email: "admin@example.com", Storage: filepath.Join(t.TempDir(), "acme"), Agree: true}
	t.Cleanup(func() {
		p.stop()
		p.log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(p.log.Name())
			t.Logf("pebble:\n%s", b[max(0, len(b)-4000):])
		}
	})
	p.start()
	return p
}

// start starts the process; it has forgotten everything it knew before.
func (p *pebble) start() {
	p.t.Helper()
	bin, err := buildPebble()
	if err != nil {
		p.t.Fatal(err)
	}
	p.process = exec.Command(bin, "-config", p.config, "-dnsserver", p.dns)
	p.process.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20", "PEBBLE_AUTHZREUSE=0", "PEBBLE_VA_ALWAYS_VALID=0")
	p.process.Stdout, p.process.Stderr = p.log, p.log
	if err := p.process.Start(); err != nil {
		p.t.Fatal(err)
	}
	lbtest.EventuallyIn(p.t, 20*time.Second, "pebble listens", func() bool {
		c, err := net.Dial("tcp", p.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (p *pebble) stop() {
	if p.process == nil {
		return
	}
	p.process.Process.Kill() //nolint:errcheck // Wait tells
	p.process.Wait()         //nolint:errcheck // killed
	p.process = nil
}

// serveDNS answers each question for an IPv4 address with 127.0.0.1, over TCP as pebble asks, and returns its address.
func serveDNS(t *testing.T) string {
	return lbtest.Serve(t, func(c *net.TCPConn) {
		for {
			var size uint16
			if binary.Read(c, binary.BigEndian, &size) != nil {
				return
			}
			b := make([]byte, size)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b) != nil || len(m.Questions) != 1 {
				return
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
					Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
			}
			answer, err := m.Pack()
			if err != nil {
				return
			}
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)) //nolint:errcheck // the reader tells
		}
	})
}

// site is what frontends are to an issuer: a port for TLS and one for plain HTTP.
type site struct {
	tls, http net.Listener
	issuer    atomic.Pointer[Issuer]
	deaf      atomic.Value // kind of challenge that is not answered: "tls", "http" or ""
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	s.deaf.Store("")
	var err error
	if s.tls, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.http, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	lbtest.ServeOn(t, s.tls, s.serveTLS)
	server := &http.Server{Handler: http.HandlerFunc(s.serveHTTP)}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(s.http) }() //nolint:errcheck // closed
	t.Cleanup(func() { server.Close(); <-done })
	return s
}

func (s *site) serveTLS(c net.Conn) {
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		i := s.issuer.Load()
		if slices.Equal(hello.SupportedProtos, []string{"acme-tls/1"}) {
			if s.deaf.Load() == "tls" {
				return nil, io.EOF
			}
			return &tls.Config{GetCertificate: i.Challenge, NextProtos: []string{"acme-tls/1"}}, nil
		}
		cert := i.Certificate(hello.ServerName)
		if cert == nil {
			return nil, io.EOF
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert.Pair()}}, nil
	}}
	c.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // a socket
	tls.Server(c, config).Handshake()               //nolint:errcheck // the client tells
}

func (s *site) serveHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, "/.well-known/acme-challenge/")
	if ok && s.deaf.Load() != "http" {
		if answer, ok := s.issuer.Load().HTTP01(token); ok {
			io.WriteString(w, answer) //nolint:errcheck // the client tells
			return
		}
	}
	http.NotFound(w, r)
}

// served returns the certificate that a client gets from the site, or nil.
func (s *site) served(name string) *x509.Certificate {
	c, err := tls.Dial("tcp", s.tls.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return nil
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// newIssuer returns an issuer that the site asks, with its log.
func (s *site) newIssuer(t *testing.T) (*Issuer, *logged) {
	t.Helper()
	l := new(logged)
	i := New(l.logger())
	i.sharePoll = 5 * time.Millisecond
	t.Cleanup(func() {
		i.Close()
		if t.Failed() {
			t.Logf("log:\n%s", l.String())
		}
	})
	s.issuer.Store(i)
	return i, l
}

// manage is Manage, which must not fail.
func manage(t *testing.T, i *Issuer, settings config.ACME, names ...string) {
	t.Helper()
	if err := i.Manage(settings, names); err != nil {
		t.Fatal(err)
	}
}

// until waits for the status of a name.
func until(t *testing.T, i *Issuer, name, what string, ok func(Status) bool) Status {
	t.Helper()
	var s Status
	lbtest.EventuallyIn(t, 40*time.Second, name+" "+what, func() bool {
		var found bool
		s, found = status(i, name)
		return found && ok(s)
	})
	return s
}

func status(i *Issuer, name string) (Status, bool) {
	all := i.Status()
	k := slices.IndexFunc(all, func(s Status) bool { return s.Name == name })
	if k < 0 {
		return Status{}, false
	}
	return all[k], true
}

// valid waits until name has a certificate that is not due, and returns its fingerprint.
func valid(t *testing.T, i *Issuer, name string) string {
	t.Helper()
	until(t, i, name, "is valid", func(s Status) bool { return s.State == Valid && !s.NextAttempt.IsZero() })
	return i.Certificate(name).Fingerprint()
}

// deactivate ends the account of an issuer at its CA.
func deactivate(t *testing.T, i *Issuer) {
	t.Helper()
	a := i.engine.authority
	a.accounts.mu.Lock()
	account := a.accounts.current
	a.accounts.mu.Unlock()
	client := a.client()
	ended := account
	ended.Status, ended.Contact = "deactivated", nil
	if _, err := client.GetDirectory(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UpdateAccount(context.Background(), ended); err != nil {
		t.Fatal(err)
	}
}

// settings are good as far as one can tell without a CA.
func settings(t *testing.T) config.ACME {
	return config.ACME{Directory: "https://" + lbtest.Refused(t) + "/dir", Storage: filepath.Join(t.TempDir(), "acme"), Agree: true}
}
