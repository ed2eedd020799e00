package discovery

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

var allowLoopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newHTTP(t *testing.T, o HTTPOptions) Source {
	t.Helper()
	o.Allow = append(o.Allow, allowLoopback...)
	s, err := NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serveHTTP(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	sv := httptest.NewServer(h)
	t.Cleanup(sv.Close)
	return sv
}

func TestHTTP(t *testing.T) {
	lbtest.CheckLeaks(t)
	body, kind := "10.0.0.1:80 weight=5", "text/plain; charset=utf-8"
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write([]byte(body))
	})
	s := newHTTP(t, HTTPOptions{URL: sv.URL + "/list"})
	fetch(t, s, "10.0.0.1:80 5/0/0")
	kind = "application/vnd.list+json"
	body = `{"hosts":[{"addr":{"host":"10.0.0.1","port":80},"weight":5,"priority":2}]}`
	fetch(t, s, "10.0.0.1:80 5/2/0")
	body = `[{"host":"10.0.0.1","port":"80"}]`
	fetch(t, s, "10.0.0.1:80 1/0/0")
	body = `[]`
	fetch(t, s, "")
	body, kind = "<html>sign in</html>", "text/html"
	fetchFails(t, s, ReasonDecode, "http:"+sv.URL+"/list: text: line 1")
}

func TestHTTPStatusAndSize(t *testing.T) {
	lbtest.CheckLeaks(t)
	var status atomic.Int64
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		for range 2 << 10 {
			if _, err := w.Write([]byte(strings.Repeat("10.0.0.1:80 ##\n", 200))); err != nil {
				return
			}
		}
	})
	s := newHTTP(t, HTTPOptions{URL: sv.URL})
	for _, c := range []int{201, 400, 401, 404, 500, 503} {
		status.Store(int64(c))
		fetchFails(t, s, ReasonStatus, fmt.Sprintf("status %d", c))
	}
	status.Store(200)
	fetchFails(t, s, ReasonTooLarge, "more than 4194304 bytes")
	status.Store(304) // not asked for
	fetchFails(t, s, ReasonStatus, "status 304")
}

func TestHTTPETag(t *testing.T) {
	lbtest.CheckLeaks(t)
	body, tag, full := "10.0.0.1:80", `"a"`, 0
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		full++
		_, _ = w.Write([]byte(body))
	})
	s := newHTTP(t, HTTPOptions{URL: sv.URL, Headers: map[string]string{"If-None-Match": `"a"`}})
	for range 3 {
		fetch(t, s, "10.0.0.1:80 1/0/0")
	}
	body, tag = "nonsense", `"b"`
	fetchFails(t, s, ReasonDecode, "line 1")
	fetchFails(t, s, ReasonDecode, "line 1") // a body that was no list is not remembered
	body, tag = "10.0.0.2:80", `"c"`
	fetch(t, s, "10.0.0.2:80 1/0/0")
	fetch(t, s, "10.0.0.2:80 1/0/0")
	if full != 4 {
		t.Errorf("%d whole answers", full)
	}
}

// TestHTTPSecrets: they arrive, and they are told nobody else.
func TestHTTPSecrets(t *testing.T) {
	lbtest.CheckLeaks(t)
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "s3cret-file\n")
	var got string
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization") + " " + r.Header.Get("X-Key") + " " + r.URL.RawQuery + " " + r.Host
		http.Error(w, got, http.StatusForbidden)
	})
	for _, c := range []struct {
		o    HTTPOptions
		want string
	}{
		{HTTPOptions{URL: sv.URL, User: "me", Password: Secret{Value: "s3cret"}}, "Basic bWU6czNjcmV0 "},
		{HTTPOptions{URL: sv.URL, Bearer: Secret{File: token}}, "Bearer s3cret-file "},
		{HTTPOptions{URL: sv.URL + "/?token=s3cret", Headers: map[string]string{"X-Key": "s3cret-key", "host": "a.test"}}, " s3cret-key token=s3cret a.test"},
	} {
		s := newHTTP(t, c.o)
		_, err := s.Fetch(t.Context())
		if !strings.Contains(got, c.want) {
			t.Errorf("got %s; want %s", got, c.want)
		}
		down, cancel := context.WithCancel(t.Context())
		cancel()
		_, err2 := s.Fetch(down)
		for _, s := range []string{err.Error(), err2.Error(), s.String(), fmt.Sprintf("%v %+v %#v", c.o.Password, c.o.Bearer, c.o.Bearer)} {
			if strings.Contains(s, "s3cret") || strings.Contains(s, "bWU6czNjcmV0") {
				t.Errorf("tells a secret: %s", s)
			}
		}
	}
	a, b := newHTTP(t, HTTPOptions{URL: sv.URL + "?service=a"}), newHTTP(t, HTTPOptions{URL: sv.URL + "?service=b"})
	if a.String() == b.String() {
		t.Errorf("%s is the name of both", a)
	}

	// A token that is replaced is used, and one that is missing is an error.
	s := newHTTP(t, HTTPOptions{URL: sv.URL, Bearer: Secret{File: token}})
	write(t, token, "next")
	_, _ = s.Fetch(t.Context())
	if !strings.HasPrefix(got, "Bearer next ") {
		t.Error(got)
	}
	write(t, token, "two\nlines")
	fetchFails(t, s, ReasonOther, "want a secret of one line")
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	fetchFails(t, s, ReasonOther, "no such file")
}

