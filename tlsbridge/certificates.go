package tlsbridge

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// CertificateSet says which certificate serves which name. Immutable.
type CertificateSet struct {
	Warnings []string // certificates that are never chosen

	all      []*Certificate
	exact    map[string][]*Certificate
	wildcard map[string][]*Certificate // by what follows the *
	fallback []*Certificate
}

// NewCertificateSet returns the set of certs, one at least. The first is the default, with those that share its first
// name. Certificates with a name in common stand side by side, the cheaper kind of key first: which one a client gets
// depends on what it supports. Of two of the same kind the first is used.
func NewCertificateSet(certs []*Certificate) (*CertificateSet, error) {
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	s := &CertificateSet{all: slices.Clone(certs), exact: map[string][]*Certificate{}, wildcard: map[string][]*Certificate{}}
	for _, c := range certs {
		for _, name := range c.Names {
			m, key := s.exact, name
			if rest, ok := strings.CutPrefix(name, "*"); ok {
				m, key = s.wildcard, rest
			}
			if slices.ContainsFunc(m[key], func(o *Certificate) bool { return o.rank == c.rank }) {
				s.Warnings = append(s.Warnings, fmt.Sprintf("%q is in two certificates with the same kind of key; the first serves it", name))
				continue
			}
			m[key] = append(m[key], c)
		}
	}
	byRank := func(a, b *Certificate) int { return cmp.Compare(a.rank, b.rank) }
	for _, m := range []map[string][]*Certificate{s.exact, s.wildcard} {
		for _, list := range m {
			slices.SortStableFunc(list, byRank)
		}
	}
	first := certs[0]
	s.fallback = []*Certificate{first}
	if len(first.Names) > 0 {
		if list, _ := s.candidates(first.Names[0]); slices.Contains(list, first) { // *.a.test is a name that *.a.test matches
			s.fallback = list
		}
	}
	return s, nil
}

// candidates returns the certificates for a name in lower case, those of the default if no other has it, and whether one
// has it. One label, no more and no less, takes the place of a *.
func (s *CertificateSet) candidates(name string) (list []*Certificate, named bool) {
	if name == "" || looksLikeIP([]byte(name)) {
		return s.fallback, false
	}
	if list = s.exact[name]; list != nil {
		return list, true
	}
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		if list = s.wildcard[name[dot:]]; list != nil {
			return list, true
		}
	}
	return s.fallback, false
}

// For returns the certificates that serve a name, the preferred one first, and whether they have the name: otherwise they
// are the default.
func (s *CertificateSet) For(name string) (certs []*Certificate, named bool) {
	list, named := s.candidates(strings.ToLower(name))
	return slices.Clone(list), named
}

// Choose returns the certificate for a client: the first of those for its name that it supports; if it supports none, the
// first, and crypto/tls tells the client. Never blocks.
func (s *CertificateSet) Choose(hello *tls.ClientHelloInfo) *Certificate {
	list, named := s.candidates(strings.ToLower(hello.ServerName))
	if len(list) == 1 {
		return list[0]
	}
	if !named {
		nameless := *hello // SupportsCertificate wants the name to match, too
		nameless.ServerName = ""
		hello = &nameless
	}
	for _, c := range list {
		if hello.SupportsCertificate(&c.pair) == nil {
			return c
		}
	}
	return list[0]
}

// All returns the certificates of the set.
func (s *CertificateSet) All() []*Certificate { return slices.Clone(s.all) }

// Expiry returns the time at which the first certificate of the set expires, and which one that is.
func (s *CertificateSet) Expiry() (time.Time, *Certificate) {
	first := slices.MinFunc(s.all, func(a, b *Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return first.NotAfter, first
}

// Replace returns a copy of the set with another certificate, say one with a fresh staple, in the place of old.
func (s *CertificateSet) Replace(old, new *Certificate) (*CertificateSet, error) {
	i := slices.Index(s.all, old)
	if i < 0 {
		return nil, errors.New("no such certificate in the set")
	}
	all := slices.Clone(s.all)
	all[i] = new
	return NewCertificateSet(all)
}

// Has reports whether a certificate of the set has a name, which is in lower case. Never blocks or allocates.
func (s *CertificateSet) Has(name []byte) bool {
	if len(name) == 0 || looksLikeIP(name) {
		return false
	}
	if s.exact[string(name)] != nil {
		return true
	}
	dot := bytes.IndexByte(name, '.')
	return dot > 0 && s.wildcard[string(name[dot:])] != nil
}

// Certificates is the set in use by a frontend, which can be exchanged at any time: handshakes from then on use the new
// one, sessions are not touched. The zero value has none yet. Safe from any goroutine.
type Certificates struct {
	set atomic.Pointer[CertificateSet]
}

// NewCertificates returns one with s in use.
func NewCertificates(s *CertificateSet) *Certificates {
	c := new(Certificates)
	c.Store(s)
	return c
}

// Store puts s, which is not nil, to use.
func (c *Certificates) Store(s *CertificateSet) { c.set.Store(s) }

// Load returns the set in use, nil if there is none yet.
func (c *Certificates) Load() *CertificateSet { return c.set.Load() }

// get is tls.Config.GetCertificate.
func (c *Certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := c.Load()
	if set == nil {
		return nil, ErrNoCertificate
	}
	return &set.Choose(hello).pair, nil
}

// ErrNoCertificate is why a handshake fails as long as a frontend has no certificate.
var ErrNoCertificate = errors.New("the frontend has no certificate yet")
