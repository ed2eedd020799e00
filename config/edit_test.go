package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

const commented = `# top
[frontends.web] # the web
bind = ["127.0.0.1:80"] # all of it
pool = "web"

# ours
[pools.web]
# how
policy = "leastconn" # old
backends = [
  { address = "10.0.0.1:80" }, # first
  { address = "10.0.0.2:80", weight = 2 }, # second
  { address = "10.0.0.3:80" } # third
]
[pools.web.health]
kind = "tcp" # simple

# theirs
[pools.dns]
backends = []
`

func tomlTable(t *testing.T, text string) map[string]any {
	t.Helper()
	d, err := ParseDocument("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return plain(d.Values).(map[string]any)
}

func TestEdit(t *testing.T) {
	backend := func(text string) any { return valueAt(tomlTable(t, "b = "+text), []string{"b"}) }
	web := valueAt(tomlTable(t, commented), []string{"pools", "web"}).(map[string]any)
	with := func(key string, value any) map[string]any {
		m, err := withValue(web, []string{key}, value)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, c := range map[string]struct {
		path  string
		value any
		// What is to become of the text.
		old, new string
	}{
		"one key of a table":    {"pools.web", with("policy", "random"), `"leastconn"`, `"random"`},
		"a key more":            {"pools.web", with("connect_attempts", int64(2)), "  { address = \"10.0.0.3:80\" } # third\n]\n", "  { address = \"10.0.0.3:80\" } # third\n]\nconnect_attempts = 2\n"},
		"a key less":            {"pools.web", with("policy", nil), "policy = \"leastconn\" # old\n", ""},
		"a table in a table":    {"pools.web", with("tls", map[string]any{"ca": "x"}), "kind = \"tcp\" # simple\n", "kind = \"tcp\" # simple\n\n[pools.web.tls]\nca = \"x\"\n"},
		"a table removed":       {"pools.web.health", nil, "[pools.web.health]\nkind = \"tcp\" # simple\n", ""},
		"a pool removed":        {"pools.dns", nil, "[pools.dns]\nbackends = []\n", ""},
		"a new pool":            {"pools.new", map[string]any{"backends": []any{}}, "[pools.dns]\nbackends = []\n", "[pools.dns]\nbackends = []\n\n[pools.new]\nbackends = []\n"},
		"a backend less":        {"pools.web.backends", backend(`[{ address = "10.0.0.1:80" }, { address = "10.0.0.3:80" }]`), "  { address = \"10.0.0.2:80\", weight = 2 }, # second\n", ""},
		"the last backend less": {"pools.web.backends", backend(`[{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80", weight = 2 }]`), "  { address = \"10.0.0.3:80\" } # third\n", ""},
		"a backend more": {"pools.web.backends", backend(`[{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80", weight = 2 }, { address = "10.0.0.3:80" }, { address = "10.0.0.4:80" }]`),
			"\"10.0.0.3:80\" } # third", "\"10.0.0.3:80\" },\n  { address = \"10.0.0.4:80\" } # third"},
		"another weight": {"pools.web.backends", backend(`[{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80", weight = 3 }, { address = "10.0.0.3:80" }]`), "weight = 2", "weight = 3"},
		"nothing":        {"pools.web", web, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Edit([]byte(commented), strings.Split(c.path, "."), c.value)
			if want := strings.Replace(commented, c.old, c.new, 1); err != nil || string(got) != want {
				t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

// TestEditShapes: whatever way a table is written in.
func TestEditShapes(t *testing.T) {
	for _, text := range []string{
		"pools = { web = { policy = \"random\", backends = [] } }\n",
		"[pools]\nweb = { policy = \"random\", backends = [] }\n",
		"[pools]\nweb.policy = \"random\"\nweb.backends = []\n[admin]\nbind = \"\"\n",
		"pools.web.policy = \"random\"\npools.web.backends = []\n[admin]\nbind = \"\"\n",
		"[pools.web.health]\nkind = \"tcp\"\n[pools.web]\npolicy = \"random\"\n",
		"[pools.web.health]\nkind = \"tcp\"\n",
		"[pools.\"web\"]\nbackends = []",
		"\ufeff[pools.web]\r\nbackends = []\r\n",
		"[[pools.web.backends]]\naddress = \"1\"\n# between\n[[pools.web.backends]]\naddress = \"2\"\n",
		"",
	} {
		for _, value := range []any{
			map[string]any{"policy": "maglev", "health": map[string]any{"kind": "http", "headers": []any{"a: b"}}, "backends": []any{map[string]any{"address": "x"}}},
			map[string]any{}, map[string]any{"policy": "random"}, nil,
		} {
			got, err := Edit([]byte(text), []string{"pools", "web"}, value)
			if err != nil {
				t.Errorf("%q to %v: %v", text, value, err)
				continue
			}
			if now := valueAt(tomlTable(t, string(got)), []string{"pools", "web"}); !reflect.DeepEqual(now, value) {
				t.Errorf("%q to %v: %q", text, value, got)
			}
			for _, untouched := range []string{"[admin]", "\ufeff"} {
				if strings.Contains(text, untouched) != strings.Contains(string(got), untouched) {
					t.Errorf("%q lost %q: %q", text, untouched, got)
				}
			}
		}
	}
	if _, err := Edit([]byte("[[pools]]\n"), []string{"pools", "web"}, map[string]any{}); !errors.Is(err, ErrEdit) {
		t.Errorf("an array: %v", err)
	}
}

// FuzzEdit makes random documents, each table with a comment of its own, and random edits: the one change is made, nothing
// else, and every comment outside is still there.
func FuzzEdit(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		text, comments := randomDocument(r)
		before, err := ParseDocument("x", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for range 5 {
			path := []string{[]string{"pools", "frontends"}[r.IntN(2)], randomName(r)}
			if r.IntN(3) == 0 {
				path = append(path, "health")
			}
			value := any(randomTable(r, 2))
			if r.IntN(4) == 0 {
				value = nil
			}
			got, err := Edit([]byte(text), path, value)
			if err != nil {
				t.Fatalf("%v to %v: %v\n%s", path, value, err, text)
			}
			want, err := withValue(plain(before.Values).(map[string]any), path, plain(value))
			if err != nil {
				t.Fatal(err)
			}
			if !sameValues(tomlTable(t, string(got)), want) {
				t.Fatalf("%v to %v:\n%s\nbecame\n%s", path, value, text, got)
			}
			for comment, of := range comments {
				if !hasPrefix(of, path[:min(2, len(path))]) && !strings.Contains(string(got), comment) {
					t.Fatalf("%v to %v: lost %q\n%s\nbecame\n%s", path, value, comment, text, got)
				}
			}
			text = string(got)
			if before, err = ParseDocument("x", got); err != nil {
				t.Fatal(err)
			}
			for comment := range comments { // of what went, or was replaced
				if !strings.Contains(text, comment) {
					delete(comments, comment)
				}
			}
		}
	})
}

func randomName(r *rand.Rand) string { return []string{"a", "b", "c c", "d.d"}[r.IntN(4)] }

// randomDocument returns tables in every way of writing them, and the comments in it with the paths they belong to.
func randomDocument(r *rand.Rand) (string, map[string][]string) {
	var b strings.Builder
	comments := map[string][]string{}
	note := func(path ...string) string {
		c := fmt.Sprintf("# comment %d.", len(comments))
		comments[c] = path
		return c
	}
	for _, section := range []string{"pools", "admin", "frontends"} {
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, "[%s] %s\n", section, note(section))
			for _, name := range []string{"a", "b", "c c"}[:r.IntN(4)] {
				if r.IntN(2) == 0 {
					fmt.Fprintf(&b, "%s = %s %s\n", dottedKey([]string{name}), renderValue(randomTable(r, 2), false), note(section, name))
				} else {
					fmt.Fprintf(&b, "%s.x = 1 %s\n%s\n%s.y.z = [1, # one\n 2]\n", dottedKey([]string{name}), note(section, name), note(section, name), dottedKey([]string{name}))
				}
			}
			continue
		}
		for _, name := range []string{"a", "b", "c c", "d.d"}[:r.IntN(5)] {
			fmt.Fprintf(&b, "\n%s\n", note(section))
			explicit := r.IntN(4) > 0
			if explicit {
				fmt.Fprintf(&b, "[%s] %s\n", dottedKey([]string{section, name}), note(section, name))
				for key, v := range randomTable(r, 1) {
					renderKey(&b, []string{key + "1"}, v)
				}
			}
			if !explicit || r.IntN(2) == 0 {
				fmt.Fprintf(&b, "[%s]\nkind = \"x\" %s\n", dottedKey([]string{section, name, "health"}), note(section, name))
			}
			for range r.IntN(3) {
				fmt.Fprintf(&b, "[[%s]]\nn = %d\n", dottedKey([]string{section, name, "routes"}), r.IntN(9))
			}
		}
	}
	fmt.Fprintf(&b, "%s", note("end"))
	return b.String(), comments
}

func randomTable(r *rand.Rand, depth int) map[string]any {
	m := map[string]any{}
	for _, key := range []string{"policy", "backends", "health", "routes", "x", "y"} {
		switch r.IntN(7) {
		case 0:
			m[key] = []any{"a", "b\n\"c\"", "#"}[:r.IntN(4)]
		case 1:
			m[key] = int64(r.IntN(100))
		case 2:
			m[key] = r.IntN(2) == 0
		case 3:
			if depth > 0 {
				m[key] = randomTable(r, depth-1)
			}
		case 4:
			if depth == 0 {
				continue
			}
			m[key] = []any{map[string]any{"address": "x"}, randomTable(r, depth-1), map[string]any{}}[:1+r.IntN(3)]
		}
	}
	return m
}
