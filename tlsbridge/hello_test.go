package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder is a net.Conn that keeps what is written and reads as if the peer had gone.
type recorder struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	if r.in != nil {
		return r.in.Read(b)
	}
	return 0, io.EOF
}
func (r *recorder) Write(b []byte) (int, error)    { return r.out.Write(b) }
func (*recorder) SetWriteDeadline(time.Time) error { return nil }
func (*recorder) LocalAddr() net.Addr              { return nil }
func (*recorder) RemoteAddr() net.Addr             { return nil }

// goHello returns the record with the ClientHello of a Go client.
func goHello(config *tls.Config) []byte {
	r := &recorder{}
	config.InsecureSkipVerify = true
	_ = tls.Client(r, config).Handshake()
	return slices.Clone(r.out.Bytes())
}

// helloFor returns a bare ClientHello record with the extensions given.
func helloFor(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	if all := bytes.Join(extensions, nil); len(extensions) > 0 {
		body = append(append(body, byte(len(all)>>8), byte(len(all))), all...)
	}
	message := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

func extension(kind int, data string) []byte {
	return append([]byte{byte(kind >> 8), byte(kind), byte(len(data) >> 8), byte(len(data))}, data...)
}

// sni is a server_name extension with one host name.
func sni(name string) []byte {
	n := len(name)
	return extension(extServerName, string([]byte{byte((n + 3) >> 8), byte(n + 3), 0, byte(n >> 8), byte(n)})+name)
}

// recut cuts the handshake message in hello into records of size bytes.
func recut(hello []byte, size int) []byte {
	var out []byte
	for piece := range slices.Chunk(hello[recordHeader:], size) {
		out = append(append(out, 22, 3, 1, byte(len(piece)>>8), byte(len(piece))), piece...)
	}
	return out
}

func peek(b []byte) (Status, *Hello) {
	var p Peeker
	var h Hello
	return p.Peek(b, HelloLimit, &h), &h
}

func TestPeekGoClients(t *testing.T) {
	for i, config := range []*tls.Config{
		{ServerName: "Shop.Example.COM"},
		{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}},
		{ServerName: "a.example", MaxVersion: tls.VersionTLS12, NextProtos: []string{"acme-tls/1"}},
		{ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519}},
		{ServerName: "127.0.0.1"}, // Go does not send addresses
	} {
		whole := goHello(config)
		for _, size := range []int{1, 2, 3, 100, 1 << 14} {
			b := recut(whole, size)
			var p Peeker
			var h Hello
			for n := range len(b) {
				if status := p.Peek(b[:n], HelloLimit, &h); status != NeedMore {
					t.Fatalf("%d, records of %d, %d of %d bytes: %v", i, size, n, len(b), status)
				}
			}
			if status := p.Peek(b, HelloLimit, &h); status != Found {
				t.Fatalf("%d, records of %d: %v", i, size, status)
			}
			want := strings.ToLower(config.ServerName)
			if net.ParseIP(want) != nil {
				want = ""
			}
			if got := string(h.ServerName()); got != want {
				t.Errorf("%d: name %q, want %q", i, got, want)
			}
			if got := slices.Collect(h.ALPN()); fmt.Sprintf("%s", got) != fmt.Sprintf("%s", config.NextProtos) {
				t.Errorf("%d: ALPN %s", i, got)
			}
			version := uint16(tls.VersionTLS13)
			if config.MaxVersion != 0 {
				version = config.MaxVersion
			}
			if h.MaxVersion() != version {
				t.Errorf("%d: version %x", i, h.MaxVersion())
			}
		}
	}
}

func TestPeekNames(t *testing.T) {
	for _, c := range []struct {
		extension []byte
		want      string
		ip        bool
	}{
		{nil, "", false},
		{sni("WWW.Example.com"), "www.example.com", false},
		{sni("xn--bcher-kva.example"), "xn--bcher-kva.example", false},
		{sni("under_score.example"), "under_score.example", false},
		{sni("localhost"), "localhost", false},
		{sni("1.2.3.4"), "", true},
		{sni("4.3.2.1.in-addr.arpa"), "4.3.2.1.in-addr.arpa", false},
		{sni("127.1"), "", true},
		{sni("::1"), "", true},
		{sni("[2001:db8::a]"), "", true},
		{sni("a.example:443"), "", true},
		{sni(strings.Repeat("a", 253)), strings.Repeat("a", 253), false},
		{extension(extServerName, "\x00\x0f\x07\x00\x03abc\x00\x00\x06a.test"), "a.test", false}, // an unknown type of name first
		{bytes.Join([][]byte{extension(0x1a1a, ""), sni("a.test"), extension(0xfafa, "\x00")}, nil), "a.test", false},
	} {
		status, h := peek(helloFor(c.extension))
		if status != Found || string(h.ServerName()) != c.want || h.IPName() != c.ip || h.ECH() {
			t.Errorf("%q: %v, name %q, ip %v, ech %v", c.extension, status, h.ServerName(), h.IPName(), h.ECH())
		}
	}
}

