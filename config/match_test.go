package config

import (
	"strings"
	"testing"
)

// TestMatchTables: the tables of conditions are bounded in number.
func TestMatchTables(t *testing.T) {
	text := func(n int) string {
		return "frontends.a.bind = ['127.0.0.1:1']\n[pools.web]\n[[frontends.a.routes]]\npool = 'web'\nmatch.any = [\n" +
			strings.Repeat("{ sni = ['a.b'] },\n", n) + "]\n"
	}
	if _, err := Parse("x.toml", []byte(text(maxMatches))); err != nil {
		t.Error(err)
	}
	_, err := Parse("x.toml", []byte(text(maxMatches+9)))
	if want := "x.toml:4102: frontends.a.routes[0].match.any[4096]: got 4097 tables of conditions up to here; want at most 4096 below not, any and all in all frontends"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	many := strings.Replace(text(1), "{ sni = ['a.b'] }", "{ sni_regexp = ["+strings.Repeat("'a+',", maxRegexps+1)+"] }", 1)
	if _, err := Parse("x.toml", []byte(many)); err == nil || !strings.Contains(err.Error(), "at most 1024 regular expressions") {
		t.Errorf("got %v", err)
	}
}

func TestCompileNameRegexp(t *testing.T) {
	for pattern, names := range map[string][2]string{ // those that match, those that do not
		`a.*`:                 {"a a.b", "ba A-"},
		`API[.]Example[.]com`: {"api.example.com", "xapi.example.com api.example.comx"},
		`a|b`:                 {"a b", "ab ax xb"},
		`(?-i)A`:              {"A", "a"},
		`(?m)^a$`:             {"a", "b"},
		`a(?i)`:               {"a", "b"},
		`\pL+`:                {"abc", "a1"},
	} {
		expr, err := CompileNameRegexp(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		for i, list := range names {
			for name := range strings.FieldsSeq(list) {
				if got := expr.MatchString(name); got != (i == 0) && name != "A-" {
					t.Errorf("%s, %s: got %v", pattern, name, got)
				}
			}
		}
	}
	for _, pattern := range []string{`a)|(b`, `(`, `\C`, `(?=a)`, `\1`} {
		if _, err := CompileNameRegexp(pattern); err == nil {
			t.Errorf("%s: no error", pattern)
		}
	}
}
