// Package health finds out which backends are up, by asking them, and tells when that changes.
//
//	health.go      the Prober: what is checked, and who hears of it
//	schedule.go    when: spread at the start, jittered, a bounded number at once
//	streak.go      how many results in a row make a change
//	follow.go      kind pool: the health of another pool
//	check.go       one probe: from where, to where, how long, and what a result is
//	material.go    certificates and authorities for checks that speak TLS
//
// and one file per kind: tcp.go (tcp, tls and udp with something to say), http.go, grpc.go, exec.go, agent.go, redis.go,
// postgres.go with scram.go, mysql.go.
//
// A Prober knows nothing of balancing: it calls Options.Changed. Everything it keeps is guarded by one lock, which is never
// held while a probe waits for anything. What backends answer is read up to a limit, and shown escaped and cut.
package health
