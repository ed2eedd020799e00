package admin

import (
	"math"
	"syscall"
	"time"

	"awe4lb/engine"
)

// The names, types, labels and scopes of HAProxy's own exporter (addons/promex), as far as there is something to say at
// layer 4. A proxy with the role of a frontend is a frontend, one with that of a backend is a pool, and its servers are the
// pool's backends. UDP flows count as sessions. What awe4lb does not know, such as maxima since the start, is left out; where
// only one server of several lacks something it is NaN, as there.
var haproxySections = []section{
	{"global", (*Server).writeHaproxyProcess},
	{"frontend", func(_ *Server, x *exposition, st *status) { writeHaproxyFrontends(x, st) }},
	{"listener", func(*Server, *exposition, *status) {}}, // only with its option socket-stats, which nothing here is like
	{"backend", func(_ *Server, x *exposition, st *status) { writeHaproxyBackends(x, st) }},
	{"server", func(_ *Server, x *exposition, st *status) { writeHaproxyServers(x, st) }},
	{"sticktable", func(*Server, *exposition, *status) {}},
}

func (s *Server) writeHaproxyProcess(x *exposition, st *status) {
	one := func(name, kind, help string, v float64, ls string) {
		x.family("haproxy_process_"+name, kind, help)
		x.gauge(v, "haproxy_process_"+name, ls)
	}
	var spliced, dropped uint64
	for _, sh := range st.Shards {
		spliced += sh.SplicedBytes
		dropped += sh.AccessDrops
	}
	var files syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)

	one("nbthread", "gauge", "Shards.", float64(len(st.Shards)), "")
	one("uptime_seconds", "gauge", "Seconds since the start.", math.Floor(st.Uptime), "")
	one("start_time_seconds", "gauge", "When the process started.", float64(s.o.Started.Unix()), "")
	one("max_fds", "gauge", "Descriptors the process may have.", float64(files.Cur), "")
	one("max_connections", "gauge", "Sessions the process admits at once.", float64(st.Sessions.Limit), "")
	one("current_connections", "gauge", "Sessions open now.", float64(st.Sessions.Open), "")
	one("connections_total", "counter", "Clients accepted.", float64(st.accepted), "")
	one("ssl_connections_total", "counter", "TLS handshakes with clients.", float64(st.secured), "")
	one("bytes_out_total", "counter", "Bytes to clients.", float64(st.toClients), "")
	one("spliced_bytes_out_total", "counter", "Bytes moved in the kernel, both directions.", float64(spliced), "")
	one("dropped_logs_total", "counter", "Access log lines lost.", float64(dropped), "")
	one("listeners", "gauge", "Listeners.", float64(listenersOf(st)), "")
	one("stopping", "gauge", "1 while the process drains.", oneIf(st.State == "draining"), "")
	one("build_info", "gauge", "1, labelled with the version.", 1, labels("version", s.o.Version))
}

func listenersOf(st *status) (n int) {
	for _, f := range st.Frontends {
		n += len(f.Listeners)
	}
	return n
}

