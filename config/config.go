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
// versions to come, remote an address of another machine, secret marks what is never printed.
package config

import (
	"fmt"
	"maps"
	"net/netip"
	"time"
)

// Config is a whole configuration. Treat it as immutable once loaded: the running system shares it.
type Config struct {
	Log       Log         `toml:"log"`
	Admin     Admin       `toml:"admin"`
	Engine    Engine      `toml:"engine"`
	ACME      ACME        `toml:"acme"`
	Defaults  Defaults    `toml:"defaults"`  // decoded before the two below, which start from it
	Frontends []*Frontend `toml:"frontends"` // tables by name, in file order
	Pools     []*Pool     `toml:"pools"`     // tables by name, in file order

	// Warnings tells of what is legal but surely a mistake, such as a pool that nobody uses: one line each, written as
	// errors are, in file order.
	Warnings []string `toml:"-"`

	// at finds where a field stands, nil if no file was read. A function, so that printing a Config does not print what fields
	// point to.
	at func(field any) *Error

	// place finds where the key with this path stands, as at does, and by "" the file; a function for the same reason.
	place func(path string) *Error

	// reach is what Reach returns, a function for the same reason.
	reach func() Reach
}

// At returns where a field stands, as "FILE:LINE: KEY", for mistakes that show only later: a file that is missing, a name
// that nobody knows. field is a pointer to the field, or to an element of a list; "" if the file does not set it. Safe
// from any goroutine.
func (c *Config) At(field any) string {
	if c.at != nil {
		if e := c.at(field); e != nil {
			return fmt.Sprintf("%s:%d: %s", escape(e.File), e.Line, e.Key)
		}
	}
	return ""
}

