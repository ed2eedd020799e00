package admin

import (
	"runtime"
	"strconv"

	"awe4lb/engine"
)

// The native view: every series is written from the counters of this moment. Nothing is registered: series come and go with
// the frontends, pools and backends they are about. Labels hold names from the configuration only.
//
// In these names, which dashboards know from other balancers, "server" is what the configuration calls a frontend.

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s *Server) writeProcess(x *exposition, _ *status) {
	r := s.o.Reloads()
	x.family("awe4lb_build_info", "gauge", "1, labelled with what is running.")
	x.gauge(1, "awe4lb_build_info", labels("version", s.o.Version, "revision", s.o.Revision, "goversion", runtime.Version()))
	x.family("awe4lb_start_timestamp_seconds", "gauge", "When the process started.")
	x.gauge(float64(s.o.Started.UnixMilli())/1000, "awe4lb_start_timestamp_seconds", "")
	x.family("awe4lb_draining", "gauge", "1 while the process drains before it ends.")
	x.gauge(oneIf(s.o.Engine.Draining()), "awe4lb_draining", "")
	x.family("awe4lb_config_reloads_total", "counter", "Reloads, the start not counted, by result.")
	x.count(r.OK, "awe4lb_config_reloads_total", labels("result", "ok"))
	x.count(r.Failed, "awe4lb_config_reloads_total", labels("result", "failed"))
	x.family("awe4lb_config_last_reload_success", "gauge", "1 when the last configuration that was tried is in force.")
	x.gauge(oneIf(r.LastOK), "awe4lb_config_last_reload_success", "")
	x.family("awe4lb_config_last_reload_timestamp_seconds", "gauge", "When a configuration was last tried.")
	x.gauge(float64(r.Last.UnixMilli())/1000, "awe4lb_config_last_reload_timestamp_seconds", "")
	x.family("awe4lb_metrics_push_total", "counter", "Times the metrics were sent to admin.push, by result.")
	x.count(s.push.sent.Load(), "awe4lb_metrics_push_total", labels("result", "ok"))
	x.count(s.push.failed.Load(), "awe4lb_metrics_push_total", labels("result", "failed"))
}

// rejected are the reasons for which a client is turned away before any backend is connected.
var rejected = []engine.Reason{engine.Limit, engine.NoRoute, engine.NoBackend, engine.NoResources, engine.ConnectRefused,
	engine.ConnectTimeout, engine.ConnectFailed, engine.ConnectTLS, engine.HelloTimeout, engine.NotTLS, engine.BadHello,
	engine.UnknownName, engine.BadProxy, engine.ProxyUntrusted, engine.HandshakeLimit, engine.HandshakeTimeout, engine.HandshakeFailed,
	engine.Denied, engine.SourceLimit, engine.RateLimit, engine.EngineRate, engine.PoolLimit, engine.BackendLimit, engine.QueueFull,
	engine.QueueTimeout, engine.PoolRemoved}

