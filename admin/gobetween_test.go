package admin

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// likeGobetween turns admin.compat on.
func (r *rig) likeGobetween() {
	r.t.Helper()
	c := open(config.Address{})
	c.Compat = "gobetween"
	apply, err := r.s.Prepare(c)
	if err != nil {
		r.t.Fatal(err)
	}
	apply()
}

func TestGobetween(t *testing.T) {
	echo := lbtest.Echo(t)
	r := newRig(t, echo)
	for _, e := range gobetweenEndpoints() {
		if status, _, _ := r.body(e.method, strings.Replace(e.path, "{name}", "f", 1), "", ""); status != 404 {
			t.Errorf("%s %s without compat: %d", e.method, e.path, status)
		}
	}
	r.likeGobetween()
	if got := r.want(200, "GET", "/ping", "", ""); got != "OK" {
		t.Errorf("ping: %q", got)
	}
	if got := r.want(200, "GET", "/dump?format=toml", "", ""); !strings.Contains(got, "[frontends.f]") {
		t.Errorf("dump: %s", got)
	}
	all := decoded[map[string]map[string]any](t, r.want(200, "GET", "/servers", "", ""))
	if len(all) != 2 || all["f"]["protocol"] != "tcp" || all["f"]["balance"] != "leastconn" || all["d"]["protocol"] != "udp" || all["f"]["sni"] != nil ||
		fmt.Sprint(all["f"]["discovery"].(map[string]any)["static_list"]) != "["+echo+" weight=1 priority=0]" {
		t.Errorf("%v", all)
	}
	if got := r.want(200, "GET", "/servers/none", "", ""); got != "null" {
		t.Errorf("unknown: %q", got)
	}
	if got := r.want(200, "GET", "/servers/none/stats", "", ""); got != "null" {
		t.Errorf("unknown: %q", got)
	}

	server := fmt.Sprintf(`{"bind": "127.0.0.1:0", "protocol": "tcp", "balance": "roundrobin", "discovery": {"kind": "static", "static_list": [%q]}, "healthcheck": {"kind": "none"}}`, echo)
	if got := r.want(200, "POST", "/servers/new", asJSON, server); got != "null" {
		t.Errorf("created: %q", got)
	}
	for body, want := range map[string]int{server: 409, "nonsense": 400, "[]": 400, `{"bind": "nowhere"}`: 409} {
		name := "new"
		if body != server {
			name = "other"
		}
		text := decoded[string](t, r.want(want, "POST", "/servers/"+name, asJSON, body))
		if text == "" {
			t.Errorf("%s: says nothing", body)
		}
	}
	run := strings.Replace(server, `{"kind": "none"}`, `{"kind": "exec", "interval": "1s", "timeout": "1s", "exec_command": "/bin/sh"}`, 1)
	if text := decoded[string](t, r.want(409, "POST", "/servers/run", asJSON, run)); !strings.Contains(text, "may not start programs") {
		t.Error(text)
	}
	r.want(415, "POST", "/servers/run", "text/plain", run) // gobetween took this from any web page

	var address string
	for _, l := range r.e.Listeners() {
		if l.Frontend == "new" {
			address = l.Address.String()
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	stats := decoded[gobetweenCounters](t, r.want(200, "GET", "/servers/new/stats", "", ""))
	host, port, _ := net.SplitHostPort(echo)
	if stats.Active != 1 || stats.RxTotal != 4 || stats.TxTotal != 4 || len(stats.Backends) != 1 {
		t.Fatalf("%+v", stats)
	}
	if b := stats.Backends[0]; b.Host != host || b.Port != port || !b.Stats.Live || !b.Stats.Discovered || b.Stats.Active != 1 || b.Stats.Total != 1 || b.Stats.Rx != 4 {
		t.Errorf("%+v", b)
	}

	if got := r.want(200, "DELETE", "/servers/new", "", ""); got != "null" {
		t.Errorf("deleted: %q", got)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection goes on: %v", err)
	}
	if snap := r.d.Snapshot(); snap.Frontend("new") != nil || snap.Pool("new") != nil {
		t.Error("it is still there")
	}
	if got := r.want(200, "DELETE", "/servers/new", "", ""); got != "null" {
		t.Errorf("deleted again: %q", got)
	}
}
