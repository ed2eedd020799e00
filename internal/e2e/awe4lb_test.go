//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// awe4lb is the process under test.
type awe4lb struct {
	*program
	path  string // of the configuration
	admin string // http://127.0.0.1:PORT
	api   *http.Client
	log   *jsonLog
	stop  func()   // ends it and checks how it ended; later calls do nothing
	mayBe []string // beginnings of messages at level ERROR that the test expects
}

// prelude makes the log readable and the admin's port free. Tests append their own tables.
const prelude = `
[log]
format = "json"
[admin]
bind = "127.0.0.1:0"
`

// balance is the configuration most tests use: one frontend, "test", on any free port, before these backends.
func balance(backends ...string) string {
	return `
[frontends.test]
bind = ["127.0.0.1:0"]
pool = "test"

[pools.test]
backends = [` + addresses(backends...) + `]
`
}

func addresses(backends ...string) string {
	var list []string
	for _, b := range backends {
		list = append(list, fmt.Sprintf("{ address = %q }", b))
	}
	return strings.Join(list, ", ")
}

// start runs `awe4lb run` with a configuration and returns when it is ready. It is stopped with the test.
func start(t *testing.T, config string) *awe4lb {
	t.Helper()
	return startAs(t, config, nil)
}

// startAs is start after edit has changed the command. prefix, if any, are a command and its arguments that execute
// awe4lb in their turn.
func startAs(t *testing.T, config string, edit func(*exec.Cmd), prefix ...string) *awe4lb {
	t.Helper()
	lb := &awe4lb{path: write(t, openDir(t), "awe4lb.toml", prelude+config), log: new(jsonLog), api: api}
	argv := append(prefix, binary, "run", "--config", lb.path)
	lb.program = launch(t, func(cmd *exec.Cmd) {
		cmd.Stdout, cmd.Stderr = nil, io.MultiWriter(lb.log, cmd.Stderr)
		if edit != nil {
			edit(cmd)
		}
	}, argv[0], argv[1:]...)
	lb.waitFor("awe4lb is ready", func() bool { return lb.log.count("ready") == 1 })
	lb.admin = "http://" + lb.log.find("admin listening")[0].text("address")
	lb.stop = sync.OnceFunc(lb.terminate)
	t.Cleanup(lb.stop)
	return lb
}

// terminate ends the process with SIGTERM and checks everything that the package comment says of its end.
func (lb *awe4lb) terminate() {
	t := lb.t
	if lb.ended() {
		t.Errorf("awe4lb ended by itself: %v", lb.err)
		return
	}
	if t.Failed() {
		lb.end(syscall.SIGKILL) // its connections may still be open
		return
	}
	lb.signal(syscall.SIGTERM)
	select {
	case <-lb.done:
	case <-time.After(40 * time.Second): // drain_timeout is 30 s
		t.Errorf("awe4lb does not end within 40 s of SIGTERM")
		return
	}
	if lb.err != nil {
		t.Errorf("awe4lb ended with %v, want exit code 0", lb.err)
	}
	for _, r := range lb.log.find("drained") {
		if cut := r.number("cut"); cut != 0 {
			t.Errorf("%v sessions had to be cut at the end; want the clients' end to have ended them", cut)
		}
	}
	for _, r := range lb.log.all() {
		if r.level() == "ERROR" && !slices.ContainsFunc(lb.mayBe, func(s string) bool { return strings.HasPrefix(r.message(), s) }) {
			t.Errorf("in the log of awe4lb: %v", r)
		}
	}
}

// expectError says that messages that begin so, at level ERROR, belong to the test.
func (lb *awe4lb) expectError(beginning string) { lb.mayBe = append(lb.mayBe, beginning) }

// status is what the tests want to know of GET /api/v1/status.
type status struct {
	Config    struct{ Version int }
	Sessions  struct{ Open, Limit int }
	Flows     struct{ Open, Limit int }
	Frontends []frontendStatus
	Pools     []struct {
		Name     string
		Retries  int64
		Backends []backendStatus
	}
	Shards []struct {
		Pipes        int
		AcceptPauses int64 `json:"accept_pauses"`
		AcceptErrors int64 `json:"accept_errors"`
		SplicedBytes int64 `json:"spliced_bytes"`
	}
	ACME []struct{ Name, State, Error string }
}

type frontendStatus struct {
	Name      string
	Listeners []string
	Open      int
	Accepted  int64
	Bytes     bytesByDirection
	Ended     map[string]int64
	UDP       struct {
		Datagrams  bytesByDirection // their number
		DroppedC2B map[string]int64 `json:"dropped_c2b"`
		DroppedB2C map[string]int64 `json:"dropped_b2c"`
	}
}

type backendStatus struct {
	Address       string
	Open          int
	Connected     int64
	ConnectErrors map[string]int64 `json:"connect_errors"`
	Bytes         bytesByDirection
}

type bytesByDirection struct{ C2B, B2C int64 }

var api = &http.Client{Timeout: 10 * time.Second}

func (lb *awe4lb) status() *status {
	lb.t.Helper()
	s := new(status)
	if err := json.Unmarshal(lb.get("/api/v1/status"), s); err != nil {
		lb.t.Fatal(err)
	}
	return s
}

