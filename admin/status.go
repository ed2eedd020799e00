package admin

import (
	"runtime"
	"slices"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/tlsbridge/acme"
	"awe4lb/tlsbridge/certs"
)

// status is the answer of GET /api/v1/status. Counters start with the process; bytes are what was sent, c2b towards
// backends and b2c towards clients.
type status struct {
	Version   string           `json:"version"`
	Revision  string           `json:"revision,omitempty"`
	Go        string           `json:"go"`
	State     string           `json:"state"` // running or draining
	Started   time.Time        `json:"started"`
	Uptime    float64          `json:"uptime_seconds"`
	Config    configStatus     `json:"config"`
	Sessions  sessionsStatus   `json:"sessions"`
	Flows     sessionsStatus   `json:"flows"` // UDP; limit is of those that have a socket of their own
	Frontends []frontendStatus `json:"frontends"`
	Pools     []poolStatus     `json:"pools"`
	Retired   []backendStatus  `json:"retired"` // backends no longer configured that still have sessions
	Shards    []shardStatus    `json:"shards"`

	Handshakes handshakesStatus `json:"handshakes"` // TLS, with clients and backends

	Certificates []certificateStatus `json:"certificates"`
	ACME         []acmeStatus        `json:"acme"`

	AccessLists []accessListStatus `json:"access_lists"` // the files of prefixes

	discovery []discoveryStatus // for the metrics

	// For the metrics.
	listsOK, listsFailed uint64 // changes of these files

	keeper certs.Counters
	issuer acme.Counters

	// For the metrics, those of frontends no longer configured included.
	counted   map[*balancer.Backend]*engine.BackendStats
	noMaint   bool // HAProxy's no-maint
	accepted  uint64
	toClients uint64 // bytes
	secured   uint64 // TLS handshakes done with clients
	refused   uint64 // by max_connections
	perSource uint64 // by max_connections_per_source
	fast      uint64 // by connection_rate and connection_rate_per_source
	flood     uint64 // by engine.connection_rate
	queueFull uint64 // by queue.size
	crowded   uint64 // by max_handshakes and max_handshakes_per_prefix

	// By max_connections of pools and of backends: sessions, and datagrams without a flow.
	poolFull, backendsFull uint64

	displaced, streamsRefused uint64 // of the admin's own clients
}

type handshakesStatus struct {
	Live   int `json:"live"`   // begun and not ended
	Queued int `json:"queued"` // those of them that wait for a worker, or are under its hands
}

type accessListStatus struct {
	File     string    `json:"file"`
	Prefixes int       `json:"prefixes"` // in use
	Changed  time.Time `json:"changed"`  // when they were read
	Error    string    `json:"error,omitempty"`
}

type configStatus struct {
	File      string    `json:"file"`
	Name      string    `json:"name"`              // main, or what was selected in its place
	Unsaved   bool      `json:"unsaved,omitempty"` // something runs that was changed in memory only: a reload drops it
	Stopped   bool      `json:"stopped,omitempty"` // by the API: nothing is listened on
	Version   uint64    `json:"version"`           // counts what was applied, the start being 1
	LastTried time.Time `json:"last_tried"`
	LastOK    bool      `json:"last_ok"`
	Error     string    `json:"error,omitempty"`
}

type sessionsStatus struct {
	Open  int64 `json:"open"`
	Limit int64 `json:"limit"`
}

type frontendStatus struct {
	Name           string            `json:"name"`
	Protocol       string            `json:"protocol"`
	Listeners      []string          `json:"listeners"`
	Pool           string            `json:"pool,omitempty"`
	Routes         int               `json:"routes"`
	Rules          []ruleStatus      `json:"rules,omitempty"` // the routes, in order; what none fits goes to pool
	MaxConnections int               `json:"max_connections"` // udp: max_flows
	Open           int64             `json:"open"`            // sessions or flows
	Accepted       uint64            `json:"accepted"`
	Bytes          bytesStatus       `json:"bytes"`
	Ended          map[string]uint64 `json:"ended"`             // by reason; those that never happened are left out
	Throttled      uint64            `json:"throttled"`         // times a session had to wait for a cap of bandwidth
	Retired        bool              `json:"retired,omitempty"` // no longer configured, and still has sessions
	UDP            *udpStatus        `json:"udp,omitempty"`     // udp only
	TLS            *tlsStatus        `json:"tls,omitempty"`     // where TLS ends here
	Sources        *sourcesStatus    `json:"sources,omitempty"` // with max_connections_per_source

	// For the metrics.
	labels string
	stats  *engine.FrontendStats // never nil
	config *config.Frontend
}

