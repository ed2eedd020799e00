package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"testing"
)

func TestPairs(t *testing.T) {
	for name, pair := range map[string]func() ([]byte, error){"ECDSA": ECDSA, "RSA": RSA} {
		text, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.X509KeyPair(text, text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.Leaf.VerifyHostname("bench.test"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		bits := 0
		switch key := c.PrivateKey.(type) {
		case *ecdsa.PrivateKey:
			bits = key.Params().BitSize
		case *rsa.PrivateKey:
			bits = key.N.BitLen()
		}
		if want := map[string]int{"ECDSA": 256, "RSA": 2048}[name]; bits != want {
			t.Errorf("%s: a key of %d bits, want %d", name, bits, want)
		}
		if leaf, err := Leaf(text); err != nil || !bytes.Equal(leaf, c.Leaf.Raw) {
			t.Errorf("%s: the leaf is another (%v)", name, err)
		}
	}
	if _, err := Leaf([]byte("no PEM")); err == nil {
		t.Error("a certificate in what is no PEM")
	}
}
