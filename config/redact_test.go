package config

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	text := `# the token = "geheim1"
[admin.tokens.a]
token = "geheim2-0123456789" # and password_hash geheim3
role = "read"
[admin.tokens.b]
token = "${TOKEN}"
[admin.tokens.c]
token = "geheim4${TOKEN}"
[admin.users]
x = { password_hash = 'geheim5', role = "read" }
[pools.web.health]
kind = "redis"
password = """
geheim6"""
[pools.web]
passwrd = "geheim11"
policy = "a mistake is shown"
[pools.web.discovery]
kind = "http"
url = "http://geheim9@x/"
headers = ["X: geheim10"]
[somewhere.else]
password = ["geheim7", "geheim8"]
`
	got, err := Redact("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "geheim") {
		t.Errorf("got %s", got)
	}
	for _, want := range []string{`token = "${TOKEN}"`, `x = { password_hash = "(not shown)", role = "read" }`, `role = "read"`, "# (not shown)\n[admin", `policy = "a mistake`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
	if _, err := Redact("x.toml", []byte(`token = "geheim`)); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("not TOML: %v", err)
	}
	if _, err := Parse("x.toml", got); err == nil || !strings.Contains(err.Error(), "this is what is shown in its place") {
		t.Errorf("stored again: %v", err)
	}
}

// FuzzRedact: what is left is TOML with the same keys, and no secret.
func FuzzRedact(f *testing.F) {
	f.Add("token = \"geheim\"\n", "geheim")
	f.Add("a = { password = 'x', b = [\"y\"] } # url\n", "x")
	f.Fuzz(func(t *testing.T, text, secret string) {
		before, err := ParseDocument("x", []byte(text))
		if err != nil {
			return
		}
		got, err := Redact("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		after, err := ParseDocument("x", got)
		if err != nil {
			t.Fatalf("%v\n%q\n%q", err, text, got)
		}
		same(t, before.Values, after.Values, "")
	})
}

func same(t *testing.T, a, b any, key string) {
	t.Helper()
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			t.Fatalf("%v is not %v", a, b)
		}
		for k := range a {
			same(t, a[k], b[k], k)
		}
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			t.Fatalf("%v is not %v", a, b)
		}
		for i := range a {
			same(t, a[i], b[i], key)
		}
	case string:
		hidden := false
		for _, s := range secretKeys() {
			hidden = hidden || s == key
		}
		if b != NotShown && a != b {
			t.Fatalf("%s: %q became %q", key, a, b)
		}
		if hidden && b == a && a != NotShown && !isReference(`"`+a+`"`) {
			t.Fatalf("%s: %q is shown", key, a)
		}
	}
}

