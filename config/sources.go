package config

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DockerSource is the containers of a Docker daemon, or of podman's service.
type DockerSource struct {
	URL       string         `toml:"url"`                           // unix:///path, tcp://host:port (TLS when one of its keys is there), http or https; default unix:///var/run/docker.sock
	Labels    []string       `toml:"labels"`                        // KEY or KEY=VALUE; a container must have them all. Default none
	Filters   []string       `toml:"filters"`                       // KEY=VALUE, Docker's own but status; values of one key are alternatives. Default none
	Port      int            `toml:"port" range:"0..65535"`         // of the container; default 0 = what its label says, or the only one it exposes
	Protocol  string         `toml:"protocol" oneof:"tcp udp"`      // of its ports; default tcp
	Network   string         `toml:"network"`                       // on which a container is reached; default "" = what its label says, or its only one. Not with published
	Family    string         `toml:"family" oneof:"ipv4 ipv6"`      // of its address there; default ipv4
	Published bool           `toml:"published"`                     // reach containers by the ports they publish on the host; default false
	Host      netip.Addr     `toml:"host"`                          // of ports published on all addresses, and of containers on the host's network; default that of url, or 127.0.0.1
	HostEnv   string         `toml:"host_env"`                      // a container's environment variable that says host for it; not with network. Default none
	SNILabel  string         `toml:"sni_label"`                     // a label that is the SNI, beside awe4lb.sni. Default none
	Unhealthy bool           `toml:"unhealthy"`                     // also containers whose HEALTHCHECK has not passed; default false
	Allow     []netip.Prefix `toml:"allow"`                         // as for http; this machine is allowed anyway
	Resync    time.Duration  `toml:"resync" range:"1s..1h"`         // how long a stream of events is trusted before all is listed anew; default 30s
	MaxBytes  Size           `toml:"max_bytes" range:"1KiB..64MiB"` // of an answer; default 4MiB
	SourceTLS
}

// LXDSource is the instances of an LXD or Incus server.
type LXDSource struct {
	URL          string         `toml:"url"`                           // unix:///path, or https with cert and key; default unix:///var/lib/lxd/unix.socket
	Fingerprint  string         `toml:"fingerprint"`                   // SHA-256 of the server's certificate: this one and no other. Default "" = who has signed it counts
	Password     Secret         `toml:"password" secret:"true"`        // trust password of LXD, shown once if it does not know our certificate; default none
	PasswordFile string         `toml:"password_file"`                 // a file with it, read each time; default none
	Project      string         `toml:"project"`                       // "*" is all; default "" = that called default
	ConfigKey    string         `toml:"config_key"`                    // a configuration key that an instance must have; default none
	ConfigValue  string         `toml:"config_value"`                  // and its value; default "" = any
	Port         int            `toml:"port" range:"0..65535"`         // default 0 = the instance says it
	PortKey      string         `toml:"port_key"`                      // a configuration key with the port, beside user.awe4lb.port. Default none
	Interface    string         `toml:"interface"`                     // of the instance; default eth0
	InterfaceKey string         `toml:"interface_key"`                 // a configuration key with the interface, beside user.awe4lb.interface. Default none
	SNIKey       string         `toml:"sni_key"`                       // a configuration key with the SNI, beside user.awe4lb.sni. Default none
	Family       string         `toml:"family" oneof:"ipv4 ipv6"`      // default ipv4
	Allow        []netip.Prefix `toml:"allow"`                         // as for http; this machine is allowed anyway
	Resync       time.Duration  `toml:"resync" range:"1s..1h"`         // as for docker; default 30s
	MaxBytes     Size           `toml:"max_bytes" range:"1KiB..64MiB"` // of an answer; default 4MiB
	SourceTLS
}

// KubernetesSource is a service of a cluster. The API server is at url, or where kubeconfig says, or, with neither, where a
// pod finds it.
type KubernetesSource struct {
	Namespace   string         `toml:"namespace"`                                  // "*" is all, with selector; default "" = that of the kubeconfig or the pod, else default
	Service     string         `toml:"service"`                                    // required, or selector
	Selector    string         `toml:"selector"`                                   // labels of services, such as app=web: all that match are one pool
	Port        string         `toml:"port"`                                       // name or number, as text; default "" = the only one there is
	Protocol    string         `toml:"protocol" oneof:"tcp udp"`                   // of its ports; default tcp
	Family      string         `toml:"family" oneof:"both ipv4 ipv6"`              // both: of what has two addresses the first counts; default both
	NodePort    bool           `toml:"node_port"`                                  // not the pods, but the nodes at the service's node port; default false
	NodeAddress string         `toml:"node_address" oneof:"InternalIP ExternalIP"` // with node_port, of the nodes; default InternalIP
	URL         string         `toml:"url"`                                        // of the API server; default ""
	Token       Secret         `toml:"token" secret:"true"`                        // with url; default none
	TokenFile   string         `toml:"token_file"`                                 // a file with it, read for each request; default none
	Kubeconfig  string         `toml:"kubeconfig"`                                 // file, read for each request; its plugins are run. Default ""
	Context     string         `toml:"context"`                                    // of the kubeconfig; default "" = its current one
	Allow       []netip.Prefix `toml:"allow"`                                      // as for http; this machine is allowed anyway
	Wait        time.Duration  `toml:"wait" range:"1s..1h"`                        // how long one watch lasts; default 5m
	MaxBytes    Size           `toml:"max_bytes" range:"1KiB..64MiB"`              // of a page and of an event; default 4MiB
	SourceTLS                  // with url
}

