package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/crypto/bcrypt"
)

// guarded is an admin with a user and a token of each role, all named after it, whose password or token is that name and
// "-0123456789abcdef".
type guarded struct {
	*rig
	client *http.Client
}

const secretOf = "-0123456789abcdef"

func newGuarded(t testing.TB, change func(*config.Admin)) *guarded {
	t.Helper()
	c := &config.Admin{Address: config.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, Anonymous: "none", Hosts: []string{"lb.example.com"}}
	for _, role := range []string{"read", "operate", "configure"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(role+secretOf), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		c.Users = append(c.Users, &config.AdminUser{Name: role, PasswordHash: string(hash), Role: role})
		c.Tokens = append(c.Tokens, &config.AdminToken{Name: role, Token: role + secretOf, Role: role})
	}
	if change != nil {
		change(c)
	}
	g := &guarded{newRig(t), &http.Client{}}
	s, err := Start(c, g.s.o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	g.s, g.url = s, "http://"+s.Address()
	if c.TLS != nil {
		g.url = "https://" + s.Address()
	}
	return g
}

func (g *guarded) nothingChanges() (*balancer.Report, error) { return new(balancer.Report), nil }

// send sends a request and returns its answer, body read.
func (g *guarded) send(method, path, body string, change func(*http.Request)) (*http.Response, string) {
	g.t.Helper()
	req, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(req)
	}
	res, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.Header.Get("Content-Type") == "text/event-stream" { // it never ends
		return res, ""
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res, string(text)
}

func basic(name, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

func bearer(secret string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }
}

// TestRoles: each call against each role, by password and by token.
func TestRoles(t *testing.T) {
	for _, e := range append(endpoints(), gobetweenEndpoints()...) {
		path := pathParameter.ReplaceAllString(e.path, "nobody")
		body := ""
		if e.body != nil {
			body = "{"
		}
		t.Run(e.method+" "+e.path, func(t *testing.T) {
			g := newGuarded(t, func(c *config.Admin) { c.Compat = "gobetween" })
			g.reload = g.nothingChanges
			for r := nobody; r <= configurer; r++ {
				for _, how := range []string{"bearer", "basic"} {
					res, text := g.send(e.method, path, body, func(req *http.Request) {
						switch {
						case r == nobody:
						case how == "bearer":
							bearer(r.String() + secretOf)(req)
						default:
							req.SetBasicAuth(r.String(), r.String()+secretOf)
						}
					})
					refused := res.StatusCode == 401 || res.StatusCode == 403
					if refused != (r < e.needs) {
						t.Errorf("%s by %s needs %s: %d %s", r, how, e.needs, res.StatusCode, text)
					}
					if r == nobody && e.needs > nobody && (res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "") {
						t.Errorf("without credentials: %d %v", res.StatusCode, res.Header)
					}
				}
			}
		})
	}
}

// TestAnswersFitTheDocument asks whatever can be asked without a body or a name.
func TestAnswersFitTheDocument(t *testing.T) {
	g := newGuarded(t, nil)
	for _, e := range endpoints() {
		if _, isRaw := e.answer.(raw); e.method != "GET" || isRaw || pathParameter.MatchString(e.path) {
			continue
		}
		if _, isStream := e.answer.(streamed); isStream {
			continue
		}
		res, text := g.send("GET", e.path, "", bearer("configure"+secretOf))
		if res.StatusCode != 200 {
			t.Errorf("%s: %d %s", e.path, res.StatusCode, text)
			continue
		}
		fits(t, "GET", e.path, 200, []byte(text))
	}
	res, text := g.send("GET", "/api/v1/status", "", bearer("wrong"))
	fits(t, "GET", "/api/v1/status", res.StatusCode, []byte(text))
}

func TestLogin(t *testing.T) {
	g := newGuarded(t, nil)
	res, text := g.send("POST", "/api/v1/login", `{"name": "operate", "password": "operate`+secretOf+`"}`, nil)
	cookies := res.Cookies()
	if res.StatusCode != 200 || len(cookies) != 1 {
		t.Fatalf("%d %s %v", res.StatusCode, text, res.Header)
	}
	if c := cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Secure {
		t.Errorf("cookie %v", c)
	}
	with := func(r *http.Request) { r.AddCookie(cookies[0]) }
	_, text = g.send("GET", "/api/v1/me", "", with)
	var me whoAmI
	if err := json.Unmarshal([]byte(text), &me); err != nil || me != (whoAmI{"operate", "cookie", "operate", true}) {
		t.Errorf("me: %s %v", text, err)
	}
	// A form of a foreign page that the browser sends the cookie along with, were it not for SameSite.
	for _, header := range [][2]string{{"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		res, _ = g.send("POST", "/api/v1/reload", "", func(r *http.Request) { with(r); r.Header.Set(header[0], header[1]) })
		if res.StatusCode != 403 {
			t.Errorf("%v: %d; want 403", header, res.StatusCode)
		}
	}
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""} {
		res, _ = g.send("POST", "/api/v1/login", `{}`, func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		if res.StatusCode != 415 {
			t.Errorf("Content-Type %q: %d; want 415", kind, res.StatusCode)
		}
	}
	if res, _ = g.send("POST", "/api/v1/logout", "", with); res.StatusCode != 204 {
		t.Errorf("logout: %d", res.StatusCode)
	}
	if res, _ = g.send("GET", "/api/v1/status", "", with); res.StatusCode != 401 {
		t.Errorf("the login goes on after logout: %d", res.StatusCode)
	}
}

// TestLoginsEndWithTheirUsers: a reload that changes users ends logins, one that does not keeps them.
func TestLoginsEndWithTheirUsers(t *testing.T) {
	var c *config.Admin
	g := newGuarded(t, func(a *config.Admin) { c = a })
	res, _ := g.send("POST", "/api/v1/login", `{"name": "read", "password": "read`+secretOf+`"}`, nil)
	with := func(r *http.Request) { r.AddCookie(res.Cookies()[0]) }
	reload := func() {
		t.Helper()
		apply, err := g.s.Prepare(c)
		if err != nil {
			t.Fatal(err)
		}
		apply()
	}
	reload()
	if res, _ := g.send("GET", "/api/v1/status", "", with); res.StatusCode != 200 {
		t.Errorf("%d after a reload that changes nothing", res.StatusCode)
	}
	c.Users[0].Role = "operate"
	reload()
	if res, _ := g.send("GET", "/api/v1/status", "", with); res.StatusCode != 401 {
		t.Errorf("%d after a reload that changes the user; want 401", res.StatusCode)
	}
}

// TestGuessing: who guesses has to wait, also with what would be right.
func TestGuessing(t *testing.T) {
	g := newGuarded(t, nil)
	wrong := 0
	for i := range 3 * guesses {
		res, _ := g.send("GET", "/api/v1/status", "", bearer(fmt.Sprint("wrong ", i)))
		if res.StatusCode == 401 {
			wrong++
		} else if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
			t.Fatalf("%d %v", res.StatusCode, res.Header)
		}
	}
	if wrong != guesses {
		t.Errorf("%d guesses allowed; want %d", wrong, guesses)
	}
	if res, _ := g.send("GET", "/api/v1/status", "", bearer("read"+secretOf)); res.StatusCode != 429 {
		t.Errorf("the right token at once: %d; want 429", res.StatusCode)
	}
}

// TestGuessingAtOnce: to guess with hundreds of connections at a time is no way around it.
func TestGuessingAtOnce(t *testing.T) {
	g := newGuarded(t, func(c *config.Admin) {
		hash, err := bcrypt.GenerateFromPassword([]byte("slow"+secretOf), 8) // so that they wait for each other
		if err != nil {
			t.Fatal(err)
		}
		c.Users[0].PasswordHash = string(hash)
	})
	var wrong atomic.Int32
	var all sync.WaitGroup
	begun := time.Now()
	for i := range 8 * guesses {
		all.Go(func() {
			req, _ := http.NewRequest("GET", g.url+"/api/v1/status", nil)
			req.SetBasicAuth("read", fmt.Sprint("guess", i))
			res, err := g.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if res.StatusCode == 401 {
				wrong.Add(1)
			} else if res.StatusCode != 429 {
				t.Errorf("%d", res.StatusCode)
			}
		})
	}
	all.Wait()
	// A machine that is slow gives time for more.
	if n, most := wrong.Load(), guesses+int32(time.Since(begun)/guessEvery); n < guesses || n > most {
		t.Errorf("%d guesses were tried; want %d, at most %d", n, guesses, most)
	}
}

// TestSameMistakeAgain: a program with a password or a token of yesterday tries it again and again; that is no guessing, and does
// not keep others out who come from the same address. It tells nobody what it was: who has to wait is told nothing else.
func TestSameMistakeAgain(t *testing.T) {
	g := newGuarded(t, nil)
	ask := func(set func(*http.Request)) int {
		t.Helper()
		res, _ := g.send("GET", "/api/v1/status", "", set)
		return res.StatusCode
	}
	stale := []func(*http.Request){
		basic("operate", "yesterday's"), basic("nobody", "yesterday's"), bearer("a token of yesterday's"),
	}
	for range 2 * guesses {
		for i, set := range stale {
			if code := ask(set); code != 401 {
				t.Fatalf("%d: %d; want 401", i, code)
			}
		}
	}
	if code := ask(basic("operate", "operate"+secretOf)); code != 200 {
		t.Errorf("the right one: %d", code)
	}
	for i := range guesses { // of which each is another
		ask(basic("operate", fmt.Sprint("guess ", i)))
	}
	for i, set := range append(stale, basic("operate", "operate"+secretOf), basic("operate", "guess 1")) {
		if code := ask(set); code != 429 {
			t.Errorf("%d, after guessing: %d; want 429", i, code)
		}
	}
}

// TestWrongsAreForgotten: what is remembered of wrong credentials is bounded, belongs to who showed them, and ends with the users.
func TestWrongsAreForgotten(t *testing.T) {
	a, b := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32")
	w := newWrongs()
	w.add(a, "basic", "x", "y")
	if !w.has(a, "basic", "x", "y") || w.has(b, "basic", "x", "y") || w.has(a, "bearer", "x", "y") || w.has(a, "basic", "xy", "") {
		t.Error("it is taken for another, or not known again")
	}
	for i := range 3 * maxWrongs {
		w.add(b, "basic", "x", fmt.Sprint(i))
	}
	if len(w.known) > maxWrongs || w.has(a, "basic", "x", "y") || !w.has(b, "basic", "x", fmt.Sprint(3*maxWrongs-1)) {
		t.Errorf("%d are known", len(w.known))
	}
}

func TestThrottle(t *testing.T) {
	var th throttle
	now := time.Unix(1e9, 0)
	a, neighbour, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:1::1")
	for range guesses {
		if th.wait(a, now) != 0 {
			t.Fatal("waits too soon")
		}
		th.wrong(a, now)
	}
	if th.wait(a, now) == 0 || th.wait(neighbour, now) == 0 || th.wait(other, now) != 0 {
		t.Errorf("waits %v, neighbour %v, other %v", th.wait(a, now), th.wait(neighbour, now), th.wait(other, now))
	}
	if w := th.wait(a, now.Add(guessEvery)); w != 0 {
		t.Errorf("waits %v after %v", w, guessEvery)
	}
	for i := range 2 * maxGuessers { // strangers without end
		th.wrong(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), now)
	}
	if len(th.debt) > maxGuessers+1 {
		t.Errorf("%d sources are remembered; want at most %d", len(th.debt), maxGuessers+1)
	}
}

