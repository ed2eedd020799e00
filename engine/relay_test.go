package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/engine/loop"
	"awe4lb/internal/lbtest"
)

// exchange sends up to the backend and down to the client at the same time, in random pieces, and checks every byte at
// both ends.
func exchange(t *testing.T, up, down int64, edit func(*config.Config)) {
	t.Helper()
	fromClient := make(chan error, 1)
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			s := lbtest.NewStream(2, down)
			s.Chunks = rand.New(rand.NewPCG(2, 2))
			_, err := io.CopyBuffer(struct{ io.Writer }{c}, s, make([]byte, 300<<10))
			if err != nil {
				t.Error(err)
			}
			c.CloseWrite()
		})
		fromClient <- lbtest.NewStream(1, up).Check(c)
	})
	r := newRig(t, []string{backend}, edit)
	c := r.dial()
	_ = c.SetDeadline(time.Now().Add(4 * time.Minute))
	var wg sync.WaitGroup
	wg.Go(func() {
		s := lbtest.NewStream(1, up)
		s.Chunks = rand.New(rand.NewPCG(1, 1))
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, s, make([]byte, 300<<10)); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	})
	if err := lbtest.NewStream(2, down).Check(c); err != nil {
		t.Errorf("to the client: %v", err)
	}
	if err := <-fromClient; err != nil {
		t.Errorf("to the backend: %v", err)
	}
	wg.Wait()
	rec := r.wantEndsOneOf(ClientEOF, BackendEOF)
	if rec.C2B != uint64(up) || rec.B2C != uint64(down) {
		t.Errorf("counted %d up, %d down; want %d, %d", rec.C2B, rec.B2C, up, down)
	}
}

// wantEndsOneOf waits for the only session to end for one of the reasons.
func (r *rig) wantEndsOneOf(reasons ...Reason) Record {
	r.t.Helper()
	var first Record
	lbtest.Eventually(r.t, "a session ended", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.ended) > 0 {
			first = r.ended[0]
		}
		return len(r.ended) > 0
	})
	for _, reason := range reasons {
		if first.Reason == reason {
			return first
		}
	}
	r.t.Fatalf("ended for %v, want one of %v", first.Reason, reasons)
	return Record{}
}

func TestEveryByteBothWays(t *testing.T) {
	size := int64(1 << 30)
	if raceEnabled || testing.Short() {
		size = 64 << 20
	}
	t.Run("splice", func(t *testing.T) {
		exchange(t, size, size, nil)
	})
	t.Run("read and write", func(t *testing.T) {
		exchange(t, size/4, size/4, func(c *config.Config) { c.Engine.Splice = false })
	})
	t.Run("no pipe to be had", func(t *testing.T) {
		exchange(t, size/16, size/16, func(c *config.Config) { c.Engine.SplicePipes = 1 })
	})
}

func TestBulkIsSpliced(t *testing.T) {
	exchangeSize := int64(256 << 20)
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(3, exchangeSize))
	})
	r := newRig(t, []string{backend}, nil)
	c := r.dial()
	if err := lbtest.NewStream(3, exchangeSize).Check(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.wantEndsOneOf(BackendEOF)
	var spliced uint64
	pipes := 0
	for _, sh := range r.e.Stats().Shards {
		spliced += sh.SplicedBytes
		pipes += sh.Pipes
	}
	if spliced < uint64(exchangeSize)/2 {
		t.Errorf("spliced %d of %d bytes", spliced, exchangeSize)
	}
	if pipes > pipeKeep {
		t.Errorf("%d pipes held after the session", pipes)
	}
}

// TestOneByteSegments: each byte comes back before the next one goes. That nothing is held back to be sent with more,
// TestNothingIsHeldBack shows: here every byte is acknowledged with its echo.
func TestOneByteSegments(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, nil)
	c := r.dial()
	for i := range 1000 {
		b := string(rune('a' + i%26))
		say(t, c, b)
		hear(t, c, b)
	}
	c.CloseWrite()
	hearEnd(t, c, "")
	r.wantEnds(ClientEOF)
}

func TestServerFirst(t *testing.T) {
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		_, _ = io.Copy(c, c)
	})}, nil)
	c := r.dial()
	hear(t, c, "220 ready\r\n")
	say(t, c, "EHLO\r\n")
	hear(t, c, "EHLO\r\n")
}

func TestHalfClose(t *testing.T) {
	const size = 8 << 20
	t.Run("client first", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
			if err := lbtest.NewStream(1, size).Check(c); err != nil {
				t.Error(err)
			}
			_, _ = io.Copy(c, lbtest.NewStream(2, size))
		})}, nil)
		c := r.dial()
		if _, err := io.Copy(c, lbtest.NewStream(1, size)); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		if err := lbtest.NewStream(2, size).Check(c); err != nil {
			t.Fatal(err)
		}
		r.wantEnds(ClientEOF)
	})
	t.Run("backend first", func(t *testing.T) {
		got := make(chan error, 1)
		r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
			_, _ = io.Copy(c, lbtest.NewStream(2, size))
			c.CloseWrite()
			got <- lbtest.NewStream(1, size).Check(c)
		})}, nil)
		c := r.dial()
		if err := lbtest.NewStream(2, size).Check(c); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(c, lbtest.NewStream(1, size)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		r.wantEnds(BackendEOF)
	})
}

