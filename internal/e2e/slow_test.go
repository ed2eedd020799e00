//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// pushed is how much those who push want to send.
const pushed = 200 << 20

// push is a backend that sends pushed bytes to whoever connects.
func push(t *testing.T) string {
	t.Helper()
	return lbtest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, pushed))
	})
}

// growth watches how much more memory a process comes to hold.
type growth struct {
	lb     *awe4lb
	before int64 // kB
}

func watchGrowth(lb *awe4lb) growth {
	lb.t.Helper()
	g := growth{lb, memoryOf(lb.t, lb.cmd.Process.Pid).rss}
	resetPeak(lb.t, lb.cmd.Process.Pid)
	return g
}

// check wants it to have been at most so many MB, at any moment.
func (g growth) check(most int64) {
	g.lb.t.Helper()
	grown := float64(peakOf(g.lb.t, g.lb.cmd.Process.Pid)-g.before) / 1024
	g.lb.t.Logf("the process grew by %.1f MB at its peak", grown)
	if grown > float64(most) {
		g.lb.t.Errorf("grew by %.1f MB; want at most %d", grown, most)
	}
}

// A backend pushes 200 MB at clients that take a kilobyte now and then. The balancer stops reading from it; what it keeps
// itself is one buffer or pipe for each.
func TestSlowReaders(t *testing.T) {
	for _, test := range []struct{ clients, mostMB int64 }{{1, 8}, {100, 64}} {
		t.Run(fmt.Sprint(test.clients), func(t *testing.T) {
			lb := start(t, balance(push(t)))
			g := watchGrowth(lb)
			conns := make([]net.Conn, test.clients)
			for i := range conns {
				c, err := net.Dial("tcp", lb.address("test"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns[i] = c
			}
			lb.settled()

			first := new(bytes.Buffer)
			for range 50 {
				for i, c := range conns {
					to := io.Discard
					if i == 0 {
						to = first
					}
					if _, err := io.CopyN(to, c, 1<<10); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(20 * time.Millisecond) // slow is what they are
			}
			taken := lb.settled().B2C / test.clients
			pipes := 0
			for _, sh := range lb.status().Shards {
				pipes += sh.Pipes
			}
			t.Logf("%d slow readers: the kernel holds %d kB for each, and %d pipes", test.clients, taken>>10, pipes)
			g.check(test.mostMB)

			// Nothing was lost: the first reads all of it at last.
			if err := lbtest.NewStream(1, pushed).Check(io.MultiReader(first, conns[0])); err != nil {
				t.Error(err)
			}
		})
	}
}

// deaf is a backend that takes nothing until the function returned is called; then it resets its clients.
func deaf(t *testing.T) (address string, release func()) {
	t.Helper()
	quit := make(chan bool)
	release = sync.OnceFunc(func() { close(quit) })
	address = lbtest.Serve(t, func(*net.TCPConn) { <-quit })
	t.Cleanup(release)
	return address, release
}

// shout sends pushed bytes until there is no more room on the way, and then waits.
func shout(t *testing.T, lb *awe4lb, clients int) (conns []net.Conn, done *sync.WaitGroup) {
	t.Helper()
	done = new(sync.WaitGroup)
	for range clients {
		c, err := net.Dial("tcp", lb.address("test"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
		done.Go(func() {
			if n, err := io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, pushed)); err == nil {
				t.Errorf("all of %d bytes were taken, with nobody to read them", n)
			}
		})
	}
	taken := lb.settled().C2B
	t.Logf("%d clients: the backend's kernel took %d kB from each", clients, taken/int64(clients)>>10)
	return conns, done
}

// Clients push 200 MB each at a backend that does not read.
func TestBackendThatDoesNotRead(t *testing.T) {
	address, release := deaf(t)
	lb := start(t, balance(address))
	g := watchGrowth(lb)
	_, done := shout(t, lb, 20)
	g.check(32)
	release()
	done.Wait() // the clients saw the reset
	lbtest.Eventually(t, "all sessions have ended", func() bool { return lb.status().Sessions.Open == 0 })
}

// One end resets its connection while the balancer still holds some of what it said, because the other end does not read.
// The session must not last until idle_timeout, which may be never: once one side has ended, half_close_timeout is how
// long the other may do nothing.
func TestResetBehindABacklog(t *testing.T) {
	const timeouts = "\n[defaults]\nidle_timeout = \"0s\"\nhalf_close_timeout = \"1s\"\n"
	t.Run("client resets, backend does not read", func(t *testing.T) {
		address, _ := deaf(t)
		lb := start(t, balance(address)+timeouts)
		conns, done := shout(t, lb, 1)
		_ = conns[0].(*net.TCPConn).SetLinger(0)
		conns[0].Close()
		done.Wait()
		lbtest.Eventually(t, "the session has ended", func() bool { return lb.status().Sessions.Open == 0 })
	})
	t.Run("backend resets, client does not read", func(t *testing.T) {
		quit := make(chan bool)
		lb := start(t, balance(lbtest.Serve(t, func(c *net.TCPConn) {
			go func() {
				<-quit
				_ = c.SetLinger(0)
				c.Close()
			}()
			_, _ = io.Copy(struct{ io.Writer }{c}, lbtest.NewStream(1, pushed))
		}))+timeouts)
		c, err := net.Dial("tcp", lb.address("test"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		lb.settled()
		close(quit)
		lbtest.Eventually(t, "the session has ended", func() bool { return lb.status().Sessions.Open == 0 })
	})
}