func TestBeyond(t *testing.T) {
	t.Setenv("AWE4LB_TEST_SECRET", "0123456789abcdef")
	t.Setenv("AWE4LB_TEST_OTHER", "0123456789abcdef")
	trusted := parseText(t, "[admin.tokens.a]\ntoken = \"${AWE4LB_TEST_SECRET}\"\n[pools.u]\nbackends = [{ address = \"unix:/run/web.sock\" }]\n[log]\noutput = \"/var/log/a\"\n[pools.a]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/true\"] }\n[pools.e]\ndiscovery = { kind = \"exec\", command = [\"/bin/list\"] }\n")
	for text, want := range map[string]string{
		"[log]\noutput = \"/var/log/a\"\n[log.access]\noutput = \"stdout\"\n":                                                "",
		"[log]\noutput = \"/etc/cron.d/x\"\n":                                                                                "log.output",
		"[log.access]\noutput = \"/dir/files/../../etc/x\"\n":                                                                "log.access.output",
		"[log.access]\noutput = \"/dir/files/x\"\n":                                                                          "",
		"[pools.b]\nbackends = [{ address = \"unix:/run/web.sock\" }, { address = \"unix:/dir/files/b.sock\" }]\n":           "",
		"[pools.b]\nbackends = [{ address = \"unix:/run/docker.sock\" }]\n":                                                  "pools.b.backends[0].address",
		"[frontends.f]\nbind = [\"unix:/run/x.sock\"]\n":                                                                     "frontends.f.bind[0]",
		"[admin.tokens.b]\ntoken = \"${AWE4LB_TEST_SECRET}\"\n":                                                              "",
		"[admin.tokens.b]\ntoken = \"${AWE4LB_TEST_OTHER}\"\n":                                                               "admin.tokens.b.token",
		"[pools.b]\nbackends = []\nhealth = { kind = \"http\", path = \"/${AWE4LB_TEST_SECRET}\" }\n":                        "pools.b.health.path",
		"[admin]\nupgrade = [\"/bin/sh\"]\n":                                                                                 "admin.upgrade",
		"[pools.d]\ndiscovery = { kind = \"docker\", url = \"unix:///run/docker.sock\" }\n":                                  "pools.d.discovery.url",
		"[pools.d]\ndiscovery = { kind = \"docker\" }\n":                                                                     "pools.d.discovery", // its default is a socket
		"[pools.d]\n[[pools.d.discovery.sources]]\nkind = \"docker\"\n":                                                      "pools.d.discovery.sources[0]",
		"[pools.d]\ndiscovery = { kind = \"docker\", url = \"tcp://10.0.0.1:2375\" }\n":                                      "",
		"[pools.d]\ndiscovery = { kind = \"docker\", url = \"unix:///dir/files/../../run/docker.sock\" }\n":                  "pools.d.discovery.url",
		"[pools.d]\ndiscovery = { kind = \"docker\", url = \"unix:///dir/files/docker.sock\" }\n":                            "",
		"[pools.d]\ndiscovery = { kind = \"lxd\" }\n":                                                                        "pools.d.discovery",
		"[pools.d]\ndiscovery = { kind = \"lxd\", url = \"unix:///run/lxd.sock\" }\n":                                        "pools.d.discovery.url",
		"[pools.d]\ndiscovery = { kind = \"redis\", url = \"unix:///run/redis.sock\", name = \"x\" }\n":                      "pools.d.discovery.url",
		"[admin]\nallow_exec = true\n":                                                                                       "admin.allow_exec",
		"[admin.tokens.a]\nfile = \"/etc/shadow\"\n":                                                                         "admin.tokens.a.file",
		"[frontends.f]\nbind = [\"127.0.0.1:1\"]\n[[frontends.f.access.rules]]\ndeny_file = \"/etc/shadow\"\n":               "frontends.f.access.rules[0].deny_file",
		"[pools.a]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/true\"] }\n":                                "",
		"[pools.a]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/sh\"] }\n":                                  "pools.a.health",
		"[pools.b]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/true\"], output_up = \"x\" }\n":             "pools.b.health",
		"[pools.d]\ndiscovery = { kind = \"exec\", command = [\"/bin/sh\"] }\n":                                              "pools.d.discovery",
		"[pools.e]\ndiscovery = { kind = \"exec\", command = [\"/bin/list\"] }\n":                                            "",
		"[pools.d]\ndiscovery = { kind = \"file\", path = \"/etc/shadow\" }\n":                                               "pools.d.discovery.path",
		"[frontends.f]\nbind = [\"127.0.0.1:1\"]\ntls = { certificates = [{ cert = \"/x.pem\", self_signed = [\"a\"] }] }\n": "frontends.f.tls.certificates[0].cert",
	} {
		var got []string
		for _, e := range parseText(t, text).Beyond("/dir/files", trusted) {
			got = append(got, e.Key)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s\ngot %q, want %q", text, got, want)
		}
	}
}

