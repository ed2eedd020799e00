package admin

import (
	"fmt"
	"io"
	"runtime"
	"strconv"

	"awe4lb/engine"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"
)

// metrics writes every series from the counters of this moment. Nothing is registered: series come and go with the
// frontends, pools and backends they are about. Labels hold names from the configuration only.
//
// In these names, which dashboards know from other balancers, "server" is what the configuration calls a frontend.
func (s *Server) metrics(c *fasthttp.RequestCtx) {
	c.SetContentType("text/plain; version=0.0.4; charset=utf-8")
	x := exposition{w: c}
	s.writeProcess(&x)
	st := s.collect()
	writeFrontends(&x, st)
	writePools(&x, st)
	writeBackends(&x, st)
	writeShards(&x, st)
	metrics.WriteProcessMetrics(c)
}

// exposition writes the text format: each family's TYPE and HELP once, then its series.
type exposition struct{ w io.Writer }

func (x *exposition) family(name, kind, help string) {
	fmt.Fprintf(x.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// series is a name with labels, given as pairs.
func series(name string, labels ...string) string {
	b := append([]byte(name), '{')
	for i := 0; i < len(labels); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, labels[i]...), '=')
		b = strconv.AppendQuote(b, labels[i+1])
	}
	return string(append(b, '}'))
}

func (x *exposition) count(n uint64, name string, labels ...string) {
	metrics.WriteCounterUint64(x.w, series(name, labels...), n)
}

func (x *exposition) gauge(v float64, name string, labels ...string) {
	metrics.WriteGaugeFloat64(x.w, series(name, labels...), v)
}

func (x *exposition) histogram(h *engine.Histogram, name string, labels ...string) {
	sum := uint64(0)
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		x.count(sum, name+"_bucket", append(labels[:len(labels):len(labels)], "le", strconv.FormatFloat(bound, 'g', -1, 64))...)
	}
	sum += h.Counts[len(h.Bounds)]
	x.count(sum, name+"_bucket", append(labels[:len(labels):len(labels)], "le", "+Inf")...)
	metrics.WriteCounterFloat64(x.w, series(name+"_sum", labels...), h.Sum)
	x.count(sum, name+"_count", labels...)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s *Server) writeProcess(x *exposition) {
	r := s.o.Reloads()
	x.family("awe4lb_build_info", "gauge", "1, labelled with what is running.")
	x.gauge(1, "awe4lb_build_info", "version", s.o.Version, "revision", s.o.Revision, "goversion", runtime.Version())
	x.family("awe4lb_start_timestamp_seconds", "gauge", "When the process started.")
	metrics.WriteGaugeFloat64(x.w, "awe4lb_start_timestamp_seconds", float64(s.o.Started.UnixMilli())/1000)
	x.family("awe4lb_draining", "gauge", "1 while the process drains before it ends.")
	metrics.WriteGaugeFloat64(x.w, "awe4lb_draining", flag(s.o.Engine.Draining()))
	x.family("awe4lb_config_reloads_total", "counter", "Reloads, the start not counted, by result.")
	x.count(r.OK, "awe4lb_config_reloads_total", "result", "ok")
	x.count(r.Failed, "awe4lb_config_reloads_total", "result", "failed")
	x.family("awe4lb_config_last_reload_success", "gauge", "1 when the last configuration that was tried is in force.")
	metrics.WriteGaugeFloat64(x.w, "awe4lb_config_last_reload_success", flag(r.LastOK))
	x.family("awe4lb_config_last_reload_timestamp_seconds", "gauge", "When a configuration was last tried.")
	metrics.WriteGaugeFloat64(x.w, "awe4lb_config_last_reload_timestamp_seconds", float64(r.Last.UnixMilli())/1000)
}

// rejected are the reasons for which a client is turned away before any backend is connected.
var rejected = []engine.Reason{engine.Limit, engine.NoRoute, engine.NoBackend, engine.NoResources, engine.ConnectRefused,
	engine.ConnectTimeout, engine.ConnectFailed}

