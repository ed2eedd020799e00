package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The part of the scanner that knows characters: where strings, words, comments and keys end. See scan.go for the part
// that knows tables.

// scalar reads over a number, a date or a word. Dates may hold a blank, so that it goes on to whatever ends a value.
func (s *scanner) scalar() bool {
	n := strings.IndexAny(s.text[s.pos:], ",]}#\r\n")
	if n < 0 {
		n = len(s.text) - s.pos
	}
	s.pos += n
	return n > 0
}

// shortString reads over a string in one quote, single or double; it ends on the line where it begins.
func (s *scanner) shortString(q byte) bool {
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == q:
			s.pos++
			return true
		case c == '\n':
			return false
		case c == '\\' && q == '"':
			s.pos++
		}
	}
	return false
}

// longString reads over a string in three quotes, single or double. Up to two more may stand before the closing three, so
// that it is the whole run of quotes that ends the string.
func (s *scanner) longString(q byte) bool {
	for s.pos += 3; s.pos < len(s.text); {
		switch c := s.text[s.pos]; {
		case c == q:
			run := 1
			for s.pos+run < len(s.text) && s.text[s.pos+run] == q {
				run++
			}
			s.pos += run
			if run >= 3 {
				return true
			}
		case c == '\\' && q == '"':
			s.pos++
			if s.pos < len(s.text) && s.text[s.pos] == '\n' {
				s.line++
			}
			s.pos++
		default:
			if c == '\n' {
				s.line++
			}
			s.pos++
		}
	}
	return false
}

// keyUntil reads a dotted key and the byte that ends it.
func (s *scanner) keyUntil(end byte) (parts []string, ok bool) {
	for {
		s.skipBlanks()
		part, ok := s.keyPart()
		if !ok {
			return nil, false
		}
		parts = append(parts, part)
		if len(parts) > maxPath {
			s.longPath()
			return nil, false
		}
		s.skipBlanks()
		if s.take(end) {
			return parts, true
		}
		if !s.take('.') {
			return nil, false
		}
	}
}

func (s *scanner) keyPart() (string, bool) {
	start := s.pos
	switch c, _ := s.peek(); c {
	case '"':
		if !s.shortString(c) {
			return "", false
		}
		return unescape(s.text[start+1 : s.pos-1])
	case '\'':
		if !s.shortString(c) {
			return "", false
		}
		return s.text[start+1 : s.pos-1], true
	}
	for s.pos < len(s.text) && bareByte(s.text[s.pos]) {
		s.pos++
	}
	return s.text[start:s.pos], s.pos > start
}

// unescape resolves the escapes of a quoted key.
func unescape(s string) (string, bool) {
	if !strings.Contains(s, `\`) {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", false
		}
		digits := 0
		switch s[i] {
		case 'b':
			b.WriteByte('\b')
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'f':
			b.WriteByte('\f')
		case 'r':
			b.WriteByte('\r')
		case 'e':
			b.WriteByte(0x1b)
		case '"', '\\':
			b.WriteByte(s[i])
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			return "", false
		}
		if digits == 0 {
			continue
		}
		if i+digits >= len(s) {
			return "", false
		}
		r, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
		if err != nil || r > utf8.MaxRune || !utf8.ValidRune(rune(r)) {
			return "", false
		}
		b.WriteRune(rune(r))
		i += digits
	}
	return b.String(), true
}

func (s *scanner) peek() (c byte, ok bool) {
	if s.pos >= len(s.text) {
		return 0, false
	}
	return s.text[s.pos], true
}

func (s *scanner) take(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) skipBlanks() {
	for s.pos < len(s.text) && (s.text[s.pos] == ' ' || s.text[s.pos] == '\t') {
		s.pos++
	}
}

// skipLines skips blanks, ends of lines and comments.
func (s *scanner) skipLines() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\r':
			s.pos++
		case '\n':
			s.pos++
			s.line++
		case '#':
			s.skipComment()
		default:
			return
		}
	}
}

func (s *scanner) skipComment() {
	n := strings.IndexByte(s.text[s.pos:], '\n')
	if n < 0 {
		n = len(s.text) - s.pos
	}
	if s.parts != nil {
		s.parts.comments = append(s.parts.comments, span{from: s.pos, to: s.pos + n})
	}
	s.pos += n
}

// endOfLine reports whether nothing but blanks and a comment is left on the line.
func (s *scanner) endOfLine() bool {
	s.skipBlanks()
	c, more := s.peek()
	if c == '#' {
		s.skipComment()
		return true
	}
	return !more || c == '\n' || c == '\r'
}
