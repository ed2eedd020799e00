package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
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
		"the last backend less": {"pools.web.backends", backend(`[{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80", weight = 2 }]`), ", # second\n  { address = \"10.0.0.3:80\" } # third\n", " # second\n"},
		"a backend more": {"pools.web.backends", backend(`[{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80", weight = 2 }, { address = "10.0.0.3:80" }, { address = "10.0.0.4:80" }]`),
			"\"10.0.0.3:80\" } # third", "\"10.0.0.3:80\" }, # third\n  { address = \"10.0.0.4:80\" }"},
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

// TestEditArrays: what is written is as tidy as what was there, a comment stays beside the element it is about, and goes with it.
func TestEditArrays(t *testing.T) {
	for _, c := range []struct{ old, is, want string }{
		// On one line.
		{"[1, 2]", "[1]", "[1]"},
		{"[ 1, 2 ]", "[1]", "[ 1 ]"},
		{"[1, 2,]", "[1]", "[1,]"},
		{"[1, 2, ]", "[1]", "[1, ]"},
		{"[1, 2, 3] # all", "[2, 3]", "[2, 3] # all"},
		{"[ 1, 2 ]", "[2]", "[ 2 ]"},
		{"[1 , 2 , 3]", "[1, 3]", "[1 , 3]"},
		{"[1, 2]", "[]", "[]"},
		{"[1, 2]", "[1, 2, 3]", "[1, 2, 3]"},
		{"[1, 2, ]", "[1, 2, 3]", "[1, 2, 3, ]"},
		{"[1, 2]", "[0, 1, 2]", "[0, 1, 2]"},
		{"[1, 3]", "[1, 2, 3]", "[1, 2, 3]"},
		{"[]", "[1]", "[1]"},
		{"[ ]", "[1, 2]", "[1, 2]"},
		{"[1, 2, 3, 4]", "[1, 9, 3]", "[1, 9, 3]"},
		// One on each.
		{"[\n  1, # one\n  2, # two\n]", "[1]", "[\n  1, # one\n]"},
		{"[\n  1, # one\n  2 # two\n]", "[1]", "[\n  1 # one\n]"},
		{"[\n  1, # one\n  2 # two\n]", "[2]", "[\n  2 # two\n]"},
		{"[\n  1, # one\n  2 # two\n]", "[1, 2, 3]", "[\n  1, # one\n  2, # two\n  3\n]"},
		{"[\n  1, # one\n  2, # two\n  # more here\n]", "[1, 2, 3]", "[\n  1, # one\n  2, # two\n  3,\n  # more here\n]"},
		{"[\n  1, # one\n  2, # two\n]", "[0, 1, 2]", "[\n  0,\n  1, # one\n  2, # two\n]"},
		{"[\n  # the first\n  1, # one\n  2, # two\n]", "[1, 5, 2]", "[\n  # the first\n  1, # one\n  5,\n  2, # two\n]"},
		{"[\n  1, # one\n  2, # two\n  3, # three\n  4, # four\n]", "[2, 4]", "[\n  2, # two\n  4, # four\n]"},
		{"[\n  1, # one\n  2, # two\n  3, # three\n]", "[1, 8, 9]", "[\n  1, # one\n  8, # two\n  9, # three\n]"},
		{"[\n  # how to add one\n  1, # one\n]", "[]", "[\n  # how to add one\n]"},
		{"[\n  # how to add one\n]", "[1]", "[\n  # how to add one\n  1,\n]"},
		{"[\n  1, # one\n]", "[]", "[]"},
		{"[ # mine\n  1,\n]", "[]", "[ # mine\n]"},
		// A mixture.
		{"[ 1, # one\n  2 ] # end", "[2]", "[ 2 ] # end"},
		{"[ 1, # one\n  2 ] # end", "[1]", "[ 1 # one\n  ] # end"},
		{"[ 1, # one\n  2 ] # end", "[1, 2, 3]", "[ 1, # one\n  2,\n  3 ] # end"},
		{"[\n  1, 2, # low\n  3, 4, # high\n]", "[2, 3, 4]", "[\n  2, # low\n  3, 4, # high\n]"},
		{"[\n  1, 2, # low\n  3, 4, # high\n]", "[1, 3, 4]", "[\n  1, # low\n  3, 4, # high\n]"},
		{"[\n  1, 2, # low\n  3, 4 # high\n]", "[1, 2, 3]", "[\n  1, 2, # low\n  3 # high\n]"},
		{"[\n  1, 2, # low\n  3, 4 # high\n]", "[3, 4]", "[\n  3, 4 # high\n]"},
		{"[\n    1 # one\n  , 2 # two\n  , 3 # three\n]", "[1, 3]", "[\n    1 # one\n  , 3 # three\n]"},
		{"[\n    1 # one\n  , 2 # two\n]", "[1]", "[\n    1 # one\n]"},
		{"[\n    1 # one\n  , 2 # two\n]", "[1, 2, 3]", "[\n    1 # one\n  , 2 # two\n  , 3\n]"},
		{"[\r\n  1, # one\r\n  2, # two\r\n]", "[1, 2, 3]", "[\r\n  1, # one\r\n  2, # two\r\n  3,\r\n]"},
		{"[\r\n  1, # one\r\n  2, # two\r\n]", "[2]", "[\r\n  2, # two\r\n]"},
	} {
		got, err := Edit([]byte("a = "+c.old+"\nb = 1\n"), []string{"a"}, tomlTable(t, "a = "+c.is)["a"])
		if want := "a = " + c.want + "\nb = 1\n"; err != nil || string(got) != want {
			t.Errorf("%q to %s: %v\ngot  %q\nwant %q", c.old, c.is, err, got, want)
		}
	}

	// A backend that is told apart by its address keeps its comment, whatever else changes at once.
	old := "backends = [\n  { address = \"a:1\" }, # a\n  { address = \"b:1\" }, # b\n  { address = \"c:1\", weight = 2 }, # c\n]\n"
	got, err := Edit([]byte(old), []string{"backends"}, tomlTable(t, "b = [{ address = \"b:1\", weight = 9 }, { address = \"c:1\" }]")["b"])
	if want := "backends = [\n  { address = \"b:1\", weight = 9 }, # b\n  { address = \"c:1\" }, # c\n]\n"; err != nil || string(got) != want {
		t.Errorf("%v\ngot  %q\nwant %q", err, got, want)
	}
}

