package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func parseHealth(t *testing.T, pool, health string) (*Health, []string) {
	t.Helper()
	cfg, err := Parse("x.toml", []byte("[frontends.f]\nbind = ['127.0.0.1:1']\npool = 'p'\n[pools.other]\nbackends = [{address = '10.0.0.9:1'}]\nhealth = {}\n"+
		"[pools.p]\n"+pool+"\n[pools.p.health]\n"+health+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	warnings := []string{}
	for _, w := range cfg.Warnings {
		if !strings.Contains(w, "no frontend uses") && !strings.Contains(w, "there are no backends") {
			warnings = append(warnings, w)
		}
	}
	return cfg.Pool("p").Health, warnings
}

// TestHealthDerived: what follows from other keys and from the pool.
func TestHealthDerived(t *testing.T) {
	for _, c := range []struct {
		pool, health string
		want         func(h *Health) any
		is           any
	}{
		{"", "interval = '500ms'", func(h *Health) any { return h.Timeout }, 500 * time.Millisecond},
		{"", "interval_down = '200ms'", func(h *Health) any { return h.Timeout }, 200 * time.Millisecond},
		{"", "interval_down = '5s'", func(h *Health) any { return h.Timeout }, time.Second},
		{"", "kind = 'http'", func(h *Health) any { return h.UseTLS }, false},
		{"", "kind = 'http'\ntls = 'yes'", func(h *Health) any { return h.UseTLS }, true},
		{"tls = {server_name = 'a', ca = '/b'}", "kind = 'http'", func(h *Health) any { return []any{h.UseTLS, h.ServerName, h.CA} }, []any{true, "a", "/b"}},
		{"tls = {insecure_skip_verify = true}", "kind = 'http'", func(h *Health) any { return h.InsecureSkipVerify }, true},
		{"tls = {insecure_skip_verify = true}", "kind = 'http'\nca = '/b'", func(h *Health) any { return h.InsecureSkipVerify }, false},
		{"tls = {server_name = 'a'}", "kind = 'http'\ntls = 'no'", func(h *Health) any { return []any{h.UseTLS, h.ServerName} }, []any{false, ""}},
		{"tls = {}", "kind = 'tcp'", func(h *Health) any { return h.UseTLS }, false},
		{"source = ['fd00::1', '10.0.0.1']\nbackends = [{address = '10.0.0.2:1'}]", "", func(h *Health) any { return h.Source }, netip.MustParseAddr("10.0.0.1")},
		{"", "kind = 'http'\nstatus = '200, 300-399'", func(h *Health) any { return h.StatusSet }, []StatusRange{{200, 200}, {300, 399}}},
		{"", `send = 'a\x00\r\n\\'`, func(h *Health) any { return string(h.SendBytes) }, "a\x00\r\n\\"},
		{"", "", func(h *Health) any { return h.Every(true) }, 2 * time.Second},
		{"", "interval_down = '9s'", func(h *Health) any { return h.Every(false) }, 9 * time.Second},
	} {
		h, _ := parseHealth(t, c.pool, c.health)
		if got := c.want(h); !reflect.DeepEqual(got, c.is) {
			t.Errorf("%q, %q: got %v; want %v", c.pool, c.health, got, c.is)
		}
	}
}

func TestHealthWarnings(t *testing.T) {
	for _, c := range []struct{ pool, health, want string }{
		{"", "kind = 'http'\nserver_name = 'a'", "speaks no TLS"},
		{"", "kind = 'tls'\ninsecure_skip_verify = true", "takes any certificate"},
		{"on_down = 'cut'", "kind = 'none'", "has no effect"},
		{"backends = [{address = '10.0.0.8:1'}]", "kind = 'pool'\npool = 'other'", "no backend with this IP address"},
		{"backends = [{address = '10.0.0.9:2'}]", "kind = 'pool'\npool = 'other'", ""},
		{"on_down = 'cut'", "", ""},
	} {
		_, warnings := parseHealth(t, c.pool, c.health)
		if c.want == "" && len(warnings) > 0 || c.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], c.want)) {
			t.Errorf("%q, %q: got %q; want %q", c.pool, c.health, warnings, c.want)
		}
	}
}

// TestHealthPassword: no way to print the settings shows it.
func TestHealthPassword(t *testing.T) {
	h, _ := parseHealth(t, "", "kind = 'redis'\npassword = 'hunter2'")
	if s := fmt.Sprintf("%v %+v %#v %s", h, h, *h, *h); strings.Contains(s, "hunter2") || h.Password != "hunter2" {
		t.Errorf("got %s", s)
	}
}

func TestUnescapeC(t *testing.T) {
	for in, want := range map[string]string{"": "", "a": "a", `\n\r\t\0\\\"`: "\n\r\t\x00\\\"", `\x41\xfF`: "A\xff", `é\e`: "é\x1b"} {
		if got, wrong := unescapeC(in); string(got) != want || wrong != "" {
			t.Errorf("%q: got %q, %q; want %q", in, got, wrong, want)
		}
	}
	for in, want := range map[string]string{`\`: `\`, `\q`: `\q`, `\x`: `\x`, `\x4`: `\x`, `\xg0`: `\xg0`} {
		if _, wrong := unescapeC(in); wrong != want {
			t.Errorf("%q: got %q; want %q", in, wrong, want)
		}
	}
}