// Mistake returns a mistake that shows only later, at the place of field as At has it. Safe from any goroutine.
func (c *Config) Mistake(field any, problem string) *Error {
	e := &Error{File: "awe4lb.toml"} // not read from a file
	if c.at != nil {
		if found := c.at(field); found != nil {
			e = found
		}
	}
	e.Problem = problem
	return e
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

// Admin is the REST API, the web page and the metrics. A reload applies all of it but bind and tls.
type Admin struct {
	// Bind is host:port or unix:/path; port 0 takes any free one, "" is off. Default 127.0.0.1:7070. Any address but loopback
	// and unix sockets needs users, tokens or tls.client_ca. A change needs a restart.
	Bind string `toml:"bind"`

	Hosts     []string      `toml:"hosts"`                                         // names and addresses by which clients may call it, besides the address bound and loopback; default none
	Anonymous string        `toml:"anonymous" oneof:"none read operate configure"` // what who shows no credentials may do; default configure, or none where there are users, tokens or tls.client_ca
	Users     []*AdminUser  `toml:"users"`                                         // who logs in with a password, by name
	Tokens    []*AdminToken `toml:"tokens"`                                        // programs, by name
	TLS       *AdminTLS     `toml:"tls"`                                           // nil: plain HTTP
	Configs   string        `toml:"configs"`                                       // folder of named configurations; default "" = awe4lb.d beside the configuration file
	AllowExec bool          `toml:"allow_exec"`                                    // configurations that come by the API may start programs and name any file, unix socket and variable, see Beyond; default false
	Upgrade   []string      `toml:"upgrade"`                                       // program and arguments, without a shell, that POST /api/v1/upgrade starts; default none
	Compat    string        `toml:"compat" oneof:"none gobetween"`                 // default none; gobetween: /servers, /dump and /ping as gobetween has them
	Push      AdminPush     `toml:"push"`                                          // see AdminPush

	// Address is Bind, parsed; the zero Address when Bind is "". localhost is 127.0.0.1.
	Address Address `toml:"-"`
}

// HasCredentials reports whether anybody can show who they are.
func (a *Admin) HasCredentials() bool {
	return len(a.Users) > 0 || len(a.Tokens) > 0 || a.TLS != nil && a.TLS.ClientCA != ""
}

// AdminUser is a person. A role may also do what the roles before it may: read sees everything but secrets, operate changes
// what a reload would not (drain, weights, kill), configure changes configurations.
type AdminUser struct {
	Name         string `toml:"-"`                                   // the table's name, as for frontends
	PasswordHash string `toml:"password_hash" secret:"true"`         // bcrypt or argon2id, as awe4lb password makes it; required
	Role         string `toml:"role" oneof:"read operate configure"` // default read
}

// AdminToken is a program, which sends the token as "Authorization: Bearer TOKEN". Exactly one of token and file is given.
type AdminToken struct {
	Name  string `toml:"-"`                                   // the table's name, as for frontends
	Token string `toml:"token" secret:"true"`                 // at least 16 bytes; from the environment: "${NAME}"
	File  string `toml:"file"`                                // path of a file that holds the token alone
	Role  string `toml:"role" oneof:"read operate configure"` // default read
}

// AdminTLS is how the admin speaks TLS. Paths count from the folder of the configuration file. A change needs a restart, but
// files that change are read again.
type AdminTLS struct {
	Cert       string `toml:"cert"`                                       // PEM file, leaf first; may hold the key too; required
	Key        string `toml:"key"`                                        // PEM file; default "" = in cert
	ClientCA   string `toml:"client_ca"`                                  // PEM file of those who may have signed client certificates; default "" = none are asked for
	ClientRole string `toml:"client_role" oneof:"read operate configure"` // of who shows such a certificate; default read
}

// AdminPush sends the metrics to somebody who does not come for them, in Prometheus' text format: VictoriaMetrics'
// /api/v1/import/prometheus takes them.
type AdminPush struct {
	URL      string        `toml:"url" secret:"true"`          // http or https; default "" = off
	Interval time.Duration `toml:"interval" range:"1s..1h"`    // default 10s
	Labels   string        `toml:"labels"`                     // added to each series, such as instance="a"; default ""
	Bearer   string        `toml:"bearer_token" secret:"true"` // default none
}

// String returns the settings without the secrets, so that no message shows them by accident.
func (p AdminPush) String() string { return "every " + p.Interval.String() }

// String returns the settings without the secret, so that no message shows it by accident.
func (u *AdminUser) String() string { return u.Name + " (" + u.Role + ")" }

// String returns the settings without the secret, so that no message shows it by accident.
func (t *AdminToken) String() string { return t.Name + " (" + t.Role + ")" }

// Engine sizes the data plane.
type Engine struct {
	Shards          int           `toml:"shards" range:"0..1024"`                // event loops; default 0 = one per CPU the process may use; a change needs a restart
	MaxConnections  int           `toml:"max_connections" range:"0..2147483647"` // TCP sessions at once in the whole process; default 0 = derived from RLIMIT_NOFILE; a reload applies it
	ConnectionRate  int           `toml:"connection_rate" range:"0..1000000"`    // new TCP sessions per second in the whole process; default 0 = no limit; a reload applies it
	ConnectionBurst int           `toml:"connection_burst" range:"0..1000000"`   // how many of them may come at once; default 0 = as many as in a second; a reload applies it
	ReadBuffer      Size          `toml:"read_buffer" range:"16KiB..1MiB"`       // bytes read at once, one buffer per shard; default 256KiB; a change needs a restart
	Splice          bool          `toml:"splice"`                                // move bulk data in the kernel by splice(2); default true; a reload applies it, also to sessions that live
	SplicePipes     int           `toml:"splice_pipes" range:"0..65536"`         // pipes a shard may hold at once; default 128; a reload applies it
	DrainTimeout    time.Duration `toml:"drain_timeout" range:"0s..24h"`         // how long SIGTERM waits for sessions to end; default 30s; a reload applies it
	User            string        `toml:"user"`                                  // user to become after binding when started as root; default "" = stay; a change needs a restart
	Group           string        `toml:"group"`                                 // group to become, with user; default "" = the user's own; a change needs a restart

	// Zone is where this process runs, for pools with prefer_zone. Default "" = unknown. A reload applies it.
	Zone string `toml:"zone"`

	// Name tells this process from others of its kind, for pools with subset. Default "" = the host's name. A reload applies it.
	Name string `toml:"name"`

	// DiscoveryAllow are the only addresses that sources of discovery may be asked at over the network, name servers included;
	// what a kind forbids by itself stays forbidden. Default none = any. A reload applies it.
	DiscoveryAllow []netip.Prefix `toml:"discovery_allow"`

	// Those who make TLS handshakes: threads beside the shards, which never wait for the network. A change needs a restart.
	TLSWorkers int   `toml:"tls_workers" range:"0..1024"` // default 0 = as many as shards
	TLSNice    int   `toml:"tls_nice" range:"0..19"`      // their nice value: above 0, a flood of handshakes gives way to other traffic, and costs more each; default 0
	TLSCPUs    []int `toml:"tls_cpus" range:"0..1023"`    // the CPUs they may run on; default all

	// TicketSecret is a file of at least 32 random bytes; processes that share it resume each other's TLS sessions. Default "" =
	// a random secret. A reload applies it.
	TicketSecret string `toml:"ticket_secret"`
}

// ACME is where certificates come from that frontends want by tls.acme. A reload applies it.
type ACME struct {
	Directory string `toml:"directory"`                  // URL of the CA's directory; default https://acme-v02.api.letsencrypt.org/directory
	CA        string `toml:"ca"`                         // PEM file of those who may have signed the CA's own web server; default "" = the system's
	Email     string `toml:"email"`                      // for the account; default none
	EABKeyID  string `toml:"eab_key_id"`                 // external account binding, where the CA wants one; default none
	EABHMAC   string `toml:"eab_hmac_key" secret:"true"` // base64url without padding; with eab_key_id; default none
	Storage   string `toml:"storage"`                    // folder for the account, keys and certificates, made with mode 0700; default "acme"
	Agree     bool   `toml:"agree"`                      // the CA's terms of service are agreed to; required to be true; default false
}

// String returns the settings without the secret, so that no message shows it by accident.
func (a ACME) String() string {
	if a.EABHMAC != "" {
		a.EABHMAC = "(not shown)"
	}
	type plain ACME
	return fmt.Sprintf("%+v", plain(a))
}

// GoString is String.
func (a ACME) GoString() string { return a.String() }

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

	// Limits of new sessions, protocol tcp only. A burst is how many may come at once; 0 is as many as in a second.
	MaxConnectionsPerSource  int `toml:"max_connections_per_source" range:"0..2147483647"` // sessions at once of one source prefix; default 0 = no limit
	ConnectionRate           int `toml:"connection_rate" range:"0..1000000"`               // new sessions per second; default 0 = no limit
	ConnectionBurst          int `toml:"connection_burst" range:"0..1000000"`              // default 0
	ConnectionRatePerSource  int `toml:"connection_rate_per_source" range:"0..1000000"`    // those of one source prefix; default 0 = no limit
	ConnectionBurstPerSource int `toml:"connection_burst_per_source" range:"0..1000000"`   // default 0
	SourcePrefixV4           int `toml:"source_prefix_v4" range:"1..32"`                   // bits of an IPv4 source prefix; default 32
	SourcePrefixV6           int `toml:"source_prefix_v6" range:"1..128"`                  // bits of an IPv6 source prefix; default 64

	// Bandwidth in bytes a second, of what comes from clients and of what goes to them each, as it is relayed. Datagrams that are over
	// are dropped. A reload changes those that a session has; a session that began without any keeps none.
	Bandwidth           Size `toml:"bandwidth" range:"0|1KiB..1024GiB"`             // of the frontend; default 0 = no limit
	BandwidthPerSource  Size `toml:"bandwidth_per_source" range:"0|1KiB..1024GiB"`  // of one source prefix; default 0 = no limit
	BandwidthPerSession Size `toml:"bandwidth_per_session" range:"0|1KiB..1024GiB"` // of one session or flow; default 0 = no limit

	IdleTimeout      time.Duration `toml:"idle_timeout" range:"0|100ms..8760h"`       // see Defaults
	HalfCloseTimeout time.Duration `toml:"half_close_timeout" range:"0|100ms..8760h"` // see Defaults
	MaxLifetime      time.Duration `toml:"max_lifetime" range:"0|1s..8760h"`          // see Defaults
	TCP              TCP           `toml:"tcp"`                                       // see TCP; protocol tcp only
	UDP              UDP           `toml:"udp"`                                       // see UDP; protocol udp only

	HelloTimeout           time.Duration `toml:"hello_timeout" range:"100ms..10m"`             // default 5s, from accept: to receive what routing needs, a ClientHello
	MaxHandshakes          int           `toml:"max_handshakes" range:"0..1048576"`            // clients at once that have not said their ClientHello or finished their handshake; default 8192, 0 = no limit
	MaxHandshakesPerPrefix int           `toml:"max_handshakes_per_prefix" range:"0..1048576"` // those of one source prefix (/24, IPv6 /48); default 1024, 0 = no limit
	UnknownName            string        `toml:"unknown_name" oneof:"default reject any"`      // default: the frontend's pool takes names that no route has; reject: an alert, also for names that no certificate has where no route looks at the name; any: the pools of all routes in turn
	STARTTLS               string        `toml:"starttls" oneof:"none postgres"`               // default none; postgres: clients ask for TLS in PostgreSQL's way
	ACMEChallenges         bool          `toml:"acme_challenges"`                              // answer HTTP-01 challenges here, plain HTTP on port 80; all else goes to the pool; default false
	ProxyProtocol          ProxyProtocol `toml:"proxy_protocol"`                               // see ProxyProtocol; protocol tcp only
	Access                 Access        `toml:"access"`                                       // see Access
	TLS                    *FrontendTLS  `toml:"tls"`                                          // nil: TLS is not terminated here

	// Addresses is Bind, parsed and expanded, in order and without duplicates (port 0 never counts as one).
	Addresses []Address `toml:"-"`
}

