package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParsePrefixes(t *testing.T) {
	list, err := ParsePrefixes("x", "\ufeff# a comment\r\n10.0.0.0/8\r\n  192.0.2.1\t# one\n::/0;all\n\n::ffff:192.0.2.0/120")
	want := []string{"10.0.0.0/8", "192.0.2.1/32", "::/0", "192.0.2.0/24"}
	if err != nil || len(list) != len(want) {
		t.Fatal(list, err)
	}
	for i, p := range list {
		if p.String() != want[i] {
			t.Errorf("got %v; want %s", p, want[i])
		}
	}
	_, err = ParsePrefixes("x", strings.Repeat("no\n", 100))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 20 || lines[0] != `x:1: got "no"; want a prefix such as 10.0.0.0/8 or fd00::/8, or an IP address` ||
		lines[19] != "x:20: too many mistakes: the rest is not looked at" {
		t.Errorf("%v", err)
	}
}

// FuzzParsePrefixes: a file is refused with lines that it has, or every prefix in it is one that can be compared.
func FuzzParsePrefixes(f *testing.F) {
	f.Add("10.0.0.0/8\n# x\nfe80::1%eth0\n1.2.3.4;x\n")
	f.Add("\ufeff::ffff:1.2.3.4/100\n\x00\n/\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParsePrefixes("x", text)
		if err == nil {
			for _, p := range list {
				if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() && p.Bits() >= 96 || p.Addr() != p.Addr().WithZone("") {
					t.Errorf("%v", p)
				}
				if again, err := netip.ParsePrefix(p.String()); err != nil || again != p {
					t.Errorf("%v: %v", p, err)
				}
			}
			return
		}
		errs := err.(Errors)
		for i, e := range errs {
			if e.Line < 1 || e.Line > strings.Count(text, "\n")+1 || i > 0 && e.Line < errs[i-1].Line || strings.ContainsAny(e.Error(), "\n\x1b") {
				t.Errorf("%v", e)
			}
		}
		if len(errs) > maxListErrors {
			t.Errorf("%d errors", len(errs))
		}
	})
}
