package admin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/confstore"
	"awe4lb/internal/lbtest"
)

// configsOf is Configs on the director of a rig: what main does, without logs and health checks.
type configsOf struct {
	r     *rig
	store *confstore.Store

	mu  sync.Mutex // held while the configuration changes
	now *Running
}

func newConfigs(r *rig, path string, text []byte) *configsOf {
	cfg, err := config.Parse(path, text)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.d.Apply(cfg); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o640); err != nil {
		r.t.Fatal(err)
	}
	return &configsOf{r: r, store: confstore.New(path, ""), now: &Running{confstore.Main, text, confstore.Tag(text), false, cfg}}
}

func (c *configsOf) Store() *confstore.Store { return c.store }

func (c *configsOf) Running() *Running {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *configsOf) parse(ch Change) (*config.Config, error) {
	path, err := c.store.Path(ch.Name)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(path, ch.Text)
	if err != nil {
		return nil, err
	}
	if ch.Name != confstore.Main {
		cfg.Admin = c.now.Config.Admin
	}
	return cfg, ch.Check(cfg, c.now.Config)
}

func (c *configsOf) Preview(ch Change) (*Preview, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg, err := c.parse(ch)
	if err != nil {
		return nil, err
	}
	report, err := c.r.d.Preview(cfg)
	if err != nil {
		return nil, err
	}
	return &Preview{report, cfg.Warnings}, nil
}

func (c *configsOf) Run(ch Change) (*balancer.Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.After != "" && ch.After != confstore.Tag(c.now.Text) {
		return nil, ErrChanged
	}
	cfg, err := c.parse(ch)
	if err != nil {
		return nil, err
	}
	report, err := c.r.d.Apply(cfg)
	if err != nil {
		return nil, err
	}
	c.now = &Running{ch.Name, ch.Text, ch.Stored, false, cfg}
	if ch.Keep != nil {
		err = ch.Keep()
	}
	return report, err
}

func (c *configsOf) Stop() (*balancer.Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := *c.now
	now.Stopped = true
	c.now = &now
	return c.r.d.Apply(&config.Config{Admin: c.now.Config.Admin, Engine: c.now.Config.Engine, Log: c.now.Config.Log})
}

// body sends a request with a body of a type, and returns status, body and headers.
func (r *rig) body(method, path, kind, body string, headers ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return r.send(req)
}

const (
	asTOML = "application/toml"
	asJSON = "application/json"
)

// want sends a request and makes sure of its status; it returns the body.
func (r *rig) want(status int, method, path, kind, body string, headers ...string) string {
	r.t.Helper()
	got, text, _ := r.body(method, path, kind, body, headers...)
	if got != status {
		r.t.Fatalf("%s %s: %d; want %d: %s", method, path, got, status, text)
	}
	return text
}

