// Package config reads awe4lb.toml into one validated value and refuses everything it does not understand.
//
// Load returns either a *Config in which every default is filled in and every reference resolves, or an Errors
// with every mistake at once, each with file, line, what was found and what is wanted. The package knows nothing of
// sockets: whether an address can be bound is for the engine to say.
//
// A file goes through four steps, one source file each: scan.go notes on which line everything stands, the toml package
// turns the text into maps (load.go), decode.go puts the maps into the structs below, and validate.go checks what takes
// more than one value to see. The first two stop at the first mistake; the last two collect every one.
//
// Each field below states its unit, default and range, and whether a reload applies it. docs/configuration.md says the
// same to users; a test compares keys, types, defaults and ranges. The tags are what the decoder goes by: toml is the
// key, range the least and greatest value ("0|" in front allows 0 too), oneof the words allowed, later the words of
// versions to come.
package config

import (
	"net/netip"
	"time"
)

// Config is a whole configuration. Treat it as immutable once loaded: the running system shares it.
type Config struct {
	Log       Log         `toml:"log"`
	Admin     Admin       `toml:"admin"`
	Engine    Engine      `toml:"engine"`
	Defaults  Defaults    `toml:"defaults"`  // decoded before the two below, which start from it
	Frontends []*Frontend `toml:"frontends"` // tables by name, in file order
	Pools     []*Pool     `toml:"pools"`     // tables by name, in file order

	// Warnings tells of what is legal but surely a mistake, such as a pool that nobody uses: one line each, written as
	// errors are, in file order.
	Warnings []string `toml:"-"`
}

// Log is where awe4lb tells what it does. A reload applies it.
type Log struct {
	Level  string    `toml:"level" oneof:"debug info warn error"` // default info
	Format string    `toml:"format" oneof:"text json"`            // default text
	Output string    `toml:"output"`                              // stdout, stderr or a file path; default stderr; SIGUSR1 reopens files
	Access AccessLog `toml:"access"`
}

// AccessLog is one line per ended session. A reload applies it.
type AccessLog struct {
	Output string `toml:"output"`                   // stdout, stderr, a file path, or "" for none; default ""
	Format string `toml:"format" oneof:"text json"` // default: log.format
}

// Admin is the REST API and the metrics.
type Admin struct {
	// Bind is host:port or unix:/path; port 0 takes any free one, "" is off. Default 127.0.0.1:7070. Only loopback
	// addresses and unix sockets are accepted: the admin has no credentials yet. A change needs a restart.
	Bind string `toml:"bind"`

	// Address is Bind, parsed; the zero Address when Bind is "". localhost is 127.0.0.1.
	Address Address `toml:"-"`
}

// Engine sizes the data plane.
type Engine struct {
	Shards         int           `toml:"shards" range:"0..1024"`                // event loops; default 0 = one per CPU the process may use; a change needs a restart
	MaxConnections int           `toml:"max_connections" range:"0..2147483647"` // TCP sessions at once in the whole process; default 0 = derived from RLIMIT_NOFILE; a reload applies it
	ReadBuffer     Size          `toml:"read_buffer" range:"16KiB..1MiB"`       // bytes read at once, one buffer per shard; default 256KiB; a change needs a restart
	Splice         bool          `toml:"splice"`                                // move bulk data in the kernel by splice(2); default true; a reload applies it to new sessions
	SplicePipes    int           `toml:"splice_pipes" range:"0..65536"`         // pipes a shard may hold at once; default 128; a reload applies it
	DrainTimeout   time.Duration `toml:"drain_timeout" range:"0s..24h"`         // how long SIGTERM waits for sessions to end; default 30s; a reload applies it
	User           string        `toml:"user"`                                  // user to become after binding when started as root; default "" = stay; a change needs a restart
	Group          string        `toml:"group"`                                 // group to become, with user; default "" = the user's own; a change needs a restart
}

