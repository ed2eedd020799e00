package backend

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"awe4lb/bench/wire"
)

func start(t *testing.T, threads int) *Server {
	t.Helper()
	s, err := Start(Config{HTTP: []string{"127.0.0.1:0"}, Bulk: "127.0.0.1:0", Echo: "127.0.0.1:0", Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

func TestHTTPAnswersAnOrdinaryClient(t *testing.T) {
	s := start(t, 2)
	for path, want := range map[string]int{"/": 13, "/bytes/0": 0, "/bytes/100000": 100000} {
		resp, err := http.Get("http://" + s.HTTP[0] + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || len(body) != want {
			t.Errorf("%s: %s, %d bytes, %v; want %d", path, resp.Status, len(body), err, want)
		}
	}
	resp, err := http.Get("http://" + s.HTTP[0] + "/nothing")
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("an unknown path: %v, %v; want 404", resp, err)
	}
	resp.Body.Close()
	resp, err = http.Get("http://" + s.HTTP[0] + "/counters")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var c Counters
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil || c.Requests != 4 || c.Accepted == 0 {
		t.Errorf("counters: %+v, %v; want 4 requests before this one", c, err)
	}
}

func TestHTTPPipelinedSplitAndSlow(t *testing.T) {
	s := start(t, 1)
	c := dial(t, s.HTTP[0])
	// Three requests for large bodies at once, cut in the middle of a head, and nothing read until all is sent: the
	// responses do not fit into the socket and must wait without loss or reordering.
	const size = 3_000_000
	all := bytes.Repeat(wire.Request(0, size, false), 3)
	c.Write(all[:70])
	c.Write(all[70:])
	r := bufio.NewReader(c)
	for i := range 3 {
		got := make([]byte, len(wire.Response(size, false)))
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		if !bytes.Equal(got, wire.Response(size, false)) {
			t.Fatalf("response %d differs", i)
		}
	}
}

func TestHTTPClosesWhenAskedTo(t *testing.T) {
	s := start(t, 1)
	for _, request := range []string{string(wire.Request(0, 13, true)), "GET / HTTP/1.0\r\n\r\n"} {
		c := dial(t, s.HTTP[0])
		c.Write([]byte(request))
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, wire.Response(13, true)) {
			t.Errorf("%q: got %q, %v; want the response and then the end", request, got, err)
		}
	}
}

func TestNonsenseIsRefusedAndCounted(t *testing.T) {
	s := start(t, 1)
	for address, nonsense := range map[string]string{s.HTTP[0]: "\x16\x03\x01 hello", s.Bulk: "GET / HTTP/1.1\r\n\r\n"} {
		c := dial(t, address)
		c.Write([]byte(nonsense))
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%q: got an answer", nonsense)
		}
	}
	if n := s.Counters().Refused; n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
}

func TestEchoKeepsOrderUnderBackPressure(t *testing.T) {
	s := start(t, 1)
	c := dial(t, s.Echo)
	const size = 8 << 20
	sent := make(chan error, 1)
	go func() {
		for off := uint64(0); off < size; off += 1 << 16 {
			if _, err := c.Write(wire.Pattern(off, 1<<16)); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err != nil || len(got) != size {
		t.Fatalf("echoed %d bytes, %v; want %d", len(got), err, size)
	}
	for off := 0; off < size; off += 1 << 16 {
		if !wire.Matches(got[off:off+1<<16], uint64(off)) {
			t.Fatalf("wrong bytes at %d", off)
		}
	}
}

// The protocol of package wire, spoken by hand.
func TestBulkSpokenByHand(t *testing.T) {
	s := start(t, 1)

	up := dial(t, s.Bulk)
	up.Write(wire.Header{Up: true, Verify: true}.Append(nil))
	up.Write(wire.Pattern(0, 1000))
	up.Write([]byte("not the pattern"))
	up.CloseWrite()
	answer, err := io.ReadAll(up)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := wire.ParseTrailer(answer)
	if err != nil || tr.Received != 1015 || tr.Sent != 0 || tr.Mismatches == 0 {
		t.Errorf("upload with wrong bytes: trailer %+v, %v", tr, err)
	}

	down := dial(t, s.Bulk)
	down.Write(wire.Header{Down: true, Bytes: 2_000_000}.Append(nil))
	answer, err = io.ReadAll(down) // ends by itself: a fixed length
	if err != nil || len(answer) != 2_000_000+wire.TrailerBytes {
		t.Fatalf("download: %d bytes, %v", len(answer), err)
	}
	if tr, err := wire.ParseTrailer(answer[2_000_000:]); err != nil || tr.Sent != 2_000_000 || !wire.Matches(answer[:1_000_000], 0) {
		t.Errorf("download: trailer %+v, %v, or wrong bytes", tr, err)
	}

	endless := dial(t, s.Bulk)
	endless.Write(wire.Header{Down: true}.Append(nil))
	if _, err := io.ReadFull(endless, make([]byte, 1_000_000)); err != nil {
		t.Fatal(err)
	}
	endless.CloseWrite() // enough
	rest, err := io.ReadAll(endless)
	if err != nil {
		t.Fatal(err)
	}
	if tr, err := wire.ParseTrailer(rest[len(rest)-wire.TrailerBytes:]); err != nil || tr.Sent != uint64(1_000_000+len(rest)-wire.TrailerBytes) {
		t.Errorf("endless download: trailer %+v, %v after %d bytes", tr, err, 1_000_000+len(rest))
	}
}

func TestStartErrorsTeach(t *testing.T) {
	taken := start(t, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // without SO_REUSEPORT, unlike ours
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for address, want := range map[string]string{"localhost:80": "IPv4", ln.Addr().String(): "bind " + ln.Addr().String()} {
		if _, err := Start(Config{HTTP: []string{address}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error about %q", address, err, want)
		}
	}
	if taken.Counters().Accepted != 0 {
		t.Error("nobody has connected")
	}
}

func TestNaiveCarriesHalfCloses(t *testing.T) {
	s := start(t, 1)
	p, err := StartNaive("127.0.0.1:0", s.Echo)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, p.Addr())
	fmt.Fprint(c, "to and fro")
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "to and fro" {
		t.Errorf("got %q, %v", got, err)
	}
	p.Close()
	// A backend that is not there closes the client.
	dead, err := StartNaive("127.0.0.1:0", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if _, err := dial(t, dead.Addr()).Read(make([]byte, 1)); err == nil {
		t.Error("a connection without a backend must end")
	}
}
