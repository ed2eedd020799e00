package engine

import (
	"crypto/tls"

	"awe4lb/balancer"
	"awe4lb/tlsbridge"
)

// Reason is why a session or a flow ended. Every one ends for exactly one. docs/operations.md says what each means to an
// operator and what to do; the names are part of the access log and of the metrics and do not change.
type Reason uint8

const (
	ClientEOF          Reason = iota // both ends said all they had; the client was done first
	BackendEOF                       // the same; the backend was done first
	ClientRST                        // the client reset the connection
	BackendRST                       // the backend reset the connection
	ClientLost                       // the client's host no longer answers (keepalive, user timeout, unreachable)
	BackendLost                      // the backend's host no longer answers
	ConnectRefused                   // the last backend tried refused
	ConnectTimeout                   // the last backend tried did not answer within connect_timeout
	ConnectFailed                    // the last backend tried could not be reached for another reason
	NoBackend                        // no backend of the pool was usable
	NoRoute                          // no route matched and the frontend has no pool
	IdleTimeout                      // no byte either way for idle_timeout
	HalfCloseTimeout                 // one end was done, and no byte from the other for half_close_timeout
	MaxLifetime                      // open for max_lifetime
	Limit                            // the frontend's max_connections was reached
	NoResources                      // no descriptor or memory for the backend's connection
	Drained                          // still open at the end of drain_timeout
	Killed                           // ended by order
	Unreplied                        // flow: the backend never answered, and the client was quiet for unreplied_timeout
	Evicted                          // flow: it had no answer yet and made room for another
	MaxRequests                      // flow: the client had sent max_requests datagrams
	MaxResponses                     // flow: the backend had sent max_responses datagrams
	BackendRemoved                   // its backend is no longer configured; of a flow: or down, or in maintenance
	HelloTimeout                     // the client had not said where it wants to go within hello_timeout
	NotTLS                           // the client does not speak TLS, and the frontend wants it
	BadHello                         // its ClientHello breaks the rules, or is too long
	UnknownName                      // no route or certificate has the name it asks for, and unknown_name is reject
	HandshakeLimit                   // max_handshakes or max_handshakes_per_prefix was reached
	HandshakeTimeout                 // the handshake with the client was not done within handshake_timeout
	HandshakeFailed                  // the handshake with the client failed
	Challenge                        // a challenge of an ACME server, answered here
	ConnectTLS                       // the handshake with the last backend tried failed
	ClientTruncated                  // the client's TLS stream ended without close_notify
	BackendTruncated                 // the backend's TLS stream ended without close_notify
	ClientTLS                        // the client broke the TLS protocol, or sent an alert
	BackendTLS                       // the backend broke the TLS protocol, or sent an alert
	BadProxy                         // a PROXY header that breaks the rules, or none where one is required
	ProxyUntrusted                   // the client is not one of the proxies that are trusted, and a header is required
	BackendDown                      // its health check failed, and the pool's on_down is cut or drain
	Denied                           // [frontends.NAME.access] denies the client; of a flow: it does since the flow began
	SourceLimit                      // the client's source prefix has max_connections_per_source
	RateLimit                        // connection_rate or connection_rate_per_source
	BackendMaintenance               // the backend was put into maintenance, and the pool's on_maintenance is cut or drain
	EngineRate                       // engine.connection_rate
	PoolLimit                        // the pool's max_connections was reached, and it has no queue
	BackendLimit                     // every backend that could be used had its max_connections, and the pool has no queue
	QueueFull                        // there was no place in the pool, nor in its queue
	QueueTimeout                     // it has waited in the pool's queue for queue.timeout
	PoolRemoved                      // it waited in the queue of a pool that is no longer configured
	NumReasons         = iota
)

var reasonNames = [NumReasons]string{"client_eof", "backend_eof", "client_rst", "backend_rst", "client_lost",
	"backend_lost", "connect_refused", "connect_timeout", "connect_failed", "no_backend", "no_route", "idle_timeout",
	"half_close_timeout", "max_lifetime", "limit", "no_resources", "drained", "killed", "unreplied", "evicted",
	"max_requests", "max_responses", "backend_removed", "hello_timeout", "not_tls", "bad_hello", "unknown_name",
	"handshake_limit", "handshake_timeout", "handshake_failed", "challenge", "connect_tls", "client_truncated",
	"backend_truncated", "client_tls", "backend_tls", "bad_proxy", "proxy_untrusted", "backend_down",
	"denied", "source_limit", "rate", "backend_maintenance", "engine_rate", "pool_limit", "backend_limit", "queue_full",
	"queue_timeout", "pool_removed"}

