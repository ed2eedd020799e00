//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// What transparent.sh makes.
const (
	spaceClient, spaceBalancer, spaceBackend namespace = "awe4lb-client", "awe4lb-balancer", "awe4lb-backend"
)

// transparentUp makes the namespaces of docs/udp-transparent.md. They go with the test.
func transparentUp(t *testing.T, variant ...string) {
	t.Helper()
	needRoot(t, "only root makes network namespaces")
	run(t, "./transparent.sh", append([]string{"up"}, variant...)...)
	t.Cleanup(func() { run(t, "./transparent.sh", "down") })
}

// transparentConfig has a frontend and a pool for each family, as clients of one reach no backends of the other.
const transparentConfig = `
[frontends.four]
bind = ["10.1.0.1:53"]
protocol = "udp"
pool = "four"
udp = { transparent = true, idle_timeout = "2s", unreplied_timeout = "1s" }
[pools.four]
backends = [{ address = "10.2.0.2:53" }]

[frontends.six]
bind = ["[fd00:1::1]:53"]
protocol = "udp"
pool = "six"
udp = { transparent = true, idle_timeout = "2s", unreplied_timeout = "1s" }
[pools.six]
backends = [{ address = "[fd00:2::2]:53" }]
`

// The backend sees the client, and its answer reaches the client from the balancer's address.
func TestTransparent(t *testing.T) {
	for _, variant := range []string{"a", "b"} {
		t.Run("variant "+variant, func(t *testing.T) {
			transparentUp(t, variant)
			for _, backend := range []string{"10.2.0.2:53", "[fd00:2::2]:53"} {
				echoFrom(t, spaceBackend.listen(t, backend))
			}
			lb := spaceBalancer.start(t, transparentConfig)
			for _, family := range []struct{ name, client, frontend string }{
				{"four", "10.1.0.2", "10.1.0.1:53"},
				{"six", "fd00:1::2", "[fd00:1::1]:53"},
			} {
				t.Run(family.name, func(t *testing.T) {
					frontend := netip.MustParseAddrPort(family.frontend)
					const clients, datagrams = 50, 5
					for i := range clients {
						client := netip.AddrPortFrom(netip.MustParseAddr(family.client), uint16(7000+i))
						c := spaceClient.listen(t, client.String())
						for j := range datagrams {
							text := fmt.Sprintf("%d of %d", j, i)
							got, from := exchange(t, c, frontend, text)
							if want := fmt.Sprintf("%v %s", client, text); got != want || from != frontend {
								t.Fatalf("got %q from %v; want %q from %v", got, from, want, frontend)
							}
						}
					}
					f := lb.frontend(family.name)
					if f.Accepted != clients || f.UDP.Datagrams.B2C != clients*datagrams || dropsOf(f) > 0 {
						t.Errorf("got %+v; want %d flows, %d answers and no drops", f, clients, clients*datagrams)
					}
				})
			}
			lb.flowsEnd()
		})
	}
}

// Answers that come in fragments need one thing more.
func TestTransparentFragments(t *testing.T) {
	for _, variant := range []string{"a", "b"} {
		t.Run("variant "+variant, func(t *testing.T) {
			transparentUp(t, variant, "fragments")
			for _, backend := range []string{"10.2.0.2:53", "[fd00:2::2]:53"} {
				echoFrom(t, spaceBackend.listen(t, backend))
			}
			lb := spaceBalancer.start(t, transparentConfig)
			for client, frontend := range map[string]string{"10.1.0.2:7000": "10.1.0.1:53", "[fd00:1::2]:7000": "[fd00:1::1]:53"} {
				c := spaceClient.listen(t, client)
				for _, size := range []int{1400, 1500, 3000, 8000, 16000} {
					text := strings.Repeat("x", size)
					if got, _ := exchange(t, c, netip.MustParseAddrPort(frontend), text); got != client+" "+text {
						t.Errorf("%s, %d bytes: got %d that are not those", client, size, len(got))
					}
				}
			}
			lb.flowsEnd()
		})
	}
}

// The error has the commands that are missing. A start tells one mistake of the host, `awe4lb check` all.
func TestTransparentWithoutRule(t *testing.T) {
	transparentUp(t, "none")
	four, six, _ := strings.Cut(transparentConfig, "\n\n")
	said := spaceBalancer.refuse(t, four) + spaceBalancer.refuse(t, six)
	for _, want := range []string{
		"frontends.four.udp.transparent", "ip route add local default dev lo table 100", "ip rule add iif INTERFACE ipproto udp sport PORT lookup 100",
		"frontends.six.udp.transparent", "ip -6 route add local default dev lo table 100", "ip -6 rule add iif INTERFACE ipproto udp sport PORT lookup 100",
		"docs/udp-transparent.md",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the error does not have %q", want)
		}
	}
}

func TestTransparentWithoutCapability(t *testing.T) {
	transparentUp(t, "a")
	const drop = "-net_admin,-net_raw" // either lets a socket be transparent
	said := spaceBalancer.refuse(t, transparentConfig, find(t, "setpriv"), "--bounding-set", drop, "--inh-caps", drop)
	if !strings.Contains(said, "CAP_NET_ADMIN") || !strings.Contains(said, "frontends.four.udp.transparent") {
		t.Errorf("the error names neither the capability nor the frontend")
	}
}

// A process that gives up root keeps what it needs to be transparent.
func TestTransparentGivesUpRoot(t *testing.T) {
	transparentUp(t, "a")
	echoFrom(t, spaceBackend.listen(t, "10.2.0.2:53"))
	echoFrom(t, spaceBackend.listen(t, "[fd00:2::2]:53"))
	lb := spaceBalancer.start(t, "[engine]\nuser = \"nobody\"\n"+transparentConfig)
	for _, family := range []struct{ client, frontend string }{{"10.1.0.2:7000", "10.1.0.1:53"}, {"[fd00:1::2]:7000", "[fd00:1::1]:53"}} {
		got, _ := exchange(t, spaceClient.listen(t, family.client), netip.MustParseAddrPort(family.frontend), "hello")
		if want := family.client + " hello"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	lb.flowsEnd()
}
