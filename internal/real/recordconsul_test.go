//go:build real

package consul

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var record = flag.String("record", "", "the folder discovery/testdata, to write consul/*.http there")

// TestRecord writes what the server says, byte for byte. The tests of discovery replay it.
func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("-record says where to")
	}
	recordService(t)
	recordACL(t)
	recordLeaderless(t)
}

// ask sends a query and returns a function that waits for the whole answer, or what there is of it when the server goes.
func (s *server) ask(query string) func() []byte {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	head := "GET /v1/health/service/web?passing=1" + query + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
	if s.token != "" {
		head += "X-Consul-Token: " + s.token + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		s.t.Fatal(err)
	}
	return func() []byte {
		b, err := io.ReadAll(conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			s.t.Fatal(err)
		}
		return b
	}
}

func save(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join(*record, "consul", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes", name, len(b))
}

func index(t *testing.T, answer []byte) string {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.Header.Get("X-Consul-Index")
}

func recordService(t *testing.T) {
	s := newServer(t)
	s.up()
	t.Cleanup(s.down)
	s.instance(1, 1, "passing")
	s.instance(2, 4, "passing")
	s.instance(3, 1, "critical")
	last := s.ask("")()
	save(t, "first.http", last)
	held := func() func() []byte { return s.ask("&wait=30000ms&index=" + index(t, last)) }
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"added.http", func() { s.instance(4, 1, "passing") }},
		{"changed.http", func() { s.instance(2, 9, "passing") }},
		{"removed.http", func() { s.remove(1) }},
	} {
		answer := held()
		c.change()
		last = answer()
		save(t, c.name, last)
	}
	last = s.ask("&wait=1000ms&index=" + index(t, last))()
	save(t, "quiet.http", last)

	// A server that restarts keeps its index; one that comes back without its memory does not.
	answer := held()
	s.down()
	if b := answer(); len(b) > 0 {
		t.Errorf("killed while it held a query: got %q; want nothing", b)
	}
	s.up()
	s.instance(5, 1, "passing")
	last = s.ask("")()
	save(t, "restarted.http", last)
	s.down()
	if err := os.RemoveAll(filepath.Join(s.folder, "data")); err != nil {
		t.Fatal(err)
	}
	s.up()
	s.instance(6, 1, "passing")
	save(t, "forgotten.http", s.ask("&wait=1000ms&index="+index(t, last))())
}

func recordACL(t *testing.T) {
	s := newServer(t)
	s.args = []string{"-hcl", `acl { enabled = true, default_policy = "deny" }`}
	s.up()
	t.Cleanup(s.down)
	var made struct{ SecretID string }
	if err := json.Unmarshal(s.put("/v1/acl/bootstrap", nil), &made); err != nil {
		t.Fatal(err)
	}
	s.token = made.SecretID
	s.instance(1, 1, "passing")
	if err := json.Unmarshal(s.put("/v1/acl/token", map[string]any{"Description": "of nothing"}), &made); err != nil {
		t.Fatal(err)
	}
	s.token = made.SecretID
	save(t, "filtered.http", s.ask("")())
	s.token = "5ec4e700-0000-0000-0000-000000000000"
	save(t, "denied.http", s.ask("")())
}

// recordLeaderless is one of two servers, without the other.
func recordLeaderless(t *testing.T) {
	s := newServer(t)
	s.args = []string{"-bootstrap-expect=2"}
	s.begin()
	t.Cleanup(s.down)
	var answer []byte
	for end := time.Now().Add(time.Minute); !bytes.Contains(answer, []byte("No cluster leader")); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %q", answer)
		}
		if c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://")); err == nil {
			c.Close()
			answer = s.ask("")()
		}
	}
	save(t, "noleader.http", answer)
}
