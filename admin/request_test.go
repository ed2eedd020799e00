package admin

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/confstore"
	"awe4lb/internal/lbtest"
)

// FuzzRequest writes bytes to the admin's socket and then no more. Of every answer to them it wants what every answer has, and that
// a browser cannot take it for a page of ours; afterwards what runs, what is stored and what was ordered must be as before, unless
// the credentials in the bytes may change it and the audit log says so; and the next client must be served.
//
// In the bytes TOKEN stands for the token of a role, and PASSWORD for the credentials of a user of it.
func FuzzRequest(f *testing.F) {
	for _, seed := range attacks() {
		f.Add(byte(nobody), []byte(seed))
		if strings.Contains(seed, "TOKEN") || strings.Contains(seed, "PASSWORD") {
			f.Add(byte(reader), []byte(seed))
			f.Add(byte(configurer), []byte(seed))
		}
	}
	a := newAttacked(f)
	f.Fuzz(func(t *testing.T, as byte, sent []byte) {
		role := role(as % 4)
		sent = bytes.ReplaceAll(sent, []byte("TOKEN"), []byte(role.String()+secretOf))
		sent = bytes.ReplaceAll(sent, []byte("PASSWORD"), []byte(base64.StdEncoding.EncodeToString([]byte(role.String()+":"+role.String()+secretOf))))
		a.forgive()
		before := a.look(t)
		a.exchange(t, sent)
		a.stands(t, before, mostIn(sent))
	})
}