// Defaults are inherited by every frontend and pool that does not set its own. A reload applies them to new sessions.
type Defaults struct {
	ConnectTimeout   time.Duration `toml:"connect_timeout" range:"1ms..10m"`          // default 5s; per attempt; pools take it
	IdleTimeout      time.Duration `toml:"idle_timeout" range:"0|100ms..8760h"`       // default 10m, 0 = none; no byte either way; frontends take it
	HalfCloseTimeout time.Duration `toml:"half_close_timeout" range:"0|100ms..8760h"` // default 1m, 0 = none; no byte after one side has ended; frontends take it
	MaxLifetime      time.Duration `toml:"max_lifetime" range:"0|1s..8760h"`          // default 0 = none; up to a tenth shorter, at random; frontends take it
	TCP              TCP           `toml:"tcp"`
}

// TCP holds socket options, for the client's side in a frontend and for the backend's side in a pool. Each key that is
// not set there comes from [defaults.tcp]. A reload applies them to new connections.
type TCP struct {
	NoDelay     bool          `toml:"nodelay"`                         // TCP_NODELAY; default true
	Keepalive   time.Duration `toml:"keepalive" range:"0|1s..32767s"`  // idle time before the first probe, whole seconds; default 1m, 0 = off
	UserTimeout time.Duration `toml:"user_timeout" range:"0|1ms..24h"` // TCP_USER_TIMEOUT, whole milliseconds; default 0 = the system's
	Backlog     int           `toml:"backlog" range:"0|1..65535"`      // accept queue of a listener; default 0 = net.core.somaxconn; frontends and [defaults] only
	FastOpen    bool          `toml:"fastopen"`                        // TCP Fast Open, both as listener and towards backends; default false
}

// Frontend is an address to listen on, the protocol spoken there, and where its connections go. A reload applies
// all of it: addresses that stay keep their sockets and their queues, sessions that live go on as they began.
type Frontend struct {
	Name           string   `toml:"-"`                                     // the table's name: letters, digits, '-', '_' and '.', at most 64
	Bind           []string `toml:"bind"`                                  // required; host:port, [v6]:port, :port or *:port for every address, port ranges 8000-8010, unix:/path
	Protocol       string   `toml:"protocol" oneof:"tcp udp"`              // default tcp
	Pool           string   `toml:"pool"`                                  // where connections go when no route matches; default "" = refuse them
	Routes         []*Route `toml:"routes"`                                // in order, the first that matches decides
	MaxConnections int      `toml:"max_connections" range:"0..2147483647"` // sessions at once; default 0 = no limit; udp has udp.max_flows
	UnixMode       uint32   `toml:"unix_mode" range:"0000..0777"`          // permission of unix sockets as an octal string; default "0660"

	IdleTimeout      time.Duration `toml:"idle_timeout" range:"0|100ms..8760h"`       // see Defaults
	HalfCloseTimeout time.Duration `toml:"half_close_timeout" range:"0|100ms..8760h"` // see Defaults
	MaxLifetime      time.Duration `toml:"max_lifetime" range:"0|1s..8760h"`          // see Defaults
	TCP              TCP           `toml:"tcp"`                                       // see TCP; protocol tcp only
	UDP              UDP           `toml:"udp"`                                       // see UDP; protocol udp only

	// Addresses is Bind, parsed and expanded, in order and without duplicates (port 0 never counts as one).
	Addresses []Address `toml:"-"`
}

// IsUDP reports whether f takes datagrams and not connections.
func (f *Frontend) IsUDP() bool { return f.Protocol == "udp" }

