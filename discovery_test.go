package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"github.com/miekg/dns"
)

// withDiscovery is a configuration with one pool whose backends are to be found.
func withDiscovery(table, more string) string {
	return more + admin0 + "[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[pools.p]\nconnect_attempts = 1\n[pools.p.discovery]\n" + table
}

// traffic is clients that come and go, and what they heard.
type traffic struct {
	t       *testing.T
	address string
	stop    chan struct{}
	clients sync.WaitGroup
	served  atomic.Int64

	mu    sync.Mutex
	heard map[string]int // guarded by mu: the answers since the last forget
}

// startTraffic has clients ask for names until the test ends. Whoever is not answered fails the test.
func startTraffic(t *testing.T, address string, clients int) *traffic {
	tr := &traffic{t: t, address: address, stop: make(chan struct{}), heard: map[string]int{}}
	for range clients {
		tr.clients.Go(func() {
			for {
				select {
				case <-tr.stop:
					return
				default:
				}
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				name := who(t, c)
				c.Close()
				if len(name) != 1 {
					t.Errorf("a request failed: %s", name)
				}
				tr.served.Add(1)
				tr.mu.Lock()
				tr.heard[name]++
				tr.mu.Unlock()
			}
		})
	}
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) end() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.clients.Wait()
}

// wantOnly waits until clients that come from now on hear these names, each of them, and no other.
func (tr *traffic) wantOnly(names ...string) {
	tr.t.Helper()
	lbtest.Eventually(tr.t, fmt.Sprint("traffic goes to ", names, " alone"), func() bool {
		tr.mu.Lock()
		clear(tr.heard)
		tr.mu.Unlock()
		for n := tr.served.Load(); tr.served.Load() < n+40 && !tr.t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for name := range tr.heard {
			if !slices.Contains(names, name) {
				return false
			}
		}
		return len(tr.heard) == len(names)
	})
}

// replace writes a whole file into the place of another.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func post(t *testing.T, in *instance, path string) (int, string) {
	t.Helper()
	return get(t, "POST", in.adminURL()+path)
}

func body(t *testing.T, in *instance, path string) string {
	t.Helper()
	code, text := get(t, "GET", in.adminURL()+path)
	if code != 200 {
		t.Fatalf("%s: %d %s", path, code, text)
	}
	return text
}