// attacks are the requests that a fuzzer begins with: each call of the API in its right form, and what clients do that mean harm.
func attacks() []string {
	const ours = "Host: localhost\r\nAuthorization: Bearer TOKEN\r\n"
	bodies := map[string]string{
		"/api/v1/login":                   `{"name": "read", "password": "read` + secretOf + `"}`,
		"/api/v1/log":                     `{"level": "debug"}`,
		"/api/v1/sessions/kill":           `{"all": true, "dry_run": true}`,
		"/api/v1/configs/main/rollback":   `{"version": 1}`,
		"/api/v1/pools/p/backends":        `{"address": "127.0.0.1:8"}`,
		"/api/v1/pools/p/backends/x:1":    `{"state": "drain", "weight": 3}`,
		"/api/v1/pools/p":                 `{"backends": [{"address": "127.0.0.1:7"}]}`,
		"/api/v1/frontends/main":          `{"bind": ["127.0.0.1:0"], "pool": "p"}`,
		"/api/v1/configs/main":            `{"pools": {"p": {"backends": []}}}`,
		"/api/v1/configs/main/validate":   `{"pools": {"p": {"backends": [{"address": 1}]}}}`,
		"/servers/main":                   `{"bind": "127.0.0.1:0", "discovery": {"kind": "static", "static_list": ["127.0.0.1:9"]}}`,
		"/api/v1/health/p/backends/x:1/x": `{}`,
	}
	all := []string{}
	for _, e := range append(endpoints(), gobetweenEndpoints()...) {
		path := pathParameter.ReplaceAllStringFunc(e.path, func(p string) string {
			return map[string]string{"{pool}": "p", "{address:*}": "x:1", "{version}": "1", "{id}": "1-1-1", "{client}": "10.0.0.1"}[p]
		})
		path = strings.ReplaceAll(path, "//", "/main/")
		if strings.HasSuffix(path, "/") {
			path += "main"
		}
		body := ""
		if e.body != nil {
			if body = bodies[path]; body == "" {
				body = "{}"
			}
			body = "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
		} else {
			body = "\r\n"
		}
		all = append(all, e.method+" "+path+" HTTP/1.1\r\n"+ours+body)
	}
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\n" + ours + "\r\n" }
	reload := "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n"
	draft := "pools.p = 'x'\n"
	put := "PUT /api/v1/configs/a HTTP/1.1\r\n" + ours + "Content-Type: application/toml\r\n"
	for _, path := range []string{"/", "/healthz", "/metrics", "/metrics?view=haproxy", "/assets/", "/assets/../../etc/passwd", "/assets/%2e%2e/%2e%2e/etc/passwd",
		"/assets/..%2f..%2fetc%2fpasswd", "/assets/..%5c..%5cx", "/assets/%00", "//", "/%", "/%zz", "/api/v1/configs/..", "/api/v1/configs/%2e%2e", "/api/v1/configs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
		"/api/v1/configs/....//....//etc/passwd", "/api/v1/configs/main%00.toml", "/api/v1/configs/main/history/..%2f..%2fmain", "/api/v1/configs/main/history/-1",
		"/api/v1/configs/main/history/99999999999999999999", "/api/v1/configs/<script>alert(1)</script>", "/<script>alert(1)</script>", "/api/v1/configs/a%0d%0aX-Evil:%201",
		"/x%0d%0aSet-Cookie:%20a=b", "/api/v1/sessions?sort=age&limit=1000&offset=9223372036854775807", "/api/v1/sessions?cursor=zzz", "/api/v1/sessions?client=1.2.3.4/99",
		"/api/v1/sessions?<script>=1", "/api/v1/stream?pools=*", "/api/v1/pools/p/backends/..%2f..", "/api/v1/persistence/d?limit=0", "/api/v1/config?format=<b>",
		"http://localhost/healthz", "http://evil.example/api/v1/status", "http://user:pass@localhost/api/v1/me", "https://[::1]:7070/", "*", "localhost:80", "/api/v1/me#x", "?", "/api/v1/me;x=y"} {
		all = append(all, get(path))
	}
	return append(all,
		"HEAD /api/v1/stream HTTP/1.1\r\n"+ours+"\r\n"+get("/healthz"),
		"HEAD / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "OPTIONS /api/v1/me HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
		"TRACE / HTTP/1.1\r\nHost: localhost\r\nCookie: secret=1\r\n\r\n", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		get("/healthz")+get("/api/v1/me")+get("/metrics")+reload+"\r\n"+get("/"), // pipelined
		"GET /healthz HTTP/1.0\r\n\r\n", "GET /healthz\r\n\r\n", "GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n", "\r\n\r\n"+get("/healthz"), "GET  /healthz  HTTP/1.1\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET /healthz HTTP/1.1\nHost: localhost\n\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n: \r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 10_000)+"\r\n\r\n", "GET /"+strings.Repeat("a", 10_000)+" HTTP/1.1\r\nHost: localhost\r\n\r\n",
		reload+"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd"+get("/api/v1/me"), reload+"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+get("/api/v1/me"),
		reload+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", reload+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", reload+"Content-Length: -1\r\n\r\n",
		reload+"Content-Length: +4\r\n\r\nabcd", reload+"Content-Length: 99999999999999999999\r\n\r\n", reload+"Content-Length: 2000000\r\n\r\nx", reload+"Content-Length: 10\r\n\r\nx",
		reload+"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd", reload+"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\nabcd", reload+"Expect: x\r\n\r\n",
		reload+"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", reload+"Connection: close, Host, Authorization\r\n\r\n", reload+"Origin: null\r\n\r\n", reload+"Sec-Fetch-Site: cross-site\r\n\r\n",
		reload+"Cookie: awe4lb_login=x; awe4lb_login=y\r\n\r\n", reload+"Authorization: Basic PASSWORD\r\n\r\n", reload+"Authorization: Basic !!!\r\n\r\n", reload+"Authorization: x\r\n\r\n",
		reload+"Authorization: Bearer TOKEN\r\nAuthorization: Bearer x\r\n\r\n", reload+"Authorization: Bearer TOKEN\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		reload+"Authorization: Bearer TOKEN\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
		"POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 8\r\n\r\n--x\r\n\r\n\r\n",
		put+"Content-Length: "+strconv.Itoa(len(draft))+"\r\n\r\n"+draft+get("/api/v1/configs/a?format=json"),
		put+"Transfer-Encoding: chunked\r\n\r\n"+strconv.FormatInt(int64(len(draft)), 16)+";x=y\r\n"+draft+"\r\n0\r\nX-Trailer: 1\r\n\r\n",
		strings.Replace(put, "/a ", "/..%2f..%2fx ", 1)+"Content-Length: 0\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00", "",
	)
}

