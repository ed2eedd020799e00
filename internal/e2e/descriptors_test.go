//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// crowd is more clients at once than the balancer has descriptors for. Each asks once, and whoever has an answer keeps
// the connection until the crowd is let go.
type crowd struct {
	n        int
	answered atomic.Int64
	letGo    chan bool
	wg       sync.WaitGroup
	failed   chan error
}

func startCrowd(address string, n int) *crowd {
	c := &crowd{n: n, letGo: make(chan bool), failed: make(chan error, n)}
	for range n {
		c.wg.Go(func() {
			conn, err := net.DialTimeout("tcp", address, time.Minute)
			if err != nil {
				c.failed <- err
				return
			}
			defer conn.Close()
			if err := ask(conn); err != nil {
				c.failed <- err
				return
			}
			c.answered.Add(1)
			<-c.letGo
		})
	}
	return c
}

// release lets the crowd go and waits until everybody was served.
func (c *crowd) release(t *testing.T, lb *awe4lb) {
	t.Helper()
	served := c.answered.Load()
	began := time.Now()
	close(c.letGo)
	lbtest.EventuallyIn(t, 3*time.Second, "the next client was served after descriptors came back", func() bool {
		return c.answered.Load() > served
	})
	c.wg.Wait()
	close(c.failed)
	for err := range c.failed {
		t.Errorf("a client was not served: %v", err)
	}
	t.Logf("%d clients held all descriptors; the other %d were served within %v", served, int64(c.n)-served, time.Since(began))
	lbtest.Eventually(t, "all sessions have ended", func() bool { return lb.status().Sessions.Open == 0 })
}

// crowded watches for three seconds a balancer that cannot take another client: it must wait without spinning, and
// complain at most once a second. complaint is the message.
func crowded(t *testing.T, lb *awe4lb, complaint string) {
	t.Helper()
	const watched = 3 * time.Second
	cpu := cpuOf(t, lb.cmd.Process.Pid)
	time.Sleep(watched)
	cpu = cpuOf(t, lb.cmd.Process.Pid) - cpu
	if cpu > watched/2 {
		t.Errorf("used %v of processor in %v of waiting; want less than half of one", cpu, watched)
	}
	lines := lb.log.find(complaint)
	if len(lines) == 0 {
		t.Errorf("no complaint %q in the log", complaint)
	}
	for i := 1; i < len(lines); i++ {
		if gap := lines[i].time().Sub(lines[i-1].time()); gap < 990*time.Millisecond {
			t.Errorf("%q twice within %v; want once a second at most", complaint, gap)
		}
	}
	t.Logf("%.2f %% of a processor while waiting; %d complaints", 100*cpu.Seconds()/watched.Seconds(), len(lines))
}

// The limit of open files is known at the start, and sessions are admitted by it.
func TestMoreClientsThanDescriptors(t *testing.T) {
	lb := startAs(t, balance(echo(t)), nil, find(t, "prlimit"), "--nofile=128:128")
	before := filesOf(t, lb.cmd.Process.Pid)
	limit := int64(lb.status().Sessions.Limit)
	c := startCrowd(lb.address("test"), 300)
	lbtest.Eventually(t, "the balancer is full", func() bool { return c.answered.Load() == limit })
	crowded(t, lb, "session limit reached: new clients wait in the accept queue")
	c.release(t, lb)
	if n := filesOf(t, lb.cmd.Process.Pid); n > before+16 { // splice pipes and the admin's connection may stay
		t.Errorf("%d descriptors at the end, %d before", n, before)
	}
}

// The limit is lowered while awe4lb runs, so that accept4 and socket do fail with EMFILE.
func TestDescriptorsRunOut(t *testing.T) {
	// A client that is accepted when there is no descriptor left for its backend waits for one this long.
	lb := start(t, balance(echo(t))+"connect_timeout = \"1m\"\n")
	const complaint = "cannot accept: new clients wait in the accept queue"
	lb.expectError(complaint)
	run(t, "prlimit", "--nofile=128:128", "--pid", fmt.Sprint(lb.cmd.Process.Pid))
	c := startCrowd(lb.address("test"), 300)
	lbtest.Eventually(t, "accept fails", func() bool { return lb.log.count(complaint) > 0 })
	crowded(t, lb, complaint)
	c.release(t, lb)
}

// Connections to the admin take descriptors too. When there are none left it must wait for them as the data path does.
func TestAdminOutlivesTooManyConnections(t *testing.T) {
	lb := startAs(t, balance(echo(t)), nil, find(t, "prlimit"), "--nofile=64:64") // the admin takes 64 clients
	var conns []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", strings.TrimPrefix(lb.admin, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	lbtest.Eventually(t, "no descriptor is left, or the admin has given up", func() bool {
		return filesOf(t, lb.cmd.Process.Pid) >= 64 || lb.log.count("admin stopped") > 0
	})
	for _, c := range conns {
		c.Close()
	}
	lbtest.Eventually(t, "they are back", func() bool { return filesOf(t, lb.cmd.Process.Pid) < 40 })
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	answer, err := fresh.Get(lb.admin + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
}