// ruleStatus is a route.
type ruleStatus struct {
	Match       string `json:"match"` // its conditions in words
	Pool        string `json:"pool"`
	Passthrough bool   `json:"passthrough,omitempty"`
}

type bytesStatus struct {
	C2B uint64 `json:"c2b"`
	B2C uint64 `json:"b2c"`
}

// udpStatus is about datagrams; bytesStatus serves for their numbers too.
type udpStatus struct {
	Datagrams  bytesStatus       `json:"datagrams"`
	DroppedC2B map[string]uint64 `json:"dropped_c2b"` // by reason; those that never happened are left out
	DroppedB2C map[string]uint64 `json:"dropped_b2c"`
}

type tlsStatus struct {
	Handshakes map[string]uint64 `json:"handshakes"` // done, by version
	Resumed    uint64            `json:"resumed"`
	Failed     uint64            `json:"failed"`
	HalfOpen   int               `json:"half_open"` // clients that have not finished their handshake
}

// sourcesStatus is about max_connections_per_source.
type sourcesStatus struct {
	Tracked   int    `json:"tracked"`   // source prefixes that have sessions
	Untracked uint64 `json:"untracked"` // sessions that were not counted for want of a place
}

type poolStatus struct {
	Name    string `json:"name"`
	Policy  string `json:"policy"`
	Retries uint64 `json:"retries"`
	Panics  uint64 `json:"panic_picks"` // picks whether up or down, because too few were up

	// Sessions turned away, and datagrams without a flow: nobody was usable, max_connections of the pool, or that of the backends.
	NoBackend    uint64 `json:"no_backend"`
	PoolLimit    uint64 `json:"pool_limit"`
	BackendLimit uint64 `json:"backend_limit"`

	MaxConnections int          `json:"max_connections"`
	Open           int64        `json:"open"`            // sessions and flows, those on backends no longer configured included
	Queue          *queueStatus `json:"queue,omitempty"` // where there is one

	Backends []backendStatus `json:"backends"`

	Discovery   *discoveryStatus   `json:"discovery,omitempty"`   // where the pool has it
	Persistence *persistenceStatus `json:"persistence,omitempty"` // where the pool has it

	// For the metrics.
	labels string
	stats  *engine.PoolStats // never nil
}

// queueStatus is about those who wait for a place in a pool.
type queueStatus struct {
	Size     int    `json:"size"`
	Waiting  int    `json:"waiting"`
	Queued   uint64 `json:"queued"`   // times that a session began to wait
	Full     uint64 `json:"full"`     // sessions for which there was no place to wait
	Timeouts uint64 `json:"timeouts"` // sessions that waited too long
	Left     uint64 `json:"left"`     // sessions whose client went away meanwhile
}

// persistenceStatus is balancer.StickStats.
type persistenceStatus struct {
	Entries    int    `json:"entries"`
	MaxEntries int    `json:"max_entries"`
	Hits       uint64 `json:"hits"`
	Misses     uint64 `json:"misses"`
	Moves      uint64 `json:"moves"`
	Overflows  uint64 `json:"overflows"`
	Evictions  uint64 `json:"evictions"`
	Skipped    uint64 `json:"skipped"`
}