// TestDiscoveryFile: backends come, change and go with a file, under traffic of which nothing fails; what is odd is held
// back, and what is wrong changes nothing.
func TestDiscoveryFile(t *testing.T) {
	a, b, c, d := newComesAndGoes(t, "a"), newComesAndGoes(t, "b"), newComesAndGoes(t, "c"), newComesAndGoes(t, "d")
	file := filepath.Join(t.TempDir(), "backends.txt")
	replace(t, file, a.address+" label.rack=r7\n")
	saved := filepath.Join(t.TempDir(), "saved.json")
	text := withDiscovery(fmt.Sprintf("kind = \"file\"\npath = %q\ninterval = \"100ms\"\ndebounce = \"0s\"\nconfirm = 1000\nsave_to = %q\n", file, saved), "")
	in := startInstance(t, text)
	tr := startTraffic(t, in.address("f"), 3) // the start has waited for the first list
	tr.wantOnly("a")
	if st := body(t, in, "/api/v1/status"); !strings.Contains(st, `"rack": "r7"`) || !strings.Contains(st, `"state": "fresh"`) {
		t.Errorf("status: %s", st)
	}
	long := dial(t, in.address("f"))
	if who(t, long) != "a" {
		t.Error("not a")
	}

	replace(t, file, a.address+"\n"+b.address+" weight=3\n")
	tr.wantOnly("a", "b")
	in.wantLog(`msg="backends have changed" pool=p backends=2 added=` + b.address)
	replace(t, file, a.address+" weight=0\n"+b.address+"\n"+c.address+"\n"+d.address+"\n")
	tr.wantOnly("b", "c", "d")
	replace(t, file, b.address+"\n"+c.address+"\n"+d.address+"\n")
	in.wantLog(`msg="backends have changed" pool=p backends=3 removed=` + a.address)
	if got := who(t, long); got != "a" {
		t.Errorf("the session on a backend that has vanished: %s", got)
	}
	var status struct {
		Config  struct{ Version int }
		Retired []struct {
			Address, State string
			Open           int
		}
	}
	if err := json.Unmarshal([]byte(body(t, in, "/api/v1/status")), &status); err != nil || len(status.Retired) != 1 ||
		status.Retired[0].Address != a.address || status.Retired[0].State != "draining" || status.Config.Version != 1 {
		t.Errorf("%+v, %v; want a under retired, and the configuration's version", status, err)
	}
	long.Close()
	lbtest.Eventually(t, "the backend that has vanished is forgotten", func() bool {
		return !strings.Contains(body(t, in, "/api/v1/status"), a.address)
	})

	// Suddenly much less.
	replace(t, file, b.address+"\n")
	in.wantLog(`level=WARN msg="a source suddenly knows far fewer backends.* pool=p source=file:\S+ got="1 backends where 3 are in use" to_use_it_now="POST /api/v1/discovery/p/accept"`)
	tr.wantOnly("b", "c", "d")
	if m := body(t, in, "/metrics"); !strings.Contains(m, `awe4lb_discovery_held{pool="p",source="file:`+file+`"} 1`) {
		t.Error("metrics do not say that a list is held back")
	}
	if code, text := post(t, in, "/api/v1/discovery/p/accept"); code != 200 || !strings.Contains(text, `"lists": 1`) {
		t.Errorf("accept: %d %s", code, text)
	}
	tr.wantOnly("b")
	if code, _ := post(t, in, "/api/v1/discovery/p/accept"); code != 409 {
		t.Errorf("accept of nothing: %d; want 409", code)
	}

	// The source fails.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	in.wantLog(`level=WARN msg="a source of backends fails.* pool=p source=file:\S+ error="stat `)
	tr.wantOnly("b")

	// A reload keeps what was found, while the source is still gone.
	in.write(strings.Replace(text, "connect_attempts = 1", "connect_attempts = 2", 1))
	in.signal(syscall.SIGHUP)
	in.wantLog("msg=reloaded .*config_version=2 ")
	tr.wantOnly("b")
	// Also where the settings change; and those named beside it are there too.
	in.write(strings.Replace(text, "connect_attempts = 1", fmt.Sprintf("backends = [{ address = %q }]", d.address), 1) + "min_share = 0\n")
	in.signal(syscall.SIGHUP)
	in.wantLog("msg=reloaded .*config_version=3 ")
	tr.wantOnly("b", "d")
	replace(t, file, c.address+"\n")
	in.wantLog(`msg="a source of backends answers again" pool=p`)
	tr.wantOnly("c", "d")
	events := body(t, in, "/api/v1/events")
	for _, want := range []string{`"what": "discovery"`, `"event": "change"`, `"event": "recovered"`} {
		if !strings.Contains(events, want) {
			t.Errorf("events lack %s: %s", want, events)
		}
	}

	// What was saved is there at once, though the source is not.
	tr.end()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
	again := startInstance(t, in.config(t))
	startTraffic(t, again.address("f"), 2).wantOnly("c", "d")
	again.wantLog(`msg="until the source answers, the list of an earlier time is used" pool=p`)

	// Without discovery nobody is there who was found.
	again.write(strings.Split(in.config(t), "[pools.p.discovery]")[0])
	again.signal(syscall.SIGHUP)
	again.wantLog("msg=reloaded")
	if st := body(t, again, "/api/v1/discovery"); strings.Contains(st, `"pool"`) {
		t.Errorf("discovery: %s", st)
	}
	if code, _ := post(t, again, "/api/v1/discovery/p/refresh"); code != 404 {
		t.Errorf("refresh: %d; want 404", code)
	}
}

