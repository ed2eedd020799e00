package convert

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"awe4lb/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// report is what the command prints for a result.
func report(name string, r *Result) string {
	var b strings.Builder
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s:%s\n", name, n)
	}
	return b.String()
}

// good fails the test unless what was converted loads.
func good(t *testing.T, r *Result) *config.Config {
	t.Helper()
	cfg, err := config.Parse("awe4lb.toml", r.TOML)
	if err != nil {
		t.Fatalf("the result does not load: %v\n%s", err, r.TOML)
	}
	return cfg
}

// TestGolden converts every testdata file and compares with FILE.awe4lb.toml and FILE.notes beside it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		return strings.HasSuffix(f, ".awe4lb.toml") || strings.HasSuffix(f, ".notes")
	})
	if len(files) == 0 {
		t.Fatal("no test files")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(file)
			r, err := Convert(name, text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			good(t, r)
			if again, _ := Convert(name, text, Options{}); string(again.TOML) != string(r.TOML) || report(name, again) != report(name, r) {
				t.Error("another time, another result")
			}
			for line := range strings.Lines(report(name, r) + string(r.TOML)) {
				key, _, isKey := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
				if strings.Contains(line, "hunter2") && !(isKey && (key == "token" || key == "password")) {
					t.Errorf("a secret is shown: %s", line)
				}
			}
			for suffix, got := range map[string]string{".awe4lb.toml": string(r.TOML), ".notes": report(name, r)} {
				golden := file + suffix
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					continue
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("%s is not what it was (-update rewrites it):\n%s", golden, got)
				}
			}
		})
	}
}

const oneServer = "[servers.a]\nbind = \"127.0.0.1:1\"\n"

// static is a server with the list of backends as it stands in TOML.
func static(keys, list string) string {
	return oneServer + keys + "\n[servers.a.discovery]\nkind = \"static\"\nstatic_list = [" + list + "]\n"
}

// discovered is a server whose backends are found.
func discovered(keys string) string {
	return oneServer + "[servers.a.discovery]\n" + keys + "\n"
}

func source(c *config.Config) any { return c.Pool("a").Discovery.All()[0].Options }

func dockerSource(c *config.Config) *config.DockerSource { return source(c).(*config.DockerSource) }

func docker(endpoint string, tls bool) string {
	return discovered(fmt.Sprintf("kind = \"docker\"\ndocker_endpoint = %q\ndocker_container_private_port = 80\ndocker_tls_enabled = %v\n"+
		"docker_tls_cert_path = \"/cert.pem\"\ndocker_tls_key_path = \"/key.pem\"\ndocker_tls_cacert_path = \"/ca.pem\"", endpoint, tls))
}

