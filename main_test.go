package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"

	"golang.org/x/net/dns/dnsmessage"
)

// TestMain lets the test binary be awe4lb, so that what is tested from outside is what was compiled with the tests.
func TestMain(m *testing.M) {
	if os.Getenv("AWE4LB_TEST_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is awe4lb with arguments, not yet started.
func command(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	// Under the race detector a process that has succeeded waits for a second before it ends, unless told otherwise.
	c.Env = append(os.Environ(), "AWE4LB_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0")
	return c
}

// result runs awe4lb to its end.
func result(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := command(args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Wait()
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// instance is a running awe4lb and what it has logged.
type instance struct {
	t    *testing.T
	cmd  *exec.Cmd
	path string // of its configuration

	mu   sync.Mutex
	text strings.Builder // guarded by mu

	ended chan struct{}
}

// startInstance runs awe4lb with a configuration and waits until it is ready.
func startInstance(t *testing.T, text string, extraEnv ...string) *instance {
	t.Helper()
	return startInstanceIn(t, t.TempDir(), text, extraEnv...)
}

// startInstanceIn is startInstance with the folder of the configuration.
func startInstanceIn(t *testing.T, dir, text string, extraEnv ...string) *instance {
	t.Helper()
	in := &instance{t: t, path: filepath.Join(dir, "awe4lb.toml"), ended: make(chan struct{})}
	in.write(text)
	in.cmd = command("run", "--config", in.path)
	in.cmd.Env = append(in.cmd.Env, extraEnv...)
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in.cmd.Stdout, in.cmd.Stderr = w, w
	if err := in.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		s := bufio.NewScanner(pipe)
		for s.Scan() {
			in.mu.Lock()
			in.text.WriteString(s.Text() + "\n")
			in.mu.Unlock()
		}
		pipe.Close()
		_ = in.cmd.Wait()
		close(in.ended)
	}()
	t.Cleanup(func() {
		_ = in.cmd.Process.Kill()
		<-in.ended
		if t.Failed() {
			t.Logf("its log:\n%s", in.log())
		}
	})
	in.wantLog("msg=ready")
	return in
}

func (in *instance) write(text string) {
	in.t.Helper()
	if err := os.WriteFile(in.path, []byte(text), 0o600); err != nil {
		in.t.Fatal(err)
	}
}

func (in *instance) log() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.text.String()
}

// wantLog waits until the log has a match.
func (in *instance) wantLog(pattern string) []string {
	in.t.Helper()
	re := regexp.MustCompile(pattern)
	var match []string
	lbtest.Eventually(in.t, "log has "+pattern, func() bool {
		match = re.FindStringSubmatch(in.log())
		return match != nil
	})
	return match
}

// address returns where a frontend listens.
func (in *instance) address(frontend string) string {
	in.t.Helper()
	return in.wantLog("msg=listening frontend=" + frontend + ` protocol=\w+ address=(\S+)`)[1]
}

func (in *instance) adminURL() string {
	in.t.Helper()
	return "http://" + in.wantLog(`msg="admin listening" address=(\S+)`)[1]
}

func (in *instance) signal(s syscall.Signal) {
	in.t.Helper()
	if err := in.cmd.Process.Signal(s); err != nil {
		in.t.Fatal(err)
	}
}

// wantExit waits for the end and compares the exit code.
func (in *instance) wantExit(code int) {
	in.t.Helper()
	select {
	case <-in.ended:
	case <-time.After(10 * time.Second):
		in.t.Fatal("still running after 10 s")
	}
	if got := in.cmd.ProcessState.ExitCode(); got != code {
		in.t.Errorf("exit code %d, want %d", got, code)
	}
}

// toml is a configuration with one frontend and one backend. The admin is off unless more has it on: its default port may be
// somebody else's.
func toml(backend, more string) string {
	off := ""
	if !strings.Contains(more, "[admin]") {
		off = "[admin]\nbind = \"\"\n"
	}
	return fmt.Sprintf(`%s
%s[frontends.f]
bind = ["127.0.0.1:0"]
pool = "p"
[pools.p]
backends = [{ address = %q }]
`, more, off, backend)
}

const admin0 = "[admin]\nbind = \"127.0.0.1:0\"\n"

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// ask says something and wants to hear it back.
func ask(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(what))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != what {
		t.Fatalf("got %q, %v; want %q", b, err, what)
	}
}

func get(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestDefaultConfig keeps the file in the tree from rotting.
func TestDefaultConfig(t *testing.T) {
	cfg, err := config.Load("awe4lb.toml")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Error(cfg.Warnings)
	}
	if a := cfg.Frontend("web").Addresses[0].String(); a != "127.0.0.1:8080" || cfg.Admin.Bind != "127.0.0.1:7070" {
		t.Errorf("web on %s, admin on %s: make run promises 127.0.0.1:8080 and 127.0.0.1:7070", a, cfg.Admin.Bind)
	}
}

func TestCheckAndExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	good := filepath.Join(t.TempDir(), "good.toml")
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(good, []byte(toml("127.0.0.1:1", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte(toml("127.0.0.1:1", "typo = 1")+"policy = \"rand\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string // what they have to contain
	}{
		{[]string{"check", "--config", good}, 0, "good: 1 frontend, 1 pool, 1 backend", ""},
		{[]string{"check", "--config", bad}, 1, "", "bad.toml:9: pools.p.policy: got \"rand\"; want random, roundrobin, leastconn, leasttime, leastbandwidth, p2c, iphash or maglev (did you mean \"random\"?)\nawe4lb: 2 mistakes\n"},
		{[]string{"check", "--config", "/nonexistent"}, 1, "", "awe4lb: open /nonexistent: no such file or directory"},
		{[]string{"check"}, 1, "", "awe4lb: open awe4lb.toml: no such file or directory (--config FILE says where it is; 'awe4lb demo' needs none)\n"},
		{nil, 1, "", "awe4lb: open awe4lb.toml: no such file or directory (--config FILE says where it is; 'awe4lb demo' needs none)\n"},
		{[]string{"run", "--config", bad}, 1, "", "2 mistakes"},
		{[]string{"--config", bad}, 1, "", "2 mistakes"},
		{[]string{"chekc"}, 2, "", "unknown command \"chekc\" (did you mean \"check\"?)\nTry 'awe4lb --help'."},
		{[]string{"lb.toml"}, 2, "", "unknown command \"lb.toml\" (--config lb.toml?)\n"},
		{[]string{"config", "hist"}, 2, "", "unknown command \"hist\" (did you mean \"history\"?)\nTry 'awe4lb config --help'."},
		{[]string{"run", "--confg", good}, 2, "", "unknown flag: --confg\nTry 'awe4lb run --help'."},
		{[]string{"run", "lb.toml"}, 2, "", "got the argument \"lb.toml\"; want none (--config lb.toml?)\nTry 'awe4lb run --help'."},
		{[]string{"check", "--config", good, "extra"}, 2, "", "got the argument \"extra\"; want none\n"},
		{[]string{"version", "extra"}, 2, "", "got the argument \"extra\"; want none\n"},
		{[]string{"version"}, 0, "awe4lb dev", ""},
		{[]string{"--help"}, 0, "awe4lb demo", ""},
		{[]string{"run", "--help"}, 0, "SIGHUP", ""},
		{[]string{"discovery", "refresh", "--help"}, 0, "Whom to ask, as whom, and how to answer:\n  -o, --output", ""},
		{[]string{"completion", "bash"}, 0, "__start_awe4lb", ""},
	} {
		code, stdout, stderr := result(t, tc.args...) // in a folder without a configuration
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("awe4lb %v: exit code %d, stdout %q, stderr %q; want %d, %q, %q", tc.args, code, stdout, stderr,
				tc.code, tc.stdout, tc.stderr)
		}
	}
}

func TestCannotBind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path := filepath.Join(t.TempDir(), "awe4lb.toml")
	for name, text := range map[string]string{
		":4: frontends.f.bind[0]: ": strings.Replace(toml("127.0.0.1:1", "[admin]\nbind = \"\""), "127.0.0.1:0", taken.Addr().String(), 1),
		":2: admin.bind: ":          toml("127.0.0.1:1", fmt.Sprintf("[admin]\nbind = %q", taken.Addr())),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := result(t, "run", "--config", path)
		if code != 3 || !strings.Contains(stderr, "awe4lb: "+path+name) ||
			!strings.Contains(stderr, "address already in use (another process listens there: ss -ltnp 'sport = :") {
			t.Errorf("exit code %d, %q; want 3 and %s", code, stderr, name)
		}
	}
}

func TestReload(t *testing.T) {
	old := lbtest.Serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	in := startInstance(t, toml(old, admin0))
	address, url := in.address("f"), in.adminURL()
	c := dial(t, address)
	ask(t, c, "before")

	// A mistake: told at length, and nothing changes.
	in.write(toml("127.0.0.1:99999", admin0))
	in.signal(syscall.SIGHUP)
	in.wantLog(`msg="configuration: \S+awe4lb.toml:8: pools.p.backends\[0\].address: got \\"127.0.0.1:99999\\"; want a port`)
	in.wantLog(`msg="reload refused: the running configuration stays" error="1 mistake"`)
	code, body := get(t, "POST", url+"/api/v1/reload")
	var problem struct {
		Status int
		Errors []struct {
			Line int
			Key  string
		}
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || code != 422 || problem.Status != 422 ||
		len(problem.Errors) != 1 || problem.Errors[0].Line != 8 || problem.Errors[0].Key != "pools.p.backends[0].address" {
		t.Errorf("POST reload: %d %s", code, body)
	}
	other := dial(t, address)
	ask(t, other, "still the old one")
	other.Close()
	if _, m := get(t, "GET", url+"/metrics"); !strings.Contains(m, `awe4lb_config_reloads_total{result="failed"} 2`) ||
		!strings.Contains(m, "awe4lb_config_last_reload_success 0") {
		t.Error("metrics do not tell of the failed reloads")
	}

	// A good one.
	in.write(toml(lbtest.Named(t, "the new one"), admin0))
	code, body = get(t, "POST", url+"/api/v1/reload")
	if code != 200 || !strings.Contains(body, `"action": "removed"`) || !strings.Contains(body, " on\"") {
		t.Errorf("POST reload: %d %s", code, body)
	}
	other = dial(t, address)
	if b, err := io.ReadAll(other); err != nil || string(b) != "the new one" {
		t.Errorf("got %q, %v", b, err)
	}
	other.Close()
	ask(t, c, "a session outlives the reload")
	if _, s := get(t, "GET", url+"/api/v1/status"); !strings.Contains(s, `"state": "draining"`) {
		t.Errorf("status does not show the old backend draining: %s", s)
	}

	// What only a start applies is said.
	in.write(toml(old, admin0+"[engine]\nshards = 1\n"))
	in.signal(syscall.SIGHUP)
	in.wantLog(`takes effect at the next start" setting=engine.shards`)
	in.signal(syscall.SIGTERM)
	c.Close()
	in.wantExit(0)
}

func TestDrainOnTerm(t *testing.T) {
	t.Run("sessions finish", func(t *testing.T) {
		in := startInstance(t, toml(lbtest.Echo(t), admin0))
		address, url := in.address("f"), in.adminURL()
		c := dial(t, address)
		ask(t, c, "hello")
		in.signal(syscall.SIGTERM)
		in.wantLog("draining: a second signal ends at once.* sessions=1")
		lbtest.Eventually(t, "new clients are refused", func() bool {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		if code, body := get(t, "GET", url+"/healthz"); code != 503 || body != "draining\n" {
			t.Errorf("healthz: %d %q", code, body)
		}
		ask(t, c, "not cut")
		c.Close()
		in.wantExit(0)
		in.wantLog("msg=drained cut=0")
	})
	t.Run("drain_timeout", func(t *testing.T) {
		in := startInstance(t, toml(lbtest.Echo(t), "[engine]\ndrain_timeout = \"200ms\"\n[log.access]\noutput = \"stdout\""))
		c := dial(t, in.address("f"))
		ask(t, c, "hello")
		in.signal(syscall.SIGTERM)
		in.wantExit(0)
		in.wantLog("msg=drained cut=1")
		in.wantLog("reason=drained frontend=f ")
	})
	t.Run("second signal", func(t *testing.T) {
		in := startInstance(t, toml(lbtest.Echo(t), "[log.access]\noutput = \"stdout\""))
		c := dial(t, in.address("f"))
		ask(t, c, "hello")
		in.signal(syscall.SIGINT)
		in.wantLog("msg=\"draining")
		in.signal(syscall.SIGTERM)
		in.wantExit(0)
		in.wantLog("reason=killed frontend=f ")
	})
}

func TestAccessLogAndRotation(t *testing.T) {
	dir := t.TempDir()
	access, own := filepath.Join(dir, "access.log"), filepath.Join(dir, "awe4lb.log")
	backend := lbtest.Echo(t)
	in := startInstance(t, toml(backend, fmt.Sprintf("[log.access]\nformat = \"json\"\noutput = %q\n", access)))
	address := in.address("f")
	c := dial(t, address)
	ask(t, c, "12345")
	c.Close()
	line := func(path string) map[string]any {
		t.Helper()
		var v map[string]any
		lbtest.Eventually(t, path+" has a line", func() bool {
			b, _ := os.ReadFile(path)
			return len(b) > 0 && json.Unmarshal(bytes.Split(b, []byte("\n"))[0], &v) == nil
		})
		return v
	}
	v := line(access)
	if v["reason"] != "client_eof" || v["frontend"] != "f" || v["pool"] != "p" || v["backend"] != backend ||
		v["c2b"] != 5.0 || v["b2c"] != 5.0 || v["attempts"] != 1.0 || v["client"] != c.LocalAddr().String() ||
		v["duration"].(float64) <= 0 || v["connect"].(float64) <= 0 {
		t.Errorf("got %v", v)
	}
	if when, err := time.Parse(time.RFC3339, v["time"].(string)); err != nil || time.Since(when) > time.Minute {
		t.Errorf("time %v, %v", v["time"], err)
	}

	// Rotation: moved away, SIGUSR1, a new file.
	if err := os.Rename(access, access+".1"); err != nil {
		t.Fatal(err)
	}
	in.signal(syscall.SIGUSR1)
	in.wantLog("log files reopened")
	c = dial(t, address)
	ask(t, c, "123")
	c.Close()
	if v := line(access); v["c2b"] != 3.0 {
		t.Errorf("in the new file: %v", v)
	}

	// A reload moves both logs elsewhere.
	in.write(toml(backend, fmt.Sprintf("[log]\nlevel = \"debug\"\noutput = %q\n", own)))
	in.signal(syscall.SIGHUP)
	lbtest.Eventually(t, "the log is in its file", func() bool {
		b, _ := os.ReadFile(own)
		return strings.Contains(string(b), "msg=reloaded")
	})
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
}

// visitTLS asks for url, trusting the certificate in a file.
func visitTLS(t *testing.T, file, url string) {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || !strings.HasPrefix(string(b), "hello from backend-") {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestDemo(t *testing.T) {
	if _, err := net.DialTimeout("tcp", "127.0.0.1:8080", time.Second); err == nil {
		t.Fatal("something listens on 127.0.0.1:8080, which the demo needs")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:9001")
	if err != nil {
		t.Fatal(err)
	}
	code, _, stderr := result(t, "demo")
	taken.Close()
	if want := "address already in use (another demo, or another process: ss -ltnp 'sport = :9001')\n"; code != 3 || !strings.HasSuffix(stderr, want) {
		t.Errorf("exit code %d, %q; want 3 and %q", code, stderr, want)
	}
	c := command("demo")
	c.Dir = t.TempDir() // without an awe4lb.toml
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	s := bufio.NewScanner(out)
	var text strings.Builder
	for s.Scan() && !strings.Contains(s.Text(), "Ctrl-C ends it") {
		text.WriteString(s.Text() + "\n")
	}
	pid := regexp.MustCompile(`kill (\d+) .*backend-2`).FindStringSubmatch(text.String())
	if pid == nil {
		t.Fatalf("the demo said %q", text.String())
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	seen := map[string]int{}
	visit := func() {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get("http://127.0.0.1:8080/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		seen[strings.Fields(string(b))[2]]++
	}
	for range 6 {
		visit()
	}
	if seen["backend-1"] != 2 || seen["backend-2"] != 2 || seen["backend-3"] != 2 {
		t.Errorf("got %v; want each twice", seen)
	}
	cacert := regexp.MustCompile(`curl --cacert (\S+) https://localhost:8443/`).FindStringSubmatch(text.String())
	if cacert == nil {
		t.Fatalf("the demo says nothing of TLS: %q", text.String())
	}
	visitTLS(t, cacert[1], "https://localhost:8443/")
	page := regexp.MustCompile(`(http://\S+/) +# in a browser`).FindStringSubmatch(text.String())
	if page == nil || !strings.Contains(text.String(), " top --admin 127.0.0.1:7070 ") {
		t.Fatalf("the demo says nothing of the page or of top: %q", text.String())
	}
	wantPage(t, page[1])
	if got := askDNS(t, "127.0.0.1:5353"); got[0] != "dns-1" || got[1] != "dns-2" || got[2] != "dns-3" {
		t.Errorf("DNS answers came from %v; want the three backends in turn", got)
	}
	var n int
	if _, err := fmt.Sscan(pid[1], &n); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	lbtest.Eventually(t, "backend-2 is gone", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:9002")
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	for range 6 {
		visit()
	}
	if seen["backend-2"] != 2 {
		t.Errorf("backend-2 answered after its end: %v", seen)
	}
	_ = c.Process.Signal(syscall.SIGINT)
	_, _ = io.Copy(io.Discard, out)
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", "127.0.0.1:9001"); err == nil {
		c.Close()
		t.Error("a demo backend outlives the demo")
	}
}

// wantPage makes sure that a browser gets the page.
func wantPage(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,*/*;q=0.8")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(text), "<title>awe4lb</title>") {
		t.Errorf("%s: %d, %v, %s", url, res.StatusCode, err, text)
	}
}

// askDNS asks a demo DNS server three times, as a new client each, and returns who answered.
func askDNS(t *testing.T, address string) (names [3]string) {
	t.Helper()
	for i := range names {
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(i)}, Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName("who.demo."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}}}
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(b)
		b = make([]byte, 512)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		var a dnsmessage.Message
		if err := a.Unpack(b[:n]); err != nil || a.ID != uint16(i) || len(a.Answers) != 1 {
			t.Fatalf("got %v, %v", a, err)
		}
		names[i] = strings.Fields(a.Answers[0].Body.(*dnsmessage.TXTResource).TXT[0])[2]
	}
	return names
}