func TestHTTPRedirects(t *testing.T) {
	lbtest.CheckLeaks(t)
	asked := false
	other := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { asked = true })
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/list", http.StatusFound)
		case "/list":
			_, _ = w.Write([]byte("10.0.0.1:80"))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/other":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}
	})
	fetch(t, newHTTP(t, HTTPOptions{URL: sv.URL + "/same"}), "10.0.0.1:80 1/0/0")
	fetchFails(t, newHTTP(t, HTTPOptions{URL: sv.URL + "/loop"}), ReasonRefused, "more than 5 redirects")
	for _, p := range []string{"/other", "/metadata", "/file"} {
		fetchFails(t, newHTTP(t, HTTPOptions{URL: sv.URL + p}), ReasonRefused, "not the same origin")
	}
	if asked {
		t.Error("the other server was asked")
	}
}

// TestHTTPForbidden: this machine and metadata services are refused when it comes to connecting, by whatever name.
func TestHTTPForbidden(t *testing.T) {
	lbtest.CheckLeaks(t)
	asked := false
	sv := serveHTTP(t, func(http.ResponseWriter, *http.Request) { asked = true })
	_, port, _ := net.SplitHostPort(sv.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1.2.3", "[::]", "169.254.169.254"} {
		s, err := NewHTTP(HTTPOptions{URL: "http://" + host + ":" + port})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := s.Fetch(ctx); ReasonOf(err) != ReasonRefused || !strings.Contains(err.Error(), "is refused") {
			t.Errorf("%s: %v", host, err)
		}
		cancel()
	}
	if asked {
		t.Error("was asked")
	}
	for ip, bad := range map[string]bool{
		"10.0.0.1": false, "192.168.1.1": false, "2001:db8::1": false, "fd00::1": false, "8.8.8.8": false,
		"127.0.0.1": true, "::1": true, "169.254.0.1": true, "fe80::1": true, "fd00:ec2::254": true, "100.100.100.200": true,
		"168.63.129.16": true, "::ffff:169.254.169.254": true, "64:ff9b::a9fe:a9fe": true, "::127.0.0.1": true, "0.1.2.3": true, "224.0.0.1": true,
		"fd00:ec2::23": true, "fd20:ce::254": true, "fd00:c1::a9fe:a9fe": true, "fd00:42::42": true, "fd00:a9fe:a9fe::1": true,
		"fd00:100::100:200": true, "192.0.0.192": true, "2002:a9fe:a9fe::1": true, "2002:7f00:1::": true, "64:ff9b:1::7f00:1": true,
		"2002:a00:1::1": false, "fd20:ce::1": false,
	} {
		if got := forbidden(netip.MustParseAddr(ip)); (got != "") != bad {
			t.Errorf("%s: %q", ip, got)
		}
	}
}

