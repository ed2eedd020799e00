package engine

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// newUDPRig is newRig with a UDP frontend.
func newUDPRig(t testing.TB, backends []string, edit func(*config.Config)) *rig {
	t.Helper()
	return newRig(t, backends, asUDP(edit))
}

// asUDP makes an edit of testConfig that turns its frontend into one of datagrams, with the defaults, before edit.
func asUDP(edit func(*config.Config)) func(*config.Config) {
	return func(c *config.Config) {
		f := c.Frontends[0]
		f.Protocol = "udp"
		f.UDP = config.UDP{Mode: "flow", Replies: true, BufferSize: 16384, IdleTimeout: time.Minute, UnrepliedTimeout: 5 * time.Second,
			MaxFlows: 65536, NewFlowPrefixV4: 24, NewFlowPrefixV6: 56, OnBackendGone: "move", GSO: true,
			ReceiveBuffer: 4 << 20, ReplyBuffer: 1 << 20}
		if edit != nil {
			edit(c)
		}
	}
}

// udpClient is a client of a rig with a socket of its own.
type udpClient struct {
	t testing.TB
	r *rig
	*net.UDPConn
}

// counted says what has become of datagrams, for the message when one is missing.
func (c *udpClient) counted() string {
	text := ""
	for name, f := range c.r.e.Stats().Frontends {
		text += fmt.Sprintf("frontend %s: %d flows, ended %v, datagrams %v, dropped %v; ", name, f.Accepted, f.Ended, f.Datagrams, f.Dropped)
	}
	return text
}

// client opens a socket on 127.0.0.1 that talks to the rig's first frontend.
func (r *rig) client() *udpClient { return r.clientTo(r.address()) }

func (r *rig) clientTo(address string) *udpClient {
	r.t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	return &udpClient{r.t, r, c.(*net.UDPConn)}
}

func (c *udpClient) say(data string) {
	c.t.Helper()
	if _, err := c.Write([]byte(data)); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads one datagram.
func (c *udpClient) hear() string {
	c.t.Helper()
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		c.t.Fatalf("%v; %s", err, c.counted())
	}
	return string(b[:n])
}

// ask sends a datagram and returns the next that comes back.
func (c *udpClient) ask(data string) string {
	c.t.Helper()
	c.say(data)
	return c.hear()
}

// address returns where the client's socket is bound.
func (c *udpClient) address() netip.AddrPort {
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// wantFlows waits until so many flows are open.
func (r *rig) wantFlows(want int64) {
	r.t.Helper()
	lbtest.Eventually(r.t, fmt.Sprintf("%d flows open", want), func() bool {
		open, _ := r.e.Flows()
		return open == want
	})
}

// dropped returns how many datagrams of the first frontend were dropped for a reason on their way in a direction.
func (r *rig) dropped(direction int, reason DropReason) uint64 {
	return r.e.Stats().Frontends["f"].Dropped[direction][reason]
}

// wantDropped waits until so many were.
func (r *rig) wantDropped(direction int, reason DropReason, want uint64) {
	r.t.Helper()
	var got uint64
	lbtest.Eventually(r.t, fmt.Sprintf("%d dropped: %v", want, reason), func() bool {
		got = r.dropped(direction, reason)
		return got >= want
	})
	if got != want {
		r.t.Fatalf("%d dropped for %v; want %d", got, reason, want)
	}
}

// tryListen binds a UDP port if it is free.
func tryListen(address string) (string, func(), error) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return "", nil, err
	}
	return c.LocalAddr().String(), func() { c.Close() }, nil
}
