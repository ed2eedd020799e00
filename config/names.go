package config

import (
	"net/netip"
	"strings"
)

// DNS names, as clients put them into a ClientHello and as certificates have them.

const (
	maxName  = 253 // bytes of a name
	maxLabel = 63  // bytes between two dots

	nameWant     = "a DNS name such as www.example.com"
	patternWant  = `a DNS name such as www.example.com, "*." and a name, or "" for no name`
	partWant     = "a part of a DNS name, such as shop. or .example.com"
	selfWant     = "a DNS name or an IP address"
	punycodeHint = "write it in punycode, as xn--…: that is what clients send"
	ipHint       = `clients put names there only, and one that puts an IP address there has no name, which is ""`
)

// parseName reads a DNS name and returns it in lower case, without a trailing dot. With wildcard its first label may be *.
// Letters, digits, '-' and '_' are allowed anywhere in a label: names in use are laxer than RFC 1123.
func parseName(s, want string, wildcard bool) (string, *complaint) {
	c := &complaint{want: want}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	rest := name // what has to be without a *
	if wildcard {
		rest = strings.TrimPrefix(name, "*.")
	}
	if scheme := strings.Index(s, "://"); scheme >= 0 {
		c.fix, _, _ = strings.Cut(s[scheme+3:], "/")
		return "", c
	}
	switch c.hint = badLetter(s, wildcard); {
	case looksLikeIP(name):
		c.hint = "an IP address is no name"
	case c.hint != "":
	case strings.Contains(rest, "*"):
		c.hint = `"*" stands for the whole first label, as in *.example.com, and nowhere else`
	case len(name) > maxName:
		c.hint = "a name has at most 253 bytes"
	default:
		for label := range strings.SplitSeq(rest, ".") {
			if len(label) > maxLabel {
				c.hint = "between two dots are at most 63 bytes"
			}
			if label == "" || len(label) > maxLabel {
				return "", c
			}
		}
		return name, nil
	}
	return "", c
}

// badLetter says what is wrong with a byte that is in no name, or "".
func badLetter(s string, wildcard bool) string {
	for i := range len(s) {
		switch b := s[i]; {
		case b >= 0x80:
			return punycodeHint
		case b == ':':
			return "names stand without a port"
		case b == '*' && !wildcard:
			return "no wildcards here"
		case b != '*' && b != '.' && !bareByte(b):
			return "a name is of letters, digits, '-', '_' and '.'"
		}
	}
	return ""
}

// looksLikeIP reports whether a name would be taken for an IP address: no top-level domain is all digits.
func looksLikeIP(name string) bool {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// parseNamePattern reads an element of sni.
func parseNamePattern(s string) (string, *complaint) {
	switch {
	case s == "":
		return "", nil
	case s == "*" || s == "*.":
		return "", &complaint{want: patternWant, hint: `for every name, write not = { sni = [""] }`}
	}
	name, c := parseName(s, patternWant, true)
	switch {
	case c == nil:
	case looksLikeIP(strings.TrimSuffix(s, ".")):
		c.hint = ipHint
	case strings.HasPrefix(s, "."):
		c.hint = "names that end so are for sni_ends_with"
	}
	return name, c
}

// parseNamePart reads a part of a name: an element of sni_starts_with and the like.
func parseNamePart(s string) (string, *complaint) {
	c := &complaint{want: partWant}
	c.hint = badLetter(s, false)
	switch {
	case c.hint == "no wildcards here":
		c.hint = "no wildcards here: sni has them"
	case c.hint != "":
	case s == "":
		c.hint = "every name has that"
	case len(s) > maxName || strings.Contains(s, ".."):
		c.hint = "no name has that"
	default:
		return strings.ToLower(s), nil
	}
	return "", c
}

// parseSelfSigned reads a name or an address that a self-signed certificate is for.
func parseSelfSigned(s string) (string, *complaint) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.String(), nil
	}
	return parseName(s, selfWant, true)
}

// parseServerName reads whom to expect at the other end: a name, or an IP address.
func parseServerName(s string) (string, *complaint) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.String(), nil
	}
	return parseName(s, "a DNS name such as web.internal, or an IP address", false)
}
