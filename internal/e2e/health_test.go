//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// healthOf is what the status says of the health of every backend, by pool and address.
type healthOf map[string]struct {
	State, Why string
	LastError  string `json:"last_error"`
	Bad        int
}

func (lb *awe4lb) health() healthOf {
	lb.t.Helper()
	var s struct {
		Pools []struct {
			Name     string
			Backends []struct {
				Address string
				Health  json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(lb.get("/api/v1/status"), &s); err != nil {
		lb.t.Fatal(err)
	}
	all := healthOf{}
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			h := all[p.Name]
			if err := json.Unmarshal(b.Health, &h); err != nil {
				lb.t.Fatal(err)
			}
			all[p.Name+"/"+b.Address] = h
		}
	}
	return all
}

// wantHealth waits until a backend is in a state and the last error has a text in it.
func (lb *awe4lb) wantHealth(pool, address, state, lastError string) {
	lb.t.Helper()
	var last any
	defer func() {
		if lb.t.Failed() {
			lb.t.Logf("%s/%s: %+v", pool, address, last)
		}
	}()
	lbtest.Eventually(lb.t, fmt.Sprintf("%s/%s is %s, %q", pool, address, state, lastError), func() bool {
		h := lb.health()[pool+"/"+address]
		last = h
		return h.State == state && strings.Contains(h.LastError, lastError)
	})
}

// checkedPool is a pool of one backend with a health check that is soon done.
func checkedPool(name, backend, health string) string {
	return fmt.Sprintf(`
[frontends.%[1]s]
bind = ["127.0.0.1:0"]
pool = "%[1]s"
[pools.%[1]s]
backends = [ { address = "%[2]s" } ]
[pools.%[1]s.health]
interval = "200ms"
initial = "checking"
fall = 1
rise = 1
%[3]s
`, name, backend, health)
}

// TestHealthOfNginx: one of two goes and comes back while a client asks all the time, and hears of nothing.
func TestHealthOfNginx(t *testing.T) {
	server := func(name string) string {
		return `location = / { default_type text/plain; return 200 "` + name + `\n"; }
			location = /health { default_type text/plain; return 200 "all is well\n"; }
			location = /ill { return 503; }
			location = /moved { return 302 /health; }`
	}
	a, b := startWebAs(t, "a", "", server("a")), startWebAs(t, "b", "", server("b"))
	lb := start(t, fmt.Sprintf(`
[frontends.test]
bind = ["127.0.0.1:0"]
pool = "test"
[pools.test]
backends = [%s]
[pools.test.health]
kind = "http"
path = "/health"
status = "200"
body = "well"
interval = "100ms"
rise = 2
fall = 2
`, addresses(a.address, b.address))+checkedPool("ill", a.address, "kind = \"http\"\npath = \"/ill\"\n")+
		checkedPool("moved", a.address, "kind = \"http\"\npath = \"/moved\"\nstatus = \"200\"\n")+
		checkedPool("followed", a.address, "kind = \"http\"\npath = \"/moved\"\nstatus = \"200\"\nfollow_redirects = true\n"))
	lb.expectError("no backend of the pool is up") // ill and moved
	lb.wantHealth("ill", a.address, "down", "status: got 503")
	lb.wantHealth("moved", a.address, "down", "status: got 302")
	lb.wantHealth("followed", a.address, "up", "")

	url := "http://" + lb.address("test") + "/"
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	stop, done := make(chan struct{}), make(chan struct{})
	asked, cut := map[string]int{}, 0
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			answer, err := client.Get(url)
			if err != nil { // nginx resets who waits in its queue when it ends
				if cut++; cut > 2 {
					t.Errorf("a client heard %v", err)
					return
				}
				continue
			}
			text := make([]byte, 1)
			_, _ = answer.Body.Read(text)
			answer.Body.Close()
			asked[string(text)]++
		}
	}()
	a.end(syscall.SIGQUIT)
	lb.wantHealth("test", a.address, "down", "connection refused")
	connected := lb.backend(a.address).ConnectErrors
	time.Sleep(300 * time.Millisecond) // for attempts that must not be
	if now := lb.backend(a.address).ConnectErrors; fmt.Sprint(now) != fmt.Sprint(connected) {
		t.Errorf("while a is down it is tried: %v, then %v", connected, now)
	}
	a.start()
	lb.wantHealth("test", a.address, "up", "")
	before := lb.backend(a.address).Connected
	lbtest.Eventually(t, "a serves again", func() bool { return lb.backend(a.address).Connected > before })
	close(stop)
	<-done
	t.Logf("asked %v", asked)
}

