package admin

import (
	"net"
	"runtime"

	"awe4lb/balancer"
	"awe4lb/engine"
)

// writeGobetween writes the series of gobetween: its names, its labels, and its types, which are all gauges. A server there is
// a frontend here. Its backends are those of a pool, whose name is the value of server: `awe4lb convert` names both alike.
// rx is what comes from backends, tx what goes to them; those of a second are over the last historyStep.
func (s *Server) writeGobetween(x *exposition, st *status) {
	x.family("gobetween_build_info", "gauge", "1, labelled with what is running.")
	x.gauge(1, "gobetween_build_info", labels("version", s.o.Version, "revision", s.o.Revision, "branch", "", "goversion", runtime.Version()))

	pools := map[string]int{} // their backends
	for _, p := range st.Pools {
		pools[p.Name] = len(p.Backends)
	}
	rates := s.last.Load()
	server := func(name, help string, value func(f *frontendStatus) float64) {
		x.family(name, "gauge", help)
		for i := range st.Frontends {
			x.gauge(value(&st.Frontends[i]), name, labels("server", st.Frontends[i].Name))
		}
	}
	server("gobetween_server_count", "Known backends.", func(f *frontendStatus) float64 {
		n := 0
		for name := range poolNames(f) {
			n += pools[name]
		}
		return float64(n)
	})
	server("gobetween_server_active_connections", "Sessions open now.", func(f *frontendStatus) float64 { return float64(f.Open) })
	server("gobetween_server_rx_total", "Bytes from backends.", func(f *frontendStatus) float64 { return float64(f.Bytes.B2C) })
	server("gobetween_server_tx_total", "Bytes to backends.", func(f *frontendStatus) float64 { return float64(f.Bytes.C2B) })
	server("gobetween_server_rx_second", "Bytes from backends per second.", func(f *frontendStatus) float64 { return rates.frontend(f.Name, engine.ToClient) })
	server("gobetween_server_tx_second", "Bytes to backends per second.", func(f *frontendStatus) float64 { return rates.frontend(f.Name, engine.ToBackend) })

	var backends []*backendStatus
	var of []string // their labels
	for i := range st.Pools {
		for j := range st.Pools[i].Backends {
			b := &st.Pools[i].Backends[j]
			host, port := b.Address, "" // of a unix socket
			if !b.of.Address.IsUnix() {
				host, port, _ = net.SplitHostPort(b.Address)
			}
			backends, of = append(backends, b), append(of, labels("server", b.Pool, "host", host, "port", port))
		}
	}
	backend := func(name, help string, value func(b *backendStatus) float64) {
		x.family(name, "gauge", help)
		for i, b := range backends {
			x.gauge(value(b), name, of[i])
		}
	}
	backend("gobetween_backend_active_connections", "Sessions open now.", func(b *backendStatus) float64 { return float64(b.Open) })
	backend("gobetween_backend_refused_connections", "Failed attempts to connect.", func(b *backendStatus) float64 { return float64(failures(b.stats)) })
	backend("gobetween_backend_total_connections", "Connections established.", func(b *backendStatus) float64 { return float64(b.Connected) })
	backend("gobetween_backend_rx_bytes", "Bytes from the backend.", func(b *backendStatus) float64 { return float64(b.Bytes.B2C) })
	backend("gobetween_backend_tx_bytes", "Bytes to the backend.", func(b *backendStatus) float64 { return float64(b.Bytes.C2B) })
	backend("gobetween_backend_rx_second", "Bytes from the backend per second.", func(b *backendStatus) float64 { return rates.backend(b.of, engine.ToClient) })
	backend("gobetween_backend_tx_second", "Bytes to the backend per second.", func(b *backendStatus) float64 { return rates.backend(b.of, engine.ToBackend) })
	backend("gobetween_backend_live", "1 when the backend may be picked, also where nothing checks it.", func(b *backendStatus) float64 { return oneIf(b.State == "up") })
}

// poolNames returns the pools that clients of a frontend may come to.
func poolNames(f *frontendStatus) map[string]bool {
	pools := map[string]bool{f.config.Pool: true}
	for _, r := range f.config.Routes {
		pools[r.Pool] = true
	}
	return pools
}

func (l *lastStep) frontend(name string, direction int) float64 {
	return l.rate(statsOf(l.was.stats.Frontends[name], noFrontendStats).Bytes[direction], statsOf(l.now.stats.Frontends[name], noFrontendStats).Bytes[direction])
}

func (l *lastStep) backend(b *balancer.Backend, direction int) float64 {
	return l.rate(statsOf(l.was.stats.Backends[b], noBackendStats).Bytes[direction], statsOf(l.now.stats.Backends[b], noBackendStats).Bytes[direction])
}

func (l *lastStep) rate(was, now uint64) float64 {
	seconds := l.now.at.Sub(l.was.at).Seconds()
	if now < was || seconds <= 0 {
		return 0
	}
	return float64(now-was) / seconds
}