func writeFrontends(x *exposition, st *status) {
	each := func(name, kind, help string, write func(f *frontendStatus, name string)) {
		x.family(name, kind, help)
		for i := range st.Frontends {
			if st.Frontends[i].UDP == nil {
				write(&st.Frontends[i], name)
			}
		}
	}
	each("awe4lb_server_connections_active", "gauge", "Sessions open now.",
		func(f *frontendStatus, name string) {
			x.gauge(float64(f.Open), name, f.labels)
		})
	each("awe4lb_server_connections_total", "counter", "Clients accepted.",
		func(f *frontendStatus, name string) {
			x.count(f.stats.Accepted, name, f.labels)
		})
	each("awe4lb_server_connections_rejected_total", "counter", "Clients turned away before a backend was connected, by reason.",
		func(f *frontendStatus, name string) {
			for _, r := range rejected {
				x.count(f.stats.Ended[r], name, f.labels+","+labels("reason", r.String()))
			}
		})
	each("awe4lb_server_connections_ended_total", "counter", "Sessions ended, by reason.",
		func(f *frontendStatus, name string) {
			for r := range engine.Reason(engine.NumReasons) {
				if !r.OfFlows() {
					x.count(f.stats.Ended[r], name, f.labels+","+labels("reason", r.String()))
				}
			}
		})
	each("awe4lb_server_connection_duration_seconds", "histogram", "How long sessions lasted, from accept to end.",
		func(f *frontendStatus, name string) {
			x.histogram(&f.stats.Duration, name, f.labels)
		})
	sources := func(name, kind, help string, write func(f *frontendStatus, name string)) {
		each(name, kind, help, func(f *frontendStatus, name string) {
			if f.Sources != nil {
				write(f, name)
			}
		})
	}
	each("awe4lb_server_throttled_total", "counter", "Times a session had to wait because of bandwidth, bandwidth_per_source or bandwidth_per_session.",
		func(f *frontendStatus, name string) { x.count(f.Throttled, name, f.labels) })
	sources("awe4lb_server_sources", "gauge", "Source prefixes that have sessions or flows, where a limit of each source counts them.",
		func(f *frontendStatus, name string) { x.gauge(float64(f.Sources.Tracked), name, f.labels) })
	sources("awe4lb_server_sources_untracked_total", "counter", "Sessions and flows that max_connections_per_source or udp.max_flows_per_source did not count: no place was left for their source.",
		func(f *frontendStatus, name string) { x.count(f.Sources.Untracked, name, f.labels) })
	writeHandshakes(x, st)
	full, starved := uint64(0), uint64(0)
	for _, sh := range st.Shards {
		full += sh.LimitPauses
		starved += sh.AcceptPauses - sh.LimitPauses
	}
	x.family("awe4lb_limit_hits_total", "counter", "Times a limit was met, by limit.")
	x.count(st.refused, "awe4lb_limit_hits_total", labels("limit", "frontend_max_connections"))
	x.count(st.perSource, "awe4lb_limit_hits_total", labels("limit", "frontend_max_connections_per_source"))
	x.count(st.fast, "awe4lb_limit_hits_total", labels("limit", "frontend_connection_rate"))
	x.count(st.flood, "awe4lb_limit_hits_total", labels("limit", "process_connection_rate"))
	x.count(st.poolFull, "awe4lb_limit_hits_total", labels("limit", "pool_max_connections"))
	x.count(st.backendsFull, "awe4lb_limit_hits_total", labels("limit", "backend_max_connections"))
	x.count(st.queueFull, "awe4lb_limit_hits_total", labels("limit", "pool_queue_size"))
	x.count(st.crowded, "awe4lb_limit_hits_total", labels("limit", "frontend_max_handshakes"))
	x.count(full, "awe4lb_limit_hits_total", labels("limit", "process_sessions"))
	x.count(starved, "awe4lb_limit_hits_total", labels("limit", "descriptors"))
	x.count(st.displaced, "awe4lb_limit_hits_total", labels("limit", "admin_connections"))
	x.count(st.streamsRefused, "awe4lb_limit_hits_total", labels("limit", "admin_streams"))
}

// tlsVersions are the values of the label version.
var tlsVersions = [engine.NumTLSVersions]string{"1.0", "1.1", "1.2", "1.3"}

// writeHandshakes writes what frontends have at which TLS ends.
func writeHandshakes(x *exposition, st *status) {
	each := func(name, kind, help string, write func(f *frontendStatus, name string)) {
		x.family(name, kind, help)
		for i := range st.Frontends {
			if st.Frontends[i].TLS != nil {
				write(&st.Frontends[i], name)
			}
		}
	}
	each("awe4lb_server_tls_handshakes_total", "counter", "TLS handshakes with clients, by version and result; one that failed has no version.",
		func(f *frontendStatus, name string) {
			for i, version := range tlsVersions {
				x.count(f.stats.Handshakes[i], name, f.labels+","+labels("version", version, "result", "ok"))
			}
			x.count(f.stats.HandshakesFailed, name, f.labels+","+labels("version", "", "result", "failed"))
		})
	each("awe4lb_server_tls_handshakes_resumed_total", "counter", "TLS handshakes with clients that resumed an earlier session.",
		func(f *frontendStatus, name string) { x.count(f.stats.Resumed, name, f.labels) })
	each("awe4lb_server_tls_handshake_duration_seconds", "histogram", "Time from accept to the end of the TLS handshake.",
		func(f *frontendStatus, name string) { x.histogram(&f.stats.Handshake, name, f.labels) })
	w := st.Handshakes
	x.family("awe4lb_tls_handshakes_waiting", "gauge", "TLS handshakes that wait for a worker, or are under its hands.")
	x.gauge(float64(w.Queued), "awe4lb_tls_handshakes_waiting", "")
	x.family("awe4lb_tls_handshakes_open", "gauge", "TLS handshakes that have begun and not ended, with clients and backends.")
	x.gauge(float64(w.Live), "awe4lb_tls_handshakes_open", "")
}