func (r Reason) String() string { return reasonNames[r] }

// OfFlows reports whether only flows end for r.
func (r Reason) OfFlows() bool { return r >= Unreplied && r < BackendRemoved }

// OfBoth reports whether both sessions and flows end for r.
func (r Reason) OfBoth() bool {
	switch r {
	case ConnectRefused, ConnectFailed, IdleTimeout, Drained, Killed, Denied, BackendRemoved:
		return true
	}
	return false
}

// natural reports whether both ends had their say. All other ends are cuts, and a cut is passed on as RST, so that
// nobody takes half an answer for a whole one.
func (r Reason) natural() bool { return r == ClientEOF || r == BackendEOF }

// DropReason is why a datagram was not relayed. docs/operations.md says what each means; the names are part of the metrics
// and do not change.
type DropReason uint8

const (
	DropTableFull    DropReason = iota // no place for its flow: udp.max_flows, or the sockets the process may have
	DropRate                           // its source prefix begins more flows than udp.new_flow_rate
	DropOverload                       // the shard had no time for a new flow
	DropNoRoute                        // no route matches and the frontend has no pool
	DropNoBackend                      // no backend of the pool is usable, and not for want of a place
	DropNoPort                         // no local port, or no address of shared_source, is free
	DropNoResources                    // no descriptor or memory for the flow's socket
	DropDraining                       // the process, or its listener, is about to go
	DropRefused                        // the backend's host says that nobody listens, and no other could take it
	DropUnreachable                    // it cannot be sent: no way there
	DropTruncated                      // larger than udp.buffer_size
	DropTooBig                         // larger than what can be sent there
	DropSendQueue                      // the socket's send queue was full
	DropReceiveQueue                   // the socket's receive queue was full: the kernel dropped it
	DropUnwanted                       // an answer that the configuration does not want
	DropDenied                         // [frontends.NAME.access] denies the client
	DropBadProxy                       // its PROXY header breaks the rules, or there is none where one is required
	DropSourceLimit                    // its source prefix has udp.max_flows_per_source
	DropUntrusted                      // its sender is not one of the proxies that are trusted, and a header is required
	DropBandwidth                      // over bandwidth, bandwidth_per_source or bandwidth_per_session
	DropPoolLimit                      // the pool has its max_connections
	DropBackendLimit                   // every backend that could be used has its max_connections
	NumDrops                    = iota

	kept DropReason = 255 // not dropped
)

var dropNames = [NumDrops]string{"table_full", "rate", "overload", "no_route", "no_backend", "no_port", "no_resources",
	"draining", "refused", "unreachable", "truncated", "too_big", "send_queue", "receive_queue", "unwanted", "denied",
	"bad_proxy", "source_limit", "proxy_untrusted", "bandwidth", "pool_limit", "backend_limit"}

func (r DropReason) String() string { return dropNames[r] }

// dropsOf lists the reasons that can happen to datagrams of each direction, for metrics without series that stay 0.
var dropsOf = [2][]DropReason{
	ToClient: {DropUnreachable, DropTruncated, DropTooBig, DropSendQueue, DropReceiveQueue, DropUnwanted, DropBandwidth},
	ToBackend: {DropTableFull, DropRate, DropOverload, DropNoRoute, DropNoBackend, DropNoPort, DropNoResources, DropDraining, DropRefused,
		DropUnreachable, DropTruncated, DropTooBig, DropSendQueue, DropReceiveQueue, DropDenied,
		DropBadProxy, DropUntrusted, DropSourceLimit, DropBandwidth, DropPoolLimit, DropBackendLimit},
}

// DropReasons returns the reasons that datagrams of a direction, ToClient or ToBackend, may be dropped for.
func DropReasons(direction int) []DropReason { return dropsOf[direction] }

// Histogram counts durations. Bucket i holds those of at most Bounds[i] seconds and more than the one before; the last
// holds the rest.
type Histogram struct {
	Bounds []float64 // set once, shared
	Counts [16]uint64
	Sum    float64 // seconds
}

var (
	connectBounds  = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	waitBounds     = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	durationBounds = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600}
)

func (h *Histogram) observe(nanoseconds int64) {
	s := float64(nanoseconds) / 1e9
	h.Sum += s
	i := 0
	for i < len(h.Bounds) && s > h.Bounds[i] {
		i++
	}
	h.Counts[i]++
}

func (h *Histogram) add(o *Histogram) {
	if o.Bounds != nil {
		h.Bounds = o.Bounds
	}
	h.Sum += o.Sum
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
}