func writeHaproxyFrontends(x *exposition, st *status) {
	each := func(name, kind, help string, value func(f *frontendStatus) float64) {
		name = "haproxy_frontend_" + name
		x.family(name, kind, help)
		for i := range st.Frontends {
			x.gauge(value(&st.Frontends[i]), name, labels("proxy", st.Frontends[i].Name))
		}
	}
	x.family("haproxy_frontend_status", "gauge", "1 for the state that holds.")
	for _, f := range st.Frontends {
		x.states(upOrDown(!f.Retired), []string{"DOWN", "UP"}, "haproxy_frontend_status", labels("proxy", f.Name))
	}
	each("current_sessions", "gauge", "Sessions open now.", func(f *frontendStatus) float64 { return float64(f.Open) })
	each("limit_sessions", "gauge", "Sessions at once at the most.", func(f *frontendStatus) float64 { return float64(f.MaxConnections) })
	each("limit_session_rate", "gauge", "New sessions a second at the most; 0 is no limit.",
		func(f *frontendStatus) float64 { return float64(f.config.ConnectionRate) })
	each("connections_total", "counter", "Clients accepted.",
		func(f *frontendStatus) float64 { return float64(f.Accepted) })
	each("denied_connections_total", "counter", "Clients turned away as they came: access rules and limits.",
		func(f *frontendStatus) float64 { return float64(deniedConnections(f)) })
	each("sessions_total", "counter", "Sessions.", func(f *frontendStatus) float64 { return float64(f.Accepted - deniedConnections(f)) })
	each("denied_sessions_total", "counter", "Clients turned away by what they said first: PROXY header, name, no route.",
		func(f *frontendStatus) float64 {
			return float64(f.stats.Ended[engine.ProxyUntrusted] + f.stats.Ended[engine.UnknownName] + f.stats.Ended[engine.NoRoute])
		})
	each("bytes_in_total", "counter", "Bytes from clients.", func(f *frontendStatus) float64 { return float64(f.Bytes.C2B) })
	each("bytes_out_total", "counter", "Bytes to clients.", func(f *frontendStatus) float64 { return float64(f.Bytes.B2C) })
	each("internal_errors_total", "counter", "Sessions ended for want of descriptors or memory.", func(f *frontendStatus) float64 { return float64(f.stats.Ended[engine.NoResources]) })
}

// deniedConnections are those turned away as soon as they came.
func deniedConnections(f *frontendStatus) uint64 {
	e := &f.stats.Ended
	return e[engine.Denied] + e[engine.Limit] + e[engine.SourceLimit] + e[engine.RateLimit]
}

func upOrDown(up bool) string {
	if up {
		return "UP"
	}
	return "DOWN"
}

// serverStates are the values of state of a server, in HAProxy's order.
var serverStates = []string{"DOWN", "UP", "MAINT", "DRAIN", "NOLB"}

// serverState is what HAProxy calls the state of b.
func serverState(b *backendStatus) string {
	switch b.State {
	case "up":
		return "UP"
	case "maintenance":
		return "MAINT"
	case "drain", "disabled": // there a weight of 0 drains
		return "DRAIN"
	}
	return "DOWN"
}

