package config

import "strings"

// expand replaces every ${NAME} in s by what lookup says. It returns the result, the names used, and the names that are
// not set; bad is where a ${ is not followed by a name and a brace, and ends it. $${ stands for a literal ${, any other $
// for itself. The result is not looked at again: a value that holds ${X} keeps it.
func expand(s string, lookup func(string) (string, bool)) (out string, used, unset []string, bad string) {
	if !strings.Contains(s, "${") {
		return s, nil, nil, ""
	}
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "$${"):
			b.WriteString("${")
			s = s[3:]
		case strings.HasPrefix(s, "${"):
			name, rest, closed := strings.Cut(s[2:], "}")
			if !closed || !variableName(name) {
				return "", used, nil, s
			}
			if v, ok := lookup(name); ok {
				b.WriteString(v)
				used = append(used, name)
			} else {
				unset = append(unset, name)
			}
			s = rest
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
	b.WriteString(s)
	return b.String(), used, unset, bad
}

// variableName reports whether a shell could set a variable of that name.
func variableName(s string) bool {
	for i := range len(s) {
		if s[i] == '-' || !bareByte(s[i]) || i == 0 && s[i] <= '9' {
			return false
		}
	}
	return s != ""
}