// TestEditComesBack: a table that is added and removed again, as programs do a thousand times, leaves the text as it was.
func TestEditComesBack(t *testing.T) {
	for _, text := range []string{commented, "[pools.a]\nbackends = []\n", "[pools.a]\nbackends = []\n\n[frontends.b]\nbind = []\n", "[pools.a]\r\nbackends = []\r\n",
		"[frontends.b]\nbind = []\n\n\n# end\n"} {
		for _, path := range [][]string{{"pools", "new"}, {"pools", "a", "health"}, {"frontends", "new"}, {"pools", "web", "persistence"}} {
			value := map[string]any{"kind": "x", "tls": map[string]any{"ca": "y"}}
			if len(path) == 3 && valueAt(tomlTable(t, text), path[:2]) == nil {
				continue
			}
			added, err := Edit([]byte(text), path, value)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Edit(added, path, nil); err != nil || string(got) != text {
				t.Errorf("%v: %v\nwas %q\nis  %q", path, err, text, got)
			}
		}
	}
	// So too for elements.
	for _, text := range []string{"[1]", "[ 1, 2, ]", "[\n  1, # one\n  2 # two\n]", "[\n  1,\n]", "[\n  1\n  , 2 # two\n]", "[\n  # none\n]", "[]"} {
		was, _ := tomlTable(t, "a = "+text)["a"].([]any)
		more, err := Edit([]byte("a = "+text), []string{"a"}, append(slices.Clone(was), int64(9)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Edit(more, []string{"a"}, append([]any{}, was...)); err != nil || string(got) != "a = "+text {
			t.Errorf("%v: was %q, is %q", err, text, got)
		}
	}
	// What stood between others does not leave two blank lines, nor none.
	got, err := Edit([]byte("[pools.a]\nx = 1\n\n[pools.b]\nx = 1\n\n[pools.c]\nx = 1\n"), []string{"pools", "b"}, nil)
	if want := "[pools.a]\nx = 1\n\n[pools.c]\nx = 1\n"; err != nil || string(got) != want {
		t.Errorf("%v %q", err, got)
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

// FuzzEditArray makes random arrays, in every way of spreading them over lines, and random edits of some elements: the values are
// right, a comment on a line of its own stays, and one beside an element that stays alone on its line is still beside it; no comma
// is left before a bracket where none was.
func FuzzEditArray(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		text, values, own, beside := randomArray(r)
		if _, err := ParseDocument("x", []byte(text)); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		next := 100
		for range 4 {
			is := slices.Clone(values)
			for range 1 + r.IntN(3) {
				next++
				v := any(map[string]any{"address": fmt.Sprint(next)})
				switch at := r.IntN(len(is) + 1); {
				case r.IntN(3) == 0:
					is = slices.Insert(is, at, v)
				case at == len(is):
				case r.IntN(2) == 0:
					is = slices.Delete(is, at, at+1)
				default:
					is[at] = map[string]any{"address": is[at].(map[string]any)["address"], "weight": int64(next)}
				}
			}
			got, err := Edit([]byte(text), []string{"a"}, is)
			if err != nil {
				t.Fatalf("%v to %v: %v\n%s", values, is, err, text)
			}
			said := fmt.Sprintf("%v to %v:\n%s\nbecame\n%s", values, is, text, got)
			if now := tomlTable(t, string(got)); !reflect.DeepEqual(now["a"], is) && len(is) > 0 || now["b"] != int64(1) {
				t.Fatal(said)
			}
			for _, comment := range own {
				if !strings.Contains(string(got), comment) {
					t.Fatalf("lost %q: %s", comment, said)
				}
			}
			for address, comment := range beside {
				if !slices.ContainsFunc(is, func(v any) bool { return v.(map[string]any)["address"] == address }) {
					delete(beside, address)
					if strings.Contains(string(got), comment) && !regexp.MustCompile(`address = "\d+".*`+comment).Match(got) { // of what took its place
						t.Fatalf("%q is beside nothing: %s", comment, said)
					}
				} else if !regexp.MustCompile(`"` + address + `".*` + comment).Match(got) {
					t.Fatalf("%q is not beside %s: %s", comment, address, said)
				}
			}
			if dangling := regexp.MustCompile(`,[ \t]*\]`); dangling.Match(got) && !dangling.MatchString(text) || regexp.MustCompile(`(?m)[ \t]\r?$`).Match(got) {
				t.Fatal(said)
			}
			text, values = string(got), is
		}
	})
}

// randomArray returns a text with the array a, what is in it, the comments in it that have a line to themselves, and those beside
// elements that have one.
func randomArray(r *rand.Rand) (text string, values []any, own []string, beside map[string]string) {
	beside = map[string]string{}
	var b strings.Builder
	nl := []string{"\n", "\r\n"}[r.IntN(2)]
	comment := func() string {
		own = append(own, fmt.Sprintf("# own %d.", len(own)))
		return own[len(own)-1]
	}
	n, lines, commaFirst := r.IntN(6), r.IntN(3), false // lines: none, each, some
	commaFirst = lines == 1 && r.IntN(4) == 0
	b.WriteString("a = [")
	alone := false // the line has begun, with nothing on it yet
	newLine := func() {
		b.WriteString(nl)
		for r.IntN(4) == 0 && !(commaFirst && len(values) > 0) {
			b.WriteString("  " + comment() + nl)
		}
		b.WriteString("  ")
		alone = true
	}
	if lines == 1 || lines == 2 && r.IntN(2) == 0 {
		if r.IntN(6) == 0 {
			b.WriteString(" " + comment())
		}
		newLine()
	} else if r.IntN(2) == 0 {
		b.WriteString(" ")
	}
	for i := range n {
		address := fmt.Sprint(i)
		values = append(values, map[string]any{"address": address})
		if commaFirst && i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "{ address = %q }", address)
		breaks := lines == 1 || lines == 2 && r.IntN(2) == 0
		switch {
		case commaFirst:
		case i+1 < n || breaks && r.IntN(2) == 0:
			b.WriteString(",")
		}
		switch {
		case breaks:
			if r.IntN(2) == 0 {
				c := fmt.Sprintf(" # of %d.", i)
				b.WriteString(c)
				if alone {
					beside[address] = c[1:]
				}
			}
			if i+1 == n {
				b.WriteString(nl)
				break
			}
			newLine()
		case i+1 < n:
			b.WriteString(" ")
			alone = false
		}
	}
	b.WriteString("]" + nl + "b = 1" + nl)
	return b.String(), values, own, beside
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
