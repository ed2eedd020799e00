package wire

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
)

func TestRequestIsHTTPOfTheWantedSize(t *testing.T) {
	for _, size := range []int{0, 60, 64, 100, 1000, 4096} {
		for _, close := range []bool{false, true} {
			b := Request(size, 13, close)
			if size >= 100 && len(b) != size {
				t.Errorf("request of %d bytes asked for, got %d", size, len(b))
			}
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
			if err != nil {
				t.Fatalf("net/http refuses %q: %v", b, err)
			}
			if r.Close != close {
				t.Errorf("%q: net/http reads close=%v", b, r.Close)
			}
			p, n, err := ParseRequest(b)
			if err != nil || n != len(b) || p.ResponseBytes != 13 || p.Close != close {
				t.Errorf("%q: parsed %+v, %d bytes, %v", b, p, n, err)
			}
		}
	}
}

func TestResponseIsHTTPOfTheWantedSize(t *testing.T) {
	for _, size := range []int{0, 1, 13, 14, 1000, PatternPeriod, PatternPeriod*2 + 5} {
		raw := Response(size, false)
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || len(body) != size {
			t.Errorf("body of %d bytes asked for, got %d, %v", size, len(body), err)
		}
		if size == 13 && string(body) != DefaultBody {
			t.Errorf("default body: got %q", body)
		}
	}
}

func TestParseRequest(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Parsed
		n    int
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", Parsed{"/", 13, false}, 27},
		{"GET / HTTP/1.1\r\nHOST: a\r\nCONNECTION: Close\r\n\r\n", Parsed{"/", 13, true}, 46},
		{"GET / HTTP/1.0\r\n\r\n", Parsed{"/", 13, true}, 18},
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Parsed{"/", 13, false}, 42},
		{"GET /bytes/77 HTTP/1.1\r\n\r\n", Parsed{"/bytes/77", 77, false}, 26},
		{"GET /bytes/99999999999 HTTP/1.1\r\n\r\n", Parsed{"/bytes/99999999999", -1, false}, 35},
		{"GET /else HTTP/1.1\r\n\r\n", Parsed{"/else", -1, false}, 22},
		{"GET / HTTP/1.1\r\nHost", Parsed{}, 0},
		{"", Parsed{}, 0},
	} {
		got, n, err := ParseRequest([]byte(c.in))
		if err != nil || got != c.want || n != c.n {
			t.Errorf("%q: got %+v, %d, %v; want %+v, %d", c.in, got, n, err, c.want, c.n)
		}
	}
	for _, in := range []string{"POST / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "GET /\r\n\r\n"} {
		if p, n, err := ParseRequest([]byte(in)); err == nil {
			t.Errorf("%q: parsed as %+v, %d; want an error", in, p, n)
		}
	}
}

func TestHeaderAndTrailerRoundTrip(t *testing.T) {
	for _, h := range []Header{{Up: true}, {Down: true, Bytes: 200e6}, {Up: true, Down: true, Verify: true, Bytes: 1<<52 - 1}} {
		b := h.Append(nil)
		got, err := ParseHeader(b)
		if err != nil || got != h || len(b) != HeaderBytes {
			t.Errorf("%+v: read back as %+v, %v from %q", h, got, err, b)
		}
	}
	for _, bad := range []string{"X00000000000000\n", "U0zzzzzzzzzzzzz\n", "U0000000000000000", "GET / HTTP/1.1\r\n"} {
		if h, err := ParseHeader([]byte(bad)); err == nil {
			t.Errorf("%q: read as %+v, want an error", bad, h)
		}
	}
	tr := Trailer{Received: 1 << 50, Sent: 3, Mismatches: 1}
	if got, err := ParseTrailer(tr.Append(nil)); err != nil || got != tr {
		t.Errorf("%+v: read back as %+v, %v", tr, got, err)
	}
	if _, err := ParseTrailer(bytes.Repeat([]byte{'x'}, TrailerBytes)); err == nil {
		t.Error("a bad trailer must be refused")
	}
}

func TestPatternSeesShiftsAndFlips(t *testing.T) {
	b := bytes.Clone(Pattern(PatternPeriod-10, 4096))
	if !Matches(b, PatternPeriod-10) || !Matches(b, 5*PatternPeriod-10) {
		t.Error("the pattern must match itself, also whole periods later")
	}
	for _, off := range []uint64{0, PatternPeriod - 9, PatternPeriod - 10 + 65536, PatternPeriod - 10 + 1<<20} {
		if Matches(b, off) {
			t.Errorf("the pattern matches at the wrong offset %d", off)
		}
	}
	b[4000] ^= 1
	if Matches(b, PatternPeriod-10) {
		t.Error("a flipped bit went unseen")
	}
}