// IsUDP reports whether f takes datagrams and not connections.
func (f *Frontend) IsUDP() bool { return f.Protocol == "udp" }

// UDP is how a frontend with protocol udp keeps its flows. A flow is a client's address and port and the backend chosen
// for it. A reload applies it: to the flows there are too, except where it says new flows, and limits, which end none.
type UDP struct {
	Mode    string `toml:"mode" oneof:"flow datagram"` // flow: all datagrams of a client go to one backend; datagram: each is balanced by itself; default flow
	Replies bool   `toml:"replies"`                    // default true; false, in mode datagram only: what backends answer is dropped

	BufferSize       Size          `toml:"buffer_size" range:"1..65507"`         // bytes, the largest datagram relayed; default 16384; larger ones are dropped and counted, never cut
	IdleTimeout      time.Duration `toml:"idle_timeout" range:"100ms..24h"`      // default 60s; after the last datagram either way, once the backend has answered
	UnrepliedTimeout time.Duration `toml:"unreplied_timeout" range:"100ms..24h"` // default 5s; after the client's last datagram, while the backend has not answered
	MaxFlows         int           `toml:"max_flows" range:"1..16777216"`        // at once; default 65536; when full, an unreplied flow makes room, else the new one is refused
	MaxRequests      int           `toml:"max_requests" range:"0..2147483647"`   // datagrams of a client to one backend, then it is balanced anew; default 0 = no limit
	MaxResponses     int           `toml:"max_responses" range:"0..2147483647"`  // datagrams a backend may answer to a flow, then it ends; default 0 = no limit

	NewFlowRate       int `toml:"new_flow_rate" range:"0..1000000"`         // new flows per second of one source prefix; default 0 = no limit
	MaxFlowsPerSource int `toml:"max_flows_per_source" range:"0..16777216"` // flows at once of one source prefix; default 0 = no limit
	NewFlowPrefixV4   int `toml:"new_flow_prefix_v4" range:"0..32"`         // bits of an IPv4 source prefix, for these two; default 24
	NewFlowPrefixV6   int `toml:"new_flow_prefix_v6" range:"0..128"`        // bits of an IPv6 source prefix, for these two; default 56

	OnBackendGone string         `toml:"on_backend_gone" oneof:"move keep cut"` // flows of a backend that refuses, is removed, or is down: move to another, keep until idle, or cut; default move
	Transparent   bool           `toml:"transparent"`                           // backends see the client's address and port; default false; needs CAP_NET_ADMIN and routes; new flows
	SharedSource  []netip.Prefix `toml:"shared_source"`                         // AnyIP prefixes: an address per flow instead of a socket per flow; default none; new flows

	GSO           bool `toml:"gso"`                               // send equal datagrams of a flow together (UDP_SEGMENT); default true
	GRO           bool `toml:"gro"`                               // take datagrams of a flow together (UDP_GRO); default false; new flows
	ReceiveBuffer Size `toml:"receive_buffer" range:"4KiB..1GiB"` // SO_RCVBUF of each listener; default 4MiB; the kernel may give less
	ReplyBuffer   Size `toml:"reply_buffer" range:"4KiB..1GiB"`   // SO_RCVBUF of each flow's socket; default 1MiB; the kernel may give less; new flows
}

