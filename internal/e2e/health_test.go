//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
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

// startMariaDB starts a MariaDB with a new folder, and returns it, its address and what runs SQL as root. start starts it again.
func startMariaDB(t *testing.T, settings ...string) (p *program, address string, sql func(string) string, start func() *program) {
	t.Helper()
	needRoot(t, "MariaDB runs as its user, root here")
	dir, port := openDir(t), lbtest.FreePort(t)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	run(t, "mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root")
	start = func() *program {
		p := launch(t, nil, "mariadbd", append([]string{"--no-defaults", "--user=root", "--datadir=" + data, "--socket=" + socket, "--port=" + fmt.Sprint(port),
			"--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=8M"}, settings...)...)
		p.waitFor("mariadbd serves", func() bool { return p.out.has("ready for connections") })
		return p
	}
	sql = func(query string) string {
		return run(t, "mariadb", "--no-defaults", "--user=root", "--socket="+socket, "--batch", "--skip-column-names", "-e", query)
	}
	return start(), local(port), sql, start
}

// TestHealthOfMariaDB: who is let in, who is not, and that a server that is asked for weeks by somebody it does not know does not
// block us; stalled, gone and back.
func TestHealthOfMariaDB(t *testing.T) {
	p, address, sql, again := startMariaDB(t, "--max-connect-errors=3", "--ssl=0")
	sql("CREATE USER 'check'@'%'; CREATE USER 'locked'@'%' IDENTIFIED BY 's3cret'")
	lb := start(t, checkedPool("any", address, "kind = \"mysql\"\n")+checkedPool("known", address, "kind = \"mysql\"\nuser = \"check\"\n")+
		checkedPool("locked", address, "kind = \"mysql\"\nuser = \"locked\"\n"))
	lb.expectError("no backend of the pool is up")
	lb.wantHealth("any", address, "up", "")
	lb.wantHealth("known", address, "up", "")
	lb.wantHealth("locked", address, "down", "error 1045")
	denied := func() (n int) {
		_, _ = fmt.Sscan(strings.Fields(sql("SHOW GLOBAL STATUS LIKE 'Aborted_connects'"))[1], &n)
		return n
	}
	lbtest.Eventually(t, "ten checks were turned away", func() bool { return denied() >= 10 })
	if state := lb.health()["any/"+address].State; state != "up" {
		t.Errorf("after ten checks: %s", state)
	}
	if aborted := strings.Fields(sql("SHOW GLOBAL STATUS LIKE 'Aborted_clients'"))[1]; aborted != "0" {
		t.Errorf("%s checks have left without a word", aborted)
	}
	p.signal(syscall.SIGSTOP) // it listens, and never answers
	lb.wantHealth("known", address, "down", "greeting: ")
	p.signal(syscall.SIGCONT)
	lb.wantHealth("known", address, "up", "")
	sql("SET GLOBAL require_secure_transport = ON") // MySQL says what it wants, MariaDB only denies
	lb.wantHealth("known", address, "down", "error 1045")
	lb.wantHealth("any", address, "up", "")
	p.end(syscall.SIGTERM)
	lb.wantHealth("any", address, "down", "connection refused")
	again()
	lb.wantHealth("any", address, "up", "")
	lb.wantHealth("known", address, "up", "")
}

// TestHealthOfGRPC: etcd has the health service of gRPC.
func TestHealthOfGRPC(t *testing.T) {
	client, peer, dir := lbtest.Free(t), lbtest.Free(t), t.TempDir()
	up := func() *program {
		p := launch(t, nil, "etcd", "--data-dir", dir, "--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
			"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer, "--unsafe-no-fsync")
		p.waitFor("etcd serves", func() bool { return listens(client) })
		return p
	}
	p := up()
	lb := start(t, checkedPool("well", client, "kind = \"grpc\"\n")+checkedPool("unknown", client, "kind = \"grpc\"\nservice = \"shop.v1.Cart\"\n"))
	lb.expectError("no backend of the pool is up")
	lb.wantHealth("well", client, "up", "")
	lb.wantHealth("unknown", client, "down", "the service is not known there")
	p.signal(syscall.SIGSTOP)
	lb.wantHealth("well", client, "down", "no answer within")
	p.signal(syscall.SIGCONT)
	lb.wantHealth("well", client, "up", "")
	p.end(syscall.SIGTERM)
	lb.wantHealth("well", client, "down", "connection refused")
	up()
	lb.wantHealth("well", client, "up", "")
}

// TestHealthOfLiars: backends that listen and never answer, that answer too slowly, and that are ill every other time, who must
// not flap.
func TestHealthOfLiars(t *testing.T) {
	silent := lbtest.Silent(t)
	slow := lbtest.Serve(t, func(c *net.TCPConn) {
		for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	var asked atomic.Int64
	flapping := lbtest.Serve(t, func(c *net.TCPConn) {
		status := "200 OK"
		if asked.Add(1)%2 == 0 {
			status = "503 Service Unavailable"
		}
		_, _ = c.Read(make([]byte, 4096))
		fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	lb := start(t, checkedPool("silent", silent, "kind = \"http\"\n")+checkedPool("accepts", silent, "")+checkedPool("slow", slow, "kind = \"http\"\n")+
		strings.NewReplacer("fall = 1", "fall = 4", "rise = 1", "rise = 4").Replace(checkedPool("flapping", flapping, "kind = \"http\"\n")))
	lb.expectError("no backend of the pool is up")
	lb.wantHealth("silent", silent, "down", "no answer within")
	lb.wantHealth("accepts", silent, "up", "") // a connection is all that it asks for
	lb.wantHealth("slow", slow, "down", "no answer within")
	first := lb.health()["flapping/"+flapping].State
	events := strings.Count(string(lb.get("/api/v1/events")), `"flapping"`)
	begun := asked.Load()
	lbtest.Eventually(t, "the one that flaps was asked twelve times more", func() bool { return asked.Load() >= begun+12 })
	if now := strings.Count(string(lb.get("/api/v1/events")), `"flapping"`); now != events || lb.health()["flapping/"+flapping].State != first {
		t.Errorf("it was %s with %d changes, and is %s with %d", first, events, lb.health()["flapping/"+flapping].State, now)
	}
}
