package admin

import (
	"awe4lb/engine"
	"awe4lb/health"
)

// writeEnvoy writes the series of Envoy's /stats/prometheus that are about layer 4: its names, labels and milliseconds. A
// listener, and the prefix of its TCP or UDP proxy, are a frontend, told by its name as by stat_prefix there; a cluster is a
// pool. rx is what comes from the end that a series is about.
func (s *Server) writeEnvoy(x *exposition, st *status) {
	x.family("envoy_server_live", "gauge", "1 unless the process drains.")
	x.gauge(oneIf(st.State == "running"), "envoy_server_live", "")
	x.family("envoy_server_uptime", "gauge", "Seconds since the start.")
	x.gauge(float64(int64(st.Uptime)), "envoy_server_uptime", "")
	active, draining := 0, 0
	for _, f := range st.Frontends {
		if f.Retired {
			draining++
		} else {
			active++
		}
	}
	x.family("envoy_listener_manager_total_listeners_active", "gauge", "Frontends.")
	x.gauge(float64(active), "envoy_listener_manager_total_listeners_active", "")
	x.family("envoy_listener_manager_total_listeners_draining", "gauge", "Frontends no longer configured that still have sessions.")
	x.gauge(float64(draining), "envoy_listener_manager_total_listeners_draining", "")
	writeEnvoyListeners(x, st)
	writeEnvoyTCP(x, st)
	writeEnvoyUDP(x, st)
	var gone map[string]health.Probes
	if s.o.Health != nil {
		gone = s.o.Health.Gone()
	}
	writeEnvoyClusters(x, st, gone)
}

// envoyFrontends returns what writes a family of the frontends that are wanted, and the same for counters.
func envoyFrontends(x *exposition, st *status, label string, wanted func(f *frontendStatus) bool) (each func(name, kind, help string, write func(f *frontendStatus, name, ls string)),
	counter func(name, help string, value func(f *frontendStatus) uint64)) {
	each = func(name, kind, help string, write func(f *frontendStatus, name, ls string)) {
		x.family(name, kind, help)
		for i := range st.Frontends {
			if f := &st.Frontends[i]; wanted(f) {
				write(f, name, labels(label, f.Name))
			}
		}
	}
	counter = func(name, help string, value func(f *frontendStatus) uint64) {
		each(name, "counter", help, func(f *frontendStatus, name, ls string) { x.count(value(f), name, ls) })
	}
	return each, counter
}

func isTCP(f *frontendStatus) bool { return f.UDP == nil }

func isUDP(f *frontendStatus) bool { return f.UDP != nil }

func ended(f *frontendStatus) (n uint64) {
	for _, by := range f.stats.Ended {
		n += by
	}
	return n
}

func writeEnvoyListeners(x *exposition, st *status) {
	each, counter := envoyFrontends(x, st, "envoy_listener_address", isTCP)
	counter("envoy_listener_downstream_cx_total", "Clients accepted.", func(f *frontendStatus) uint64 { return f.Accepted })
	each("envoy_listener_downstream_cx_active", "gauge", "Sessions open now.", func(f *frontendStatus, name, ls string) { x.gauge(float64(f.Open), name, ls) })
	counter("envoy_listener_downstream_cx_destroy", "Sessions ended.", ended)
	counter("envoy_listener_downstream_cx_overflow", "Clients turned away by a limit.", func(f *frontendStatus) uint64 {
		return f.stats.Ended[engine.Limit] + f.stats.Ended[engine.SourceLimit] + f.stats.Ended[engine.RateLimit]
	})
	each("envoy_listener_downstream_cx_length_ms", "histogram", "How long sessions lasted.",
		func(f *frontendStatus, name, ls string) { x.scaled(&f.stats.Duration, 1000, name, ls) })
	counter("envoy_listener_no_filter_chain_match", "Clients whose name no route or certificate has.", func(f *frontendStatus) uint64 { return f.stats.Ended[engine.UnknownName] })
	_, secure := envoyFrontends(x, st, "envoy_listener_address", func(f *frontendStatus) bool { return f.TLS != nil })
	secure("envoy_listener_ssl_handshake", "TLS handshakes done.", func(f *frontendStatus) (n uint64) {
		for _, by := range f.stats.Handshakes {
			n += by
		}
		return n
	})
	secure("envoy_listener_ssl_connection_error", "TLS handshakes that failed.", func(f *frontendStatus) uint64 { return f.stats.HandshakesFailed })
	secure("envoy_listener_ssl_session_reused", "TLS handshakes that resumed a session.", func(f *frontendStatus) uint64 { return f.stats.Resumed })
}

