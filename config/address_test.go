package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestParseBindSuccess(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:8080":          "127.0.0.1:8080",
		"127.0.0.1:0":             "127.0.0.1:0",
		"127.0.0.1:65535":         "127.0.0.1:65535",
		"0.0.0.0:80":              "0.0.0.0:80",
		":80":                     "0.0.0.0:80 [::]:80",
		"*:80":                    "0.0.0.0:80 [::]:80",
		"localhost:80":            "127.0.0.1:80 [::1]:80",
		"localhost:80-81":         "127.0.0.1:80 [::1]:80 127.0.0.1:81 [::1]:81",
		"[::1]:80":                "[::1]:80",
		"[::]:80":                 "[::]:80",
		"[fe80::1%eth0]:80":       "[fe80::1%eth0]:80",
		"[::ffff:1.2.3.4]:80":     "1.2.3.4:80",
		"[2001:DB8:0::1]:80":      "[2001:db8::1]:80",
		"10.0.0.1:8000-8002":      "10.0.0.1:8000 10.0.0.1:8001 10.0.0.1:8002",
		"10.0.0.1:8000-8000":      "10.0.0.1:8000",
		"unix:/run/a.sock":        "unix:/run/a.sock",
		"unix:/run/with space:80": "unix:/run/with space:80",
		"unix:/" + strings.Repeat("x", maxUnixPath-1): "unix:/" + strings.Repeat("x", maxUnixPath-1),
	} {
		b, c := parseBind(in)
		if c != nil {
			t.Errorf("%q: %+v", in, *c)
			continue
		}
		var got []string
		for _, a := range b.addresses() {
			got = append(got, a.String())
			if !a.IsValid() || a.IsUnix() != strings.HasPrefix(in, "unix:") {
				t.Errorf("%q: %+v", in, a)
			}
		}
		if strings.Join(got, " ") != want || b.size() != len(got) {
			t.Errorf("%q: got %q, size %d; want %q", in, got, b.size(), want)
		}
	}
}

// TestParseBindFail: testdata/errors/binds.golden has the messages.
func TestParseBindFail(t *testing.T) {
	for _, in := range []string{
		"", ":", "*", "*:", "::", ":-", ":80-", ":-80", ":0-1", ":2-1", ":65536", ":1-65536", ":+80", ": 80", " :80", ":080", ":00", ":８０",
		"127.0.0.1", "127.0.0.1:", "127.0.0:80", "127.0.0.1.1:80", "0127.0.0.1:80", "127.1:80", "2130706433:80", "0x7f.0.0.1:80",
		"::1:80", "[::1]", "[::1]:", "[::1]80", "[::1]:80:80", "[::1", "::1]:80", "[]:80", "[[::1]]:80", "[127.0.0.1]:80", "[*]:80", "[localhost]:80",
		"[fe80::1]:80", "[fe80::1%]:80", "[fe80::1%a b]:80", "[fe80::1%a/b]:80", "[fe80::1%0123456789abcdef]:80", "[::ffff:1.2.3.4%eth0]:80",
		"web:80", "Localhost:80", "a.b:80", "tcp://127.0.0.1:80", "127.0.0.1:80/tcp", "*.*:80", "**:80",
		"unix:", "unix:/", "unix://run/a", "unix:/run/", "unix:run", "unix:@a", "unix:/a/../b", "unix:/./a", "Unix:/a", "/run/a",
		"unix:/" + strings.Repeat("x", maxUnixPath),
	} {
		if b, c := parseBind(in); c == nil {
			t.Errorf("%q: got %+v; want a complaint", in, b)
		} else if c.want == "" {
			t.Errorf("%q: the complaint says nothing", in)
		}
	}
}

