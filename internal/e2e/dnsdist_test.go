//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// startDnsdist starts a dnsdist that listens at address.
func startDnsdist(t *testing.T, address, config string) *program {
	t.Helper()
	file := write(t, t.TempDir(), "dnsdist.conf", fmt.Sprintf("setLocal(%q)\nsetACL({\"127.0.0.0/8\"})\nsetSecurityPollSuffix(\"\")\n%s", address, config))
	p := launch(t, nil, "dnsdist", "--supervised", "--disable-syslog", "-C", file)
	p.waitFor("dnsdist listens", func() bool { return p.out.has("Listening on "+address) && listens(address) })
	return p
}

// answering is a dnsdist that answers by itself: of which client, from which port, and to which address it was asked, and whether
// it was told an id.
const answering = `
setProxyProtocolACL({"127.0.0.1/32"})
function number(n) return "10.0." .. math.floor(n / 256) .. "." .. n % 256 end
addAction("client.test.", LuaAction(function(dq) return DNSAction.Spoof, dq.remoteaddr:toString() end))
addAction("port.test.", LuaAction(function(dq) return DNSAction.Spoof, number(dq.remoteaddr:getPort()) end))
addAction("asked.test.", LuaAction(function(dq) return DNSAction.Spoof, number(dq.localaddr:getPort()) end))
addAction("id.test.", LuaAction(function(dq)
	local id = dq:getProxyProtocolValues()[5]
	return DNSAction.Spoof, number(id and #id or 0)
end))
addAction(AllRule(), RCodeAction(DNSRCode.REFUSED))
`

// TestProxyProtocolOfDatagrams: dnsdist tells us who the client is, before every datagram and all of them by one socket, and we
// tell the next dnsdist.
func TestProxyProtocolOfDatagrams(t *testing.T) {
	behind, before := lbtest.Free(t), lbtest.Free(t)
	startDnsdist(t, behind, answering)
	// dig may be given any port; named ones are not its.
	lb := start(t, datagramFrontend(lbtest.Free(t), "")+fmt.Sprintf(`
[frontends.test.proxy_protocol]
accept = "required"
trusted = ["127.0.0.1"]
[frontends.direct]
bind = [%q]
protocol = "udp"
pool = "test"
udp = { unreplied_timeout = "1s", idle_timeout = "1s" }
[pools.test]
send_proxy = "v2"
proxy_tlvs = ["unique_id", "crc32c"]
backends = [{ address = %q }]
`, lbtest.Free(t), behind))
	dist := startDnsdist(t, before, fmt.Sprintf("newServer{address=%q, useProxyProtocol=true, sockets=1, checkInterval=1, mustResolve=false}\n", lb.address("test")))
	// Its health checks tell that they are its own.
	dist.waitFor("dnsdist finds us well", func() bool { return dist.out.has("Marking downstream " + lb.address("test") + " as 'up'") })

	ask := func(to, client string, port int, name string) string {
		t.Helper()
		host, toPort, _ := strings.Cut(to, ":")
		return strings.TrimSpace(run(t, "dig", "@"+host, "-p", toPort, "-b", fmt.Sprintf("%s#%d", client, port), "+short", "+tries=1", "+retry=0", name))
	}
	number := func(n int) string { return fmt.Sprintf("10.0.%d.%d", n/256, n%256) }
	for who, to := range map[string]string{"through dnsdist": before, "direct": lb.address("direct")} {
		_, asked, _ := strings.Cut(to, ":")
		askedPort := 0
		_, _ = fmt.Sscan(asked, &askedPort)
		for i := range 2 {
			client, port := fmt.Sprintf("127.0.0.%d", 70+i), lbtest.FreePort(t)
			for name, want := range map[string]string{"client.test": client, "port.test": number(port), "asked.test": number(askedPort), "id.test": number(32)} {
				if got := ask(to, client, port, name); got != want {
					t.Errorf("%s: %s of %s port %d: got %q; want %q", who, name, client, port, got, want)
				}
			}
		}
	}

	// Who comes around dnsdist is not heard.
	c, err := net.Dial("udp", lb.address("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("no header")); err != nil {
		t.Fatal(err)
	}
	lbtest.Eventually(t, "it is counted", func() bool {
		return strings.Contains(string(lb.get("/metrics")), `awe4lb_udp_datagrams_dropped_total{server="test",protocol="udp",direction="c2b",reason="bad_proxy"} 1`)
	})
}
