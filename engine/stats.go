package engine

import "awe4lb/balancer"

// Reason is why a session ended. Every session ends for exactly one. docs/operations.md says what each means to an
// operator and what to do; the names are part of the access log and of the metrics and do not change.
type Reason uint8

const (
	ClientEOF        Reason = iota // both ends said all they had; the client was done first
	BackendEOF                     // the same; the backend was done first
	ClientRST                      // the client reset the connection
	BackendRST                     // the backend reset the connection
	ClientLost                     // the client's host no longer answers (keepalive, user timeout, unreachable)
	BackendLost                    // the backend's host no longer answers
	ConnectRefused                 // the last backend tried refused
	ConnectTimeout                 // the last backend tried did not answer within connect_timeout
	ConnectFailed                  // the last backend tried could not be reached for another reason
	NoBackend                      // no backend of the pool was usable
	NoRoute                        // no route matched and the frontend has no pool
	IdleTimeout                    // no byte either way for idle_timeout
	HalfCloseTimeout               // one end was done, and no byte from the other for half_close_timeout
	MaxLifetime                    // open for max_lifetime
	Limit                          // the frontend's max_connections was reached
	NoResources                    // no descriptor or memory for the backend's connection
	Drained                        // still open at the end of drain_timeout
	Killed                         // ended by order
	NumReasons       = iota
)

var reasonNames = [NumReasons]string{"client_eof", "backend_eof", "client_rst", "backend_rst", "client_lost",
	"backend_lost", "connect_refused", "connect_timeout", "connect_failed", "no_backend", "no_route", "idle_timeout",
	"half_close_timeout", "max_lifetime", "limit", "no_resources", "drained", "killed"}

func (r Reason) String() string { return reasonNames[r] }

// natural reports whether both ends had their say. All other ends are cuts, and a cut is passed on as RST, so that
// nobody takes half an answer for a whole one.
func (r Reason) natural() bool { return r == ClientEOF || r == BackendEOF }

// Histogram counts durations. Bucket i holds those of at most Bounds[i] seconds and more than the one before; the last
// holds the rest.
type Histogram struct {
	Bounds []float64 // set once, shared
	Counts [16]uint64
	Sum    float64 // seconds
}

var (
	connectBounds  = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
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
	h.Bounds = o.Bounds
	h.Sum += o.Sum
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
}

// FrontendStats are the counters of one frontend. On a shard they are plain memory; Engine.Stats returns sums.
type FrontendStats struct {
	Accepted uint64             // sessions begun
	Ended    [NumReasons]uint64 // sessions ended
	Bytes    [2]uint64          // by ToClient and ToBackend, as sent
	Duration Histogram          // from accept to the end
}

// BackendStats are the counters of one backend.
type BackendStats struct {
	Sessions      uint64             // connections established
	ConnectErrors [NumReasons]uint64 // attempts that failed; only the Connect… reasons and NoResources are used
	Bytes         [2]uint64          // by ToClient and ToBackend, as sent
	Connect       Histogram          // from connect(2) to established
}

// PoolStats are the counters of one pool.
type PoolStats struct {
	Retries   uint64 // attempts beyond a session's first
	NoBackend uint64 // sessions for which no backend was usable
}

// ShardStats are the counters of one shard.
type ShardStats struct {
	Sessions     int    // open now
	AcceptPauses uint64 // times accepting stopped for want of descriptors, memory or room under max_connections
	LimitPauses  uint64 // those of them for want of room under max_connections
	AcceptErrors uint64 // failed accepts
	Pipes        int    // splice pipes held now
	SplicedBytes uint64 // bytes moved in the kernel
	AccessDrops  uint64 // access log lines lost because the writer was slower than the shard
}

// Stats is the sum over the shards at one time.
type Stats struct {
	Shards    []ShardStats
	Frontends map[string]*FrontendStats
	Backends  map[*balancer.Backend]*BackendStats
	Pools     map[string]*PoolStats
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
	return &FrontendStats{Duration: Histogram{Bounds: durationBounds}}
}

// NewBackendStats returns counters that are all 0.
func NewBackendStats() *BackendStats {
	return &BackendStats{Connect: Histogram{Bounds: connectBounds}}
}

// add sums a shard's counters into s. It runs on that shard.
func (s *Stats) add(sh *shard) {
	st := sh.stats
	st.Sessions = sh.open
	st.Pipes = sh.pipes.made
	s.Shards = append(s.Shards, st)
	for name, f := range sh.frontends {
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
	}
	for backend, b := range sh.backends {
		sum := s.Backends[backend]
		if sum == nil {
			sum = NewBackendStats()
			s.Backends[backend] = sum
		}
		sum.Sessions += b.Sessions
		for i := range b.ConnectErrors {
			sum.ConnectErrors[i] += b.ConnectErrors[i]
		}
		sum.Bytes[0] += b.Bytes[0]
		sum.Bytes[1] += b.Bytes[1]
		sum.Connect.add(&b.Connect)
	}
	for name, p := range sh.pools {
		sum := s.Pools[name]
		if sum == nil {
			sum = new(PoolStats)
			s.Pools[name] = sum
		}
		sum.Retries += p.Retries
		sum.NoBackend += p.NoBackend
	}
}
