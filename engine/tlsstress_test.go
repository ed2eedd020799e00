package engine

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
	"awe4lb/tlsbridge"
)

// TestTLSStress: clients and backends leave in every way at any point, while the configuration changes. Those who behave are
// served to the last byte, and at the end nothing is left and everything is counted once.
func TestTLSStress(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		stressTLS(t, f, "none")
	})
	t.Run("PostgreSQL, terminate", func(t *testing.T) { stressTLS(t, terminate, "postgres") })
}

// Ways to leave a connection.
var leaveWays = []func(*net.TCPConn){
	func(c *net.TCPConn) { _ = c.Close() },
	func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	func(c *net.TCPConn) { _ = c.CloseWrite() },
	func(*net.TCPConn) {}, // says nothing more
}

// leaver leaves its connection after so many bytes, either way.
type leaver struct {
	*net.TCPConn
	left  *atomic.Int64
	leave func(*net.TCPConn)
}

func newLeaver(c *net.TCPConn, after int) leaver {
	l := leaver{c, new(atomic.Int64), leaveWays[rand.IntN(len(leaveWays))]}
	l.left.Store(int64(after))
	return l
}

func (l leaver) Write(b []byte) (int, error) {
	n, err := l.TCPConn.Write(b[:max(0, min(int64(len(b)), l.left.Load()))])
	if l.left.Add(-int64(n)) <= 0 && err == nil {
		l.leave(l.TCPConn)
		err = io.ErrShortWrite
	}
	return n, err
}

func (l leaver) Read(b []byte) (int, error) {
	n, err := l.TCPConn.Read(b)
	if n > 0 && l.left.Add(-int64(n)) <= 0 {
		l.leave(l.TCPConn)
	}
	return n, err
}

// somewhere returns a number of bytes: within a handshake, soon after it, or later.
func somewhere() int { return rand.IntN([]int{2_000, 8_000, 400_000}[rand.IntN(3)]) }

