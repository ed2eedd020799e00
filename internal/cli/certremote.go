package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"awe4lb/tlsbridge/certs"
)

// handshakeTimeout is how long cert show waits for what it asks.
const handshakeTimeout = 10 * time.Second

// showRunning tells what something that runs serves for a name.
func showRunning(ctx context.Context, out io.Writer, address, ca, name string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("--connect: got %q; want HOST:PORT", address)
	}
	var roots *x509.CertPool // nil: this host's
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return exitError{err, exitConfig}
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(b) {
			return exitError{fmt.Errorf("%s: no certificate: want PEM", ca), exitConfig}
		}
	}
	state, err := handshake(ctx, address, name)
	if err != nil {
		return exitError{fmt.Errorf("%s: %w", address, err), exitConfig}
	}
	chain := state.PeerCertificates
	if name == "" {
		fmt.Fprintf(out, "%s, for clients that ask for no name:\n", address)
	} else {
		fmt.Fprintf(out, "%s, for %s:\n", address, name)
	}
	s := certs.Describe(chain[0])
	printCertificate(out, &s)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(out, "  %-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	for _, cert := range chain[1:] {
		line("signed by", "%s, until %s", cert.Subject, stamp(cert.NotAfter))
	}
	line("protocol", "%s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	if state.CurveID != 0 {
		line("key exchange", "%s", state.CurveID)
	}
	switch until, err := certs.JudgeResponse(state.OCSPResponse, chain, time.Now()); {
	case len(state.OCSPResponse) == 0:
		line("staple", "none")
	case err != nil:
		line("staple", "NOT GOOD: %v", err)
	default:
		line("staple", "good until %s", stamp(until))
	}
	line("trust", "%s", trust(chain, roots))
	if name != "" && chain[0].VerifyHostname(name) != nil {
		return exitError{fmt.Errorf("%s serves a certificate that has not the name %s", address, name), exitConfig}
	}
	return nil
}

// handshake makes a handshake with anybody and returns what was agreed on.
func handshake(ctx context.Context, address, name string) (state tls.ConnectionState, err error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return state, err
	}
	defer conn.Close()
	// It is for looking: what a client would refuse is to be seen, too. A client certificate that is wanted is not missed in
	// TLS 1.3: the handshake is done before the server minds.
	c := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
	if err := c.HandshakeContext(ctx); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) {
			return state, errors.New("it does not speak TLS")
		}
		return state, err
	}
	return c.ConnectionState(), nil
}

// trust says whether roots vouch for a chain.
func trust(chain []*x509.Certificate, roots *x509.CertPool) string {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(o); err == nil {
		return "yes"
	} else if bytes.Equal(chain[0].RawIssuer, chain[0].RawSubject) {
		return "no: it is self-signed, and clients must be told to trust it"
	} else {
		return "no: " + err.Error()
	}
}

// parseLeaf returns the first certificate of a PEM.
func parseLeaf(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
