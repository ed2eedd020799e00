package load

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"awe4lb/bench/certs"
)

// secure puts a TLS terminator before address: half-closes are passed on, like any proxy should. It returns the
// certificate too.
func secure(t *testing.T, address string, pair func() ([]byte, error), change func(*tls.Config)) (listen string, leaf []byte) {
	t.Helper()
	text, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, CurvePreferences: []tls.CurveID{tls.X25519}}
	if change != nil {
		change(config)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go terminate(c.(*tls.Conn), address)
		}
	}()
	return ln.Addr().String(), certificate.Leaf.Raw
}

func terminate(c *tls.Conn, address string) {
	defer c.Close()
	if c.Handshake() != nil {
		return
	}
	b, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer b.Close()
	up := make(chan struct{})
	go func() { // ends with either connection
		defer close(up)
		io.Copy(b, c)
		b.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, b)
	c.CloseWrite()
	<-up
}

func TestHandshakesCounted(t *testing.T) {
	_, _, s := start(t)
	ecdsa, leaf := secure(t, s.HTTP[0], certs.ECDSA, nil)
	rsa, rsaLeaf := secure(t, s.HTTP[0], certs.RSA, nil)
	for name, c := range map[string]struct {
		to  string
		tls TLS
	}{
		"1.3, ECDSA":   {ecdsa, TLS{Version: tls.VersionTLS13, Certificate: leaf}},
		"1.2, RSA":     {rsa, TLS{Version: tls.VersionTLS12, Certificate: rsaLeaf}},
		"1.3, resumed": {ecdsa, TLS{Version: tls.VersionTLS13, Certificate: leaf, Resume: true}},
		"1.2, resumed": {ecdsa, TLS{Version: tls.VersionTLS12, Certificate: leaf, Resume: true}},
	} {
		for _, threads := range []int{1, 2} {
			before := s.Counters().Requests
			r := measure(t, Config{Mode: Connections, Target: c.to, Conns: 8, Threads: threads, Count: 41, Timeout: 5 * time.Second, TLS: &c.tls})
			mustPass(t, r)
			want := int64(41)
			if c.tls.Resume {
				want += int64(threads) // each part gets its session first
			}
			if got := s.Counters().Requests - before; r.Units != 41 || r.Latency.Count() != 41 || got != want {
				t.Errorf("%s: %d handshakes, %d latencies, %d requests at the backend", name, r.Units, r.Latency.Count(), got)
			}
		}
	}
}

func TestHandshakesAtARate(t *testing.T) {
	_, _, s := start(t)
	to, leaf := secure(t, s.HTTP[0], certs.ECDSA, nil)
	before := s.Counters().Requests
	r := measure(t, Config{Mode: Connections, Target: to, Conns: 8, Rate: 200, Duration: 250 * time.Millisecond, Warmup: 50 * time.Millisecond,
		TLS: &TLS{Version: tls.VersionTLS13, Certificate: leaf}})
	mustPass(t, r)
	if n := s.Counters().Requests - before; n < 59 || n > 61 || r.Units == 0 {
		t.Errorf("%d requests in all and %d in the window, want 60 in all", n, r.Units)
	}
}

func TestRequestsOverTLS(t *testing.T) {
	_, _, s := start(t)
	to, leaf := secure(t, s.HTTP[0], certs.ECDSA, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		agreed := &TLS{Version: version, Certificate: leaf}
		mustPass(t, measure(t, Config{Mode: Requests, Target: to, Conns: 10, Count: 1000, TLS: agreed}))
		r := measure(t, Config{Mode: Requests, Target: to, Conns: 3, Count: 30, ResponseBytes: 300_000, TLS: agreed}) // many records
		mustPass(t, r)
		if r.Units != 30 {
			t.Errorf("%d requests, want 30", r.Units)
		}
	}
	r := measure(t, Config{Mode: Requests, Target: to, Conns: 4, Rate: 500, Duration: 200 * time.Millisecond, TLS: &TLS{Version: tls.VersionTLS13, Certificate: leaf}})
	mustPass(t, r)
	if n := r.Latency.Count(); n < 98 || n > 102 {
		t.Errorf("%d latencies, want 100", n)
	}
	r = measure(t, Config{Mode: Idle, Target: to, Conns: 20, Hold: 10 * time.Millisecond, TLS: &TLS{Version: tls.VersionTLS13, Certificate: leaf}})
	mustPass(t, r)
}