// UDP is how a frontend with protocol udp keeps its flows. A flow is a client's address and port and the backend chosen
// for it. A reload applies it: to the flows there are too, except where it says new flows.
type UDP struct {
	Mode    string `toml:"mode" oneof:"flow datagram"` // flow: all datagrams of a client go to one backend; datagram: each is balanced by itself; default flow; new flows
	Replies bool   `toml:"replies"`                    // default true; false, in mode datagram only: what backends answer is dropped

	BufferSize       Size          `toml:"buffer_size" range:"1..65507"`         // bytes, the largest datagram relayed; default 16384; larger ones are dropped and counted, never cut
	IdleTimeout      time.Duration `toml:"idle_timeout" range:"100ms..24h"`      // default 60s; after the last datagram either way, once the backend has answered
	UnrepliedTimeout time.Duration `toml:"unreplied_timeout" range:"100ms..24h"` // default 5s; after the client's last datagram, while the backend has not answered
	MaxFlows         int           `toml:"max_flows" range:"1..16777216"`        // at once; default 65536; when full, an unreplied flow makes room, else the new one is refused
	MaxRequests      int           `toml:"max_requests" range:"0..2147483647"`   // datagrams of a client to one backend, then it is balanced anew; default 0 = no limit
	MaxResponses     int           `toml:"max_responses" range:"0..2147483647"`  // datagrams a backend may answer to a flow, then it ends; default 0 = no limit

	NewFlowRate     int `toml:"new_flow_rate" range:"0..1000000"`  // new flows per second of one source prefix; default 0 = no limit
	NewFlowPrefixV4 int `toml:"new_flow_prefix_v4" range:"0..32"`  // bits of an IPv4 source prefix; default 24
	NewFlowPrefixV6 int `toml:"new_flow_prefix_v6" range:"0..128"` // bits of an IPv6 source prefix; default 56

	OnBackendGone string         `toml:"on_backend_gone" oneof:"move keep cut"` // flows of a backend that refuses or is removed: move to another, keep until idle, or cut; default move
	Transparent   bool           `toml:"transparent"`                           // backends see the client's address and port; default false; needs CAP_NET_ADMIN and routes; new flows
	SharedSource  []netip.Prefix `toml:"shared_source"`                         // AnyIP prefixes: an address per flow instead of a socket per flow; default none; new flows

	GSO           bool `toml:"gso"`                               // send equal datagrams of a flow together (UDP_SEGMENT); default true
	GRO           bool `toml:"gro"`                               // take datagrams of a flow together (UDP_GRO); default false; new flows
	ReceiveBuffer Size `toml:"receive_buffer" range:"4KiB..1GiB"` // SO_RCVBUF of each listener; default 4MiB; the kernel may give less
	ReplyBuffer   Size `toml:"reply_buffer" range:"4KiB..1GiB"`   // SO_RCVBUF of each flow's socket; default 1MiB; the kernel may give less; new flows
}

// Route sends the connections that match to a pool. A reload applies it to new sessions.
type Route struct {
	Match Match  `toml:"match"` // required
	Pool  string `toml:"pool"`  // required
}

// Match holds conditions; all that are given must hold, and at least one is given.
type Match struct {
	// Source: the client's address is in one of these prefixes; single addresses are allowed. IPv6 prefixes never
	// contain IPv4 clients: ::/0 is every IPv6 client and 0.0.0.0/0 every IPv4 client.
	Source []netip.Prefix `toml:"source"`
}

// Pool is a set of backends and how to choose among them. A reload applies it to new sessions.
type Pool struct {
	Name            string        `toml:"-"`                                                                                             // the table's name, as for frontends
	Policy          string        `toml:"policy" oneof:"random roundrobin leastconn iphash" later:"leastbandwidth leasttime p2c maglev"` // default roundrobin
	Backends        []*Backend    `toml:"backends"`
	ConnectTimeout  time.Duration `toml:"connect_timeout" range:"1ms..10m"` // see Defaults
	ConnectAttempts int           `toml:"connect_attempts" range:"1..16"`   // backends tried for one client; default 3
	Source          []netip.Addr  `toml:"source"`                           // addresses to connect from, used in turn; default: the system's choice
	TCP             TCP           `toml:"tcp"`                              // see TCP
}

// Backend is one address in one pool. A reload applies it; a backend that stays keeps its counters.
type Backend struct {
	Address        Address `toml:"address"`                               // required; ip:port, [v6]:port, [v6%zone]:port, localhost:port or unix:/path
	Weight         int     `toml:"weight" range:"0..1000"`                // share of new connections; default 1; 0 = none
	Priority       int     `toml:"priority" range:"0..255"`               // tier; default 0; the lowest tier with a usable backend serves
	MaxConnections int     `toml:"max_connections" range:"0..2147483647"` // sessions at once; default 0 = no limit
}

// Frontend returns the frontend of that name, or nil. It searches: keep the result.
func (c *Config) Frontend(name string) *Frontend {
	for _, f := range c.Frontends {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Pool returns the pool of that name, or nil. It searches: keep the result.
func (c *Config) Pool(name string) *Pool {
	for _, p := range c.Pools {
		if p.Name == name {
			return p
		}
	}
	return nil
}
