package engine

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// echoTLS serves a backend that sends back what it gets.
func echoTLS(_ *net.TCPConn, c duplex) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// unreached is a backend that nobody may come to.
func unreached(t testing.TB) func(*net.TCPConn, duplex) {
	return func(*net.TCPConn, duplex) { t.Error("the backend was connected") }
}

var (
	terminate   = forms[0]
	originate   = forms[1]
	reencrypt   = forms[2]
	passthrough = forms[3]
)

// TestHelloGarbage: what is no ClientHello never reaches a backend, and the client is turned away at once.
func TestHelloGarbage(t *testing.T) {
	for _, f := range []form{terminate, passthrough} {
		for name, c := range map[string]struct {
			say    string
			alert  byte
			reason Reason
		}{
			"plain HTTP":     {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, NotTLS},
			"SSLv2":          {"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + strings.Repeat("x", 40), 0, NotTLS},
			"SSH":            {"SSH-2.0-OpenSSH_9.2p1\r\n", 0, NotTLS},
			"zeroes":         {strings.Repeat("\x00", 100), 0, NotTLS},
			"an empty one":   {"\x16\x03\x01\x00\x00", 50, BadHello},
			"too long":       {"\x16\x03\x01\x20\x00\x01\x01\x00\x00", 50, BadHello},
			"a bad one":      {"\x16\x03\x01\x00\x08\x01\x00\x00\x04abcd", 50, BadHello},
			"nothing at all": {"", 0, ClientEOF},
			"a beginning":    {"\x16\x03\x01\x00\x80\x01\x00", 0, ClientEOF},
		} {
			t.Run(f.name+", "+name, func(t *testing.T) {
				r := newTLSRig(t, f, unreached(t), nil)
				c1 := r.dial()
				say(t, c1, c.say)
				if c.reason == ClientEOF {
					_ = c1.CloseWrite()
				}
				got, err := io.ReadAll(c1)
				if c.alert != 0 && (err != nil || string(got) != "\x15\x03\x03\x00\x02\x02"+string(rune(c.alert))) || c.alert == 0 && len(got) > 0 {
					t.Errorf("the client heard %q, %v", got, err)
				}
				_ = c1.Close()
				r.wantEnds(c.reason)
			})
		}
	}
}

// TestHelloTimeout: the time for a ClientHello is counted from accept, however the bytes trickle in.
func TestHelloTimeout(t *testing.T) {
	for _, f := range []form{terminate, passthrough} {
		t.Run(f.name, func(t *testing.T) {
			r := newTLSRig(t, f, unreached(t), func(c *config.Config) { c.Frontends[0].HelloTimeout = 300 * time.Millisecond })
			begun := time.Now()
			c := r.dial()
			hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 500)
			var err error
			for i := 0; err == nil && i < len(hello); i++ {
				_, err = c.Write([]byte{hello[i]})
				time.Sleep(5 * time.Millisecond) // a client that trickles; nothing waits for this
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the client heard %v", err)
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			r.wantEnds(HelloTimeout)
		})
	}
}

// TestHandshakeTimeout: so is the time for the handshake.
func TestHandshakeTimeout(t *testing.T) {
	r := newTLSRig(t, terminate, unreached(t), func(c *config.Config) {
		c.Frontends[0].TLS.HandshakeTimeout = 300 * time.Millisecond
	})
	raw := r.dial()
	first := true
	stuck := tls.Client(writer{raw, func(b []byte) (int, error) {
		if first {
			first = false
			return raw.Write(b)
		}
		return len(b), nil // all after the ClientHello is lost
	}}, r.client)
	if err := stuck.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := stuck.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client heard %v", err)
	}
	r.wantEnds(HandshakeTimeout)
	if n := r.e.Stats().Frontends["f"].HandshakesFailed; n != 1 {
		t.Errorf("%d handshakes failed", n)
	}
}

// writer is a connection with another Write.
type writer struct {
	*net.TCPConn
	write func([]byte) (int, error)
}

func (w writer) Write(b []byte) (int, error) { return w.write(b) }