// config returns what the configuration file holds.
func (in *instance) config(t *testing.T) string {
	b, err := os.ReadFile(in.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDiscoveryHTTP: lists from a server that wants a secret, which nobody sees; addresses that may not be asked are not.
func TestDiscoveryHTTP(t *testing.T) {
	a, b := newComesAndGoes(t, "a"), newComesAndGoes(t, "b")
	var list atomic.Value
	list.Store(fmt.Sprintf(`{"hosts":[{"address":%q,"weight":1}]}`, a.address))
	asked := atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer hunter2" || r.Header.Get("X-Key") != "hunter3" || r.URL.Query().Get("key") != "hunter4" {
			w.WriteHeader(403)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, list.Load().(string))
	}))
	defer server.Close()
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := fmt.Sprintf("kind = \"http\"\nurl = \"%s/list?key=hunter4\"\ntoken_file = %q\nheaders = [\"X-Key: ${KEY}\"]\ninterval = \"1h\"\nretry_min = \"100ms\"\nretry_max = \"100ms\"\n", server.URL, secret)
	in := startInstance(t, withDiscovery(table, ""), "KEY=hunter3")
	in.wantLog(`a source of backends fails.* error=".*127.0.0.1 is refused: it is an address of this machine; allow it if that is what you want"`)
	in.write(withDiscovery(table+"allow = [\"127.0.0.0/8\"]\n", "[engine]\ndiscovery_allow = [\"10.0.0.0/8\"]\n"))
	in.signal(syscall.SIGHUP)
	in.wantLog(`error=".*127.0.0.1 is refused: engine.discovery_allow does not have it"`)
	if n := asked.Load(); n != 0 {
		t.Errorf("it was asked %d times though that is not allowed", n)
	}
	in.write(withDiscovery(table+"allow = [\"127.0.0.0/8\"]\n", "[engine]\ndiscovery_allow = [\"10.0.0.0/8\", \"127.0.0.1\"]\n"))
	in.signal(syscall.SIGHUP)
	in.wantLog(`msg="backends have changed" pool=p backends=1 added=` + a.address)
	tr := startTraffic(t, in.address("f"), 2)
	tr.wantOnly("a")
	list.Store(fmt.Sprintf(`{"hosts":[{"address":%q},{"address":%q}]}`, a.address, b.address))
	if code, text := post(t, in, "/api/v1/discovery/p/refresh"); code != 204 {
		t.Errorf("refresh: %d %s", code, text)
	}
	tr.wantOnly("a", "b")
	server.Close()
	if code, _ := post(t, in, "/api/v1/discovery/p/refresh"); code != 204 {
		t.Error("refresh")
	}
	in.wantLog(`error=".*connection refused"`)
	tr.wantOnly("a", "b")
	in.write(withDiscovery(strings.Replace(table, "token_file", "max_backends = 10\ntoken_file", 1), ""))
	in.signal(syscall.SIGHUP)
	in.wantLog("msg=reloaded .*config_version=4 ")
	for _, seen := range []string{in.log(), body(t, in, "/api/v1/status"), body(t, in, "/api/v1/discovery"), body(t, in, "/api/v1/events"), body(t, in, "/metrics")} {
		if strings.Contains(seen, "hunter") {
			t.Errorf("a secret is shown: %s", seen)
		}
	}
}