// directions are the values of the label direction.
var directions = [2]string{engine.ToClient: "b2c", engine.ToBackend: "c2b"}

// writeDatagrams writes what UDP frontends have instead of connections, and the bytes of all frontends.
func writeDatagrams(x *exposition, st *status) {
	x.family("awe4lb_server_bytes_total", "counter", "Bytes relayed: c2b from clients to backends, b2c the other way.")
	for i := range st.Frontends {
		f := &st.Frontends[i]
		x.count(f.stats.Bytes[engine.ToBackend], "awe4lb_server_bytes_total", f.labels+","+labels("direction", "c2b"))
		x.count(f.stats.Bytes[engine.ToClient], "awe4lb_server_bytes_total", f.labels+","+labels("direction", "b2c"))
	}
	each := func(name, kind, help string, write func(f *frontendStatus, name string)) {
		x.family(name, kind, help)
		for i := range st.Frontends {
			if st.Frontends[i].UDP != nil {
				write(&st.Frontends[i], name)
			}
		}
	}
	each("awe4lb_udp_sessions_active", "gauge", "UDP flows open now.", func(f *frontendStatus, name string) {
		x.gauge(float64(f.Open), name, f.labels)
	})
	each("awe4lb_udp_sessions_total", "counter", "UDP flows begun.", func(f *frontendStatus, name string) {
		x.count(f.stats.Accepted, name, f.labels)
	})
	each("awe4lb_udp_sessions_ended_total", "counter", "UDP flows ended, by reason.", func(f *frontendStatus, name string) {
		for r := range engine.Reason(engine.NumReasons) {
			if r.OfFlows() || r.OfBoth() {
				x.count(f.stats.Ended[r], name, f.labels+","+labels("reason", r.String()))
			}
		}
	})
	each("awe4lb_udp_session_duration_seconds", "histogram", "How long UDP flows lasted, from the first datagram to the end.",
		func(f *frontendStatus, name string) {
			x.histogram(&f.stats.Duration, name, f.labels)
		})
	each("awe4lb_udp_datagrams_total", "counter", "Datagrams relayed: c2b from clients to backends, b2c the other way.",
		func(f *frontendStatus, name string) {
			for direction, label := range directions {
				x.count(f.stats.Datagrams[direction], name, f.labels+","+labels("direction", label))
			}
		})
	each("awe4lb_udp_datagrams_dropped_total", "counter", "Datagrams not relayed, by the direction they were on and the reason.",
		func(f *frontendStatus, name string) {
			for direction, label := range directions {
				for _, r := range engine.DropReasons(direction) {
					x.count(f.stats.Dropped[direction][r], name, f.labels+","+labels("direction", label, "reason", r.String()))
				}
			}
		})
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
		for _, state := range []string{"up", "down", "ejected", "drain", "maintenance", "disabled"} {
			x.gauge(n[state], name, p.labels+","+labels("state", state))
		}
	})
	each("awe4lb_pool_retries_total", "counter", "Attempts to connect beyond a session's first.", func(p *poolStatus, name string) {
		x.count(p.Retries, name, p.labels)
	})
	each("awe4lb_pool_no_backend_total", "counter", "Sessions, and datagrams without a flow, for which no backend was usable, and not because of a limit.", func(p *poolStatus, name string) {
		x.count(p.NoBackend, name, p.labels)
	})
	each("awe4lb_pool_full_total", "counter", "Sessions, and datagrams without a flow, for which there was no place, by the limit that was met.", func(p *poolStatus, name string) {
		x.count(p.PoolLimit, name, p.labels+","+labels("limit", "pool_max_connections"))
		x.count(p.BackendLimit, name, p.labels+","+labels("limit", "backend_max_connections"))
	})
	each("awe4lb_pool_panic_picks_total", "counter", "Backends picked whether up or down, because too few were up.", func(p *poolStatus, name string) {
		x.count(p.Panics, name, p.labels)
	})
	each("awe4lb_pool_connections_active", "gauge", "Sessions and UDP flows on the pool's backends now, as max_connections counts them.", func(p *poolStatus, name string) {
		x.gauge(float64(p.Open), name, p.labels)
	})
	queues := func(name, kind, help string, write func(p *poolStatus, name string)) {
		each(name, kind, help, func(p *poolStatus, name string) {
			if p.Queue != nil {
				write(p, name)
			}
		})
	}
	queues("awe4lb_pool_queue_waiting", "gauge", "Sessions that wait for a place in the pool now.", func(p *poolStatus, name string) {
		x.gauge(float64(p.Queue.Waiting), name, p.labels)
	})
	queues("awe4lb_pool_queue_entered_total", "counter", "Times that a session began to wait for a place.", func(p *poolStatus, name string) {
		x.count(p.Queue.Queued, name, p.labels)
	})
	queues("awe4lb_pool_queue_full_total", "counter", "Sessions for which there was no place to wait.", func(p *poolStatus, name string) {
		x.count(p.Queue.Full, name, p.labels)
	})
	queues("awe4lb_pool_queue_timeouts_total", "counter", "Sessions that waited too long.", func(p *poolStatus, name string) {
		x.count(p.Queue.Timeouts, name, p.labels)
	})
	queues("awe4lb_pool_queue_left_total", "counter", "Sessions whose client went away while they waited.", func(p *poolStatus, name string) {
		x.count(p.Queue.Left, name, p.labels)
	})
	queues("awe4lb_pool_queue_wait_seconds", "histogram", "How long sessions waited for a place, whatever came of it.", func(p *poolStatus, name string) {
		x.histogram(&p.stats.Wait, name, p.labels)
	})
	writePersistence(x, st)
}