func TestParseBackend(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1:80":          "10.0.0.1:80",
		"[fd00::7]:80":         "[fd00::7]:80",
		"[fe80::7%eth0]:80":    "[fe80::7%eth0]:80",
		"[::ffff:10.0.0.1]:80": "10.0.0.1:80",
		"localhost:80":         "127.0.0.1:80",
		"unix:/run/a.sock":     "unix:/run/a.sock",
		"10.0.0.1:65535":       "10.0.0.1:65535",
		"":                     "",
		"10.0.0.1":             "",
		"10.0.0.1:0":           "",
		"10.0.0.1:1-2":         "",
		":80":                  "",
		"*:80":                 "",
		"0.0.0.0:80":           "",
		"[::]:80":              "",
		"[::ffff:0.0.0.0]:80":  "",
		"239.1.2.3:80":         "",
		"[ff02::1%eth0]:80":    "",
		"255.255.255.255:80":   "",
		"[fe80::7]:80":         "",
		"web.internal:80":      "",
		"https://10.0.0.1:443": "",
		"unix:relative":        "",
	} {
		a, c := parseBackend(in)
		if got := a.String(); c == nil && got != want || c != nil && want != "" || c == nil && !a.IsValid() {
			t.Errorf("%q: got %v, %+v; want %q", in, a, c, want)
		}
	}
}

func TestParseAdmin(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:7070":      "127.0.0.1:7070",
		"127.8.9.1:7070":      "127.8.9.1:7070",
		"127.0.0.1:0":         "127.0.0.1:0",
		"[::1]:7070":          "[::1]:7070",
		"localhost:7070":      "127.0.0.1:7070",
		"unix:/run/a.sock":    "unix:/run/a.sock",
		":7070":               "[::]:7070",
		"0.0.0.0:7070":        "0.0.0.0:7070",
		"10.0.0.1:7070":       "10.0.0.1:7070",
		"[::]:7070":           "[::]:7070",
		"127.0.0.1:7070-7071": "",
		"7070":                "",
	} {
		a, c := parseAdmin(in)
		if got := a.String(); c == nil && got != want || c != nil && want != "" {
			t.Errorf("%q: got %v, %+v; want %q", in, a, c, want)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8":          "10.0.0.0/8",
		"10.0.0.1":            "10.0.0.1/32",
		"0.0.0.0/0":           "0.0.0.0/0",
		"::/0":                "::/0",
		"fd00::7":             "fd00::7/128",
		"::ffff:10.0.0.0/104": "10.0.0.0/8",
		"::ffff:10.0.0.1":     "10.0.0.1/32",
		"10.0.0.1/8":          "write 10.0.0.0/8",
		"fd00::1/8":           "write fd00::/8",
		"::ffff:10.0.0.1/104": "write 10.0.0.0/8",
		"10.0.0.0/33":         "",
		"10.0.0.0/":           "",
		"10.0.0.0/08":         "",
		"fe80::1%eth0":        "",
		"fe80::%eth0/64":      "",
		"all":                 "",
		"":                    "",
	} {
		p, c := parsePrefix(in)
		got := ""
		if c == nil {
			got = p.String()
		} else if c.fix != "" {
			got = "write " + c.fix
		}
		if got != want {
			t.Errorf("%q: got %q; want %q", in, got, want)
		}
	}
}

// FuzzAddress: what is accepted is written back as it means.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::1%lo]:1-3", "*:0", "unix:/a", "localhost:1", "[fe80::1%eth0]:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, c := parseBind(s)
		if c != nil || b.size() > 100 {
			return
		}
		for _, a := range b.addresses() {
			again, c := parseBind(a.String())
			if c != nil {
				t.Errorf("%q: %v is refused: %+v", s, a, *c)
			} else if got := again.addresses(); !slices.Equal(got, []Address{a}) {
				t.Errorf("%q: %v becomes %v", s, a, got)
			}
		}
	})
}

func ExampleAddress() {
	a := Address{IP: netip.MustParseAddrPort("[::1]:8080")}
	fmt.Println(a, a.IsUnix(), Address{Path: "/run/web.sock"})
	// Output: [::1]:8080 false unix:/run/web.sock
}