// EtcdSource is the keys of etcd under a prefix, each of whose values is a list, as a rule of one backend.
type EtcdSource struct {
	Endpoints    []string       `toml:"endpoints"`              // 1 to 16 URLs, which are asked one after the other; required
	Prefix       string         `toml:"prefix"`                 // required
	User         string         `toml:"user"`                   // with password or password_file; default none
	Password     Secret         `toml:"password" secret:"true"` // default none
	PasswordFile string         `toml:"password_file"`          // a file with it, read each time; default none
	Allow        []netip.Prefix `toml:"allow"`                  // as for http; this machine is allowed anyway
	Resync       time.Duration  `toml:"resync" range:"1s..1h"`  // how long a watch is trusted before the keys are read anew; default 30s
	SourceTLS
	ListFormat // max_bytes: of all keys and values
}

// RedisSource is a key of Redis: a string that is a list, or a set or a hash of lists, as a rule of one backend.
type RedisSource struct {
	URL          string         `toml:"url"`                    // redis://host:port, rediss:// for TLS, or unix:///path; required
	Name         string         `toml:"name"`                   // of the key; required
	DB           int            `toml:"db" range:"0..65535"`    // default 0
	User         string         `toml:"user"`                   // of an ACL, with password or password_file; default none
	Password     Secret         `toml:"password" secret:"true"` // also without user, for requirepass; default none
	PasswordFile string         `toml:"password_file"`          // a file with it, read each time; default none
	Allow        []netip.Prefix `toml:"allow"`                  // as for http; this machine is allowed anyway
	SourceTLS                   // with rediss://
	ListFormat                  // max_bytes: of all that is read
}

var (
	newDockerSource     = DockerSource{URL: "unix:///var/run/docker.sock", Protocol: "tcp", Family: "ipv4", Resync: 30 * time.Second, MaxBytes: 4 << 20}
	newLXDSource        = LXDSource{URL: "unix:///var/lib/lxd/unix.socket", Interface: "eth0", Family: "ipv4", Resync: 30 * time.Second, MaxBytes: 4 << 20}
	newKubernetesSource = KubernetesSource{Protocol: "tcp", Family: "both", NodeAddress: "InternalIP", Wait: 5 * time.Minute, MaxBytes: 4 << 20}
	newEtcdSource       = EtcdSource{Resync: 30 * time.Second, ListFormat: newListFormat}
	newRedisSource      = RedisSource{ListFormat: newListFormat}
)

// given reports whether the file sets a key, whose value makes sense, to something.
func (d *decoder) given(field any, empty bool) bool {
	at, ok := d.places[field]
	return ok && !at.bad && !empty
}

// only makes sure that keys which are of no use without something else are not there.
func (d *decoder) only(problem, want string, keys ...sourceKey) {
	for _, k := range keys {
		if d.given(k.field, k.empty) {
			d.fail(d.places[k.field], Error{Problem: problem, Want: want})
		}
	}
}

// sourceKey is a field, and whether it has nothing in it.
type sourceKey struct {
	field any
	empty bool
}

func (t *SourceTLS) keys() []sourceKey {
	return []sourceKey{{&t.CA, t.CA == ""}, {&t.Cert, t.Cert == ""}, {&t.Key, t.Key == ""}, {&t.ServerName, t.ServerName == ""}, {&t.InsecureSkipVerify, !t.InsecureSkipVerify}}
}

