package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// setTestEnv sets what testdata/errors/env.toml and others refer to.
func setTestEnv(t *testing.T) {
	t.Helper()
	t.Setenv("AWE_TEST_BAD", "hunter2")
	t.Setenv("AWE_TEST_GOOD", "127.0.0.1:8080")
	t.Setenv("AWE_TEST_EVIL", "root\"\n[admin]\nbind = \"0.0.0.0:1\"\n")
	t.Setenv("AWE_TEST_HOSTBITS", "10.0.0.1/8")
	os.Unsetenv("AWE_TEST_UNSET")
	os.Unsetenv("AWE_TEST_UNSET2")
}

// TestErrorsGolden compares the whole message of each testdata/errors/*.toml with the .golden beside it.
func TestErrorsGolden(t *testing.T) {
	setTestEnv(t)
	files, err := filepath.Glob("testdata/errors/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), text)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got %v; want an Errors", err)
			}
			checkErrors(t, errs, filepath.Base(file))
			for _, secret := range []string{"hunter2", "4711", "aHVudGVyMg", "10.0.0.1/8\""} {
				if strings.Contains(err.Error(), secret) && filepath.Base(file) != "routes.toml" && filepath.Base(file) != "many.toml" {
					t.Errorf("the message shows %q, which is secret or from the environment:\n%v", secret, err)
				}
			}
			golden := strings.TrimSuffix(file, ".toml") + ".golden"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs; go test ./config -update rewrites it\ngot:\n%s\nwant:\n%s", golden, got, want)
			}
		})
	}
}

// checkErrors checks what holds for the errors of any input.
func checkErrors(t *testing.T, errs Errors, file string) {
	t.Helper()
	if len(errs) == 0 {
		t.Fatal("an Errors without an error")
	}
	line := 1
	for _, e := range errs {
		if e.File != file || e.Line < line {
			t.Errorf("file %q line %d after line %d: %v", e.File, e.Line, line, e)
		}
		line = e.Line
		msg := e.Error()
		if len(msg) > 1200 || strings.ContainsFunc(msg, func(r rune) bool { return unicode.IsControl(r) || !unicode.IsPrint(r) }) {
			t.Errorf("not one clean line: %q", msg)
		}
		if e.Problem == "" && (e.Got == "" || e.Want == "") {
			t.Errorf("says nothing: %q", msg)
		}
	}
}

// TestManyAtOnce: one run tells everything there is to mend.
func TestManyAtOnce(t *testing.T) {
	setTestEnv(t)
	_, err := Load("testdata/errors/many.toml")
	var errs Errors
	if !errors.As(err, &errs) || len(errs) < 15 {
		t.Errorf("got %d errors; want 15 or more", len(errs))
	}
}

func TestQuote(t *testing.T) {
	long := strings.Repeat("é", 100)
	for in, want := range map[string]string{
		"":                 `""`,
		"a\nb\x1b[31m":     `"a\nb\x1b[31m"`,
		"\u202e\u2028\xff": `"\u202e\u2028\xff"`,
		long:               `"` + strings.Repeat("é", 32) + `…"`,
		"x" + long:         `"x` + strings.Repeat("é", 31) + `…"`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q): got %s; want %s", in, got, want)
		}
	}
}

// TestFileName: a message stays one line whatever the file is called.
func TestFileName(t *testing.T) {
	_, err := Parse("a\n\"b\".toml", []byte("x"))
	if got := err.Error(); !strings.HasPrefix(got, `a\n"b".toml:1: `) || strings.Contains(got, "\n") {
		t.Errorf("got %q", got)
	}
}

func TestList(t *testing.T) {
	twenty := strings.Split(strings.Repeat("x", 20), "")
	for _, c := range []struct {
		words []string
		want  string
	}{
		{nil, ""},
		{[]string{"a"}, "a"},
		{[]string{"a", "b"}, "a or b"},
		{[]string{"a", "b", "c"}, "a, b or c"},
		{twenty, "x, x, x, x, x, x, x, x, x, x, x, x and 8 more"},
	} {
		if got := list(c.words, "or"); got != c.want {
			t.Errorf("list(%q): got %q; want %q", c.words, got, c.want)
		}
	}
}
