package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// form is one way to handle TLS: at which ends it is spoken, and at which of them by us.
type form struct {
	name               string
	terminate          bool
	originate          bool
	passthrough        bool
	clientTLS, backTLS bool // who of the others speaks it
}

var forms = []form{
	{name: "terminate", terminate: true, clientTLS: true},
	{name: "originate", originate: true, backTLS: true},
	{name: "re-encrypt", terminate: true, originate: true, clientTLS: true, backTLS: true},
	{name: "pass through", passthrough: true, clientTLS: true, backTLS: true},
}

// duplex is a connection, TLS or not.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
	SetDeadline(time.Time) error
}

// tlsRig is a rig for one form.
type tlsRig struct {
	*rig
	form    form
	ca      *lbtest.CA
	client  *tls.Config // of the clients
	backend *tls.Config // of the backend that newTLSRig made; may be changed before the first connection
}

// newTLSRig starts an engine between clients and a backend, as form says. handle serves the backend's connections, each
// after its handshake.
func newTLSRig(t testing.TB, f form, handle func(raw *net.TCPConn, c duplex), edit func(*config.Config)) *tlsRig {
	t.Helper()
	return newTLSRigOf(t, 2, f, handle, edit)
}

// newTLSRigOf is newTLSRig with a number of shards.
func newTLSRigOf(t testing.TB, shards int, f form, handle func(raw *net.TCPConn, c duplex), edit func(*config.Config)) *tlsRig {
	t.Helper()
	ca := lbtest.NewCA(t)
	serve := &tls.Config{Certificates: []tls.Certificate{ca.Pair("backend.test")}}
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		if !f.backTLS {
			handle(c, c)
			return
		}
		tc := tls.Server(c, serve)
		_ = tc.SetDeadline(time.Now().Add(time.Minute))
		if err := tc.Handshake(); err != nil {
			return
		}
		handle(c, f.end(tc))
	})
	r := newTLSRigOn(t, shards, f, ca, []string{backend}, edit)
	r.backend = serve
	return r
}

// newTLSRigFor starts an engine between clients and backends, whose certificates ca has signed.
func newTLSRigFor(t testing.TB, f form, ca *lbtest.CA, backends []string, edit func(*config.Config)) *tlsRig {
	t.Helper()
	return newTLSRigOn(t, 2, f, ca, backends, edit)
}

func newTLSRigOn(t testing.TB, shards int, f form, ca *lbtest.CA, backends []string, edit func(*config.Config)) *tlsRig {
	t.Helper()
	r := &tlsRig{form: f, ca: ca, client: &tls.Config{RootCAs: ca.Pool, ServerName: "front.test"}}
	if f.passthrough {
		r.client.ServerName = "backend.test"
	}
	r.rig = newRigOf(t, shards, backends, func(c *config.Config) {
		r.setUp(c)
		if edit != nil {
			edit(c)
		}
	})
	return r
}

// setUp sets up c for the form.
func (r *tlsRig) setUp(c *config.Config) {
	t := r.ca.T()
	if r.form.terminate {
		cert, key := r.ca.Issue(lbtest.Leaf{Names: []string{"front.test"}})
		c.Frontends[0].TLS = &config.FrontendTLS{HandshakeTimeout: time.Minute, SessionTickets: true,
			Certificates: []*config.CertificateFiles{{Cert: lbtest.Files(t, "front.pem", cert, key)}}}
	}
	if r.form.originate {
		c.Pools[0].TLS = &config.PoolTLS{ServerName: "backend.test", CA: lbtest.Files(t, "ca.pem", r.ca.PEM),
			HandshakeTimeout: time.Minute, SessionCache: true}
	}
	if r.form.passthrough {
		c.Frontends[0].Routes = []*config.Route{{Match: config.Match{SNI: []string{"backend.test"}}, Pool: "p"}}
	}
}

// connect connects a client and makes its handshake, if it speaks TLS.
func (r *tlsRig) connect() (raw *net.TCPConn, c duplex) {
	r.t.Helper()
	raw = r.dial()
	if !r.form.clientTLS {
		return raw, raw
	}
	tc := tls.Client(raw, r.client)
	if err := tc.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return raw, r.form.end(tc)
}

// end returns c, or where nobody on the way understands close_notify, c with a FIN after it.
func (f form) end(c *tls.Conn) duplex {
	if f.passthrough {
		return withFIN{c}
	}
	return c
}