type backendStatus struct {
	Pool           string            `json:"pool"`
	Address        string            `json:"address"`
	State          string            `json:"state"`                    // up, down (by health), drain, maintenance, disabled (weight 0) or draining (no longer configured)
	Weight         int               `json:"weight"`                   // in force
	Configured     int               `json:"configured_weight"`        // what weight is unless it was changed at run time
	Ordered        *int              `json:"ordered_weight,omitempty"` // what somebody ordered
	Order          string            `json:"order,omitempty"`          // drain or maintenance: what somebody ordered
	AgentOrder     string            `json:"agent_order,omitempty"`    // the same, by the backend's agent
	Priority       int               `json:"priority"`
	MaxConnections int               `json:"max_connections"`
	Open           int64             `json:"open"` // sessions, those still connecting included
	Connected      uint64            `json:"connected"`
	ConnectErrors  map[string]uint64 `json:"connect_errors"` // by reason
	Cuts           uint64            `json:"cuts"`           // sessions that it reset before it had said anything
	Handshakes     uint64            `json:"tls_handshakes"`
	Bytes          bytesStatus       `json:"bytes"`
	Zone           string            `json:"zone,omitempty"`
	SNI            string            `json:"sni,omitempty"` // these two as discovery says
	Labels         map[string]string `json:"labels,omitempty"`
	Latency        *float64          `json:"latency_seconds,omitempty"`  // policy leasttime only: what it goes by
	Rate           *float64          `json:"bytes_per_second,omitempty"` // policy leastbandwidth only: what it goes by
	Health         *healthStatus     `json:"health,omitempty"`           // where there is a check
	Ejections      *ejectionsStatus  `json:"ejections,omitempty"`        // where the pool has outliers

	// For the metrics.
	labels string
	stats  *engine.BackendStats // never nil
	of     *balancer.Backend
}

// ejectionsStatus is how often a backend was not used for a time because it failed clients.
type ejectionsStatus struct {
	Failures    uint64 `json:"failures"`     // in a row
	SuccessRate uint64 `json:"success_rate"` // more of them than the others
}

type shardStatus struct {
	Sessions     int    `json:"sessions"`
	Flows        int    `json:"flows"`
	AcceptPauses uint64 `json:"accept_pauses"`
	LimitPauses  uint64 `json:"limit_pauses"` // of accept_pauses
	AcceptErrors uint64 `json:"accept_errors"`
	Pipes        int    `json:"pipes"`
	SplicedBytes uint64 `json:"spliced_bytes"`
	AccessDrops  uint64 `json:"access_log_dropped"`
	FlowMoves    uint64 `json:"flow_moves"`
	FlowRetries  uint64 `json:"flow_retries"`
	ReplyDrops   uint64 `json:"shared_reply_drops"`
	Strays       uint64 `json:"shared_strays"`
}

func (s *Server) status(*call) (any, error) { return s.collect(), nil }