func TestPeekMalformed(t *testing.T) {
	for _, e := range [][]byte{
		sni(""), sni("a.example."), sni("."), sni(".a"), sni("a..b"), sni("a b"), sni("a\x00b"), sni("a\nb"), sni("\x1b[1m"),
		sni("bücher.example"), sni("a\x7f"), sni(strings.Repeat("a", 254)),
		append(sni("a.test"), sni("b.test")...),
		extension(extServerName, ""), extension(extServerName, "\x00\x00"), extension(extServerName, "\x00\x04\x00\x00\x01"),
		extension(extServerName, "\x00\x08\x00\x00\x01a\x00\x00\x01b"), // two host names
		extension(extALPN, ""), extension(extALPN, "\x00\x00"), extension(extALPN, "\x00\x01\x00"), extension(extALPN, "\x00\x02\x05a"),
		append(extension(extALPN, "\x00\x02\x01a"), extension(extALPN, "\x00\x02\x01a")...),
		extension(extSupportedVersions, "\x00"), extension(extSupportedVersions, "\x01\x03"), extension(extSupportedVersions, "\x03\x03\x04\x03"),
		{0, 0, 0}, {0, 0, 0, 9, 0},
	} {
		if status, h := peek(helloFor(e)); status != Malformed {
			t.Errorf("%q: %v %q", e, status, h.ServerName())
		}
	}
	good := helloFor(sni("a.test"))
	for name, b := range map[string][]byte{
		"empty record":             {22, 3, 1, 0, 0},
		"record too large":         {22, 3, 1, 0x40, 0x01},
		"alert inside":             append(recut(good, 10)[:15], 21, 3, 1, 0, 2, 1, 0),
		"other version inside":     append(recut(good, 10)[:15], 22, 4),
		"empty record inside":      append(recut(good, 10)[:15], 22, 3, 3, 0, 0),
		"message ends early":       {22, 3, 1, 0, 5, 1, 0, 0, 1, 3},
		"extensions longer":        append(append([]byte{22, 3, 1, 0, 48, 1, 0, 0, 44, 3, 3}, make([]byte, 32)...), 0, 0, 2, 0x13, 1, 1, 0, 0, 9, 0),
		"odd length of the suites": append(append([]byte{22, 3, 1, 0, 44, 1, 0, 0, 40, 3, 3}, make([]byte, 32)...), 0, 0, 1, 0x13, 1, 0),
	} {
		if status, _ := peek(b); status != Malformed {
			t.Errorf("%s: %v", name, status)
		}
	}
}

func TestPeekOthers(t *testing.T) {
	for name, c := range map[string]struct {
		b    string
		at   int // bytes that suffice
		want Status
	}{
		"plain HTTP":     {"GET / HTTP/1.1\r\n", 1, NotTLS},
		"SSLv2":          {"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", 1, NotTLS},
		"SSH":            {"SSH-2.0-x\r\n", 1, NotTLS},
		"PROXY v1":       {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 1, NotTLS},
		"zeroes":         {strings.Repeat("\x00", 64), 1, NotTLS},
		"alert":          {"\x15\x03\x01\x00\x02\x01\x00", 1, NotTLS},
		"SSL 2.0 inside": {"\x16\x02\x00\x00\x10", 2, NotTLS},
		"TLS 4.0":        {"\x16\x03\x05\x00\x10", 3, NotTLS},
		"ServerHello":    {"\x16\x03\x03\x00\x50\x02\x00\x00\x4c", 6, NotTLS},
		"huge message":   {"\x16\x03\x01\x20\x00\x01\x01\x00\x00", 9, TooLong},
		"over the limit": {"\x16\x03\x01\x20\x00\x01\x00\x3f\xf8", 9, TooLong},
		"huge record":    {"\x16\x03\x01\x40\x00\x01", 6, TooLong},
		"huge, another":  {"\x16\x03\x01\x40\x00\x00", 6, NotTLS},
	} {
		var p Peeker
		for n := range len(c.b) + 1 {
			want := NeedMore
			if n >= c.at {
				want = c.want
			}
			if got := p.Peek([]byte(c.b[:n]), HelloLimit, new(Hello)); got != want {
				t.Errorf("%s, %d bytes: %v, want %v", name, n, got, want)
			}
			if n == c.at {
				break
			}
		}
	}
}