func writeEnvoyTCP(x *exposition, st *status) {
	_, counter := envoyFrontends(x, st, "envoy_tcp_prefix", isTCP)
	counter("envoy_tcp_downstream_cx_total", "Clients accepted.", func(f *frontendStatus) uint64 { return f.Accepted })
	counter("envoy_tcp_downstream_cx_no_route", "Clients that no route matched.", func(f *frontendStatus) uint64 { return f.stats.Ended[engine.NoRoute] })
	counter("envoy_tcp_downstream_cx_rx_bytes_total", "Bytes from clients.", func(f *frontendStatus) uint64 { return f.Bytes.C2B })
	counter("envoy_tcp_downstream_cx_tx_bytes_total", "Bytes to clients.", func(f *frontendStatus) uint64 { return f.Bytes.B2C })
	counter("envoy_tcp_idle_timeout", "Sessions ended by idle_timeout.", func(f *frontendStatus) uint64 { return f.stats.Ended[engine.IdleTimeout] })
	counter("envoy_tcp_max_downstream_connection_duration", "Sessions ended by max_lifetime.", func(f *frontendStatus) uint64 { return f.stats.Ended[engine.MaxLifetime] })
}

func writeEnvoyUDP(x *exposition, st *status) {
	each, counter := envoyFrontends(x, st, "envoy_udp_prefix", isUDP)
	counter("envoy_udp_downstream_sess_total", "Flows begun.", func(f *frontendStatus) uint64 { return f.Accepted })
	each("envoy_udp_downstream_sess_active", "gauge", "Flows open now.", func(f *frontendStatus, name, ls string) { x.gauge(float64(f.Open), name, ls) })
	counter("envoy_udp_downstream_sess_no_route", "Datagrams that no route matched.", func(f *frontendStatus) uint64 { return f.stats.Dropped[engine.ToBackend][engine.DropNoRoute] })
	counter("envoy_udp_downstream_sess_rx_bytes", "Bytes from clients.", func(f *frontendStatus) uint64 { return f.Bytes.C2B })
	counter("envoy_udp_downstream_sess_tx_bytes", "Bytes to clients.", func(f *frontendStatus) uint64 { return f.Bytes.B2C })
	counter("envoy_udp_downstream_sess_rx_datagrams", "Datagrams from clients.", func(f *frontendStatus) uint64 { return f.UDP.Datagrams.C2B })
	counter("envoy_udp_downstream_sess_tx_datagrams", "Datagrams to clients.", func(f *frontendStatus) uint64 { return f.UDP.Datagrams.B2C })
	counter("envoy_udp_downstream_sess_rx_errors", "Datagrams from clients that could not be read whole.", func(f *frontendStatus) uint64 {
		d := &f.stats.Dropped[engine.ToBackend]
		return d[engine.DropTruncated] + d[engine.DropReceiveQueue]
	})
	counter("envoy_udp_downstream_sess_tx_errors", "Datagrams to clients that could not be sent.", func(f *frontendStatus) uint64 {
		d := &f.stats.Dropped[engine.ToClient]
		return d[engine.DropUnreachable] + d[engine.DropTooBig] + d[engine.DropSendQueue]
	})
	counter("envoy_udp_idle_timeout", "Flows ended by a timeout.", func(f *frontendStatus) uint64 {
		return f.stats.Ended[engine.IdleTimeout] + f.stats.Ended[engine.Unreplied]
	})
}

