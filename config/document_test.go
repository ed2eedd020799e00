package config

import (
	"errors"
	"testing"
)

func TestDocumentKnowsPlaces(t *testing.T) {
	d, err := ParseDocument("x.toml", []byte("a = 1\n\n[b.\"c d\"]\nlist = [\n  1,\n  2,\n]\n\n[[e]]\nf = true\n[[e]]\nf = false\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line int
		path []any
	}{
		{1, nil}, {1, []any{"a"}}, {3, []any{"b", "c d"}}, {4, []any{"b", "c d", "list"}}, {6, []any{"b", "c d", "list", 1}},
		{10, []any{"e", 0, "f"}}, {12, []any{"e", 1, "f"}}, {11, []any{"e", 1, "missing", "more"}},
	} {
		if line, _ := d.At(c.path...); line != c.line {
			t.Errorf("At(%v): got line %d; want %d", c.path, line, c.line)
		}
	}
	if d.Values["a"] != int64(1) {
		t.Errorf("got %v", d.Values)
	}
}

func TestDocumentTellsTheLine(t *testing.T) {
	_, err := ParseDocument("x.toml", []byte("a = 1\nb = nonsense\n"))
	var errs Errors
	if !errors.As(err, &errs) || errs[0].Line != 2 || errs[0].File != "x.toml" {
		t.Fatalf("got %v; want a mistake at x.toml:2", err)
	}
}