// TestMeaning looks at what a configuration means once it is loaded.
func TestMeaning(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   func(c *config.Config) bool
	}{
		"weights": {static(`balance = "weight"`, `"10.0.0.1:1 weight=3", "10.0.0.2:1 priority=2", "10.0.0.3:1"`), func(c *config.Config) bool {
			b := c.Pool("a").Backends
			return c.Pool("a").Policy == "random" && b[0].Weight == 3 && b[0].Priority == 1 && b[1].Weight == 1 && b[1].Priority == 2 && b[2].Priority == 1
		}},
		"weights that roundrobin ignores": {static(`balance = "roundrobin"`, `"10.0.0.1:1 weight=3 priority=2 max_connections=7"`), func(c *config.Config) bool {
			b := c.Pool("a").Backends[0]
			return b.Weight == 1 && b.Priority == 0 && b.MaxConnections == 7
		}},
		"all weights 0": {static("", `"10.0.0.1:1 weight=0", "10.0.0.2:1 weight=0"`), func(c *config.Config) bool {
			return c.Pool("a").Backends[0].Weight == 1 && c.Pool("a").Backends[1].Weight == 1
		}},
		"one weight 0": {static("", `"10.0.0.1:1 weight=0", "10.0.0.2:1"`), func(c *config.Config) bool {
			return c.Pool("a").Backends[0].Weight == 0 && c.Pool("a").Backends[1].Weight == 1
		}},
		"large weights": {static("", `"10.0.0.1:1 weight=5000", "10.0.0.2:1 weight=2500", "10.0.0.3:1"`), func(c *config.Config) bool {
			b := c.Pool("a").Backends
			return b[0].Weight == 1000 && b[1].Weight == 500 && b[2].Weight == 1
		}},
		"large priorities": {static("", `"10.0.0.1:1 priority=1000", "10.0.0.2:1 priority=300"`), func(c *config.Config) bool {
			return c.Pool("a").Backends[0].Priority == 1 && c.Pool("a").Backends[1].Priority == 0
		}},
		"the shorter idle timeout": {static("client_idle_timeout = \"10m\"\nbackend_idle_timeout = \"5m\"", ""), func(c *config.Config) bool {
			return c.Frontend("a").IdleTimeout.Minutes() == 5
		}},
		"no idle timeout": {static("", ""), func(c *config.Config) bool { return c.Frontend("a").IdleTimeout == 0 }},
		"inherited": {"[defaults]\nmax_connections = 7\nbackend_connection_timeout = \"3s\"\n" + static("", ""), func(c *config.Config) bool {
			return c.Frontend("a").MaxConnections == 7 && c.Pool("a").ConnectTimeout.Seconds() == 3
		}},
		"every address": {strings.Replace(static("", ""), "127.0.0.1:1", "0.0.0.0:1", 1), func(c *config.Config) bool { return len(c.Frontend("a").Addresses) == 2 }},
		"names": {static("[servers.a.sni]", `"10.0.0.1:1 sni=A.example", "10.0.0.2:1 sni=a.example", "10.0.0.3:1"`), func(c *config.Config) bool {
			f := c.Frontend("a")
			return len(f.Routes) == 1 && f.Routes[0].Match.SNI[0] == "a.example" && len(c.Pool(f.Routes[0].Pool).Backends) == 2 &&
				len(c.Pool(f.Pool).Backends) == 1 && f.UnknownName == "default" && f.HelloTimeout.Seconds() == 2
		}},
		"names without a table sni": {static("", `"10.0.0.1:1 sni=a.example", "10.0.0.3:1"`), func(c *config.Config) bool {
			return len(c.Frontend("a").Routes) == 0 && len(c.Pool("a").Backends) == 2
		}},
		"any name": {static("[servers.a.sni]\nunexpected_hostname_strategy = \"any\"", `"10.0.0.1:1 sni=a.example", "10.0.0.3:1"`), func(c *config.Config) bool {
			return len(c.Pool(c.Frontend("a").Pool).Backends) == 2
		}},
		"no other name": {static("[servers.a.sni]\nunexpected_hostname_strategy = \"reject\"", `"10.0.0.1:1 sni=a.example", "10.0.0.3:1"`), func(c *config.Config) bool {
			return c.Frontend("a").Pool == "" && c.Frontend("a").UnknownName == "reject"
		}},
		"API and metrics off": {static("", ""), func(c *config.Config) bool { return c.Admin.Bind == "" }},
		"metrics alone":       {"[metrics]\nenabled = true\nbind = \":9284\"\n" + static("", ""), func(c *config.Config) bool { return c.Admin.Bind == "127.0.0.1:9284" && c.Admin.Anonymous == "read" }},
		"an API with a password": {"[api]\nenabled = true\nbind = \":8888\"\n[api.basic_auth]\nlogin = \"a\"\npassword = \"b\"\n" + static("", ""), func(c *config.Config) bool {
			return c.Admin.Bind == "127.0.0.1:8888" && c.Admin.Anonymous == "read" && c.Admin.Compat == "gobetween" // nobody may do more than before
		}},
		"text with ${": {"[logging]\noutput = \"/tmp/${X}\"\n" + static("", ""), func(c *config.Config) bool { return c.Log.Output == "/tmp/${X}" }},
		"UDP without answers": {static("protocol = \"udp\"\n[servers.a.udp]\nmax_requests = 1", `"10.0.0.1:1"`), func(c *config.Config) bool {
			return c.Frontend("a").UDP.Mode == "datagram" && !c.Frontend("a").UDP.Replies
		}},
		"checks decide at once": {static("[servers.a.healthcheck]\nkind = \"ping\"\ninterval = \"3s\"", `"10.0.0.1:1"`), func(c *config.Config) bool {
			h := c.Pool("a").Health
			return h.Rise == 1 && h.Fall == 1 && h.Interval.Seconds() == 3 && h.Kind == "tcp"
		}},
		"session tickets": {static("protocol = \"tls\"\n[servers.a.tls]\ncert_path = \"/a\"", `"10.0.0.1:1"`), func(c *config.Config) bool { return !c.Frontend("a").TLS.SessionTickets }},
		"an expression is not anchored": {static("[servers.a.sni]\nhostname_matching_strategy = \"regexp\"", `"10.0.0.1:1 sni=^b$|c"`), func(c *config.Config) bool {
			re, err := config.CompileNameRegexp(c.Frontend("a").Routes[0].Match.SNIRegexp[0])
			return err == nil && re.MatchString("b") && re.MatchString("xcx") && !re.MatchString("ab")
		}},
		"Docker by TLS": {docker("tcp://10.0.0.9:2376", true), func(c *config.Config) bool {
			o := dockerSource(c)
			return o.URL == "https://10.0.0.9:2376" && o.CA == "/ca.pem" && o.Cert == "/cert.pem" && o.Key == "/key.pem"
		}},
		"Docker by TLS, whatever the scheme": {docker("http://10.0.0.9:2375", true), func(c *config.Config) bool { return dockerSource(c).URL == "https://10.0.0.9:2375" }},
		"Docker by TLS that is not enabled": {docker("tcp://10.0.0.9:2375", false), func(c *config.Config) bool {
			o := dockerSource(c)
			return o.URL == "http://10.0.0.9:2375" && o.CA == "" && o.Cert == "" && o.Key == ""
		}},
		"Docker without a scheme": {docker("10.0.0.9:2375", false), func(c *config.Config) bool { return dockerSource(c).URL == "http://10.0.0.9:2375" }},
		"Docker by a unix socket": {docker("unix:///run/docker.sock", false), func(c *config.Config) bool { return dockerSource(c).URL == "unix:///run/docker.sock" }},
		"Consul by TLS that is not enabled": {discovered("kind = \"consul\"\nconsul_host = \"10.0.0.9\"\nconsul_service_name = \"web\"\nconsul_tls_cacert_path = \"/ca.pem\""), func(c *config.Config) bool {
			o := source(c).(*config.ConsulSource)
			return o.URL == "http://10.0.0.9:8500" && o.CA == ""
		}},
		"two servers at one address": {static("", `"10.0.0.1:1"`) + "[servers.b]\nbind = \"127.0.0.1:1\"\n", func(c *config.Config) bool {
			return c.Frontend("a") != nil && c.Frontend("b") == nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Convert("x", []byte(c.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !c.ok(good(t, r)) {
				t.Errorf("it means something else:\n%s", r.TOML)
			}
		})
	}
}

// TestOriginalMeaning is the same for the original awe4lb.
func TestOriginalMeaning(t *testing.T) {
	server := func(match, more string) string {
		return `{"id":"x","description":"x","servers":[{"id":"a","addr":{"host":"127.0.0.1","port":1},"match":[` + match + `]` + more + `}]}`
	}
	hosts := `"pool":{"hosts":[{"addr":{"host":"10.0.0.1","port":1}}]}`
	for name, c := range map[string]struct {
		text string
		ok   func(c *config.Config) bool
	}{
		"any": {server("{"+hosts+"}", ""), func(c *config.Config) bool {
			return c.Frontend("a").Pool == "a" && c.Pool("a").Policy == "random" && c.Pool("a").Health.Initial == "checking"
		}},
		"a prefix of text": {server(`{"op":{"host":{"startsWith":"192.168.7."}},`+hosts+"}", ""), func(c *config.Config) bool {
			return c.Frontend("a").Routes[0].Match.Source[0].String() == "192.168.7.0/24" && c.Frontend("a").Pool == ""
		}},
		"a text that is no prefix": {server(`{"op":{"host":{"startsWith":"192.168.7"}},`+hosts+"}", ""), func(c *config.Config) bool {
			return len(c.Frontend("a").Routes) == 0 && c.Frontend("a").Pool == "" // no wider than it was
		}},
		"or": {server(`{"or":[{"sni":{"equals":"a.b"}},{"sni":{"endsWith":".c"}}],`+hosts+"}", ""), func(c *config.Config) bool {
			any := c.Frontend("a").Routes[0].Match.Any
			return len(any) == 2 && any[0].SNI[0] == "a.b" && any[1].SNIEndsWith[0] == ".c"
		}},
		"UDP without a check": {server("{"+hosts+"}", `,"udp":{}`), func(c *config.Config) bool {
			u := c.Frontend("a").UDP
			return c.Frontend("a").IsUDP() && c.Pool("a").Health == nil && u.MaxFlows == 4096 && u.IdleTimeout.Seconds() == 60
		}},
		"hosts and discover": {server("{"+`"pool":{"hosts":[{"addr":{"host":"app.internal","port":1}},{"addr":{"host":"10.0.0.1","port":1}}]},"discover":{"http":{"endpoint":"http://10.0.0.2/"}}`+"}", ""), func(c *config.Config) bool {
			return len(c.Pool("a").Backends) == 1
		}},
		"TLS to anyone": {server(`{"tls":{"open":true},`+hosts+"}", ""), func(c *config.Config) bool { return c.Pool("a").TLS.InsecureSkipVerify }},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Convert("x", []byte(c.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if r.From != Original {
				t.Fatalf("taken for %s", r.From)
			}
			if !c.ok(good(t, r)) {
				t.Errorf("it means something else:\n%s", r.TOML)
			}
		})
	}
}

// TestNothingIsLostInSilence: each value of a wrong kind and each unknown key is told, with its line.
func TestNothingIsLostInSilence(t *testing.T) {
	for text, want := range map[string]string{
		"x = 1\n" + oneServer:                          `1: x: not carried over: 1: gobetween does not know this key here`,
		oneServer + "max_connections = \"many\"\n":     `3: servers.a.max_connections: not carried over: "many": want a whole number`,
		oneServer + "client_idle_timeout = \"soon\"\n": `3: servers.a.client_idle_timeout: not carried over: "soon": want a duration such as "5s"`,
		oneServer + "client_idle_timeout = 5\n":        `3: servers.a.client_idle_timeout: not carried over: 5: want a duration such as "5s"`,
		oneServer + "balance = \"magic\"\n":            `3: servers.a.balance: not carried over: "magic": gobetween knows weight`,
		oneServer + "tls = 7\n":                        `3: servers.a.tls: not carried over: 7: want a table`,
		static("", `"10.0.0.1:1", 7`):                  `6: servers.a.discovery.static_list[1]: not carried over: 7: want text`,
		static("", "") + "[servers.a.healthcheck]\nkind = \"exec\"\ninterval = \"2s\"\nexec_command = \"check\"\n": `10: servers.a.healthcheck.exec_command: not carried over: got "check"; want the absolute path of a program`,
		static("", `"10.0.0.1:99999"`):                                        `6: servers.a.discovery.static_list[0]: not carried over: got "10.0.0.1:99999"; want a port from 1 to 65535`,
		static("", `"10.0.0.1:1", "10.0.0.1:1"`):                              `6: servers.a.discovery.static_list[1]: not carried over: got "10.0.0.1:1"; want each backend once in a pool`,
		"[servers.a]\nbind = \"www.example.com:80\"\n":                        `2: servers.a.bind: not carried over: got "www.example.com:80"`,
		"{\n\"servers\": {\"a\": {\n\"bind\": 7}}}":                           `3: servers.a.bind: not carried over: 7: want text`,
		"[api]\nenabled = true\n[api.basic_auth]\npassword = 5\n" + oneServer: `3: api.basic_auth: not carried over: a login and a password`,
	} {
		r, err := Convert("x", []byte(text), Options{})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		good(t, r)
		if !strings.Contains(report("", r), want) {
			t.Errorf("%q:\n%swant %s", text, report("", r), want)
		}
	}
}

// TestUnreadable: what is no such configuration is an error that says what and where.
func TestUnreadable(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "neither gobetween's",
		"x = 1":                               "neither gobetween's",
		"servers = 7":                         "neither gobetween's",
		"a = 1\nb = \n":                       "x:2: not valid TOML",
		"{\n\"a\": 1,\n}":                     "x:3: not valid JSON",
		"{\n\"a\":":                           "x:2: not valid JSON: it ends too early",
		"{\"a\": 1,\n\"a\": 2}":               "x:2: a: given twice; the first is at line 1",
		"{} {}":                               "something follows",
		"{\"a\": 1e999}":                      "too large",
		"{\"a\": \"\xff\"}":                   "not UTF-8",
		"[frontends.a]\nbind = []":            "awe4lb's own configuration already",
		strings.Repeat(" ", 5<<20):            "larger than 4 MiB",
		`{"a":` + strings.Repeat("[", 100000): "deep in each other",
	} {
		_, err := Convert("x", []byte(text), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v; want %s", text, err, want)
		}
	}
}