// collect gathers the status. Snapshot and counters are taken one after the other, so that under a reload a name may miss
// its counters once.
func (s *Server) collect() *status {
	snap, now := s.o.Director.Snapshot(), time.Now()
	st := s.looks.take(now, s.crowd.is(now), s.o.Engine.Stats)
	s.breathe()
	checked := s.healthStatus()
	r := s.o.Reloads()
	running := s.o.Configs.Running()
	out := &status{
		Version: s.o.Version, Revision: s.o.Revision, Go: runtime.Version(), State: "running",
		Started: s.o.Started.UTC().Truncate(time.Millisecond), Uptime: time.Since(s.o.Started).Seconds(),
		Config: configStatus{File: s.o.File, Name: running.Name, Unsaved: running.Unsaved(), Stopped: running.Stopped, Version: snap.Version,
			LastTried: r.Last.UTC().Truncate(time.Millisecond),
			LastOK:    r.LastOK, Error: r.Error},
		Frontends: []frontendStatus{}, Pools: []poolStatus{}, Retired: []backendStatus{}, Shards: []shardStatus{},
		counted: st.Backends,
	}
	out.displaced, out.streamsRefused = s.clients.displaced.Load(), s.streams.refused.Load()
	if s.o.Engine.Draining() {
		out.State = "draining"
	}
	out.Sessions.Open, out.Sessions.Limit = s.o.Engine.Sessions()
	out.Flows.Open, out.Flows.Limit = s.o.Engine.Flows()
	listeners := map[string][]string{}
	for _, l := range s.o.Engine.Listeners() {
		listeners[l.Frontend] = append(listeners[l.Frontend], l.Address.String())
	}
	for _, f := range snap.Frontends {
		fs := frontendOf(f, st.Frontends[f.Config.Name], listeners[f.Config.Name])
		if fs.TLS != nil {
			fs.TLS.HalfOpen = st.HalfOpen[f.Config.Name]
		}
		if n, limited := st.Sources[f.Config.Name]; limited {
			fs.Sources = &sourcesStatus{Tracked: n, Untracked: fs.stats.Untracked}
		}
		out.Frontends = append(out.Frontends, fs)
	}
	for _, f := range s.o.Director.RetiredFrontends() {
		fs := frontendOf(f, st.Frontends[f.Config.Name], nil)
		fs.Retired = true
		out.Frontends = append(out.Frontends, fs)
	}
	out.discovery = s.discoveryStatus(false)
	for _, p := range snap.Pools {
		ps := poolStatus{Name: p.Config.Name, Policy: p.Config.Policy, Backends: []backendStatus{},
			labels: labels("pool", p.Config.Name), stats: st.Pools[p.Config.Name]}
		if i := slices.IndexFunc(out.discovery, func(d discoveryStatus) bool { return d.Pool == ps.Name }); i >= 0 {
			ps.Discovery = &out.discovery[i]
		}
		if n, ok := p.StickStats(); ok {
			ps.Persistence = &persistenceStatus{n.Entries, n.MaxEntries, n.Hits, n.Misses, n.Moves, n.Overflows, n.Evictions, n.Skipped}
		}
		if ps.stats == nil {
			ps.stats = noPoolStats
		}
		ps.Panics = p.PanicPicks()
		ps.Retries = ps.stats.Retries
		ps.NoBackend, ps.PoolLimit, ps.BackendLimit = ps.stats.NoBackend, ps.stats.PoolLimit, ps.stats.BackendLimit
		ps.MaxConnections, ps.Open = p.Config.MaxConnections, p.Active()
		ps.Queue = queueOf(p, ps.stats)
		for _, m := range p.Members {
			b := backendOf(m.Backend, st.Backends[m.Backend])
			b.State = stateOf(m)
			b.Health = healthOf(checked, m.Backend)
			b.Weight, b.Configured, b.Priority, b.MaxConnections = m.Weight(), m.Config.Weight, m.Config.Priority, m.Config.MaxConnections
			b.setOrders(m.Backend)
			b.Zone, b.SNI, b.Labels = m.Config.Zone, m.Config.SNI, m.Config.Labels
			if p.Times() {
				latency := m.Latency().Seconds()
				b.Latency = &latency
			}
			if p.Config.Outliers != nil {
				b.Ejections = new(ejectionsStatus)
				b.Ejections.Failures, b.Ejections.SuccessRate = m.Ejections()
			}
			if p.Measures() {
				rate := m.Rate()
				b.Rate = &rate
			}
			ps.Backends = append(ps.Backends, b)
		}
		out.Pools = append(out.Pools, ps)
	}
	for _, b := range s.o.Director.Retired() {
		bs := backendOf(b, st.Backends[b])
		bs.State = "draining"
		out.Retired = append(out.Retired, bs)
	}
	for _, f := range st.Frontends {
		out.accepted += f.Accepted
		out.toClients += f.Bytes[engine.ToClient]
		for _, n := range f.Handshakes {
			out.secured += n
		}
		out.refused += f.Ended[engine.Limit]
		out.perSource += f.Ended[engine.SourceLimit]
		out.fast += f.Ended[engine.RateLimit]
		out.flood += f.Ended[engine.EngineRate]
		dropped := &f.Dropped[engine.ToBackend]
		out.poolFull += f.Ended[engine.PoolLimit] + dropped[engine.DropPoolLimit]
		out.backendsFull += f.Ended[engine.BackendLimit] + dropped[engine.DropBackendLimit]
		out.queueFull += f.Ended[engine.QueueFull]
		out.crowded += f.Ended[engine.HandshakeLimit]
	}
	s.collectCertificates(out)
	files, ok, failed := s.o.Engine.AccessLists()
	out.AccessLists, out.listsOK, out.listsFailed = []accessListStatus{}, ok, failed
	for _, f := range files {
		out.AccessLists = append(out.AccessLists, accessListStatus{File: f.Path, Prefixes: f.Prefixes, Changed: f.Changed.UTC().Truncate(time.Millisecond), Error: f.Err})
	}
	out.Handshakes = handshakesStatus{Live: st.Workers.Live, Queued: st.Workers.Queued}
	for _, sh := range st.Shards {
		out.Shards = append(out.Shards, shardStatus{Sessions: sh.Sessions, Flows: sh.Flows, AcceptPauses: sh.AcceptPauses, LimitPauses: sh.LimitPauses,
			AcceptErrors: sh.AcceptErrors, Pipes: sh.Pipes, SplicedBytes: sh.SplicedBytes, AccessDrops: sh.AccessDrops,
			FlowMoves: sh.FlowMoves, FlowRetries: sh.FlowRetries, ReplyDrops: sh.ReplyDrops, Strays: sh.Strays})
	}
	return out
}

