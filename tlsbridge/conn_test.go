package tlsbridge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// serverConfig and clientConfig are as the package builds them, and plain enough for these tests.
func serverConfig(ca *lbtest.CA, names ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Pair(names...)}, DynamicRecordSizingDisabled: true}
}

func clientConfig(ca *lbtest.CA, name string) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool, ServerName: name, DynamicRecordSizingDisabled: true}
}

// tlsBackend runs handle for every TLS connection, after its handshake.
func tlsBackend(t testing.TB, config *tls.Config, handle func(*tls.Conn)) string {
	return lbtest.Serve(t, func(c *net.TCPConn) {
		s := tls.Server(c, config)
		if err := s.Handshake(); err == nil {
			handle(s)
		}
	})
}

type closeWriter interface {
	io.ReadWriter
	CloseWrite() error
}

// bothWays sends up and down at the same time and checks every byte at both ends.
func bothWays(t *testing.T, client closeWriter, backend <-chan error, up, down int64) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		s := lbtest.NewStream(1, up)
		s.Chunks = rand.New(rand.NewPCG(1, 1))
		if _, err := io.CopyBuffer(struct{ io.Writer }{client}, s, make([]byte, 100<<10)); err != nil {
			t.Error(err)
		}
		if err := client.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	if err := lbtest.NewStream(2, down).Check(client); err != nil {
		t.Errorf("to the client: %v", err)
	}
	wg.Wait()
	if err := <-backend; err != nil {
		t.Errorf("to the backend: %v", err)
	}
}

// streamer answers with a stream of down bytes and checks that it gets one of up.
func streamer(t *testing.T, up, down int64, results chan<- error) func(closeWriter) {
	return func(c closeWriter) {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			s := lbtest.NewStream(2, down)
			s.Chunks = rand.New(rand.NewPCG(2, 2))
			if _, err := io.CopyBuffer(struct{ io.Writer }{c}, s, make([]byte, 100<<10)); err != nil {
				t.Error(err)
			}
			_ = c.CloseWrite()
		})
		results <- lbtest.NewStream(1, up).Check(c)
	}
}

// borrowNothing stands for reads of any size by crypto/tls itself.
const borrowNothing = -1

// withoutBorrowing makes the test run as if tls.Conn were not as we know it.
func withoutBorrowing(t testing.TB) {
	was := borrowing
	borrowing = false
	t.Cleanup(func() { borrowing = was })
}

// TestBorrowing: a release of Go that changes tls.Conn costs memory and speed, silently but for this.
func TestBorrowing(t *testing.T) {
	if !borrowing {
		t.Error("tls.Conn has changed: see read.go")
	}
}

// TestForms: terminate, originate, re-encrypt and pass through, in TLS 1.2 and 1.3; both directions at once, each with an
// end of its own.
func TestForms(t *testing.T) {
	ca := lbtest.NewCA(t)
	for _, form := range []string{"terminate", "originate", "re-encrypt", "pass through"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, pull := range []int{0, 1, borrowNothing} {
				t.Run(fmt.Sprintf("%s %s pull %d", form, tls.VersionName(version), pull), func(t *testing.T) {
					if pull == borrowNothing {
						withoutBorrowing(t)
					}
					up, down := int64(3<<20), int64(5<<20)
					if pull == 1 || raceEnabled {
						up, down = 200_000, 300_000
					}
					results := make(chan error, 1)
					serve := streamer(t, up, down, results)
					o := rigOptions{pull: pull}
					var backend string
					if form == "terminate" {
						backend = lbtest.Serve(t, func(c *net.TCPConn) { serve(c) })
					} else {
						config := serverConfig(ca, "backend.test")
						config.MaxVersion = version
						backend = tlsBackend(t, config, func(c *tls.Conn) { serve(c) })
					}
					switch form {
					case "terminate", "re-encrypt":
						o.server = serverConfig(ca, "front.test")
						o.server.MaxVersion = version
					case "pass through":
						o.peek = true
					}
					if form == "originate" || form == "re-encrypt" {
						o.client = clientConfig(ca, "backend.test")
					}
					r := newRig(t, backend, o)
					var client closeWriter = r.dial()
					switch form {
					case "terminate", "re-encrypt":
						client = tls.Client(client.(*net.TCPConn), clientConfig(ca, "front.test"))
					case "pass through":
						client = tls.Client(client.(*net.TCPConn), clientConfig(ca, "backend.test"))
					}
					if c, ok := client.(*tls.Conn); ok {
						if err := c.Handshake(); err != nil {
							t.Fatal(err)
						}
						if got := c.ConnectionState().Version; got != version {
							t.Errorf("version %s", tls.VersionName(got))
						}
					}
					bothWays(t, client, results, up, down)
					_ = client.(io.Closer).Close() // passed through, close_notify is no FIN
					if why := r.wantEnds(); why != "eof" {
						t.Errorf("ended by %q", why)
					}
				})
			}
		}
	}
}

