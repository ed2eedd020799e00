package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSizes: read_buffer in all ways to write it.
func TestSizes(t *testing.T) {
	for in, want := range map[string]Size{
		`65536`: 65536, `"64KiB"`: 65536, `"65536"`: 65536, `"1MiB"`: 1 << 20, `"0064KiB"`: 65536, `0x10000`: 65536, `16384`: 16384,
	} {
		c, err := Parse("x.toml", []byte("engine.read_buffer = "+in))
		if err != nil || c.Engine.ReadBuffer != want {
			t.Errorf("%s: got %v; want %d", in, err, want)
		}
	}
	for in, hint := range map[string]string{
		`"64KB"`: "64KiB", `"64K"`: "64KiB", `"64k"`: "64KiB", `"64kib"`: "64KiB", `"64 KiB"`: "64KiB", `"1 mb"`: "1MiB", `"1M"`: "1MiB", `"1g"`: "1GiB",
		`"1.5MiB"`: "", `"-64KiB"`: "", `"KiB"`: "", `""`: "", `"64XB"`: "", `"2m0s"`: "", `"99999999999999999999"`: "", `"8589934592GiB"`: "",
		`"1GiB"`: "", `"16383"`: "", `16383`: "", `1048577`: "", `9223372036854775807`: "", `-1`: "", `0`: "", `1.5`: "", `nan`: "", `inf`: "", `true`: "", `[1]`: "",
	} {
		_, err := Parse("x.toml", []byte("engine.read_buffer = "+in))
		if err == nil || !strings.Contains(err.Error(), `want a size such as "64KiB", from 16KiB to 1MiB`) {
			t.Errorf("%s: got %v", in, err)
		} else if got := strings.Contains(err.Error(), "(write"); got != (hint != "") || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: got %v; want the hint %q", in, err, hint)
		}
	}
}

func TestFixDuration(t *testing.T) {
	for in, want := range map[string]string{
		"5": "5s", "5 s": "5s", "5S": "5s", "5sec": "5s", "5 Minutes": "5m", "5 min": "5m", "2hours": "2h", "1d": "24h", "3 days": "72h", "100msec": "100ms",
		"": "", "s": "", "-5": "", "5.5": "", "99999999": "", "5 fortnights": "", "5s5": "", "٥s": "",
	} {
		if got := fixDuration(in); got != want {
			t.Errorf("%q: got %q; want %q", in, got, want)
		}
	}
}

func TestModes(t *testing.T) {
	for in, want := range map[string]uint32{`"0660"`: 0o660, `"660"`: 0o660, `"0000"`: 0, `"0777"`: 0o777} {
		c, err := Parse("x.toml", []byte("frontends.a.bind = ['unix:/a']\nfrontends.a.unix_mode = "+in))
		if err != nil || c.Frontends[0].UnixMode != want {
			t.Errorf("%s: got %v; want %o", in, err, want)
		}
	}
	for _, in := range []string{`"1000"`, `"0o660"`, `"66"`, `"0_660"`, `"-0660"`, `"+660"`, `"0x1f"`, `660`, `nan`, `""`} {
		if _, err := Parse("x.toml", []byte("frontends.a.bind = ['unix:/a']\nfrontends.a.unix_mode = "+in)); err == nil {
			t.Errorf("%s: no error", in)
		}
	}
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "B_2": "${A}", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for _, c := range []struct {
		in, out     string
		used, unset string
		bad         string
	}{
		{"", "", "", "", ""},
		{"plain $ $A $$ a$", "plain $ $A $$ a$", "", "", ""},
		{"${A}", "1", "A", "", ""},
		{"x${A}y${B_2}z${EMPTY}", "x1y${A}z", "A B_2 EMPTY", "", ""},
		{"$${A}", "${A}", "", "", ""},
		{"$$${A}", "$${A}", "", "", ""},
		{"$${A} ${A}", "${A} 1", "A", "", ""},
		{"$$A ${A}", "$$A 1", "A", "", ""},
		{"${NO} ${A} ${NOT}", " 1 ", "A", "NO NOT", ""},
		{"${", "", "", "", "${"},
		{"${A", "", "", "", "${A"},
		{"${A} ${} ${A}", "", "A", "", "${} ${A}"},
		{"${1A}", "", "", "", "${1A}"},
		{"${A-B}", "", "", "", "${A-B}"},
		{"${A:-x}", "", "", "", "${A:-x}"},
		{"${${A}}", "", "", "", "${${A}}"},
		{"${É}", "", "", "", "${É}"},
	} {
		out, used, unset, bad := expand(c.in, lookup)
		if out != c.out || !slices.Equal(used, strings.Fields(c.used)) || !slices.Equal(unset, strings.Fields(c.unset)) || bad != c.bad {
			t.Errorf("%q: got %q, used %q, unset %q, bad %q; want %+v", c.in, out, used, unset, bad, c)
		}
	}
}

func TestNearest(t *testing.T) {
	policies := []string{"random", "roundrobin", "leastconn"}
	for _, c := range []struct {
		in    string
		words []string
		want  string
	}{
		{"rand", policies, "random"},
		{"round-robin", policies, "roundrobin"},
		{"round_robin", policies, "roundrobin"},
		{"RoundRobin", policies, "roundrobin"},
		{"least_conn", policies, "leastconn"},
		{"leastconnections", policies, "leastconn"},
		{"wrr", policies, ""},
		{"hash", policies, ""},
		{"", policies, ""},
		{"wbe", []string{"web", "api"}, "web"},
		{"b", []string{"a"}, ""},
		{strings.Repeat("x", 1000), []string{strings.Repeat("x", 1000)}, ""},
	} {
		if got := nearest(c.in, c.words); got != c.want {
			t.Errorf("%q: got %q; want %q", c.in, got, c.want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"wieght", "weight", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: got %d; want %d", c.a, c.b, got, c.want)
		}
		if got := editDistance(c.b, c.a); got != c.want {
			t.Errorf("%q to %q: got %d; want %d", c.b, c.a, got, c.want)
		}
	}
}

func ExampleParse() {
	_, err := Parse("awe4lb.toml", []byte(`
[frontends.web]
bind = ["127.0.0.1:8080"]
pool = "wbe"

[pools.web]
policy = "rand"
`))
	fmt.Println(err)
	// Output:
	// awe4lb.toml:4: frontends.web.pool: got "wbe"; want the name of a pool: web (did you mean "web"?)
	// awe4lb.toml:7: pools.web.policy: got "rand"; want random, roundrobin, leastconn, leasttime, leastbandwidth, p2c, iphash or maglev (did you mean "random"?)
}
