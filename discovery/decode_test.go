package discovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// show writes a list in one line.
func show(list List) string {
	var all []string
	for _, b := range list.Backends {
		s := fmt.Sprintf("%s %d/%d/%d", b.Address, b.Weight, b.Priority, b.MaxConnections)
		for _, x := range []string{b.SNI, b.Zone} {
			if x != "" {
				s += " " + x
			}
		}
		var keys []string
		for k := range b.Labels {
			keys = append(keys, k+"="+b.Labels[k])
		}
		slices.Sort(keys)
		if len(keys) > 0 {
			s += " " + strings.Join(keys, " ")
		}
		all = append(all, s)
	}
	if list.Skipped > 0 {
		all = append(all, fmt.Sprintf("skipped %d: %s", list.Skipped, list.Why))
	}
	return strings.Join(all, ", ")
}

func decodeTest(t *testing.T, d Decoding, in, want, wantErr string) {
	t.Helper()
	dec, err := newDecoder(d)
	if err != nil {
		t.Fatal(err)
	}
	list, err := dec.decode([]byte(in), Text)
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) || ReasonOf(err) != ReasonDecode {
			t.Errorf("%q:\ngot  %v\nwant %v", in, err, wantErr)
		}
		return
	}
	if got := show(list); err != nil || got != want {
		t.Errorf("%q:\ngot  %s %v\nwant %s", in, got, err, want)
	}
}

func TestText(t *testing.T) {
	f := func(in, want string) { t.Helper(); decodeTest(t, Decoding{}, in, want, "") }
	f("", "")
	f("\xef\xbb\xbf# a comment\r\n\r\n", "")
	f("10.0.0.1:80", "10.0.0.1:80 1/0/0")
	f("10.0.0.1:80\r\nlocalhost:81\n[fd00::7]:82\n[fe80::1%eth0]:83\n", "10.0.0.1:80 1/0/0, 127.0.0.1:81 1/0/0, [fd00::7]:82 1/0/0, [fe80::1%eth0]:83 1/0/0")
	// gobetween
	f("10.0.0.1:80 weight=2 priority=1 max_connections=100 sni=www.test", "10.0.0.1:80 2/1/100 www.test")
	f("10.0.0.1:80  sni=a#b\tweight=0 zone=eu label.rack=7 label.x=y=z # weight=9", "10.0.0.1:80 0/0/0 a#b eu rack=7 x=y=z")
	// the original awe4lb
	f("10.0.0.1 80\n10.0.0.2 81 5 2\nfd00::7 82\n", "10.0.0.1:80 1/0/0, 10.0.0.2:81 5/2/0, [fd00::7]:82 1/0/0")

	bad := func(in, want string) { t.Helper(); decodeTest(t, Decoding{}, in, "", want) }
	bad("10.0.0.1:80\n<html>", `text: line 2: got "<html>"; want an address`)
	bad("10.0.0.1", "want an address such as")
	bad("fd00::7:80", "want an address such as")
	bad("[10.0.0.1]:80", "want an address such as")
	bad("web.internal:80", `host: got "web.internal"; want an IP address`)
	bad("10.0.0.1:0", "want 1 to 65535")
	bad("10.0.0.1:65536", "want 1 to 65535")
	bad("0.0.0.0:80", "can be connected to")
	bad("[::ffff:224.0.0.1]:80", "can be connected to")
	bad("10.0.0.1:80 weight", "want KEY=VALUE")
	bad("10.0.0.1:80 weight=-1", "want a whole number")
	bad("10.0.0.1:80 weight=1001", "weight: got 1001; want 0 to 1000")
	bad("10.0.0.1:80 priority=256", "want 0 to 255")
	bad("10.0.0.1:80 wight=1", `got "wight"; want weight, priority`)
	bad("10.0.0.1:80 weight=1 weight=2", "twice")
	bad("10.0.0.1 80 5", "got 3 words")
	bad("10.0.0.1:80 sni=\x1b[31m", `"\x1b[31m"`)
	bad("10.0.0.1:80 sni="+strings.Repeat("a", 300), "300 bytes")

	decodeTest(t, Decoding{Lenient: true}, "10.0.0.1:80\nnonsense\n10.0.0.2:80 weight=x\n10.0.0.3:80",
		`10.0.0.1:80 1/0/0, 10.0.0.3:80 1/0/0, skipped 2: line 2: got "nonsense"; want an address such as 10.0.0.7:80 or [fd00::7]:80`, "")
}

