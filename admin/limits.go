package admin

import (
	"awe4lb/config"
	"awe4lb/engine"

	"github.com/valyala/fasthttp"
)

// The limits that are set, how near they are, and how often they were met.

func limitEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/limits", reader, "the limits that are set, how near they are, and how often they were met", nil, nil, limitList{}, (*Server).limits},
		{"GET", "/api/v1/limits/sources", reader, "the sources that are nearest to what one source may have, the nearest first", busySourcesQuery{}, nil, busySourceList{}, (*Server).busySources},
	}
}

type busySourcesQuery struct {
	Frontend string `query:"frontend"`
	Limit    int    `query:"limit" description:"1 to 1000; default 100"`
}

// busySourceList has sources of the frontends that limit what one has at once. Rates of sources are kept by hashes, not by who they are
// of.
type busySourceList struct {
	Sources []busySource `json:"sources"`
}

type busySource struct {
	Frontend string `json:"frontend"`
	Source   string `json:"source" description:"an address, or a prefix"`
	Open     int    `json:"open" description:"sessions or flows"`
	Limit    int    `json:"limit" description:"max_connections_per_source, or udp.max_flows_per_source: with so many open the next is refused"`
}

func (s *Server) busySources(c *call) (any, error) {
	q := busySourcesQuery{Limit: 100}
	if err := c.query(&q); err != nil {
		return nil, err
	}
	if q.Limit < 1 || q.Limit > 1000 {
		return nil, problemf(fasthttp.StatusBadRequest, "limit: got %d; want 1 to 1000", q.Limit)
	}
	if q.Frontend != "" && s.o.Director.Snapshot().Frontend(q.Frontend) == nil {
		return nil, notFound("frontend", q.Frontend)
	}
	out := busySourceList{[]busySource{}}
	for _, b := range s.o.Engine.BusiestSources(q.Frontend, q.Limit) {
		out.Sources = append(out.Sources, busySource{b.Frontend, sourceName(b.Source), b.Open, b.Limit})
	}
	return out, nil
}

type limitList struct {
	Limits []limitStatus `json:"limits"`
}

type limitStatus struct {
	Scope string  `json:"scope" enum:"process,frontend,pool,backend"`
	Name  string  `json:"name,omitempty" description:"of the frontend or pool; POOL/ADDRESS of a backend"`
	Limit string  `json:"limit" description:"the key of the configuration"`
	Value int64   `json:"value"`
	Now   *int64  `json:"now,omitempty" description:"what the limit is about, where that is one number"`
	Hits  *uint64 `json:"hits,omitempty" description:"times it was met since the start, where that is counted; several limits may share a counter, as all backends of a pool do"`
}

func (s *Server) limits(*call) (any, error) {
	st, snap := s.collect(), s.o.Director.Snapshot()
	out := limitList{[]limitStatus{}}
	add := func(scope, name, limit string, value int64, now *int64, hits *uint64) {
		if value > 0 {
			out.Limits = append(out.Limits, limitStatus{scope, name, limit, value, now, hits})
		}
	}
	pauses := uint64(0)
	for _, sh := range st.Shards {
		pauses += sh.LimitPauses
	}
	add("process", "", "engine.max_connections", st.Sessions.Limit, &st.Sessions.Open, &pauses)
	add("process", "", "engine.connection_rate", int64(snap.Config.Engine.ConnectionRate), nil, &st.flood)
	for i := range st.Frontends {
		f := &st.Frontends[i]
		if was := snap.Frontend(f.Name); was != nil {
			addFrontendLimits(f, was.Config, add)
		}
	}
	for i := range st.Pools {
		p := &st.Pools[i]
		add("pool", p.Name, "max_connections", int64(p.MaxConnections), &p.Open, &p.PoolLimit)
		if q := p.Queue; q != nil {
			waiting := int64(q.Waiting)
			add("pool", p.Name, "queue.size", int64(q.Size), &waiting, &q.Full)
		}
		if n := p.Persistence; n != nil {
			entries := int64(n.Entries)
			add("pool", p.Name, "persistence.max_entries", int64(n.MaxEntries), &entries, &n.Evictions)
		}
		for j := range p.Backends {
			b := &p.Backends[j]
			add("backend", p.Name+"/"+b.Address, "max_connections", int64(b.MaxConnections), &b.Open, &p.BackendLimit) // of the pool's backends together
		}
	}
	return out, nil
}

// addFrontendLimits adds those of a frontend.
func addFrontendLimits(f *frontendStatus, c *config.Frontend, add func(scope, name, limit string, value int64, now *int64, hits *uint64)) {
	of := func(limit string, value int64, now *int64, hits *uint64) {
		add("frontend", f.Name, limit, value, now, hits)
	}
	ended, dropped := &f.stats.Ended, &f.stats.Dropped[engine.ToBackend]
	if c.IsUDP() {
		of("udp.max_flows", int64(c.UDP.MaxFlows), &f.Open, &dropped[engine.DropTableFull])
		of("udp.max_flows_per_source", int64(c.UDP.MaxFlowsPerSource), nil, &dropped[engine.DropSourceLimit])
		of("udp.new_flow_rate", int64(c.UDP.NewFlowRate), nil, &dropped[engine.DropRate])
	} else {
		of("max_connections", int64(c.MaxConnections), &f.Open, &ended[engine.Limit])
		of("max_connections_per_source", int64(c.MaxConnectionsPerSource), nil, &ended[engine.SourceLimit])
		of("connection_rate", int64(c.ConnectionRate), nil, &ended[engine.RateLimit])
		of("connection_rate_per_source", int64(c.ConnectionRatePerSource), nil, &ended[engine.RateLimit])
		if f.TLS != nil {
			halfOpen := int64(f.TLS.HalfOpen)
			of("max_handshakes", int64(c.MaxHandshakes), &halfOpen, &ended[engine.HandshakeLimit])
			of("max_handshakes_per_prefix", int64(c.MaxHandshakesPerPrefix), nil, &ended[engine.HandshakeLimit])
		}
	}
	throttled := &f.Throttled
	if c.IsUDP() {
		throttled = &dropped[engine.DropBandwidth]
	}
	of("bandwidth", int64(c.Bandwidth), nil, throttled)
	of("bandwidth_per_source", int64(c.BandwidthPerSource), nil, throttled)
	of("bandwidth_per_session", int64(c.BandwidthPerSession), nil, throttled)
}
