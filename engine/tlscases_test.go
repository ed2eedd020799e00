package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/engine/loop"
	"awe4lb/internal/lbtest"
)

// TestHelloFillsLimit: a ClientHello cut so finely that the limit falls into the header of a record. There is no room to
// read on, and it is refused.
func TestHelloFillsLimit(t *testing.T) {
	for _, f := range []form{terminate, passthrough} {
		t.Run(f.name, func(t *testing.T) {
			r := newTLSRigOf(t, 1, f, unreached(t), nil)
			const want = 2733 // bytes of the message; in records of a byte each it just stays under the limit as it goes on
			message := "\x01\x00" + string([]byte{(want - 4) >> 8, (want - 4) & 0xff}) + strings.Repeat("x", want-4)
			var hello strings.Builder
			for i := range message {
				hello.WriteString("\x16\x03\x01\x00\x01" + message[i:i+1])
			}
			c := r.dial()
			_, _ = io.WriteString(c, hello.String())
			got, _ := io.ReadAll(c)
			if string(got) != "\x15\x03\x03\x00\x02\x02\x32" {
				t.Errorf("the client heard %q", got)
			}
			r.wantEnds(BadHello)
		})
	}
}

// TestHelloThenFIN: a client that says nothing more after its ClientHello cannot finish the handshake, and ends at once.
func TestHelloThenFIN(t *testing.T) {
	r := newTLSRig(t, terminate, unreached(t), nil)
	raw := r.dial()
	_ = tls.Client(writer{raw, func(b []byte) (int, error) {
		cork(raw) // so that FIN is in the same segment
		n, err := raw.Write(b)
		_ = raw.CloseWrite()
		return n, errors.Join(err, io.ErrClosedPipe)
	}}, r.client).Handshake()
	_, _ = io.Copy(io.Discard, raw)
	r.wantEnds(HandshakeFailed)
}

// TestChallengeAmongOthers: only a client that offers nothing but acme-tls/1 comes for a challenge.
func TestChallengeAmongOthers(t *testing.T) {
	for _, protocols := range [][]string{{acmeTLS, "h2"}, {"\x0a\x0a", acmeTLS}, {acmeTLS}} {
		r := newTLSRig(t, terminate, echoTLS, nil)
		r.client.NextProtos = protocols
		c := tls.Client(r.dial(), r.client)
		if len(protocols) == 2 && protocols[1] == "h2" {
			say(t, c, "x")
			hear(t, c, "x")
			continue
		}
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("%q: the client heard %q, %v", protocols, got, err)
		}
		r.wantEnds(Challenge)
	}
}