// TestByteOrderMark: editors and shells of Windows write one before whatever it is.
func TestByteOrderMark(t *testing.T) {
	for format, in := range map[Format]string{Text: "10.0.0.1:80", JSON: `["10.0.0.1:80"]`, TOML: `backends = [{ address = "10.0.0.1:80" }]`} {
		decodeTest(t, Decoding{Format: format}, "\xef\xbb\xbf"+in, "10.0.0.1:80 1/0/0", "")
	}
}

func TestTextByExpression(t *testing.T) {
	d := Decoding{Line: `^server (?P<host>\S+) (?P<port>\d+)(?: w(?P<weight>\d+))?(?: in (?P<zone>\S+))?(?: rack (?P<label_rack>\S+))?$`}
	decodeTest(t, d, "server 10.0.0.1 80\n\n server ::1 81 w5 in eu rack 7\n", "10.0.0.1:80 1/0/0, [::1]:81 5/0/0 eu rack=7", "")
	decodeTest(t, d, "server 10.0.0.1 80\nelse", "", "line 2: got \"else\"; want what the regular expression matches")
	for line, want := range map[string]string{
		`(`:                              "missing closing",
		`(?P<host>.*)`:                   "want a group named address",
		`(?P<host>.*) (?P<what>.*)`:      `a group "what"`,
		`(?P<address>.*) (?P<host>.*)`:   "want a group named address",
		`(?P<label_a>.)(?P<label_a>.)`:   "two groups",
		`(?P<address>.*)(?P<port>[0-9])`: "",
	} {
		if _, err := newDecoder(Decoding{Line: line}); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v; want %s", line, err, want)
		}
	}
}

func TestJSON(t *testing.T) {
	f := func(p Paths, in, want string) {
		t.Helper()
		decodeTest(t, Decoding{Format: JSON, Paths: p}, in, want, "")
	}
	f(Paths{}, `[]`, "")
	f(Paths{}, `{"backends":[]}`, "")
	f(Paths{}, `["10.0.0.1:80","[::1]:81"]`, "10.0.0.1:80 1/0/0, [::1]:81 1/0/0")
	f(Paths{}, `{"backends":[{"address":"10.0.0.1:80","weight":2,"priority":1,"max_connections":7,"sni":"a.test","zone":"eu","labels":{"rack":"7"}}]}`,
		"10.0.0.1:80 2/1/7 a.test eu rack=7")
	// gobetween
	f(Paths{}, `[{"host":"10.0.0.1","port":"80","weight":2.0,"sni":null},{"host":"fd00::1","port":81,"more":[1]}]`, "10.0.0.1:80 2/0/0, [fd00::1]:81 1/0/0")
	f(Paths{Host: ".meta.ip", Port: ".meta.ports[1]", Weight: ".w"}, `[{"meta":{"ip":"10.0.0.1","ports":[1,80]},"w":3}]`, "10.0.0.1:80 3/0/0")
	// the original awe4lb
	f(Paths{}, `{"hosts":[{"addr":{"host":"10.0.0.1","port":80},"weight":5,"priority":2},{"addr":{"host":"10.0.0.2","port":81}}]}`, "10.0.0.1:80 5/2/0, 10.0.0.2:81 1/0/0")
	f(Paths{List: `data["a.b"][0].x`, Address: "."}, `{"data":{"a.b":[{"x":["10.0.0.1:80"]}]}}`, "10.0.0.1:80 1/0/0")

	bad := func(p Paths, in, want string) {
		t.Helper()
		decodeTest(t, Decoding{Format: JSON, Paths: p}, in, "", want)
	}
	bad(Paths{}, ``, "EOF")
	bad(Paths{}, `{"backends":[`, "unexpected EOF")
	bad(Paths{}, `[] []`, "something follows")
	bad(Paths{}, `{}`, "got nothing where the list should be")
	bad(Paths{}, `{"error":"database is down"}`, "got nothing where the list should be")
	bad(Paths{}, `{"backends":null}`, "got nothing where the list should be")
	bad(Paths{}, `"10.0.0.1:80"`, "got a string where")
	bad(Paths{List: "a.b"}, `{"a":[1]}`, "got nothing where")
	bad(Paths{}, `[{"host":"10.0.0.1"}]`, "port: got nothing")
	bad(Paths{}, `[{"port":80}]`, "host: got nothing")
	bad(Paths{}, `[{"host":10,"port":80}]`, "host: got a number")
	bad(Paths{}, `[{"host":"10.0.0.1","port":80.5}]`, "want a whole number")
	bad(Paths{}, `[{"host":"10.0.0.1","port":1e99}]`, "want a whole number")
	bad(Paths{}, `[{"address":"10.0.0.1:80","weight":true}]`, "weight: got a boolean")
	bad(Paths{}, `[{"address":"10.0.0.1:80","labels":{"a":1}}]`, "label \"a\": got a number")
	bad(Paths{}, `[{"address":"10.0.0.1:80","sni":1}]`, "sni: got a number")
	bad(Paths{}, `[1]`, "element 0: host: got nothing")
	bad(Paths{}, strings.Repeat("[", 100000), "depth")
	decodeTest(t, Decoding{Format: JSON, Lenient: true}, `["10.0.0.1:80",1]`, "10.0.0.1:80 1/0/0, skipped 1: element 1: host: got nothing; want a string", "")
}