// TestHandshakeFails: a client that cannot agree with us hears why, and so does the log.
func TestHandshakeFails(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(*tls.Config)
		client string
		detail string
	}{
		"does not trust us": {func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }, "unknown authority", "bad certificate"},
		"is too old": {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS10; c.MinVersion = tls.VersionTLS10 },
			"protocol version not supported", "unsupported versions"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t, terminate, unreached(t), nil)
			c.edit(r.client)
			err := tls.Client(r.dial(), r.client).Handshake()
			if err == nil || !strings.Contains(err.Error(), c.client) {
				t.Errorf("the client heard %v", err)
			}
			if rec := r.wantEnds(HandshakeFailed)[0]; !strings.Contains(rec.Detail, c.detail) {
				t.Errorf("the log says %q", rec.Detail)
			}
		})
	}
}

// TestHandshakeLeft: a client that goes within the handshake leaves nothing behind, and no backend learns of it.
func TestHandshakeLeft(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"FIN": func(c *net.TCPConn) { _ = c.Close() },
		"RST": func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t, terminate, unreached(t), nil)
			for i := range 20 {
				raw := r.dial()
				said := 0
				_ = tls.Client(writer{raw, func(b []byte) (int, error) {
					if said++; said > 1 { // before it finishes
						leave(raw)
						return 0, io.ErrClosedPipe
					}
					n, err := raw.Write(b)
					if i%2 == 0 {
						leave(raw)
					}
					return n, err
				}}, r.client).Handshake()
			}
			lbtest.Eventually(t, "all sessions ended", func() bool {
				open, _ := r.e.Sessions()
				return open == 0
			})
			lbtest.Eventually(t, "all handshakes ended", func() bool {
				w := r.e.workers.Load().Stats()
				return w.Live == 0 && w.Queued == 0
			})
			if st := r.e.gates["f"]; st != nil && st.Stats().Inside != 0 {
				t.Errorf("%d clients still count as half-open", st.Stats().Inside)
			}
		})
	}
}

// TestHandshakeLimit: half-open clients are limited, and those who have finished do not count.
func TestHandshakeLimit(t *testing.T) {
	for name, limit := range map[string]func(*config.Frontend){
		"in all":     func(f *config.Frontend) { f.MaxHandshakes = 3 },
		"per prefix": func(f *config.Frontend) { f.MaxHandshakesPerPrefix = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t, terminate, echoTLS, func(c *config.Config) { limit(c.Frontends[0]) })
			for range 5 { // these are done: they do not count
				_, c := r.connect()
				say(t, c, "x")
				hear(t, c, "x")
			}
			idle := []*net.TCPConn{r.dial(), r.dial(), r.dial()}
			lbtest.Eventually(t, "three are half-open", func() bool { return r.e.gates["f"].Stats().Inside == 3 })
			fourth, err := net.Dial("tcp", r.address())
			if err == nil {
				_, err = fourth.Read(make([]byte, 1))
				fourth.Close()
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the fourth heard %v", err)
			}
			r.wantEnds(HandshakeLimit)
			_ = idle[0].Close()
			lbtest.Eventually(t, "two are half-open", func() bool { return r.e.gates["f"].Stats().Inside == 2 })
			_, c := r.connect()
			say(t, c, "x")
			hear(t, c, "x")
		})
	}
}