// FrontendStats are the counters of one frontend. On a shard they are plain memory; Engine.Stats returns sums.
type FrontendStats struct {
	Accepted uint64             // sessions or flows begun
	Ended    [NumReasons]uint64 // sessions or flows ended
	Bytes    [2]uint64          // by ToClient and ToBackend, as sent
	Duration Histogram          // from accept, or a flow's first datagram, to the end

	Throttled uint64 // times a session had to wait for a cap of bandwidth
	Untracked uint64 // sessions and flows that max_connections_per_source and udp.max_flows_per_source did not count: no place was left for their source

	// Where TLS ends here.
	Handshakes       [NumTLSVersions]uint64 // done, by version from TLS 1.0
	Resumed          uint64                 // those of them that resumed an earlier session
	HandshakesFailed uint64
	Handshake        Histogram // from accept to done

	// UDP frontends only.
	Datagrams [2]uint64           // by ToClient and ToBackend, as sent
	Dropped   [2][NumDrops]uint64 // datagrams on their way to …
}

// BackendStats are the counters of one backend.
type BackendStats struct {
	Sessions      uint64             // connections established and flows given
	ConnectErrors [NumReasons]uint64 // attempts that failed; only the Connect… reasons and NoResources are used
	Cuts          uint64             // sessions that it reset before it had said anything
	Bytes         [2]uint64          // by ToClient and ToBackend, as sent
	Connect       Histogram          // from connect(2) to established
	FirstByte     Histogram          // from the client's first byte, or established, to the backend's first
	Handshakes    uint64             // with TLS
	Ejections     uint64             // times it was not used for a time: it failed one client after the other

	// Of UDP frontends.
	Datagrams [2]uint64 // by ToClient and ToBackend, as sent
	Reply     Histogram // from a flow's first datagram to its first answer
}

// PoolStats are the counters of one pool.
type PoolStats struct {
	Retries uint64 // attempts beyond a session's first

	// Sessions turned away, and datagrams of UDP clients without a flow.
	NoBackend    uint64 // no backend was usable, and not for want of a place
	PoolLimit    uint64 // the pool had its max_connections
	BackendLimit uint64 // the backends that could be used had theirs

	// Of the queue.
	Queued        uint64    // times that a session began to wait
	QueueFull     uint64    // sessions for which there was no place in it
	QueueTimeouts uint64    // sessions that waited too long
	QueueLeft     uint64    // sessions whose client went away meanwhile
	Wait          Histogram // how long they waited, whatever came of it

	Gone BackendStats // of its backends that are no longer configured and have no session left
}

// turnAway counts a session, or a datagram, for which there was no backend.
func (p *PoolStats) turnAway(lack balancer.Lack) {
	switch lack {
	case balancer.PoolFull:
		p.PoolLimit++
	case balancer.BackendsFull, balancer.KeptFull:
		p.BackendLimit++
	default:
		p.NoBackend++
	}
}

// endOf is the reason for which a session ends that no backend could be picked for.
func endOf(lack balancer.Lack) Reason {
	switch lack {
	case balancer.PoolFull:
		return PoolLimit
	case balancer.BackendsFull, balancer.KeptFull:
		return BackendLimit
	}
	return NoBackend
}

// dropOf is endOf for datagrams.
func dropOf(lack balancer.Lack) DropReason {
	switch lack {
	case balancer.PoolFull:
		return DropPoolLimit
	case balancer.BackendsFull, balancer.KeptFull:
		return DropBackendLimit
	}
	return DropNoBackend
}

// NewPoolStats returns counters that are all 0.
func NewPoolStats() *PoolStats { return &PoolStats{Wait: Histogram{Bounds: waitBounds}} }

// ShardStats are the counters of one shard.
type ShardStats struct {
	Sessions     int    // open now
	AcceptPauses uint64 // times accepting stopped for want of descriptors, memory or room under max_connections
	LimitPauses  uint64 // those of them for want of room under max_connections
	AcceptErrors uint64 // failed accepts
	Pipes        int    // splice pipes held now
	SplicedBytes uint64 // bytes moved in the kernel
	AccessDrops  uint64 // access log lines lost because the writer was slower than the shard

	Flows       int    // open now
	FlowMoves   uint64 // times a flow went to another backend
	FlowRetries uint64 // datagrams that a backend refused and another was offered
	ReplyDrops  uint64 // answers lost in the full receive queues of sockets that flows share
	Strays      uint64 // datagrams for an address of shared_source that no flow has, or from somebody else than its backend
}