// TestTLSFairness: who sends as fast as it can does not keep the shard from others.
func TestTLSFairness(t *testing.T) {
	const senders = 4
	r := newTLSRigOf(t, 1, originate, func(raw *net.TCPConn, c duplex) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = io.Copy(io.Discard, raw) // does not even decrypt
	}, nil)
	turns := &turns{sh: r.e.shards[0]}
	turns.timer.Handle(turns)
	var sending sync.WaitGroup
	for range senders {
		_, c := r.connect()
		say(t, c, "b")
		sending.Go(func() {
			for b, n := make([]byte, 1<<20), 0; n < 200; n++ {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	turns.sh.loop.Call(turns.Expire)
	sending.Wait()
	turns.sh.loop.Call(func() { turns.sh.loop.Cancel(&turns.timer) })
	if turns.most > 4*senders*pumpBudget {
		t.Errorf("%d MiB were relayed in one turn", turns.most>>20)
	}
}

// turns looks every turn of a loop how much was relayed in it.
type turns struct {
	sh         *shard
	timer      loop.Timer
	last, most uint64
}

func (ts *turns) Expire() {
	n := ts.sh.frontendStats("f").Bytes[ToBackend]
	ts.last, ts.most = n, max(ts.most, n-ts.last)
	ts.sh.loop.Yield(&ts.timer)
}

// TestTLSBreaksAfterFIN: who is sent nothing any more is sent no alert, either; that it cannot be sent is not a fault of the
// socket.
func TestTLSBreaksAfterFIN(t *testing.T) {
	r := newTLSRig(t, terminate, func(_ *net.TCPConn, c duplex) {
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}, nil)
	raw, c := r.connect()
	hearEnd(t, c, "")
	say(t, raw, "\x17\x03\x03\x00\x20"+strings.Repeat("x", 32))
	r.wantEnds(ClientTLS)
}

// TestTLSBothWays: a client that reads nothing can still say all it has, however much waits for it.
func TestTLSBothWays(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		const up = 16 << 20
		got := make(chan error, 8)
		r := newTLSRig(t, f, func(_ *net.TCPConn, c duplex) {
			go func() { _, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(2, 1<<30)) }()
			hear(t, c, "go")
			got <- lbtest.NewStream(1, up).Check(c)
		}, nil)
		for range 2 {
			_, c := r.connect()
			last := ^uint64(0)
			lbtest.Eventually(t, "the flow stopped", func() bool {
				was := last
				last = r.e.Stats().Frontends["f"].Bytes[ToClient]
				time.Sleep(50 * time.Millisecond)
				return last > 0 && last == was
			})
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			say(t, c, "go")
			if _, err := io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, up)); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestUnknownNameRouted: where routes look at the name, they decide which names are known, and no certificate does.
func TestUnknownNameRouted(t *testing.T) {
	r := newTLSRig(t, terminate, echoTLS, func(c *config.Config) {
		c.Frontends[0].UnknownName = "reject"
		c.Frontends[0].Routes = []*config.Route{{Match: config.Match{SNI: []string{"", "routed.test"}}, Pool: "p"}}
	})
	r.client.InsecureSkipVerify = true
	for name, known := range map[string]bool{"": true, "routed.test": true, "front.test": false} {
		r.client.ServerName = name
		err := tls.Client(r.dial(), r.client).Handshake()
		if known != (err == nil) || !known && !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: the client heard %v", name, err)
		}
	}
}

// TestClientResetsAfterRetry: a client that resets while a second backend is tried ends for that, not for what was wrong with
// the first.
func TestClientResetsAfterRetry(t *testing.T) {
	r := newTLSRigFor(t, originate, lbtest.NewCA(t), []string{lbtest.Refused(t), lbtest.Silent(t)}, func(c *config.Config) {
		c.Pools[0].Backends[1].Priority = 1
	})
	c := r.dial()
	lbtest.Eventually(t, "the second was connected", func() bool { return r.e.workers.Load().Stats().Live == 1 })
	_ = c.SetLinger(0)
	_ = c.Close()
	if rec := r.wantEnds(ClientRST)[0]; rec.Detail != "" {
		t.Errorf("the log says %q", rec.Detail)
	}
}

// TestTLSKilled: a session can be ended whatever it waits for, and nothing of it is left.
func TestTLSKilled(t *testing.T) {
	const request = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	hello := func(r *tlsRig, c *net.TCPConn) {
		_ = tls.Client(writer{c, func(b []byte) (int, error) {
			_, _ = c.Write(b)
			return 0, io.ErrClosedPipe
		}}, r.client).Handshake()
	}
	finish := func(r *tlsRig, c *net.TCPConn) {
		if err := tls.Client(c, r.client).Handshake(); err != nil {
			t.Error(err)
		}
	}
	postgres := func(f *config.Frontend) { f.STARTTLS = "postgres" }
	for name, c := range map[string]struct {
		form form
		edit func(*config.Frontend)
		say  func(*tlsRig, *net.TCPConn)
		want state
	}{
		"greeting":                     {terminate, nil, func(_ *tlsRig, c *net.TCPConn) { say(t, c, "\x16\x03\x01\x01") }, greeting},
		"handshaking with the client":  {terminate, nil, hello, handshakingClient},
		"handshaking with the backend": {reencrypt, nil, finish, handshakingBackend},
		"originating":                  {originate, nil, func(*tlsRig, *net.TCPConn) {}, handshakingBackend},
		"asking":                       {originate, postgres, func(_ *tlsRig, c *net.TCPConn) { say(t, c, startup) }, asking},
		"asking, passed through": {passthrough, postgres, func(r *tlsRig, c *net.TCPConn) {
			say(t, c, request)
			hear(t, c, "S")
			hello(r, c)
		}, asking},
		"open": {terminate, nil, finish, open},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRigFor(t, c.form, lbtest.NewCA(t), []string{lbtest.Silent(t)}, func(cfg *config.Config) {
				cfg.Frontends[0].MaxHandshakes = 10
				if c.edit != nil {
					c.edit(cfg.Frontends[0])
				}
			})
			c.say(r, r.dial())
			lbtest.Eventually(t, "the session waits", func() (waits bool) {
				for _, sh := range r.e.shards {
					sh.loop.Call(func() { waits = waits || sh.open == 1 && sh.sessions.next.state == c.want })
				}
				return waits
			})
			gone, cancel := context.WithCancel(context.Background())
			cancel()
			if n := r.e.Drain(gone, func() Reason { return Killed }); n != 1 {
				t.Errorf("%d were cut", n)
			}
			r.wantEnds(Killed)
			lbtest.Eventually(t, "no handshake is left", func() bool {
				w := r.e.workers.Load()
				return w == nil || w.Stats().Live+w.Stats().Queued == 0
			})
			if g := r.e.gates["f"]; g != nil && g.Stats().Inside != 0 {
				t.Errorf("%d clients still count as half-open", g.Stats().Inside)
			}
			if n := r.d.Snapshot().Pool("p").Members[0].Backend.Active(); n != 0 {
				t.Errorf("%d sessions still count on the backend", n)
			}
		})
	}
}

// TestTLSHangUp: a client that has the whole answer and hangs up without close_notify has not cut anything off.
func TestTLSHangUp(t *testing.T) {
	r := newTLSRig(t, terminate, func(_ *net.TCPConn, c duplex) {
		hear(t, c, "?")
		say(t, c, "all of it")
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}, nil)
	raw, c := r.connect()
	say(t, c, "?")
	hearEnd(t, c, "all of it")
	_ = raw.CloseWrite()
	if rec := r.wantEnds(BackendEOF)[0]; rec.Detail != "" {
		t.Errorf("%+v", rec)
	}
}

// TestDrainLingers: a drain waits for those who are being told why they were turned away.
func TestDrainLingers(t *testing.T) {
	r := newTLSRig(t, terminate, unreached(t), nil)
	c := r.dial()
	say(t, c, "\x16\x03\x01\x00\x00") // refused, and keeps its end open
	r.wantEnds(BadHello)
	if n := r.e.lingering.Load(); n != 1 {
		t.Fatalf("%d linger", n)
	}
	begun := time.Now()
	drained := make(chan struct{})
	go func() {
		r.e.Drain(t.Context(), func() Reason { return Drained })
		close(drained)
	}()
	alert := make([]byte, 7)
	if _, err := io.ReadFull(c, alert); err != nil || alert[6] != 50 {
		t.Errorf("the client heard %x, %v", alert, err)
	}
	select {
	case <-drained:
		t.Errorf("the drain was over after %v", time.Since(begun))
	default:
	}
	_ = c.Close()
	<-drained
}