// ProxyProtocol is whether clients come through a proxy that tells who they are, by a header of HAProxy's PROXY protocol
// before all else: of a connection, of every datagram, or of the first datagram from a socket of the proxy. The address in it
// takes the place of the sender's: in routes, policies, limits and logs. A reload applies it to new sessions, and to datagrams.
type ProxyProtocol struct {
	Accept  string         `toml:"accept" oneof:"off optional required"` // default off; optional: trusted proxies may send one; required: they must, and nobody else is served
	Trusted []netip.Prefix `toml:"trusted"`                              // the proxies; required unless accept is off. Those on unix sockets always are
}

// Access is who may use a frontend: connections and flows. A reload applies it to new ones, and to the flows there are.
// Clients on unix sockets always may: the socket's mode says who comes there.
type Access struct {
	Default string        `toml:"default" oneof:"allow deny"` // of clients in no rule; default allow
	Rules   []*AccessRule `toml:"rules"`                      // in order, the first that has the client decides; default none
}

// AccessRule is one rule of Access. It has exactly one key. A file has one prefix a line; what follows # or ; is a comment.
// It is read again when it changes.
type AccessRule struct {
	Allow     []netip.Prefix `toml:"allow"`      // prefixes as in Match.Source
	Deny      []netip.Prefix `toml:"deny"`       // the same
	AllowFile string         `toml:"allow_file"` // path of a file of them
	DenyFile  string         `toml:"deny_file"`  // the same
}

// Allows reports what the rule says of the clients it has.
func (r *AccessRule) Allows() bool { return r.Allow != nil || r.AllowFile != "" }

// File returns the path of the rule's file and the field that names it; "" when the prefixes are in the rule.
func (r *AccessRule) File() (path string, field *string) {
	if r.AllowFile != "" {
		return r.AllowFile, &r.AllowFile
	}
	return r.DenyFile, &r.DenyFile
}