// TestHandshakeHalfOpen: thousands of half-open clients do not keep others waiting, and are all cut in time.
func TestHandshakeHalfOpen(t *testing.T) {
	const n = 1000
	r := newTLSRig(t, terminate, echoTLS, func(c *config.Config) {
		c.Frontends[0].HelloTimeout = 3 * time.Second
	})
	for i := range n {
		c := r.dial()
		if i%2 == 0 {
			say(t, c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
		}
	}
	for range 20 {
		_, c := r.connect()
		say(t, c, "x")
		hear(t, c, "x")
		_ = c.CloseWrite()
		hearEnd(t, c, "")
	}
	lbtest.EventuallyIn(t, 20*time.Second, "half-open clients were cut", func() bool {
		return r.e.Stats().Frontends["f"].Ended[HelloTimeout] == n
	})
}

// TestUnknownName: names that no route or certificate has are refused with an alert where unknown_name says so.
func TestUnknownName(t *testing.T) {
	for _, f := range []form{terminate, passthrough} {
		t.Run(f.name, func(t *testing.T) {
			r := newTLSRig(t, f, unreached(t), func(c *config.Config) { c.Frontends[0].UnknownName = "reject" })
			r.client.ServerName = "stranger.test"
			err := tls.Client(r.dial(), r.client).Handshake()
			if err == nil || !strings.Contains(err.Error(), "remote error: tls: unrecognized name") {
				t.Errorf("the client heard %v", err)
			}
			r.wantEnds(UnknownName)
		})
	}
}

// TestOriginateFails: a backend that cannot prove who it is is not used; another is, and the client does not notice.
func TestOriginateFails(t *testing.T) {
	for _, f := range []form{originate, reencrypt} {
		t.Run(f.name, func(t *testing.T) {
			wrong := lbtest.NewCA(t).Pair("backend.test")
			var tried atomic.Int32
			impostor := lbtest.Serve(t, func(c *net.TCPConn) {
				tried.Add(1)
				_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{wrong}}).Handshake()
			})
			plain := lbtest.Serve(t, func(c *net.TCPConn) {
				tried.Add(1)
				say(t, c, "220 this is no TLS\r\n")
				_, _ = io.Copy(io.Discard, c)
			})
			r := newTLSRig(t, f, echoTLS, func(c *config.Config) {
				c.Pools[0].Backends = append(backendConfigs([]string{impostor, plain}), c.Pools[0].Backends...)
				for i, b := range c.Pools[0].Backends {
					b.Priority = i // in this order
				}
			})
			_, c := r.connect()
			say(t, c, "x")
			hear(t, c, "x")
			_ = c.CloseWrite()
			hearEnd(t, c, "")
			if rec := r.wantEnds(ClientEOF)[0]; rec.Attempts != 3 || tried.Load() != 2 || rec.Detail != "" {
				t.Errorf("%d attempts, %d in vain, %q", rec.Attempts, tried.Load(), rec.Detail)
			}
		})
		t.Run(f.name+", no other", func(t *testing.T) {
			wrong := lbtest.NewCA(t).Pair("backend.test")
			impostor := lbtest.Serve(t, func(c *net.TCPConn) {
				_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{wrong}}).Handshake()
			})
			r := newTLSRig(t, f, unreached(t), func(c *config.Config) { c.Pools[0].Backends = backendConfigs([]string{impostor}) })
			raw, err := net.Dial("tcp", r.address()) // which may hear of it already
			if err == nil {
				var c io.Reader = raw
				if f.clientTLS {
					c = tls.Client(raw, r.client)
				}
				_, err = io.ReadAll(c)
				raw.Close()
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client heard %v", err)
			}
			if rec := r.wantEnds(ConnectTLS)[0]; !strings.Contains(rec.Detail, "unknown authority") {
				t.Errorf("the log says %q", rec.Detail)
			}
		})
	}
}

// TestOriginateTimeout: a backend that accepts and says nothing is given up after handshake_timeout.
func TestOriginateTimeout(t *testing.T) {
	r := newTLSRig(t, originate, echoTLS, func(c *config.Config) {
		c.Pools[0].TLS.HandshakeTimeout = 200 * time.Millisecond
		c.Pools[0].Backends = append(backendConfigs([]string{lbtest.Silent(t)}), c.Pools[0].Backends...)
	})
	_, c := r.connect()
	say(t, c, "x")
	hear(t, c, "x")
	_ = c.CloseWrite()
	hearEnd(t, c, "")
	r.wantEnds(ClientEOF)
}

// TestOriginateResumes: the second connection to a backend resumes the session of the first.
func TestOriginateResumes(t *testing.T) {
	var resumed atomic.Int32
	r := newTLSRigOf(t, 1, originate, func(_ *net.TCPConn, c duplex) {
		if c.(*tls.Conn).ConnectionState().DidResume {
			resumed.Add(1)
		}
		echoTLS(nil, c)
	}, nil)
	for range 3 {
		_, c := r.connect()
		say(t, c, "x")
		hear(t, c, "x")
		_ = c.CloseWrite()
		hearEnd(t, c, "")
	}
	if resumed.Load() != 2 {
		t.Errorf("%d of 3 resumed", resumed.Load())
	}
}

