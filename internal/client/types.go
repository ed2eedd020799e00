package client

import (
	"fmt"
	"time"
)

// The answers of the API, as far as they are used here. Bytes of samples are per second, those of everything else totals.

// Status is the answer of GET /status.
type Status struct {
	Version  string     `json:"version"`
	Revision string     `json:"revision"`
	Go       string     `json:"go"`
	State    string     `json:"state"`
	Started  time.Time  `json:"started"`
	Uptime   float64    `json:"uptime_seconds"`
	Config   ConfigInfo `json:"config"`
	Sessions Usage      `json:"sessions"`
	Flows    Usage      `json:"flows"`

	Frontends []Frontend `json:"frontends"`
	Pools     []Pool     `json:"pools"`
	Retired   []Backend  `json:"retired"`
}

// ConfigInfo tells of the configuration in force.
type ConfigInfo struct {
	File      string    `json:"file"`
	Version   uint64    `json:"version"`
	LastTried time.Time `json:"last_tried"`
	LastOK    bool      `json:"last_ok"`
	Error     string    `json:"error"`
}

// Usage is a number and its limit.
type Usage struct {
	Open  int64 `json:"open"`
	Limit int64 `json:"limit"`
}

// Bytes go from client to backend and back.
type Bytes struct {
	C2B uint64 `json:"c2b"`
	B2C uint64 `json:"b2c"`
}

// Frontend is an element of GET /frontends.
type Frontend struct {
	Name           string            `json:"name"`
	Protocol       string            `json:"protocol"`
	Listeners      []string          `json:"listeners"`
	Pool           string            `json:"pool"`
	Routes         int               `json:"routes"`
	MaxConnections int               `json:"max_connections"`
	Open           int64             `json:"open"`
	Accepted       uint64            `json:"accepted"`
	Bytes          Bytes             `json:"bytes"`
	Ended          map[string]uint64 `json:"ended"`
	Retired        bool              `json:"retired"`
}

// Pool is an element of GET /pools.
type Pool struct {
	Name         string    `json:"name"`
	Policy       string    `json:"policy"`
	Retries      uint64    `json:"retries"`
	NoBackend    uint64    `json:"no_backend"`
	PoolLimit    uint64    `json:"pool_limit"`
	BackendLimit uint64    `json:"backend_limit"`
	Backends     []Backend `json:"backends"`
}

// PoolList is the answer of GET /pools.
type PoolList struct {
	Pools   []Pool    `json:"pools"`
	Retired []Backend `json:"retired"`
}

// Backend is an element of a pool.
type Backend struct {
	Pool           string            `json:"pool"`
	Address        string            `json:"address"`
	State          string            `json:"state"`
	Weight         int               `json:"weight"`
	Configured     int               `json:"configured_weight"`
	Order          string            `json:"order"`
	Priority       int               `json:"priority"`
	MaxConnections int               `json:"max_connections"`
	Open           int64             `json:"open"`
	Connected      uint64            `json:"connected"`
	ConnectErrors  map[string]uint64 `json:"connect_errors"`
	Bytes          Bytes             `json:"bytes"`
	Zone           string            `json:"zone"`
	Health         *Health           `json:"health"`
}

// Health is what the check of a backend knows.
type Health struct {
	Kind       string    `json:"kind"`
	State      string    `json:"state"`
	Since      time.Time `json:"since"`
	Why        string    `json:"why"`
	LastResult string    `json:"last_result"`
	LastError  string    `json:"last_error"`
}

// Check is an element of GET /health.
type Check struct {
	Pool    string        `json:"pool"`
	Backend string        `json:"backend"`
	Kind    string        `json:"kind"`
	State   string        `json:"state"`
	Since   time.Time     `json:"since"`
	Why     string        `json:"why"`
	Streak  int           `json:"streak"`
	Last    []CheckResult `json:"last"` // the oldest first
}

// CheckResult is one probe: good, bad or unknown.
type CheckResult struct {
	Time   time.Time `json:"time"`
	Result string    `json:"result"`
	Took   float64   `json:"seconds"`
}

// Session is an element of GET /sessions.
type Session struct {
	ID       string  `json:"id"`
	Protocol string  `json:"protocol"`
	Frontend string  `json:"frontend"`
	Pool     string  `json:"pool"`
	Backend  string  `json:"backend"`
	Client   string  `json:"client"`
	State    string  `json:"state"`
	Age      float64 `json:"age_seconds"`
	Idle     float64 `json:"idle_seconds"`
	Bytes    Bytes   `json:"bytes"`
	SNI      string  `json:"sni"`
	TLS      string  `json:"tls"`
}

