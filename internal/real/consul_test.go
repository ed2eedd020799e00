//go:build real

// Package consul has the tests of discovery against a real Consul server (make test-real-consul).
package consul

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
	"awe4lb/internal/real/follow"
)

var away = flag.Duration("down", time.Minute, "how long the server is down")

const version = "1.22.3"

// server is a Consul server, alone, that keeps what it knows in a folder.
type server struct {
	t      *testing.T
	folder string
	ports  [4]int // http, server, serf lan, serf wan
	url    string
	args   []string // more of the command line
	token  string
	cmd    *exec.Cmd
}

func newServer(t *testing.T) *server {
	s := &server{t: t, folder: t.TempDir()}
	for i := range s.ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s.ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	s.url = fmt.Sprintf("http://127.0.0.1:%d", s.ports[0])
	return s
}

// begin starts it.
func (s *server) begin() {
	s.t.Helper()
	dir := os.Getenv("AWE4LB_REAL")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			s.t.Fatal(err)
		}
		dir = filepath.Join(cache, "awe4lb-real")
	}
	log, err := os.OpenFile(filepath.Join(s.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(dir, "consul-"+version), append([]string{"agent", "-server", "-bootstrap-expect=1", "-node=n1", "-data-dir=" + filepath.Join(s.folder, "data"),
		"-bind=127.0.0.1", "-client=127.0.0.1", "-disable-host-node-id", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", fmt.Sprintf("-http-port=%d", s.ports[0]),
		fmt.Sprintf("-server-port=%d", s.ports[1]), fmt.Sprintf("-serf-lan-port=%d", s.ports[2]), fmt.Sprintf("-serf-wan-port=%d", s.ports[3])}, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("%v; see build.sh", err)
	}
}

// up starts it and waits until it leads.
func (s *server) up() {
	s.t.Helper()
	s.begin()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(s.url + "/v1/status/leader")
		if err == nil {
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == 200 && len(b) > len(`""`)+1 {
				return
			}
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(filepath.Join(s.folder, "log"))
			s.t.Fatalf("no leader after a minute: %s", b[max(0, len(b)-3000):])
		}
	}
}

// down ends it at once, as a crash does.
func (s *server) down() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// put returns the answer.
func (s *server) put(path string, body any) []byte {
	s.t.Helper()
	b, _ := json.Marshal(body)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequest("PUT", s.url+path, bytes.NewReader(b))
		if err != nil {
			s.t.Fatal(err)
		}
		if s.token != "" {
			req.Header.Set("X-Consul-Token", s.token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode == 200 {
			return text
		}
		if time.Now().After(end) { // it has a leader, and is not ready to write for a moment
			s.t.Fatalf("%s: %d %s", path, res.StatusCode, text)
		}
	}
}

// instance has instance n of web in the catalogue, on a node of its own.
func (s *server) instance(n, weight int, status string) {
	s.t.Helper()
	s.put("/v1/catalog/register", map[string]any{
		"Node": fmt.Sprint("web-", n), "Address": fmt.Sprint("10.0.0.", n),
		"Service": map[string]any{"ID": "web", "Service": "web", "Port": 8080, "Tags": []string{"blue"}, "Weights": map[string]int{"Passing": weight, "Warning": 1}},
		"Check":   map[string]any{"CheckID": "service:web", "Name": "web", "ServiceID": "web", "Status": status},
	})
}

func (s *server) remove(n int) {
	s.t.Helper()
	s.put("/v1/catalog/deregister", map[string]any{"Node": fmt.Sprint("web-", n)})
}

func TestService(t *testing.T) {
	s := newServer(t)
	s.up()
	t.Cleanup(s.down)
	s.instance(1, 1, "passing")
	s.instance(2, 1, "passing")
	s.instance(3, 1, "critical")
	c, err := discovery.NewConsul(discovery.ConsulOptions{URL: s.url, Service: "web", Tags: []string{"blue"}, Warning: true, Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	const two = "10.0.0.1:8080/1 10.0.0.2:8080/1"
	p := follow.Start(t, c, two)
	p.Step(two+" 10.0.0.4:8080/1", func() { s.instance(4, 1, "passing") })
	p.Step("10.0.0.1:8080/7 10.0.0.2:8080/1 10.0.0.4:8080/1", func() { s.instance(1, 7, "passing") })
	p.Step("10.0.0.1:8080/1 10.0.0.2:8080/1 10.0.0.4:8080/1", func() { s.instance(1, 7, "warning") })
	p.Step("10.0.0.2:8080/1 10.0.0.4:8080/1", func() { s.instance(1, 7, "critical") })
	p.Step("10.0.0.2:8080/1", func() { s.remove(4) })

	// Blocking queries end with nothing new.
	reports := p.Reports()
	time.Sleep(3 * time.Second)
	if now := p.Status().Sources[0]; p.Reports() != reports || now.State != discovery.Fresh || now.Failures != 0 {
		t.Errorf("%d reports, %s, %v while nothing happened", p.Reports()-reports, now.State, now.Counters.Failed)
	}

	// The last instance goes: not believed.
	p.Step("10.0.0.2:8080/1", func() { s.remove(2); p.State(discovery.Holding) })
	p.Step(two, func() { s.instance(2, 1, "passing"); s.instance(1, 1, "passing") })

	// A restart, and a time without a server.
	for i, pause := range []time.Duration{0, *away} {
		p.Step(follow.Show(p.List()), func() {
			s.down()
			p.State(discovery.Failing)
			time.Sleep(pause)
			s.up()
			p.State(discovery.Fresh)
		})
		p.Step(follow.Show(p.List())+fmt.Sprintf(" 10.0.0.%d:8080/1", 5+i), func() { s.instance(5+i, 1, "passing") })
	}

	// It comes back without its memory: the index goes back and nothing is there, which is not believed.
	p.Step(follow.Show(p.List()), func() {
		s.down()
		p.State(discovery.Failing)
		if err := os.RemoveAll(filepath.Join(s.folder, "data")); err != nil {
			t.Fatal(err)
		}
		s.up()
		p.State(discovery.Holding)
	})
	// One of the four is too few to be believed at once, two are not.
	p.Step(two, func() { s.instance(1, 1, "passing"); s.instance(2, 1, "passing") })
	p.Step(two+" 10.0.0.9:8080/1", func() { s.instance(9, 1, "passing") })
}