// Stats is the sum over the shards at one time.
type Stats struct {
	Shards    []ShardStats
	Frontends map[string]*FrontendStats
	Backends  map[*balancer.Backend]*BackendStats
	Pools     map[string]*PoolStats

	Workers  tlsbridge.WorkerStats // those who make TLS handshakes
	Sources  map[string]int        // by frontend with a limit for each source: source prefixes that have sessions or flows
	HalfOpen map[string]int        // by frontend: clients that have not said what routing needs, or not finished their handshake
}

// open returns the sessions that have not ended.
func (f *FrontendStats) open() uint64 {
	n := f.Accepted
	for _, ended := range f.Ended {
		n -= ended
	}
	return n
}

// NewFrontendStats returns counters that are all 0.
func NewFrontendStats() *FrontendStats {
	return &FrontendStats{Duration: Histogram{Bounds: durationBounds}, Handshake: Histogram{Bounds: connectBounds}}
}

// NumTLSVersions is the number of TLS versions there are: 1.0 to 1.3.
const NumTLSVersions = 4

// handshake counts a handshake with a client, which took some nanoseconds from accept; state nil: it failed.
func (f *FrontendStats) handshake(state *tls.ConnectionState, took int64) {
	if state == nil {
		f.HandshakesFailed++
		return
	}
	f.Handshakes[(state.Version-tls.VersionTLS10)%NumTLSVersions]++
	if state.DidResume {
		f.Resumed++
	}
	f.Handshake.observe(took)
}

// NewBackendStats returns counters that are all 0.
func NewBackendStats() *BackendStats {
	return &BackendStats{Connect: Histogram{Bounds: connectBounds}, FirstByte: Histogram{Bounds: connectBounds}, Reply: Histogram{Bounds: connectBounds}}
}

// Add sums o into b.
func (b *BackendStats) Add(o *BackendStats) {
	b.Sessions += o.Sessions
	b.Cuts += o.Cuts
	for i := range o.ConnectErrors {
		b.ConnectErrors[i] += o.ConnectErrors[i]
	}
	b.Bytes[0] += o.Bytes[0]
	b.Bytes[1] += o.Bytes[1]
	b.Connect.add(&o.Connect)
	b.FirstByte.add(&o.FirstByte)
	b.Handshakes += o.Handshakes
	b.Ejections += o.Ejections
	b.Reply.add(&o.Reply)
	for d := range o.Datagrams {
		b.Datagrams[d] += o.Datagrams[d]
	}
}

// add sums a shard's counters into s.
func (s *Stats) add(t *tally) {
	s.Shards = append(s.Shards, t.shard)
	for i, name := range t.frontends.keys[:len(t.frontends.values)] {
		f := &t.frontends.values[i]
		sum := s.Frontends[name]
		if sum == nil {
			sum = NewFrontendStats()
			s.Frontends[name] = sum
		}
		sum.Accepted += f.Accepted
		for i := range f.Ended {
			sum.Ended[i] += f.Ended[i]
		}
		sum.Bytes[0] += f.Bytes[0]
		sum.Bytes[1] += f.Bytes[1]
		sum.Duration.add(&f.Duration)
		sum.Untracked += f.Untracked
		sum.Throttled += f.Throttled
		for i := range f.Handshakes {
			sum.Handshakes[i] += f.Handshakes[i]
		}
		sum.Resumed += f.Resumed
		sum.HandshakesFailed += f.HandshakesFailed
		sum.Handshake.add(&f.Handshake)
		for d := range f.Dropped {
			sum.Datagrams[d] += f.Datagrams[d]
			for i := range f.Dropped[d] {
				sum.Dropped[d][i] += f.Dropped[d][i]
			}
		}
	}
	for i, backend := range t.backends.keys[:len(t.backends.values)] {
		if sum := s.Backends[backend]; sum != nil {
			sum.Add(&t.backends.values[i])
		} else {
			s.Backends[backend] = &t.backends.values[i] // the copy is ours
		}
	}
	for i, name := range t.pools.keys[:len(t.pools.values)] {
		p := &t.pools.values[i]
		sum := s.Pools[name]
		if sum == nil {
			sum = NewPoolStats()
			s.Pools[name] = sum
		}
		sum.Retries += p.Retries
		sum.NoBackend += p.NoBackend
		sum.PoolLimit += p.PoolLimit
		sum.BackendLimit += p.BackendLimit
		sum.Queued += p.Queued
		sum.QueueFull += p.QueueFull
		sum.QueueTimeouts += p.QueueTimeouts
		sum.QueueLeft += p.QueueLeft
		sum.Wait.add(&p.Wait)
		sum.Gone.Add(&p.Gone)
	}
}
