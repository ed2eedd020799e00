package acl

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// naive is what a List does, said the plain way.
func naive(rules []rule, allow bool, client netip.Addr) bool {
	for i := range rules {
		for _, p := range rules[i].list() {
			if p.Contains(client) {
				return rules[i].allow
			}
		}
	}
	return allow
}

// randomPrefix returns a prefix that is often inside of others.
func randomPrefix(r *rand.Rand) netip.Prefix {
	var b [16]byte
	bits := 0
	if r.IntN(2) == 0 {
		b[0], b[1], b[2], b[3] = 10, byte(r.IntN(3)), byte(r.IntN(4))<<6, byte(r.IntN(256))
		bits = r.IntN(33)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), bits).Masked()
	}
	b[0], b[1], b[7], b[15] = 0x20, byte(r.IntN(3)), byte(r.IntN(4)), byte(r.IntN(256))
	bits = r.IntN(129)
	return netip.PrefixFrom(netip.AddrFrom16(b), bits).Masked()
}

func randomIn(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= byte(r.IntN(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestTableDecidesAsRulesDo: whatever rules there are, the first that has the client decides.
func TestTableDecidesAsRulesDo(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var rules []rule
		var all []netip.Prefix
		for range r.IntN(8) {
			made := rule{allow: r.IntN(2) == 0}
			for range 1 + r.IntN(12) {
				made.prefixes = append(made.prefixes, randomPrefix(r))
			}
			rules, all = append(rules, made), append(all, made.prefixes...)
		}
		allow := r.IntN(2) == 0
		table := newTable(rules, allow)
		for range 200 {
			p := randomPrefix(r)
			if len(all) > 0 && r.IntN(4) > 0 {
				p = all[r.IntN(len(all))]
			}
			if a := randomIn(r, p); table.allows(a) != naive(rules, allow, a) {
				t.Fatalf("seed %d: %v: got %v\n%+v, default %v", seed, a, table.allows(a), rules, allow)
			}
		}
	}
}

// many returns n prefixes as they are in lists of addresses to block.
func many(n int) []netip.Prefix {
	r := rand.New(rand.NewPCG(1, 2))
	list := make([]netip.Prefix, n)
	for i := range list {
		a := netip.AddrFrom4([4]byte{byte(1 + r.IntN(222)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
		bits := []int{32, 32, 32, 24, 24, 22, 20}[r.IntN(7)]
		if i%5 == 4 {
			var b [16]byte
			b[0], b[1], b[2], b[3], b[4], b[5] = 0x20, byte(r.IntN(16)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))
			a, bits = netip.AddrFrom16(b), []int{32, 40, 48}[r.IntN(3)]
		}
		list[i] = netip.PrefixFrom(a, bits).Masked()
	}
	return list
}

// TestManyPrefixes: the same with 100,000 of them.
func TestManyPrefixes(t *testing.T) {
	list := many(100_000)
	rules := []rule{{allow: true, prefixes: list[:1000]}, {prefixes: list}, {allow: true, prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}
	table := newTable(rules, false)
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		a := randomIn(r, list[r.IntN(len(list))])
		if r.IntN(4) == 0 {
			a = randomIn(r, netip.MustParsePrefix("0.0.0.0/0"))
		}
		if table.allows(a) != naive(rules, false, a) {
			t.Fatal(a)
		}
	}
}

// TestClients: IPv4 in IPv6 is IPv4, zones do not matter, and unix sockets always may.
func TestClients(t *testing.T) {
	l := newList(&config.Access{Default: "deny", Rules: []*config.AccessRule{{Allow: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}}}}, nil)
	l.build()
	for text, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "::ffff:11.0.0.1": false, "fe80::1%eth0": true, "::1": false} {
		if got := l.Allows(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if !l.Allows(netip.Addr{}) {
		t.Error("a unix socket was denied")
	}
}

func configOf(rules ...*config.AccessRule) *config.Config {
	return &config.Config{Frontends: []*config.Frontend{{Name: "f", Access: config.Access{Default: "allow", Rules: rules}}}}
}

// watching returns a Keeper with a list that denies what is in the file at path, and the log.
func watching(t *testing.T, path string) (*Keeper, *List, *strings.Builder, *int) {
	t.Helper()
	set, err := Prepare(configOf(&config.AccessRule{DenyFile: path}))
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	changes := 0
	k := NewKeeper(slog.New(slog.NewTextHandler(&log, nil)), func() { changes++ })
	k.Close() // the test looks itself
	k.Commit(set)
	return k, set.List("f"), &log, &changes
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFileChanges: what a file says is in use soon after it changed; what is wrong is not, is told once and counted, and
// the old stays; a file that goes and comes back is the same.
func TestFileChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocked.txt")
	write(t, path, "# nobody\n\n10.0.0.0/8 ; mine\n")
	k, l, log, changes := watching(t, path)
	until := func(what string, ok func() bool) {
		t.Helper()
		lbtest.Eventually(t, what, func() bool { k.Look(); return ok() })
	}
	ten, eleven := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("11.0.0.1")
	if l.Allows(ten) || !l.Allows(eleven) {
		t.Fatal("the file is not in use")
	}
	write(t, path, "11.0.0.0/8\n")
	until("the new file is in use", func() bool { return l.Allows(ten) && !l.Allows(eleven) })
	if *changes != 1 {
		t.Errorf("%d changes told", *changes)
	}
	failed := func() uint64 { _, _, n := k.Files(); return n }
	write(t, path, "11.0.0.0/8\n10.0.0.1/8\nnonsense\n")
	until("the mistake is told", func() bool { return failed() == 1 })
	for range 10 {
		k.Look()
	}
	if l.Allows(eleven) || failed() != 1 || strings.Count(log.String(), path+`:2: got \"10.0.0.1/8\"; want a prefix with no bits set after its length (write \"10.0.0.0/8\")`) != 1 {
		t.Errorf("%d failed; %s", failed(), log)
	}
	if files, _, _ := k.Files(); len(files) != 1 || files[0].Prefixes != 1 || !strings.HasPrefix(files[0].Err, path+":2:") {
		t.Errorf("%+v", files)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until("the missing file is told", func() bool { return failed() == 2 })
	if l.Allows(eleven) {
		t.Error("without the file everybody may come")
	}
	write(t, path, "10.0.0.0/8\n")
	until("the file is in use again", func() bool { return !l.Allows(ten) && l.Allows(eleven) })
	if files, ok, _ := k.Files(); ok != 2 || files[0].Err != "" {
		t.Errorf("%+v, %d changes", files, ok)
	}
}

// TestFilesFail: every mistake of every file is told at once, with its place.
func TestFilesFail(t *testing.T) {
	dir := t.TempDir()
	bad, missing := filepath.Join(dir, "bad.txt"), filepath.Join(dir, "missing.txt")
	write(t, bad, "10.0.0.0/8\nfe80::1%eth0\n\n10.0.0.0/33\n")
	_, err := Prepare(configOf(&config.AccessRule{AllowFile: bad}, &config.AccessRule{DenyFile: missing}, &config.AccessRule{DenyFile: dir}))
	want := bad + `:2: got "fe80::1%eth0"; want a prefix such as 10.0.0.0/8 or fd00::/8, or an IP address
` + bad + `:4: got "10.0.0.0/33"; want a prefix such as 10.0.0.0/8 or fd00::/8, or an IP address
awe4lb.toml:0: ` + missing + `: no such file or directory
awe4lb.toml:0: ` + dir + `: not a file`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

// TestWatches: the Keeper looks by itself.
func TestWatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocked.txt")
	write(t, path, "10.0.0.0/8\n")
	set, err := Prepare(configOf(&config.AccessRule{DenyFile: path}))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 8)
	k := NewKeeper(slog.New(slog.NewTextHandler(io.Discard, nil)), func() { told <- struct{}{} })
	defer k.Close()
	k.Commit(set)
	write(t, path, "11.0.0.0/8\n")
	<-told
	if l := set.List("f"); !l.Allows(netip.MustParseAddr("10.0.0.1")) || l.Allows(netip.MustParseAddr("11.0.0.1")) {
		t.Error("the change is not in use")
	}
}

func BenchmarkAllows(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		list := many(n)
		l := &List{rules: []rule{{prefixes: list}}, allow: true}
		l.build()
		r := rand.New(rand.NewPCG(5, 6))
		clients := make([]netip.Addr, 4096)
		for i := range clients {
			clients[i] = randomIn(r, netip.MustParsePrefix("0.0.0.0/0"))
			if i%2 == 0 {
				clients[i] = randomIn(r, list[r.IntN(n)])
			}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				l.Allows(clients[i%len(clients)])
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		rules := []rule{{prefixes: many(n)}}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				newTable(rules, true)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	for _, p := range many(100_000) {
		text.WriteString(p.String() + "\n")
	}
	b.ReportAllocs()
	for range b.N {
		if _, err := config.ParsePrefixes("x", text.String()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAllowsDoesNotAllocate holds for all rules.
func TestAllowsDoesNotAllocate(t *testing.T) {
	l := &List{rules: []rule{{prefixes: many(1000)}}}
	l.build()
	a := netip.MustParseAddr("fe80::1")
	if n := testing.AllocsPerRun(100, func() { l.Allows(a) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
