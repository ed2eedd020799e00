package tlsbridge

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Certificate is a certificate chain with its private key, known to belong together and to work. Immutable.
type Certificate struct {
	Names    []string // DNS names of the leaf, in lower case; "*." stands for one label
	NotAfter time.Time
	Warnings []string // what is odd about it, and does not keep it from being used

	pair        tls.Certificate
	fingerprint string
	rank        int // among those for the same name: the cheaper to sign with, the earlier
}

// KeyError is a mistake in a key, where the chain is good.
type KeyError struct{ err error }

func (e *KeyError) Error() string { return e.err.Error() }
func (e *KeyError) Unwrap() error { return e.err }

// ParseCertificate returns the certificate of a chain, leaf first, and a key, both in PEM. key may be empty: then the key
// is in chain, too. It fails when either is missing or unreadable, when the key belongs to another certificate, and when
// it does not sign; the error says which, and is a *KeyError if it is about the key. It says nothing about time or trust: those are the clients' to judge.
func ParseCertificate(chain, key []byte) (*Certificate, error) {
	if len(key) == 0 {
		key = chain
	}
	ders, err := certificateBlocks(chain)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		certs = append(certs, cert)
	}
	leaf := certs[0]
	signer, err := parseKey(key)
	if err != nil {
		return nil, &KeyError{err}
	}
	if !samePublic(leaf, signer) {
		for i, cert := range certs[1:] {
			if samePublic(cert, signer) { // it is the chain that is wrong
				return nil, fmt.Errorf("the key belongs to certificate %d (%s); want that one first", i+2, subject(cert))
			}
		}
		return nil, &KeyError{fmt.Errorf("the key does not belong to the certificate (%s)", subject(leaf))}
	}
	if err := trySign(leaf, signer); err != nil {
		return nil, &KeyError{fmt.Errorf("the key does not sign: %w", err)}
	}
	sum := sha256.Sum256(leaf.Raw)
	c := &Certificate{NotAfter: leaf.NotAfter, rank: rankOf(signer), fingerprint: hex.EncodeToString(sum[:]),
		pair: tls.Certificate{Certificate: ders, PrivateKey: signer, Leaf: leaf}}
	for _, cert := range certs[1:] {
		if cert.NotAfter.Before(c.NotAfter) {
			c.NotAfter = cert.NotAfter // the chain is of no use without it
		}
	}
	c.name(leaf)
	c.weigh(certs)
	return c, nil
}

// certificateBlocks returns the certificates in b.
func certificateBlocks(b []byte) (ders [][]byte, err error) {
	var others []string
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			ders = append(ders, block.Bytes)
		} else {
			others = append(others, block.Type)
		}
	}
	switch {
	case len(ders) > 0:
		return ders, nil
	case len(others) > 0:
		return nil, fmt.Errorf("no certificate: got %s; want CERTIFICATE", strings.Join(others, ", "))
	case bytes.HasPrefix(b, []byte{0x30, 0x82}):
		return nil, errors.New("no certificate: got DER; want PEM (openssl x509 -inform der converts)")
	}
	return nil, errors.New("no certificate: want PEM, with a line -----BEGIN CERTIFICATE-----")
}

// parseKey returns the first private key in b.
func parseKey(b []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, errors.New("no private key: want PEM, with a line -----BEGIN PRIVATE KEY-----")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the private key is encrypted; want it without a passphrase (openssl pkey -in … -out …)")
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			if k, e := x509.ParsePKCS1PrivateKey(block.Bytes); e == nil {
				key, err = k, nil
			} else if k, e := x509.ParseECPrivateKey(block.Bytes); e == nil {
				key, err = k, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("private key: %w", err)
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("private key: got %T; want RSA, ECDSA or Ed25519", key)
	}
}

func samePublic(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// trySign signs something as a handshake would and checks it with the certificate: Go refuses to sign with some keys that
// it reads, such as RSA keys of less than 1024 bits.
func trySign(leaf *x509.Certificate, key crypto.Signer) error {
	message := []byte("is this the key?")
	digest := sha256.Sum256(message)
	switch public := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		signature, err := key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
		if err != nil {
			return err
		}
		return rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, nil)
	case *ecdsa.PublicKey:
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err == nil && !ecdsa.VerifyASN1(public, digest[:], signature) {
			err = errors.New("wrong signature")
		}
		return err
	case ed25519.PublicKey:
		signature, err := key.Sign(rand.Reader, message, crypto.Hash(0))
		if err == nil && !ed25519.Verify(public, message, signature) {
			err = errors.New("wrong signature")
		}
		return err
	}
	return fmt.Errorf("got a %T; want RSA, ECDSA or Ed25519", leaf.PublicKey)
}

// rankOf orders keys by what a signature costs: 30 µs for ECDSA, 1.2 ms for RSA.
func rankOf(key crypto.Signer) int {
	switch key.(type) {
	case *ecdsa.PrivateKey:
		return 0
	case ed25519.PrivateKey:
		return 1
	}
	return 2
}

// name takes the names that clients may ask for.
func (c *Certificate) name(leaf *x509.Certificate) {
	for _, name := range leaf.DNSNames {
		name = strings.ToLower(name)
		if strings.Contains(strings.TrimPrefix(name, "*."), "*") {
			c.Warnings = append(c.Warnings, fmt.Sprintf("name %q never matches: * stands for the whole first label only", name))
			continue
		}
		if !slices.Contains(c.Names, name) {
			c.Names = append(c.Names, name)
		}
	}
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 {
		if name := strings.ToLower(leaf.Subject.CommonName); new(Hello).setName([]byte(name)) {
			c.Names = append(c.Names, name)
		}
		c.Warnings = append(c.Warnings, "no subject alternative name: today's clients refuse it")
	}
}

// weigh notes what clients will object to.
func (c *Certificate) weigh(certs []*x509.Certificate) {
	leaf := certs[0]
	for i, cert := range certs[1:] {
		if err := certs[i].CheckSignatureFrom(cert); err != nil {
			c.Warnings = append(c.Warnings, fmt.Sprintf("certificate %d (%s) is not signed by certificate %d (%s)", i+1,
				subject(certs[i]), i+2, subject(cert)))
		}
	}
	if usages := leaf.ExtKeyUsage; len(usages) > 0 && !slices.Contains(usages, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(usages, x509.ExtKeyUsageClientAuth) && !slices.Contains(usages, x509.ExtKeyUsageAny) {
		c.Warnings = append(c.Warnings, "its extended key usage allows neither servers nor clients")
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("an RSA key of %d bits is too weak", key.N.BitLen()))
	}
}

func subject(cert *x509.Certificate) string {
	if len(cert.DNSNames) > 0 {
		return cert.DNSNames[0]
	}
	return cert.Subject.String()
}

// Leaf returns the certificate itself.
func (c *Certificate) Leaf() *x509.Certificate { return c.pair.Leaf }

// Pair returns what crypto/tls uses. It must not be changed.
func (c *Certificate) Pair() *tls.Certificate { return &c.pair }

// Fingerprint returns the SHA-256 of the leaf in hex.
func (c *Certificate) Fingerprint() string { return c.fingerprint }

// WithStaple returns a copy that hands out an OCSP response, in DER, to clients that ask for one; nil for none.
func (c *Certificate) WithStaple(response []byte) *Certificate {
	copied := *c
	copied.pair.OCSPStaple = response
	return &copied
}