func TestHosts(t *testing.T) {
	g := newGuarded(t, nil)
	for host, want := range map[string]int{
		"127.0.0.1": 401, "localhost:7070": 401, "[::1]:1": 401, "lb.example.com": 401, "LB.example.com:99": 401,
		"evil.example": 403, "127.0.0.1.evil.com": 403, "10.0.0.1": 403, "lb.example.com.evil.com": 403, "[::1].evil": 400,
	} {
		res, _ := g.send("GET", "/api/v1/status", "", func(r *http.Request) { r.Host = host })
		if res.StatusCode != want {
			t.Errorf("Host %s: %d; want %d", host, res.StatusCode, want)
		}
	}
}

func TestAudit(t *testing.T) {
	g := newGuarded(t, nil)
	g.reload = g.nothingChanges
	g.send("POST", "/api/v1/reload", "", bearer("operate"+secretOf))
	g.send("POST", "/api/v1/reload", "", bearer("read"+secretOf))
	g.send("POST", "/api/v1/login", `{"name": "x", "password": "hunter2"}`, nil)
	_, text := g.send("GET", "/api/v1/audit", "", bearer("configure"+secretOf))
	var log auditLog
	if err := json.Unmarshal([]byte(text), &log); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range log.Calls {
		got = append(got, e.Who+" "+e.Path+" "+http.StatusText(e.Status))
	}
	want := "anonymous /api/v1/login Unauthorized, bearer:read /api/v1/reload Forbidden, bearer:operate /api/v1/reload OK"
	if strings.Join(got, ", ") != want || strings.Contains(text, "hunter2") {
		t.Errorf("got %s\nwant %s", text, want)
	}
}