func (lb *awe4lb) get(path string) []byte {
	lb.t.Helper()
	answer, err := lb.api.Get(lb.admin + path)
	if err != nil {
		lb.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		lb.t.Fatalf("GET %s: %s, %v\n%s", path, answer.Status, err, body)
	}
	return body
}

// frontend returns what the status says of a frontend.
func (lb *awe4lb) frontend(name string) frontendStatus {
	lb.t.Helper()
	for _, f := range lb.status().Frontends {
		if f.Name == name {
			return f
		}
	}
	lb.t.Fatalf("no frontend %q", name)
	return frontendStatus{}
}

// backend returns what the status says of a backend.
func (lb *awe4lb) backend(address string) backendStatus {
	lb.t.Helper()
	for _, p := range lb.status().Pools {
		for _, b := range p.Backends {
			if b.Address == address {
				return b
			}
		}
	}
	lb.t.Fatalf("no backend %s", address)
	return backendStatus{}
}

// address returns where a frontend listens: the first of its addresses.
func (lb *awe4lb) address(frontend string) string {
	lb.t.Helper()
	f := lb.frontend(frontend)
	if len(f.Listeners) == 0 {
		lb.t.Fatalf("frontend %q listens nowhere", frontend)
	}
	return f.Listeners[0]
}

// port is the port of address.
func (lb *awe4lb) port(frontend string) string {
	lb.t.Helper()
	address := lb.address(frontend)
	return address[strings.LastIndexByte(address, ':')+1:]
}

// bytes returns the counters of the only frontend.
func (lb *awe4lb) bytes() bytesByDirection {
	lb.t.Helper()
	return lb.status().Frontends[0].Bytes
}

// settled waits until no session moves bytes any more, for half a second on end, and returns the counters.
func (lb *awe4lb) settled() bytesByDirection {
	lb.t.Helper()
	last, since := lb.bytes(), time.Now()
	lbtest.EventuallyIn(lb.t, 30*time.Second, "the traffic has come to rest", func() bool {
		if now := lb.bytes(); now != last {
			last, since = now, time.Now()
		}
		time.Sleep(20 * time.Millisecond) // the pace of asking
		return time.Since(since) > 500*time.Millisecond
	})
	return last
}

// sessionsEnd waits until no session is left. It asks so seldom that the counters that are asked for next are of now.
func (lb *awe4lb) sessionsEnd() {
	lb.t.Helper()
	lbtest.Eventually(lb.t, "the sessions have ended", func() bool {
		if lb.status().Sessions.Open == 0 {
			return true
		}
		time.Sleep(60 * time.Millisecond) // the pace of asking
		return false
	})
}

// metric returns the value of a series without labels of GET /metrics.
func (lb *awe4lb) metric(name string) float64 {
	lb.t.Helper()
	for line := range strings.Lines(string(lb.get("/metrics"))) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				lb.t.Fatal(err)
			}
			return f
		}
	}
	lb.t.Fatalf("no series %s in /metrics", name)
	return 0
}

// edit replaces the configuration file, whole at once. A reload makes it the running configuration.
func (lb *awe4lb) edit(config string) {
	lb.t.Helper()
	next := write(lb.t, filepath.Dir(lb.path), "next.toml", prelude+config)
	if err := os.Rename(next, lb.path); err != nil {
		lb.t.Fatal(err)
	}
}

// hangUp reloads by SIGHUP and waits until that is done.
func (lb *awe4lb) hangUp() {
	lb.t.Helper()
	before := lb.log.count("reloaded")
	lb.signal(syscall.SIGHUP)
	lb.waitFor("reload by SIGHUP", func() bool { return lb.log.count("reloaded") > before })
}

// reload reloads by POST /api/v1/reload.
func (lb *awe4lb) reload() error {
	answer, err := lb.api.Post(lb.admin+"/api/v1/reload", "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("POST /api/v1/reload: %s\n%s", answer.Status, body)
	}
	return err
}

// jsonLog takes a log of one JSON object per line.
type jsonLog struct {
	mu      sync.Mutex
	partial []byte
	records []record
}

// record is a line of the log.
type record map[string]any

func (r record) text(key string) string { s, _ := r[key].(string); return s }

func (r record) number(key string) float64 { n, _ := r[key].(float64); return n }

func (r record) message() string { return r.text("msg") }

func (r record) level() string { return r.text("level") }

// time is when the line was written.
func (r record) time() time.Time {
	at, _ := time.Parse(time.RFC3339Nano, r.text("time"))
	return at
}

func (l *jsonLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, b...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		r := record{}
		if err := json.Unmarshal(line, &r); err != nil { // a panic, or words before the log was set up
			r = record{"level": "ERROR", "msg": string(line)}
		}
		l.records = append(l.records, r)
		l.partial = rest
	}
}

func (l *jsonLog) all() []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]record(nil), l.records...)
}

// find returns the lines with a message.
func (l *jsonLog) find(message string) []record {
	var found []record
	for _, r := range l.all() {
		if r.message() == message {
			found = append(found, r)
		}
	}
	return found
}

func (l *jsonLog) count(message string) int { return len(l.find(message)) }