// FrontendTLS is how a frontend terminates TLS. A reload applies it to new handshakes. Paths of files that are not
// absolute count from the folder of the configuration file, here and in the other tables about TLS.
type FrontendTLS struct {
	Certificates []*CertificateFiles `toml:"certificates"` // the first is the default, the others are chosen by SNI; required unless acme has names
	ACME         []string            `toml:"acme"`         // DNS names to get certificates for: see [acme]; default none

	MinVersion       string        `toml:"min_version" oneof:"1.0 1.1 1.2 1.3"`  // default "1.2"
	MaxVersion       string        `toml:"max_version" oneof:"1.0 1.1 1.2 1.3"`  // default "1.3"
	Ciphers          []string      `toml:"ciphers"`                              // of TLS 1.2 and below, by IANA name; default Go's choice
	Curves           []string      `toml:"curves"`                               // key exchanges; default Go's choice
	ALPN             []string      `toml:"alpn"`                                 // application protocols, the preferred first; default none
	HandshakeTimeout time.Duration `toml:"handshake_timeout" range:"100ms..10m"` // default 10s, from accept

	ClientAuth string `toml:"client_auth" oneof:"none request require"` // client certificates; default none, or require when client_ca is set
	ClientCA   string `toml:"client_ca"`                                // PEM file of those who may have signed them

	SessionTickets bool `toml:"session_tickets"` // default true
	OCSPStapling   bool `toml:"ocsp_stapling"`   // ask the issuer's OCSP responder, where a certificate names one, and staple its answer; default true
}

// CertificateFiles is a certificate chain with its key.
type CertificateFiles struct {
	Cert string `toml:"cert"` // PEM file, leaf first; may hold the key too; required
	Key  string `toml:"key"`  // PEM file; default "" = in cert
	OCSP string `toml:"ocsp"` // file with an OCSP response in DER to staple; default "" = see ocsp_stapling

	// SelfSigned are names and IP addresses. When neither file exists, a self-signed pair for them is made. Default none.
	SelfSigned []string `toml:"self_signed"`
}

// PoolTLS is how a pool speaks TLS to its backends. A reload applies it to new connections.
type PoolTLS struct {
	ServerName string `toml:"server_name"` // whom to expect and to ask for; default: the backend's IP address
	CA         string `toml:"ca"`          // PEM file of those who may have signed the backends' certificates; default "" = the system's
	Cert       string `toml:"cert"`        // our certificate for backends that want one, PEM file; may hold the key too; default none
	Key        string `toml:"key"`         // PEM file with its key; default "" = in cert

	MinVersion       string        `toml:"min_version" oneof:"1.0 1.1 1.2 1.3"`  // default "1.2"
	MaxVersion       string        `toml:"max_version" oneof:"1.0 1.1 1.2 1.3"`  // default "1.3"
	Ciphers          []string      `toml:"ciphers"`                              // as for frontends
	Curves           []string      `toml:"curves"`                               // as for frontends
	ALPN             []string      `toml:"alpn"`                                 // default: what the client has agreed on with us, if anything
	HandshakeTimeout time.Duration `toml:"handshake_timeout" range:"100ms..10m"` // default 5s, from connected
	STARTTLS         string        `toml:"starttls" oneof:"none postgres"`       // default: that of the frontend

	SessionCache       bool `toml:"session_cache"`        // resume sessions with each backend; default true
	InsecureSkipVerify bool `toml:"insecure_skip_verify"` // take any certificate; default false; logs a warning
}

// Route sends the connections that match to a pool. A reload applies it to new sessions.
type Route struct {
	Match       Match  `toml:"match"`       // required
	Pool        string `toml:"pool"`        // required
	Passthrough bool   `toml:"passthrough"` // leave TLS to the backend though the frontend has a tls table; default false
}

// Match holds conditions; all that are given must hold, and at least one is given.
type Match struct {
	// Source: the client's address is in one of these prefixes; single addresses are allowed. IPv6 prefixes never
	// contain IPv4 clients: ::/0 is every IPv6 client and 0.0.0.0/0 every IPv4 client.
	Source []netip.Prefix `toml:"source"`

	// The name in the ClientHello, in lower case and without a trailing dot; "" for clients that send none, or an IP address.
	// One of the strings must fit; each key that is given must hold. A frontend with such a condition, or one on alpn, waits
	// for a ClientHello.
	SNI           []string `toml:"sni"`             // the whole name; "*.example.com" is one label more than example.com; "" is no name
	SNIStartsWith []string `toml:"sni_starts_with"` // its beginning
	SNIEndsWith   []string `toml:"sni_ends_with"`   // its end
	SNIContains   []string `toml:"sni_contains"`    // a part of it
	SNIRegexp     []string `toml:"sni_regexp"`      // RE2, anchored at both ends

	ALPN []string `toml:"alpn"` // the client offers one of these protocols

	Not *Match   `toml:"not"` // this does not hold
	Any []*Match `toml:"any"` // one of these holds
	All []*Match `toml:"all"` // each of these holds
}

