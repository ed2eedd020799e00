package tlsbridge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// ClientOptions say how TLS is spoken to the backends of a pool.
type ClientOptions struct {
	Protocol
	CA                 []byte       // PEM: whom to trust; nil: the authorities of the system
	ServerName         string       // whom to expect, and to ask for by SNI; "": each backend's own host, see Config
	Certificate        *Certificate // to show when asked; nil: none
	InsecureSkipVerify bool         // trust anybody: the caller warns
	NoSessions         bool         // every handshake is a full one
}

// Client makes the configurations for the backends of a pool. Whom it trusts and the certificate it shows can be exchanged
// while its configurations are in use: see Adopt.
type Client struct {
	// Set once, never changed.
	base       *tls.Config
	noSessions bool

	// Shared: atomics.
	ends atomic.Pointer[ends]
}

// ends is what a Client says of the two ends. Immutable.
type ends struct {
	roots *x509.CertPool   // nil: anybody is trusted
	own   *tls.Certificate // nil: none
}

// Build returns the Client, or every mistake, each an *OptionError, joined. It may read the system's authorities.
func (o *ClientOptions) Build() (*Client, error) {
	var m mistakes
	config := &tls.Config{InsecureSkipVerify: o.InsecureSkipVerify, Renegotiation: tls.RenegotiateNever}
	o.apply(config, &m)
	var err error
	e := new(ends)
	switch {
	case o.InsecureSkipVerify && len(o.CA) > 0:
		m.add("insecure_skip_verify", "with it ca has no effect; want one of the two")
	case len(o.CA) > 0:
		e.roots, err = parsePool(o.CA)
	case !o.InsecureSkipVerify:
		e.roots, err = systemPool()
	}
	if err != nil {
		m.add("ca", "%v", err)
	}
	if o.ServerName != "" {
		if config.ServerName = strings.TrimSuffix(o.ServerName, "."); !hostName(config.ServerName) {
			m.add("server_name", "got %q; want a DNS name or an IP address", o.ServerName)
		}
	}
	if o.Certificate != nil {
		e.own = &o.Certificate.pair
	}
	if err := m.err(); err != nil {
		return nil, err
	}
	c := &Client{base: config, noSessions: o.NoSessions}
	c.ends.Store(e)
	return c, nil
}

// Adopt takes over the authorities and the certificate of another Client, built of options that differ in nothing else:
// the configurations that c has made use them in the handshakes that follow, without the sessions they kept, which were
// opened to another's eyes. Safe from any goroutine.
func (c *Client) Adopt(other *Client) { c.ends.Store(other.ends.Load()) }

// hostName reports whether name can be asked for or verified.
func hostName(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	h := new(Hello)
	return len(name) > 0 && !strings.ContainsAny(name, "*/ ") && h.setName([]byte(name)) && !h.ipName
}

// Config returns the configuration for one backend, with a place of its own for the last session: make it once, when the
// backend appears, and keep it. host, a name or an IP address, is whom to expect where server_name is not set. alpn, if
// not empty, takes the place of the pool's: say what the client has agreed on.
func (c *Client) Config(host string, alpn ...string) *tls.Config {
	config := c.base.Clone()
	if config.ServerName == "" {
		config.ServerName = strings.TrimSuffix(host, ".")
	}
	if len(alpn) > 0 {
		config.NextProtos = alpn
	}
	// crypto/tls has no way to exchange RootCAs of a configuration in use. So it is told to verify nothing, and verify does
	// what it would have done. A session that is resumed was verified when it began, by the same authorities: see lastSession.
	sessions := &lastSession{client: c}
	if !c.noSessions {
		config.ClientSessionCache = sessions
	}
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume {
			return nil
		}
		good, err := c.verify(config.ServerName, state.PeerCertificates)
		if err == nil {
			sessions.good.Store(good)
		}
		return err
	}
	config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if own := c.ends.Load().own; own != nil && request.SupportsCertificate(own) == nil {
			return own, nil
		}
		return new(tls.Certificate), nil // none; nil is not allowed
	}
	return config
}

// verdict is that a backend's chain is good. Immutable.
type verdict struct {
	by    *ends
	until time.Time
}

// verify judges a backend's chain, as crypto/tls does without InsecureSkipVerify.
func (c *Client) verify(name string, chain []*x509.Certificate) (*verdict, error) {
	good := &verdict{by: c.ends.Load(), until: chain[0].NotAfter}
	if good.by.roots == nil {
		return good, nil
	}
	if name == "" { // Verify would take any name
		return nil, errors.New("no name to expect of the backend: want server_name")
	}
	o := x509.VerifyOptions{Roots: good.by.roots, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	verified, err := chain[0].Verify(o)
	if err != nil {
		return nil, &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	for _, cert := range verified[0] {
		if cert.NotAfter.Before(good.until) {
			good.until = cert.NotAfter
		}
	}
	return good, nil
}

// lastSession is a session cache for one backend: the last session it gave. One is enough, tickets may be used more than
// once; and it needs no lock, because tickets of TLS 1.3 arrive while a shard is reading. A session is good only as long
// as the verdict on the backend is that was the last when it was given.
type lastSession struct {
	client *Client // set once

	// Shared: atomics.
	good atomic.Pointer[verdict] // of the last full handshake
	last atomic.Pointer[session]
}

// session is a session with the verdict on the backend. Immutable.
type session struct {
	state *tls.ClientSessionState
	good  *verdict
}

func (l *lastSession) Get(string) (*tls.ClientSessionState, bool) {
	s := l.last.Load()
	if s == nil || s.good.by != l.client.ends.Load() || time.Now().After(s.good.until) {
		return nil, false
	}
	return s.state, true
}

func (l *lastSession) Put(_ string, state *tls.ClientSessionState) {
	good := l.good.Load()
	if state == nil || good == nil {
		l.last.Store(nil)
		return
	}
	l.last.Store(&session{state, good})
}
