package backend

import (
	"bytes"
	"net"
	"runtime"
	"testing"
	"time"

	"awe4lb/bench/wire"
)

func TestUDPEcho(t *testing.T) {
	s, err := Start(Config{UDP: "127.0.0.1:0", Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c, err := net.Dial("udp", s.UDP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	exchange := func(b []byte) []byte {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	if got := exchange([]byte("anything")); string(got) != "anything" {
		t.Errorf("a stranger's datagram came back as %q", got)
	}

	silent := wire.Datagram{NoReply: true, Client: 1}
	ours := wire.Datagram{Run: 3, Client: 2, Seq: 9}
	b := make([]byte, wire.DatagramHeader, 100)
	silent.Put(b)
	c.Write(b)
	c.Write(make([]byte, datagramSlot+1))
	ours.Put(b)
	b = append(b, wire.DatagramBody(2, 9, 68)...)
	got := exchange(b) // neither the silent one nor the long one comes back, or this would be it
	h, ok := wire.ParseDatagram(got)
	if ours.Seen = uint16(c.LocalAddr().(*net.UDPAddr).Port); !ok || h != ours || !bytes.Equal(got[32:], b[32:]) {
		t.Errorf("got %+v, %v; want %+v", h, ok, ours)
	}
	// The answer is on its way before it is counted.
	n := s.Counters()
	for end := time.Now().Add(10 * time.Second); n.DatagramsSent < 2 && time.Now().Before(end); n = s.Counters() {
		runtime.Gosched()
	}
	if n.DatagramsReceived != 3 || n.DatagramsSent != 2 || n.Refused != 1 {
		t.Errorf("counted %+v; want 3 received, 2 sent, 1 refused", n)
	}
}
