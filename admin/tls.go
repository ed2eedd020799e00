package admin

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"awe4lb/config"
	"awe4lb/internal/filestamp"
)

// secure is the admin's TLS: files that change are read again, and when they cannot be used those before them stay.
type secure struct {
	// Set once, never changed.
	c   *config.AdminTLS
	log *slog.Logger

	// Guarded by mu.
	mu     sync.Mutex
	stamps []filestamp.Stamp // of the files that were last tried
	looked time.Time
	now    *tls.Config
}

// tlsLook is how often, at the most, the files are looked at.
const tlsLook = time.Second

// newSecure reads the files of c.
func newSecure(c *config.AdminTLS, log *slog.Logger) (*secure, error) {
	s := &secure{c: c, log: log}
	var err error
	s.stamps = s.stamp()
	if s.now, err = s.read(); err != nil {
		return nil, err
	}
	s.looked = time.Now()
	return s, nil
}

// config returns what a listener takes.
func (s *secure) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return s.current(), nil
	}}
}

// trusts reports whether the client has a certificate that counts now: connections outlive certificates, and client_ca may change.
func (s *secure) trusts(state *tls.ConnectionState) bool {
	if s == nil || state == nil || len(state.VerifiedChains) == 0 {
		return false
	}
	roots := s.current().ClientCAs
	if roots == nil {
		return false
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(o)
	return err == nil
}

func (s *secure) files() []string {
	files := []string{s.c.Cert}
	for _, f := range []string{s.c.Key, s.c.ClientCA} {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

func (s *secure) stamp() (stamps []filestamp.Stamp) {
	for _, f := range s.files() {
		stamps = append(stamps, filestamp.Of(os.Stat(f)))
	}
	return stamps
}

// current returns the settings for a new connection.
func (s *secure) current() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.looked) < tlsLook {
		return s.now
	}
	s.looked = now
	stamps, same := s.stamp(), true
	for i, stamp := range stamps {
		same = same && stamp == s.stamps[i]
		if !stamp.Final(now) { // it may still be written
			return s.now
		}
	}
	if same {
		return s.now
	}
	s.stamps = stamps
	next, err := s.read()
	if err != nil {
		s.log.Error("admin: the certificate cannot be used; the one before it stays", "error", err)
		return s.now
	}
	s.log.Info("admin: the certificate has changed", "file", s.c.Cert)
	s.now = next
	return s.now
}

func (s *secure) read() (*tls.Config, error) {
	key := s.c.Key
	if key == "" {
		key = s.c.Cert
	}
	pair, err := tls.LoadX509KeyPair(s.c.Cert, key)
	if err != nil {
		return nil, fmt.Errorf("admin.tls: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if s.c.ClientCA != "" {
		pem, err := os.ReadFile(s.c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("admin.tls.client_ca: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("admin.tls.client_ca: %s has no certificate", s.c.ClientCA)
		}
		t.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return t, nil
}
