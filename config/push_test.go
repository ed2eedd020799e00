package config

import (
	"strings"
	"testing"
)

func TestPushLabels(t *testing.T) {
	for text, want := range map[string]string{
		`instance="a"`:               "",
		`instance="a",zone="b"`:      "",
		`a="",b="x=\"y\",\\z\n{}"`:   "",
		`job="a b"`:                  "",
		`instance`:                   "syntax",
		`instance=a`:                 "syntax",
		`instance="a`:                "syntax",
		`instance="a\"`:              "syntax",
		`instance="a\t"`:             "syntax",
		"instance=\"a\nb\"":          "syntax",
		`instance="a",`:              "syntax",
		`instance="a" ,b="c"`:        "syntax",
		`1a="b"`:                     "syntax",
		`__name__="b"`:               "syntax",
		`="b"`:                       "syntax",
		`a="b",a="c"`:                "a",
		`instance="a",server="mine"`: "server",
	} {
		if got := pushLabelProblem(text); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

// FuzzPushLabels: what is accepted cannot leave the braces it will stand in.
func FuzzPushLabels(f *testing.F) {
	f.Add(`instance="a",zone="b\"\\\n"`)
	f.Fuzz(func(t *testing.T, text string) {
		if pushLabelProblem(text) != "" {
			return
		}
		open := false
		for i := 0; i < len(text); i++ {
			switch {
			case text[i] == '\\' && open:
				i++
			case text[i] == '"':
				open = !open
			case text[i] == '\n' || !open && strings.ContainsRune("{} #", rune(text[i])):
				t.Fatalf("%q: %q outside of a value", text, text[i])
			}
		}
		if open {
			t.Fatalf("%q: a value has no end", text)
		}
	})
}

// TestPushWithoutAdmin: whoever switches the admin off is told that nobody pushes then.
func TestPushWithoutAdmin(t *testing.T) {
	c, err := Parse("x.toml", []byte("[admin]\nbind = \"\"\n[admin.push]\nurl = \"http://127.0.0.1:1/x\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(c.Warnings, "\n"); !strings.Contains(all, "x.toml:4: admin.push.url: nothing is pushed while the admin is off") {
		t.Errorf("%q", c.Warnings)
	}
}