// TestDiscoveryDNS: the addresses of a name, from a server that is asked again as its answers say.
func TestDiscoveryDNS(t *testing.T) {
	// Backends on one port at several addresses.
	port := lbtest.FreePort(t)
	first, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	for l, name := range map[net.Listener]string{first: "a", second: "b"} {
		lbtest.ServeOn(t, l, func(c net.Conn) {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				_, _ = io.WriteString(c, name)
			}
		})
	}
	var ips atomic.Value
	ips.Store([]string{"127.0.0.1"})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		if q.Question[0].Qtype == dns.TypeA {
			for _, ip := range ips.Load().([]string) {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 0}, A: net.ParseIP(ip)})
			}
		}
		_ = w.WriteMsg(m)
	})}
	served := make(chan error, 1)
	go func() { served <- server.ActivateAndServe() }()
	defer func() {
		_ = pc.Close()
		<-served
	}()
	in := startInstance(t, withDiscovery(fmt.Sprintf("[[pools.p.discovery.sources]]\nkind = \"dns\"\nname = \"web.internal\"\nport = %d\nservers = [%q]\nmin_ttl = \"100ms\"\nmax_ttl = \"100ms\"\n"+
		"[[pools.p.discovery.sources]]\nkind = \"file\"\npath = \"none\"\n", port, pc.LocalAddr()), ""))
	tr := startTraffic(t, in.address("f"), 2)
	tr.wantOnly("a")
	ips.Store([]string{"127.0.0.1", "127.0.0.2"})
	tr.wantOnly("a", "b")
	ips.Store([]string{"127.0.0.2"})
	tr.wantOnly("b")
	ips.Store([]string{})
	in.wantLog(`msg="a source suddenly knows far fewer backends.* source=dns:web.internal:\d+ got="0 backends where 1 are in use"`)
	tr.wantOnly("b")
	var st struct {
		Pools []struct {
			Pool    string
			Sources []struct{ Name, State string }
		}
	}
	if err := json.Unmarshal([]byte(body(t, in, "/api/v1/discovery")), &st); err != nil || len(st.Pools) != 1 || len(st.Pools[0].Sources) != 2 ||
		st.Pools[0].Sources[0].State != "holding" || st.Pools[0].Sources[1].State != "failing" {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestDiscoveryHealth: those who are found are checked, and those who are down are not used.
func TestDiscoveryHealth(t *testing.T) {
	a, b := newComesAndGoes(t, "a"), newComesAndGoes(t, "b")
	file := filepath.Join(t.TempDir(), "backends.txt")
	dead := lbtest.Refused(t)
	replace(t, file, a.address+"\n"+dead+"\n")
	// A new backend is down at first, and lowers the share of those that are up: not to be taken for a panic.
	text := withDiscovery(fmt.Sprintf("kind = \"file\"\npath = %q\ninterval = \"100ms\"\nmin_share = 0\n[pools.p.health]\ninterval = \"100ms\"\ninitial = \"down\"\nrise = 1\nfall = 1\n", file), "")
	in := startInstance(t, strings.Replace(text, "connect_attempts = 1", "connect_attempts = 1\npanic_threshold = 0", 1))
	lbtest.Eventually(t, "one of two is up", func() bool {
		st := body(t, in, "/api/v1/status")
		return strings.Count(st, `"last_result": "good"`) == 1 && strings.Count(st, `"last_result": "bad"`) == 1
	})
	tr := startTraffic(t, in.address("f"), 2)
	tr.wantOnly("a")
	replace(t, file, a.address+"\n"+b.address+"\n"+dead+"\n")
	in.wantLog(`msg="backend is up" pool=p backend=` + b.address)
	tr.wantOnly("a", "b")
	in.signal(syscall.SIGHUP) // the checks of those found go on
	in.wantLog("msg=reloaded")
	tr.wantOnly("a", "b")
	replace(t, file, b.address+"\n")
	tr.wantOnly("b")
	lbtest.Eventually(t, "those who are gone are checked no more", func() bool {
		return strings.Count(body(t, in, "/metrics"), "awe4lb_health_checks_total{") == 3 // good, bad, unknown
	})
}

// TestDiscoveryCheck: check asks nobody, and tells what is missing here.
func TestDiscoveryCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "awe4lb.toml")
	check := func(text string) (int, string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := result(t, "check", "--config", path)
		return code, stdout + stderr
	}
	asked := atomic.Bool{}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer server.Close()
	if code, out := check(withDiscovery(fmt.Sprintf("kind = \"http\"\nurl = %q\nallow = [\"127.0.0.1\"]\n", server.URL), "")); code != 0 || strings.Contains(out, "no backends") || asked.Load() {
		t.Errorf("%d %s, asked: %v", code, out, asked.Load())
	}
	if code, out := check(withDiscovery("kind = \"http\"\nurl = \"https://catalog.internal\"\nca = \"/nonexistent/ca.pem\"\n", "")); code != 1 || !strings.Contains(out, "awe4lb.toml:8: pools.p.discovery: http: open /nonexistent/ca.pem") {
		t.Errorf("%d %s", code, out)
	}
}