// writePersistence writes what became of clients that stick to backends.
func writePersistence(x *exposition, st *status) {
	each := func(name, kind, help string, value func(n *persistenceStatus) float64) {
		x.family(name, kind, help)
		for i := range st.Pools {
			if p := &st.Pools[i]; p.Persistence != nil {
				x.gauge(value(p.Persistence), name, p.labels)
			}
		}
	}
	each("awe4lb_pool_persistence_entries", "gauge", "Clients that have a backend in the pool.",
		func(n *persistenceStatus) float64 { return float64(n.Entries) })
	each("awe4lb_pool_persistence_max_entries", "gauge", "Clients there is room for.",
		func(n *persistenceStatus) float64 { return float64(n.MaxEntries) })
	each("awe4lb_pool_persistence_hits_total", "counter", "Sessions and UDP flows that got the backend their client had.",
		func(n *persistenceStatus) float64 { return float64(n.Hits) })
	each("awe4lb_pool_persistence_misses_total", "counter", "Sessions and UDP flows of clients that had no backend.",
		func(n *persistenceStatus) float64 { return float64(n.Misses) })
	each("awe4lb_pool_persistence_moves_total", "counter", "Clients that got another backend because theirs was not usable.",
		func(n *persistenceStatus) float64 { return float64(n.Moves) })
	each("awe4lb_pool_persistence_overflows_total", "counter", "Sessions and UDP flows that went elsewhere for once, their client's backend being at its max_connections.",
		func(n *persistenceStatus) float64 { return float64(n.Overflows) })
	each("awe4lb_pool_persistence_evictions_total", "counter", "Clients forgotten to make room for others.",
		func(n *persistenceStatus) float64 { return float64(n.Evictions) })
	each("awe4lb_pool_persistence_skipped_total", "counter", "Sessions and UDP flows for which the entries were not looked at: another shard was at work on the place.",
		func(n *persistenceStatus) float64 { return float64(n.Skipped) })
}

// connectReasons are why a backend was not connected.
var connectReasons = [...]engine.Reason{engine.ConnectRefused, engine.ConnectTimeout, engine.ConnectFailed, engine.ConnectTLS, engine.NoResources}

// Labels that every backend has.
var (
	connectReasonLabels [len(connectReasons)]string
	directionLabels     [len(directions)]string
)

