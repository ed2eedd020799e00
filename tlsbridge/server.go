package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ServerOptions say how a frontend terminates TLS.
type ServerOptions struct {
	Protocol
	Certificates *Certificates
	MayBeEmpty   bool   // Certificates may have no set yet: until it has, handshakes fail with an alert
	ClientAuth   string // "none", "request" (verified if given) or "require"; default "none", with ClientCA "require"
	ClientCA     []byte // PEM: who signs client certificates
	NoTickets    bool   // no session tickets: every handshake is a full one
}

// Build returns the configuration, or every mistake, each an *OptionError, joined. The caller keeps the ticket keys fresh
// (Tickets); until it sets them crypto/tls has its own.
func (o *ServerOptions) Build() (*tls.Config, error) {
	var m mistakes
	config := &tls.Config{SessionTicketsDisabled: o.NoTickets}
	o.apply(config, &m)
	if o.Certificates == nil || o.Certificates.Load() == nil && !o.MayBeEmpty {
		m.add("certificates", "got none; want one at least")
	} else {
		config.GetCertificate = o.Certificates.get
	}
	switch o.ClientAuth {
	case "none":
		if len(o.ClientCA) > 0 {
			m.add("client_ca", "it has no effect with client_auth none; want request or require, or no client_ca")
		}
	case "request":
		config.ClientAuth = tls.VerifyClientCertIfGiven
	case "require":
		config.ClientAuth = tls.RequireAndVerifyClientCert
	case "":
		if len(o.ClientCA) > 0 {
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
	default:
		m.add("client_auth", "got %q; want none, request or require", o.ClientAuth)
	}
	if len(o.ClientCA) > 0 {
		pool, err := parsePool(o.ClientCA)
		if err != nil {
			m.add("client_ca", "%v", err)
		}
		config.ClientCAs = pool
	} else if config.ClientAuth != tls.NoClientCert {
		m.add("client_ca", "got none; want the certificates of those who sign client certificates, in PEM")
	}
	if err := m.err(); err != nil {
		return nil, err
	}
	return config, nil
}

// parsePool returns the certificates in b, one at least, as a pool.
func parsePool(b []byte) (*x509.CertPool, error) {
	ders, err := certificateBlocks(b)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		if !cert.IsCA && !bytes.Equal(cert.RawIssuer, cert.RawSubject) { // a self-signed one vouches for itself
			return nil, fmt.Errorf("certificate %d (%s) is not an authority's", i+1, subject(cert))
		}
		pool.AddCert(cert)
	}
	return pool, nil
}

// systemPool returns the system's authorities, now: crypto/tls would read the files within the first handshake.
func systemPool() (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	if pool.Equal(x509.NewCertPool()) {
		return nil, errors.New("the system has no certificate authorities (ca-certificates); want some, or a ca of your own")
	}
	return pool, nil
}
