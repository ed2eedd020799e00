package lbtest

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// ServeDatagrams calls handle for every datagram that comes to a new socket and returns the socket's address. handle may
// answer by reply, any number of times; data is valid until it returns.
func ServeDatagrams(t testing.TB, handle func(from netip.AddrPort, data []byte, reply func([]byte))) string {
	t.Helper()
	return ServeDatagramsAt(t, "127.0.0.1:0", handle)
}

// ServeDatagramsAt is ServeDatagrams on a given address, for a backend that comes back.
func ServeDatagramsAt(t testing.TB, address string, handle func(from netip.AddrPort, data []byte, reply func([]byte))) string {
	t.Helper()
	at, stop := DatagramServer(t, address, handle)
	t.Cleanup(stop)
	return at
}

// DatagramServer is ServeDatagramsAt for a backend that goes before the test ends: stop closes its socket, any number of
// times.
func DatagramServer(t testing.TB, address string, handle func(from netip.AddrPort, data []byte, reply func([]byte))) (at string, stop func()) {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp", a)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			handle(from, b[:n], func(answer []byte) { _, _ = c.WriteToUDPAddrPort(answer, from) })
		}
	})
	return c.LocalAddr().String(), func() {
		c.Close()
		wg.Wait()
	}
}

// EchoDatagrams answers every datagram with itself.
func EchoDatagrams(t testing.TB) string {
	t.Helper()
	return ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) { reply(data) })
}

// NamedDatagrams answers every datagram with its name.
func NamedDatagrams(t testing.TB, name string) string {
	t.Helper()
	return ServeDatagrams(t, func(_ netip.AddrPort, _ []byte, reply func([]byte)) { reply([]byte(name)) })
}

// SilentDatagrams takes datagrams and never answers.
func SilentDatagrams(t testing.TB) string {
	t.Helper()
	return ServeDatagrams(t, func(netip.AddrPort, []byte, func([]byte)) {})
}