func writeFrontends(x *exposition, st *status) {
	each := func(name, kind, help string, write func(f *frontendStatus, name string)) {
		x.family(name, kind, help)
		for i := range st.Frontends {
			write(&st.Frontends[i], name)
		}
	}
	each("awe4lb_server_connections_active", "gauge", "Sessions open now.",
		func(f *frontendStatus, name string) {
			x.gauge(float64(f.Open), name, "server", f.Name, "protocol", f.Protocol)
		})
	each("awe4lb_server_connections_total", "counter", "Clients accepted.",
		func(f *frontendStatus, name string) {
			x.count(f.stats.Accepted, name, "server", f.Name, "protocol", f.Protocol)
		})
	each("awe4lb_server_connections_rejected_total", "counter", "Clients turned away before a backend was connected, by reason.",
		func(f *frontendStatus, name string) {
			for _, r := range rejected {
				x.count(f.stats.Ended[r], name, "server", f.Name, "protocol", f.Protocol, "reason", r.String())
			}
		})
	each("awe4lb_server_connections_ended_total", "counter", "Sessions ended, by reason.",
		func(f *frontendStatus, name string) {
			for r := range engine.Reason(engine.NumReasons) {
				x.count(f.stats.Ended[r], name, "server", f.Name, "protocol", f.Protocol, "reason", r.String())
			}
		})
	each("awe4lb_server_bytes_total", "counter", "Bytes relayed: c2b from clients to backends, b2c the other way.",
		func(f *frontendStatus, name string) {
			x.count(f.stats.Bytes[engine.ToBackend], name, "server", f.Name, "protocol", f.Protocol, "direction", "c2b")
			x.count(f.stats.Bytes[engine.ToClient], name, "server", f.Name, "protocol", f.Protocol, "direction", "b2c")
		})
	each("awe4lb_server_connection_duration_seconds", "histogram", "How long sessions lasted, from accept to end.",
		func(f *frontendStatus, name string) {
			x.histogram(&f.stats.Duration, name, "server", f.Name, "protocol", f.Protocol)
		})
	hits, pauses := uint64(0), uint64(0)
	for _, f := range st.Frontends {
		hits += f.stats.Ended[engine.Limit]
	}
	for _, sh := range st.Shards {
		pauses += sh.AcceptPauses
	}
	x.family("awe4lb_limit_hits_total", "counter", "Times a limit was met, by limit.")
	x.count(hits, "awe4lb_limit_hits_total", "limit", "frontend_max_connections")
	x.count(pauses, "awe4lb_limit_hits_total", "limit", "process_sessions")
}

func writePools(x *exposition, st *status) {
	each := func(name, kind, help string, write func(p *poolStatus, name string)) {
		x.family(name, kind, help)
		for i := range st.Pools {
			write(&st.Pools[i], name)
		}
	}
	each("awe4lb_pool_backends", "gauge", "Backends of a pool, by state.", func(p *poolStatus, name string) {
		n := map[string]float64{}
		for _, b := range p.Backends {
			n[b.State]++
		}
		for _, state := range []string{"up", "disabled"} {
			x.gauge(n[state], name, "pool", p.Name, "state", state)
		}
	})
	each("awe4lb_pool_retries_total", "counter", "Attempts to connect beyond a session's first.", func(p *poolStatus, name string) {
		x.count(p.Retries, name, "pool", p.Name)
	})
	each("awe4lb_pool_no_backend_total", "counter", "Sessions for which no backend was usable.", func(p *poolStatus, name string) {
		x.count(p.NoBackend, name, "pool", p.Name)
	})
}

