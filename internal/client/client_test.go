package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// serve starts a server and returns a client of it, as o says otherwise.
func serve(t *testing.T, o Options, handle http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	o.Address = s.Listener.Addr().String()
	return newClient(t, o)
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		o    Options
		base string
	}{
		{Options{}, "http://127.0.0.1:7070"},
		{Options{Address: "lb:7070"}, "http://lb:7070"},
		{Options{Address: "lb:7070", TLS: true}, "https://lb:7070"},
		{Options{Address: "http://lb:7070/", TLS: true}, "http://lb:7070"},
		{Options{Address: "https://lb/admin/"}, "https://lb/admin"},
		{Options{Address: "[::1]:7070"}, "http://[::1]:7070"},
		{Options{Address: "unix:/run/a.sock"}, "http://localhost"},
	} {
		if c := newClient(t, tc.o); c.base.String() != tc.base {
			t.Errorf("%+v: %s, want %s", tc.o, c.base.String(), tc.base)
		}
	}
	for _, o := range []Options{{Address: "lb"}, {Address: "ftp://lb"}, {Address: "http://"}, {Address: "http://me:secret@lb"}, {Address: "unix:"},
		{CA: "/nonexistent"}, {Cert: "/nonexistent"}, {CA: "client_test.go"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestSendsInTheClear(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:1": false, "localhost:1": false, "[::1]:1": false, "unix:/x": false, "https://lb": false,
		"lb:1": true, "10.0.0.1:1": true, "http://lb": true} {
		if got := newClient(t, Options{Address: address, Token: "t"}).SendsInTheClear(); got != want {
			t.Errorf("%s: %v", address, got)
		}
		if newClient(t, Options{Address: address}).SendsInTheClear() {
			t.Errorf("%s: without credentials", address)
		}
	}
}

func TestCall(t *testing.T) {
	c := serve(t, Options{Token: "secret", User: "not used"}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type"), r.Header.Get("Authorization"), body)
		_ = json.NewEncoder(w).Encode(map[string]string{"got": got})
	})
	var answer struct{ Got string }
	err := c.Call(context.Background(), Request{Method: "PATCH", Path: "/api/v1/pools/a b/backends/unix:/x?y", Query: map[string][]string{"q": {"1 2"}}, Body: map[string]int{"n": 1}}, &answer)
	if want := `PATCH /api/v1/pools/a%20b/backends/unix:/x%3Fy q=1+2 application/json Bearer secret {"n":1}`; err != nil || answer.Got != want {
		t.Errorf("%v: %s, want %s", err, answer.Got, want)
	}
	if err := c.Get(context.Background(), "/x", nil, &answer); err != nil || answer.Got != "GET /x   Bearer secret " {
		t.Errorf("%v: %q", err, answer.Got)
	}
}

func TestRefusals(t *testing.T) {
	c := serve(t, Options{User: "ops", Password: "pw"}, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "ops" || password != "pw" {
			t.Errorf("credentials: %q, %q", user, password)
		}
		switch r.URL.Path {
		case "/mistakes":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(422)
			fmt.Fprint(w, `{"title":"Unprocessable","status":422,"detail":"it has mistakes","errors":[{"file":"a.toml","line":3,"message":"a.toml:3: x\u001b[2J"}]}`)
		case "/wait":
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "6")
			w.WriteHeader(429)
			fmt.Fprint(w, `{"detail":"too many"}`)
		case "/elsewhere":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/html":
			w.WriteHeader(404)
		case "/text":
			fmt.Fprint(w, "hello")
		}
	})
	var p *Problem
	err := c.Get(context.Background(), "/mistakes", nil, nil)
	if !errors.As(err, &p) || p.IsDenied() || p.Error() != "a.toml:3: x?[2J\nit has mistakes" {
		t.Errorf("%v", err)
	}
	err = c.Get(context.Background(), "/wait", nil, nil)
	if !errors.As(err, &p) || !p.IsDenied() || p.Error() != "too many (after 6 s)" {
		t.Errorf("%v", err)
	}
	var u *Unreachable
	for path, want := range map[string]string{"/elsewhere": "302 Found", "/html": "404 Not Found", "/text": "invalid character"} {
		var v struct{}
		if err := c.Get(context.Background(), path, nil, &v); !errors.As(err, &u) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "not the admin") {
			t.Errorf("%s: %v; want %s", path, err, want)
		}
	}
	refused := newClient(t, Options{Address: lbtest.Refused(t)})
	if err := refused.Get(context.Background(), "/", nil, nil); !errors.As(err, &u) || strings.Contains(err.Error(), "Get ") {
		t.Errorf("%v", err)
	}
}