// mostIn returns the highest role whose credentials are in what was sent.
func mostIn(sent []byte) role {
	for r := configurer; r > nobody; r-- {
		// The names of the users are in the corpus of the fuzzer, so that it may spell a password by itself.
		if bytes.Contains(sent, []byte(r.String()+secretOf)) || bytes.Contains(sent, []byte("Basic")) || bytes.Contains(sent, []byte("basic")) {
			return r
		}
	}
	return nobody
}

// attacked is an admin that strangers write to.
type attacked struct {
	*guarded
	dir     string // of the configurations
	reloads int
	pages   map[string][]string // by content type, what the page's files are, also gzipped
}

func newAttacked(t testing.TB) *attacked {
	a := &attacked{guarded: newGuarded(t, func(c *config.Admin) { c.Compat = "gobetween" }), pages: map[string][]string{}}
	a.dir = filepath.Dir(a.configs.store.Dir())
	a.reload = func() (*balancer.Report, error) {
		a.reloads++
		return new(balancer.Report), nil
	}
	for _, f := range readPage() {
		a.pages[f.kind] = append(a.pages[f.kind], string(f.body))
		if f.gzipped != nil {
			a.pages[f.kind] = append(a.pages[f.kind], string(f.gzipped()))
		}
	}
	return a
}

// forgive has nobody wait for what was guessed before.
func (a *attacked) forgive() {
	a.s.guesses.mu.Lock()
	defer a.s.guesses.mu.Unlock()
	clear(a.s.guesses.debt)
}

// footprint is whatever a call can change.
type footprint struct {
	version                uint64
	running, files, orders string
	level                  int32
	ended                  bool
	reloads                int
	done                   int // calls in the audit log that were answered well
}

func (a *attacked) look(t *testing.T) footprint {
	t.Helper()
	now, snap := a.configs.Running(), a.d.Snapshot()
	f := footprint{version: snap.Version, running: fmt.Sprint(now.Name, now.Stopped, string(now.Text)), level: a.level.Load(), ended: a.ended.Load(), reloads: a.reloads}
	for _, p := range snap.Pools {
		for _, b := range p.Members {
			f.orders += fmt.Sprint(p.Config.Name, " ", b.Name, " ", b.State(), " ", b.Weight(), "\n")
		}
	}
	err := filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		f.files += path + "\n" + string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range a.s.audits.newest() {
		if e.Status < 300 {
			f.done = max(f.done, e.number)
		}
	}
	return f
}

