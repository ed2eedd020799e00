package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is one mistake in a configuration file. It prints as one line:
//
//	awe4lb.toml:12: pools.web.policy: got "rand"; want random, roundrobin, leastconn, leasttime, leastbandwidth, p2c, iphash or maglev (did you mean "random"?)
//
// Whatever in it comes from the file or the environment is escaped and cut.
type Error struct {
	File    string
	Line    int    // from 1; for what is missing, the line of the table it is missing from
	Key     string // path of the key, such as frontends.web.bind[1]; "" when it is about the text itself
	Problem string // what is wrong, when that is not a value
	Got     string // the value found
	Want    string // what would be right
	Hint    string // the likely next step; "" when there is none
	Other   string // the key of another place that is as much to blame, which Hint names with its line; "" when there is none

	offset int // of the key, in bytes: orders mistakes that share a line
}

// Error returns the mistake as one line, without a newline.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 || e.File != "" { // else it is about what is nowhere
		fmt.Fprintf(&b, "%s:%d: ", escape(e.File), e.Line)
	}
	if e.Key != "" {
		b.WriteString(e.Key)
		b.WriteString(": ")
	}
	var parts []string
	if e.Problem != "" {
		parts = append(parts, e.Problem)
	}
	if e.Got != "" {
		parts = append(parts, "got "+e.Got)
	}
	if e.Want != "" {
		parts = append(parts, "want "+e.Want)
	}
	b.WriteString(strings.Join(parts, "; "))
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Errors is every mistake of a configuration, in the order of the file. It is never empty when returned as an error.
type Errors []*Error

// Error returns one line per mistake, without a newline at the end.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

func (es Errors) sort() {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.offset, b.offset))
	})
}

const (
	maxShown   = 64  // bytes of a value or a name that a message repeats
	maxMessage = 240 // bytes of a message of the toml package
)

// quote returns s in quotes, escaped and cut, safe to print on one line whatever s holds.
func quote(s string) string {
	if len(s) <= maxShown {
		return strconv.Quote(s)
	}
	return strings.TrimSuffix(strconv.Quote(cut(s, maxShown)), `"`) + `…"`
}

// cut returns at most the first n bytes of s, without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// escape returns s with everything that does not print escaped, without quotes around it.
func escape(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// joinKey returns the path of key inside path. Keys that toml would quote are quoted here too.
func joinKey(path, key string) string {
	if !bare(key) {
		key = quote(key)
	}
	key = cut(key, 2*maxShown)
	if path == "" {
		return key
	}
	return path + "." + key
}

// bare reports whether toml lets key stand without quotes.
func bare(key string) bool {
	for i := range len(key) {
		if !bareByte(key[i]) {
			return false
		}
	}
	return key != ""
}

func bareByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// list returns words as a sentence has them: a, b or c. Past a dozen it says how many more there are.
func list(words []string, last string) string {
	const most = 12
	if n := len(words) - most; n > 0 {
		words = append(slices.Clone(words[:most]), fmt.Sprintf("%d more", n))
		last = "and"
	}
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
	}
}