// stateOf names the state of a configured backend.
func stateOf(m *balancer.Member) string {
	if m.Weight() == 0 {
		return "disabled"
	}
	return m.State().String()
}

// setOrders notes what was ordered of a backend at run time.
func (b *backendStatus) setOrders(of *balancer.Backend) {
	if w := of.OrderedWeight(); w >= 0 {
		b.Ordered = &w
	}
	if o := of.Ordered(); o != balancer.Admit {
		b.Order = o.String()
	}
	if o := of.AgentOrder(); o != balancer.Admit {
		b.AgentOrder = o.String()
	}
}

// The counters of what nobody has used yet.
var (
	noFrontendStats = engine.NewFrontendStats()
	noBackendStats  = engine.NewBackendStats()
	noPoolStats     = engine.NewPoolStats()
)

// queueOf tells of p's queue; nil when it has none, and nobody waits who came while it had.
func queueOf(p *balancer.Pool, st *engine.PoolStats) *queueStatus {
	qs := &queueStatus{Queued: st.Queued, Full: st.QueueFull, Timeouts: st.QueueTimeouts, Left: st.QueueLeft}
	if q := p.Queue(); q != nil {
		qs.Waiting = q.Waiting()
	}
	if !p.Config.Queue.Waits() && qs.Waiting == 0 {
		return nil
	}
	if p.Config.Queue.Waits() {
		qs.Size = p.Config.Queue.Size
	}
	return qs
}

func frontendOf(f *balancer.Frontend, st *engine.FrontendStats, listeners []string) frontendStatus {
	if st == nil {
		st = noFrontendStats
	}
	if listeners == nil {
		listeners = []string{}
	}
	c := f.Config
	fs := frontendStatus{Name: c.Name, Protocol: c.Protocol, Listeners: listeners, Pool: c.Pool, Routes: len(c.Routes),
		MaxConnections: c.MaxConnections, Open: f.Live.Active(), Accepted: st.Accepted, Bytes: bytesOf(st.Bytes),
		Ended: byReason(st.Ended), Throttled: st.Throttled, labels: labels("server", c.Name, "protocol", c.Protocol), stats: st, config: c}
	for _, r := range c.Routes {
		fs.Rules = append(fs.Rules, ruleStatus{r.Match.String(), r.Pool, r.Passthrough})
	}
	if c.TLS != nil {
		fs.TLS = &tlsStatus{Handshakes: map[string]uint64{}, Resumed: st.Resumed, Failed: st.HandshakesFailed}
		for i, n := range st.Handshakes {
			if n > 0 {
				fs.TLS.Handshakes[tlsVersions[i]] = n
			}
		}
	}
	if c.IsUDP() {
		fs.MaxConnections = c.UDP.MaxFlows
		fs.UDP = &udpStatus{Datagrams: bytesOf(st.Datagrams), DroppedC2B: byDropReason(st.Dropped[engine.ToBackend]),
			DroppedB2C: byDropReason(st.Dropped[engine.ToClient])}
	}
	return fs
}

func backendOf(b *balancer.Backend, st *engine.BackendStats) backendStatus {
	if st == nil {
		st = noBackendStats
	}
	return backendStatus{Pool: b.Pool, Address: b.Name, Open: b.Active(), Connected: st.Sessions,
		ConnectErrors: byReason(st.ConnectErrors), Cuts: st.Cuts, Handshakes: st.Handshakes, Bytes: bytesOf(st.Bytes),
		labels: labels("pool", b.Pool, "backend", b.Name), stats: st, of: b}
}

func bytesOf(b [2]uint64) bytesStatus {
	return bytesStatus{B2C: b[engine.ToClient], C2B: b[engine.ToBackend]}
}

func byReason(counts [engine.NumReasons]uint64) map[string]uint64 {
	m := map[string]uint64{}
	for i, n := range counts {
		if n > 0 {
			m[engine.Reason(i).String()] = n
		}
	}
	return m
}

func byDropReason(counts [engine.NumDrops]uint64) map[string]uint64 {
	m := map[string]uint64{}
	for i, n := range counts {
		if n > 0 {
			m[engine.DropReason(i).String()] = n
		}
	}
	return m
}