// exchange sends bytes and no more, and reads the answers until the connection ends.
func (a *attacked) exchange(t *testing.T, sent []byte) {
	t.Helper()
	c, err := net.Dial("tcp", a.s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // a stream notices at its next write
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { // they may be refused before the last of them
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	a.answersFit(t, bufio.NewReader(c))
}

// answer is one of the admin's.
type answer struct {
	status int
	header textproto.MIMEHeader
	body   []byte
}

// next reads an answer. io.EOF is the end.
func next(in *bufio.Reader) (*answer, error) {
	text := textproto.NewReader(in)
	line, err := text.ReadLine()
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok || len(rest) < 4 || rest[3] != ' ' {
		return nil, fmt.Errorf("not a status line: %q", line)
	}
	a := new(answer)
	if a.status, err = strconv.Atoi(rest[:3]); err != nil {
		return nil, err
	}
	if a.header, err = text.ReadMIMEHeader(); err != nil || a.status == 100 {
		return a, err
	}
	if a.header.Get("Transfer-Encoding") != "" {
		if a.header.Get("Content-Type") != "text/event-stream" {
			return a, errors.New("chunks in an answer that is no stream")
		}
		return a, nil
	}
	if a.status == 204 || a.status == 304 {
		return a, nil
	}
	length, err := strconv.Atoi(a.header.Get("Content-Length"))
	if err != nil {
		return a, err
	}
	if start, err := in.Peek(9); length > 0 && (len(start) == 0 && err == io.EOF || string(start) == "HTTP/1.1 ") {
		return a, nil // to HEAD
	}
	a.body = make([]byte, length)
	_, err = io.ReadFull(in, a.body)
	return a, err
}

// isStream reports whether the answer never ends.
func (a *answer) isStream() bool { return a.header.Get("Content-Type") == "text/event-stream" }

// answersFit reads all answers.
func (a *attacked) answersFit(t *testing.T, in *bufio.Reader) {
	t.Helper()
	for {
		got, err := next(in)
		var reset *net.OpError
		switch {
		case err == io.EOF, errors.As(err, &reset) && !reset.Timeout():
			return
		case err != nil:
			t.Fatalf("%v in %+v", err, got)
		}
		if a.fits(t, got); got.isStream() {
			return
		}
	}
}

// mayHave are the headers that answers have.
var mayHave = []string{"Allow", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Security-Policy", "Content-Type", "Cross-Origin-Resource-Policy",
	"Date", "Etag", "Referrer-Policy", "Retry-After", "Server", "Set-Cookie", "Transfer-Encoding", "Vary", "Www-Authenticate", "X-Accel-Buffering", "X-Content-Type-Options", "X-Frame-Options"}

// fits makes sure of what every answer has.
func (a *attacked) fits(t *testing.T, got *answer) {
	t.Helper()
	if got.status == 100 {
		return
	}
	for name, values := range got.header {
		if !slices.Contains(mayHave, name) || len(values) != 1 {
			t.Errorf("%d: header %s: %q", got.status, name, values)
		}
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"} {
		if got.header.Get(name) != want {
			t.Errorf("%d: %s: %q; want %s", got.status, name, got.header.Get(name), want)
		}
	}
	if got.header.Get("Cache-Control") == "" || got.header.Get("Content-Security-Policy") == "" {
		t.Errorf("%d: %v", got.status, got.header)
	}
	kind, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
	switch kind {
	case "application/json", "application/problem+json", "application/toml", "text/plain", "text/event-stream", "application/openmetrics-text":
	case "":
		if got.status != 204 && got.status != 304 {
			t.Errorf("%d: no Content-Type", got.status)
		}
	default: // that a browser shows
		if got.body != nil && !slices.Contains(a.pages[got.header.Get("Content-Type")], string(got.body)) {
			t.Errorf("%d %s: %q", got.status, kind, cutText(string(got.body), 200))
		}
	}
	full := got.status == 503 && bytes.Contains(got.body, []byte("streams are open"))
	if got.status >= 500 && got.status != 501 && !full {
		t.Errorf("%d: %s", got.status, got.body)
	}
	if got.status >= 400 && len(got.body) > 0 && kind != "application/problem+json" && !(kind == "application/json" && got.body[0] == '"') { // which are gobetween's
		t.Errorf("%d %s: %q", got.status, kind, got.body)
	}
	if p := new(problem); kind == "application/problem+json" && got.body != nil {
		if err := json.Unmarshal(got.body, p); err != nil || p.Status != got.status || p.Title == "" || p.Detail == "" {
			t.Errorf("%d: %v in %q", got.status, err, got.body)
		}
	}
}

// stands makes sure that nothing has changed that the role may not change, and that the next client is served.
func (a *attacked) stands(t *testing.T, before footprint, most role) {
	t.Helper()
	after := a.look(t)
	was, is := before, after
	was.done, is.done = 0, 0
	switch most {
	case configurer:
		cfg, err := config.Parse("running", a.configs.Running().Text)
		if err != nil {
			t.Fatalf("what runs would not start: %v", err)
		}
		if n := len(a.d.Snapshot().Frontends); n != len(cfg.Frontends) && !a.configs.Running().Stopped {
			t.Errorf("%d frontends run; want %d", n, len(cfg.Frontends))
		}
		if main, err := a.configs.store.Read(confstore.Main); err != nil {
			t.Error(err)
		} else if _, err := config.Parse("main", main.Text); err != nil {
			t.Errorf("main would not start: %v", err)
		}
	case operator:
		was.orders, was.level, was.ended, was.reloads = is.orders, is.level, is.ended, is.reloads
		fallthrough
	default:
		if was != is {
			t.Errorf("as %s:\n%+v\nbecame\n%+v", most, before, after)
		}
	}
	before.done, is = after.done, after
	if before != is && was.done == after.done {
		t.Errorf("a change that nobody is told of:\n%+v\nbecame\n%+v", before, after)
	}
	res, err := http.Get(a.url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(text) != "ok\n" {
		t.Errorf("the next client: %d %q %v", res.StatusCode, text, err)
	}
	lbtest.Eventually(t, "streams end with their clients", func() bool { return a.s.streams.count() == 0 })
}