// SessionList is the answer of GET /sessions.
type SessionList struct {
	Sessions []Session `json:"sessions"`
	Next     string    `json:"next"`
	Total    *int      `json:"total"`
}

// KillOrder says which sessions are to end.
type KillOrder struct {
	Protocol string `json:"protocol,omitempty"`
	Frontend string `json:"frontend,omitempty"`
	Pool     string `json:"pool,omitempty"`
	Backend  string `json:"backend,omitempty"`
	Client   string `json:"client,omitempty"`
	All      bool   `json:"all,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

// Killed is the answer of POST /sessions/kill.
type Killed struct {
	Killed int `json:"killed"`
}

// Event is something that has happened to a backend, or to the discovery of a pool. Two are equal when they are the same.
type Event struct {
	Time      time.Time      `json:"time"`
	Pool      string         `json:"pool"`
	Backend   string         `json:"backend"`
	What      string         `json:"what"`
	From      string         `json:"from"`
	To        string         `json:"to"`
	Why       string         `json:"why,omitempty"`
	By        string         `json:"by,omitempty"`
	After     float64        `json:"after_seconds,omitempty"`
	Discovery DiscoveryEvent `json:"discovery,omitzero"`
}

// DiscoveryEvent is what an event of discovery says beside.
type DiscoveryEvent struct {
	Event    string `json:"event"`
	Source   string `json:"source,omitempty"`
	Added    int    `json:"added"`
	Removed  int    `json:"removed"`
	Changed  int    `json:"changed"`
	Backends int    `json:"backends"`
}

// Change returns what became of what, in words: "up → down", or what discovery did.
func (e *Event) Change() string {
	switch d := &e.Discovery; {
	case d.Event == "change":
		return fmt.Sprintf("+%d -%d of %d", d.Added, d.Removed, d.Backends)
	case d.Event != "":
		return d.Event
	case e.From == "":
		return e.To
	}
	return e.From + " → " + e.To
}

// EventList is the answer of GET /events, the newest first.
type EventList struct {
	Events []Event `json:"events"`
}

// Report is what a change of the configuration changes.
type Report struct {
	Version     uint64   `json:"version"`
	Changes     []Change `json:"changes"`
	NeedRestart []string `json:"need_restart"`
}

// Change is one difference.
type Change struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
	Detail string `json:"detail"`
}

// Sample is one second.
type Sample struct {
	Time      time.Time        `json:"time"`
	Version   uint64           `json:"version"` // of the configuration
	Totals    Totals           `json:"totals"`
	Frontends []SampleFrontend `json:"frontends"`
	Pools     []SamplePool     `json:"pools"`
}

// Totals are those of the process. Connect times are in seconds, nil where there was no connection.
type Totals struct {
	Sessions   int64    `json:"sessions"`
	Flows      int64    `json:"flows"`
	New        float64  `json:"new_per_second"`
	C2B        float64  `json:"c2b"`
	B2C        float64  `json:"b2c"`
	Errors     float64  `json:"errors_per_second"`
	ConnectP50 *float64 `json:"connect_p50"`
	ConnectP99 *float64 `json:"connect_p99"`
}

// Flowing is what goes through something.
type Flowing struct {
	Open int64   `json:"open"`
	New  float64 `json:"new_per_second"`
	C2B  float64 `json:"c2b"`
	B2C  float64 `json:"b2c"`
}

// SampleFrontend is a frontend in a sample.
type SampleFrontend struct {
	Name string `json:"name"`
	Flowing
}

// SamplePool is a pool in a sample.
type SamplePool struct {
	Name  string `json:"name"`
	Up    int    `json:"up"`
	Down  int    `json:"down"`
	Other int    `json:"other"`
	Flowing
	Backends []SampleBackend `json:"backends"`
}

// SampleBackend is a backend in a sample.
type SampleBackend struct {
	Address string `json:"address"`
	State   string `json:"state"`
	Weight  int    `json:"weight"`
	Flowing
	Errors     float64  `json:"errors_per_second"`
	ConnectP99 *float64 `json:"connect_p99"`
}