// TestPeekLimit: the limit counts record headers too, so that a hello in tiny records cannot fill more memory than one in
// a single record.
func TestPeekLimit(t *testing.T) {
	whole := helloFor(sni("a.test"))
	for _, size := range []int{1, 10, 1000} {
		b := recut(whole, size)
		var p Peeker
		if status := p.Peek(b, len(b), new(Hello)); status != Found {
			t.Errorf("records of %d, limit %d: %v", size, len(b), status)
		}
		p = Peeker{}
		if status := p.Peek(b, len(b)-1, new(Hello)); status != TooLong {
			t.Errorf("records of %d, limit %d: %v", size, len(b)-1, status)
		}
	}
}

func TestPeekECHAndGREASE(t *testing.T) {
	status, h := peek(helloFor(
		extension(0x2a2a, ""), sni("outer.example"), extension(extECH, "\x00\x00\x01\x00\x01\x07\x00\x00\x00\x00"),
		extension(extALPN, "\x00\x09\x02\x4a\x4a\x02h2\x02\x0a\x0a"),
		extension(extSupportedVersions, "\x06\x7a\x7a\x7f\x1c\x03\x03")))
	if status != Found || !h.ECH() || string(h.ServerName()) != "outer.example" {
		t.Errorf("%v, ech %v, name %q", status, h.ECH(), h.ServerName())
	}
	if got := slices.Collect(h.ALPN()); len(got) != 1 || !h.Offers("h2") || h.Offers("\x4a\x4a") || h.Offers("http/1.1") {
		t.Errorf("ALPN %q", got)
	}
	if h.MaxVersion() != tls.VersionTLS12 {
		t.Errorf("version %x", h.MaxVersion())
	}
	if _, h := peek(helloFor(extension(extSupportedVersions, "\x02\x7f\x1c"))); h.MaxVersion() != 0 {
		t.Errorf("a draft: version %x", h.MaxVersion())
	}
}

var errEnough = errors.New("enough")

// oracle returns what crypto/tls reads in b, or nil if it reads no ClientHello.
func oracle(b []byte) *tls.ClientHelloInfo {
	var info *tls.ClientHelloInfo
	_ = tls.Server(&recorder{in: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			info = i
			return nil, errEnough
		}}).Handshake()
	return info
}

// FuzzPeek holds Peek against crypto/tls: what crypto/tls reads, Peek finds, and reads the same in it; what Peek finds in
// any segmentation, it finds in every other.
func FuzzPeek(f *testing.F) {
	whole := goHello(&tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}})
	f.Add(whole, uint64(1))
	f.Add(recut(whole, 7), uint64(2))
	f.Add(goHello(&tls.Config{ServerName: "b.example", MaxVersion: tls.VersionTLS12}), uint64(3))
	f.Add(helloFor(sni("Upper.Example"), extension(extECH, "\x00"), extension(0x0a0a, "x")), uint64(4))
	f.Add(helloFor(sni("10.0.0.1"), extension(extALPN, "\x00\x03\x02\x0a\x0a")), uint64(5))
	f.Add(helloFor(), uint64(6))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), uint64(7))
	f.Fuzz(checkPeek)
}

// FuzzPeekExtensions is FuzzPeek on what matters most: the extensions of an otherwise proper ClientHello.
func FuzzPeekExtensions(f *testing.F) {
	for _, e := range [][]byte{
		sni("a.example"), sni("1.2.3.4"), extension(extALPN, "\x00\x03\x02h2"), extension(extSupportedVersions, "\x02\x03\x04"),
		append(sni("A.example"), extension(0x2a2a, "")...), extension(extServerName, "\x00\x0f\x07\x00\x03abc\x00\x00\x06a.test"),
	} {
		f.Add(e, uint64(1), uint16(20))
	}
	f.Fuzz(func(t *testing.T, extensions []byte, seed uint64, size uint16) {
		if b := helloFor(extensions); len(extensions) < 10_000 {
			checkPeek(t, b, seed)
			checkPeek(t, recut(b, 1+int(size)), seed)
		}
	})
}

