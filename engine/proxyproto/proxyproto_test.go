package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	oracle "github.com/pires/go-proxyproto"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var clients = []Client{
	{Source: ap("192.0.2.1:51000"), Dest: ap("192.0.2.2:443")},
	{Source: ap("[2001:db8::1]:51000"), Dest: ap("[2001:db8::2]:443")},
	{Source: ap("192.0.2.1:1"), Dest: ap("[2001:db8::2]:65535")},
	{Source: ap("[::ffff:192.0.2.1]:1"), Dest: ap("192.0.2.2:2")},
	{},
	{Source: ap("192.0.2.1:51000"), Dest: ap("192.0.2.2:53"), Datagram: true},
	{Source: ap("192.0.2.1:51000"), Dest: ap("192.0.2.2:443"), CRC32C: true, ALPN: "h2", Authority: "a.example", UniqueID: []byte("id-1"),
		TLS: &TLS{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", CN: "me", Verified: true}},
	{Source: ap("192.0.2.1:51000"), Dest: ap("192.0.2.2:443"), Authority: strings.Repeat("a", 5000), TLS: &TLS{Version: "TLSv1.2"}},
}

// TestRoundTrip: what is appended is parsed again, and byte by byte as well; and a well-known library reads the same in it.
func TestRoundTrip(t *testing.T) {
	for i, c := range clients {
		for version, b := range map[int][]byte{1: Append1(nil, &c), 2: Append2(nil, &c)} {
			var h Header
			for n := range len(b) {
				if got, status := Parse(b[:n], &h); status != NeedMore {
					t.Fatalf("client %d, version %d, %d bytes: %d %v", i, version, n, got, status)
				}
			}
			n, status := Parse(append(b, "more"...), &h)
			if n != len(b) || status != Found || h.Version != version || h.Local {
				t.Fatalf("client %d, version %d: %d of %d, %v, %+v", i, version, n, len(b), status, h)
			}
			known := c.Source.IsValid() && !(version == 1 && c.Datagram)
			if h.Known != known || known && (h.Source != unmap(c.Source) || h.Dest != unmap(c.Dest)) {
				t.Errorf("client %d, version %d: %+v", i, version, h)
			}
			if version == 2 && (h.Datagram != (c.Datagram && known) || string(h.TLV(TLVALPN)) != c.ALPN || string(h.TLV(TLVUniqueID)) != string(c.UniqueID) ||
				string(h.TLV(TLVAuthority)) != c.Authority[:min(len(c.Authority), maxValue)]) {
				t.Errorf("client %d: %+v", i, h)
			}
			compare(t, b, len(b), Found, &h)
		}
	}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// TestSSL: a library finds what we say of a client's TLS.
func TestSSL(t *testing.T) {
	h, err := oracle.Read(bufio.NewReader(bytes.NewReader(Append2(nil, &clients[6]))))
	if err != nil {
		t.Fatal(err)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	for _, tlv := range tlvs {
		if tlv.Type == oracle.PP2_TYPE_SSL {
			want := "\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x23\x00\x16TLS_AES_128_GCM_SHA256\x22\x00\x02me"
			if string(tlv.Value) != want {
				t.Errorf("got %q", tlv.Value)
			}
			return
		}
	}
	t.Error("no TLV about TLS")
}

func TestParse(t *testing.T) {
	const v2 = signature2
	for b, want := range map[string]Status{
		"":                                       NeedMore,
		"P":                                      NeedMore,
		"PROXY":                                  NeedMore,
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n": Found,
		"PROXY UNKNOWN\r\n":                      Found,
		"PROXY UNKNOWN whatever they say\r\n":    Found,
		"PROXY TCP6 ::1 ::1 0 65535\r\n":         Found,
		"PROXY\r\n":                              NotPROXY,
		"POST / HTTP/1.1\r\n":                    NotPROXY,
		"GET /":                                  NotPROXY,
		"\r\n\r\n\x00\r\nQUIT\r":                 NotPROXY,
		"\x16\x03\x01":                           NotPROXY,
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n":   Malformed,
		"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n":   Malformed,
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n":        Malformed,
		"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n":         Malformed,
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n":      Malformed,
		"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n":         Malformed,
		"PROXY TCP4 ::1 ::1 1 2\r\n":                      Malformed,
		"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n":          Malformed,
		"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n":             Malformed,
		"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n":         Malformed,
		"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n":          Malformed,
		"PROXY " + strings.Repeat("x", 200):               Malformed,
		"PROXY TCP4 " + strings.Repeat("1", 60) + " \r\n": Malformed,
		v2:                      NeedMore,
		v2 + "\x20\x00\x00\x00": Found, // LOCAL
		v2 + "\x21\x00\x00\x00": Found, // UNSPEC
		v2 + "\x21\x31\x00\xd8": NeedMore,
		v2 + "\x21\x31\x00\xd8" + strings.Repeat("\x00", 216): Found, // unix
		v2 + "\x11":                 Malformed,
		v2 + "\x22":                 Malformed,
		v2 + "\x21\x41\x00\x00":     Malformed,
		v2 + "\x21\x13\x00\x00":     Malformed,
		v2 + "\x21\x11\x00\x04abcd": Malformed,
		v2 + "\x21\x11\xff\xff":     Malformed,
		v2 + "\x20\x00\x00\x02ab":   Malformed, // half a TLV
		v2 + "\x20\x00\x00\x07\x03\x00\x04\x00\x00\x00\x00": Malformed, // wrong checksum
		v2 + "\x20\x00\x00\x04\x03\x00\x01\x00":             Malformed, // no checksum
	} {
		var h Header
		if n, status := Parse([]byte(b), &h); status != want || n != 0 && n != len(b) || (n > 0) != (status == Found) {
			t.Errorf("%q: %d, %v; want %v", b, n, status, want)
		}
	}
	var h Header
	if _, status := Parse([]byte(v2+"\x20\x11\x00\x0cabcdefghijkl"), &h); status != Found || !h.Local || h.Known {
		t.Errorf("LOCAL: %v %+v", status, h)
	}
}

// compare holds what Parse made of b against the library.
func compare(t *testing.T, b []byte, n int, status Status, h *Header) {
	t.Helper()
	r := bufio.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader("")))
	o, err := oracle.Read(r)
	switch {
	case status == NotPROXY:
		if err == nil {
			t.Fatalf("%q: the library reads %+v", b, o)
		}
	case status == Found && err != nil:
		// It wants more of LOCAL and UNKNOWN headers than the specification does, and less of a checksum.
		if h.Known && !errors.Is(err, oracle.ErrInvalidLength) {
			t.Fatalf("%q: the library says %v", b, err)
		}
	case status == Found && h.Known:
		source, dest := addrPort(o.SourceAddr), addrPort(o.DestinationAddr)
		if source != h.Source || dest != h.Dest {
			t.Fatalf("%q: %v to %v; the library reads %v to %v", b, h.Source, h.Dest, source, dest)
		}
		if rest, _ := io.ReadAll(r); len(rest) != len(b)-n {
			t.Fatalf("%q: it takes %d bytes; the library leaves %d", b, n, len(rest))
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

// FuzzParse: what is found in pieces is found at once; a library reads the same.
func FuzzParse(f *testing.F) {
	for _, c := range clients {
		f.Add(append(Append1(nil, &c), "GET /"...), uint64(1))
		f.Add(append(Append2(nil, &c), "\x16\x03\x01"...), uint64(2))
	}
	f.Add([]byte("PROXY UNKNOWN x\r\n"), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		var h, pieces Header
		n, status := Parse(b, &h)
		random := rand.New(rand.NewPCG(seed, 0))
		for end, m, s := 0, 0, NeedMore; s == NeedMore && end < len(b); {
			end = min(end+1+random.IntN(8), len(b))
			if m, s = Parse(b[:end], &pieces); s != NeedMore && (s != status || m != n) {
				t.Fatalf("%v %d in pieces, %v %d at once", s, m, status, n)
			}
		}
		compare(t, b, n, status, &h)
		for range h.TLVs() {
			_ = random
		}
	})
}

func TestAllocations(t *testing.T) {
	one, two := Append1(nil, &clients[0]), Append2(nil, &clients[6])
	out := make([]byte, 0, 4096)
	var h Header
	if n := testing.AllocsPerRun(100, func() { Parse(one, &h) }); n > 2 {
		t.Errorf("%v allocations for version 1", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		Parse(two, &h)
		out = Append1(out[:0], &clients[1])
		out = Append2(out[:0], &clients[6])
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
