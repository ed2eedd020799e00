package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"awe4lb/config"
)

// said is a Hello.
type said struct {
	name string
	alpn []string
}

func (s *said) ServerName() []byte          { return []byte(s.name) }
func (s *said) Offers(protocol string) bool { return slices.Contains(s.alpn, protocol) }

// routed parses a configuration of one frontend, f, and builds its snapshot. Pools are made for every name in pools; rest is
// what follows bind in the frontend.
func routed(t testing.TB, pools, rest string) *Frontend {
	t.Helper()
	text := "[frontends.f]\nbind = [\"127.0.0.1:1\"]\n" + rest + "\n"
	for name := range strings.FieldsSeq(pools) {
		text += "[pools." + name + "]\n"
	}
	cfg, err := config.Parse("test.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return build(cfg, 1, identities{}).Frontend("f")
}

// tomlRoutes writes one [[frontends.f.routes]] for each pair of conditions and pool.
func tomlRoutes(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "[[frontends.f.routes]]\nmatch = { %s }\npool = %q\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

// words writes a choice as tests want it.
func (c Choice) words() string {
	s := "-"
	if c.Pool != nil {
		s = c.Pool.Config.Name
	}
	if c.Passthrough {
		s += " passthrough"
	}
	if c.Unknown {
		s += " unknown"
	}
	return s
}

// TestConditions: each kind of condition by itself, then together.
func TestConditions(t *testing.T) {
	const office, home = "10.1.2.3", "192.0.2.1"
	for _, tc := range []struct {
		match   string
		yes, no []string // name[/protocol,protocol][@address]
	}{
		{`sni = ["www.example.com"]`, []string{"www.example.com"}, []string{"", "example.com", "a.www.example.com", "www.example.com.evil"}},
		{`sni = ["WWW.Example.com."]`, []string{"www.example.com"}, []string{"ww.example.com"}},
		{`sni = ["*.example.com"]`, []string{"www.example.com", "*.example.com", "-.example.com"},
			[]string{"", "example.com", ".example.com", "a.b.example.com", "wwwexample.com", "www.example.org", "com"}},
		{`sni = ["*.com", "a.b.c"]`, []string{"a.com", "a.b.c"}, []string{"com", "a.b.com", "b.c"}},
		{`sni = [""]`, []string{"", "/h2"}, []string{"a", "a.b"}},
		{`sni = ["", "*.b"]`, []string{"", "a.b"}, []string{"b", "a"}},
		{`sni_starts_with = ["shop.", "SHOP-"]`, []string{"shop.a", "shop-1.a"}, []string{"", "shop", "a.shop.b"}},
		{`sni_ends_with = [".example.com"]`, []string{"a.example.com", "a.b.example.com"}, []string{"", "example.com", "a.example.com.b"}},
		{`sni_contains = ["-test."]`, []string{"a-test.b", "-test.b"}, []string{"", "test.a", "a-test"}},
		{`sni_regexp = ["[a-z]+[.]EXAMPLE[.]com", "x"]`, []string{"a.example.com", "x"}, []string{"", "1.example.com", "a.example.com.b", "xx"}},
		{`sni_regexp = [".*"]`, []string{"", "a"}, nil},
		{`sni_regexp = ["a|b"]`, []string{"a", "b"}, []string{"ab", "ax", "xb"}},
		{`sni_starts_with = ["a"], sni_ends_with = ["z"]`, []string{"az", "a.z"}, []string{"a", "z", "za"}},
		{`alpn = ["h2", "h3"]`, []string{"/h2", "a/http/1.1,h3"}, []string{"", "a", "a/http/1.1", "a/H2"}},
		{`source = ["10.0.0.0/8"]`, []string{"@" + office, "a@" + office, "@::ffff:10.0.0.1"}, []string{"", "@" + home, "@fd00::1"}},
		{`sni = ["a"], alpn = ["h2"], source = ["10.0.0.0/8"]`, []string{"a/h2@" + office},
			[]string{"a/h2@" + home, "a@" + office, "b/h2@" + office, "a/h2"}},
		{`not = { sni = ["a", "*.a"] }`, []string{"", "b", "b.b.a"}, []string{"a", "b.a"}},
		{`not = { sni = [""] }`, []string{"a", "a.b"}, []string{""}},
		{`not = { sni = ["a"], source = ["10.0.0.0/8"] }`, []string{"", "a", "b@" + office, "a@" + home}, []string{"a@" + office}},
		{`not = { not = { sni = ["a"] } }`, []string{"a"}, []string{"", "b"}},
		{`sni = ["*.a"], not = { sni = ["x.a"] }`, []string{"y.a"}, []string{"x.a", "a", ""}},
		{`any = [{ sni = ["a"] }, { alpn = ["h2"] }]`, []string{"a", "b/h2", "/h2"}, []string{"", "b"}},
		{`all = [{ sni_starts_with = ["a"] }, { sni_starts_with = ["ab"] }]`, []string{"ab", "abc"}, []string{"a", ""}},
		{`any = [{ all = [{ sni = ["a"] }, { source = ["10.0.0.0/8"] }] }, { not = { any = [{ sni = ["a"] }, { sni = ["b"] }] } }]`,
			[]string{"a@" + office, "c", ""}, []string{"a", "b", "b@" + office}},
	} {
		f := routed(t, "yes no", `pool = "no"`+"\n"+tomlRoutes(tc.match, "yes"))
		for i, list := range [][]string{tc.yes, tc.no} {
			for _, who := range list {
				before, address, _ := strings.Cut(who, "@")
				name, alpn, _ := strings.Cut(before, "/")
				var from netip.Addr // a unix socket
				if address != "" {
					from = netip.MustParseAddr(address)
				}
				got := f.Route(from, &said{name, strings.Split(alpn, ",")}).Pool.Config.Name
				if want := []string{"yes", "no"}[i]; got != want {
					t.Errorf("%s, client %q: got %s", tc.match, who, got)
				}
			}
		}
	}
}

// TestFirstRouteDecides: whatever kind of condition they have, routes are tried in order.
func TestFirstRouteDecides(t *testing.T) {
	f := routed(t, "a b c d e f rest", `pool = "rest"`+"\n"+tomlRoutes(
		`sni = ["a.x"], source = ["10.0.0.0/8"]`, "a",
		`sni_ends_with = [".y"]`, "b",
		`sni = ["*.x", "a.x"]`, "c",
		`sni = ["a.x", "a.y"]`, "d",
		`source = ["192.0.2.0/24"]`, "e",
		`sni = ["", "*.z"]`, "f"))
	for who, want := range map[string]string{
		"a.x 10.0.0.1": "a", "a.x 11.0.0.1": "c", "b.x 192.0.2.1": "c", "a.y 1.1.1.1": "b", "q 192.0.2.1": "e", "a.z 192.0.2.1": "e",
		"a.z 1.1.1.1": "f", " 1.1.1.1": "f", " 192.0.2.1": "e", "q 1.1.1.1": "rest unknown", "x 1.1.1.1": "rest unknown",
	} {
		name, address, _ := strings.Cut(who, " ")
		if got := f.Route(netip.MustParseAddr(address), &said{name: name}).words(); got != want {
			t.Errorf("%s: got %s, want %s", who, got, want)
		}
	}
	if !f.NeedsHello() {
		t.Error("routes by name, and no hello is needed")
	}
}

func TestUnknownName(t *testing.T) {
	named := tomlRoutes(`sni = ["a"]`, "a", `source = ["10.0.0.0/8"]`, "b")
	office, home := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for _, tc := range []struct {
		rest    string
		address netip.Addr
		hello   Hello
		want    string
	}{
		{`pool = "rest"` + "\n" + named, home, &said{name: "a"}, "a"},
		{`pool = "rest"` + "\n" + named, home, &said{name: "x"}, "rest unknown"},
		{`pool = "rest"` + "\n" + named, home, &said{}, "rest unknown"}, // no name is unknown, too
		{`pool = "rest"` + "\n" + named, home, nil, "rest unknown"},
		{`pool = "rest"` + "\n" + named, office, &said{name: "x"}, "b"}, // a route that does not look at the name
		{named, home, &said{name: "x"}, "- unknown"},                    // no pool of its own
		{`unknown_name = "reject"` + "\n" + `pool = "rest"` + "\n" + named, home, &said{name: "x"}, "- unknown"},
		{`unknown_name = "reject"` + "\n" + `pool = "rest"` + "\n" + named, home, nil, "- unknown"},
		{`unknown_name = "reject"` + "\n" + `pool = "rest"` + "\n" + named, home, &said{name: "a"}, "a"},
		// Inside of not, any and all it is a condition on the name as well.
		{`unknown_name = "reject"` + "\n" + tomlRoutes(`not = { any = [{ sni_contains = ["a"] }] }`, "a"), home, &said{name: "a"}, "- unknown"},
		// No route looks at the name: none is unknown.
		{`unknown_name = "reject"` + "\n" + `pool = "rest"` + "\n" + tomlRoutes(`alpn = ["h2"]`, "a"), home, &said{name: "x"}, "rest"},
		{`unknown_name = "any"` + "\n" + `pool = "rest"` + "\n" + tomlRoutes(`source = ["10.0.0.0/8"]`, "a"), home, nil, "rest"},
		{`unknown_name = "any"` + "\n" + `pool = "rest"`, home, nil, "rest"},
		{``, home, nil, "-"},
	} {
		f := routed(t, "a b rest", tc.rest)
		if got := f.Route(tc.address, tc.hello).words(); got != tc.want {
			t.Errorf("%s\n%v, %v: got %s, want %s", tc.rest, tc.address, tc.hello, got, tc.want)
		}
	}
}

// TestUnknownNameAny: the pools take turns, each once, and a reload does not begin again.
func TestUnknownNameAny(t *testing.T) {
	cfg, err := config.Parse("test.toml", []byte(`
[frontends.f]
bind = ["127.0.0.1:1"]
pool = "b"
unknown_name = "any"
tls = { certificates = [{ cert = "a.pem" }] }
routes = [
  { match = { sni = ["a"] }, pool = "a", passthrough = true },
  { match = { sni = ["b"] }, pool = "b" },
  { match = { sni = ["c"] }, pool = "a" },
  { match = { source = ["10.0.0.0/8"] }, pool = "c" },
]
[pools.a]
[pools.b]
[pools.c]
[pools.unused]
`))
	if err != nil {
		t.Fatal(err)
	}
	d := NewDirector()
	d.Drive(new(plane))
	var got []string
	for range 3 {
		if _, err := d.Apply(cfg); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			got = append(got, d.Snapshot().Frontend("f").Route(netip.MustParseAddr("192.0.2.1"), &said{name: "x"}).words())
		}
	}
	for i, c := range got {
		if want := []string{"a passthrough unknown", "b unknown", "c unknown"}[i%3]; c != want {
			t.Errorf("%d: got %s, want %s", i, c, want)
		}
	}
}

func TestNeedsHello(t *testing.T) {
	for match, want := range map[string]bool{
		`source = ["10.0.0.0/8"]`:                             false,
		`not = { source = ["10.0.0.0/8"] }`:                   false,
		`sni = ["a"]`:                                         true,
		`sni_starts_with = ["a"]`:                             true,
		`sni_ends_with = ["a"]`:                               true,
		`sni_contains = ["a"]`:                                true,
		`sni_regexp = ["a"]`:                                  true,
		`alpn = ["h2"]`:                                       true,
		`all = [{ not = { any = [{ alpn = ["h2"] }] } }]`:     true,
		`any = [{ source = ["::/0"] }, { sni = ["*.a"] }]`:    true,
		`any = [{ source = ["::/0"] }, { source = ["::1"] }]`: false,
	} {
		if got := routed(t, "p", tomlRoutes(match, "p")).NeedsHello(); got != want {
			t.Errorf("%s: got %v", match, got)
		}
	}
	if routed(t, "p", `pool = "p"`).NeedsHello() {
		t.Error("without routes")
	}
}

// naively reports whether the conditions hold, as docs/configuration.md says it and without regard to speed.
func naively(m *config.Match, from netip.Addr, h *said) bool {
	some := func(list []string, fits func(s string) bool) bool {
		return list == nil || slices.ContainsFunc(list, fits)
	}
	name := h.name
	ok := m.Source == nil || slices.ContainsFunc(m.Source, func(p netip.Prefix) bool { return p.Contains(from) })
	ok = ok && some(m.SNI, func(s string) bool {
		label, rest, dotted := strings.Cut(name, ".")
		return s == name || strings.HasPrefix(s, "*.") && dotted && label != "" && s == "*."+rest
	})
	ok = ok && some(m.SNIStartsWith, func(s string) bool { return strings.HasPrefix(name, s) })
	ok = ok && some(m.SNIEndsWith, func(s string) bool { return strings.HasSuffix(name, s) })
	ok = ok && some(m.SNIContains, func(s string) bool { return strings.Contains(name, s) })
	ok = ok && some(m.SNIRegexp, func(s string) bool { e, _ := config.CompileNameRegexp(s); return e.MatchString(name) })
	ok = ok && some(m.ALPN, h.Offers)
	ok = ok && (m.Not == nil || !naively(m.Not, from, h))
	inner := func(m *config.Match) bool { return naively(m, from, h) }
	ok = ok && (m.Any == nil || slices.ContainsFunc(m.Any, inner))
	return ok && !slices.ContainsFunc(m.All, func(m *config.Match) bool { return !inner(m) })
}

// TestRouteIsNaive holds random routes against naively. The alphabet is small, so that there is something to hit.
func TestRouteIsNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "a.a", "a.b", "b.a", "a.a.a", "a.b.a", "b.a.b"}
	some := func(from ...string) []string {
		if r.IntN(3) > 0 {
			return nil
		}
		var list []string
		for range 1 + r.IntN(3) {
			list = append(list, from[r.IntN(len(from))])
		}
		return list
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}
	var random func(depth int) *config.Match
	random = func(depth int) *config.Match {
		m := &config.Match{
			SNI:           some(append([]string{"", "*.a", "*.b", "*.a.a"}, names...)...),
			SNIStartsWith: some("a", "a.", "b.a"), SNIEndsWith: some("a", ".a", "a.b"), SNIContains: some(".a.", "b"),
			SNIRegexp: some("a.*", "[AB]", ".*b", "(a|b)[.]a"), ALPN: some("h2", "http/1.1"),
		}
		for _, p := range prefixes {
			if r.IntN(6) == 0 {
				m.Source = append(m.Source, p)
			}
		}
		if depth < 3 && r.IntN(3) == 0 {
			m.Not = random(depth + 1)
		}
		for _, list := range []*[]*config.Match{&m.Any, &m.All} {
			for depth < 3 && r.IntN(4) == 0 {
				*list = append(*list, random(depth+1))
			}
		}
		return m
	}
	matched := 0
	for range 2000 {
		cfg := &config.Frontend{Name: "f", Pool: "rest", UnknownName: "default"}
		pools := []*config.Pool{{Name: "rest", Policy: "random"}}
		for i := range 1 + r.IntN(8) {
			name := fmt.Sprint(i)
			cfg.Routes = append(cfg.Routes, &config.Route{Match: *random(0), Pool: name})
			pools = append(pools, &config.Pool{Name: name, Policy: "random"})
		}
		f := build(&config.Config{Frontends: []*config.Frontend{cfg}, Pools: pools}, 1, identities{}).Frontend("f")
		for range 40 {
			h := &said{alpn: some("h2", "http/1.1", "x")}
			if r.IntN(8) > 0 {
				h.name = names[r.IntN(len(names))]
			}
			from := netip.MustParseAddr([]string{"10.0.0.1", "10.1.0.1", "192.0.2.1", "fd00::1", "::1"}[r.IntN(5)])
			want := "rest"
			for _, route := range cfg.Routes {
				if naively(&route.Match, from, h) {
					want = route.Pool
					matched++
					break
				}
			}
			if got := f.Route(from, h).Pool.Config.Name; got != want {
				for _, route := range cfg.Routes {
					t.Logf("%s: %+v", route.Pool, route.Match)
				}
				t.Fatalf("%q %q from %v: got %s, want %s", h.name, h.alpn, from, got, want)
			}
		}
	}
	if matched < 10_000 {
		t.Errorf("only %d of 80000 matched something", matched)
	}
}

