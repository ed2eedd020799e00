package runner

import (
	"fmt"
	"strings"
	"time"
)

// The same systems in front of the UDP echo: one frontend, one backend, flows that live until they have been idle for
// Place.FlowTimeout. haproxy does not relay UDP of any kind (only syslog and QUIC), so it has no place here.

// UnrepliedTimeout is how long awe4lb keeps a flow whose backend never answered.
const UnrepliedTimeout = 5 * time.Second

func awe4lbUDPConfig(p Place) string {
	guards, tables, standby := "", "", ""
	rate := 0
	if p.Guarded {
		_, port, _ := strings.Cut(p.HTTPBackend[0], ":")
		guards, tables = guardFrontend(p, "bench"), guardPoolTables("bench", port)
		for _, b := range p.HTTPBackend[1:] {
			standby += fmt.Sprintf(", { address = %q, priority = 1 }", b)
		}
		rate = 1_000_000
	}
	return fmt.Sprintf(`[log]
level = "warn"
[admin]
bind = %q
[engine]
shards = %d
[frontends.bench]
bind = [%q]
protocol = "udp"
pool = "bench"
[frontends.bench.udp]
buffer_size = 16384
idle_timeout = %q
unreplied_timeout = %q
max_flows = %d
new_flow_rate = %d
%s[pools.bench]
policy = "roundrobin"
backends = [{ address = %q }%s]
%s`, p.Admin, p.Workers, p.UDP, p.FlowTimeout, min(UnrepliedTimeout, p.FlowTimeout), p.MaxFlows, rate, guards, p.UDPBackend, standby, tables)
}

// nginxUDPConfig leaves proxy_responses unset: a session then lives until proxy_timeout, as a flow should. Each session
// takes two connections of a worker, and either worker may get most of them.
func nginxUDPConfig(p Place) string {
	return nginxHead(p) + fmt.Sprintf(`events { worker_connections %d; }
stream {
    access_log off;
    proxy_timeout %d;
    server {
        listen %s udp reuseport;
        proxy_pass %s;
    }
}
`, 2*p.MaxConns, int(p.FlowTimeout.Seconds()), p.UDP, p.UDPBackend)
}

func gobetweenUDPConfig(p Place) string {
	return fmt.Sprintf(`[logging]
level = "error"
[api]
enabled = false
[servers.bench]
bind = %q
protocol = "udp"
balance = "roundrobin"
max_connections = %d
client_idle_timeout = %q
backend_idle_timeout = %q
[servers.bench.udp]
max_requests = 0
max_responses = 0
[servers.bench.discovery]
kind = "static"
static_list = [%q]
`, p.UDP, p.MaxFlows, p.FlowTimeout, p.FlowTimeout, p.UDPBackend)
}