// TestHealthOfNginxTLS: the check takes the pool's authority, and is as strict as the pool.
func TestHealthOfNginxTLS(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"back.test"}})
	pair := lbtest.Files(t, "pair.pem", cert, key)
	authority := lbtest.Files(t, "ca.pem", ca.PEM)
	w := startWebAs(t, "w", "ssl", fmt.Sprintf("ssl_certificate %[1]s; ssl_certificate_key %[1]s; location = / { return 204; }", pair))
	tls := "[pools.%s.tls]\nserver_name = \"%s\"\nca = \"" + authority + "\"\n"
	lb := start(t, checkedPool("right", w.address, "kind = \"http\"\n")+fmt.Sprintf(tls, "right", "back.test")+
		checkedPool("wrong", w.address, "kind = \"http\"\n")+fmt.Sprintf(tls, "wrong", "other.test")+
		checkedPool("handshake", w.address, "kind = \"tls\"\nserver_name = \"back.test\"\nca = \""+authority+"\"\n")+
		checkedPool("stranger", w.address, "kind = \"tls\"\nserver_name = \"back.test\"\n"))
	lb.expectError("no backend of the pool is up")
	lb.wantHealth("right", w.address, "up", "")
	lb.wantHealth("handshake", w.address, "up", "")
	lb.wantHealth("wrong", w.address, "down", "not other.test")
	lb.wantHealth("stranger", w.address, "down", "unknown authority")
	if n := lb.log.count("the certificate of a backend expires soon"); n == 0 {
		t.Error("nobody says that the certificate expires tomorrow")
	}
}

func TestHealthOfRedis(t *testing.T) {
	redis := startRedis(t)
	lb := start(t, checkedPool("open", redis, "kind = \"redis\"\n")+checkedPool("locked", redis, "kind = \"redis\"\npassword = \"s3cret\"\n")+
		checkedPool("talk", redis, `send = 'PING\r\n'`+"\n"+`expect = '+PONG\r\n'`+"\n"))
	lb.expectError("no backend of the pool is up")
	lb.wantHealth("open", redis, "up", "")
	lb.wantHealth("talk", redis, "up", "")
	lb.wantHealth("locked", redis, "down", "without any password configured")
	port := redis[strings.LastIndexByte(redis, ':')+1:]
	run(t, "redis-cli", "-p", port, "CONFIG", "SET", "requirepass", "s3cret")
	lb.wantHealth("locked", redis, "up", "")
	lb.wantHealth("open", redis, "down", "wants a password")
	lb.wantHealth("talk", redis, "down", "NOAUTH")
	if strings.Contains(string(lb.get("/api/v1/status"))+lb.program.out.String(), "s3cret") {
		t.Error("the password is shown")
	}
}

func TestHealthOfPostgres(t *testing.T) {
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"db.test"}})
	pgPort, dir := startPostgresAs(t, "host all scram all scram-sha-256\nhost all md5 all md5\nhost all plain all password\nhost all nobody all reject", append(cert, key...),
		"ssl=on", "ssl_cert_file=CERT", "ssl_key_file=CERT")
	address := local(pgPort)
	psql := func(query string) string {
		return run(t, "psql", "-h", dir, "-p", fmt.Sprint(pgPort), "-U", "postgres", "-At", "-c", query, "postgres")
	}
	psql("CREATE USER scram PASSWORD 's3cret'")
	psql("SET password_encryption = 'md5'; CREATE USER md5 PASSWORD 's3cret'")
	psql("CREATE USER plain PASSWORD 's3cret'")
	psql("CREATE USER nobody")
	login := func(user, more string) string {
		return "kind = \"postgres\"\nuser = \"" + user + "\"\ndatabase = \"postgres\"\n" + more
	}
	const password = "password = \"s3cret\"\n"
	tls := "tls = \"yes\"\nserver_name = \"db.test\"\nca = \"" + lbtest.Files(t, "ca.pem", ca.PEM) + "\"\n"
	pools := map[string]struct{ health, state, lastError string }{
		"answers":   {"kind = \"postgres\"\n", "up", ""},
		"tls":       {"kind = \"postgres\"\n" + tls, "up", ""},
		"trust":     {login("postgres", ""), "up", ""},
		"scram":     {login("scram", password), "up", ""},
		"scram-tls": {login("scram", password+tls), "up", ""},
		"md5":       {login("md5", password), "up", ""},
		"plain":     {login("plain", password), "up", ""},
		"wrong":     {login("scram", "password = \"wrong\"\n"), "down", "password authentication failed"},
		"none":      {login("scram", ""), "down", "wants a password"},
		"rejected":  {login("nobody", ""), "down", "pg_hba.conf rejects"},
		"primary":   {login("postgres", "query = \"SELECT pg_is_in_recovery()\"\nexpect = \"f\"\n"), "up", ""},
		"standby":   {login("postgres", "query = \"SELECT pg_is_in_recovery()\"\nexpect = \"t\"\n"), "down", `got "f"; want "t"`},
		"mistake":   {login("postgres", "query = \"SELEKT\"\n"), "down", "syntax error"},
	}
	config := ""
	for name, p := range pools {
		config += checkedPool(name, address, p.health)
	}
	lb := start(t, config)
	lb.expectError("no backend of the pool is up")
	for name, p := range pools {
		lb.wantHealth(name, address, p.state, p.lastError)
	}
	// Sessions of checks end at once.
	lbtest.Eventually(t, "no session of a check is left", func() bool {
		return psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'awe4lb-health' AND state = 'idle' AND now() - state_change > interval '2s'") == "0\n"
	})
}
