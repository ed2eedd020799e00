package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"awe4lb/config"
	"awe4lb/internal/privilege"
	"awe4lb/tlsbridge"
)

const (
	// SelfSignedDays is how long a self-signed pair is good when nobody says how long.
	SelfSignedDays = 365

	ourMark = "awe4lb self-signed" // the organization of the pairs we make
)

// SelfSigned makes a key (ECDSA P-256) and a certificate that it has signed itself, for names and IP addresses, one at
// least, good from an hour before now for some days. Both are PEM. The certificate is not an authority's: who trusts it
// trusts it alone.
func SelfSigned(names []string, now time.Time, days int) (cert, key []byte, err error) {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial)
	serial[0] &= 0x7f
	template := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(time.Duration(days) * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		Subject: pkix.Name{Organization: []string{ourMark}}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if plausible(name) {
			template.DNSNames = append(template.DNSNames, strings.ToLower(name))
		} else {
			return nil, nil, fmt.Errorf("got %q; want a DNS name, which may begin with *., or an IP address", name)
		}
	}
	if len(names) == 0 {
		return nil, nil, errors.New("got no name; want one at least")
	}
	if len(names[0]) <= 64 { // the most a common name may have
		template.Subject.CommonName = names[0]
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// plausible reports whether a name may stand in a certificate, a * as its first label too.
func plausible(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range []byte(strings.ToLower(label)) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// isOurs reports whether we have made a certificate.
func isOurs(c *tlsbridge.Certificate) bool {
	leaf := c.Leaf()
	return slices.Contains(leaf.Subject.Organization, ourMark) && bytes.Equal(leaf.RawIssuer, leaf.RawSubject)
}

// expiredOfOurs reports whether a certificate is ours and has expired: nobody who looks trusts it any more, so another in
// its place takes nothing from anybody. Before, it is left alone: clients may have a copy of it, which is all they trust.
func expiredOfOurs(c *tlsbridge.Certificate, now time.Time) bool {
	return isOurs(c) && now.After(c.NotAfter)
}

// selfSigned makes a pair, which Commit writes.
func (b *builder) selfSigned(at spot, p *pair, c *config.CertificateFiles) (*reading, error) {
	r, err := makeSelfSigned(p, c.SelfSigned, b.now)
	if err != nil {
		return nil, optionError("self_signed", err)
	}
	for i, path := range p.cert.paths {
		dir := filepath.Dir(path)
		if err := syscall.Access(dir, 2); err != nil { // W_OK
			return nil, optionError(p.cert.keys[i], fmt.Errorf("%s: it is to be made, and %s is no folder we may write to: %w", path, dir, err))
		}
	}
	b.set.more = append(b.set.more, b.at(at, "self_signed", -1)+": a self-signed pair for "+strings.Join(c.SelfSigned, ", ")+
		" is made at the start: "+strings.Join(p.cert.paths, ", "))
	k := b.k
	b.set.commits = append(b.set.commits, func() { k.write(p, r) })
	return r, nil
}

// makeSelfSigned makes a pair as if it had been read from p's files.
func makeSelfSigned(p *pair, names []string, now time.Time) (*reading, error) {
	cert, key, err := SelfSigned(names, now, SelfSignedDays)
	if err != nil {
		return nil, err
	}
	stamps := stat(p.cert.paths)
	r := &reading{files: []file{{path: p.key.cert, data: cert, stamp: stamps[0]}}}
	contents := map[string]file{"cert": {data: cert}, "key": {data: key}}
	if p.key.key == "" {
		r.files[0].data = append(cert, key...)
		contents = map[string]file{"cert": {data: r.files[0].data}}
	} else {
		r.files = append(r.files, file{path: p.key.key, data: key, stamp: stamps[1]})
	}
	r.digest = digest(r.files)
	r.value, err = p.cert.parse(contents)
	return r, err
}

// write writes a pair that was made. If that fails the pair is used without.
func (k *Keeper) write(p *pair, r *reading) {
	cfg := &k.set.cfg.Engine
	for i := len(r.files) - 1; i >= 0; i-- { // the key first
		f := r.files[i]
		if err := WriteFile(f.path, f.data, true); err != nil {
			k.log.Error("a self-signed pair was made and cannot be written: it lasts until the end of this process", "file", f.path, "error", err)
			return
		}
		if os.Geteuid() == 0 && cfg.User != "" {
			if err := privilege.Give(f.path, cfg.User, cfg.Group); err != nil {
				k.log.Error("a self-signed pair is root's: a reload will not be able to read it", "file", f.path, "error", err)
			}
		}
	}
	p.cert.used = nil // look at what was written
	c := r.value.(*tlsbridge.Certificate)
	k.log.Info("a self-signed pair was made: clients must be told to trust it", append(p.cert.attrs(), describe(c)...)...)
}

// renewSelfSigned replaces the pairs of ours that have expired.
func (k *Keeper) renewSelfSigned(now time.Time) {
	for _, p := range k.set.pairs {
		if len(p.selfSigned) == 0 || !expiredOfOurs(p.certificate, now) || p.cert.err != nil {
			continue
		}
		r, err := makeSelfSigned(p, p.selfSigned, now)
		if err != nil {
			continue // it is the names, and they were good
		}
		p.cert.put(r, now)
		k.write(p, r)
		k.dirty = true
	}
}

// WriteFile writes a file that only its owner may read, whole or not at all. Without replace it fails if the file is there,
// with fs.ErrExist.
func WriteFile(path string, data []byte, replace bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return withPath(path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if it was renamed
	_, err = f.Write(data)
	if e := f.Sync(); err == nil {
		err = e
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return withPath(path, err)
	}
	if replace {
		err = os.Rename(f.Name(), path)
	} else {
		err = os.Link(f.Name(), path)
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return withPath(path, link.Err)
	}
	return err
}