// TestFINBehindData sends data and FIN together, in both directions, so that a short read hides the FIN.
func TestFINBehindData(t *testing.T) {
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		_, _ = c.Write(append([]byte("you said "), b...))
	})}, nil)
	for i := range 500 {
		c := r.dial()
		q := fmt.Sprint("question ", i)
		say(t, c, q)
		c.CloseWrite()
		hearEnd(t, c, "you said "+q)
		c.Close()
	}
}

// isReset reports whether err is what reading or writing says after a reset.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func TestDataThenReset(t *testing.T) {
	for _, size := range []int{5, 100_000, 3 << 20} {
		data := strings.Repeat("x", size)
		t.Run(fmt.Sprint("backend ", size), func(t *testing.T) {
			r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
				_, _ = c.Read(make([]byte, 1))
				_, _ = io.WriteString(c, data)
				waitSent(t, c) // its own kernel has to have sent it all, for SO_LINGER would drop it
				_ = c.SetLinger(0)
			})}, nil)
			c := r.dial()
			say(t, c, "?")
			got, err := io.ReadAll(c)
			if len(got) != size || !isReset(err) {
				t.Errorf("got %d of %d bytes and %v; want all of them and a reset", len(got), size, err)
			}
			r.wantEnds(BackendRST)
		})
		t.Run(fmt.Sprint("client ", size), func(t *testing.T) {
			result := make(chan string, 1)
			r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
				got, err := io.ReadAll(c)
				result <- fmt.Sprint(len(got), " reset ", isReset(err))
			})}, nil)
			c := r.dial()
			say(t, c, data)
			waitSent(t, c)
			_ = c.SetLinger(0)
			c.Close()
			if got, want := <-result, fmt.Sprint(size, " reset true"); got != want {
				t.Errorf("the backend got %s; want %s", got, want)
			}
			r.wantEnds(ClientRST)
		})
	}
}

// waitSent waits until everything written to c was acknowledged.
func waitSent(t testing.TB, c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		unsent := 0
		if err := raw.Control(func(fd uintptr) { unsent = sysUnsent(int(fd)) }); err != nil || unsent == 0 {
			return
		}
	}
	t.Error("not everything was acknowledged within 20 s")
}

// TestSlowReaderGetsDataBeforeReset has a reader so slow that the data it is due is still in our send queue when the
// reset comes.
func TestSlowReaderGetsDataBeforeReset(t *testing.T) {
	const size = 1 << 20
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, size))
		waitSent(t, c)
		_ = c.SetLinger(0)
	})}, nil)
	c := r.dial()
	_ = c.SetReadBuffer(64 << 10)
	lbtest.Eventually(t, "the backend is gone", func() bool { return r.aborting() == 1 })
	err := lbtest.NewStream(1, size).Check(c)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint("after ", size, " of ", size)) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v; want every byte, then a reset", err)
	}
	r.wantEnds(BackendRST)
}

// aborting returns the number of sessions that wait to pass on a reset: the other end has yet to take what is in the
// kernel's queue, or in ours.
func (r *rig) aborting() int {
	return r.sessions(func(s *session) bool { return s.state == aborting || s.failing })
}

func (r *rig) inState(want state) int {
	return r.sessions(func(s *session) bool { return s.state == want })
}

func (r *rig) sessions(which func(*session) bool) int {
	n := 0
	for _, sh := range r.e.shards {
		sh.loop.Call(func() {
			for s := sh.sessions.next; s != &sh.sessions; s = s.next {
				if which(s) {
					n++
				}
			}
		})
	}
	return n
}