// Pool is a set of backends and how to choose among them. A reload applies it to new sessions.
type Pool struct {
	Name               string        `toml:"-"`                                                                                     // the table's name, as for frontends
	Policy             string        `toml:"policy" oneof:"random roundrobin leastconn leasttime leastbandwidth p2c iphash maglev"` // default roundrobin
	HashKey            string        `toml:"hash_key" oneof:"source source_port prefix sni"`                                        // what of a client iphash and maglev go by; default source
	HashPrefixV4       int           `toml:"hash_prefix_v4" range:"0..32"`                                                          // bits of an IPv4 address that count, with hash_key = "prefix"; default 24
	HashPrefixV6       int           `toml:"hash_prefix_v6" range:"0..128"`                                                         // the same for IPv6; default 56
	SlowStart          time.Duration `toml:"slow_start" range:"0|100ms..1h"`                                                        // a backend that comes, or comes back up, has its whole weight after this time; default 0 = at once
	PanicThreshold     int           `toml:"panic_threshold" range:"0..100"`                                                        // percent of a tier's weight that must be up for the others to be left out; default 50, 0 = off
	Subset             int           `toml:"subset" range:"0..65535"`                                                               // backends of a tier that this process uses before the others, by engine.name; default 0 = all
	PreferZone         bool          `toml:"prefer_zone"`                                                                           // backends of engine.zone first; default false
	Backends           []*Backend    `toml:"backends"`
	ConnectTimeout     time.Duration `toml:"connect_timeout" range:"1ms..10m"`                       // see Defaults
	ConnectAttempts    int           `toml:"connect_attempts" range:"1..16"`                         // backends tried for one client; default 3
	Source             []netip.Addr  `toml:"source"`                                                 // addresses to connect from, used in turn; default: the system's choice
	TCP                TCP           `toml:"tcp"`                                                    // see TCP
	SendProxy          string        `toml:"send_proxy" oneof:"off v1 v2"`                           // default off; tell backends who the client is, by a header of the PROXY protocol before all else
	SendProxyDatagrams string        `toml:"send_proxy_datagrams" oneof:"every first"`               // of udp frontends: the header is before every datagram, or before the first of a flow only; default every
	ProxyTLVs          []string      `toml:"proxy_tlvs" oneof:"alpn authority tls unique_id crc32c"` // what else version 2 tells; default none
	TLS                *PoolTLS      `toml:"tls"`                                                    // nil: plain
	Persistence        *Persistence  `toml:"persistence"`                                            // nil: a client that comes again has no claim to its backend
	MaxConnections     int           `toml:"max_connections" range:"0..2147483647"`                  // sessions and flows at once on all backends together; default 0 = no limit
	Queue              *Queue        `toml:"queue"`                                                  // nil: who finds no place is turned away
	Outliers           *Outliers     `toml:"outliers"`                                               // nil: what sessions meet takes no backend out of use
	Health             *Health       `toml:"health"`                                                 // nil: every backend is taken to be up
	Discovery          *Discovery    `toml:"discovery"`                                              // nil: the backends named here are all there are
	OnDown             string        `toml:"on_down" oneof:"keep drain cut"`                         // sessions of a backend that goes down: let them be, end them little by little, or reset them at once; default keep
	OnRemoved          string        `toml:"on_removed" oneof:"keep drain cut"`                      // the same, of one that is no longer configured or discovered; default keep
	OnMaintenance      string        `toml:"on_maintenance" oneof:"keep drain cut"`                  // the same, of one that is ordered into maintenance; default drain
	DrainTimeout       time.Duration `toml:"drain_timeout" range:"100ms..24h"`                       // of drain: after it those left are reset; default 30s
	DrainRate          int           `toml:"drain_rate" range:"0..1000000"`                          // of drain: sessions a second, of all backends of the pool; default 0 = spread evenly over drain_timeout
}

// Hashes reports whether the policy of p goes by a hash of the client.
func (p *Pool) Hashes() bool { return p.Policy == "iphash" || p.Policy == "maglev" }

// HashesName reports whether the policy of p goes by the name in the ClientHello.
func (p *Pool) HashesName() bool { return p.Hashes() && p.HashKey == "sni" }

