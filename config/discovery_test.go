package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSourceSecretsAreNotPrinted: whoever prints a source, or makes JSON of it, does not print its secrets.
func TestSourceSecretsAreNotPrinted(t *testing.T) {
	c, err := Parse("x.toml", []byte(`[pools.a.discovery]
kind = "http"
url = "https://catalog.internal/?key=hunter2"
headers = ["X-Key: hunter2"]
user = "u"
password = "hunter2"
[[pools.b.discovery.sources]]
kind = "exec"
command = ["/bin/true"]
env = ["KEY=hunter2"]
[[pools.b.discovery.sources]]
kind = "consul"
url = "http://127.0.0.1:8500"
service = "web"
token = "hunter2"
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Pools {
		for _, s := range p.Discovery.All() {
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
				if got := fmt.Sprintf(format, s.Options); strings.Contains(got, "hunter2") || strings.Contains(got, "68756e74657232") {
					t.Errorf("%s of %s shows it: %s", format, s.Kind, got)
				}
			}
			if b, err := json.Marshal(s); err != nil || strings.Contains(string(b), "hunter2") {
				t.Errorf("JSON of %s shows it: %s, %v", s.Kind, b, err)
			}
		}
	}
	if c.Pools[0].Discovery.Options.(*HTTPSource).Password != "hunter2" {
		t.Error("the secret itself is lost")
	}
}

// TestDiscoveryDefaults: what follows from other keys, and which warnings a pool that finds its backends does not get.
func TestDiscoveryDefaults(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse("/etc/x.toml", []byte("[frontends.f]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings) > 0 {
			t.Errorf("warnings: %q", c.Warnings)
		}
		return c
	}
	file := parse("[pools.p.discovery]\nkind = \"file\"\npath = \"backends\"\nsave_to = \"saved\"\n").Pools[0].Discovery
	if file.Interval != time.Second || file.Options.(*FileSource).Path != "/etc/backends" || file.SaveTo != "/etc/saved" {
		t.Errorf("%+v, %+v", file, file.Options)
	}
	two := parse("[pools.p.discovery]\nretry_max = \"100ms\"\n[[pools.p.discovery.sources]]\nkind = \"file\"\npath = \"/a\"\n[[pools.p.discovery.sources]]\nkind = \"srv\"\nname = \"_a._tcp.B.c.\"\nmin_ttl = \"1h\"\n").Pools[0].Discovery
	var kinds []string
	for _, s := range two.All() {
		kinds = append(kinds, s.Kind)
	}
	srv := two.Sources[1].Options.(*SRVSource)
	if two.Interval != 10*time.Second || two.RetryMin != 100*time.Millisecond || !slices.Equal(kinds, []string{"file", "srv"}) || srv.Name != "_a._tcp.b.c" || srv.MaxTTL != time.Hour {
		t.Errorf("%+v, %v, %+v", two, kinds, srv)
	}
}

// TestKubeconfigStartsPrograms: its plugins do, so the word of the API is not enough for one.
func TestKubeconfigStartsPrograms(t *testing.T) {
	c, err := Parse("/etc/x.toml", []byte("[pools.a.discovery]\nkind = \"kubernetes\"\nservice = \"web\"\nkubeconfig = \"kube\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if errs := c.Beyond("/etc"); len(errs) != 1 || !strings.Contains(errs.Error(), "may not start programs") {
		t.Errorf("got %v; want one about programs", errs)
	}
	if errs := c.Beyond("/etc", c); len(errs) != 0 {
		t.Errorf("what is trusted: %v", errs)
	}
}