func writeHaproxyBackends(x *exposition, st *status) {
	proxy, totals := make([]string, len(st.Pools)), st.totals()
	for i := range st.Pools {
		proxy[i] = labels("proxy", st.Pools[i].Name)
	}
	each := func(name, kind, help string, value func(p *poolStatus) float64) {
		name = "haproxy_backend_" + name
		x.family(name, kind, help)
		for i := range st.Pools {
			x.gauge(value(&st.Pools[i]), name, proxy[i])
		}
	}
	total := func(name, help string, value func(t *engine.BackendStats) uint64) {
		name = "haproxy_backend_" + name
		x.family(name, "counter", help)
		for i, t := range totals {
			x.count(value(t), name, proxy[i])
		}
	}
	sum := func(name, kind, help string, value func(b *backendStatus) float64) {
		each(name, kind, help, func(p *poolStatus) (n float64) {
			for i := range p.Backends {
				n += value(&p.Backends[i])
			}
			return n
		})
	}
	x.family("haproxy_backend_status", "gauge", "1 for the state that holds.")
	for i := range st.Pools {
		x.states(upOrDown(anyUp(&st.Pools[i])), []string{"DOWN", "UP"}, "haproxy_backend_status", proxy[i])
	}
	x.family("haproxy_backend_agg_server_status", "gauge", "Backends by state.")
	for i, p := range st.Pools {
		n := map[string]float64{}
		for j := range p.Backends {
			n[serverState(&p.Backends[j])]++
		}
		for _, state := range serverStates {
			x.gauge(n[state], "haproxy_backend_agg_server_status", proxy[i]+","+labels("state", state))
		}
	}
	x.family("haproxy_backend_agg_check_status", "gauge", "Backends by what the last probe found.")
	for i, p := range st.Pools {
		n := map[string]float64{}
		for j := range p.Backends {
			n[checkState(&p.Backends[j])]++
		}
		for _, state := range checkStates {
			x.gauge(n[state], "haproxy_backend_agg_check_status", proxy[i]+","+labels("state", state))
		}
	}
	sum("current_sessions", "gauge", "Sessions open now.", func(b *backendStatus) float64 { return float64(b.Open) })
	total("sessions_total", "Sessions.", func(t *engine.BackendStats) uint64 { return t.Sessions })
	total("bytes_in_total", "Bytes from clients.", func(t *engine.BackendStats) uint64 { return t.Bytes[engine.ToBackend] })
	total("bytes_out_total", "Bytes to clients.", func(t *engine.BackendStats) uint64 { return t.Bytes[engine.ToClient] })
	total("connection_attempts_total", "Attempts to connect.", func(t *engine.BackendStats) uint64 { return t.Sessions + failures(t) })
	total("connection_errors_total", "Failed attempts to connect.", func(t *engine.BackendStats) uint64 { return failures(t) })
	each("retry_warnings_total", "counter", "Attempts beyond a session's first.", func(p *poolStatus) float64 { return float64(p.Retries) })
	each("redispatch_warnings_total", "counter", "Attempts beyond a session's first: each takes another backend.",
		func(p *poolStatus) float64 { return float64(p.Retries) }) // each retry takes another backend
	total("loadbalanced_total", "Sessions given to backends.", func(t *engine.BackendStats) uint64 { return t.Sessions })
	sum("active_servers", "gauge", "Backends of priority 0 that are up.", func(b *backendStatus) float64 { return oneIf(b.State == "up" && b.Priority == 0) })
	sum("backup_servers", "gauge", "Backends of other priorities that are up.", func(b *backendStatus) float64 { return oneIf(b.State == "up" && b.Priority != 0) })
	sum("weight", "gauge", "Weight in force.",
		func(b *backendStatus) float64 { return oneIf(b.State == "up") * float64(b.Weight) })
	x.family("haproxy_backend_connect_time_average_seconds", "gauge", "Average time to connect since the start.")
	for i, t := range totals {
		x.gauge(average(&t.Connect), "haproxy_backend_connect_time_average_seconds", proxy[i])
	}
}

func anyUp(p *poolStatus) bool {
	for _, b := range p.Backends {
		if b.State == "up" {
			return true
		}
	}
	return false
}

// average is over the whole life of the process: HAProxy's is of the last 1,024.
func average(h *engine.Histogram) float64 {
	n := uint64(0)
	for _, c := range h.Counts {
		n += c
	}
	if n == 0 {
		return 0
	}
	return h.Sum / float64(n)
}

