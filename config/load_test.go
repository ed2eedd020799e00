package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLoadFail(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory: no error")
	}
	big := filepath.Join(dir, "big.toml")
	if err := os.WriteFile(big, []byte(strings.Repeat("# x\n", 1<<20)+"#"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, big, 1, "larger than 4 MiB")
}

// wantError loads a file and wants exactly one error.
func wantError(t *testing.T, file string, line int, text string) {
	t.Helper()
	_, err := Load(file)
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Line != line || errs[0].File != file || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v; want one error at line %d with %q", err, line, text)
	}
}

// TestParseText: what is wrong with the bytes and not with the TOML.
func TestParseText(t *testing.T) {
	for _, c := range []struct {
		name, text string
		line       int
		want       string // part of the message; "" when the text is fine
	}{
		{"byte order mark", "\ufeff[log]\nlevel = 'info'\n", 0, ""},
		{"crlf", "[log]\r\nlevel = 'info'\r\n", 0, ""},
		{"byte order mark and a mistake", "\ufeff[log]\n\nlevel = 'x'\n", 3, "log.level"},
		{"crlf and a mistake", "[log]\r\n\r\nlevel = 'x'\r\n", 3, "log.level"},
		{"a bare carriage return", "[log]\rlevel = 'info'", 1, "control characters"},
		{"latin-1", "[log]\n# caf\xe9\n", 2, "the byte 0xe9; want text in UTF-8"},
		{"utf-16", "\xff\xfe[\x00l\x00o\x00g\x00]\x00", 1, "the byte 0xff; want text in UTF-8"},
		{"utf-16 without a mark", "[\x00l\x00o\x00g\x00]\x00", 1, "NULL"},
		{"a control character", "[log]\nlevel = \"\x1b[31m\"", 2, "control characters: '0x1b'"},
		{"a replacement character", "[log]\noutput = '\ufffd'", 0, ""},
		{"an odd character in a key", "\u202eevil = 1", 1, `\u202e`},
		{"a mistake on the last line", "[log]\nlevel", 2, "not valid TOML"},
		{"only a key", "a", 1, "not valid TOML"},
		{"deep arrays", "a = " + strings.Repeat("[", 4<<20-4), 1, "nested more than 32 deep"},
		{"deep tables", "a = " + strings.Repeat("{a=", 1<<20), 1, "nested more than 32 deep"},
		{"long key", strings.Repeat("a.", 2<<20-4) + "a=1", 1, "longer than 256 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("x.toml", []byte(c.text))
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v; want no error", err)
				}
				return
			}
			var errs Errors
			if !errors.As(err, &errs) || len(errs) != 1 {
				t.Fatalf("got %v; want one error", err)
			}
			checkErrors(t, errs, "x.toml")
			if errs[0].Line != c.line || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; want line %d, %q", err, c.line, c.want)
			}
		})
	}
}

