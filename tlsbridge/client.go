package tlsbridge

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"sync/atomic"
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

// Client makes the configurations for the backends of a pool.
type Client struct {
	// Set once, never changed.
	base       *tls.Config
	noSessions bool
}

// Build returns the Client, or every mistake, each an *OptionError, joined. It may read the system's authorities.
func (o *ClientOptions) Build() (*Client, error) {
	var m mistakes
	config := &tls.Config{InsecureSkipVerify: o.InsecureSkipVerify, Renegotiation: tls.RenegotiateNever}
	o.apply(config, &m)
	var err error
	switch {
	case o.InsecureSkipVerify && len(o.CA) > 0:
		m.add("insecure_skip_verify", "with it ca has no effect; want one of the two")
	case len(o.CA) > 0:
		config.RootCAs, err = parsePool(o.CA)
	case !o.InsecureSkipVerify:
		config.RootCAs, err = systemPool()
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
		config.Certificates = []tls.Certificate{o.Certificate.pair}
	}
	if err := m.err(); err != nil {
		return nil, err
	}
	return &Client{base: config, noSessions: o.NoSessions}, nil
}

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
	if !c.noSessions {
		config.ClientSessionCache = new(lastSession)
	}
	return config
}

// lastSession is a session cache for one backend: the last session it gave. One is enough, tickets may be used more than
// once; and it needs no lock, because tickets of TLS 1.3 arrive while a shard is reading.
type lastSession struct {
	state atomic.Pointer[tls.ClientSessionState]
}

func (l *lastSession) Get(string) (*tls.ClientSessionState, bool) {
	s := l.state.Load()
	return s, s != nil
}

func (l *lastSession) Put(_ string, s *tls.ClientSessionState) { l.state.Store(s) }
