//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

const anyIPPrefix = "10.200.0.0/16"

func anyIPConfig(backend string) string {
	return datagramFrontend("127.0.0.1:5300", fmt.Sprintf("idle_timeout = \"1m\"\nshared_source = [%q]", anyIPPrefix)) +
		fmt.Sprintf("[pools.test]\nbackends = [%s]\n", addresses(backend))
}

// 40,000 clients, more than a source address has ports, each asks twice. Every one gets its own answers, the backend sees
// each as an address and port of its own, the same both times, and awe4lb opens no descriptor for any of them.
func TestAnyIP(t *testing.T) {
	ns := newNamespace(t, "anyip")
	ns.ip(t, "route add local "+anyIPPrefix+" dev lo")
	ns.ip(t, "route add local 10.100.0.0/16 dev lo") // the clients
	backend := ns.listen(t, "127.0.0.1:0")
	echoFrom(t, backend)
	lb := ns.start(t, anyIPConfig(backend.LocalAddr().String()))
	c := ns.listen(t, "0.0.0.0:7000")
	s := sourcesOf(t, c, netip.MustParseAddr("10.100.0.1"), "127.0.0.1:5300")

	const clients, atOnce = 40000, 100
	prefix := netip.MustParsePrefix(anyIPPrefix)
	seen := make([]netip.AddrPort, clients)
	files := 0
	b := make([]byte, 2048)
	for round := range 2 {
		began := time.Now()
		text := func(i int) []byte { return fmt.Appendf(nil, "client %d round %d", i, round) }
		for first := 0; first < clients; first += atOnce {
			if err := s.send(first, atOnce, text); err != nil {
				t.Fatal(err)
			}
			for range atOnce {
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				i, answer, err := s.receive(b)
				if err != nil {
					t.Fatalf("round %d, clients from %d: %v", round, first, err)
				}
				from, rest, _ := strings.Cut(string(answer), " ")
				if i < first || i >= first+atOnce || rest != string(text(i)) {
					t.Fatalf("client %d got %q", i, answer)
				}
				source, err := netip.ParseAddrPort(from)
				if err != nil || !prefix.Contains(source.Addr()) {
					t.Fatalf("the backend saw client %d as %s; want an address of %s", i, from, prefix)
				}
				if round == 1 && seen[i] != source {
					t.Fatalf("the backend saw client %d as %v, then as %v", i, seen[i], source)
				}
				seen[i] = source
			}
			if files == 0 && first > 10*atOnce { // by then each shard has its socket
				files = filesOf(t, lb.cmd.Process.Pid)
			}
		}
		t.Logf("round %d: %.0f clients a second", round, clients/time.Since(began).Seconds())
		if n := filesOf(t, lb.cmd.Process.Pid); n > files+2 { // the admin's client comes and goes
			t.Errorf("%d descriptors after round %d, %d at its beginning", n, round, files)
		}
	}
	distinct := map[netip.AddrPort]bool{}
	for _, a := range seen {
		distinct[a] = true
	}
	if len(distinct) != clients {
		t.Errorf("the backend saw %d sources for %d clients", len(distinct), clients)
	}
	f := lb.frontend("test")
	if f.Open != clients || f.Accepted != clients || dropsOf(f) > 0 {
		t.Errorf("%d flows made, %d open, %d datagrams dropped; want %d and no drop", f.Accepted, f.Open, dropsOf(f), clients)
	}
	t.Logf("%d flows with %d descriptors and %d kB", f.Open, filesOf(t, lb.cmd.Process.Pid), memoryOf(t, lb.cmd.Process.Pid).rss)
}

// Without the route the addresses are not this host's, and the error has the command.
func TestAnyIPWithoutRoute(t *testing.T) {
	said := newNamespace(t, "noroute").refuse(t, anyIPConfig("127.0.0.1:9"))
	for _, want := range []string{"frontends.test.udp.shared_source", "ip route add local " + anyIPPrefix + " dev lo"} {
		if !strings.Contains(said, want) {
			t.Errorf("the error does not have %q", want)
		}
	}
}

// A reload is refused for the same reason, and accepted once the route is there.
func TestAnyIPRouteComesLater(t *testing.T) {
	ns := newNamespace(t, "later")
	backend := ns.listen(t, "127.0.0.1:0")
	echoFrom(t, backend)
	without := strings.Replace(anyIPConfig(backend.LocalAddr().String()), "shared_source", "#", 1)
	lb := ns.start(t, without)
	lb.edit(anyIPConfig(backend.LocalAddr().String()))
	if err := lb.reload(); err == nil || !strings.Contains(err.Error(), "ip route add local") {
		t.Errorf("a reload without the route: %v", err)
	}
	lb.expectError("reload refused")
	client := ns.listen(t, "127.0.0.1:0")
	to := netip.MustParseAddrPort("127.0.0.1:5300")
	if got, _ := exchange(t, client, to, "x"); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("the running configuration answers %q", got)
	}
	ns.ip(t, "route add local "+anyIPPrefix+" dev lo")
	if err := lb.reload(); err != nil {
		t.Fatal(err)
	}
	lbtest.Eventually(t, "a new flow has an address of the prefix", func() bool {
		got, _ := exchange(t, ns.listen(t, "127.0.0.1:0"), to, "x")
		return strings.HasPrefix(got, "10.200.")
	})
}