// TestParseHostile: large files of bad shapes end in an error or a configuration, in bounded time. At a sixteenth
// of the largest file each takes half a second or less; at the whole size the worst took 9.4 s (500000 unknown keys; two
// shared cores, 2026-11), so that nothing grows faster than the file.
func TestParseHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const size = maxFile / 16
	many := func(s string) string { return strings.Repeat(s, size/len(s)) }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			b.WriteString(strings.ReplaceAll(format, "#", strconv.FormatInt(int64(i), 16)))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"unknown keys":          numbered("k#=1\n"),
		"keys under a long one": "[" + strings.Repeat("a", 240) + "]\n" + numbered("k#=1\n"),
		"tables":                numbered("[frontends.f#]\n"),
		"pools":                 numbered("[pools.p#]\n"),
		"arrays of tables":      many("[[frontends.a.routes]]\n"),
		"array elements":        "[pools.a]\nsource = [" + many("1,\n") + "]\n",
		"missing pools":         "[pools.web]\n" + numbered("[frontends.f#]\npool='wbe'\n"),
		"backends":              "[pools.a]\nbackends = [\n" + numbered(`{address="[fd00::#]:8"},`+"\n") + "]\n",
		"the same backend":      "[pools.a]\nbackends = [\n" + many(`{address="1.1.1.1:8"},`+"\n") + "]\n",
		"ports":                 numbered("[frontends.f#]\nbind=[':1-65535']\n"),
		"one long string":       "log.output = '" + many("x") + "'\n",
		"one long comment":      "# " + many("x") + "\n",
		"quotes":                many(`"`),
		"variables":             "log.output = '" + many("${X") + "'\n",
		"conditions":            "[[frontends.a.routes]]\nmatch.any = [\n" + many("{},{not={}},\n") + "]\n",
		"names":                 "[[frontends.a.routes]]\nmatch.sni = [\n" + numbered("'#.a',\n") + "]\n",
		"wrong names":           "[[frontends.a.routes]]\nmatch.sni = [\n" + numbered("'#.*',\n") + "]\n",
		"expressions":           "[[frontends.a.routes]]\nmatch.sni_regexp = [\n" + many("'((x{1,9}){1,9}){1,9}',\n") + "]\n",
		"one long expression":   "[[frontends.a.routes]]\nmatch.sni_regexp = ['" + many("(x?)") + "']\n",
		"certificates":          "[frontends.a.tls]\ncertificates = [\n" + numbered("{cert='#'},\n") + "]\n",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("x.toml", []byte(text))
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			took := time.Since(start)
			t.Logf("%v, %d bytes of message", took.Round(time.Millisecond), len(msg))
			if took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func loadGood(t *testing.T, name string) *Config {
	t.Helper()
	cfg, err := Load("testdata/good/" + name + ".toml")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestGoodEmpty(t *testing.T) {
	want := newConfig()
	want.Log.Access.Format = "text"
	want.Admin.Address = Address{IP: mustAddrPort("127.0.0.1:7070")}
	want.Warnings = []string{"testdata/good/empty.toml:1: there are no frontends: awe4lb listens on nothing"}
	var err error
	if want.ACME.Storage, err = filepath.Abs("testdata/good/acme"); err != nil {
		t.Fatal(err)
	}
	if want.Admin.Configs, err = filepath.Abs("testdata/good/awe4lb.d"); err != nil {
		t.Fatal(err)
	}
	want.Admin.Anonymous = "configure"
	got := loadGood(t, "empty")
	got.at, got.place, got.reach = nil, nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestGoodEverything(t *testing.T) {
	c := loadGood(t, "everything")
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %q", c.Warnings)
	}
	if want := (Log{"debug", "json", "/var/log/awe4lb/awe4lb.log", AccessLog{"stdout", "text"}}); c.Log != want {
		t.Errorf("log: got %+v; want %+v", c.Log, want)
	}
	if c.Admin.Bind != "unix:/run/awe4lb/admin.sock" || c.Admin.Address != (Address{Path: "/run/awe4lb/admin.sock"}) {
		t.Errorf("admin: got %+v", c.Admin)
	}
	if want := (Engine{4, 100000, 0, 0, 64 << 10, false, 0, 90 * time.Second, "awe4lb", "www-data", "b", "lb1", nil, 3, 5, []int{2, 3}, "/etc/awe4lb/tickets"}); !reflect.DeepEqual(c.Engine, want) {
		t.Errorf("engine: got %+v; want %+v", c.Engine, want)
	}
	tcp := TCP{false, 15 * time.Second, 20 * time.Second, 4096, true}
	if want := (Defaults{2 * time.Second, time.Hour, 30 * time.Second, 24 * time.Hour, tcp}); c.Defaults != want {
		t.Errorf("defaults: got %+v; want %+v", c.Defaults, want)
	}
	f := c.Frontend("web")
	want := &Frontend{
		Name: "web", Bind: []string{"127.0.0.1:8080", "unix:/run/awe4lb/web.sock"}, Protocol: "tcp", Pool: "web",
		MaxConnections: 5000, UnixMode: 0o600, IdleTimeout: 5 * time.Minute,
		TCP: TCP{true, 0, 20 * time.Second, 4096, true},
		UDP: newUDP(),

		HelloTimeout: 3 * time.Second, MaxHandshakes: 100, MaxHandshakesPerPrefix: 10, UnknownName: "default", STARTTLS: "none",
		ProxyProtocol: ProxyProtocol{Accept: "off"},
		Access:        Access{Default: "allow"}, SourcePrefixV4: 32, SourcePrefixV6: 64,
		Addresses: []Address{{IP: mustAddrPort("127.0.0.1:8080")}, {Path: "/run/awe4lb/web.sock"}},
		Routes:    f.Routes,
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("frontend: got %+v; want %+v", f, want)
	}
	if len(f.Routes) != 1 || f.Routes[0].Pool != "internal" || len(f.Routes[0].Match.Source) != 3 || f.Routes[0].Match.Source[2].String() != "192.0.2.7/32" {
		t.Errorf("routes: %+v", f.Routes[0])
	}
	p := c.Pool("web")
	if p.HashKey != "prefix" || p.HashPrefixV4 != 20 || p.HashPrefixV6 != 48 || c.Pool("internal").SlowStart != time.Minute || p.PanicThreshold != 30 || !p.PreferZone {
		t.Errorf("pool: got %+v", p)
	}
	if p.Policy != "maglev" || p.ConnectTimeout != 500*time.Millisecond || p.ConnectAttempts != 5 || len(p.Source) != 2 ||
		p.TCP != (TCP{false, 15 * time.Second, 5 * time.Second, 0, true}) || len(p.Backends) != 2 {
		t.Errorf("pool: %+v", p)
	}
	if want := (Backend{Address{IP: mustAddrPort("10.0.0.1:80")}, 10, 1, 200, "b", "", nil}); !p.Backends[0].Same(&want) {
		t.Errorf("backend: got %+v; want %+v", *p.Backends[0], want)
	}
	if want := (Backend{Address{IP: mustAddrPort("[fe80::7%eth0]:9001")}, 1, 0, 0, "", "", nil}); !c.Pool("internal").Backends[2].Same(&want) {
		t.Errorf("backend: got %+v; want %+v", *c.Pool("internal").Backends[2], want)
	}
	if c.Frontend("none") != nil || c.Pool("none") != nil {
		t.Error("found what is not there")
	}
}

func TestGoodUDP(t *testing.T) {
	c := loadGood(t, "udp")
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %q", c.Warnings)
	}
	want := newUDP()
	if f := c.Frontend("dns"); !f.IsUDP() || !reflect.DeepEqual(f.UDP, want) || len(f.Addresses) != 2 {
		t.Errorf("dns: got %+v; want %+v", f, want)
	}
	if f := c.Frontend("dns-tcp"); f.IsUDP() || f.Addresses[0] != c.Frontend("dns").Addresses[0] {
		t.Errorf("the same address in both protocols: %+v", f)
	}
	syslog := c.Frontend("syslog").UDP
	if syslog.Mode != "datagram" || syslog.Replies {
		t.Errorf("syslog: %+v", syslog)
	}
	if u := c.Frontend("short").UDP; u.UnrepliedTimeout != 2*time.Second {
		t.Errorf("unreplied_timeout: got %v; want idle_timeout, which is shorter than the default", u.UnrepliedTimeout)
	}
	shared := c.Frontend("shared").UDP
	for ip, want := range map[string]string{"10.0.0.1": "10.200.0.0/16", "fd00::1": "fd00:200::/64"} {
		if got, ok := shared.SharedSourceFor(netip.MustParseAddr(ip)); !ok || got.String() != want {
			t.Errorf("shared source towards %s: got %v, want %s", ip, got, want)
		}
	}
	if _, ok := want.SharedSourceFor(netip.MustParseAddr("10.0.0.1")); ok {
		t.Error("a shared source where none is configured")
	}
}