// named is a Hello that does not allocate.
type named struct{ name []byte }

func (n *named) ServerName() []byte   { return n.name }
func (n *named) Offers(p string) bool { return p == "h2" }

// manyNames returns a frontend with n routes, each for a name and a wildcard.
func manyNames(t testing.TB, n int) *Frontend {
	var pairs []string
	for i := range n {
		pairs = append(pairs, fmt.Sprintf(`sni = ["www.site%d.example", "*.cdn.site%d.example"]`, i, i), "p")
	}
	return routed(t, "p", `pool = "p"`+"\n"+tomlRoutes(pairs...))
}

func TestRouteDoesNotAllocate(t *testing.T) {
	f := manyNames(t, 100)
	all := routed(t, "p", `unknown_name = "any"`+"\n"+tomlRoutes(
		`sni = ["x"], sni_starts_with = ["x"], source = ["10.0.0.0/8"]`, "p",
		`sni_regexp = ["x+[.]y"]`, "p",
		`any = [{ sni_contains = ["q"] }, { not = { alpn = ["h2"] } }], all = [{ sni_ends_with = ["z"] }, { alpn = ["h2"] }]`, "p"))
	from := netip.MustParseAddr("::ffff:10.0.0.1")
	hello := &named{[]byte("img.cdn.site77.example")}
	if n := testing.AllocsPerRun(1000, func() {
		f.Route(from, hello)
		all.Route(from, hello)
		f.Route(from, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRoute(b *testing.B) {
	from := netip.MustParseAddr("192.0.2.1")
	for _, n := range []int{10, 1000} {
		f := manyNames(b, n)
		for _, who := range []string{"www.site7.example", "img.cdn.site7.example", "unknown.example"} {
			hello := &named{[]byte(who)}
			b.Run(fmt.Sprintf("%s/%d", who, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f.Route(from, hello)
				}
			})
		}
	}
	regexps := routed(b, "p", tomlRoutes(`sni_regexp = ["shop-[0-9]+[.]example[.]com"]`, "p"))
	hello := &named{[]byte("shop-1234.example.com")}
	b.Run("regexp", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			regexps.Route(from, hello)
		}
	})
}