// TestSegments: the client's bytes come one at a time, and its ClientHello in records of one byte.
func TestSegments(t *testing.T) {
	ca := lbtest.NewCA(t)
	r := newRig(t, lbtest.Echo(t), rigOptions{server: serverConfig(ca, "a.test")})
	for _, cut := range []int{0, 1, 7} {
		config := clientConfig(ca, "a.test")
		config.CurvePreferences = []tls.CurveID{tls.X25519} // a short ClientHello: HelloLimit counts the headers
		c := tls.Client(&trickle{TCPConn: r.dial(), cut: cut}, config)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Fatalf("%q %v", b, err)
		}
		c.Close()
	}
}

// trickle writes a byte at a time, the first flight cut into records of cut bytes.
type trickle struct {
	*net.TCPConn
	cut   int
	begun bool
}

func (c *trickle) Write(b []byte) (int, error) {
	out := b
	if !c.begun && c.cut > 0 {
		out = recut(b, c.cut)
	}
	c.begun = true
	for i := range out {
		if _, err := c.TCPConn.Write(out[i : i+1]); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// TestEnds: close_notify is a clean end, a FIN without it is a truncation, also between two records; a reset is a reset.
func TestEnds(t *testing.T) { testEnds(t) }

func TestEndsWithoutBorrowing(t *testing.T) {
	withoutBorrowing(t)
	testEnds(t)
}

func testEnds(t *testing.T) {
	ca := lbtest.NewCA(t)
	for name, c := range map[string]struct {
		end  func(*tls.Conn, *net.TCPConn)
		want string
		got  string // what the backend reads, at the end
	}{
		"close_notify":      {func(c *tls.Conn, _ *net.TCPConn) { c.Close() }, "eof", "EOF"},
		"half close":        {func(c *tls.Conn, _ *net.TCPConn) { _ = c.CloseWrite() }, "eof", "EOF"},
		"FIN":               {func(_ *tls.Conn, c *net.TCPConn) { c.Close() }, ErrTruncated.Error(), "reset"},
		"FIN, reading on":   {func(_ *tls.Conn, c *net.TCPConn) { _ = c.CloseWrite() }, ErrTruncated.Error(), "reset"},
		"FIN in a record":   {func(_ *tls.Conn, c *net.TCPConn) { _, _ = c.Write([]byte{23, 3, 3, 0, 99, 1}); c.Close() }, ErrTruncated.Error(), "reset"},
		"FIN in a header":   {func(_ *tls.Conn, c *net.TCPConn) { _, _ = c.Write([]byte{23, 3}); c.Close() }, ErrTruncated.Error(), "reset"},
		"reset":             {func(_ *tls.Conn, c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, "connection reset by peer", "reset"},
		"garbage":           {func(_ *tls.Conn, c *net.TCPConn) { _, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }, "tls: ", "reset"},
		"a record too long": {func(_ *tls.Conn, c *net.TCPConn) { _, _ = c.Write([]byte{23, 3, 3, 0x48, 1, 0}) }, "tls: ", "reset"},
		"a forged record": {func(_ *tls.Conn, c *net.TCPConn) {
			_, _ = c.Write(append([]byte{23, 3, 3, 0, 30}, make([]byte, 30)...))
		}, "bad record MAC", "reset"},
		"a plain alert": {func(_ *tls.Conn, c *net.TCPConn) { _, _ = c.Write([]byte{21, 3, 3, 0, 2, 1, 0}) }, "tls: ", "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			read := make(chan error, 1)
			r := newRig(t, lbtest.Serve(t, func(c *net.TCPConn) {
				b := make([]byte, 100)
				n, err := io.ReadFull(c, b[:4])
				if n == 4 {
					n, err = c.Read(b)
				}
				if n > 0 || err == nil {
					err = fmt.Errorf("%d bytes", n)
				}
				read <- err
			}), rigOptions{server: serverConfig(ca, "a.test")})
			raw := r.dial()
			conn := tls.Client(raw, clientConfig(ca, "a.test"))
			if _, err := conn.Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
			c.end(conn, raw)
			if err := <-read; !strings.Contains(err.Error(), c.got) {
				t.Errorf("the backend reads %v, want %s", err, c.got)
			}
			if why := r.wantEnds(); !strings.Contains(why, c.want) {
				t.Errorf("ended by %q, want %q", why, c.want)
			}
		})
	}
}

// TestHalfClose: a client says all it has, and gets a long answer long after.
func TestHalfClose(t *testing.T) {
	ca := lbtest.NewCA(t)
	const size = 2 << 20
	r := newRig(t, lbtest.Serve(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		if err != nil || string(all) != "request" {
			t.Errorf("%q %v", all, err)
		}
		time.Sleep(50 * time.Millisecond) // "long after"
		_, _ = io.Copy(c, lbtest.NewStream(3, size))
	}), rigOptions{server: serverConfig(ca, "a.test")})
	c := tls.Client(r.dial(), clientConfig(ca, "a.test"))
	_, _ = c.Write([]byte("request"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := lbtest.NewStream(3, size).Check(c); err != nil {
		t.Error(err)
	}
	if why := r.wantEnds(); why != "eof" {
		t.Errorf("ended by %q", why)
	}
}

// TestStalledReader: a client that does not read holds the backend back, and no memory.
func TestStalledReader(t *testing.T) {
	ca := lbtest.NewCA(t)
	sent := make(chan int64, 1)
	r := newRig(t, lbtest.Serve(t, func(c *net.TCPConn) {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, _ := io.Copy(c, lbtest.NewStream(1, 1<<40))
		sent <- n
	}), rigOptions{server: serverConfig(ca, "a.test")})
	c := tls.Client(r.dial(), clientConfig(ca, "a.test"))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if n := <-sent; n > 64<<20 {
		t.Errorf("took %d bytes for a client that reads none", n)
	}
	held := 0
	r.loop.Call(func() {
		for s := range r.sessions {
			held += len(s.client.backlog) + len(s.backend.backlog)
		}
	})
	if held > 2*MaxCiphertext(64<<10) {
		t.Errorf("%d bytes wait", held)
	}
}

// TestGarbage: what is no ClientHello never reaches a handshake or a backend.
func TestGarbage(t *testing.T) {
	ca := lbtest.NewCA(t)
	good := goHello(&tls.Config{ServerName: "a.test"})
	r := newRig(t, lbtest.Serve(t, func(*net.TCPConn) { t.Error("a backend was dialed") }),
		rigOptions{server: serverConfig(ca, "a.test"), deadline: 300 * time.Millisecond})
	for name, c := range map[string]struct {
		b    string
		want string
	}{
		"HTTP":                {"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "not TLS"},
		"SSLv2":               {"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", "not TLS"},
		"0-length record":     {"\x16\x03\x01\x00\x00", "malformed"},
		"truncated, silent":   {string(good[:100]), "deadline"},
		"silent":              {"", "deadline"},
		"half a header":       {"\x16\x03", "deadline"},
		"large record":        {"\x16\x03\x01\xff\xff", "malformed"},
		"large message":       {"\x16\x03\x01\x02\x00\x01\xff\xff\xff", "too long"},
		"trailing dot":        {string(helloFor(sni("a.test."))), "malformed"},
		"hello of no suites":  {string(helloFor(sni("a.test"))), "handshake: "},
		"hello, then garbage": {string(good) + "garbage", "handshake: "},
		"hello, then silence": {string(good), "deadline"},
	} {
		raw := r.dial()
		if _, err := raw.Write([]byte(c.b)); err != nil {
			t.Fatal(err)
		}
		if why := r.wantEnds(); !strings.HasPrefix(why, c.want) {
			t.Errorf("%s: ended by %q, want %q", name, why, c.want)
		}
		raw.Close()
	}
	if s := r.workers.Stats(); s.Live != 0 || s.Queued != 0 || s.Done != 0 {
		t.Errorf("%+v", s)
	}
}

// TestAlertArrives: a client is told why its handshake failed, though it sent more than was read.
func TestAlertArrives(t *testing.T) {
	ca, other := lbtest.NewCA(t), lbtest.NewCA(t)
	config := serverConfig(ca, "a.test")
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
	r := newRig(t, lbtest.Echo(t), rigOptions{server: config})
	expired, err := tls.X509KeyPair(ca.Issue(lbtest.Leaf{Names: []string{"c"}, Until: time.Now().Add(-time.Minute)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, c := range map[string]struct {
			pairs []tls.Certificate
			want  string
		}{
			"none":     {nil, map[uint16]string{tls.VersionTLS12: "handshake failure", tls.VersionTLS13: "certificate required"}[version]},
			"other CA": {[]tls.Certificate{other.Pair("c")}, "unknown certificate authority"},
			"expired":  {[]tls.Certificate{expired}, "expired certificate"},
			"good":     {[]tls.Certificate{ca.Pair("c")}, ""},
		} {
			client := clientConfig(ca, "a.test")
			client.MaxVersion = version
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(c.pairs) == 0 {
					return new(tls.Certificate), nil
				}
				return &c.pairs[0], nil // whatever the server asks for
			}
			conn := tls.Client(r.dial(), client)
			_, err := conn.Write([]byte("early bird"))
			if err == nil {
				_, err = io.ReadFull(conn, make([]byte, 10))
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s, %s: %v, want %s", tls.VersionName(version), name, err, c.want)
			}
			conn.Close()
			r.wantEnds()
		}
	}
}

// TestBackendRefusals: what goes wrong with the backend's certificate is seen in the handshake, or with the first read.
func TestBackendRefusals(t *testing.T) {
	ca, other := lbtest.NewCA(t), lbtest.NewCA(t)
	config := serverConfig(ca, "b.test")
	backend := tlsBackend(t, config, func(c *tls.Conn) { _, _ = io.Copy(c, c) })
	for name, c := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"other CA":   {clientConfig(other, "b.test"), "unknown authority"},
		"other name": {clientConfig(ca, "c.test"), "valid for b.test, not c.test"},
		"good":       {clientConfig(ca, "b.test"), ""},
	} {
		r := newRig(t, backend, rigOptions{client: c.config})
		raw, err := net.Dial("tcp", r.address)
		if err == nil { // otherwise the reset was faster
			_, _ = raw.Write([]byte("x"))
			_ = raw.SetDeadline(time.Now().Add(time.Minute))
			_, err = io.ReadFull(raw, make([]byte, 1))
			raw.Close()
		}
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if why := r.wantEnds(); err == nil || !strings.Contains(why, c.want) {
			t.Errorf("%s: %v, ended by %q", name, err, why)
		}
	}
}

func TestFeedOutOfTurn(t *testing.T) {
	lbtest.CheckLeaks(t)
	ws, err := NewWorkers(WorkerOptions{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	done := make(chan bool, 1)
	c := ws.Client(Params{Config: &tls.Config{ServerName: "a.test"}, Notify: func() { done <- true }})
	c.Feed(nil)
	<-done
	if r := c.Result(); r.State != Handshaking || len(r.Out) == 0 {
		t.Errorf("%+v", r)
	}
	c.Feed([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
	<-done
	r := c.Result()
	if r.State != Failed || !errors.As(r.Err, new(tls.RecordHeaderError)) {
		t.Errorf("%+v", r)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	c.Feed(nil)
}
