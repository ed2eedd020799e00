package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// state is what a configuration has beside the base that all have: the backends of pools, and the pools of frontends.
type state struct {
	pools  map[string][]string
	fronts map[string]string
}

func (s *state) clone() *state {
	c := &state{map[string][]string{}, maps.Clone(s.fronts)}
	for name, list := range s.pools {
		c.pools[name] = slices.Clone(list)
	}
	return c
}

// model is what the API is to have done, by what it has said. A nil state is a draft with mistakes.
type model struct {
	r    *rig
	rand *rand.Rand
	base string // TOML that all configurations begin with

	running *state
	name    string // of what runs
	stopped bool
	stored  map[string]*state
	texts   map[string]*state // of every text there ever was
	loaded  string            // the file of what runs when it was read
	taken   string            // an address that somebody else listens on
}

// FuzzAPI sends valid and invalid calls in any order. After each the running configuration is what the model says, and a session
// that began before the first goes on until after the last.
func FuzzAPI(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		m := &model{r: newRig(t, lbtest.Echo(t)), rand: rand.New(rand.NewPCG(seed, 2)), name: "main", taken: taken.Addr().String(),
			running: &state{map[string][]string{}, map[string]string{}}, stored: map[string]*state{}, texts: map[string]*state{}}
		m.base = m.r.file()
		m.loaded = m.base
		m.stored["main"], m.texts[m.base] = m.running, m.running
		session := m.r.traffic()
		steps := []func(){m.putPool, m.putPool, m.deletePool, m.putFrontend, m.putFrontend, m.deleteFrontend, m.addBackend, m.addBackend,
			m.removeBackend, m.putConfig, m.putConfig, m.selectConfig, m.rollBack, m.stop, m.nonsense}
		for range 40 {
			steps[m.rand.IntN(len(steps))]()
			m.check()
		}
		if _, err := session.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Read(make([]byte, 4)); err != nil {
			t.Errorf("the session has ended: %v", err)
		}
	})
}

func (m *model) one(from ...string) string { return from[m.rand.IntN(len(from))] }

func (m *model) anyPool() string { return m.one("a", "b", "c") }

func (m *model) backend() string { return fmt.Sprint("127.0.0.1:", 1+m.rand.IntN(4)) }

// call sends a request and reports whether it was done; otherwise it must have been refused with the status wanted.
func (m *model) call(want int, method, path string, body any) bool {
	m.r.t.Helper()
	kind, text := "", ""
	if s, ok := body.(string); ok {
		kind, text = asTOML, s
	} else if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			m.r.t.Fatal(err)
		}
		kind, text = asJSON, string(b)
	}
	m.r.want(want, method, path, kind, text)
	return want < 300
}

// edit sends a change of what runs, by one of its ways, and follows it when it is done.
func (m *model) edit(want int, method, path string, body any, change func(*state)) {
	m.r.t.Helper()
	q := url.Values{}
	if m.rand.IntN(4) == 0 {
		q.Set("dry_run", "true")
	}
	if m.rand.IntN(3) == 0 {
		q.Set("persist", "true")
	}
	if m.stopped {
		want = 409
	} else if want != 404 && q.Has("persist") && !q.Has("dry_run") && m.file() != m.loaded {
		want = 409 // the file is another
	}
	if !m.call(want, method, path+"?"+q.Encode(), body) || q.Has("dry_run") {
		return
	}
	m.running = m.running.clone()
	change(m.running)
	if q.Has("persist") {
		m.keep(m.name, m.running)
		m.loaded = m.file()
	}
}

// file returns the text that is stored of what runs.
func (m *model) file() string { return m.r.want(200, "GET", "/api/v1/configs/"+m.name, "", "") }

// keep notes that a configuration is stored.
func (m *model) keep(name string, s *state) {
	m.stored[name] = s
	m.texts[m.r.want(200, "GET", "/api/v1/configs/"+name, "", "")] = s
}

func (m *model) putPool() {
	name, list, want := m.anyPool(), []string{}, 200
	backends := []any{}
	for range m.rand.IntN(4) {
		address := m.backend()
		if slices.Contains(list, address) {
			want = 422
		}
		list = append(list, address)
		backends = append(backends, map[string]any{"address": address})
	}
	table := map[string]any{"backends": backends}
	switch m.rand.IntN(6) {
	case 0:
		table["policy"], want = "rand", 422
	case 1:
		table["colour"], want = "blue", 422
	case 2:
		table["health"] = map[string]any{"kind": "exec", "command": []string{"/bin/true"}}
		want = 422
	}
	m.edit(want, "PUT", "/api/v1/pools/"+name, table, func(s *state) { s.pools[name] = list })
}

func (m *model) deletePool() {
	name, want := m.anyPool(), 200
	if _, there := m.running.pools[name]; !there {
		want = 404
	} else if slices.Contains(slices.Collect(maps.Values(m.running.fronts)), name) {
		want = 422
	}
	m.edit(want, "DELETE", "/api/v1/pools/"+name, nil, func(s *state) { delete(s.pools, name) })
}

func (m *model) putFrontend() {
	name, pool, bind, want := m.one("x", "y"), m.anyPool(), "127.0.0.1:0", 200
	if _, there := m.running.pools[pool]; !there {
		want = 422
	} else if m.rand.IntN(4) == 0 {
		bind, want = m.taken, 409
	}
	m.edit(want, "PUT", "/api/v1/frontends/"+name, fmt.Sprintf("bind = [%q]\npool = %q\n", bind, pool), func(s *state) { s.fronts[name] = pool })
}

func (m *model) deleteFrontend() {
	name, want := m.one("x", "y"), 200
	if m.running.fronts[name] == "" {
		want = 404
	}
	m.edit(want, "DELETE", "/api/v1/frontends/"+name, nil, func(s *state) { delete(s.fronts, name) })
}