// TestDryRunsAreNotAudited: who asks what would happen changes nothing, also where the answer is that it could not be; who may not
// even ask is in the audit, and so is who makes the change.
func TestDryRunsAreNotAudited(t *testing.T) {
	g := newGuarded(t, nil)
	for _, call := range []struct {
		status             int
		method, path, body string
	}{
		{409, "PUT", "/api/v1/pools/new?dry_run=true", `{"backends": []}`}, // the text that runs here has none of our tokens
		{409, "PUT", "/api/v1/pools/new?dry_run=1", `{"backends": []}`},
		{422, "PUT", "/api/v1/pools/new?dry_run=true", `{"policy": "rand"}`},
		{404, "DELETE", "/api/v1/pools/nowhere?dry_run=true", ""},
		{200, "POST", "/api/v1/sessions/kill", `{"all": true, "dry_run": true}`},
		{400, "POST", "/api/v1/sessions/kill", `{"dry_run": true}`},
		{200, "POST", "/api/v1/configs/main/validate", `{"pools": {"new": {"policy": "rand"}}}`},
	} {
		if res, body := g.send(call.method, call.path, call.body, bearer("configure"+secretOf)); res.StatusCode != call.status {
			t.Errorf("%s %s %s: %d %s; want %d", call.method, call.path, call.body, res.StatusCode, body, call.status)
		}
	}
	g.send("PUT", "/api/v1/pools/new?dry_run=true", `{"backends": []}`, bearer("operate"+secretOf))
	g.send("PUT", "/api/v1/pools/new?dry_run=true", `{"backends": []}`, nil)
	g.send("PUT", "/api/v1/pools/new?dry_run=true", `{"backends": []}`, bearer("wrong"))
	g.send("POST", "/api/v1/configs/main/validate", "", bearer("read"+secretOf))
	g.send("POST", "/api/v1/sessions/kill", `{"all": true, "dry_run": true}`, bearer("read"+secretOf))
	g.send("PUT", "/api/v1/pools/new?dry_run=maybe", `{"backends": []}`, bearer("configure"+secretOf)) // nobody can say what that is
	g.send("PUT", "/api/v1/pools/new?dry_run=false", `{"policy": "rand"}`, bearer("configure"+secretOf))
	g.send("POST", "/api/v1/sessions/kill", `{"all": true}`, bearer("operate"+secretOf))
	_, text := g.send("GET", "/api/v1/audit", "", bearer("configure"+secretOf))
	var got []string
	for _, e := range decoded[auditLog](t, text).Calls {
		got = append(got, fmt.Sprint(e.Who, " ", strings.TrimPrefix(e.Path, "/api/v1"), " ", e.Status))
	}
	slices.Reverse(got)
	want := []string{
		"bearer:operate /pools/new?dry_run=true 403", "anonymous /pools/new?dry_run=true 401", "unknown /pools/new?dry_run=true 401",
		"bearer:read /configs/main/validate 403", "bearer:read /sessions/kill 403",
		"bearer:configure /pools/new 400", "bearer:configure /pools/new 422", "bearer:operate /sessions/kill 200",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStrangersDoNotFillTheAudit: whom nobody knows can call as often as they like; what others did stays to be seen.
func TestStrangersDoNotFillTheAudit(t *testing.T) {
	var lines lockedBuffer
	g := newGuarded(t, nil)
	g.s.o.Log = slog.New(slog.NewTextHandler(&lines, nil))
	g.send("PUT", "/api/v1/configs/evil", "", bearer("read"+secretOf)) // refused, but of somebody known
	begun := time.Now()
	for range maxAudit + maxStrangers {
		g.send("POST", "/api/v1/reload", "", nil)
	}
	took := time.Since(begun)
	res, body := g.send("GET", "/api/v1/audit", "", bearer("configure"+secretOf))
	var log auditLog
	if err := json.Unmarshal([]byte(body), &log); err != nil || res.StatusCode != 200 {
		t.Fatal(res.StatusCode, err)
	}
	if n := len(log.Calls); n != maxStrangers+1 || log.Calls[n-1].Who != "bearer:read" {
		t.Errorf("%d calls, the oldest of %q; want %d, bearer:read", n, log.Calls[n-1].Who, maxStrangers+1)
	}
	if n, most := strings.Count(lines.String(), "\n"), 1+refusedLogged*(2+int(took/time.Second)); n > most {
		t.Errorf("%d lines in the log after %v; want at most %d", n, took, most)
	}
}

// TestAdminTLS: certificates of clients count, and files that change are read again.
func TestAdminTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, clients := lbtest.NewCA(t), lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	path := write("a.pem", cert, key)
	g := newGuarded(t, func(c *config.Admin) {
		c.TLS = &config.AdminTLS{Cert: path, ClientCA: write("ca.pem", clients.PEM), ClientRole: "operate"}
	})
	trusting := func(ca *lbtest.CA, mine ...tls.Certificate) *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool, Certificates: mine}, DisableKeepAlives: true}
		return &http.Client{Transport: transport}
	}
	me := func() (me whoAmI) {
		_, text := g.send("GET", "/api/v1/me", "", nil)
		if err := json.Unmarshal([]byte(text), &me); err != nil {
			t.Fatal(err)
		}
		return me
	}
	g.client = trusting(ca)
	if m := me(); m.Role != "none" || m.How != "anonymous" {
		t.Errorf("without a certificate: %+v", m)
	}
	g.client = trusting(ca, clients.Pair("client"))
	if m := me(); m.Role != "operate" || m.How != "certificate" {
		t.Errorf("with a certificate: %+v", m)
	}

	other := lbtest.NewCA(t)
	cert, key = other.Issue(lbtest.Leaf{Names: []string{"127.0.0.1"}})
	write("a.pem", cert, key)
	g.client = trusting(other)
	lbtest.Eventually(t, "the new certificate is used", func() bool {
		res, err := g.client.Get(g.url + "/healthz")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
}

// TestPasswords: hashes that other programs made.
func TestPasswords(t *testing.T) {
	for _, hash := range []string{argonOfSecret, "$2y$04$" + bcryptOfSecret} {
		if !passwordFits([]byte(hash), "secret") {
			t.Errorf("%s does not fit", hash)
		}
		if passwordFits([]byte(hash), "Secret") || passwordFits([]byte(hash), "") || passwordFits([]byte(hash), strings.Repeat("secret", 100)) {
			t.Errorf("%s fits what is wrong", hash)
		}
	}
}

// The hashes of "secret" that argon2 -id and crypt(3) made.
const (
	argonOfSecret  = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$4mqQiyq0VpIzuZmp+8eSF3YJ7Av58TkEJ4LIdOVsAc4"
	bcryptOfSecret = "abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
)

// lockedBuffer is written by handlers.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
