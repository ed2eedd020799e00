package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// lines returns what the tree says, one "path line" each, sorted by path.
func lines(n *node) []string {
	var out []string
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		if path != "" {
			out = append(out, fmt.Sprintf("%s %d", path, n.line))
		}
		for key, c := range n.keys {
			walk(joinKey(path, key), c)
		}
		for i, c := range n.elems {
			walk(fmt.Sprintf("%s[%d]", path, i), c)
		}
	}
	walk("", n)
	slices.Sort(out)
	return out
}

func TestScanLines(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"keys", "a = 1\n\n  b = 2 # c = 3\n", "a 1, b 3"},
		{"no newline at the end", "a = 1", "a 1"},
		{"crlf", "a = 1\r\nb = 2\r\n", "a 1, b 2"},
		{"dotted", "a.b . c = 1\na.d = 2", "a 1, a.b 1, a.b.c 1, a.d 2"},
		{"quoted", `"a b"."c.d" = 1` + "\n'x\\y' = 2\n\"\" = 3", `"" 3, "a b" 1, "a b"."c.d" 1, "x\\y" 2`},
		{"escapes in keys", `"\u00e9\x41\t\U0001F600" = 1`, `"éA\t😀" 1`},
		{"tables", "\n[a]\nb = 1\n[a.c]\nd = 2\n[ x . \"y z\" ] # e\n", `a 2, a.b 3, a.c 4, a.c.d 5, x 6, x."y z" 6`},
		{"a table after its child", "[a.b]\n[a]\nc = 1", "a 2, a.b 1, a.c 3"},
		{"arrays of tables", "[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 1\n[[a.e]]\n[[a.e]]", "a 1, a[0] 1, a[0].b 2, a[1] 3, a[1].b 4, a[1].c 5, a[1].c.d 6, a[1].e 7, a[1].e[0] 7, a[1].e[1] 8"},
		{"array", "a = [1, 2,\n3, # 4,\n\n [5, 6],]\nb = 1", "a 1, a[0] 1, a[1] 1, a[2] 2, a[3] 4, a[3][0] 4, a[3][1] 4, b 5"},
		{"empty array", "a = []\nb = [\n]\nc=1", "a 1, b 2, c 4"},
		{"inline tables", "a = { b = 1, c.d = { e = 2 } }\nf = [ {g = 1},\n{g = 2, h = 3} ]", "a 1, a.b 1, a.c 1, a.c.d 1, a.c.d.e 1, f 2, f[0] 2, f[0].g 2, f[1] 3, f[1].g 3, f[1].h 3"},
		{"inline table over lines", "a = { b = 1, # x\n c = 2,\n}\nd = 3", "a 1, a.b 1, a.c 2, d 4"},
		{"strings", `a = "# \" [x]"` + "\n" + `b = '# \'` + "\n" + `c = ""` + "\nd = ''\ne = 1", "a 1, b 2, c 3, d 4, e 5"},
		{"long strings", "a = \"\"\"\nx = 1\n\\\"\"\" \\\n  \"\"\"\"\"\nb = '''\n[t]\n''''\nc = \"\"\"\"\"\"\nd = 1", "a 1, b 5, c 8, d 9"},
		{"dates and numbers", "a = 1979-05-27 07:32:00Z # x\nb = +1_0.5e-3\nc = [inf, -nan, true]\n", "a 1, b 2, c 3, c[0] 3, c[1] 3, c[2] 3"},
		{"stops at a mistake", "a = 1\nb 2\nc = 3", "a 1"},
		{"stops inside", "a = [1,\n2\n3]\nb = 1", "a 1, a[0] 1, a[1] 2"},
		{"stops at the end", "a = \"\"\"\nb = 1\n", "a 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := strings.Split(c.want, ", ")
			if c.want == "" {
				want = nil
			}
			slices.Sort(want)
			if got := lines(scan(c.text, nil).root); !slices.Equal(got, want) {
				t.Errorf("got %q; want %q", got, want)
			}
		})
	}
}