func (m *model) addBackend() {
	name, address, want := m.anyPool(), m.backend(), 200
	if list, there := m.running.pools[name]; !there {
		want = 404
	} else if slices.Contains(list, address) {
		want = 422
	}
	m.edit(want, "POST", "/api/v1/pools/"+name+"/backends", map[string]any{"address": address}, func(s *state) { s.pools[name] = append(s.pools[name], address) })
}

func (m *model) removeBackend() {
	name, address, want := m.anyPool(), m.backend(), 200
	i := slices.Index(m.running.pools[name], address)
	if i < 0 {
		want = 404
	}
	m.edit(want, "DELETE", "/api/v1/pools/"+name+"/backends/"+address, nil, func(s *state) { s.pools[name] = slices.Delete(s.pools[name], i, i+1) })
}

// putConfig stores a configuration, with mistakes or without.
func (m *model) putConfig() {
	name := m.one("main", "one", "two")
	s, text := &state{map[string][]string{}, map[string]string{}}, m.base
	for i := range m.rand.IntN(3) {
		pool := []string{"a", "b", "c"}[i]
		s.pools[pool], s.fronts["x"] = []string{m.backend()}, pool
		text += fmt.Sprintf("[pools.%s] # %d\nbackends = [{ address = %q }]\n", pool, m.rand.IntN(1000), s.pools[pool][0])
	}
	if pool := s.fronts["x"]; pool != "" {
		text += fmt.Sprintf("[frontends.x]\nbind = [\"127.0.0.1:0\"]\npool = %q\n", pool)
	}
	want := 200
	if m.rand.IntN(3) == 0 {
		s, text = nil, text+m.one("nonsense", "[pools.z]\npolicy = 1\n", "\xff", "[pools.z]\nbackends = [\n")
		if name == "main" || name == m.name {
			want = 422
		}
	}
	if m.call(want, "PUT", "/api/v1/configs/"+name, text) {
		m.keep(name, s)
	}
}

func (m *model) selectConfig() {
	name, want := m.one("main", "one", "two"), 200
	s, there := m.stored[name]
	if !there {
		want = 404
	} else if s == nil {
		want = 422
	}
	if m.call(want, "POST", "/api/v1/configs/"+name+"/select", nil) {
		m.running, m.name, m.stopped = s, name, false
		m.loaded = m.file()
	}
}

func (m *model) rollBack() {
	name := m.one("main", "one", "two")
	if _, there := m.stored[name]; !there {
		m.call(404, "POST", "/api/v1/configs/"+name+"/rollback", map[string]any{"version": 1})
		return
	}
	all := decoded[[]configVersion](m.r.t, m.r.want(200, "GET", "/api/v1/configs/"+name+"/history", "", ""))
	if len(all) == 0 {
		return
	}
	version := all[m.rand.IntN(len(all))].Version
	text := m.r.want(200, "GET", fmt.Sprintf("/api/v1/configs/%s/history/%d", name, version), "", "")
	s, known := m.texts[text]
	if !known {
		m.r.t.Fatalf("nobody has stored %q", text)
	}
	want := 200
	if s == nil && (name == "main" || name == m.name) {
		want = 422
	}
	if !m.call(want, "POST", "/api/v1/configs/"+name+"/rollback", map[string]any{"version": version}) {
		return
	}
	m.stored[name] = s
	if name == m.name && !m.stopped {
		m.running, m.loaded = s, m.file()
	}
}

func (m *model) stop() {
	if m.rand.IntN(3) == 0 {
		m.call(200, "POST", "/api/v1/configs/stop", nil)
		m.stopped = true
	}
}

// nonsense sends what no call takes.
func (m *model) nonsense() {
	junk := make([]byte, m.rand.IntN(200))
	for i := range junk {
		junk[i] = byte(m.rand.IntN(256))
	}
	path := m.one("/api/v1/pools/a", "/api/v1/frontends/x", "/api/v1/configs/main", "/api/v1/pools/a/backends", "/api/v1/configs/one/validate")
	method := "PUT"
	if strings.HasSuffix(path, "backends") || strings.HasSuffix(path, "validate") {
		method = "POST"
	}
	status, text, _ := m.r.body(method, path, m.one(asJSON, asTOML, "text/plain"), "\x00"+string(junk))
	if status >= 500 || status < 300 && !strings.HasSuffix(path, "validate") {
		m.r.t.Fatalf("%s %s %q: %d %s", method, path, junk, status, text)
	}
}

// check compares what runs with the model.
func (m *model) check() {
	m.r.t.Helper()
	got := &state{map[string][]string{}, map[string]string{}}
	snap := m.r.d.Snapshot()
	for _, f := range snap.Frontends {
		if name := f.Config.Name; name != "f" && name != "d" {
			got.fronts[name] = f.Config.Pool
		}
	}
	for _, p := range snap.Pools {
		if name := p.Config.Name; name != "p" && name != "d" && name != "unused" {
			got.pools[name] = []string{}
			for _, b := range p.Members {
				got.pools[name] = append(got.pools[name], b.Name)
			}
		}
	}
	want := m.running
	if m.stopped {
		want = &state{}
	}
	if fmt.Sprint(got.pools, got.fronts) != fmt.Sprint(want.pools, want.fronts) {
		m.r.t.Fatalf("runs %v %v\nwant %v %v", got.pools, got.fronts, want.pools, want.fronts)
	}
	if !m.stopped && len(m.r.e.Listeners()) != len(snap.Frontends) {
		m.r.t.Fatalf("%d listeners for %d frontends", len(m.r.e.Listeners()), len(snap.Frontends))
	}
}
