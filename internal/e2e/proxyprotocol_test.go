//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// TestProxyProtocol: haproxy tells us who the client is, we tell haproxy, and that tells nginx; in both versions.
func TestProxyProtocol(t *testing.T) {
	const client = "127.0.0.77"
	w := startWebAs(t, "w", " proxy_protocol", `
				location / { default_type text/plain; return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port\n"; }`)
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			send := map[string]string{"v1": "send-proxy", "v2": "send-proxy-v2"}[version]
			behind, before := lbtest.Free(t), lbtest.Free(t)
			startHaproxy(t, behind, fmt.Sprintf(`
listen behind
	bind %s accept-proxy
	server w %s %s
`, behind, w.address, send))
			lb := start(t, fmt.Sprintf(`[frontends.f]
bind = ["127.0.0.1:0"]
pool = "p"
proxy_protocol = { accept = "required", trusted = ["127.0.0.1"] }
[pools.p]
send_proxy = %q
backends = [{ address = %q }]
`, version, behind))
			startHaproxy(t, before, fmt.Sprintf(`
listen before
	bind %s
	server lb %s %s
`, before, lb.address("f"), send))
			port := lbtest.FreePort(t)
			answer := run(t, "curl", "-sS", "--interface", client, "--local-port", fmt.Sprint(port), "http://"+before+"/")
			_, frontPort, _ := strings.Cut(before, ":")
			if want := fmt.Sprintf("%s %d %s\n", client, port, frontPort); answer != want {
				t.Errorf("nginx was told %q; want %q", answer, want)
			}
			if out, code := runWith(t, nil, "curl", "-sS", "--interface", client, "http://"+lb.address("f")+"/"); code != 56 && code != 52 && code != 7 {
				t.Errorf("a client that comes around the proxy: %d %q", code, out)
			}
		})
	}
}

// startHaproxy starts one in mode tcp that listens at address.
func startHaproxy(t *testing.T, address, sections string) {
	t.Helper()
	dir := openDir(t)
	file := write(t, dir, "haproxy.cfg", "defaults\n\tmode tcp\n\ttimeout connect 5s\n\ttimeout client 30s\n\ttimeout server 30s\n"+sections)
	p := launch(t, nil, find(t, "haproxy"), "-db", "-f", file)
	p.waitFor("haproxy listens", func() bool { return listens(address) })
}
