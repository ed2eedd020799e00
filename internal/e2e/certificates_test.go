//go:build e2e

package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// visitorsTLS are clients that make a connection, look at the certificate, ask once and go, again and again.
type visitorsTLS struct {
	config  *tls.Config
	address string
	quit    chan bool
	wg      sync.WaitGroup

	mu       sync.Mutex
	seen     map[string]int // by the certificate's fingerprint
	last     string
	failures []error
}

func startVisitorsTLS(config *tls.Config, address string, n int) *visitorsTLS {
	v := &visitorsTLS{config: config, address: address, quit: make(chan bool), seen: map[string]int{}}
	for range n {
		v.wg.Go(func() {
			for {
				select {
				case <-v.quit:
					return
				default:
					v.visit()
				}
			}
		})
	}
	return v
}

func (v *visitorsTLS) visit() {
	fingerprint := ""
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", v.address, v.config)
	if err == nil {
		fingerprint = fingerprintOf(c.ConnectionState().PeerCertificates[0].Raw)
		err = ask(c)
		c.Close()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.failures = append(v.failures, err)
		return
	}
	v.seen[fingerprint]++
	v.last = fingerprint
}

// sees reports whether the last visitor was shown this certificate.
func (v *visitorsTLS) sees(fingerprint string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last == fingerprint
}

func (v *visitorsTLS) count(fingerprint string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen[fingerprint]
}

func (v *visitorsTLS) stop() {
	close(v.quit)
	v.wg.Wait()
}

// fingerprintOf returns the SHA-256 of a certificate in DER, as openssl prints it but for the colons.
func fingerprintOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// TestCertificateChangesUnderLoad replaces the files of a certificate in each way that people do it, wrongly too, while
// clients come and others stay.
func TestCertificateChangesUnderLoad(t *testing.T) {
	ca, dir := lbtest.NewCA(t), openDir(t)
	cert, key := filepath.Join(dir, "front.pem"), filepath.Join(dir, "front.key")
	issue := func() (c, k []byte, fingerprint string) {
		c, k = ca.Issue(lbtest.Leaf{Names: []string{"front.test"}})
		block, _ := pem.Decode(c)
		return c, k, fingerprintOf(block.Bytes)
	}
	put := func(path string, text []byte) { // as certbot and kubelet do: whole at once
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	over := func(path string, text []byte) { // as cp does
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, k, fingerprint := issue()
	put(cert, c)
	put(key, k)
	lb := start(t, fmt.Sprintf(`
[frontends.test]
bind = ["127.0.0.1:0"]
pool = "test"
tls = { certificates = [ { cert = %q, key = %q } ] }
[pools.test]
backends = [ { address = %q } ]
`, cert, key, echo(t)))
	config := &tls.Config{RootCAs: ca.Pool, ServerName: "front.test"}
	address := lb.address("test")
	var stay clients
	defer func() { stay.close() }()
	for range 20 {
		c, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		stay = append(stay, c)
	}
	v := startVisitorsTLS(config, address, 6)
	stopped := sync.OnceFunc(v.stop)
	defer stopped()

	// changed waits until visitors see another certificate, which then stays.
	changed := func(what, next string) {
		t.Helper()
		began := time.Now()
		lbtest.EventuallyIn(t, 10*time.Second, what+" is served", func() bool { return v.sees(next) })
		if took := time.Since(began); took > 6*time.Second { // two looks at the files, 2 s apart
			t.Errorf("%s: served after %v", what, took)
		}
		before := v.count(fingerprint)
		if err := stay.ask(100); err != nil {
			t.Fatalf("%s: a session that was open: %v", what, err)
		}
		served := v.count(next)
		lbtest.Eventually(t, "a hundred more visitors", func() bool { return v.count(next) >= served+100 })
		if after := v.count(fingerprint); next != fingerprint && after > before+6 { // those that were on their way
			t.Errorf("%s: %d visitors were shown the old one afterwards", what, after-before)
		}
		fingerprint = next
	}
	lbtest.Eventually(t, "the first is served", func() bool { return v.count(fingerprint) >= 100 })
	c, k, next := issue()
	put(cert, c)
	put(key, k)
	changed("a pair put in place", next)

	c, k, next = issue()
	over(key, k)
	over(cert, c)
	changed("a pair written over", next)

	// A key that is another's is told by the log, and by a reload, and not used.
	const stays, why = "certificate has changed and cannot be used: the old one stays in use", "the key does not belong to the certificate"
	lb.expectError(stays)
	lb.expectError("reload refused: the running configuration stays")
	lb.expectError("configuration: ")
	_, other, _ := issue()
	c, k, next = issue()
	put(cert, c)
	put(key, other)
	if err := lb.reload(); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("a reload with a wrong key: %v", err)
	}
	lbtest.EventuallyIn(t, 10*time.Second, "the log tells of the wrong key", func() bool { return lb.log.count(stays) > 0 })
	if text := lb.log.find(stays)[0].text("error"); !strings.Contains(text, why) {
		t.Errorf("the log says %q; want %q", text, why)
	}
	changed("still the last good pair", fingerprint)
	put(key, k)
	changed("its own key", next)

	c, k, next = issue()
	put(cert, c)
	put(key, k)
	lb.hangUp()
	changed("a pair and a reload", next)

	stopped()
	for i, err := range v.failures {
		t.Errorf("a handshake failed: %v", err)
		if i == 9 {
			break
		}
	}
	total := 0
	for _, n := range v.seen {
		total += n
	}
	if len(v.seen) != 5 {
		t.Errorf("visitors saw %d certificates, want 5", len(v.seen))
	}
	t.Logf("%d handshakes, %d failed, %d certificates", total+len(v.failures), len(v.failures), len(v.seen))
}
