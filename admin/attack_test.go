package admin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"awe4lb/config"
	"awe4lb/internal/confstore"
	"awe4lb/internal/lbtest"
)

// TestUnixSocketIsOursFromTheStart: there is no moment in which others may connect, whatever the umask.
func TestUnixSocketIsOursFromTheStart(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v; want mode 0600", info.Mode(), err)
	}
}

// TestUnknownNamesTakeAsLong: the time does not tell which names there are. What is counted is the cost of the hashes that are
// tried, as time is another each time.
func TestUnknownNamesTakeAsLong(t *testing.T) {
	c := &config.Admin{Anonymous: "none"}
	costs := map[string]int{"ann": 4, "bob": 5, "eve": 6}
	for name, cost := range costs {
		hash, err := bcrypt.GenerateFromPassword([]byte("x"), cost)
		if err != nil {
			t.Fatal(err)
		}
		c.Users = append(c.Users, &config.AdminUser{Name: name, PasswordHash: string(hash), Role: "read"})
	}
	a, err := newAccess(c)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i := range 100 {
		name := fmt.Sprint("nobody", i)
		hash := a.hashFor(name)
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(hash, a.hashFor(name)) {
			t.Fatal("the same name takes another time")
		}
		seen[cost] = true
		if who, ok := a.basic(name, "x"); ok {
			t.Errorf("%s is %v with somebody's password", name, who)
		}
		if who, ok := a.basicAgain(name, "x"); ok {
			t.Errorf("%s is %v with somebody's password", name, who)
		}
	}
	if len(seen) != len(costs) {
		t.Errorf("costs %v; want those of users", seen)
	}
	if who, ok := a.basic("ann", "x"); !ok || who.name != "ann" {
		t.Error("ann is refused")
	}
	if a, err := newAccess(&config.Admin{}); err != nil {
		t.Error(err)
	} else if _, ok := a.basic("ann", ""); ok {
		t.Error("there are no users")
	}
}

// TestLoginsOfOneUser: nobody ends the logins of others by logging in.
func TestLoginsOfOneUser(t *testing.T) {
	var l logins
	now := time.Unix(1e9, 0)
	cookie := l.begin(identity{name: "ann", role: operator}, now)
	for range 2 * maxLogins {
		now = now.Add(time.Second)
		l.begin(identity{name: "bob", role: reader}, now)
	}
	if _, ok := l.who(cookie, now); !ok {
		t.Error("the login of another has ended")
	}
	if n := len(l.alive); n != 1+maxOwnLogins {
		t.Errorf("%d logins; want %d", n, 1+maxOwnLogins)
	}
	for i := range 2 * maxLogins {
		l.begin(identity{name: fmt.Sprint("user", i), role: reader}, now)
	}
	if n := len(l.alive); n > maxLogins {
		t.Errorf("%d logins; want at most %d", n, maxLogins)
	}
}

// TestLoginEndsTheOneBefore: a cookie that somebody has brought is worth nothing after a login.
func TestLoginEndsTheOneBefore(t *testing.T) {
	g := newGuarded(t, nil)
	login := func(with func(*http.Request)) *http.Cookie {
		t.Helper()
		res, text := g.send("POST", "/api/v1/login", `{"name": "read", "password": "read`+secretOf+`"}`, with)
		if res.StatusCode != 200 || len(res.Cookies()) != 1 {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
		return res.Cookies()[0]
	}
	first := login(nil)
	second := login(func(r *http.Request) { r.AddCookie(first) })
	for cookie, want := range map[*http.Cookie]int{first: 401, second: 200, {Name: cookieName, Value: "planted"}: 401} {
		if res, _ := g.send("GET", "/api/v1/status", "", func(r *http.Request) { r.AddCookie(cookie) }); res.StatusCode != want {
			t.Errorf("%s: %d; want %d", cookie.Value, res.StatusCode, want)
		}
	}
	if third := login(func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookieName, Value: "planted"}) }); third.Value == "planted" {
		t.Error("the cookie is what somebody has brought")
	}
}