// Persistence is how a client that comes again gets the backend it had: connections, and flows. A reload applies it and keeps
// who has which backend, unless what counts of an address changes.
type Persistence struct {
	Key        string        `toml:"key" oneof:"source prefix"`       // who is the same client: those of one address, or of one network; default source
	PrefixV4   int           `toml:"prefix_v4" range:"0..32"`         // bits of an IPv4 address that count, with key = "prefix"; default 24
	PrefixV6   int           `toml:"prefix_v6" range:"0..128"`        // the same for IPv6; default 56
	TTL        time.Duration `toml:"ttl" range:"1s..8760h"`           // forgotten so long after its last connection or flow began, in whole seconds; default 30m
	MaxEntries int           `toml:"max_entries" range:"1..10000000"` // clients remembered, 29 bytes each; beyond that one who has not come for long gives way; default 100000
}

// Queue is where sessions wait that find no place in a pool: it has its max_connections, or every backend that could be used
// has. The longest waiting is served first. A reload applies it to new sessions. Datagrams never wait.
type Queue struct {
	Size     int           `toml:"size" range:"0..1048576"` // sessions that wait at most, on all shards together; default 0 = nobody waits
	Timeout  time.Duration `toml:"timeout" range:"1ms..1h"` // how long one waits at most; default 5s
	WhenDown bool          `toml:"when_down"`               // wait also while no backend is up; default false
}

// Waits reports whether there is a queue. q may be nil.
func (q *Queue) Waits() bool { return q != nil && q.Size > 0 }

// Outliers is when a pool stops using a backend because it fails one client after the other. A reload applies it.
type Outliers struct {
	Failures    int           `toml:"failures" range:"1..1000"`        // in a row: failed attempts to connect, or sessions reset before the backend said anything; default 5
	Ejection    time.Duration `toml:"ejection" range:"100ms..24h"`     // how long it is not used; default 30s, and twice as long each time it fails again at once
	MaxEjection time.Duration `toml:"max_ejection" range:"100ms..24h"` // at most so long; default 5m
	MaxEjected  int           `toml:"max_ejected" range:"0..100"`      // percent of the backends that may be ejected at once; default 50
	SuccessRate *SuccessRate  `toml:"success_rate"`                    // nil: only what fails in a row counts
}

// SuccessRate is when a pool stops using a backend because it fails more of its clients than the others do. What fails is as for
// failures; of UDP, flows that are refused. A reload applies it.
type SuccessRate struct {
	Interval    time.Duration `toml:"interval" range:"1s..1h"`         // how often backends are compared, by what happened since; default 10s, to a second
	MinRequests int           `toml:"min_requests" range:"1..1000000"` // a backend counts that was tried so often meanwhile; default 100
	MinBackends int           `toml:"min_backends" range:"2..1000"`    // nothing is done while fewer count; default 5
	Deviation   int           `toml:"deviation" range:"1..10000"`      // ejected when so far below the average, in percent of a standard deviation of the rates; default 190
	Margin      int           `toml:"margin" range:"0..100"`           // and at least so many percent of the attempts below it; default 5
}