type withFIN struct{ *tls.Conn }

// CloseWrite sends both in one segment: a peer that ends on close_notify could otherwise be done before FIN is here.
func (c withFIN) CloseWrite() error {
	raw := c.NetConn().(interface {
		syscall.Conn
		CloseWrite() error
	})
	cork(raw)
	return errors.Join(c.Conn.CloseWrite(), raw.CloseWrite())
}

// cork has c send nothing but full segments, until FIN.
func cork(c syscall.Conn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { sysSetInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
	}
}

// eachForm runs test for every form.
func eachForm(t *testing.T, test func(t *testing.T, f form)) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) { test(t, f) })
	}
}

// TestTLSExchange sends random pieces both ways at the same time; each end stops when it has said all.
func TestTLSExchange(t *testing.T) {
	for _, sizes := range [][2]int64{{0, 0}, {1, 1}, {20_000, 5_000_000}, {9_000_000, 1}, {6_000_000, 6_000_000}} {
		eachForm(t, func(t *testing.T, f form) { exchangeTLS(t, f, sizes[0], sizes[1]) })
	}
}

func exchangeTLS(t *testing.T, f form, up, down int64) {
	fromClient := make(chan error, 1)
	send := func(c duplex, id uint64, n int64) {
		s := lbtest.NewStream(id, n)
		s.Chunks = rand.New(rand.NewPCG(id, id))
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, s, make([]byte, 300<<10)); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
	}
	r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { send(c, 2, down) })
		fromClient <- lbtest.NewStream(1, up).Check(c)
	}, nil)
	_, c := r.connect()
	var wg sync.WaitGroup
	wg.Go(func() { send(c, 1, up) })
	if err := lbtest.NewStream(2, down).Check(c); err != nil {
		t.Errorf("to the client: %v", err)
	}
	if err := <-fromClient; err != nil {
		t.Errorf("to the backend: %v", err)
	}
	wg.Wait()
	rec := r.wantEndsOneOf(ClientEOF, BackendEOF)
	if !f.passthrough && (rec.C2B != uint64(up) || rec.B2C != uint64(down)) {
		t.Errorf("counted %d up, %d down; want %d, %d", rec.C2B, rec.B2C, up, down)
	}
	if f.terminate && rec.TLSVersion != tls.VersionTLS13 || f.clientTLS && rec.ServerName != r.client.ServerName {
		t.Errorf("version %x, name %q", rec.TLSVersion, rec.ServerName)
	}
}

// TestTLSHalfClose: a client that has said all still gets a long answer, and the other way round.
func TestTLSHalfClose(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
				question, err := io.ReadAll(c)
				if err != nil {
					t.Error(err)
				}
				say(t, c, strings.Repeat(string(question), 100_000))
				_ = c.CloseWrite()
			}, nil)
			r.client.MaxVersion = version
			_, c := r.connect()
			say(t, c, "question")
			_ = c.CloseWrite()
			hearEnd(t, c, strings.Repeat("question", 100_000))
			r.wantEnds(ClientEOF)
		}
	})
}

// TestTLSTruncated: a stream that ends without close_notify is a cut, and both ends hear a reset, not an end.
func TestTLSTruncated(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		if f.passthrough { // what is not ours to read is not ours to judge: FIN goes on as FIN, after all that came before
			type heard struct {
				text string
				err  error
			}
			got := make(chan heard, 1)
			r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
				b, err := io.ReadAll(c)
				got <- heard{string(b), err}
			}, nil)
			raw, c := r.connect()
			say(t, c, "half a mess")
			_ = raw.CloseWrite()
			if h := <-got; h.text != "half a mess" || h.err != nil && !errors.Is(h.err, io.ErrUnexpectedEOF) {
				t.Errorf("the backend heard %q, %v", h.text, h.err)
			}
			r.wantEndsOneOf(ClientEOF, BackendEOF)
		}
		if f.terminate {
			heard := make(chan error, 1)
			r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
				_, err := io.ReadAll(c)
				heard <- err
			}, nil)
			raw, c := r.connect()
			say(t, c, "half a mess")
			_ = raw.CloseWrite()
			if err := <-heard; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the backend heard %v", err)
			}
			if _, err := io.ReadAll(raw); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client heard %v", err)
			}
			r.wantEnds(ClientTruncated)
		}
		if f.originate {
			r := newTLSRig(t, f, func(raw *net.TCPConn, c duplex) {
				hear(t, c, "?")
				say(t, c, "half an ans")
				_ = raw.CloseWrite()
				if _, err := io.Copy(io.Discard, raw); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the backend heard %v", err)
				}
			}, nil)
			_, c := r.connect()
			say(t, c, "?")
			got, err := io.ReadAll(c)
			if string(got) != "half an ans" || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client heard %q, %v", got, err)
			}
			r.wantEnds(BackendTruncated)
		}
	})
}

