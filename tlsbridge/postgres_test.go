package tlsbridge

import (
	"strings"
	"testing"
)

func TestPeekPostgres(t *testing.T) {
	startup := "\x00\x00\x00\x16\x00\x03\x00\x00user\x00postgres\x00"
	for name, c := range map[string]struct {
		b    string
		want PostgresFirst
	}{
		"nothing":        {"", PostgresMore},
		"SSLRequest":     {PostgresSSLRequest, PostgresSSL},
		"GSSENCRequest":  {"\x00\x00\x00\x08\x04\xd2\x16\x30", PostgresGSS},
		"startup 3.0":    {startup, PostgresPlain},
		"startup 3.2":    {"\x00\x00\x00\x16\x00\x03\x00\x02user", PostgresPlain},
		"cancel":         {"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02", PostgresCancel},
		"direct TLS":     {"\x16\x03\x01", PostgresTLS},
		"injected":       {PostgresSSLRequest + "\x16", PostgresTooFar},
		"injected query": {PostgresSSLRequest + startup, PostgresTooFar},
		"wrong length":   {"\x00\x00\x00\x09\x04\xd2\x16\x2f", PostgresNot},
		"HTTP":           {"GET / HTTP/1.1\r\n", PostgresNot},
		"unknown":        {"\x00\x00\x00\x10\x00\x09\x00\x00", PostgresNot},
		"too long":       {"\x00\x00\x27\x11\x00\x03\x00\x00", PostgresNot},
		"zeroes":         {strings.Repeat("\x00", 8), PostgresNot},
	} {
		if got := PeekPostgres([]byte(c.b)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	for n := range len(PostgresSSLRequest) {
		if got := PeekPostgres([]byte(PostgresSSLRequest[:n])); got != PostgresMore {
			t.Errorf("%d bytes: %d", n, got)
		}
	}
}

// FuzzPeekPostgres: an answer, once given, does not depend on how the bytes were cut, but for what must not follow.
func FuzzPeekPostgres(f *testing.F) {
	f.Add([]byte(PostgresSSLRequest))
	f.Add([]byte("\x00\x00\x00\x16\x00\x03\x00\x00user\x00postgres\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := PeekPostgres(b)
		for n := range len(b) {
			got := PeekPostgres(b[:n])
			asked := n == postgresRequest && (got == PostgresSSL || got == PostgresGSS)
			if got != PostgresMore && got != whole && !(asked && whole == PostgresTooFar) {
				t.Fatalf("%d after %d bytes, %d after %d", got, n, whole, len(b))
			}
		}
	})
}
