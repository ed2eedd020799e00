package lbtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority of the test's own.
type CA struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer

	PEM  []byte         // its certificate
	Pool *x509.CertPool // the same
}

// NewCA makes one.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t, key: ECDSAKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: t.Name() + " CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der := sign(t, template, template, ca.key.Public(), ca.key)
	ca.cert, _ = x509.ParseCertificate(der)
	ca.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	ca.Pool = x509.NewCertPool()
	ca.Pool.AddCert(ca.cert)
	return ca
}

// T returns the test that made the CA.
func (ca *CA) T() testing.TB { return ca.t }

func sign(t testing.TB, template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// ECDSAKey and RSAKey make a private key.
func ECDSAKey(t testing.TB) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func RSAKey(t testing.TB) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Leaf is what a certificate is made of, beside the key: names are DNS names or IP addresses.
type Leaf struct {
	Key   crypto.Signer // nil: a new ECDSA key
	Names []string
	Until time.Time // zero: tomorrow
	Edit  func(*x509.Certificate)
}

// Issue makes a certificate, good for servers and clients, and returns it and its key in PEM.
func (ca *CA) Issue(l Leaf) (cert, key []byte) {
	ca.t.Helper()
	if l.Key == nil {
		l.Key = ECDSAKey(ca.t)
	}
	if l.Until.IsZero() {
		l.Until = time.Now().Add(24 * time.Hour)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{SerialNumber: serial, NotBefore: l.Until.Add(-48 * time.Hour), NotAfter: l.Until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, name := range l.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if len(l.Names) > 0 {
		template.Subject.CommonName = l.Names[0]
	}
	if l.Edit != nil {
		l.Edit(template)
	}
	der := sign(ca.t, template, ca.cert, l.Key.Public(), ca.key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(l.Key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// Authority returns the authority's certificate and key, for what else an authority signs.
func (ca *CA) Authority() (*x509.Certificate, crypto.Signer) { return ca.cert, ca.key }

// Pair is Issue for crypto/tls.
func (ca *CA) Pair(names ...string) tls.Certificate {
	ca.t.Helper()
	pair, err := tls.X509KeyPair(ca.Issue(Leaf{Names: names}))
	if err != nil {
		ca.t.Fatal(err)
	}
	return pair
}

// Files writes pieces of PEM into one file of the test's folder and returns its path.
func Files(t testing.TB, name string, pieces ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	var all []byte
	for _, p := range pieces {
		all = append(all, p...)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