// checkPlace checks a URL of which the scheme says how to get there, and returns the scheme, or "". It is not repeated: it may
// have a secret that does not belong there.
func (d *decoder) checkPlace(field *string, want string, schemes ...string) string {
	at, given := d.places[field]
	if at.bad {
		return ""
	}
	scheme, rest, _ := strings.Cut(*field, "://")
	bad := Error{Got: "something else, which is not shown here", Want: want}
	switch host, _, _ := strings.Cut(rest, "/"); {
	case strings.Contains(host, "@"):
		bad = Error{Problem: "has a user in it", Want: "it in keys of its own"}
	case strings.ContainsAny(rest, "?#"):
		bad = Error{Problem: "has a query", Want: "it in the other keys"}
	case !slices.Contains(schemes, scheme), scheme == "unix" && !strings.HasPrefix(rest, "/"), scheme != "unix" && host == "":
	default:
		return scheme
	}
	if given {
		d.fail(at, bad)
	}
	return ""
}

// placeDefault gives a field whose key is not there the place of its table, when its default is a unix socket: the socket is
// named by the table then, and Reach has it.
func (d *decoder) placeDefault(field *string, table place) {
	if _, given := d.places[field]; !given && socketIn(field) != "" {
		d.places[field] = table
	}
}

// containerKey is what labels of containers and configuration keys of instances are like.
var containerKey = regexp.MustCompile(`^[^\s=[:cntrl:]]+$`)

func (d *decoder) checkDockerSource(o *DockerSource, table place) {
	scheme := d.checkPlace(&o.URL, "unix:///path, tcp://host:port, http:// or https://", "unix", "tcp", "http", "https")
	d.placeDefault(&o.URL, table)
	for i, l := range o.Labels {
		if key, _, _ := strings.Cut(l, "="); !d.places[&o.Labels[i]].bad && !containerKey.MatchString(key) {
			d.refuse(d.places[&o.Labels[i]], complaint{want: `a label such as "awe4lb.pool=web", or its key alone`})
		}
	}
	for i, f := range o.Filters {
		if key, value, ok := strings.Cut(f, "="); !d.places[&o.Filters[i]].bad && (!ok || key == "" || value == "" || key == "status") {
			d.refuse(d.places[&o.Filters[i]], complaint{want: `a filter such as "name=web", of any key but status: only containers that run are backends`})
		}
	}
	if d.given(&o.Network, o.Network == "") {
		d.only("network is there too", "one of the two", sourceKey{&o.Published, !o.Published}, sourceKey{&o.HostEnv, o.HostEnv == ""})
	}
	if at := d.places[&o.HostEnv]; d.given(&o.HostEnv, o.HostEnv == "") && !variableName(o.HostEnv) {
		d.refuse(at, complaint{want: "the name of a variable such as HOST"})
	}
	if scheme == "unix" || scheme == "http" {
		d.only("is of no use without TLS", "url with tcp:// or https://", o.keys()...)
	}
	d.checkSourceTLS(&o.SourceTLS)
}

// hexFingerprint is a SHA-256 as openssl and lxc write it.
var hexFingerprint = regexp.MustCompile(`^([0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}$`)

func (d *decoder) checkLXDSource(o *LXDSource, table place) {
	scheme := d.checkPlace(&o.URL, "unix:///path or https://host:8443", "unix", "https")
	d.placeDefault(&o.URL, table)
	if d.given(&o.Fingerprint, o.Fingerprint == "") && !hexFingerprint.MatchString(o.Fingerprint) {
		d.refuse(d.places[&o.Fingerprint], complaint{want: "the SHA-256 of the server's certificate, 64 hexadecimal digits"})
	}
	if d.given(&o.ConfigValue, o.ConfigValue == "") && o.ConfigKey == "" {
		d.fail(d.places[&o.ConfigValue], Error{Problem: "is of no use without a key", Want: "config_key too"})
	}
	d.checkSecret(&o.Password, &o.PasswordFile, "password")
	switch scheme {
	case "unix":
		d.only("is of no use with a unix socket", "url with https://", append(o.keys(), sourceKey{&o.Fingerprint, o.Fingerprint == ""},
			sourceKey{&o.Password, o.Password == ""}, sourceKey{&o.PasswordFile, o.PasswordFile == ""})...)
	case "https":
		if _, ok := d.places[&o.Key]; !ok { // else that one is told of
			d.checkMissing(&o.Cert, table.key("cert"), "the certificate that the server knows us by")
		}
	}
	d.checkSourceTLS(&o.SourceTLS)
}