func init() {
	for i, r := range connectReasons {
		connectReasonLabels[i] = labels("reason", r.String())
	}
	for i, direction := range directions {
		directionLabels[i] = labels("direction", direction)
	}
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
			x.gauge(oneIf(b.State == "up"), name, b.labels)
		})
	writeHealth(each, x)
	each("awe4lb_backend_ejected", "gauge", "1 while the backend is not used because it failed one client after the other.",
		func(b *backendStatus, name string) {
			x.gauge(oneIf(b.State == "ejected"), name, b.labels)
		})
	each("awe4lb_backend_draining", "gauge", "1 when the backend is no longer configured and still has sessions.",
		func(b *backendStatus, name string) {
			x.gauge(oneIf(b.State == "draining"), name, b.labels)
		})
	each("awe4lb_backend_weight", "gauge", "Weight in force.",
		func(b *backendStatus, name string) {
			x.gauge(float64(b.Weight), name, b.labels)
		})
	each("awe4lb_backend_latency_seconds", "gauge", "What the policy leasttime goes by: the time to connect and to the first answer; 0 while unknown.",
		func(b *backendStatus, name string) {
			if b.Latency != nil {
				x.gauge(*b.Latency, name, b.labels)
			}
		})
	each("awe4lb_backend_bandwidth_bytes_per_second", "gauge", "What the policy leastbandwidth goes by, both directions together.",
		func(b *backendStatus, name string) {
			if b.Rate != nil {
				x.gauge(*b.Rate, name, b.labels)
			}
		})
	each("awe4lb_backend_connections_active", "gauge", "Sessions and UDP flows on the backend now, those still connecting included.",
		func(b *backendStatus, name string) {
			x.gauge(float64(b.Open), name, b.labels)
		})
	each("awe4lb_backend_connections_total", "counter", "Connections established to the backend, and UDP flows given to it.",
		func(b *backendStatus, name string) {
			x.count(b.stats.Sessions, name, b.labels)
		})
	each("awe4lb_backend_connect_errors_total", "counter", "Failed attempts to connect to the backend, by reason.",
		func(b *backendStatus, name string) {
			for i, r := range connectReasons {
				x.countBy(b.stats.ConnectErrors[r], name, b.labels, connectReasonLabels[i])
			}
		})
	each("awe4lb_backend_cuts_total", "counter", "Sessions that the backend reset before it had said anything.",
		func(b *backendStatus, name string) { x.count(b.stats.Cuts, name, b.labels) })
	each("awe4lb_backend_ejections_total", "counter", "Times the backend was not used for a while because it failed clients, by cause.",
		func(b *backendStatus, name string) {
			if e := b.Ejections; e != nil {
				x.count(e.Failures, name, b.labels+","+labels("cause", "failures"))
				x.count(e.SuccessRate, name, b.labels+","+labels("cause", "success_rate"))
			}
		})
	each("awe4lb_backend_tls_handshakes_total", "counter", "TLS handshakes done with the backend.",
		func(b *backendStatus, name string) {
			x.count(b.stats.Handshakes, name, b.labels)
		})
	each("awe4lb_backend_bytes_total", "counter", "Bytes relayed: c2b to the backend, b2c from it.",
		func(b *backendStatus, name string) {
			for direction, label := range directionLabels {
				x.countBy(b.stats.Bytes[direction], name, b.labels, label)
			}
		})
	each("awe4lb_backend_connect_duration_seconds", "histogram", "Time to connect to the backend.",
		func(b *backendStatus, name string) {
			x.histogram(&b.stats.Connect, name, b.labels)
		})
	each("awe4lb_backend_first_byte_seconds", "histogram", "Time from the client's first byte, or established where the backend speaks first, to the backend's first byte.",
		func(b *backendStatus, name string) {
			x.histogram(&b.stats.FirstByte, name, b.labels)
		})
	each("awe4lb_backend_datagrams_total", "counter", "Datagrams relayed: c2b to the backend, b2c from it.",
		func(b *backendStatus, name string) {
			for direction, label := range directionLabels {
				x.countBy(b.stats.Datagrams[direction], name, b.labels, label)
			}
		})
	each("awe4lb_backend_reply_duration_seconds", "histogram", "Time from a UDP flow's first datagram to the backend's first answer.",
		func(b *backendStatus, name string) {
			x.histogram(&b.stats.Reply, name, b.labels)
		})
}

