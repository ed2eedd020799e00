package cli

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestLineDiff(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"a\nb\n", "a\nb\n", ""},
		{"", "a\n", "+     1  a\n"},
		{"a\n", "", "-     1  a\n"},
		{"a\nb\nc\nd\ne\nf\ng\n", "a\nb\nc\nx\ne\nf\ng\n", "      2  b\n      3  c\n-     4  d\n+     4  x\n      5  e\n      6  f\n"},
		{"x\n1\n2\n3\n4\n5\ny\n", "1\n2\n3\n4\n5\nz\n", "-     1  x\n      1  1\n      2  2\n       …\n      4  4\n      5  5\n-     7  y\n+     6  z\n"},
		{"a\n", "a\n\x1b[2J\n", "      1  a\n+     2  ?[2J\n"},
	} {
		var b strings.Builder
		printLines(&b, lineDiff(tc.from, tc.to))
		if b.String() != tc.want {
			t.Errorf("%q to %q:\n%s\nwant\n%s", tc.from, tc.to, b.String(), tc.want)
		}
	}
}

// TestLineDiffIsTrue: what is shown, applied to the old text, is the new text.
func TestLineDiffIsTrue(t *testing.T) {
	random := func() (s []string) {
		for range rand.IntN(12) {
			s = append(s, string(rune('a'+rand.IntN(4))))
		}
		return s
	}
	for range 20_000 {
		a, b := random(), random()
		got, at := []string{}, 0 // the next line of a
		for _, l := range lineDiff(strings.Join(a, "\n"), strings.Join(b, "\n")) {
			switch l.sign {
			case '+':
				for len(got) < l.n-1 {
					got, at = append(got, a[at]), at+1
				}
				got = append(got, l.text)
			case '-':
				for at < l.n-1 {
					got, at = append(got, a[at]), at+1
				}
				if a[at] != l.text {
					t.Fatalf("%q to %q: line %d is %q, not %q", a, b, l.n, a[at], l.text)
				}
				at++
			}
		}
		got = append(got, a[at:]...)
		if strings.Join(got, "\n") != strings.Join(b, "\n") {
			t.Fatalf("%q to %q: got %q", a, b, got)
		}
	}
}
