//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// named is a bind9 that serves the zone "test", in which the name who has its own name, so that a client can tell with
// whom it talks.
type named struct {
	*program
	name, address string
	port          int
}

// hosts is the number of addresses in the zone: h0.test is 10.0.0.0, h300.test is 10.0.1.44.
const hosts = 1000

func hostAddress(i int) string { return fmt.Sprintf("10.0.%d.%d", i/256, i%256) }

func startNamed(t *testing.T, name string, port int) *named {
	t.Helper()
	dir := openDir(t)
	var zone strings.Builder
	fmt.Fprintf(&zone, "$TTL 60\n@ SOA ns.test. root.test. 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n*.here A 127.0.0.1\nwho TXT %s\n", name)
	for i := range hosts {
		fmt.Fprintf(&zone, "h%d A %s\n", i, hostAddress(i))
	}
	// A TXT record of 255 bytes takes 268 of an answer: 15 of them make one of 4 kB, which is as much as dig asks for.
	for i := range 15 {
		fmt.Fprintf(&zone, "large TXT %02d%s\n", i, strings.Repeat("x", 253))
	}
	for i := range 5 {
		fmt.Fprintf(&zone, "larger1k TXT %02d%s\n", i, strings.Repeat("x", 253))
	}
	write(t, dir, "zone", zone.String())
	conf := write(t, dir, "named.conf", fmt.Sprintf(`
options {
	directory %q;
	listen-on port %d { 127.0.0.1; };
	listen-on-v6 { none; };
	pid-file none;
	session-keyfile none;
	recursion no;
	dnssec-validation no;
	minimal-responses yes;
	max-udp-size 4096;
};
controls {};
zone "test" { type primary; file "zone"; };
`, dir, port))
	n := &named{name: name, port: port, address: local(port)}
	n.program = launch(t, nil, "named", "-g", "-n", "1", "-c", conf) // one thread: several of them share the machine
	n.waitFor("named serves", func() bool { return n.out.has("all zones loaded") && n.out.has("running") })
	return n
}

// dig asks questions one after another, each from a port of its own, and returns the first line of each answer. A
// question is asked once, and a lost datagram shows: dig then gives no answer and exit code 9.
func dig(t *testing.T, port string, questions ...string) []string {
	t.Helper()
	dir := t.TempDir()
	list := write(t, dir, "questions", strings.Join(questions, "\n")+"\n")
	out, code := runWith(t, nil, "dig", "@127.0.0.1", "-p", port, "+short", "+tries=1", "+retry=0", "+time=2", "-f", list)
	answers := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 {
		t.Errorf("dig: exit code %d", code)
	}
	return answers
}

// countNames returns how often each answer of who.test came.
func countNames(answers []string) map[string]int {
	n := map[string]int{}
	for _, a := range answers {
		n[strings.Trim(a, `"`)]++
	}
	return n
}

