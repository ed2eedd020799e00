// Package admin is the door for people and programs that watch and steer a running awe4lb: a REST API under /api/v1, a web
// page at / that is made of it (page.go, ui), /healthz for whatever stands in front, and /metrics for Prometheus, served by
// fasthttp.
//
// It reads the engine's counters and the director's snapshot and has things done by them; it owns nothing of the data plane,
// and a scrape costs a shard one posted function.
//
// api.go has the table of all calls: the router, the refusals, openapi.json and the tests are made of it (decision 0060). A
// request goes through guard.go (is it a page of somebody else's?), identity.go (who is it?), the table (may they?) and its
// handler, which returns an answer or an error; problem.go says which status an error deserves, audit.go remembers.
package admin