func TestPaths(t *testing.T) {
	for _, s := range []string{"..", "a..b", "a.", "[x]", "[-1]", `["a]`, `["a"`, "a]", "a[]", ". a", "|"} {
		if p, err := parsePath(s); err == nil {
			t.Errorf("%q: got %v", s, p)
		}
	}
	for _, p := range []Paths{{Host: "a"}, {Port: "a"}, {Address: "a", Host: "b", Port: "c"}, {List: ".."}} {
		if _, err := newDecoder(Decoding{Paths: p}); err == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

func TestTOML(t *testing.T) {
	f := func(in, want string) { t.Helper(); decodeTest(t, Decoding{Format: TOML}, in, want, "") }
	f(`backends = []`, "")
	f(`backends = [{ address = "10.0.0.1:80", weight = 0 }, { address = "10.0.0.2:80" }]`, "10.0.0.1:80 0/0/0, 10.0.0.2:80 1/0/0")
	f("[[backends]]\naddress = \"10.0.0.1:80\"\npriority = 1\nmax_connections = 2\nsni = \"a\"\nzone = \"b\"\nlabels = { c = \"d\" }", "10.0.0.1:80 1/1/2 a b c=d")
	bad := func(in, want string) { t.Helper(); decodeTest(t, Decoding{Format: TOML}, in, "", want) }
	bad(``, "got no backends")
	bad(`backends = [{ address = "10.0.0.1:80", wight = 0 }]`, `backends.wight`)
	bad(`backends = 1`, "incompatible types")
	bad(`backends = [{ address = "x" }]`, "backend 0")
	bad(`backends = [`, "expected")
}

func FuzzDecode(f *testing.F) {
	for i, s := range []string{
		"10.0.0.1:80 weight=2 label.a=b # x\n10.0.0.1 80 1 2\n[fe80::1%eth0]:80",
		`{"hosts":[{"addr":{"host":"10.0.0.1","port":80},"weight":5}],"backends":["[::1]:80"]}`,
		"[[backends]]\naddress = \"10.0.0.1:80\"\nlabels = { c = \"d\" }",
	} {
		f.Add(uint8(i+1), i == 0, []byte(s))
	}
	f.Fuzz(func(t *testing.T, format uint8, lenient bool, b []byte) {
		d, err := newDecoder(Decoding{Format: Format(format % 4), Lenient: lenient})
		if err != nil {
			t.Fatal(err)
		}
		list, err := d.decode(b, Text)
		if err != nil && (ReasonOf(err) != ReasonDecode || len(list.Backends) != 0) {
			t.Errorf("%v %v", list, err)
		}
		texts := []string{list.Why}
		if err != nil {
			texts = append(texts, err.Error())
		}
		for _, s := range texts {
			if len(s) > 2000 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Errorf("not fit for a log: %q", s)
			}
		}
		for i := range list.Backends {
			if err := list.Backends[i].Check(); err != nil {
				t.Error(err)
			}
			// What was read survives being saved.
			s := toSaved("x", time.Unix(0, 0), list.Backends[i:i+1])
			back, err := s.list()
			if err != nil || !same(back, list.Backends[i:i+1]) {
				t.Errorf("%+v came back as %+v, %v", list.Backends[i], back, err)
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add(`.data.items[0]["a.b"].host`)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parsePath(s); err == nil && p == nil {
			t.Error("nil")
		}
	})
}

func FuzzLine(f *testing.F) {
	f.Add(`(?P<address>\S+) (?P<weight>\d+)`, "10.0.0.1:80 5")
	f.Fuzz(func(t *testing.T, re, line string) {
		if d, err := newDecoder(Decoding{Line: re}); err == nil {
			_, _ = d.decode([]byte(line), Text)
		}
	})
}