func decoded[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

const blue = "# blue\n[frontends.b]\nbind = [\"127.0.0.1:0\"]\npool = \"b\"\n[pools.b]\nbackends = [{ address = \"127.0.0.1:9\" }]\n"

func TestConfigs(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	list := decoded[configList](t, r.want(200, "GET", "/api/v1/configs", "", ""))
	if list.Active != "main" || len(list.Configs) != 1 || list.Configs[0].Name != "main" || list.Unsaved {
		t.Fatalf("%+v", list)
	}
	r.want(404, "GET", "/api/v1/configs/blue", "", "")
	for _, bad := range []string{"..%2f..%2fetc%2fpasswd", ".hidden", "a%00b", "a%20b", strings.Repeat("a", 65)} {
		if status, _, _ := r.body("PUT", "/api/v1/configs/"+bad, asTOML, blue); status != 400 && status != 404 {
			t.Errorf("%s: %d", bad, status)
		}
	}
	r.want(412, "PUT", "/api/v1/configs/blue", asTOML, blue, "If-Match", `"abc"`)
	info := decoded[configInfo](t, r.want(200, "PUT", "/api/v1/configs/blue", asTOML, blue, "If-None-Match", "*"))
	if info.Active || info.Mistakes != 0 || info.ETag != confstore.Tag([]byte(blue)) {
		t.Errorf("%+v", info)
	}
	r.want(412, "PUT", "/api/v1/configs/blue", asTOML, blue, "If-None-Match", "*")
	if text := r.want(200, "GET", "/api/v1/configs/blue", "", ""); text != blue {
		t.Errorf("got %q", text)
	}

	v := decoded[verdict](t, r.want(200, "POST", "/api/v1/configs/blue/validate", "", ""))
	if !v.OK || !strings.Contains(fmt.Sprint(v.Changes), "frontend b added") || !strings.Contains(fmt.Sprint(v.Changes), "frontend f removed") {
		t.Errorf("%+v", v)
	}
	wrong := strings.Replace(blue, `"127.0.0.1:9"`, `"127.0.0.1"`, 1)
	v = decoded[verdict](t, r.want(200, "POST", "/api/v1/configs/blue/validate", asTOML, wrong))
	if v.OK || len(v.Errors) != 1 || v.Errors[0].Line != 6 {
		t.Errorf("%+v", v)
	}

	r.want(200, "POST", "/api/v1/configs/blue/select", "", "")
	if r.d.Snapshot().Frontend("b") == nil || r.d.Snapshot().Frontend("f") != nil {
		t.Error("blue does not run")
	}
	if name, err := r.configs.store.Selected(); name != "blue" || err != nil {
		t.Errorf("selected: %s %v", name, err)
	}
	r.want(409, "DELETE", "/api/v1/configs/blue", "", "")
	if text := r.want(422, "PUT", "/api/v1/configs/blue", asTOML, wrong); !strings.Contains(text, "blue.toml:6") {
		t.Error(text) // it would not start again
	}
	r.want(200, "POST", "/api/v1/configs/main/select", "", "")
	r.want(200, "PUT", "/api/v1/configs/blue", asTOML, wrong) // a draft
	r.want(422, "POST", "/api/v1/configs/blue/select", "", "")
	if r.d.Snapshot().Frontend("f") == nil {
		t.Error("main does not run")
	}

	versions := decoded[[]configVersion](t, r.want(200, "GET", "/api/v1/configs/blue/history", "", ""))
	if len(versions) != 2 || versions[0].Version != 2 || versions[0].Who != "anonymous" {
		t.Errorf("%+v", versions)
	}
	if text := r.want(200, "GET", "/api/v1/configs/blue/history/1", "", ""); text != blue {
		t.Errorf("version 1: %q", text)
	}
	r.want(404, "POST", "/api/v1/configs/blue/rollback", asJSON, `{"version": 9}`)
	r.want(200, "POST", "/api/v1/configs/blue/rollback", asJSON, `{"version": 1}`)
	if text := r.want(200, "GET", "/api/v1/configs/blue", "", ""); text != blue {
		t.Errorf("after the rollback: %q", text)
	}

	r.want(200, "POST", "/api/v1/configs/stop", "", "")
	if n := len(r.e.Listeners()); n != 0 {
		t.Errorf("%d listeners after stop", n)
	}
	if list := decoded[configList](t, r.want(200, "GET", "/api/v1/configs", "", "")); !list.Stopped {
		t.Error("not stopped")
	}
	r.want(409, "DELETE", "/api/v1/configs/main", "", "")
	r.want(412, "DELETE", "/api/v1/configs/blue", "", "", "If-Match", `"abc"`)
	r.want(204, "DELETE", "/api/v1/configs/blue", "", "", "If-Match", `"`+info.ETag+`"`)
	r.want(404, "GET", "/api/v1/configs/blue/history", "", "")
}

// TestRollbackOfWhatRuns: it runs at once, or nothing has happened.
func TestRollbackOfWhatRuns(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	before := r.want(200, "GET", "/api/v1/configs/main", "", "")
	r.want(200, "PUT", "/api/v1/configs/main", asTOML, blue) // the version before has a unix socket that this one has not
	info, err := os.Stat(filepath.Join(filepath.Dir(r.configs.store.Dir()), "test.toml"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	r.want(200, "POST", "/api/v1/configs/main/select", "", "")
	if r.d.Snapshot().Frontend("b") == nil {
		t.Fatal("what was stored does not run")
	}
	r.want(200, "POST", "/api/v1/configs/main/rollback", asJSON, `{"version": 1}`)
	if r.d.Snapshot().Frontend("b") != nil || r.want(200, "GET", "/api/v1/configs/main", "", "") != before {
		t.Error("not rolled back")
	}
}

// TestRollbackToOtherAddresses: what the version listened on is bound anew, and where that cannot be, everything stays.
func TestRollbackToOtherAddresses(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	r.want(200, "PUT", "/api/v1/configs/one", asTOML, blue)
	r.want(200, "POST", "/api/v1/configs/one/select", "", "")
	address := lbtest.Free(t)
	fixed := strings.Replace(blue, "127.0.0.1:0", address, 1)
	for _, text := range []string{fixed, blue} {
		r.want(200, "PUT", "/api/v1/configs/one", asTOML, text)
		r.want(200, "POST", "/api/v1/configs/one/select", "", "")
	}
	if got := r.e.Listeners()[0].Address.String(); got == address {
		t.Fatalf("still at %s", got)
	}
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if text := r.want(409, "POST", "/api/v1/configs/one/rollback", asJSON, `{"version": 2}`); !strings.Contains(text, address) || !strings.Contains(text, "the running configuration stays") {
		t.Errorf("got %s", text)
	}
	if text := r.want(200, "GET", "/api/v1/configs/one", "", ""); text != blue {
		t.Errorf("stored is %s", text)
	}
	taken.Close()
	r.want(200, "POST", "/api/v1/configs/one/rollback", asJSON, `{"version": 2}`)
	if got := r.e.Listeners()[0].Address.String(); got != address {
		t.Errorf("at %s; want %s", got, address)
	}
}

// TestRollbackToWhatTheFileHad: sockets, files and programs that stood in the file by hand come back with it, though what runs has
// them no more; what only the API has written, under admin.allow_exec, does not, and nor does admin.allow_exec.
func TestRollbackToWhatTheFileHad(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	file := filepath.Join(filepath.Dir(r.configs.store.Dir()), "test.toml")
	pool := func(backend string) string {
		return fmt.Sprintf("[pools.x]\nbackends = [{ address = %q }]\n", backend)
	}
	program := "[pools.x]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/true\"] }\n"
	byHand := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		r.want(200, "POST", "/api/v1/configs/main/select", "", "")
	}
	byHand("[admin]\nanonymous = \"configure\"\nallow_exec = true\n" + pool("unix:/run/a.sock")) // 1
	r.want(200, "PUT", "/api/v1/configs/main", asTOML, "[admin]\nallow_exec = true\n"+program)   // 2
	byHand(pool("unix:/run/b.sock"))                                                             // 3
	r.want(200, "PUT", "/api/v1/configs/main", asTOML, blue)                                     // 4
	r.want(200, "POST", "/api/v1/configs/main/select", "", "")
	rollBack := func(version int, mistakes ...string) {
		t.Helper()
		status, text, _ := r.body("POST", "/api/v1/configs/main/rollback", asJSON, fmt.Sprintf(`{"version": %d}`, version))
		var keys []string
		for _, m := range decoded[problem](t, text).Errors {
			keys = append(keys, m.Key)
		}
		if want := map[bool]int{true: 200, false: 422}[len(mistakes) == 0]; status != want || !slices.Equal(keys, mistakes) {
			t.Errorf("version %d: %d %s", version, status, text)
		}
	}
	rollBack(1, "admin.allow_exec")
	rollBack(2, "admin.allow_exec", "pools.x.health")
	r.want(422, "PUT", "/api/v1/configs/main", asTOML, pool("unix:/run/b.sock")) // as a text of its own it may not come
	rollBack(3)
	if p := r.d.Snapshot().Pool("x"); p == nil || p.Config.Backends[0].Address.Path != "/run/b.sock" {
		t.Error("not rolled back")
	}
	// What the API made of it may come back as well.
	r.want(200, "PUT", "/api/v1/configs/main", asTOML, pool("unix:/run/b.sock")+"# by the API\n") // 6: 3 was stored anew as 5
	r.want(200, "PUT", "/api/v1/configs/main", asTOML, blue)
	r.want(200, "POST", "/api/v1/configs/main/select", "", "")
	rollBack(6)
	// Another configuration has no file that somebody could have written by hand.
	r.want(200, "PUT", "/api/v1/configs/one", asTOML, pool("unix:/run/b.sock"))
	r.want(200, "PUT", "/api/v1/configs/one", asTOML, blue)
	r.want(200, "PUT", "/api/v1/configs/main", asTOML, blue)
	r.want(200, "POST", "/api/v1/configs/main/select", "", "")
	r.want(422, "POST", "/api/v1/configs/one/rollback", asJSON, `{"version": 1}`)
}

func TestConfigsAsJSON(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	sent := `{"frontends": {"j": {"bind": ["127.0.0.1:0"], "pool": "j", "max_connections": 5}}, "pools": {"j": {"backends": [{"address": "127.0.0.1:9"}]}}}`
	r.want(200, "PUT", "/api/v1/configs/j", asJSON, sent)
	if got := r.want(200, "GET", "/api/v1/configs/j?format=json", "", ""); fmt.Sprint(decoded[any](t, got)) != fmt.Sprint(decoded[any](t, sent)) {
		t.Errorf("got %s", got)
	}
	if got := r.want(200, "GET", "/api/v1/configs/j", "", "", "Accept", "application/json"); !strings.HasPrefix(got, "{") {
		t.Errorf("got %s", got)
	}
	r.want(200, "POST", "/api/v1/configs/j/select", "", "")
	if f := r.d.Snapshot().Frontend("j"); f == nil || f.Config.MaxConnections != 5 {
		t.Error("it does not run")
	}
	text := r.want(422, "PUT", "/api/v1/configs/j", asJSON, strings.Replace(sent, `"127.0.0.1:0"`, `"nowhere"`, 1))
	p := decoded[problem](t, text)
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/frontends/j/bind/0" || p.Errors[0].Line != 0 {
		t.Errorf("got %s", text)
	}
	for _, bad := range []string{`{"pools": null}`, `{"a": 1, "a": 2}`, `[]`, `{} {}`, strings.Repeat(`{"a":`, 1000)} {
		r.want(400, "PUT", "/api/v1/configs/j", asJSON, bad)
	}
	// gobetween's, and the original's.
	original := `{"id": "x", "description": "y", "servers": [{"id": "s", "addr": {"host": "127.0.0.1", "port": 3000},
		"match": [{"label": "l", "pool": {"type": "leastConn", "hosts": [{"addr": {"host": "127.0.0.1", "port": 9}}]}}]}]}`
	r.want(200, "PUT", "/api/v1/configs/o", asJSON, original)
	run := strings.Replace(original, `"label"`, `"healthCheck": {"exec": {"command": "/bin/sh", "args": []}}, "label"`, 1)
	if p := decoded[problem](t, r.want(422, "PUT", "/api/v1/configs/o", asJSON, run)); len(p.Errors) != 1 || p.Errors[0].Pointer != "" || p.Errors[0].Line != 0 {
		t.Errorf("%+v", p)
	}
	if text := r.want(200, "GET", "/api/v1/configs/o", "", ""); !strings.Contains(text, "[frontends.") {
		t.Errorf("got %s", text)
	}
	r.want(200, "PUT", "/api/v1/configs/g", asJSON, `{"servers": {"x": {"bind": "127.0.0.1:0", "discovery": {"kind": "static", "static_list": ["127.0.0.1:9 weight=2"]}}}}`)
	if text := r.want(200, "GET", "/api/v1/configs/g", "", ""); !strings.Contains(text, "[frontends.x]") {
		t.Errorf("got %s", text)
	}
}
