//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// 240,000 strangers, each an address of its own that sends one datagram and is not answered, come at 20,000 a second. A
// client that was there before is served all the while, the admin answers, the table and the memory keep their bounds, and
// afterwards everything is gone as soon as unreplied_timeout says.
func TestFlood(t *testing.T) {
	const (
		strangers = 240000
		rate      = 20000
		maxFlows  = 8192
		unreplied = time.Second           // that of balanceDatagrams
		tick      = 67 * time.Millisecond // how late a flow may end (docs/operations.md)
	)
	stranger := []byte("stranger")
	last, soon := map[uint16]time.Time{}, 0
	backend, stopBackend := lbtest.DatagramServer(t, lbtest.Free(t), func(from netip.AddrPort, data []byte, reply func([]byte)) {
		if !bytes.Equal(data, stranger) {
			reply(data)
			return
		}
		// A port rests until an answer to the stranger that had it before would be overdue. Half of that, as this server may
		// be late to look.
		now := time.Now()
		if before, ok := last[from.Port()]; ok && now.Sub(before) < unreplied/2 {
			soon++
		}
		last[from.Port()] = now
	})
	t.Cleanup(stopBackend)
	lb := start(t, balanceDatagrams(fmt.Sprintf("idle_timeout = %q\nmax_flows = %d", unreplied, maxFlows), backend))
	pid := lb.cmd.Process.Pid
	files := filesOf(t, pid)
	g := watchGrowth(lb)

	// The live client asks every 5 ms.
	stop := make(chan bool)
	var wg sync.WaitGroup
	address := lb.address("test")
	live := newLiveClient(t, address)
	if err := live.ask(); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { live.until(stop) })
	var newcomers, served atomic.Int64
	wg.Go(func() { // for the figures: strangers and newcomers are the same to the balancer until they are answered
		for !closed(stop) {
			newcomers.Add(1)
			n := newLiveClient(t, address)
			if err := n.ask(); err == nil {
				served.Add(1)
			}
			n.c.Close()
			time.Sleep(50 * time.Millisecond)
		}
	})
	most, slowest := 0, time.Duration(0)
	wg.Go(func() {
		for !closed(stop) {
			began := time.Now()
			open := lb.status().Flows.Open
			most, slowest = max(most, open), max(slowest, time.Since(began))
			time.Sleep(100 * time.Millisecond)
		}
	})

	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := sourcesOf(t, c, netip.MustParseAddr("127.1.0.1"), address)
	began := time.Now()
	const atOnce = 50
	for i := 0; i < strangers; i += atOnce {
		if err := s.send(i, atOnce, func(int) []byte { return stranger }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / rate)))
	}
	took := time.Since(began)
	close(stop)
	wg.Wait()
	ended := time.Now()

	lbtest.EventuallyIn(t, unreplied+tick+time.Second, "everything is gone", func() bool { return lb.status().Flows.Open == 0 })
	f := lb.frontend("test")
	t.Logf("%d strangers in %v; the live client asked %d times, %d not answered at once, the slowest after %v; %d of %d newcomers served",
		strangers, took.Round(time.Millisecond), live.asked, live.lost, live.slowest.Round(time.Microsecond), served.Load(), newcomers.Load())
	t.Logf("%d flows at most, gone %v after the flood; flows made %d, ended %v, dropped %v; the admin took %v at most", most,
		time.Since(ended).Round(time.Millisecond), f.Accepted, f.Ended, f.UDP.DroppedC2B, slowest.Round(time.Millisecond))
	if live.failed > 0 || live.lost*1000 > live.asked {
		t.Errorf("the live client asked %d times: %d datagrams were lost, %d questions never answered; want 1 of 1000 lost at most",
			live.asked, live.lost, live.failed)
	}
	if most > maxFlows {
		t.Errorf("%d flows at once, want %d at most", most, maxFlows)
	}
	if slowest > time.Second {
		t.Errorf("the admin took %v to answer", slowest)
	}
	// Each stranger got a flow, or was dropped for a reason.
	if got := f.Accepted + dropsOf(f); got < strangers {
		t.Errorf("%d flows made and %d datagrams dropped; want all %d strangers accounted for", f.Accepted, dropsOf(f), strangers)
	}
	// Two shards that make room in the full table at the same moment may take each other's.
	if full := f.UDP.DroppedC2B["table_full"]; full > strangers/100 {
		t.Errorf("%d strangers were refused with thousands of flows that could make room", full)
	}
	stopBackend()
	if soon > 0 {
		t.Errorf("%d strangers had a port that another one had less than %v before", soon, unreplied/2)
	}
	g.check(32)
	if n := filesOf(t, pid); n > files+8 {
		t.Errorf("%d descriptors at the end, %d before", n, files)
	}
}

// liveClient asks and wants its answer.
type liveClient struct {
	c                   net.Conn
	asked, lost, failed int
	slowest             time.Duration
}

func newLiveClient(t *testing.T, address string) *liveClient {
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { c.Close() })
	return &liveClient{c: c}
}

// ask asks once, and again after half a second without an answer, three times at most.
func (l *liveClient) ask() error {
	l.asked++
	question := fmt.Appendf(nil, "question %d", l.asked)
	b := make([]byte, 64)
	for range 3 {
		began := time.Now()
		_, _ = l.c.Write(question)
		_ = l.c.SetReadDeadline(began.Add(500 * time.Millisecond))
		for {
			n, err := l.c.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				l.lost++
				break
			}
			if err == nil && bytes.Equal(b[:n], question) {
				l.slowest = max(l.slowest, time.Since(began))
				return nil
			}
		}
	}
	l.failed++
	return errors.New("no answer")
}

// until asks every 5 ms until stop is closed.
func (l *liveClient) until(stop chan bool) {
	for !closed(stop) {
		_ = l.ask()
		time.Sleep(5 * time.Millisecond)
	}
}

func closed(c chan bool) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