func writeHaproxyServers(x *exposition, st *status) {
	var servers []*backendStatus
	var of []string // their labels
	for i := range st.Pools {
		for j := range st.Pools[i].Backends {
			if b := &st.Pools[i].Backends[j]; !st.noMaint || b.State != "maintenance" {
				servers, of = append(servers, b), append(of, labels("proxy", b.Pool, "server", b.Address))
			}
		}
	}
	each := func(name, kind, help string, write func(b *backendStatus, name, ls string)) {
		name = "haproxy_server_" + name
		x.family(name, kind, help)
		for i, b := range servers {
			write(b, name, of[i])
		}
	}
	value := func(name, kind, help string, of func(b *backendStatus) float64) {
		each(name, kind, help, func(b *backendStatus, name, ls string) { x.gauge(of(b), name, ls) })
	}
	checked := func(name, kind, help string, of func(h *healthStatus) float64) {
		value(name, kind, help, func(b *backendStatus) float64 {
			if b.Health == nil {
				return math.NaN()
			}
			return of(b.Health)
		})
	}
	each("status", "gauge", "1 for the state that holds.",
		func(b *backendStatus, name, ls string) { x.states(serverState(b), serverStates, name, ls) })
	value("current_sessions", "gauge", "Sessions open now.", func(b *backendStatus) float64 { return float64(b.Open) })
	value("limit_sessions", "gauge", "Sessions at once at the most.", func(b *backendStatus) float64 {
		if b.MaxConnections == 0 {
			return math.NaN()
		}
		return float64(b.MaxConnections)
	})
	value("sessions_total", "counter", "Sessions.", func(b *backendStatus) float64 { return float64(b.Connected) })
	value("bytes_in_total", "counter", "Bytes from clients.", func(b *backendStatus) float64 { return float64(b.Bytes.C2B) })
	value("bytes_out_total", "counter", "Bytes to clients.", func(b *backendStatus) float64 { return float64(b.Bytes.B2C) })
	value("connection_attempts_total", "counter", "Attempts to connect.",
		func(b *backendStatus) float64 { return float64(b.Connected + failures(b.stats)) })
	value("connection_errors_total", "counter", "Failed attempts to connect.",
		func(b *backendStatus) float64 { return float64(failures(b.stats)) })
	value("loadbalanced_total", "counter", "Sessions given to backends.",
		func(b *backendStatus) float64 { return float64(b.Connected) })
	value("used_connections_current", "gauge", "Sessions open now.", func(b *backendStatus) float64 { return float64(b.Open) })
	value("weight", "gauge", "Weight in force.",
		func(b *backendStatus) float64 { return float64(b.Weight) })
	value("active", "gauge", "1 with priority 0.", func(b *backendStatus) float64 { return oneIf(b.Priority == 0) })
	value("backup", "gauge", "1 with another priority.", func(b *backendStatus) float64 { return oneIf(b.Priority != 0) })
	value("connect_time_average_seconds", "gauge", "Average time to connect since the start.",
		func(b *backendStatus) float64 { return average(&b.stats.Connect) })
	checked("check_failures_total", "counter", "Bad probes.",
		func(h *healthStatus) float64 { return float64(h.Bad) })
	checked("check_up_down_total", "counter", "Times the checks found it down.",
		func(h *healthStatus) float64 { return float64(timesDown(h)) })
	checked("check_last_change_seconds", "gauge", "Seconds since the checks changed their mind.",
		func(h *healthStatus) float64 { return math.Floor(max(0, time.Since(h.Since).Seconds())) })
	each("check_status", "gauge", "What the last probe found.", func(b *backendStatus, name, ls string) {
		if b.Health != nil {
			x.states(checkState(b), checkStates, name, ls)
		}
	})
	each("check_duration_seconds", "gauge", "How long the last probe took.", func(b *backendStatus, name, ls string) {
		if b.Health != nil {
			x.gauge(b.Health.Latency, name, ls)
		}
	})
}

// timesDown returns how often a backend went down: up and down take turns.
func timesDown(h *healthStatus) uint64 {
	if h.State == "down" {
		return (h.Changes + 1) / 2
	}
	return h.Changes / 2
}

// checkStates are the values of state of a check, in HAProxy's order.
var checkStates = []string{"HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "L7OK", "L7OKC", "L7STS",
	"PROCERR", "PROCTOUT", "PROCOK"}

// checkState is what HAProxy would say of the last probe of b: good or bad at the layer that the check is about. "" when there
// was none.
func checkState(b *backendStatus) string {
	if b.Health == nil || b.Health.LastCheck == nil {
		return ""
	}
	good, bad := "L7OK", "L7RSP"
	switch b.Health.Kind {
	case "tcp":
		good, bad = "L4OK", "L4CON"
	case "tls":
		good, bad = "L6OK", "L6RSP"
	case "exec":
		good, bad = "PROCOK", "PROCERR"
	}
	switch b.Health.LastResult {
	case "good":
		return good
	case "bad":
		return bad
	}
	return "SOCKERR" // we could not ask
}
