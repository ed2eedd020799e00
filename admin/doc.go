// Package admin is the door for people and programs that watch and steer a running awe4lb: a REST API under /api/v1,
// /healthz for whatever stands in front, and /metrics for Prometheus, served by fasthttp.
//
// It reads the engine's counters and the director's snapshot and has a reload done; it owns nothing of the data plane, and
// a scrape costs a shard one posted function.
//
// There are no credentials yet, so only loopback addresses and unix sockets are served (config refuses others), and guard.go
// keeps web pages that a browser on this host has open from reaching it.
package admin
