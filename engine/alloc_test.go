//go:build !race

package engine

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// TestRequestsAllocateNothing is the gate of the hot path: a request and its answer over an open session, small and
// large, whoever allocates in the process.
func TestRequestsAllocateNothing(t *testing.T) {
	t.Run("plain", func(t *testing.T) { requestsAllocateNothing(t, nil) })
	t.Run("with caps", func(t *testing.T) { requestsAllocateNothing(t, withCaps) })
	t.Run("throttled", func(t *testing.T) {
		requestsAllocateNothing(t, func(c *config.Config) { c.Frontends[0].BandwidthPerSession, c.Frontends[0].Bandwidth = 20<<20, 30<<20 })
	})
}

// withCaps gives a frontend caps of bandwidth that nobody reaches.
func withCaps(c *config.Config) {
	f := c.Frontends[0]
	f.Bandwidth, f.BandwidthPerSource, f.BandwidthPerSession = 100<<30, 100<<30, 100<<30
}

func requestsAllocateNothing(t *testing.T, edit func(*config.Config)) {
	r := newRig(t, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	})}, edit)
	c := r.dial()
	for _, size := range []int{1, 1000, 60_000} {
		b := make([]byte, size)
		ping := func() {
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < size; {
				n, err := c.Read(b[got:])
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		}
		for range 100 {
			ping()
		}
		runs := 2000
		if r.d.Snapshot().Frontends[0].Config.Bandwidth == 30<<20 {
			runs = 200 // they take their time
		}
		if n := testing.AllocsPerRun(runs, ping); n != 0 {
			t.Errorf("%d bytes: %v allocations", size, n)
		}
	}
}

// TestConnectionsAllocateNothing is the gate of a session's whole life: accept, pick, connect, relay, access log, end.
// Client and backend are bare system calls, so that every allocation counted is the engine's.
func TestConnectionsAllocateNothing(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		connectionsAllocateNothing(t, 2000, func(c *config.Config) { c.Pools[0].Policy = "leastconn" })
	})
	t.Run("with caps", func(t *testing.T) {
		connectionsAllocateNothing(t, 300, func(c *config.Config) { c.Pools[0].Policy = "leastconn"; withCaps(c) })
	})
}

// TestWaitingAllocatesNothing: the same of sessions that wait for a place. There is only one, and a client is back before its
// last session has quite ended.
func TestWaitingAllocatesNothing(t *testing.T) {
	r := connectionsAllocateNothing(t, 2000, limitPool(1, 10))
	if n := r.e.Stats().Pools["p"].Queued; n < 100 {
		t.Errorf("%d waited: too few to show anything", n)
	}
}

func connectionsAllocateNothing(t *testing.T, runs int, edit func(*config.Config)) *rig {
	var stop atomic.Bool
	backend, served := rawBackend(t, &stop)
	r := newRig(t, []string{backend}, edit)
	r.mu.Lock()
	r.ended = make([]Record, 0, 10_000) // the test's own list
	r.mu.Unlock()
	var sa sockaddr
	sa.set(r.e.Listeners()[0].Address)
	var b [64]byte
	visit := func() {
		fd, errno := sysSocket(unix.AF_INET, unix.SOCK_STREAM)
		if errno != 0 {
			t.Fatal(errno)
		}
		if errno := sysConnect(fd, &sa); errno != 0 && errno != syscall.EINPROGRESS {
			t.Fatal(errno)
		}
		for {
			if n, _ := sysSend(fd, b[:10], 0); n == 10 {
				break
			}
			runtime.Gosched()
		}
		for {
			n, errno := sysRead(fd, b[:])
			if errno == 0 && n == 0 {
				break
			}
			if errno != 0 && errno != syscall.EAGAIN {
				t.Fatal(errno)
			}
			runtime.Gosched()
		}
		_ = unix.Close(fd)
	}
	for range 200 {
		visit()
	}
	// The scheduler and the collector allocate a little now and then.
	if n := testing.AllocsPerRun(runs, visit); n >= 1 {
		t.Errorf("%v allocations per connection", n)
	}
	stop.Store(true)
	<-served
	return r
}

// rawBackend answers 10 bytes with 10 bytes and closes, until stop.
func rawBackend(t *testing.T, stop *atomic.Bool) (address string, done <-chan struct{}) {
	t.Helper()
	fd, errno := sysSocket(unix.AF_INET, unix.SOCK_STREAM)
	if errno != 0 {
		t.Fatal(errno)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		t.Fatal(err)
	}
	a, err := localAddress(fd)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer unix.Close(fd)
		var sa sockaddr
		var b [64]byte
		for !stop.Load() {
			c, errno := sysAccept(fd, &sa)
			if errno != 0 {
				runtime.Gosched()
				continue
			}
			for {
				n, errno := sysRead(c, b[:])
				if errno == syscall.EAGAIN {
					runtime.Gosched()
					continue
				}
				if n > 0 {
					_, _ = sysSend(c, b[:n], 0)
				}
				break
			}
			_ = unix.Close(c)
		}
	}()
	return a.String(), ended
}

// TestTLSAllocatesNothing is the gate for TLS: a request and its answer over an open session, small and of many records.
// The ends of the test allocate for what they read, so they are measured by themselves first.
func TestTLSAllocatesNothing(t *testing.T) {
	echo := func(_ *net.TCPConn, c duplex) {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
	sizes := []int{1, 1000, 200_000}
	ends := map[int]float64{} // by size: of one end with TLS
	pair := lbtest.NewCA(t).Pair("end.test")
	direct := lbtest.Serve(t, func(c *net.TCPConn) {
		echo(c, tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}))
	})
	c, err := tls.Dial("tcp", direct, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, size := range sizes {
		ends[size] = allocationsOf(t, c, size) / 2
	}
	eachForm(t, func(t *testing.T, f form) {
		_, c := newTLSRig(t, f, echo, nil).connect()
		allowed := 0.0
		for _, end := range []bool{f.clientTLS, f.backTLS} {
			if end {
				allowed++
			}
		}
		for _, size := range sizes {
			if n, of := allocationsOf(t, c, size), allowed*ends[size]; n > of*1.2+.9 { // more when records fall apart
				t.Errorf("%d bytes: %v allocations, %v of them the test's", size, n, of)
			}
		}
	})
}

// allocationsOf returns the allocations of sending size bytes to an echo and reading them back, whoever allocates.
func allocationsOf(t *testing.T, c duplex, size int) float64 {
	const piece = 50_000
	b, back := make([]byte, size), make([]byte, size)
	ping := func() {
		done := 0
		for at := 0; at < size; at += piece {
			want := min(at+piece, size)
			if _, err := c.Write(b[at:want]); err != nil {
				t.Fatal(err)
			}
			for done < want {
				n, err := c.Read(back[done:])
				if err != nil {
					t.Fatal(err)
				}
				done += n
			}
		}
	}
	for range 100 {
		ping()
	}
	return testing.AllocsPerRun(500, ping)
}
