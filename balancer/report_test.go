package balancer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"awe4lb/config"
)

// TestReportTellsOfEngine: every key of [engine] that changes is reported, and those that need a restart say so.
func TestReportTellsOfEngine(t *testing.T) {
	apply := func(edit func(e *config.Engine)) *Report {
		t.Helper()
		d := NewDirector()
		d.Drive(new(plane))
		before := &config.Config{Engine: config.Engine{Shards: 2, DrainTimeout: 30 * time.Second}}
		if _, err := d.Apply(before); err != nil {
			t.Fatal(err)
		}
		after := &config.Config{Engine: before.Engine}
		edit(&after.Engine)
		r, err := d.Apply(after)
		if err != nil {
			t.Fatal(err)
		}
		r.Changes = r.Changes[:len(r.Changes)-1] // what the plane says
		return r
	}
	for _, tc := range []struct {
		edit    func(e *config.Engine)
		change  string
		restart []string
	}{
		{func(e *config.Engine) { e.MaxConnections = 7 }, "engine max_connections changed: from 0 to 7, for new sessions", nil},
		{func(e *config.Engine) { e.Splice = true }, "engine splice changed: from false to true", nil},
		{func(e *config.Engine) { e.DrainTimeout = time.Minute }, "engine drain_timeout changed: from 30s to 1m0s", nil},
		{func(e *config.Engine) { e.Shards = 4 }, "engine shards changed: from 2 to 4, at the next start", []string{"engine.shards"}},
		{func(e *config.Engine) { e.User = "lb" }, `engine user changed: from "" to lb, at the next start`, []string{"engine.user"}},
		{func(e *config.Engine) { e.TLSWorkers = 3 }, "engine tls_workers changed: from 0 to 3, at the next start", []string{"engine.tls_workers"}},
		{func(e *config.Engine) { e.TLSNice = 9 }, "engine tls_nice changed: from 0 to 9, at the next start", []string{"engine.tls_nice"}},
		{func(e *config.Engine) { e.TLSCPUs = []int{1, 3} }, "engine tls_cpus changed: from [] to [1 3], at the next start", []string{"engine.tls_cpus"}},
		{func(e *config.Engine) { e.TicketSecret = "/s" }, `engine ticket_secret changed: from "" to /s, for new sessions`, nil},
	} {
		r := apply(tc.edit)
		if len(r.Changes) != 1 || r.Changes[0].String() != tc.change || !slices.Equal(r.NeedRestart, tc.restart) {
			t.Errorf("got %v, restart %v; want %q, %v", r.Changes, r.NeedRestart, tc.change, tc.restart)
		}
	}

	// None is forgotten, those to come included.
	engine := reflect.TypeFor[config.Engine]()
	for i := range engine.NumField() {
		r := apply(func(e *config.Engine) {
			v := reflect.ValueOf(e).Elem().Field(i)
			switch v.Kind() {
			case reflect.String:
				v.SetString("other")
			case reflect.Bool:
				v.SetBool(!v.Bool())
			case reflect.Slice:
				v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			default:
				v.SetInt(v.Int() + 1)
			}
		})
		if got := fmt.Sprint(r.Changes); len(r.Changes) != 1 || r.Changes[0].Name != engine.Field(i).Tag.Get("toml") {
			t.Errorf("%s changed: the report says %s", engine.Field(i).Name, got)
		}
	}
}

// TestReportNamesKeys: what changed in a frontend, a pool and [acme] is told by key, and a secret is not told.
func TestReportNamesKeys(t *testing.T) {
	load := func(edit ...string) *config.Config {
		t.Helper()
		text := strings.NewReplacer(edit...).Replace(`
[acme]
agree = true
email = "a@example.com"
eab_key_id = "kid"
eab_hmac_key = "hunter2a"
[frontends.web]
bind = ["127.0.0.1:1"]
pool = "web"
unknown_name = "reject"
[[frontends.web.routes]]
match = { sni = ["a.example"], not = { sni = ["b.example"] } }
pool = "web"
[frontends.web.tls]
certificates = [{ cert = "/a.pem" }]
min_version = "1.2"
acme = ["a.example"]
[frontends.plain]
bind = ["127.0.0.1:2"]
pool = "web"
tcp.nodelay = true
[pools.web]
backends = [{ address = "10.0.0.1:80" }]
[pools.web.tls]
server_name = "a"
`)
		cfg, err := config.Parse("test.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	for _, tc := range []struct {
		edit []string // old and new text in turn
		want string
	}{
		{nil, ""},
		{[]string{`"reject"`, `"any"`}, "frontend web changed: new sessions use the new settings (unknown_name)"},
		{[]string{`"b.example"`, `"c.example"`}, "frontend web changed: new sessions use the new settings (routes)"},
		{[]string{`min_version = "1.2"`, `min_version = "1.3"`, "/a.pem", "/b.pem"}, "frontend web changed: new sessions use the new settings (tls.certificates, tls.min_version)"},
		{[]string{"[frontends.plain]", "[frontends.plain]\ntls = { certificates = [{ cert = '/a.pem' }] }", "nodelay = true", "nodelay = false"},
			"frontend plain changed: new sessions use the new settings (tcp.nodelay, tls)"},
		{[]string{`server_name = "a"`, `server_name = "b"`}, "pool web changed: new sessions use the new settings (tls.server_name)"},
		{[]string{"[pools.web.tls]\nserver_name = \"a\"", "connect_timeout = '1s'"}, "pool web changed: new sessions use the new settings (connect_timeout, tls)"},
		{[]string{"[frontends.plain]", "[frontends.plain]\nbandwidth = '1MiB'"}, "frontend plain changed: in force at once (bandwidth)"},
		{[]string{"[frontends.plain]", "[frontends.plain]\nbandwidth_per_source = '1MiB'\nidle_timeout = '1s'\nbandwidth = '9MiB'"},
			"frontend plain changed: new sessions use the new settings (idle_timeout), in force at once (bandwidth, bandwidth_per_source)"},
		{[]string{"[pools.web]", "[pools.web]\non_down = 'cut'\nhealth = { kind = 'tcp' }\nconnect_timeout = '1s'"},
			"pool web changed: new sessions use the new settings (connect_timeout), in force at once (health, on_down)"},
		{[]string{"10.0.0.1:80", "10.0.0.2:80"}, "backend web/10.0.0.2:80 added, backend web/10.0.0.1:80 removed: no session left"},
		{[]string{"a@example.com", "b@example.com"}, "acme email changed: from a@example.com to b@example.com"},
		{[]string{"hunter2a", "hunter2b"}, "acme eab_hmac_key changed: the value is not shown"},
	} {
		d := NewDirector()
		d.Drive(new(plane))
		if _, err := d.Apply(load()); err != nil {
			t.Fatal(err)
		}
		r, err := d.Apply(load(tc.edit...))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range r.Changes[:len(r.Changes)-1] { // but what the plane says
			got = append(got, c.String())
		}
		if strings.Join(got, ", ") != tc.want {
			t.Errorf("%q:\n got %s\nwant %s", tc.edit, strings.Join(got, ", "), tc.want)
		}
	}
}