func TestScanLimits(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		line             int
	}{
		{"deep arrays", "\na = " + strings.Repeat("[", 1<<20), "nested", 2},
		{"deep arrays that close", "a = " + strings.Repeat("[", 33) + strings.Repeat("]", 33), "nested", 1},
		{"deep tables", "a = " + strings.Repeat("{a=", 1<<18), "nested", 1},
		{"long key", "\n\n" + strings.Repeat("a", 300) + " = 1", "longer than 256", 3},
		{"key of many parts", strings.Repeat("a.", 1<<20) + "a = 1", "longer than 256", 1},
		{"long header", "[" + strings.Repeat("a.", 1<<20) + "a]", "longer than 256", 1},
		{"header and key", "[" + strings.Repeat("a", 200) + "]\n" + strings.Repeat("b", 200) + " = 1", "longer than 256", 2},
		{"many elements", "a = [" + strings.Repeat("1,", 1<<20) + "]", "more than 1048576", 1},
		{"as deep as allowed", "a = " + strings.Repeat("[", 32) + strings.Repeat("]", 32), "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := scan(c.text, nil)
			if c.want == "" {
				if s.tooMuch != "" {
					t.Errorf("got %q; want no limit", s.tooMuch)
				}
				return
			}
			if !strings.Contains(s.tooMuch, c.want) || s.line != c.line {
				t.Errorf("got %q at line %d; want %q at line %d", s.tooMuch, s.line, c.want, c.line)
			}
		})
	}
}

// FuzzScan holds the scanner against the decoder: the same keys in the same order, and a position for every value.
func FuzzScan(f *testing.F) {
	for _, pattern := range []string{"testdata/errors/*.toml", "testdata/good/*.toml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	for _, text := range []string{
		"a.b.'c d'.\"e\\u0020\" = {x=[{y=1},{y=2,z={}}], w.v = 1,}\n",
		"[[a]]\n[[a.b]]\n[a.b.c]\nd=1\n[[a.b]]\n[[a]]\n",
		"a = [[{b=1}],[]]\nc = \"\"\"\\\r\n \"\"\"\"\"\nd = '''''''''\n",
		"a = 1979-05-27 07:32:00.5 \nb = 07:32\nc = 0xdead_beef\n",
		"[x.y]\n[x]\nz = [{}]\n",
		"[[x.z]]\n[x]\nz = [{}]\n",
		"a = {b.c=1, b.d=2}\n[a.e]\nf=1\n",
		"\"\" = 1\n[\"\".\"\"]\n",
		"a = { # c\n\tb = 1 # d\n\t, c = 2\n}",
		"a = \"\"\"\\\\\"\"\"\"\"\"\n",
	} {
		f.Add(text)
	}
	f.Fuzz(compareScan)
}

// compareScan fails t where scan and decoder differ over text.
func compareScan(t *testing.T, text string) {
	t.Helper()
	if invalidUTF8(text) >= 0 || strings.HasPrefix(text, "\ufeff") {
		return // read deals with those
	}
	var got []string
	s := scan(text, func(path []string) { got = append(got, toml.Key(path).String()) })
	if s.line < 1 || s.pos < 0 {
		t.Fatalf("line %d, position %d", s.line, s.pos)
	}
	if s.tooMuch != "" {
		return
	}
	values, keys, ok := decodeForTest(text)
	if !ok {
		return
	}
	var want []string
	for _, k := range keys {
		want = append(want, k.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("keys of %q:\n got %q\nwant %q", text, got, want)
	}
	if s.pos != len(text) || s.line != 1+strings.Count(text, "\n") {
		t.Errorf("stopped at byte %d of %d, line %d", s.pos, len(text), s.line)
	}
	// Texts with a key given twice are refused by read, those with an empty key by decode: no table of ours has one. With
	// such, the decoder (v1.6.0) loses elements of arrays.
	empty := slices.ContainsFunc(keys, func(k toml.Key) bool { return slices.Contains(k, "") })
	if len(s.again) == 0 && !empty {
		placed(t, "", values, s.root)
	}
}

func decodeForTest(text string) (values map[string]any, keys []toml.Key, ok bool) {
	defer func() { _ = recover() }() // its bugs are not ours
	meta, err := toml.Decode(text, &values)
	return values, meta.Keys(), err == nil
}

// placed checks that everything in v has a node.
func placed(t *testing.T, path string, v any, n *node) {
	t.Helper()
	if n == nil || n.line < 1 {
		t.Errorf("%s has no line", path)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for key, v := range v {
			placed(t, joinKey(path, key), v, n.child(key))
		}
	case []any:
		if len(v) != len(n.elems) {
			t.Errorf("%s: %d elements have a line; want %d", path, len(n.elems), len(v))
		}
		for i, v := range v {
			placed(t, fmt.Sprintf("%s[%d]", path, i), v, n.elem(i))
		}
	case []map[string]any:
		for i, v := range v {
			placed(t, fmt.Sprintf("%s[%d]", path, i), v, n.elem(i))
		}
	}
}