// TestGuessersDoNotLockOthersOut: those with thousands of addresses are remembered by larger networks, which others do not share.
func TestGuessersDoNotLockOthersOut(t *testing.T) {
	var th throttle
	now := time.Unix(1e9, 0)
	for i := range 3 * maxGuessers { // a provider gives anybody 65,536 times an IPv6 /64
		th.wrong(netip.AddrFrom16([16]byte{0x2a, 0x01, 0x04, 0xf8, 1, 2, byte(i >> 8), byte(i)}), now)
	}
	if th.wait(netip.MustParseAddr("2a01:4f8:9::1"), now) == 0 {
		t.Error("more of them do not wait")
	}
	for _, other := range []string{"127.0.0.1", "10.0.0.1", "2003::1", "::1", "fd00::1"} {
		if wait := th.wait(netip.MustParseAddr(other), now); wait != 0 {
			t.Errorf("%s waits %v", other, wait)
		}
	}
	if n := len(th.debt); n > maxGuessers+1 {
		t.Errorf("%d are remembered", n)
	}
}

// TestDraftsAreForgotten: what is remembered of texts does not grow with them.
func TestDraftsAreForgotten(t *testing.T) {
	r := newRig(t)
	for i := range 10 * confstore.MaxConfigs {
		r.s.infoOf(&confstore.File{Name: "draft", Text: fmt.Append(nil, "# ", i)})
	}
	if n := len(r.s.judged.mistakes); n > 4*confstore.MaxConfigs {
		t.Errorf("%d texts are remembered", n)
	}
}

// TestLinesCannotBeForged: what a client writes is one line of the log and one call of the audit.
func TestLinesCannotBeForged(t *testing.T) {
	var lines lockedBuffer
	g := newGuarded(t, nil)
	g.s.o.Log = slog.New(slog.NewTextHandler(&lines, nil))
	forged := `%0atime=2026-01-01%20level=INFO%20msg="admin:%20POST"%20who=cookie:ops%1b[2J%e2%80%a8`
	g.send("PUT", "/api/v1/configs/a"+forged, "{}", bearer("configure"+secretOf))
	g.send("POST", "/api/v1/login", `{"name": "x\nwho=cookie:ops", "password": "\n"}`, nil)
	text := lines.String()
	if strings.Count(text, "\n") != 2 || strings.ContainsAny(text, "\x1b\u2028") || strings.Count(text, " who=cookie:ops") > 1 {
		t.Errorf("got %q", text)
	}
	_, body := g.send("GET", "/api/v1/audit", "", bearer("configure"+secretOf))
	var log auditLog
	if err := json.Unmarshal([]byte(body), &log); err != nil || len(log.Calls) != 2 || log.Calls[1].Who != "bearer:configure" || log.Calls[0].Who != "anonymous" {
		t.Errorf("%v in %s", err, body)
	}
}

// TestSmuggling: where two readers could disagree on where a request ends, nobody answers it, and the connection ends.
func TestSmuggling(t *testing.T) {
	g := newGuarded(t, nil)
	g.reload = g.nothingChanges
	const post, hidden = "POST /api/v1/logout HTTP/1.1\r\nHost: localhost\r\n", "GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for _, head := range []string{
		"Content-Length: 0\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
		"Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding: identity, chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding : chunked\r\n", "Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n",
		"Content-Length: +0\r\n", "Content-Length: 0x0\r\n", "Content-Length: 0, 0\r\n", "Content-Length: -0\r\n", "Content-Length: 0\r\n Transfer-Encoding: chunked\r\n", "X: a\rContent-Length: 5\r\n", "Content-Length: \r\n",
	} {
		c, err := net.Dial("tcp", g.s.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(readTimeout / 2))
		fmt.Fprint(c, post+head+"\r\n"+"0\r\n\r\n"+hidden)
		_ = c.(*net.TCPConn).CloseWrite()
		var all bytes.Buffer
		_, _ = all.ReadFrom(c)
		if got := all.String(); strings.Contains(got, "HTTP/1.1 200") || strings.Contains(got, "HTTP/1.1 204") {
			t.Errorf("%q: %s", head, got)
		}
	}
}

