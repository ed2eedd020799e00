package config

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestScanRandom does what FuzzScan does for documents that are nearly right, which a fuzzer rarely makes.
func TestScanRandom(t *testing.T) {
	accepted, n := 0, 5000
	if testing.Short() {
		n = 500
	}
	for seed := range n {
		w := tomlWriter{r: rand.New(rand.NewPCG(uint64(seed), 1))}
		w.document()
		text := w.b.String()
		if compareScan(t, text); t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, text)
		}
		if _, _, ok := decodeForTest(text); ok {
			accepted++
		}
	}
	t.Logf("the decoder accepts %d of %d", accepted, n)
	if accepted < n/10 {
		t.Errorf("too few to prove anything")
	}
}

// tomlWriter writes random documents.
type tomlWriter struct {
	r *rand.Rand
	b strings.Builder
}

func (w *tomlWriter) one(of ...string) { w.b.WriteString(of[w.r.IntN(len(of))]) }

func (w *tomlWriter) document() {
	for range w.r.IntN(8) {
		switch w.r.IntN(6) {
		case 0:
			w.one("[", "[ ")
			w.key()
			w.one("]", " ]", "] # c")
		case 1:
			w.one("[[")
			w.key()
			w.one("]]", "]]\t")
		default:
			w.key()
			w.one("=", " = ")
			w.value(0)
		}
		w.one("\n", "\n\n", "\r\n", " # x = [\n", "\n \t")
		if w.r.IntN(30) == 0 {
			w.one("\"", "'", "\\", "]", "}", ",", "=", "\n", "é", `"""`, "'''", "{", "[")
		}
	}
}

func (w *tomlWriter) key() {
	for i := range 1 + w.r.IntN(3)/2 + w.r.IntN(2) {
		if i > 0 {
			w.one(".", " . ")
		}
		w.one("a", "b", "c", "d", "e", "1-_", `"a"`, "'b'", `"x y"`, `"\u00e9\"\\"`, `''`, `"#"`)
	}
}

func (w *tomlWriter) value(depth int) {
	switch n := w.r.IntN(12); {
	case n < 3 && depth < 4:
		w.one("[")
		for range w.r.IntN(4) {
			w.one("", " ", "\n", "#,]\n")
			w.value(depth + 1)
			w.one(",", " ,", "\n,", ", # x\n")
		}
		w.one("]", "\n]")
	case n < 6 && depth < 4:
		w.one("{")
		for i := range w.r.IntN(4) {
			if i > 0 {
				w.one(",", " , ", ",\n")
			}
			w.one("", " ", "\n")
			w.key()
			w.one("=", " = ")
			w.value(depth + 1)
		}
		w.one("}", " }", ",}", "\n}")
	default:
		w.one("1", "-2.5e3", "true", "inf", "nan", "0xff", "1_000", "1979-05-27", "1979-05-27 07:32:00", "07:32", "07:32 ",
			`""`, `"a#\"]"`, `"\\"`, `"é\n"`, "''", `'\'`,
			`""""""`, `"""a"""`, `"""\\"""`, `"""\\""""""`, "\"\"\"\n\"\"\\\"\"\"\\\n \"\"\"\"\"", "'''\nb = 1\n'''''", "''''''")
	}
}