// kubeLabel is what the names of services, namespaces and ports are like.
var kubeLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (d *decoder) checkKubernetesSource(o *KubernetesSource, table place) {
	switch {
	case d.given(&o.Service, o.Service == "") && d.given(&o.Selector, o.Selector == ""):
		d.fail(d.places[&o.Selector], Error{Problem: "service is there too", Want: "one of the two"})
	case d.places[&o.Service].bad || d.places[&o.Selector].bad:
	case o.Service == "" && o.Selector == "":
		d.fail(table.key("service"), Error{Problem: "is missing", Want: "the name of a service, or selector"})
	}
	name := func(field *string, want string, ok bool) {
		if d.given(field, *field == "") && !ok {
			d.refuse(d.places[field], complaint{want: want})
		}
	}
	name(&o.Service, "a name such as web", kubeLabel.MatchString(o.Service))
	name(&o.Namespace, `a name such as shop, or with selector "*"`, kubeLabel.MatchString(o.Namespace) || o.Namespace == "*" && o.Selector != "")
	number, err := strconv.Atoi(o.Port)
	name(&o.Port, `a name such as "http", or a number such as "8080"`, err == nil && number > 0 && number < 1<<16 || err != nil && kubeLabel.MatchString(o.Port))
	if at, ok := d.places[&o.NodeAddress]; ok && !at.bad && !o.NodePort {
		d.fail(at, Error{Problem: "is of no use with pods", Want: "node_port = true"})
	}
	url := d.given(&o.URL, o.URL == "")
	if url {
		d.checkPlace(&o.URL, "a URL such as https://10.0.0.1:6443", "http", "https")
		d.only("url is there too", "one of the two", sourceKey{&o.Kubeconfig, o.Kubeconfig == ""})
	} else if !d.places[&o.URL].bad {
		d.only("is of no use without url", "url too", append(o.keys(), sourceKey{&o.Token, o.Token == ""}, sourceKey{&o.TokenFile, o.TokenFile == ""})...)
	}
	if o.Kubeconfig == "" && !d.places[&o.Kubeconfig].bad {
		d.only("is of no use without kubeconfig", "kubeconfig too", sourceKey{&o.Context, o.Context == ""})
	}
	d.localFile(&o.Kubeconfig)
	d.checkSecret(&o.Token, &o.TokenFile, "token")
	d.checkSourceTLS(&o.SourceTLS)
}

func (d *decoder) checkEtcdSource(o *EtcdSource, table place) {
	const want = `1 to 16 URLs such as ["https://10.0.0.1:2379"]`
	if at, ok := d.places[&o.Endpoints]; !ok {
		d.checkMissing(&o.Endpoints, table.key("endpoints"), want)
	} else if n := len(o.Endpoints); !at.bad && (n == 0 || n > 16) {
		d.fail(at, Error{Got: strconv.Itoa(n), Want: want})
	}
	for i := range o.Endpoints {
		d.checkPlace(&o.Endpoints[i], "a URL such as https://10.0.0.1:2379", "http", "https")
	}
	d.checkGiven(&o.Prefix, o.Prefix == "", table.key("prefix"), "the beginning of keys, such as /backends/web/")
	d.checkSecret(&o.Password, &o.PasswordFile, "password")
	password := o.Password != "" || o.PasswordFile != "" || d.places[&o.Password].bad || d.places[&o.PasswordFile].bad
	switch {
	case d.given(&o.User, o.User == "") && !password:
		d.fail(d.places[&o.User], Error{Problem: "has no password", Want: "password or password_file too"})
	case o.User == "" && !d.places[&o.User].bad:
		d.only("is of no use without a user", "user too", sourceKey{&o.Password, o.Password == ""}, sourceKey{&o.PasswordFile, o.PasswordFile == ""})
	}
	d.checkSourceTLS(&o.SourceTLS)
	d.checkListFormat(&o.ListFormat)
}

func (d *decoder) checkRedisSource(o *RedisSource, table place) {
	const want = "redis://host:port, rediss://host:port or unix:///path"
	if d.checkGiven(&o.URL, o.URL == "", table.key("url"), want) {
		scheme := d.checkPlace(&o.URL, want, "redis", "rediss", "unix")
		host, port, err := net.SplitHostPort(strings.TrimPrefix(o.URL, scheme+"://"))
		n, _ := strconv.ParseUint(port, 10, 16)
		if (scheme == "redis" || scheme == "rediss") && (err != nil || host == "" || n == 0) {
			d.fail(d.places[&o.URL], Error{Got: "something else, which is not shown here", Want: want})
		}
		if scheme == "redis" || scheme == "unix" {
			d.only("is of no use without TLS", "url with rediss://", o.keys()...)
		}
	}
	d.checkGiven(&o.Name, o.Name == "", table.key("name"), "the key that is the list, such as web")
	d.checkSecret(&o.Password, &o.PasswordFile, "password")
	if d.given(&o.User, o.User == "") && o.Password == "" && o.PasswordFile == "" && !d.places[&o.Password].bad && !d.places[&o.PasswordFile].bad {
		d.fail(d.places[&o.User], Error{Problem: "has no password", Want: "password or password_file too"})
	}
	d.checkSourceTLS(&o.SourceTLS)
	d.checkListFormat(&o.ListFormat)
}