// Health is how a pool finds out which of its backends are up. A reload applies it: checks that stay the same go on, with
// what they have counted. Which kinds a key is for is in keysOfKind.
type Health struct {
	Kind         string        `toml:"kind" oneof:"none tcp tls http grpc udp exec agent redis postgres mysql pool"` // default tcp
	Interval     time.Duration `toml:"interval" range:"100ms..24h"`                                                  // from the beginning of a probe to that of the next; default 2s
	IntervalDown time.Duration `toml:"interval_down" range:"0|100ms..24h"`                                           // the same while the backend is down; default 0 = interval
	Timeout      time.Duration `toml:"timeout" range:"1ms..10m"`                                                     // of a whole probe, at most the shorter interval; default 1s, or that interval
	Rise         int           `toml:"rise" range:"1..1000"`                                                         // successes in a row that bring a backend up; default 2
	Fall         int           `toml:"fall" range:"1..1000"`                                                         // failures in a row that take it down; default 3
	Initial      string        `toml:"initial" oneof:"up down checking"`                                             // before there are enough results; default up; checking: down until the first result, which decides alone
	Jitter       int           `toml:"jitter" range:"0..50"`                                                         // percent by which each interval is longer or shorter, at random; default 10

	Address netip.Addr `toml:"address" remote:"yes"`  // where to check; default: the backend's
	Port    int        `toml:"port" range:"0..65535"` // the same; default 0 = the backend's; required for agent
	Source  netip.Addr `toml:"source"`                // the address to check from; default: the pool's source, else the system's choice

	// TLS: for tls, and for http, grpc, redis and postgres where tls says so. What is not set comes from the pool's tls.
	TLS                string        `toml:"tls" oneof:"auto yes no"`            // default auto = as the pool does with its backends
	ServerName         string        `toml:"server_name"`                        // whom to expect and to ask for; default "" = the pool's, else the backend's IP address
	CA                 string        `toml:"ca"`                                 // PEM file of those who may have signed the certificate; default "" = the pool's, else the system's
	Cert               string        `toml:"cert"`                               // our certificate, PEM file; may hold the key too; default "" = the pool's
	Key                string        `toml:"key"`                                // PEM file with its key; default "" = in cert
	InsecureSkipVerify bool          `toml:"insecure_skip_verify"`               // take any certificate; default false, or the pool's
	ExpiryWarning      time.Duration `toml:"expiry_warning" range:"0|1h..8760h"` // warn this long before the backend's certificate expires; default 336h, 0 = never

	// http, and host for grpc too.
	Method          string   `toml:"method"`                // default GET
	Path            string   `toml:"path"`                  // with a query if need be; default /
	Host            string   `toml:"host"`                  // header; default server_name, else the address
	Headers         []string `toml:"headers" secret:"true"` // "Name: value"; default none
	Status          string   `toml:"status"`                // good answers, such as "200-299,401"; default 200-399
	Body            string   `toml:"body"`                  // has to be in the body; default "" = anything
	BodyRegexp      string   `toml:"body_regexp"`           // RE2, has to match in the body; default "" = anything
	FollowRedirects bool     `toml:"follow_redirects"`      // on the backend itself, five at the most; default false: 301 and its like are answers

	Service string `toml:"service"` // grpc: whose health to ask for; default "" = the server's

	// tcp, tls, udp and agent: a conversation. C escapes: \n \r \t \0 \\ \xNN.
	Send         string `toml:"send"`                       // what to send first; default nothing; required for udp
	Expect       string `toml:"expect"`                     // what the answer has to begin with; postgres: what query has to give; default "" = anything
	ExpectRegexp string `toml:"expect_regexp"`              // RE2, has to match in the answer; default "" = anything
	ReadLimit    Size   `toml:"read_limit" range:"1..1MiB"` // bytes of an answer or a body that are looked at; default 64KiB

	// exec.
	Command    []string `toml:"command"`     // program and arguments, without a shell; $host and $port stand for where to check; required
	OutputUp   string   `toml:"output_up"`   // standard output that means up; default "" = exit status 0 does
	OutputDown string   `toml:"output_down"` // standard output that means down; any other means nothing, when either is set

	// redis, postgres, mysql.
	User     string `toml:"user"`                   // default "" = none is needed to know that it answers
	Password string `toml:"password" secret:"true"` // redis, postgres; default none
	Database string `toml:"database"`               // postgres; default "" = user
	Query    string `toml:"query"`                  // postgres, with user; default "" = none

	// pool.
	Pool   string `toml:"pool"`                    // whose health counts; required
	Follow string `toml:"follow" oneof:"host any"` // of what: of its backends with the same IP address, or whether it has any that is up; default host

	// What the texts above mean.
	StatusSet   []StatusRange `toml:"-"`
	SendBytes   []byte        `toml:"-"`
	ExpectBytes []byte        `toml:"-"`
	UseTLS      bool          `toml:"-"` // tls, with the kind and the pool
}

// StatusRange is the HTTP statuses from First to Last.
type StatusRange struct{ First, Last int }

// String returns the settings without the secret, so that no message shows it by accident.
func (h Health) String() string {
	if h.Password != "" {
		h.Password = "(not shown)"
	}
	type plain Health
	return fmt.Sprintf("%+v", plain(h))
}

// GoString is String.
func (h Health) GoString() string { return h.String() }

// Checks reports whether anything is checked. h may be nil.
func (h *Health) Checks() bool { return h != nil && h.Kind != "none" }

// Backend is one address in one pool. A reload applies it; a backend that stays keeps its counters.
type Backend struct {
	Address        Address `toml:"address"`                               // required; ip:port, [v6]:port, [v6%zone]:port, localhost:port or unix:/path
	Weight         int     `toml:"weight" range:"0..1000"`                // share of new connections; default 1; 0 = none
	Priority       int     `toml:"priority" range:"0..255"`               // tier; default 0; the lowest tier with a usable backend serves
	MaxConnections int     `toml:"max_connections" range:"0..2147483647"` // sessions at once; default 0 = no limit
	Zone           string  `toml:"zone"`                                  // where it is, for prefer_zone; default "" = unknown

	// What only discovery says of a backend.
	SNI    string            `toml:"-"` // whom to expect and to ask for by TLS where the pool's tls.server_name is not set; "" = its IP address
	Labels map[string]string `toml:"-"` // shown in status; not to be changed
}

// Same reports whether b and o say the same.
func (b *Backend) Same(o *Backend) bool {
	return b.Address == o.Address && b.Weight == o.Weight && b.Priority == o.Priority && b.MaxConnections == o.MaxConnections &&
		b.Zone == o.Zone && b.SNI == o.SNI && maps.Equal(b.Labels, o.Labels)
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
