package wire

import (
	"bytes"
	"testing"
)

func TestDatagramReadsBack(t *testing.T) {
	want := Datagram{NoReply: true, Run: 7, Client: 123456, Seq: 1 << 40, Sent: -5}
	b := make([]byte, DatagramHeader)
	want.Put(b)
	StampSeen(b, 40001)
	want.Seen = 40001
	if got, ok := ParseDatagram(b); !ok || got != want {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
	for _, bad := range [][]byte{nil, b[:31], bytes.Repeat([]byte{0}, 64)} {
		if _, ok := ParseDatagram(bad); ok {
			t.Errorf("% x reads as a datagram", bad)
		}
	}
	if bytes.Equal(DatagramBody(1, 1, 64), DatagramBody(1, 2, 64)) || bytes.Equal(DatagramBody(1, 1, 64), DatagramBody(2, 1, 64)) {
		t.Error("bodies of two datagrams are alike: a mix-up would not be seen")
	}
}