func TestGoodBinds(t *testing.T) {
	c := loadGood(t, "binds")
	for name, want := range map[string]string{
		"a": "127.0.0.1:8080 0.0.0.0:8081 [::]:8081 0.0.0.0:8082 [::]:8082 127.0.0.1:8083 [::1]:8083 127.0.0.1:8090 127.0.0.1:8091 " +
			"127.0.0.1:8092 127.0.0.1:8100 [::1]:8100 127.0.0.1:8101 [::1]:8101 [::1]:8084 [fe80::1%eth0]:8085 127.0.0.1:8086 " +
			"127.0.0.1:0 127.0.0.1:0 unix:/run/a.sock",
		"b": "127.0.0.1:8081 127.0.0.1:0 [::]:8080",
	} {
		var got []string
		for _, a := range c.Frontend(name).Addresses {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got  %q\nwant %q", name, strings.Join(got, " "), want)
		}
	}
}

func TestGoodOrder(t *testing.T) {
	c := loadGood(t, "order")
	var names []string
	for _, f := range c.Frontends {
		names = append(names, f.Name)
		if f.IdleTimeout != 7*time.Minute {
			t.Errorf("%s: idle timeout %v", f.Name, f.IdleTimeout)
		}
	}
	for _, p := range c.Pools {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "b.eu a web zebra apple" {
		t.Errorf("got %q", got)
	}
}

func TestGoodEnv(t *testing.T) {
	setTestEnv(t)
	for name, value := range map[string]string{"DIR": "/var/${AWE_TEST_GOOD}", "POOL": "web", "NET": "10.0.0.0", "PORT": "9001", "SECONDS": "7"} {
		t.Setenv("AWE_TEST_"+name, value)
	}
	c := loadGood(t, "env")
	f, p := c.Frontend("web"), c.Pool("web")
	if want := "/var/${AWE_TEST_GOOD}/${AWE_TEST_DIR}/$HOME/$$.log"; c.Log.Output != want {
		t.Errorf("log.output: got %q; want %q", c.Log.Output, want)
	}
	if f.Addresses[0].String() != "127.0.0.1:8080" || f.Pool != "web" || f.Routes[0].Match.Source[0].String() != "10.0.0.0/8" ||
		p.Backends[0].Address.String() != "127.0.0.1:9001" || p.ConnectTimeout != 7*time.Second {
		t.Errorf("got %+v, %+v", f, p)
	}
}

func TestWarnings(t *testing.T) {
	got := strings.Join(loadGood(t, "warnings").Warnings, "\n")
	want := strings.ReplaceAll(`F:2: engine.splice_pipes: splice has no pipes to work with (write splice = false to turn it off)
F:4: frontends.nowhere: there is neither a pool nor a route: every connection is refused
F:18: pools.web.backends[0].address: this is an address of frontends.web, which sends connections here: they go round and round
F:19: pools.web.backends[1].address: this is an address of frontends.web, which sends connections here: they go round and round
F:21: pools.web.backends[3].address: the source addresses of the pool have no IPv6 address to reach this backend from
F:25: pools.empty: there are no backends: connections that come here are refused
F:27: pools.unused: no frontend uses this pool
F:30: pools.resting: no backend has a weight above 0: connections that come here are refused
F:30: pools.resting: no frontend uses this pool`, "F:", "testdata/good/warnings.toml:")
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestGoodProxy(t *testing.T) {
	c, err := Parse("f", []byte(`[frontends.f]
bind = ["127.0.0.1:1"]
pool = "p"
proxy_protocol = { accept = "required", trusted = ["10.0.0.0/8", "fd00::1"] }
[frontends.u]
bind = ["unix:/run/u.sock"]
pool = "p"
proxy_protocol = { accept = "optional" }
[pools.p]
backends = [{ address = "127.0.0.1:2" }]
send_proxy = "v2"
send_proxy_datagrams = "first"
proxy_tlvs = ["alpn", "authority", "tls", "unique_id", "crc32c"]
[frontends.d]
bind = ["127.0.0.1:1"]
protocol = "udp"
pool = "p"
proxy_protocol = { accept = "required", trusted = ["10.0.0.0/8"] }
`))
	if err != nil || len(c.Warnings) > 0 {
		t.Fatalf("%v %q", err, c.Warnings)
	}
	if p := c.Frontend("f").ProxyProtocol; p.Accept != "required" || len(p.Trusted) != 2 || p.Trusted[1].String() != "fd00::1/128" {
		t.Errorf("%+v", p)
	}
	if p := c.Pool("p"); p.SendProxy != "v2" || p.SendProxyDatagrams != "first" || len(p.ProxyTLVs) != 5 {
		t.Errorf("%+v", p)
	}
}