func writeEnvoyClusters(x *exposition, st *status, gone map[string]health.Probes) {
	totals := st.totals()
	each := func(name, kind, help string, write func(p *poolStatus, t *engine.BackendStats, name, ls string)) {
		x.family(name, kind, help)
		for i, t := range totals {
			write(&st.Pools[i], t, name, labels("envoy_cluster_name", st.Pools[i].Name))
		}
	}
	counter := func(name, help string, value func(t *engine.BackendStats) uint64) {
		each(name, "counter", help, func(_ *poolStatus, t *engine.BackendStats, name, ls string) { x.count(value(t), name, ls) })
	}
	sum := func(name, help string, value func(b *backendStatus) float64) {
		each(name, "gauge", help, func(p *poolStatus, _ *engine.BackendStats, name, ls string) {
			n := 0.0
			for i := range p.Backends {
				n += value(&p.Backends[i])
			}
			x.gauge(n, name, ls)
		})
	}
	in := func(states ...string) func(b *backendStatus) float64 {
		return func(b *backendStatus) float64 {
			for _, state := range states {
				if b.State == state {
					return 1
				}
			}
			return 0
		}
	}
	probes := func(name, help string, value func(p *health.Probes) uint64) {
		each(name, "counter", help, func(p *poolStatus, _ *engine.BackendStats, name, ls string) {
			all := gone[p.Name]
			for _, b := range p.Backends {
				if h := b.Health; h != nil {
					all.Good += h.Good
					all.Bad += h.Bad
					all.Unknown += h.Unknown
				}
			}
			x.count(value(&all), name, ls)
		})
	}
	counter("envoy_cluster_upstream_cx_total", "Connections established, and flows given.", func(t *engine.BackendStats) uint64 { return t.Sessions })
	sum("envoy_cluster_upstream_cx_active", "Sessions and flows open now.", func(b *backendStatus) float64 { return float64(b.Open) })
	counter("envoy_cluster_upstream_cx_connect_fail", "Failed attempts to connect.", failures)
	counter("envoy_cluster_upstream_cx_connect_timeout", "Those that took longer than connect_timeout.", func(t *engine.BackendStats) uint64 { return t.ConnectErrors[engine.ConnectTimeout] })
	each("envoy_cluster_upstream_cx_connect_ms", "histogram", "Time to connect.",
		func(_ *poolStatus, t *engine.BackendStats, name, ls string) { x.scaled(&t.Connect, 1000, name, ls) })
	counter("envoy_cluster_upstream_cx_rx_bytes_total", "Bytes from backends.", func(t *engine.BackendStats) uint64 { return t.Bytes[engine.ToClient] })
	counter("envoy_cluster_upstream_cx_tx_bytes_total", "Bytes to backends.", func(t *engine.BackendStats) uint64 { return t.Bytes[engine.ToBackend] })
	each("envoy_cluster_upstream_cx_none_healthy", "counter", "Sessions for which no backend was usable.",
		func(p *poolStatus, _ *engine.BackendStats, name, ls string) { x.count(p.NoBackend, name, ls) })
	each("envoy_cluster_upstream_cx_overflow", "counter", "Sessions for which there was no place under max_connections.",
		func(p *poolStatus, _ *engine.BackendStats, name, ls string) {
			x.count(p.PoolLimit+p.BackendLimit, name, ls)
		})
	counter("envoy_cluster_udp_sess_rx_datagrams", "Datagrams from backends.", func(t *engine.BackendStats) uint64 { return t.Datagrams[engine.ToClient] })
	counter("envoy_cluster_udp_sess_tx_datagrams", "Datagrams to backends.", func(t *engine.BackendStats) uint64 { return t.Datagrams[engine.ToBackend] })
	sum("envoy_cluster_membership_total", "Backends.", func(*backendStatus) float64 { return 1 })
	sum("envoy_cluster_membership_healthy", "Backends that are up.", in("up"))
	sum("envoy_cluster_membership_excluded", "Backends whose first checks are not over.", func(b *backendStatus) float64 { return oneIf(b.Health != nil && b.Health.State == "checking") })
	sum("envoy_cluster_health_check_healthy", "Backends that are not down by their checks.", func(b *backendStatus) float64 { return oneIf(b.Health != nil && b.Health.State == "up") })
	probes("envoy_cluster_health_check_attempt", "Probes.", func(p *health.Probes) uint64 { return p.Good + p.Bad + p.Unknown })
	probes("envoy_cluster_health_check_success", "Good probes.", func(p *health.Probes) uint64 { return p.Good })
	probes("envoy_cluster_health_check_failure", "Bad probes.", func(p *health.Probes) uint64 { return p.Bad })
	probes("envoy_cluster_health_check_network_failure", "Probes that could not ask.", func(p *health.Probes) uint64 { return p.Unknown })
	sum("envoy_cluster_outlier_detection_ejections_active", "Backends ejected now.", in("ejected"))
	counter("envoy_cluster_outlier_detection_ejections_enforced_total", "Ejections.", func(t *engine.BackendStats) uint64 { return t.Ejections })
}