// TestRevokedCertificates: who was let in by a certificate that another client_ca has not signed is out with its next request, though
// the connection goes on.
func TestRevokedCertificates(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text ...[]byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", bytes.Join(text, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, clients := lbtest.NewCA(t), lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	g := newGuarded(t, func(c *config.Admin) {
		c.TLS = &config.AdminTLS{Cert: write("a.pem", cert, key), ClientCA: write("ca.pem", clients.PEM), ClientRole: "operate"}
	})
	dials := 0
	g.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{clients.Pair("client")}},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}
	if res, text := g.send("GET", "/api/v1/status", "", nil); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	write("ca.pem", lbtest.NewCA(t).PEM)
	lbtest.Eventually(t, "the certificate is worth nothing", func() bool {
		res, _ := g.send("GET", "/api/v1/status", "", nil)
		return res.StatusCode == 401
	})
	if dials != 1 {
		t.Errorf("%d connections; want the same", dials)
	}
}

// TestLoginsInTheQueue: those who wait for their password to be hashed are so many and no more, and of one address fewer: the others
// are told at once, and a login from elsewhere has its turn. Whose connection has given way meanwhile is not hashed for.
func TestLoginsInTheQueue(t *testing.T) {
	g := newGuarded(t, nil)
	login := func(source, body string) net.Conn {
		t.Helper()
		c, err := g.from(source)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(c, "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return c
	}
	const wrong, right = `{"name": "read", "password": "wrong"}`, `{"name": "read", "password": "read` + secretOf + `"}`
	hashing.Lock()
	held := true
	defer func() {
		if held {
			hashing.Unlock()
		}
	}()
	var crowd []net.Conn
	for range maxOwnQueue {
		crowd = append(crowd, login("127.0.0.2", wrong))
	}
	waiting := func(n int) func() bool {
		return func() bool { return g.s.queue.length() == n }
	}
	lbtest.Eventually(t, "they wait", waiting(maxOwnQueue))
	got, err := next(bufio.NewReader(login("127.0.0.2", right)))
	if err != nil || got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("one more: %+v %v; want 429", got, err)
	}
	mine := login("127.0.0.1", right)
	lbtest.Eventually(t, "it waits too", waiting(maxOwnQueue+1))
	hashing.Unlock()
	held = false
	if got, err := next(bufio.NewReader(mine)); err != nil || got.status != 200 {
		t.Errorf("from elsewhere: %+v %v", got, err)
	}
	for _, c := range crowd {
		if got, err := next(bufio.NewReader(c)); err != nil || got.status != 401 && got.status != 429 {
			t.Errorf("of the crowd: %+v %v", got, err)
		}
	}
	lbtest.Eventually(t, "nobody waits", waiting(0))
}

// TestQueueOfAll: many sources share what one may not have alone.
func TestQueueOfAll(t *testing.T) {
	var q queue
	for i := range maxQueue {
		if err := q.enter(sourceOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 8)}))); err != nil {
			t.Fatal(i, err)
		}
	}
	fresh := sourceOf(netip.MustParseAddr("10.0.1.1"))
	if err := q.enter(fresh); err == nil || asProblem(err).Status != 503 || asProblem(err).wait == 0 {
		t.Errorf("one more: %v; want 503", err)
	}
	q.leave(sourceOf(netip.MustParseAddr("10.0.0.1")))
	if err := q.enter(fresh); err != nil {
		t.Error(err)
	}
}

// TestRefusedCallsDoNotFillTheAudit: who has credentials and calls what they are not for hides nothing that others did, and does not
// fill the log.
func TestRefusedCallsDoNotFillTheAudit(t *testing.T) {
	var lines lockedBuffer
	g := newGuarded(t, nil)
	g.reload = g.nothingChanges
	g.s.o.Log = slog.New(slog.NewTextHandler(&lines, nil))
	g.send("POST", "/api/v1/reload", "", bearer("operate"+secretOf))
	begun := time.Now()
	for range maxAudit + maxRefused {
		g.send("POST", "/api/v1/reload", "", bearer("read"+secretOf))
	}
	took := time.Since(begun)
	_, body := g.send("GET", "/api/v1/audit", "", bearer("configure"+secretOf))
	log := decoded[auditLog](t, body)
	if n := len(log.Calls); n != maxRefused+1 || log.Calls[n-1].Who != "bearer:operate" || log.Calls[0].Who != "bearer:read" {
		t.Errorf("%d calls, the oldest of %q; want %d, bearer:operate", n, log.Calls[n-1].Who, maxRefused+1)
	}
	if n, most := strings.Count(lines.String(), "\n"), 1+refusedLogged*(2+int(took/time.Second)); n > most {
		t.Errorf("%d lines in the log after %v; want at most %d", n, took, most)
	}
}
