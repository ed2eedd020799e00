package config

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

const lined = `# The shop.

[frontends.web]
bind = ["127.0.0.1:1"]

# Ask Ada before you
# touch this.
[pools.web] # the shop
policy = "random"
backends = [
  { address = "127.0.0.1:2" }, # the old one
]

# too slow: interval = "1s"
[pools.web.health]
kind = "tcp"
# rise = 4

# What asks for names.
[pools.dns]
backends = []
# Another.
[frontends.dns]
pool = "dns"
[pools.dns.health]
kind = "none"
`

func TestTableLines(t *testing.T) {
	for name, c := range map[string]struct{ text, path, want string }{
		"with its comments": {lined, "pools.web", `# Ask Ada before you
# touch this.
[pools.web] # the shop
policy = "random"
backends = [
  { address = "127.0.0.1:2" }, # the old one
]

# too slow: interval = "1s"
[pools.web.health]
kind = "tcp"
# rise = 4
`},
		"in two places":            {lined, "pools.dns", "# What asks for names.\n[pools.dns]\nbackends = []\n\n[pools.dns.health]\nkind = \"none\"\n"},
		"the first, after a title": {lined, "frontends.web", "[frontends.web]\nbind = [\"127.0.0.1:1\"]\n"},
		"arrays of tables":         {"[frontends.a]\nx = 1\n[[frontends.a.routes]]\npool = \"b\"\n[[frontends.a.routes]]\npool = \"c\"", "frontends.a", "[frontends.a]\nx = 1\n[[frontends.a.routes]]\npool = \"b\"\n[[frontends.a.routes]]\npool = \"c\"\n"},
		"in one line":              {"[pools]\nweb = { policy = \"random\", backends = [], health = { kind = \"tcp\" } } # x\n", "pools.web", "[pools.web]\nbackends = []\npolicy = \"random\"\n\n[pools.web.health]\nkind = \"tcp\"\n"},
		"by dotted keys":           {"pools.web.policy = \"random\"\n", "pools.web", "[pools.web]\npolicy = \"random\"\n"},
		"half by a dotted key":     {"[pools]\nweb.health.kind = \"tcp\"\n", "pools.web", "[pools.web]\n\n[pools.web.health]\nkind = \"tcp\"\n"},
	} {
		got, err := TableLines([]byte(c.text), strings.Split(c.path, "."))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, got, c.want)
		}
	}
	for _, path := range [][]string{{"pools", "none"}, {"nothing", "web"}, {"pools", "web", "policy"}} {
		if _, err := TableLines([]byte(lined), path); !errors.Is(err, ErrNoTable) {
			t.Errorf("%v: %v", path, err)
		}
		if _, _, err := SetTableLines([]byte(lined), path, "body", nil); !errors.Is(err, ErrNoTable) {
			t.Errorf("%v: %v", path, err)
		}
	}
}