func TestDNS(t *testing.T) {
	a, b, c := startNamed(t, "a", lbtest.FreePort(t)), startNamed(t, "b", lbtest.FreePort(t)), startNamed(t, "c", lbtest.FreePort(t))
	// dig asks from any port with SO_REUSEPORT, as we listen, so as the same user it may be given the very port of a frontend
	// and ask itself; but none of freePort's.
	small := strings.Replace(datagramFrontend(lbtest.Free(t), `buffer_size = 1024`), "frontends.test", "frontends.small", 2)
	lb := start(t, datagramFrontend(lbtest.Free(t), `idle_timeout = "2s"`)+small+fmt.Sprintf(`
[pools.test]
backends = [%s]
`, addresses(a.address, b.address, c.address)))
	port := lb.port("test")

	t.Run("answers", func(t *testing.T) {
		var questions, want []string
		for i := range hosts {
			questions = append(questions, fmt.Sprintf("h%d.test", i))
			want = append(want, hostAddress(i))
		}
		if got := dig(t, port, questions...); !slices.Equal(got, want) {
			t.Errorf("got %d answers, want %d: %q", len(got), len(want), firstOf(got))
		}
		// A dig that gets a port again that another one had a moment before goes on with that one's flow.
		for _, p := range lb.status().Pools[0].Backends {
			t.Logf("%s served %d", p.Address, p.Connected)
			if p.Connected < hosts/3-30 || p.Connected > hosts/3+30 {
				t.Errorf("%s served %d of %d; want a third", p.Address, p.Connected, hosts)
			}
		}
	})

	t.Run("balance", func(t *testing.T) {
		n := countNames(dig(t, port, slices.Repeat([]string{"who.test TXT"}, 300)...))
		if len(n) != 3 || n["a"] < 90 || n["b"] < 90 || n["c"] < 90 {
			t.Errorf("asked 300 times who it is; got %v, want about 100 each", n)
		}
	})

	size := regexp.MustCompile(`MSG SIZE  rcvd: (\d+)`)
	t.Run("large answers", func(t *testing.T) {
		for range 9 { // three from each
			out := run(t, "dig", "@127.0.0.1", "-p", port, "+tries=1", "+retry=0", "+time=2", "+ignore", "+bufsize=4096", "large.test", "TXT")
			m := size.FindStringSubmatch(out)
			if m == nil || !strings.Contains(out, "flags: qr aa rd;") || strings.Count(out, "\tTXT\t") != 15 {
				t.Fatalf("want 15 records and no flag tc:\n%s", out)
			}
			if n, _ := strconv.Atoi(m[1]); n < 4000 || n > 4096 {
				t.Errorf("the answer has %d bytes; want nearly 4096", n)
			}
		}
	})
	t.Run("answers beyond buffer_size", func(t *testing.T) {
		port := lb.port("small")
		out, code := runWith(t, nil, "dig", "@127.0.0.1", "-p", port, "+tries=1", "+retry=0", "+time=1", "+ignore", "+bufsize=4096", "larger1k.test", "TXT")
		if code != 9 {
			t.Errorf("dig: exit code %d, want 9 (no answer)\n%s", code, out)
		}
		if u := lb.frontend("small").UDP; u.DroppedB2C["truncated"] != 1 || u.Datagrams.B2C != 0 {
			t.Errorf("got %+v; want one answer dropped as truncated and none passed on", u)
		}
		// With a buffer the client can tell the server to keep within, the same question is answered, with the flag tc.
		out = run(t, "dig", "@127.0.0.1", "-p", port, "+tries=1", "+retry=0", "+time=2", "+ignore", "+bufsize=1000", "larger1k.test", "TXT")
		if !strings.Contains(out, "flags: qr aa tc rd;") {
			t.Errorf("want a truncated answer:\n%s", out)
		}
	})

	// The kernel tells by ICMP that nobody listens any more, and the question goes to another instance.
	t.Run("an instance is killed and comes back", func(t *testing.T) {
		const n = 2000
		done := make(chan map[string]int)
		go func() { done <- countNames(dig(t, port, slices.Repeat([]string{"who.test TXT"}, n)...)) }()
		before := lb.frontend("test").Accepted
		lbtest.Eventually(t, "dig is at it", func() bool { return lb.frontend("test").Accepted > before+200 })
		b.end(syscall.SIGKILL)
		seen := <-done
		t.Logf("killed in the middle of %d: %v", n, seen)
		// A question that b had in its queue when it was killed is lost with it.
		if got := seen["a"] + seen["b"] + seen["c"]; got < n-1 {
			t.Errorf("%d of %d were answered: %v", got, n, seen)
		}
		// From here on nothing is.
		seen = countNames(dig(t, port, slices.Repeat([]string{"who.test TXT"}, 300)...))
		if seen["a"]+seen["c"] != 300 {
			t.Errorf("with b away: %v, want 300 answers of a and c", seen)
		}
		if lb.backend(b.address).ConnectErrors["connect_refused"] == 0 {
			t.Errorf("no connect error counted for %s", b.address)
		}
		b = startNamed(t, "b", b.port)
		seen = countNames(dig(t, port, slices.Repeat([]string{"who.test TXT"}, 300)...))
		if seen["a"]+seen["b"]+seen["c"] != 300 || seen["b"] < 90 {
			t.Errorf("with b back: %v, want 100 each", seen)
		}
	})
	if drops := lb.frontend("test").UDP; len(drops.DroppedC2B)+len(drops.DroppedB2C) > 0 {
		t.Errorf("dropped %v and %v", drops.DroppedC2B, drops.DroppedB2C)
	}
}

// firstOf is for messages: not all of a long list.
func firstOf(list []string) []string { return list[:min(len(list), 5)] }