func parseText(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("/etc/awe4lb.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBeyondElsewhere: what a trusted configuration names for one purpose is not for another: a key is no list whose lines are quoted,
// no log that is written over, and no password that is sent; and what is sent goes where it goes already.
// TestBeyondDiscoveryAllow: who may change the configuration does not reach by discovery what that is to be kept from.
func TestBeyondDiscoveryAllow(t *testing.T) {
	list := func(prefixes ...string) string {
		if prefixes == nil {
			return ""
		}
		return "[engine]\ndiscovery_allow = [\"" + strings.Join(prefixes, "\", \"") + "\"]\n"
	}
	for _, tc := range []struct {
		trusted, sent string
		ok            bool
	}{
		{"", "", true},
		{"", list("10.0.0.0/8"), true},
		{list("10.0.0.0/8", "fd00::/8"), list("fd00:1::/32", "10.1.0.0/16"), true},
		{list("10.0.0.0/8"), list("10.0.0.0/8"), true},
		{list("10.0.0.0/8"), "", false},
		{list("10.0.0.0/8"), list("10.0.0.0/7"), false},
		{list("10.0.0.0/8"), list("10.1.0.0/16", "192.168.0.1"), false},
		{list("10.0.0.0/8"), list("0.0.0.0/0", "::/0"), false},
		{list("10.0.0.0/8"), list("::/0"), false},
	} {
		errs := parseText(t, tc.sent).Beyond("/dir/files", parseText(t, tc.trusted))
		if (len(errs) == 0) != tc.ok || len(errs) > 0 && errs[0].Key != "engine.discovery_allow" {
			t.Errorf("%q after %q: %v", tc.sent, tc.trusted, errs)
		}
	}
}

func TestBeyondElsewhere(t *testing.T) {
	t.Setenv("AWE4LB_TEST_SECRET", "0123456789abcdef")
	source := func(pool, url, secret string) string {
		return "[pools." + pool + "]\n[pools." + pool + ".discovery]\nkind = \"http\"\nurl = \"" + url + "\"\n" + secret + "\n"
	}
	etcd := func(pool, url string) string {
		return "[pools." + pool + "]\n[pools." + pool + ".discovery]\nkind = \"etcd\"\nprefix = \"x\"\nendpoints = [\"" + url + "\"]\nuser = \"u\"\npassword_file = \"/run/etcd\"\n"
	}
	push := "[admin.push]\nurl = \"http://good/\"\nbearer_token = \"${AWE4LB_TEST_SECRET}\"\n"
	trusted := parseText(t, push+"[admin.tokens.t]\nfile = \"/run/admin\"\n[frontends.f]\nbind = [\"127.0.0.1:1\"]\npool = \"a\"\ntls = { certificates = [{ cert = \"/c.pem\", key = \"/k.pem\" }] }\n"+
		source("a", "http://good/", "token_file = \"/run/token\"")+source("b", "http://good/", "token = \"${AWE4LB_TEST_SECRET}\"")+etcd("c", "http://good/"))
	for text, want := range map[string]string{
		source("x", "http://good/", "token_file = \"/run/token\""):              "",
		source("x", "http://evil/", "token_file = \"/run/token\""):              "pools.x.discovery.token_file",
		source("x", "http://good/", "token_file = \"/run/admin\""):              "pools.x.discovery.token_file",
		source("x", "http://good/", "user = \"u\"\npassword_file = \"/k.pem\""): "pools.x.discovery.password_file",
		source("x", "http://good/", "token = \"${AWE4LB_TEST_SECRET}\""):        "",
		source("x", "http://evil/", "token = \"${AWE4LB_TEST_SECRET}\""):        "pools.x.discovery.token",
		etcd("x", "http://good/"):                                               "",
		etcd("x", "http://evil/"):                                               "pools.x.discovery.password_file",
		push:                                                                    "",
		strings.Replace(push, "good", "evil", 1):                                "admin.push.bearer_token",
		"[frontends.g]\nbind = [\"127.0.0.1:2\"]\ntls = { certificates = [{ cert = \"/c.pem\", key = \"/k.pem\" }] }\n": "",
		"[frontends.g]\nbind = [\"127.0.0.1:2\"]\naccess = { rules = [{ deny_file = \"/k.pem\" }] }\n":                  "frontends.g.access.rules[0].deny_file",
		"[log]\noutput = \"/k.pem\"\n":                                    "log.output",
		"[pools.x]\ndiscovery = { kind = \"file\", path = \"/k.pem\" }\n": "pools.x.discovery.path",
	} {
		var got []string
		for _, e := range parseText(t, text).Beyond("/dir/files", trusted) {
			got = append(got, e.Key)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s\ngot %q, want %q", text, got, want)
		}
	}
}