func TestSetTableLines(t *testing.T) {
	old := "# Ask Ada before you\n# touch this.\n[pools.web] # the shop\npolicy = \"random\"\n"
	for name, c := range map[string]struct {
		text, path, lines string
		above             int
		want              string
	}{
		"a value and a comment": {lined, "pools.web", strings.Replace(mustLines(t, lined, "pools.web"), old, "[pools.web]\n# Ada says so.\npolicy = \"leastconn\"\n", 1), 5,
			strings.Replace(lined, old, "[pools.web]\n# Ada says so.\npolicy = \"leastconn\"\n", 1)},
		"no newline at the end": {"[pools.a]\nx = 1\n[pools.b]\n", "pools.a", "[pools.a]\nx = 2", 0, "[pools.a]\nx = 2\n[pools.b]\n"},
		"two places become one": {lined, "pools.dns", "[pools.dns]\nhealth.kind = \"tcp\"\n", 18,
			strings.Replace(strings.Replace(lined, "[pools.dns.health]\nkind = \"none\"\n", "", 1), "# What asks for names.\n[pools.dns]\nbackends = []\n", "[pools.dns]\nhealth.kind = \"tcp\"\n", 1)},
		"lines of another system":              {"[pools.a]\r\nx = 1\r\n\r\n[pools.b]\r\n", "pools.a", "[pools.a]\nx = 2\ny = 3\n", 0, "[pools.a]\r\nx = 2\r\ny = 3\r\n\r\n[pools.b]\r\n"},
		"a mark at the beginning":              {"\ufeff[pools.a]\nx = 1\n", "pools.a", "[pools.a]\nx = 2\n", 0, "\ufeff[pools.a]\nx = 2\n"},
		"in one line":                          {"[pools]\nweb = { policy = \"random\" } # x\ndns = {}\n", "pools.web", "[pools.web]\npolicy = \"p2c\"\n", -1, "[pools]\nweb = { policy = \"p2c\" } # x\ndns = {}\n"},
		"what would mean something else there": {"[log]\nlevel = \"warn\"\n[pools.web]\npolicy = \"random\"\n", "pools.web", "pools.web.policy = \"p2c\"\n", -1, "[log]\nlevel = \"warn\"\n[pools.web]\npolicy = \"p2c\"\n"},
	} {
		got, above, err := SetTableLines([]byte(c.text), strings.Split(c.path, "."), "body", []byte(c.lines))
		if err != nil || string(got) != c.want || above != c.above {
			t.Errorf("%s: %v, %d lines above, want %d, got\n%s\nwant\n%s", name, err, above, c.above, got, c.want)
		}
	}
	for lines, want := range map[string]string{
		"[pools.web]\npolicy = \n":                "body:2: ",
		"[pools.web]\n[pools.dns]\nx = 1\n":       "body:2: pools.dns: it is not of this table; want [pools.web] and nothing else",
		"[pools.web]\n\n[log]\nlevel = \"off\"\n": "body:3: log: it is not of this table; want [pools.web] and nothing else",
		"policy = \"random\"\n[pools.web]\n":      "body:1: policy: it is not of this table; want [pools.web] and nothing else",
		"# nothing\n":                             "body:1: the table is not there; want [pools.web]",
		"pools.web = 1\n":                         "body:1: the table is not there; want [pools.web]",
	} {
		if _, _, err := SetTableLines([]byte(lined), []string{"pools", "web"}, "body", []byte(lines)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v; want %s", lines, err, want)
		}
	}
}

func mustLines(t *testing.T, text, path string) string {
	t.Helper()
	got, err := TableLines([]byte(text), strings.Split(path, "."))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// FuzzTableLines: what is shown of a table means that table, put back unchanged it changes nothing, and put back changed it changes
// that table alone and no comment of another.
func FuzzTableLines(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		text, comments := randomDocument(r)
		before := tomlTable(t, text)
		for _, section := range []string{"pools", "frontends"} {
			tables, _ := before[section].(map[string]any)
			for name := range tables {
				path := []string{section, name}
				lines, err := TableLines([]byte(text), path)
				if err != nil {
					t.Fatalf("%v: %v\n%s", path, err, text)
				}
				if shown := tomlTable(t, string(lines)); !sameValues(shown, map[string]any{section: map[string]any{name: tables[name]}}) {
					t.Fatalf("%v is shown as\n%s\nof\n%s", path, lines, text)
				}
				same, _, err := SetTableLines([]byte(text), path, "body", lines)
				if err != nil || !sameValues(tomlTable(t, string(same)), before) {
					t.Fatalf("%v: %v\n%s\nbecame\n%s", path, err, text, same)
				}
				if runs := runsOf(text, path); len(runs) == 1 && string(same) != text && string(same) != text+"\n" {
					t.Fatalf("%v:\n%s\nbecame\n%s", path, text, same)
				}
				var b strings.Builder
				value := randomTable(r, 2)
				renderTable(&b, path, value)
				got, above, err := SetTableLines([]byte(text), path, "body", []byte(b.String()))
				if err != nil {
					t.Fatalf("%v: %v\n%s\nin\n%s", path, err, b.String(), text)
				}
				want, err := withValue(before, path, plain(value))
				if err != nil {
					t.Fatal(err)
				}
				if !sameValues(tomlTable(t, string(got)), want) {
					t.Fatalf("%v:\n%s\nwith\n%s\nbecame\n%s", path, text, b.String(), got)
				}
				if all := strings.Split(string(got), "\n"); above >= 0 && all[above] != strings.SplitN(b.String(), "\n", 2)[0] {
					t.Fatalf("%v: %d lines above:\n%s", path, above, got)
				}
				for comment, of := range comments {
					// A comment of no table that touches this one is taken for its own.
					if len(of) > 1 && !hasPrefix(of, path) && !strings.Contains(string(got), comment) {
						t.Fatalf("%v: lost %q\n%s\nbecame\n%s", path, comment, text, got)
					}
				}
			}
		}
	})
}
