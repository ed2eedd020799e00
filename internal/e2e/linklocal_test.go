//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Two links between two namespaces, with the same link-local addresses on both, as routers are configured: fe80::1 is the
// balancer and fe80::c the client. A wildcard listener has to answer from the address that
// was asked, on the link it was asked on, and two clients that differ by nothing but their link are two flows.
func TestLinkLocalAndWildcard(t *testing.T) {
	balancer, client := newNamespace(t, "balancer"), newNamespace(t, "client")
	for _, link := range []string{"eth0", "eth1"} {
		balancer.ip(t, fmt.Sprintf("link add name %s type veth peer name %s netns %s", link, link, client))
		for ns, address := range map[namespace]string{balancer: "fe80::1", client: "fe80::c"} {
			ns.ip(t, "link set dev "+link+" addrgenmode none")
			ns.ip(t, "addr add "+address+"/64 dev "+link+" nodad")
			ns.ip(t, "link set dev "+link+" up")
		}
	}
	for _, a := range []string{"fd00:a::1/64", "fd00:a::2/64", "10.3.0.1/24", "10.3.0.2/24"} {
		balancer.ip(t, "addr add "+a+" dev eth0"+nodad(a))
	}
	for _, a := range []string{"fd00:a::c/64", "10.3.0.12/24"} {
		client.ip(t, "addr add "+a+" dev eth0"+nodad(a))
	}

	backend := balancer.listen(t, "127.0.0.1:0")
	echoFrom(t, backend)
	behind := client.listen(t, "[fe80::c%eth1]:9000") // a backend may be link-local too
	echoFrom(t, behind)
	const flows = `udp = { idle_timeout = "2s", unreplied_timeout = "1s" }`
	lb := balancer.start(t, fmt.Sprintf(`
[frontends.any]
bind = [":5300"]
protocol = "udp"
pool = "test"
%[1]s
[frontends.one]
bind = ["[fe80::1%%eth1]:5301"]
protocol = "udp"
pool = "behind"
%[1]s
[pools.test]
backends = [%[2]s]
[pools.behind]
backends = [{ address = "[fe80::c%%eth1]:9000" }]
`, flows, addresses(backend.LocalAddr().String())))

	t.Run("answers come from the address that was asked", func(t *testing.T) {
		for _, test := range []struct{ client, asked string }{
			{"[fe80::c%eth0]:0", "[fe80::1%eth0]:5300"},
			{"[fe80::c%eth1]:0", "[fe80::1%eth1]:5300"},
			{"[fd00:a::c]:0", "[fd00:a::1]:5300"},
			{"[fd00:a::c]:0", "[fd00:a::2]:5300"},
			{"10.3.0.12:0", "10.3.0.1:5300"},
			{"10.3.0.12:0", "10.3.0.2:5300"},
			{"[fe80::c%eth1]:0", "[fe80::1%eth1]:5301"},
		} {
			asked := netip.MustParseAddrPort(test.asked)
			got, from := exchange(t, client.listen(t, test.client), asked, "hello")
			if from != asked || !strings.HasSuffix(got, " hello") {
				t.Errorf("%s asked %v: %q from %v", test.client, asked, got, from)
			}
		}
	})

	// The same socket asks two addresses of the balancer: two flows, answered apart.
	t.Run("one client, two of our addresses", func(t *testing.T) {
		for _, pair := range [][2]string{{"[fd00:a::1]:5300", "[fd00:a::2]:5300"}, {"10.3.0.1:5300", "10.3.0.2:5300"}} {
			bind := "[fd00:a::c]:0"
			if netip.MustParseAddrPort(pair[0]).Addr().Is4() {
				bind = "10.3.0.12:0"
			}
			c := client.listen(t, bind)
			var sources []string
			for i := range 6 {
				asked := netip.MustParseAddrPort(pair[i%2])
				got, from := exchange(t, c, asked, "hello")
				source, _, _ := strings.Cut(got, " ")
				if from != asked || i > 1 && source != sources[i%2] {
					t.Errorf("asked %v: %q from %v", asked, got, from)
				}
				sources = append(sources, source)
			}
			if sources[0] == sources[1] {
				t.Errorf("%s and %s are the same flow", pair[0], pair[1])
			}
		}
	})

	t.Run("the same client address on both links", func(t *testing.T) {
		one, other := client.listen(t, "[fe80::c%eth0]:7000"), client.listen(t, "[fe80::c%eth1]:7000")
		to0, to1 := netip.MustParseAddrPort("[fe80::1%eth0]:5300"), netip.MustParseAddrPort("[fe80::1%eth1]:5300")
		for i := range 20 {
			text := fmt.Sprintf("to both, %d", i)
			// other has its answer only after one has asked too.
			if _, err := other.WriteToUDPAddrPort([]byte("1 "+text), to1); err != nil {
				t.Fatal(err)
			}
			got0, from0 := exchange(t, one, to0, "0 "+text)
			b := make([]byte, 2048)
			_ = other.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, from1, err := other.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatalf("the second link's answer: %v", err)
			}
			got1 := string(b[:n])
			if !strings.HasSuffix(got0, "0 "+text) || !strings.HasSuffix(got1, "1 "+text) || from0 != to0 || from1 != to1 {
				t.Fatalf("got %q from %v on eth0 and %q from %v on eth1", got0, from0, got1, from1)
			}
			if source0, source1 := strings.Fields(got0)[0], strings.Fields(got1)[0]; source0 == source1 {
				t.Fatalf("both are one flow, %s", source0)
			}
		}
	})
	for _, name := range []string{"any", "one"} {
		if f := lb.frontend(name); dropsOf(f) > 0 {
			t.Errorf("%s dropped %v and %v", name, f.UDP.DroppedC2B, f.UDP.DroppedB2C)
		}
	}
}

// nodad makes an IPv6 address usable at once.
func nodad(address string) string {
	if strings.Contains(address, ":") {
		return " nodad"
	}
	return ""
}
