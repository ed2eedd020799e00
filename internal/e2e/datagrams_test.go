//go:build e2e

package e2e

import "fmt"

// balanceDatagrams is balance for UDP: one frontend, "test", on any free port. Its flows end soon, so that the process can.
// udp is what its udp table has beside that.
func balanceDatagrams(udp string, backends ...string) string {
	return datagramFrontend("127.0.0.1:0", udp) + fmt.Sprintf(`
[pools.test]
backends = [%s]
`, addresses(backends...))
}

// datagramFrontend is the frontend of balanceDatagrams at an address.
func datagramFrontend(bind, udp string) string {
	return fmt.Sprintf(`
[frontends.test]
bind = [%q]
protocol = "udp"
pool = "test"
[frontends.test.udp]
unreplied_timeout = "1s"
%s
`, bind, udp)
}