// TestALPNGoesOn: what a client has agreed on with us is what we agree on with the backend.
func TestALPNGoesOn(t *testing.T) {
	var got atomic.Value
	r := newTLSRig(t, reencrypt, func(_ *net.TCPConn, c duplex) {
		got.Store(c.(*tls.Conn).ConnectionState().NegotiatedProtocol)
		echoTLS(nil, c)
	}, func(c *config.Config) { c.Frontends[0].TLS.ALPN = []string{"h2", "http/1.1"} })
	r.client.NextProtos = []string{"http/1.1"}
	r.backend.NextProtos = []string{"h2", "http/1.1"}
	_, c := r.connect()
	say(t, c, "x")
	hear(t, c, "x")
	if p := c.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "http/1.1" || got.Load() != "http/1.1" {
		t.Errorf("%q with the client, %q with the backend", p, got.Load())
	}
}

// TestChallengeHTTP: challenges of an ACME server are answered; all other requests go on, byte for byte.
func TestChallengeHTTP(t *testing.T) {
	backend := lbtest.Echo(t)
	r := newRig(t, []string{backend}, func(c *config.Config) { c.Frontends[0].ACMEChallenges = true })
	r.mu.Lock()
	r.challenges = map[string]string{"tok-en_1": "tok-en_1.print"}
	r.mu.Unlock()
	c := r.dial()
	_ = c.SetNoDelay(true)
	say(t, pieces{c}, "GET /.well-known/acme-challenge/tok-en_1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
	hearEnd(t, c, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 14\r\nConnection: close\r\n\r\ntok-en_1.print")
	r.wantEnds(Challenge)
	for _, other := range []string{"GET /.well-known/acme-challenge/other HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "G", "x", "\x16\x03\x01",
		"GET /.well-known/acme-challenge/" + strings.Repeat("x", 300)} {
		c := r.dial()
		say(t, c, other)
		if other == "G" {
			say(t, c, "OPHER / \r\n")
			other += "OPHER / \r\n"
		}
		hear(t, c, other)
	}
}

// postgresError reads an ErrorResponse and returns its message.
func postgresError(t testing.TB, c io.Reader) string {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil || head[0] != 'E' {
		t.Fatalf("got %q, %v", head, err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

const startup = "\x00\x00\x00\x13\x00\x03\x00\x00user\x00me\x00\x00\x00\x00"

// TestPostgres: clients ask for TLS in PostgreSQL's way; so do we.
func TestPostgres(t *testing.T) {
	const request = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	const gss = "\x00\x00\x00\x08\x04\xd2\x16\x30"
	// A backend that wants to be asked, where it speaks TLS.
	server := func(f form, config *tls.Config) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			if !f.backTLS {
				echoTLS(c, c)
				return
			}
			first := make([]byte, 8)
			if _, err := io.ReadFull(c, first); err != nil || string(first) != request {
				t.Errorf("the backend got %q, %v", first, err)
				return
			}
			say(t, c, "S")
			echoTLS(c, f.end(tls.Server(c, config)))
		}
	}
	for _, f := range []form{terminate, reencrypt, passthrough} {
		t.Run(f.name, func(t *testing.T) {
			ca := lbtest.NewCA(t)
			backend := lbtest.Serve(t, server(f, &tls.Config{Certificates: []tls.Certificate{ca.Pair("backend.test")}}))
			r := newTLSRigFor(t, f, ca, []string{backend}, func(c *config.Config) { c.Frontends[0].STARTTLS = "postgres" })
			for _, before := range []string{request, gss} {
				c := r.dial()
				say(t, c, before)
				if before == gss {
					hear(t, c, "N")
					say(t, c, request)
				}
				hear(t, c, "S")
				tc := f.end(tls.Client(c, r.client))
				say(t, tc, startup)
				hear(t, tc, startup)
				_ = tc.CloseWrite()
				hearEnd(t, tc, "")
			}
			if f.passthrough { // a backend that answers close_notify at once may be done before the client's FIN comes
				r.wantEndsOneOf(ClientEOF, BackendEOF)
				return
			}
			r.wantEnds(ClientEOF, ClientEOF)
		})
	}
	t.Run("plain, passed through", func(t *testing.T) {
		r := newTLSRigFor(t, passthrough, lbtest.NewCA(t), []string{lbtest.Echo(t)}, func(c *config.Config) { c.Frontends[0].STARTTLS = "postgres" })
		c := r.dial()
		say(t, c, startup)
		hear(t, c, startup)
	})
	t.Run("plain, refused", func(t *testing.T) {
		r := newTLSRig(t, terminate, unreached(t), func(c *config.Config) { c.Frontends[0].STARTTLS = "postgres" })
		c := r.dial()
		say(t, c, startup)
		if text := postgresError(t, c); !strings.Contains(text, "wants TLS") {
			t.Errorf("the client heard %q", text)
		}
		hearEnd(t, c, "")
		r.wantEnds(NotTLS)
	})
	t.Run("plain, where names decide", func(t *testing.T) {
		r := newTLSRig(t, passthrough, unreached(t), func(c *config.Config) {
			c.Frontends[0].STARTTLS, c.Frontends[0].UnknownName = "postgres", "reject"
		})
		c := r.dial()
		say(t, c, startup)
		if text := postgresError(t, c); !strings.Contains(text, "wants TLS") {
			t.Errorf("the client heard %q", text)
		}
		hearEnd(t, c, "")
		r.wantEnds(NotTLS)
	})
	t.Run("cancel", func(t *testing.T) { // libpq before 17 never encrypts it
		r := newTLSRig(t, terminate, echoTLS, func(c *config.Config) { c.Frontends[0].STARTTLS = "postgres" })
		const cancel = "\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"
		c := r.dial()
		say(t, c, cancel)
		hear(t, c, cancel)
		_ = c.CloseWrite()
		hearEnd(t, c, "")
		r.wantEnds(ClientEOF)
	})
	t.Run("stuffed", func(t *testing.T) { // CVE-2021-23214
		r := newTLSRig(t, terminate, unreached(t), func(c *config.Config) { c.Frontends[0].STARTTLS = "postgres" })
		c := r.dial()
		say(t, c, request+startup)
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("the client heard %q", got)
		}
		r.wantEnds(NotTLS)
	})
	t.Run("a backend without TLS", func(t *testing.T) {
		backend := lbtest.Serve(t, func(c *net.TCPConn) {
			hear(t, c, request)
			say(t, c, "N")
			_, _ = io.Copy(io.Discard, c)
		})
		r := newTLSRigFor(t, reencrypt, lbtest.NewCA(t), []string{backend}, func(c *config.Config) { c.Frontends[0].STARTTLS = "postgres" })
		c := r.dial()
		say(t, c, request)
		hear(t, c, "S")
		if _, err := io.ReadAll(tls.Client(c, r.client)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client heard %v", err)
		}
		if rec := r.wantEnds(ConnectTLS)[0]; rec.Detail != "PostgreSQL does not offer TLS" {
			t.Errorf("the log says %q", rec.Detail)
		}
	})
}

// TestTLSReload: a frontend that gets a tls table, or loses it, keeps its sessions and its socket.
func TestTLSReload(t *testing.T) {
	r := newTLSRig(t, terminate, func(_ *net.TCPConn, c duplex) { echoTLS(nil, c) }, nil)
	_, old := r.connect()
	say(t, old, "before")
	hear(t, old, "before")
	cfg := r.d.Snapshot().Config
	next := *cfg
	f := *cfg.Frontends[0]
	f.TLS = nil
	next.Frontends = []*config.Frontend{&f}
	r.rig.apply(&next)
	plain := r.dial()
	say(t, plain, "plain now")
	hear(t, plain, "plain now")
	say(t, old, "still here")
	hear(t, old, "still here")
	r.rig.apply(cfg)
	_, again := r.connect()
	say(t, again, "after")
	hear(t, again, "after")
}