// writeAccessLists writes what is known of files of prefixes.
func writeAccessLists(x *exposition, st *status) {
	each := func(name, kind, help string, value func(f *accessListStatus) float64) {
		x.family(name, kind, help)
		for i := range st.AccessLists {
			x.gauge(value(&st.AccessLists[i]), name, labels("file", st.AccessLists[i].File))
		}
	}
	each("awe4lb_access_list_prefixes", "gauge", "Prefixes of a file that are in use.", func(f *accessListStatus) float64 { return float64(f.Prefixes) })
	each("awe4lb_access_list_stale", "gauge", "1 when the file holds something that cannot be used, and what it had before is in use.",
		func(f *accessListStatus) float64 { return oneIf(f.Error != "") })
	x.family("awe4lb_access_list_changes_total", "counter", "Changes of files of prefixes, reloads apart, by whether they could be used.")
	x.count(st.listsOK, "awe4lb_access_list_changes_total", labels("result", "ok"))
	x.count(st.listsFailed, "awe4lb_access_list_changes_total", labels("result", "failed"))
}

func writeShards(x *exposition, st *status) {
	each := func(name, kind, help string, write func(sh *shardStatus, name, shard string)) {
		x.family(name, kind, help)
		for i := range st.Shards {
			write(&st.Shards[i], name, labels("shard", strconv.Itoa(i)))
		}
	}
	x.family("awe4lb_sessions_limit", "gauge", "Sessions the process admits at once.")
	x.gauge(float64(st.Sessions.Limit), "awe4lb_sessions_limit", "")
	each("awe4lb_shard_sessions", "gauge", "Sessions open on a shard.", func(sh *shardStatus, name, shard string) {
		x.gauge(float64(sh.Sessions), name, shard)
	})
	x.family("awe4lb_udp_sessions_limit", "gauge", "UDP flows with a socket of their own that the process admits at once.")
	x.gauge(float64(st.Flows.Limit), "awe4lb_udp_sessions_limit", "")
	each("awe4lb_shard_udp_sessions", "gauge", "UDP flows open on a shard.", func(sh *shardStatus, name, shard string) {
		x.gauge(float64(sh.Flows), name, shard)
	})
	each("awe4lb_shard_udp_moves_total", "counter", "Times a UDP flow went to another backend.",
		func(sh *shardStatus, name, shard string) { x.count(sh.FlowMoves, name, shard) })
	each("awe4lb_shard_udp_retries_total", "counter", "Datagrams that one backend refused and another was offered.",
		func(sh *shardStatus, name, shard string) { x.count(sh.FlowRetries, name, shard) })
	each("awe4lb_shard_udp_shared_reply_drops_total", "counter", "Answers lost in full receive queues of sockets that flows share (AnyIP).",
		func(sh *shardStatus, name, shard string) { x.count(sh.ReplyDrops, name, shard) })
	each("awe4lb_shard_udp_shared_strays_total", "counter", "Datagrams to addresses of shared_source that belong to no flow there.",
		func(sh *shardStatus, name, shard string) { x.count(sh.Strays, name, shard) })
	each("awe4lb_shard_accept_pauses_total", "counter", "Times a shard stopped accepting for want of descriptors, memory or room.",
		func(sh *shardStatus, name, shard string) { x.count(sh.AcceptPauses, name, shard) })
	each("awe4lb_shard_accept_errors_total", "counter", "Failed accepts.",
		func(sh *shardStatus, name, shard string) { x.count(sh.AcceptErrors, name, shard) })
	each("awe4lb_shard_pipes", "gauge", "Splice pipes a shard holds.", func(sh *shardStatus, name, shard string) {
		x.gauge(float64(sh.Pipes), name, shard)
	})
	each("awe4lb_shard_spliced_bytes_total", "counter", "Bytes moved in the kernel by splice.",
		func(sh *shardStatus, name, shard string) { x.count(sh.SplicedBytes, name, shard) })
	each("awe4lb_access_log_dropped_total", "counter", "Access log lines lost because the writer was slower than the shard.",
		func(sh *shardStatus, name, shard string) { x.count(sh.AccessDrops, name, shard) })
}