// TestHTTPForbidsThisMachine: an address of an interface leads to what listens on all of them as loopback does. Whoever is
// allowed to ask this machine may ask it there too.
func TestHTTPForbidsThisMachine(t *testing.T) {
	lbtest.CheckLeaks(t)
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.IsGlobalUnicast() })
	if i < 0 {
		t.Skip("only loopback here")
	}
	own := all[i].(*net.IPNet).IP.String()
	l, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		t.Fatal(err)
	}
	sv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("10.0.0.1:80\n")) })}}
	sv.Start()
	defer sv.Close()
	s, err := NewHTTP(HTTPOptions{URL: sv.URL})
	if err != nil {
		t.Fatal(err)
	}
	fetchFails(t, s, ReasonRefused, own+" is refused: it is an address of this machine")
	for _, allow := range []string{own + "/128", own + "/32", "127.0.0.0/8", "::1/128"} {
		p, err := netip.ParsePrefix(allow)
		if err != nil {
			continue // of the other family
		}
		if s, err = NewHTTP(HTTPOptions{URL: sv.URL, Allow: []netip.Prefix{p}}); err != nil {
			t.Fatal(err)
		}
		fetch(t, s, "10.0.0.1:80 1/0/0")
	}
}

// TestHTTPCutWithoutLength: where only the end of the connection ends a body, a text that ends within a line was cut, and what
// looks like an address may be half of one.
func TestHTTPCutWithoutLength(t *testing.T) {
	lbtest.CheckLeaks(t)
	said := "10.0.0.1:80\n10.0.0.2:80"
	at := "http://" + lbtest.Serve(t, func(c *net.TCPConn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n"+said)
		}
	})
	fetchFails(t, newHTTP(t, HTTPOptions{URL: at}), ReasonDecode, "the text ends within a line")
	said += "80\n"
	fetch(t, newHTTP(t, HTTPOptions{URL: at}), "10.0.0.1:80 1/0/0, 10.0.0.2:8080 1/0/0")
	said = `["10.0.0.1:80"]`
	fetch(t, newHTTP(t, HTTPOptions{URL: at, Decoding: Decoding{Format: JSON}}), "10.0.0.1:80 1/0/0")
}

func TestHTTPTooSlow(t *testing.T) {
	lbtest.CheckLeaks(t)
	release := make(chan struct{})
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("10.0.0.1:80\n"))
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := newHTTP(t, HTTPOptions{URL: sv.URL}).Fetch(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestHTTPCut: half a body is no list, though each of its lines is one.
func TestHTTPCut(t *testing.T) {
	lbtest.CheckLeaks(t)
	sv := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("10.0.0.1:80\n"))
	})
	fetchFails(t, newHTTP(t, HTTPOptions{URL: sv.URL}), ReasonOther, "unexpected EOF")
}

func TestHTTPS(t *testing.T) {
	lbtest.CheckLeaks(t)
	sv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("10.0.0.1:80")) }))
	defer sv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sv.Certificate().Raw})))
	fetch(t, newHTTP(t, HTTPOptions{URL: sv.URL, TLS: HTTPTLS{CA: ca}}), "10.0.0.1:80 1/0/0")
	fetch(t, newHTTP(t, HTTPOptions{URL: sv.URL, TLS: HTTPTLS{CA: ca, ServerName: "example.com"}}), "10.0.0.1:80 1/0/0")
	fetch(t, newHTTP(t, HTTPOptions{URL: sv.URL, TLS: HTTPTLS{Insecure: true}}), "10.0.0.1:80 1/0/0")
	fetchFails(t, newHTTP(t, HTTPOptions{URL: sv.URL}), ReasonOther, "unknown authority")
	fetchFails(t, newHTTP(t, HTTPOptions{URL: sv.URL, TLS: HTTPTLS{CA: ca, ServerName: "else.test"}}), ReasonOther, "else.test")
}

func TestHTTPOptionsAreChecked(t *testing.T) {
	for _, o := range []HTTPOptions{
		{}, {URL: "file:///etc/passwd"}, {URL: "http://"}, {URL: "http://me:s3cret@a.test"}, {URL: "http://a.test:s3cret"},
		{URL: "http://a.test", User: "a", Bearer: Secret{Value: "s3cret"}}, {URL: "http://a.test", Password: Secret{Value: "s3cret"}},
		{URL: "http://a.test", Headers: map[string]string{"A": "s3cret\r\nB: c"}}, {URL: "http://a.test", TLS: HTTPTLS{Cert: "a"}},
		{URL: "http://a.test", TLS: HTTPTLS{CA: "/dev/null"}}, {URL: "http://a.test", MaxBytes: -1},
	} {
		if _, err := NewHTTP(o); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", o.URL, err)
		}
	}
}