func stressTLS(t *testing.T, f form, starttls string) {
	const patience = 500 * time.Millisecond
	ca := lbtest.NewCA(t)
	serve := &tls.Config{Certificates: []tls.Certificate{ca.Pair("backend.test")}}
	// A backend does what the first byte of its client says: echo, or leave.
	backend := lbtest.Serve(t, func(raw *net.TCPConn) {
		_ = raw.SetDeadline(time.Now().Add(time.Minute))
		var c duplex = raw
		if f.backTLS {
			c = f.end(tls.Server(raw, serve))
		}
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil {
			return
		}
		if first[0] == 'e' {
			_, _ = c.Write(first)
			echoTLS(raw, c)
			return
		}
		go func() { _, _ = io.CopyN(struct{ io.Writer }{c}, lbtest.NewStream(1, 1<<30), int64(somewhere())) }()
		_, _ = io.CopyN(io.Discard, c, int64(somewhere()))
		leaveWays[rand.IntN(len(leaveWays))](raw)
		_ = raw.SetDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, raw)
	})
	backends := []string{backend, lbtest.Refused(t)}
	if f.originate { // one that fails within the handshake
		backends = append(backends, lbtest.Serve(t, func(raw *net.TCPConn) {
			_ = raw.SetDeadline(time.Now().Add(patience))
			_ = tls.Server(newLeaver(raw, rand.IntN(1500)), serve).Handshake()
		}))
	}
	var cfg *config.Config
	r := newTLSRigFor(t, f, ca, backends, func(c *config.Config) {
		front, pool := c.Frontends[0], c.Pools[0]
		front.STARTTLS, front.HelloTimeout = starttls, 40*patience
		pool.ConnectAttempts, pool.ConnectTimeout = 3, 40*patience
		if front.TLS != nil {
			front.TLS.HandshakeTimeout = 40 * patience
		}
		if pool.TLS != nil {
			pool.TLS.HandshakeTimeout = 40 * patience
		}
		cfg = c
	})
	gates := map[*tlsbridge.Gate]bool{}
	change := func(i int) {
		next, front := *cfg, *cfg.Frontends[0]
		front.MaxHandshakes, front.MaxHandshakesPerPrefix = 10_000+i, i%2*10_000
		if front.TLS != nil {
			table := *front.TLS
			table.SessionTickets = i%2 == 0
			front.TLS = &table
		}
		next.Frontends = []*config.Frontend{&front}
		r.rig.apply(&next)
		if g := r.e.gates["f"]; g != nil {
			gates[g.Gate] = true
		}
	}

	stop := time.Now().Add(700 * time.Millisecond)
	address := r.address()
	connect := func(well bool) (*net.TCPConn, duplex) {
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return nil, nil
		}
		var c net.Conn = raw
		limit := time.Minute
		if !well {
			c = newLeaver(raw.(*net.TCPConn), somewhere())
			limit = rand.N(patience / 2)
		}
		_ = raw.SetDeadline(time.Now().Add(limit))
		if starttls == "postgres" {
			_, _ = io.WriteString(c, tlsbridge.PostgresSSLRequest)
			_, _ = io.ReadFull(c, make([]byte, 1))
		}
		if f.clientTLS {
			return raw.(*net.TCPConn), f.end(tls.Client(c, r.client))
		}
		return raw.(*net.TCPConn), c.(duplex)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { // behaves
			for time.Now().Before(stop) {
				raw, c := connect(true)
				if raw == nil {
					return
				}
				n, id := rand.Int64N(300_000), rand.Uint64()
				var sent sync.WaitGroup
				sent.Go(func() {
					_, _ = io.WriteString(c, "e")
					_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(id, n))
					_ = c.CloseWrite()
				})
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Errorf("a client that behaves heard %v", err)
				} else if err := lbtest.NewStream(id, n).Check(c); err != nil {
					t.Errorf("a client that behaves: %v", err)
				}
				sent.Wait()
				raw.Close()
			}
		})
	}
	for range 64 {
		wg.Go(func() { // does not
			for time.Now().Before(stop) {
				raw, c := connect(false)
				if raw == nil {
					return
				}
				var sent sync.WaitGroup
				sent.Go(func() {
					_, _ = io.WriteString(c, []string{"e", "x"}[rand.IntN(2)])
					_, _ = io.CopyN(struct{ io.Writer }{c}, lbtest.NewStream(1, 1<<30), int64(somewhere()))
					if rand.IntN(2) == 0 {
						_ = c.CloseWrite()
					}
				})
				_, _ = io.CopyN(io.Discard, c, int64(somewhere()))
				sent.Wait()
				raw.Close()
			}
		})
	}
	for i := 0; time.Now().Before(stop); i++ {
		change(i)
		time.Sleep(50 * time.Millisecond) // the pace of the changes; nothing waits for this
	}
	wg.Wait()

	lbtest.EventuallyIn(t, 10*time.Second, "all sessions ended", func() bool {
		open, _ := r.e.Sessions()
		return open == 0
	})
	if w := r.e.workers.Load(); w != nil {
		lbtest.Eventually(t, "no handshake is left", func() bool {
			s := w.Stats()
			return s.Live == 0 && s.Queued == 0
		})
	}
	for g := range gates {
		if n := g.Stats().Inside; n != 0 {
			t.Errorf("%d clients still count as half-open", n)
		}
	}
	lbtest.Eventually(t, "nobody lingers", func() (none bool) {
		none = true
		for _, sh := range r.e.shards {
			sh.loop.Call(func() { none = none && sh.lingers == 0 && sh.lingering.next == &sh.lingering })
		}
		return none
	})
	if n := r.d.Snapshot().Frontend("f").Live.Active(); n != 0 {
		t.Errorf("%d sessions still count on the frontend", n)
	}
	for _, m := range r.d.Snapshot().Pool("p").Members {
		if n := m.Backend.Active(); n != 0 {
			t.Errorf("%d sessions still count on backend %s", n, m.Backend.Name)
		}
	}
	st := r.e.Stats().Frontends["f"]
	if n := st.open(); n != 0 {
		t.Errorf("%d of %d sessions are not counted as ended", n, st.Accepted)
	}
	for reason, n := range st.Ended {
		if n > 0 {
			t.Logf("%6d %s", n, Reason(reason))
		}
	}
}