func TestBulkOverTLS(t *testing.T) {
	_, _, s := start(t)
	to, leaf := secure(t, s.Bulk, certs.ECDSA, nil)
	agreed := &TLS{Version: tls.VersionTLS13, Certificate: leaf}
	r := measure(t, Config{Mode: Bulk, Target: to, Conns: 3, Up: true, Down: true, Verify: true, Bytes: 5_000_000, TLS: agreed})
	mustPass(t, r)
	if r.BytesUp != 15_000_000 || r.BytesDown != 15_000_000+3*48 {
		t.Errorf("%d up, %d down; want 15 MB each, and the accounts", r.BytesUp, r.BytesDown)
	}
	for _, up := range []bool{true, false} {
		r := measure(t, Config{Mode: Bulk, Target: to, Conns: 2, Threads: 2, Up: up, Down: !up, Verify: true, Duration: 100 * time.Millisecond, Warmup: 20 * time.Millisecond, TLS: agreed})
		mustPass(t, r)
		if (r.BytesUp > 0) != up || (r.BytesDown > 0) == up {
			t.Errorf("up %v: %d up, %d down", up, r.BytesUp, r.BytesDown)
		}
	}
}

func TestHalfOpenHandshakes(t *testing.T) {
	_, _, s := start(t)
	to, _ := secure(t, s.HTTP[0], certs.ECDSA, nil)
	before := s.Counters().Requests
	agreed := &TLS{Version: tls.VersionTLS13}
	mustPass(t, measure(t, Config{Mode: HalfOpen, Target: to, Conns: 30, Hold: 10 * time.Millisecond, TLS: agreed, Watch: []Watch{{"self", os.Getpid()}}}))
	if n := s.Counters().Requests - before; n != 0 {
		t.Errorf("%d requests", n)
	}
	if r := measure(t, Config{Mode: HalfOpen, Target: s.HTTP[0], Conns: 1, Timeout: time.Second, TLS: agreed}); !r.Failed() {
		t.Error("HTTP answered a ClientHello, and that was all right")
	}
}

// What is agreed on must be what was asked for, or one server does other work than the next.
func TestOtherTLSFails(t *testing.T) {
	_, _, s := start(t)
	to, _ := secure(t, s.HTTP[0], certs.ECDSA, nil)
	_, other := secure(t, s.HTTP[0], certs.ECDSA, nil)
	ticketless, leaf := secure(t, s.HTTP[0], certs.ECDSA, func(c *tls.Config) { c.SessionTicketsDisabled = true })
	old, oldLeaf := secure(t, s.HTTP[0], certs.ECDSA, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	p256, p256Leaf := secure(t, s.HTTP[0], certs.ECDSA, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} })
	chacha, chachaLeaf := secure(t, s.HTTP[0], certs.ECDSA, func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}
	})
	for name, c := range map[string]struct {
		to   string
		tls  TLS
		want string
	}{
		"certificate": {to, TLS{Version: tls.VersionTLS13, Certificate: other}, ErrNegotiated + ": another certificate"},
		"resumption":  {ticketless, TLS{Version: tls.VersionTLS13, Certificate: leaf, Resume: true}, ErrNegotiated + ": resumed false"},
		"version":     {old, TLS{Version: tls.VersionTLS13, Certificate: oldLeaf}, ErrHandshake},
		"curve":       {p256, TLS{Version: tls.VersionTLS13, Certificate: p256Leaf}, ErrHandshake},
		"suite":       {chacha, TLS{Version: tls.VersionTLS12, Certificate: chachaLeaf}, ErrHandshake},
		"no TLS":      {s.HTTP[0], TLS{Version: tls.VersionTLS13}, ErrHandshake},
		"nobody":      {"127.0.0.1:1", TLS{Version: tls.VersionTLS13}, ErrConnect + ": connection refused"},
	} {
		r := measure(t, Config{Mode: Connections, Target: c.to, Conns: 2, Count: 2, Timeout: 5 * time.Second, TLS: &c.tls})
		if !strings.Contains(r.ErrorText(), c.want) {
			t.Errorf("%s: %q, want %q", name, r.ErrorText(), c.want)
		}
		if name == "resumption" || name == "nobody" {
			continue
		}
		r = measure(t, Config{Mode: Idle, Target: c.to, Conns: 1, Hold: time.Millisecond, Timeout: 5 * time.Second, TLS: &c.tls})
		if !strings.Contains(r.ErrorText(), c.want) {
			t.Errorf("%s, kept alive: %q, want %q", name, r.ErrorText(), c.want)
		}
	}
}