// TestShortConnections opens and closes many, and none may fail.
func TestShortConnections(t *testing.T) {
	total, parallel := 10_000, 50
	if raceEnabled {
		total = 2_000
	}
	backends := []string{lbtest.Echo(t), lbtest.Echo(t), lbtest.Echo(t)}
	r := newRig(t, backends, nil)
	address := r.address()
	var wg sync.WaitGroup
	for w := range parallel {
		wg.Go(func() {
			for i := range total / parallel {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				q := fmt.Sprint(w, "/", i)
				_, _ = io.WriteString(c, q)
				_ = c.(*net.TCPConn).CloseWrite()
				if b, err := io.ReadAll(c); err != nil || string(b) != q {
					t.Errorf("got %q, %v; want %q", b, err, q)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	lbtest.Eventually(t, "all sessions ended", func() bool { n, _ := r.e.Sessions(); return n == 0 })
	f := r.e.Stats().Frontends["f"]
	if f.Accepted != uint64(total) || f.Ended[ClientEOF] != uint64(total) {
		t.Errorf("accepted %d, ended by the client %d; want %d", f.Accepted, f.Ended[ClientEOF], total)
	}
}

// TestSpuriousEvents tells every side of every session, again and again, that anything may have happened to it: what a
// stale event of a reused descriptor does. No byte may suffer.
func TestSpuriousEvents(t *testing.T) {
	r := newRig(t, []string{lbtest.Echo(t)}, nil)
	stop := make(chan struct{})
	var pest sync.WaitGroup
	pest.Go(func() {
		for bits := uint32(1); ; bits = bits*1103515245 + 12345 {
			select {
			case <-stop:
				return
			default:
			}
			for _, sh := range r.e.shards {
				sh.loop.Call(func() {
					for s := sh.sessions.next; s != &sh.sessions; {
						next := s.next
						s.client.Ready(0, loop.Events(bits))
						if s.state != ended {
							s.backend.Ready(0, loop.Events(bits>>3))
						}
						s = next
					}
				})
			}
		}
	})
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() {
			for range 5 {
				c := r.dial()
				size := int64(1 << 20)
				go func() {
					s := lbtest.NewStream(i, size)
					s.Chunks = rand.New(rand.NewPCG(i, 0))
					_, _ = io.CopyBuffer(struct{ io.Writer }{c}, s, make([]byte, 9000))
					c.CloseWrite()
				}()
				if err := lbtest.NewStream(i, size).Check(c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	pest.Wait()
}

// TestReusedDescriptorsInOneBatch has, in one batch of events: a client that resets, whose session ends and frees two
// descriptors; a new client, who gets them; and a last word of the old backend, whose event now meets the new session.
func TestReusedDescriptorsInOneBatch(t *testing.T) {
	accepted, done := make(chan *net.TCPConn, 2), make(chan struct{})
	r := newRigOf(t, 1, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		accepted <- c
		<-done
	})}, nil)
	defer close(done)
	sh := r.e.shards[0]

	old := r.dial()
	say(t, old, "x")
	oldBackend := <-accepted
	var fds [2]int32
	sh.loop.Call(func() { fds = [2]int32{sh.sessions.next.client.fd, sh.sessions.next.backend.fd} })

	// Keep the shard busy while everything gets into its queue, in this order.
	busy, release := make(chan struct{}), make(chan struct{})
	sh.loop.Post(func() { close(busy); <-release })
	<-busy
	_ = old.SetLinger(0)
	old.Close()
	young := r.dial()
	say(t, young, "young")
	say(t, oldBackend, "too late")
	close(release)

	youngBackend := <-accepted
	_ = youngBackend.SetDeadline(time.Now().Add(20 * time.Second))
	hear(t, youngBackend, "young")
	say(t, youngBackend, "answer")
	hear(t, young, "answer")
	sh.loop.Call(func() {
		if s := sh.sessions.next; s.client.fd != fds[0] && s.client.fd != fds[1] {
			t.Errorf("the new session has %d and %d, the old one had %v: nothing was reused", s.client.fd, s.backend.fd, fds)
		}
	})
	r.wantEnds(ClientRST)
}

// TestResetBehindABacklog: one end resets while the other does not take what it was sent, so that nobody reads the one
// that has gone. The session ends all the same, soon.
func TestResetBehindABacklog(t *testing.T) {
	const size = 32 << 20
	t.Run("client resets", func(t *testing.T) {
		r := newRig(t, []string{lbtest.Silent(t)}, nil)
		c := r.dial()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, size)) })
		r.wantBacklog()
		_ = c.SetLinger(0)
		c.Close()
		wg.Wait()
		r.wantEnds(ClientRST)
	})
	t.Run("backend resets", func(t *testing.T) {
		reset := make(chan struct{})
		r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
			go func() { <-reset; _ = c.SetLinger(0); c.Close() }()
			_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, size))
		})}, nil)
		c := r.dial()
		r.wantBacklog()
		close(reset)
		r.wantEnds(BackendRST)
		c.Close()
	})
	t.Run("a slow reader still gets it", func(t *testing.T) {
		reset := make(chan struct{})
		var sent atomic.Int64
		r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
			go func() { <-reset; _ = c.SetLinger(0); c.Close() }()
			s, b := lbtest.NewStream(1, size), make([]byte, 64<<10)
			for {
				n, _ := s.Read(b)
				if n, err := c.Write(b[:n]); err != nil {
					return
				} else {
					sent.Add(int64(n))
				}
			}
		})}, nil)
		c := r.dial()
		r.wantBacklog()
		close(reset)
		// At least what the engine and the client's kernel had at the time of the reset.
		n, err := io.Copy(io.Discard, c)
		if n < 1<<20 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %d bytes and %v; want what was on its way, then a reset", n, err)
		}
		r.wantEnds(BackendRST)
	})
}

// wantBacklog waits until the only session has a backlog, and keeps it.
func (r *rig) wantBacklog() {
	r.t.Helper()
	var before uint64
	lbtest.Eventually(r.t, "a standing backlog", func() bool {
		stands := false
		for _, sh := range r.e.shards {
			sh.loop.Call(func() {
				if s := sh.sessions.next; s != &sh.sessions {
					sent := s.client.sent + s.backend.sent
					stands = (s.client.backlogged() || s.backend.backlogged()) && sent == before
					before = sent
				}
			})
		}
		time.Sleep(50 * time.Millisecond) // how long it has to stand still
		return stands
	})
}
