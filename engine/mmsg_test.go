package engine

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// message appends a control message to b.
func message(b []byte, level, kind int32, data []byte) []byte {
	m := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(m, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(m[8:], uint32(level))
	binary.NativeEndian.PutUint32(m[12:], uint32(kind))
	copy(m[unix.CmsgLen(0):], data)
	return append(b, m...)
}

func TestParseAncillary(t *testing.T) {
	v4 := message(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, []byte{1, 0, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9})
	v6 := message(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append(make([]byte, 15), 7, 2, 0, 0, 0))
	gro := message(nil, unix.IPPROTO_UDP, unix.UDP_GRO, []byte{0xb0, 4, 0, 0})
	strange := message(nil, 99, 99, []byte{1, 2, 3})
	for _, c := range []struct {
		name string
		b    []byte
		want ancillary
	}{
		{"nothing", nil, ancillary{}},
		{"v4", v4, ancillary{local: mapped([4]byte{10, 0, 0, 1}), to: mapped([4]byte{10, 0, 0, 9})}},
		{"v6", v6, ancillary{local: [16]byte{15: 7}, to: [16]byte{15: 7}}},
		{"gro", gro, ancillary{segment: 1200}},
		{"all", append(append(append([]byte(nil), strange...), gro...), v4...), ancillary{local: mapped([4]byte{10, 0, 0, 1}), to: mapped([4]byte{10, 0, 0, 9}), segment: 1200}},
		{"cut", v4[:20], ancillary{}},
	} {
		if got := parseAncillary(c.b); got != c.want {
			t.Errorf("%s: got %+v; want %+v", c.name, got, c.want)
		}
	}
}

func FuzzParseAncillary(f *testing.F) {
	f.Add(message(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12)))
	f.Add(message(message(nil, unix.IPPROTO_UDP, unix.UDP_GRO, []byte{1, 2}), unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)))
	f.Add(message(nil, unix.IPPROTO_IP, unix.IP_RECVERR, []byte{111, 0, 0, 0, 2, 3, 3, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a := parseAncillary(b); a.segment < 0 || a.segment > 0xffff {
			t.Errorf("segment %d", a.segment)
		}
		_ = parseExtendedError(b)
		_ = attribute(b, 1)
	})
}

func TestParseExtendedError(t *testing.T) {
	refused := message(nil, unix.IPPROTO_IP, unix.IP_RECVERR, []byte{111, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	info := message(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12))
	for _, c := range []struct {
		b    []byte
		want unix.Errno
	}{{nil, 0}, {refused, unix.ECONNREFUSED}, {append(info, refused...), unix.ECONNREFUSED}, {info, 0}, {refused[:18], 0}} {
		if got := parseExtendedError(c.b); got != c.want {
			t.Errorf("got %v; want %v", got, c.want)
		}
	}
}
