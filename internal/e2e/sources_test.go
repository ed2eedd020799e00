//go:build e2e

package e2e

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"
)

// sources sends from a whole network of addresses that are local here, by one socket, and knows which of them an answer
// came to.
type sources struct {
	c    *net.UDPConn
	p    *ipv4.PacketConn
	to   net.Addr
	base uint32
}

// sourcesOf wraps a socket that is bound to 0.0.0.0. base is the first address, to where everything goes.
func sourcesOf(t *testing.T, c *net.UDPConn, base netip.Addr, to string) *sources {
	t.Helper()
	s := &sources{c: c, p: ipv4.NewPacketConn(c), to: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)), base: number(base.AsSlice())}
	if err := s.p.SetControlMessage(ipv4.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	return s
}

// address returns the address of a source by its number.
func (s *sources) address(i int) netip.Addr {
	n := s.base + uint32(i)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// number is an IPv4 address as one.
func number(ip []byte) uint32 {
	return uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
}

// send sends a datagram from each of n sources.
func (s *sources) send(first, n int, text func(i int) []byte) error {
	batch := make([]ipv4.Message, n)
	for k := range batch {
		from := ipv4.ControlMessage{Src: s.address(first + k).AsSlice()}
		batch[k] = ipv4.Message{Buffers: [][]byte{text(first + k)}, OOB: from.Marshal(), Addr: s.to}
	}
	for len(batch) > 0 {
		n, err := s.p.WriteBatch(batch, 0)
		if err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// receive returns the next answer and the number of the source that it came to.
func (s *sources) receive(b []byte) (i int, answer []byte, err error) {
	n, to, _, err := s.p.ReadFrom(b)
	if err != nil {
		return 0, nil, err
	}
	return int(number(to.Dst.To4()) - s.base), b[:n], nil
}
