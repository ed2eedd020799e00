package discovery

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// recording returns what a real server said; see testdata/README.md.
func recording(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// body returns the body of a recorded answer.
func body(t testing.TB, name string) []byte {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(recording(t, name))), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answer is what replay says to a request.
type answer struct {
	bytes     []byte
	hold      bool // then wait until the client goes
	slow      bool // byte by byte
	websocket bool // shake hands first
}

// ok is an answer that was never recorded.
func ok(body string) answer {
	return answer{bytes: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)}
}

// request is what replay was asked.
type request struct {
	path, body string
	query      url.Values
	header     http.Header
}

// replay is a server that answers as it was told: of the answers for a path, one after the other, and the last again and
// again. It closes each connection behind an answer.
type replay struct {
	mu      sync.Mutex
	answers map[string][]answer
	asked   []request
}

func (p *replay) set(path string, all ...answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answers == nil {
		p.answers = map[string][]answer{}
	}
	p.answers[path] = all
}

// requests returns those for a path.
func (p *replay) requests(path string) []request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []request
	for _, r := range p.asked {
		if r.path == path {
			all = append(all, r)
		}
	}
	return all
}

func (p *replay) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	text, _ := io.ReadAll(req.Body)
	p.mu.Lock()
	p.asked = append(p.asked, request{req.URL.Path, string(text), req.URL.Query(), req.Header})
	a := answer{bytes: []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")}
	if all := p.answers[req.URL.Path]; len(all) > 0 {
		if a = all[0]; len(all) > 1 {
			p.answers[req.URL.Path] = all[1:]
		}
	}
	p.mu.Unlock()
	if a.websocket {
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, section 4.2.2
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	}
	if a.slow {
		for i := range a.bytes {
			if _, err := c.Write(a.bytes[i : i+1]); err != nil {
				return
			}
		}
	} else if _, err := c.Write(a.bytes); err != nil {
		return
	}
	if a.hold {
		_, _ = io.Copy(io.Discard, in)
	}
}

func (p *replay) tcp(t *testing.T) string {
	return "http://" + lbtest.Serve(t, func(c *net.TCPConn) { p.serve(c) })
}

func (p *replay) unix(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "s")
	lbtest.ServeUnix(t, path, p.serve)
	return "unix://" + path
}

// watched follows a Watcher to its end, for at most d, and returns what it reported. What it reports twice in a row counts
// once.
func watched(t *testing.T, w Watcher, d time.Duration) (lists []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	err = w.Watch(ctx, func(l List) {
		if s := show(l); len(lists) == 0 || lists[len(lists)-1] != s {
			lists = append(lists, s)
		}
	})
	return lists, err
}

// watchedUntil is watched until a list has come.
func watchedUntil(t *testing.T, w Watcher, last string) (lists []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := w.Watch(ctx, func(l List) {
		if s := show(l); len(lists) == 0 || lists[len(lists)-1] != s {
			lists = append(lists, s)
		}
		if show(l) == last {
			cancel()
		}
	})
	if len(lists) == 0 || lists[len(lists)-1] != last {
		t.Errorf("never %s: %v", last, err)
	}
	return lists
}

// wantAgain waits for the second list of a Watch.
func wantAgain(t *testing.T, w Watcher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := 0
	err := w.Watch(ctx, func(List) {
		if n++; n == 2 {
			cancel()
		}
	})
	if n < 2 {
		t.Errorf("no second list: %v", err)
	}
}

// wantEnd is for what a Watch must end with.
func wantEnd(t *testing.T, err error, reason, want string) {
	t.Helper()
	if err == nil || ReasonOf(err) != reason || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v (%s); want %s: %s", err, ReasonOf(err), reason, want)
	}
}