// TestEnv: with Env a variable stays one, whether it is set here or not.
func TestEnv(t *testing.T) {
	text := []byte("[servers.a]\nbind = \"${AWE_CONVERT_TEST_UNSET}\"\n")
	r, err := Convert("x", text, Options{Env: true})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(r.TOML), "\nbind = [\"${AWE_CONVERT_TEST_UNSET}\"]\n") {
		t.Errorf("got\n%s", r.TOML)
	}
	t.Setenv("AWE_CONVERT_TEST_UNSET", "127.0.0.1:1")
	good(t, r)
}

// TestManyServers: a large configuration takes a moment, not minutes.
func TestManyServers(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "[servers.s%d]\nbind = \"127.0.0.1:%d\"\nbalance = \"none\"\n[servers.s%d.discovery]\nkind = \"static\"\nstatic_list = [\"10.0.0.1:%d\", \"bad:x\"]\n", i, 10000+i, i, 1+i)
	}
	r, err := Convert("x", []byte(b.String()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c := good(t, r); len(c.Frontends) != 1000 || len(r.Notes) < 2000 {
		t.Errorf("got %d frontends and %d notes", len(c.Frontends), len(r.Notes))
	}
}

// FuzzConvert: whatever is read, the result loads, and is the same again.
func FuzzConvert(f *testing.F) {
	for _, file := range []string{"gobetween.toml", "gobetween.json", "original.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(static("[servers.a.sni]", `"10.0.0.1:1 sni=a weight=9999999", "x'\"y:1", "10.0.0.1:1 sni=b"`))
	f.Add(`{"servers":[{"udp":{"bufferSize":-1},"match":[{"op":{"sni":{"equals":"*"}}},{"and":[{}]},{}]},{"tls":{},"match":[{}]}]}`)
	f.Add(`{"servers":{"":{"bind":"\u0000\n","protocol":"tls","tls":{},"healthcheck":{"kind":"probe","probe_send":"\\q"}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Convert("x\ny", []byte(text), Options{})
		if err != nil {
			if strings.Contains(err.Error(), "a bug of awe4lb convert") {
				t.Fatalf("%v", err)
			}
			return
		}
		good(t, r)
		again, err := Convert("x\ny", []byte(text), Options{})
		if err != nil || string(again.TOML) != string(r.TOML) {
			t.Fatalf("another time another result: %v", err)
		}
		for _, n := range r.Notes {
			if n.Line < 1 || n.Key == "" && n.Line != 1 || n.Text == "" || strings.ContainsAny(n.String(), "\n\r\x00") {
				t.Errorf("a note without a place or on several lines: %+v", n)
			}
		}
	})
}
