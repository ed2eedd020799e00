package engine

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// strangers sends one datagram from each of n addresses of 127.64.0.0/10 to an address, from one socket, and calls after
// each thousand.
func strangers(t testing.TB, to netip.AddrPort, n int, after func(sent int)) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	sa := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	for i := range n {
		from := [4]byte{127, 64 + byte(i>>16), byte(i >> 8), byte(i)}
		oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from})
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(i))
		if err := unix.Sendmsg(fd, b[:], oob, sa, 0); err != nil && err != unix.ENOBUFS && err != unix.ECONNREFUSED {
			t.Fatal(err)
		}
		if after != nil && i%1000 == 999 {
			after(i + 1)
		}
	}
}

// The seed's security check: datagrams from hundreds of thousands of addresses. Memory and flows stay bounded, a live flow is
// served all the time, and when the flood is over everything is cleared by timeout, tick and a second.
func TestFloodOfStrangers(t *testing.T) {
	n := 300_000
	if raceEnabled {
		n = 30_000
	}
	const maxFlows, timeout = 4000, time.Second
	// Answers to the live client only: to a stranger every address is a black hole.
	backend := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) {
		if string(data[:min(len(data), 4)]) == "live" {
			reply(data)
		}
	})
	r := newUDPRig(t, []string{backend}, func(c *config.Config) {
		c.Frontends[0].UDP.MaxFlows = maxFlows
		c.Frontends[0].UDP.UnrepliedTimeout = timeout
	})
	r.e.SetAccess(false) // the test's own list of records would be what grows
	live := r.client()
	live.ask("live")
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var asked, missed atomic.Int64
	wg.Go(func() {
		b := make([]byte, 100)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			want := fmt.Sprint("live ", i)
			asked.Add(1)
			_, _ = live.Write([]byte(want))
			_ = live.SetReadDeadline(time.Now().Add(time.Second))
			for {
				n, err := live.Read(b)
				if err != nil {
					missed.Add(1)
					break
				}
				if string(b[:n]) == want {
					break // an earlier one may have been late
				}
			}
		}
	})
	most := int64(0)
	strangers(t, netip.MustParseAddrPort(r.address()), n, func(int) {
		open, _ := r.e.Flows()
		most = max(most, open)
	})
	over := time.Now()
	lbtest.EventuallyIn(t, timeout+67*time.Millisecond+time.Second, "only the live flow is left", func() bool {
		open, _ := r.e.Flows()
		return open == 1
	})
	took := time.Since(over)
	close(stop)
	wg.Wait()
	if most > maxFlows {
		t.Errorf("%d flows at once; want at most %d", most, maxFlows)
	}
	// What the listener's queue could not hold is lost like any datagram under overload; the flow is not.
	if missed.Load() > asked.Load()/2 {
		t.Errorf("the live client missed %d of %d answers", missed.Load(), asked.Load())
	}
	a := r.e.Stats().Frontends["f"]
	told := a.Ended[Evicted] + a.Ended[Unreplied] + a.Dropped[ToBackend][DropOverload] + a.Dropped[ToBackend][DropNoPort] +
		a.Dropped[ToBackend][DropReceiveQueue] + a.Dropped[ToBackend][DropTableFull]
	if told < uint64(n) || told > uint64(n)+uint64(missed.Load()) {
		t.Errorf("not every stranger is accounted for: %d flows of %d, ended %v, dropped %v", a.Accepted, n, a.Ended, a.Dropped[ToBackend])
	}
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	t.Logf("%d strangers; at most %d flows; live client asked %d times, missed %d; clear %v after the last", n, most, asked.Load(),
		missed.Load(), took.Round(time.Millisecond))
}

// More than the shards can take: new flows are refused, those that exist go on, and timers and the control plane get answers.
func TestOverloadWithoutLivelock(t *testing.T) {
	r := newUDPRig(t, []string{lbtest.EchoDatagrams(t)}, func(c *config.Config) {
		c.Frontends[0].UDP.IdleTimeout, c.Frontends[0].UDP.UnrepliedTimeout = 3*time.Second, time.Second
	})
	r.e.SetAccess(false)
	live := r.client()
	live.ask("live")
	to := netip.MustParseAddrPort(r.address())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					strangers(t, to, 20_000, nil)
				}
			}
		})
	}
	answers := 0
	b := make([]byte, 100)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		begun := time.Now()
		r.e.Stats() // asks every shard
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("the shards took %v to answer", took)
		}
		_, _ = live.Write([]byte("live"))
		_ = live.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := live.Read(b); err == nil {
			answers++
		}
	}
	close(stop)
	wg.Wait()
	if answers == 0 {
		t.Error("the live flow got no answer")
	}
	lbtest.Eventually(t, "new clients are served again", func() bool {
		c, err := net.Dial("udp", r.address())
		if err != nil {
			return false
		}
		defer c.Close()
		_, _ = c.Write([]byte("new"))
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Read(b)
		return err == nil && n == 3
	})
	t.Logf("%d answers to the live flow; dropped %v", answers, r.e.Stats().Frontends["f"].Dropped[ToBackend])
}