func checkPeek(t *testing.T, b []byte, seed uint64) {
	var p Peeker
	var h Hello
	status, n := NeedMore, 0
	for random := rand.New(rand.NewPCG(seed, 0)); status == NeedMore && n < len(b); {
		n = min(n+1+random.IntN(1+random.IntN(500)), len(b))
		status = p.Peek(b[:n], HelloLimit, &h)
	}
	if all, _ := peek(b); all != status {
		t.Fatalf("%v in pieces, %v at once", status, all)
	}
	info := oracle(b)
	if status != Found {
		if info != nil && !differs(b, info) {
			t.Fatalf("%v; crypto/tls reads %q %q", status, info.ServerName, info.SupportedProtos)
		}
		return
	}
	if info == nil {
		return // crypto/tls looks at more, and refuses more
	}
	name := strings.ToLower(info.ServerName)
	if h.IPName() != looksLikeIP([]byte(name)) && name != "" {
		t.Errorf("IPName %v for %q", h.IPName(), name)
	}
	if h.IPName() {
		name = ""
	}
	if string(h.ServerName()) != name {
		t.Errorf("name %q, crypto/tls reads %q", h.ServerName(), info.ServerName)
	}
	protocols := slices.DeleteFunc(info.SupportedProtos, func(s string) bool {
		return len(s) == 2 && isGREASE(uint16(s[0])<<8|uint16(s[1]))
	})
	if got := slices.Collect(h.ALPN()); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", protocols) {
		t.Errorf("ALPN %q, crypto/tls reads %q", got, protocols)
	}
	highest := uint16(0)
	for _, v := range info.SupportedVersions {
		if v >= 0x0301 && v <= 0x0304 {
			highest = max(highest, v)
		}
	}
	if h.versions == nil {
		highest = min(highest, 0x0303) // crypto/tls does the same, after it has told GetConfigForClient otherwise
	}
	if got := h.MaxVersion(); got != highest && !(highest == 0 && got <= 0x0300) {
		t.Errorf("version %x, crypto/tls reads %x", got, info.SupportedVersions)
	}
}

// differs reports whether b is one of the ClientHellos that crypto/tls reads and we refuse on purpose: warnings before
// it, record versions that nobody sends, more bytes than the limit, or a name that is none.
func differs(b []byte, info *tls.ClientHelloInfo) bool {
	name := []byte(info.ServerName)
	for rest := b; len(rest) >= recordHeader; {
		n := recordHeader + int(rest[3])<<8 + int(rest[4])
		if rest[0] != recordHandshake || rest[1] != 3 || rest[2] > 4 || n > recordHeader+maxPlaintext {
			return true
		}
		rest = rest[min(n, len(rest)):]
	}
	return len(b) > HelloLimit || len(name) > 0 && !new(Hello).setName(name)
}

// BenchmarkPeek: 25 November 2026, a ClientHello of 1.5 kB with X25519MLKEM768: see the decision on peeking.
func BenchmarkPeek(b *testing.B) {
	whole := goHello(&tls.Config{ServerName: "shop.example", NextProtos: []string{"h2", "http/1.1"}})
	for _, c := range []struct {
		name string
		b    []byte
		want Status
	}{{"whole", whole, Found}, {"prefix", whole[:1000], NeedMore}, {"records", recut(whole, 100), Found}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var h Hello
			for b.Loop() {
				var p Peeker
				if p.Peek(c.b, HelloLimit, &h) != c.want {
					b.Fatal("?")
				}
			}
		})
	}
	b.Run("crypto/tls", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if oracle(whole) == nil {
				b.Fatal("?")
			}
		}
	})
}

func TestPeekAllocatesNothing(t *testing.T) {
	whole := goHello(&tls.Config{ServerName: "shop.example", NextProtos: []string{"h2", "http/1.1"}})
	cut := recut(whole, 50)
	var h Hello
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range [][]byte{whole[:700], whole, cut} {
			var p Peeker
			p.Peek(b, HelloLimit, &h)
		}
		if !h.Offers("h2") || string(h.ServerName()) != "shop.example" {
			t.Error("?")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