// TestTLSReset: data before a reset arrives, then the reset does.
func TestTLSReset(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		heard := make(chan error, 1)
		r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
			hear(t, c, "last words")
			_, err := io.ReadAll(c)
			heard <- err
		}, nil)
		raw, c := r.connect()
		say(t, c, "last words")
		_ = raw.SetLinger(0)
		_ = raw.Close()
		if err := <-heard; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the backend heard %v", err)
		}
		r.wantEnds(ClientRST)
	})
}

// TestTLSSlowReader: a client who does not read stops the backend, and everything arrives once it does.
func TestTLSSlowReader(t *testing.T) {
	const size = 64 << 20
	eachForm(t, func(t *testing.T, f form) {
		sent := make(chan struct{})
		r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
			if _, err := io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(3, size)); err != nil {
				t.Error(err)
			}
			_ = c.CloseWrite()
			close(sent)
			_, _ = io.Copy(io.Discard, c)
		}, nil)
		_, c := r.connect()
		// Nothing moves for a while: the backend is stopped by what is full on the way.
		last := uint64(0)
		lbtest.Eventually(t, "the flow stopped", func() bool {
			was := last
			last = r.e.Stats().Frontends["f"].Bytes[ToClient]
			time.Sleep(50 * time.Millisecond)
			return last > 0 && last == was
		})
		select {
		case <-sent:
			t.Error("everything was taken from the backend while the client read nothing")
		default:
		}
		if err := lbtest.NewStream(3, size).Check(c); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
		r.wantEnds(BackendEOF)
	})
}

// TestTLSPieces: what a client sends arrives in segments of one byte, hello and all.
func TestTLSPieces(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) { _, _ = io.Copy(c, c); _ = c.CloseWrite() }, nil)
		raw := r.dial()
		_ = raw.SetNoDelay(true)
		var c duplex = pieces{raw}
		if f.clientTLS {
			c = f.end(tls.Client(pieces{raw}, r.client))
		}
		say(t, c, "one at a time")
		hear(t, c, "one at a time")
		_ = c.CloseWrite()
		hearEnd(t, c, "")
		r.wantEnds(ClientEOF)
	})
}

// pieces writes byte by byte.
type pieces struct{ *net.TCPConn }

func (p pieces) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := p.TCPConn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// TestTLSMany: many clients at once, each with a stream of its own.
func TestTLSMany(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) { _, _ = io.Copy(c, c); _ = c.CloseWrite() }, nil)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				for j := range 4 {
					raw, err := net.Dial("tcp", r.address())
					if err != nil {
						t.Error(err)
						return
					}
					_ = raw.SetDeadline(time.Now().Add(time.Minute))
					var c duplex = raw.(*net.TCPConn)
					if f.clientTLS {
						c = f.end(tls.Client(raw, r.client))
					}
					id := uint64(i*10 + j)
					var sent sync.WaitGroup
					sent.Go(func() {
						_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(id, 100_000))
						_ = c.CloseWrite()
					})
					if err := lbtest.NewStream(id, 100_000).Check(c); err != nil {
						t.Errorf("client %d: %v", id, err)
					}
					sent.Wait()
					raw.Close()
				}
			})
		}
		wg.Wait()
		lbtest.Eventually(t, "all sessions ended", func() bool {
			open, _ := r.e.Sessions()
			return open == 0
		})
		st := r.e.Stats().Frontends["f"]
		// The FIN of a TLS client may come after all that the backend says, and its FIN.
		if n := st.Ended[ClientEOF] + st.Ended[BackendEOF]; n != 200 {
			t.Errorf("%d ended well: %v", n, fmt.Sprint(st.Ended))
		}
		if f.terminate && st.Handshakes[3] != 200 {
			t.Errorf("handshakes %v", st.Handshakes)
		}
	})
}