// TestTLS: the client shows its certificate, and trusts whom it is told to.
func TestTLS(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	authority, _ := ca.Authority()
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"certificates": %d}`, len(r.TLS.VerifiedChains))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	trusted, own := lbtest.Files(t, "ca.pem", pemOf(authority)), lbtest.Files(t, "own.pem", cert, key)
	var answer struct{ Certificates int }
	c := newClient(t, Options{Address: s.Listener.Addr().String(), TLS: true, CA: trusted, Cert: own})
	if err := c.Get(context.Background(), "/", nil, &answer); err != nil || answer.Certificates != 1 {
		t.Errorf("%v, %d", err, answer.Certificates)
	}
	var u *Unreachable
	c = newClient(t, Options{Address: s.URL, Cert: own})
	if err := c.Get(context.Background(), "/", nil, &answer); !errors.As(err, &u) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a stranger's certificate: %v", err)
	}
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ok": true}`) })}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	var answer struct{ OK bool }
	if err := newClient(t, Options{Address: "unix:" + path}).Get(context.Background(), "/", nil, &answer); err != nil || !answer.OK {
		t.Error(err, answer)
	}
}

func TestWatch(t *testing.T) {
	c := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("pools") != "*" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		fmt.Fprint(w, "event: sample\ndata: {\"version\": 3}\n\nevent: later\ndata: x\n\nevent: change\ndata: {\"events\": [{\"pool\": \"p\"}]}\n\n")
	})
	version, events := uint64(0), []Event(nil)
	err := c.Watch(context.Background(), "*", Watcher{Sample: func(s *Sample) { version = s.Version }, Change: func(list []Event) { events = list }})
	if version != 3 || len(events) != 1 || events[0].Pool != "p" || err == nil || !strings.Contains(err.Error(), "the stream has ended") {
		t.Errorf("version %d, events %v, %v", version, events, err)
	}
}

// TestWatchSilence: a stream that says nothing any more is given up, and so is one whose reader is told to stop.
func TestWatchSilence(t *testing.T) {
	gone := make(chan struct{})
	c := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "event: sample\ndata: {}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	})
	c.silence = 50 * time.Millisecond
	if err := c.Watch(context.Background(), "", Watcher{}); err == nil || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Error(err)
	}
	<-gone
	c.silence = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	if err := c.Watch(ctx, "", Watcher{Sample: func(*Sample) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-gone
}

func TestReadEvents(t *testing.T) {
	var got []string
	err := readEvents(strings.NewReader(": comment\nevent: a\ndata: 1\ndata:2\n\nid: 7\n\ndata\r\n\r\nevent: cut\ndata: x\n"), func(name string, data []byte) error {
		got = append(got, name+"="+string(data))
		return nil
	})
	if want := []string{"a=1\n2", "="}; err == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	stop := errors.New("stop")
	if err := readEvents(strings.NewReader("data: 1\n\ndata: 2\n\n"), func(string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("event: sample\ndata: {}\n\n")
	f.Add(":\ndata\ndata:\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		size := 0
		err := readEvents(strings.NewReader(text), func(_ string, data []byte) error {
			size += len(data)
			return nil
		})
		if err == nil || size > len(text) {
			t.Errorf("%v, %d bytes of data in %d", err, size, len(text))
		}
	})
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
