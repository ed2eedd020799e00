//go:build e2e

package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// clientHello returns the first record of a client that asks for name.
func clientHello(t *testing.T, name string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: name}).Handshake() // until the pipe is closed
	}()
	b := make([]byte, 16<<10)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestHalfOpenHandshakes: as many clients as there are sessions for connect and do not go on: a third says nothing, a third
// half a ClientHello, a third all of it, and then does not answer the server's flight. Others are served meanwhile, and
// those are cut in time.
func TestHalfOpenHandshakes(t *testing.T) {
	const (
		timeout = 6 * time.Second // hello_timeout and handshake_timeout
		mostMB  = 250
	)
	ca := lbtest.NewCA(t)
	lb := start(t, fmt.Sprintf(`
[frontends.test]
bind = ["127.0.0.1:0"]
pool = "test"
hello_timeout = %[1]q
max_handshakes = 20000
max_handshakes_per_prefix = 0
tls = { certificates = [ { cert = %[2]q } ], handshake_timeout = %[1]q, session_tickets = false }

[pools.test]
backends = [ { address = %[3]q } ]
`, timeout, pairFile(t, ca, "front.test"), echo(t)))
	address := lb.address("test")
	n := min(10_000, lb.status().Sessions.Limit-100) // 20,000 descriptors allow less than 10,000 sessions
	filesBefore, g := filesOf(t, lb.cmd.Process.Pid), watchGrowth(lb)

	// Those who want service.
	config := &tls.Config{RootCAs: ca.Pool, ServerName: "front.test"}
	quit := make(chan bool)
	var good sync.WaitGroup
	var mu sync.Mutex
	var waits []time.Duration
	for range 4 {
		good.Go(func() {
			for {
				select {
				case <-quit:
					return
				case <-time.After(20 * time.Millisecond): // the pace of coming
				}
				began := time.Now()
				c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
				if err == nil {
					err = ask(c)
					c.Close()
				}
				if err != nil {
					t.Errorf("a good client: %v", err)
				}
				mu.Lock()
				waits = append(waits, time.Since(began))
				mu.Unlock()
			}
		})
	}

	hello := clientHello(t, "front.test")
	var cut atomic.Int64
	lived := make([]time.Duration, n)
	var bad, connecting sync.WaitGroup
	next := make(chan int)
	for range 32 {
		connecting.Go(func() {
			for i := range next {
				began := time.Now()
				c, err := net.DialTimeout("tcp", address, 10*time.Second)
				if err != nil {
					t.Errorf("half-open client %d: %v", i, err)
					continue
				}
				said := [][]byte{nil, hello[:len(hello)/2], hello}[i%3]
				_, _ = c.Write(said)
				bad.Go(func() {
					defer c.Close()
					for b := make([]byte, 2048); err == nil; {
						_, err = c.Read(b)
					}
					lived[i] = time.Since(began)
					cut.Add(1)
				})
			}
		})
	}
	began := time.Now()
	for i := range n {
		if i%1000 == 0 { // an accept queue that overflows would hold some for a second more
			lbtest.Eventually(t, "those who have come are accepted", func() bool { return lb.status().Sessions.Open >= i-32 })
		}
		next <- i
	}
	close(next)
	connecting.Wait()
	all := time.Since(began)
	most := 0
	lbtest.EventuallyIn(t, time.Minute, "all half-open clients are cut", func() bool {
		most = max(most, lb.status().Sessions.Open)
		return cut.Load() == int64(n)
	})
	bad.Wait()
	close(quit)
	good.Wait()

	slices.Sort(lived)
	slices.Sort(waits)
	t.Logf("%d half-open clients within %v, %d at once; they lived for %v to %v; %d good ones waited for %v, the slowest for %v",
		n, all, most, lived[0], lived[n-1], len(waits), waits[len(waits)/2], waits[len(waits)-1])
	g.check(mostMB)
	if most < n*9/10 {
		t.Errorf("only %d sessions at once; want about %d", most, n)
	}
	if lived[n-1] > timeout+time.Second {
		t.Errorf("one lived for %v; want %v at most", lived[n-1], timeout+time.Second)
	}
	if waits[len(waits)-1] > 2*time.Second {
		t.Errorf("a good client waited for %v; want 2 s at most", waits[len(waits)-1])
	}
	ended := lb.frontend("test").Ended
	if whole := int64(n / 3); ended["handshake_timeout"] != whole || ended["hello_timeout"] != int64(n)-whole {
		t.Errorf("ended: %v; want %d times handshake_timeout and %d times hello_timeout", ended, n/3, n-n/3)
	}
	lbtest.Eventually(t, "descriptors are back", func() bool { return filesOf(t, lb.cmd.Process.Pid) <= filesBefore+10 })
}
