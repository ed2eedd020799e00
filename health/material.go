package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"awe4lb/config"
	"awe4lb/internal/privilege"
	"awe4lb/tlsbridge"
)

// materials are what checks that speak TLS need: authorities and certificates, read from files and again when those change.
type materials struct {
	mu  sync.Mutex
	all map[string]*material // by identity
}

// material is what one set of TLS settings gives. Guarded by materials.mu.
type material struct {
	client *tlsbridge.Client
	looked time.Time
	stamps [3]stamp // of ca, cert and key
}

// stamp tells whether a file is another than before.
type stamp struct {
	modified time.Time
	size     int64
}

// lookEvery is how often files are looked at.
const lookEvery = 2 * time.Second

// maxMaterial bounds the files.
const maxMaterial = 4 << 20

func (c *check) materialKey() string {
	b, _ := json.Marshal([]any{c.h.ServerName, c.h.CA, c.h.Cert, c.h.Key, c.h.InsecureSkipVerify, c.pool})
	return string(b)
}

func (c *check) stamps() (s [3]stamp) {
	for i, path := range []string{c.h.CA, c.h.Cert, c.h.Key} {
		if info, err := os.Stat(path); path != "" && err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

// config returns what TLS with c's subject is spoken with. Files that have changed and cannot be used leave what was there.
func (m *materials) config(c *check, alpn ...string) (*tls.Config, error) {
	client, err := m.client(c, time.Now())
	if err != nil {
		return nil, err
	}
	host := c.sni
	if host == "" && !c.address.IsUnix() {
		host = c.address.IP.Addr().WithZone("").String()
	}
	return client.Config(host, alpn...), nil
}

func (m *materials) client(c *check, now time.Time) (*tlsbridge.Client, error) {
	key := c.materialKey()
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.all[key]
	if known != nil && now.Sub(known.looked) < lookEvery {
		return known.client, nil
	}
	stamps := c.stamps()
	if known != nil && known.stamps == stamps {
		known.looked = now
		return known.client, nil
	}
	client, err := c.build()
	if err != nil {
		if known != nil {
			known.looked = now
			return known.client, nil
		}
		return nil, err
	}
	if m.all == nil {
		m.all = map[string]*material{}
	}
	m.all[key] = &material{client, now, stamps}
	return client, nil
}

// keep forgets what no subject needs any more.
func (m *materials) keep(subjects map[string]*subject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := map[string]bool{}
	for _, t := range subjects {
		if t.check.h.UseTLS {
			used[t.check.materialKey()] = true
		}
	}
	for key := range m.all {
		if !used[key] {
			delete(m.all, key)
		}
	}
}

// build reads the files.
func (c *check) build() (*tlsbridge.Client, error) {
	o := tlsbridge.ClientOptions{ServerName: c.h.ServerName, InsecureSkipVerify: c.h.InsecureSkipVerify, NoSessions: true}
	if t := c.pool; t != nil {
		o.Protocol = tlsbridge.Protocol{MinVersion: t.MinVersion, MaxVersion: t.MaxVersion, Ciphers: t.Ciphers, Curves: t.Curves, ALPN: t.ALPN}
	}
	var err error
	if c.h.CA != "" {
		if o.CA, err = readFile(c.h.CA); err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if len(o.CA) == 0 {
			return nil, fmt.Errorf("ca: %s: it is empty", c.h.CA)
		}
	}
	if c.h.Cert != "" {
		cert, err := readFile(c.h.Cert)
		if err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
		key, err := readFile(cmp.Or(c.h.Key, c.h.Cert))
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		if o.Certificate, err = tlsbridge.ParseCertificate(cert, key); err != nil {
			return nil, fmt.Errorf("cert: %s: %w", c.h.Cert, err)
		}
	}
	return o.Build()
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxMaterial {
		return nil, fmt.Errorf("%s: want a file of at most 4 MiB", path)
	}
	return os.ReadFile(path)
}

// Prepare reads the files that the checks of cfg need, so that Apply finds them, and returns every mistake, each beginning
// with where it is.
func (p *Prober) Prepare(cfg *config.Config) error {
	var errs []error
	for _, pool := range cfg.Pools {
		if !pool.Health.Checks() || !pool.Health.UseTLS || len(pool.Backends) == 0 && pool.Discovery == nil {
			continue
		}
		if _, err := p.materials.client(newCheck(pool, new(config.Backend)), time.Now()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(cfg.At(pool.Health), "pools."+pool.Name+".health"), err))
		}
	}
	return errors.Join(errs...)
}

// Check returns the mistakes that Prepare would find at the start.
func Check(cfg *config.Config) []error {
	err := New(Options{}).Prepare(cfg)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

// CheckHost returns what checks would lack on this host: programs that cannot be run. It is to be called with the rights that checks
// have. It starts nothing.
func CheckHost(cfg *config.Config) (errs []error) {
	for _, pool := range cfg.Pools {
		if h := pool.Health; h.Checks() && h.Kind == "exec" {
			if err := privilege.MayRun(h.Command[0]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(cfg.At(&h.Command[0]), "pools."+pool.Name+".health.command"), err))
			}
		}
	}
	return errs
}

// secured is connected with TLS around the connection, where the check speaks it. before is what comes before the
// handshake; nil: nothing.
func (p *Prober) secured(ctx context.Context, c *check, before func(net.Conn) error, ask func(net.Conn) outcome) outcome {
	if !c.h.UseTLS {
		return c.connected(ctx, "tcp", nil, ask)
	}
	var expires time.Time
	o := c.connected(ctx, "tcp", func(ctx context.Context, raw net.Conn) (net.Conn, *outcome) {
		conn, end := p.handshake(ctx, c, raw, before)
		if end == nil {
			expires = expiry(conn.ConnectionState())
		}
		return conn, end
	}, func(conn net.Conn) outcome {
		o := ask(conn)
		_ = conn.(*tls.Conn).CloseWrite() // the backend's log need not tell of a client that was lost
		return o
	})
	o.expires = expires
	return o
}

// handshake begins TLS on a connection.
func (p *Prober) handshake(ctx context.Context, c *check, raw net.Conn, before func(net.Conn) error, alpn ...string) (*tls.Conn, *outcome) {
	config, err := p.materials.config(c, alpn...)
	if err != nil {
		o := isBad("%s", cut(err.Error(), 200))
		o.verdict = unknown // our files, and no fault of the backend
		return nil, &o
	}
	if before != nil {
		if err := before(raw); err != nil {
			o := c.failed("TLS", err)
			return nil, &o
		}
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		o := c.failed("TLS", err)
		return nil, &o
	}
	return conn, nil
}

// expiry returns when the first certificate of the chain ends that does.
func expiry(state tls.ConnectionState) (first time.Time) {
	for _, cert := range state.PeerCertificates {
		if first.IsZero() || cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	return first
}
