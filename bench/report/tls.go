package report

// The promises about TLS.

// niceName is the subject a second time, with handshakes on threads that give way to other traffic (engine.tls_nice).
const niceName = "awe4lb-nice"

// tlsBars lists the promises about TLS in the order of the table they come from.
func (r *Results) tlsBars() []Bar {
	bars := []Bar{
		{"TLS CPU per GB, 8 streams up, vs haproxy", 0.85, 0.7, false, "", paired(TLSUp8, Reference, CPU, false)},
		{"TLS CPU per GB, 8 streams down, vs haproxy", 0.85, 0.7, false, "", paired(TLSDown8, Reference, CPU, false)},
		{"TLS CPU per keep-alive request, 64 connections, vs haproxy", 0.92, 0.8, false, "", paired(TLSKeep64, Reference, CPU, false)},
	}
	for _, s := range []struct{ key, version string }{{TLSFull, "1.3"}, {TLS12Full, "1.2"}} {
		bars = append(bars,
			Bar{"full ECDSA handshakes/s, TLS " + s.version + ", vs haproxy", 1.15, 1.3, true, "", paired(s.key, Reference, Rate, true)},
			Bar{"CPU per full ECDSA handshake, TLS " + s.version + ", vs haproxy", 0.8, 0.7, false, "", paired(s.key, Reference, CPU, false)})
	}
	bars = append(bars,
		Bar{"CPU per resumed handshake, TLS 1.3, vs haproxy", 0.8, 0.7, false, "", paired(TLSResumed, Reference, CPU, false)},
		Bar{"CPU per resumed handshake, TLS 1.2, vs haproxy", 0.8, 0.7, false, "", paired(TLS12Resumed, Reference, CPU, false)},
		Bar{"full RSA handshakes/s, vs haproxy", 0.6, 0.7, true, "", paired(TLSRSA, Reference, Rate, true)},
		Bar{"p99, 16 connections, while RSA handshakes arrive, vs haproxy", 1.0, 0.7, false, "", paired(TLSFlood, Reference, P99, false)})
	if r.Subject != niceName && len(r.good(TLSFlood, niceName)) > 0 {
		bars = append(bars, Bar{"the same with engine.tls_nice = 19 (the default is 0)", 1.0, 0.7, false, "", pairedWith(niceName, TLSFlood, Reference, P99, false)})
	}
	return append(bars,
		Bar{"user memory per idle TLS connection, vs haproxy", 0.45, 0.25, false, "", memoryRatio(MemoryTLS)},
		Bar{"user memory per half-open handshake, vs haproxy", 0.6, 0.5, false, "", memoryRatio(MemoryHalfOpen)})
}

// memoryRatio measures the ratio of the subject's memory to the reference's, median to median.
func memoryRatio(kind string) func(r *Results) Outcome {
	return func(r *Results) Outcome {
		mine, ok1 := r.memoryOf(kind, r.Subject)
		theirs, ok2 := r.memoryOf(kind, Reference)
		return once(mine.PerConnection()/theirs.PerConnection(), ok1 && ok2)
	}
}
