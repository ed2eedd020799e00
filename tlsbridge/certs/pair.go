package certs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"awe4lb/config"
	"awe4lb/tlsbridge"
)

// pairKey tells pairs apart: frontends that name the same files share one.
type pairKey struct{ cert, key, ocsp string }

// pair is a certificate and its key in files, perhaps with an OCSP response in a third.
type pair struct {
	// Set once, never changed.
	key  pairKey
	cert *watched
	ocsp *watched // nil: none

	// Guarded by Keeper.mu.
	certificate *tlsbridge.Certificate
	response    []byte   // of ocsp
	selfSigned  []string // names of the pair to make when there is none
}

func newPair(key pairKey, path string) *pair {
	p := &pair{key: key}
	p.cert = &watched{what: "certificate", owner: path}
	p.cert.add("cert", key.cert)
	p.cert.add("key", key.key)
	p.cert.parse = func(contents map[string]file) (any, error) { return parsePair(key.cert, key.key, contents) }
	p.cert.install = func(value any) { p.certificate = value.(*tlsbridge.Certificate) }
	if key.ocsp != "" {
		p.ocsp = &watched{what: "OCSP response", owner: path}
		p.ocsp.add("ocsp", key.ocsp)
		p.ocsp.parse = func(contents map[string]file) (any, error) {
			data := contents["ocsp"].data
			if len(data) == 0 || data[0] != 0x30 {
				return nil, optionError("ocsp", fmt.Errorf("%s: no OCSP response; want one in DER (openssl ocsp -respout)", key.ocsp))
			}
			return data, nil
		}
		p.ocsp.install = func(value any) { p.response = value.([]byte) }
	}
	return p
}

// parsePair checks a chain and its key, of one file or two.
func parsePair(cert, key string, contents map[string]file) (*tlsbridge.Certificate, error) {
	if key != "" && len(contents["key"].data) == 0 {
		return nil, optionError("key", fmt.Errorf("%s: it is empty", key))
	}
	c, err := tlsbridge.ParseCertificate(contents["cert"].data, contents["key"].data)
	var wrongKey *tlsbridge.KeyError
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &wrongKey) && key != "":
		return nil, optionError("key", withPath(key, err))
	}
	return nil, optionError("cert", withPath(cert, err))
}

// pair reads a pair, or makes one that is to be self-signed, and returns nil after a mistake.
func (b *builder) pair(at spot, c *config.CertificateFiles, stapling bool) *pair {
	key := pairKey{c.Cert, c.Key, c.OCSP}
	if p := b.set.pairs[key]; p != nil {
		return p
	}
	p := b.old.pairs[key]
	if p == nil {
		p = newPair(key, at.path)
	}
	ok := true
	r, err := p.cert.read()
	if len(c.SelfSigned) > 0 {
		noCert, noKey := missing(c.Cert), c.Key == "" || missing(c.Key)
		switch {
		case err == nil && expiredOfOurs(r.value.(*tlsbridge.Certificate), b.now), noCert && noKey:
			r, err = b.selfSigned(at, p, c)
		case noCert || c.Key != "" && noKey:
			there, not := c.Cert, c.Key
			if noCert {
				there, not = not, there
			}
			err = optionError("self_signed", fmt.Errorf("got %s and no %s; want both, or neither to have a pair made", there, not))
		}
	}
	if err != nil {
		b.fail(at, err)
		ok = false
	}
	var response *reading
	if p.ocsp != nil {
		if response, err = p.ocsp.read(); err != nil {
			b.fail(at, err)
			ok = false
		}
	}
	if !ok {
		return nil
	}
	b.set.pairs[key] = p
	b.keep(p.cert, r)
	if response != nil {
		b.keep(p.ocsp, response)
	}
	b.set.commits = append(b.set.commits, func() { p.selfSigned = c.SelfSigned })
	b.weigh(at, c, r, stapling)
	return p
}

// weigh notes what is odd about a pair.
func (b *builder) weigh(at spot, c *config.CertificateFiles, r *reading, stapling bool) {
	cert := r.value.(*tlsbridge.Certificate)
	for _, w := range cert.Warnings {
		b.note(at, "cert", "%s: %s", c.Cert, w)
	}
	if b.now.Before(cert.Leaf().NotBefore) {
		b.note(at, "cert", "%s: not valid before %s", c.Cert, day(cert.Leaf().NotBefore))
	}
	if f := r.files[len(r.files)-1]; f.public {
		b.note(at, keyOf(c), "everybody on this host may read the key in %s: chmod 600 it", f.path)
	}
	if why := whyNoStaple(cert, stapling); mustStaple(cert.Leaf()) && c.OCSP == "" && why != "" {
		b.note(at, "cert", "%s: it demands a stapled OCSP response, and %s; clients will refuse it", c.Cert, why)
	}
	if len(c.SelfSigned) > 0 {
		var without []string
		for _, name := range c.SelfSigned {
			if cert.Leaf().VerifyHostname(name) != nil {
				without = append(without, name)
			}
		}
		if len(without) > 0 {
			b.note(at, "self_signed", "%s is there and has no name %s; remove it to have another made", c.Cert, strings.Join(without, ", "))
		}
	}
	if what := ends(cert, b.now); what != "" {
		b.set.more = append(b.set.more, b.at(at, "cert", -1)+": "+c.Cert+": "+what)
	}
}

func keyOf(c *config.CertificateFiles) string {
	if c.Key != "" {
		return "key"
	}
	return "cert"
}

// day is a time for messages.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