func writeBackends(x *exposition, st *status) {
	each := func(name, kind, help string, write func(b *backendStatus, name string)) {
		x.family(name, kind, help)
		for i := range st.Pools {
			for j := range st.Pools[i].Backends {
				write(&st.Pools[i].Backends[j], name)
			}
		}
		for i := range st.Retired {
			write(&st.Retired[i], name)
		}
	}
	each("awe4lb_backend_up", "gauge", "1 when the backend may be picked.",
		func(b *backendStatus, name string) {
			x.gauge(flag(b.State == "up"), name, "pool", b.Pool, "backend", b.Address)
		})
	each("awe4lb_backend_draining", "gauge", "1 when the backend is no longer configured and still has sessions.",
		func(b *backendStatus, name string) {
			x.gauge(flag(b.State == "draining"), name, "pool", b.Pool, "backend", b.Address)
		})
	each("awe4lb_backend_weight", "gauge", "Configured weight.",
		func(b *backendStatus, name string) {
			x.gauge(float64(b.Weight), name, "pool", b.Pool, "backend", b.Address)
		})
	each("awe4lb_backend_connections_active", "gauge", "Sessions on the backend now, those still connecting included.",
		func(b *backendStatus, name string) {
			x.gauge(float64(b.Open), name, "pool", b.Pool, "backend", b.Address)
		})
	each("awe4lb_backend_connections_total", "counter", "Connections established to the backend.",
		func(b *backendStatus, name string) {
			x.count(b.stats.Sessions, name, "pool", b.Pool, "backend", b.Address)
		})
	each("awe4lb_backend_connect_errors_total", "counter", "Failed attempts to connect to the backend, by reason.",
		func(b *backendStatus, name string) {
			for _, r := range []engine.Reason{engine.ConnectRefused, engine.ConnectTimeout, engine.ConnectFailed, engine.NoResources} {
				x.count(b.stats.ConnectErrors[r], name, "pool", b.Pool, "backend", b.Address, "reason", r.String())
			}
		})
	each("awe4lb_backend_bytes_total", "counter", "Bytes relayed: c2b to the backend, b2c from it.",
		func(b *backendStatus, name string) {
			x.count(b.stats.Bytes[engine.ToBackend], name, "pool", b.Pool, "backend", b.Address, "direction", "c2b")
			x.count(b.stats.Bytes[engine.ToClient], name, "pool", b.Pool, "backend", b.Address, "direction", "b2c")
		})
	each("awe4lb_backend_connect_duration_seconds", "histogram", "Time to connect to the backend.",
		func(b *backendStatus, name string) {
			x.histogram(&b.stats.Connect, name, "pool", b.Pool, "backend", b.Address)
		})
}

func writeShards(x *exposition, st *status) {
	each := func(name, kind, help string, write func(sh *shardStatus, name, shard string)) {
		x.family(name, kind, help)
		for i := range st.Shards {
			write(&st.Shards[i], name, strconv.Itoa(i))
		}
	}
	x.family("awe4lb_sessions_limit", "gauge", "Sessions the process admits at once.")
	metrics.WriteGaugeFloat64(x.w, "awe4lb_sessions_limit", float64(st.Sessions.Limit))
	each("awe4lb_shard_sessions", "gauge", "Sessions open on a shard.", func(sh *shardStatus, name, shard string) {
		x.gauge(float64(sh.Sessions), name, "shard", shard)
	})
	each("awe4lb_shard_accept_pauses_total", "counter", "Times a shard stopped accepting for want of descriptors, memory or room.",
		func(sh *shardStatus, name, shard string) { x.count(sh.AcceptPauses, name, "shard", shard) })
	each("awe4lb_shard_accept_errors_total", "counter", "Failed accepts.",
		func(sh *shardStatus, name, shard string) { x.count(sh.AcceptErrors, name, "shard", shard) })
	each("awe4lb_shard_pipes", "gauge", "Splice pipes a shard holds.", func(sh *shardStatus, name, shard string) {
		x.gauge(float64(sh.Pipes), name, "shard", shard)
	})
	each("awe4lb_shard_spliced_bytes_total", "counter", "Bytes moved in the kernel by splice.",
		func(sh *shardStatus, name, shard string) { x.count(sh.SplicedBytes, name, "shard", shard) })
	each("awe4lb_access_log_dropped_total", "counter", "Access log lines lost because the writer was slower than the shard.",
		func(sh *shardStatus, name, shard string) { x.count(sh.AccessDrops, name, "shard", shard) })
}
