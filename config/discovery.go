package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Discovery is where a pool finds backends beside those it names. The table is itself a source, or has several in sources.
// A reload applies it: where the sources stay the same, so do the lists.
type Discovery struct {
	Source            // the only source; Kind is "" when there are Sources
	Sources []*Source `toml:"sources"` // several instead of kind: where two have the same address, the earlier is right. Default none

	Interval    time.Duration `toml:"interval" range:"100ms..24h"`     // between fetches; for what can be watched, how often a silent source counts as heard. Default 10s, or 1s where every source is a file
	Jitter      int           `toml:"jitter" range:"0..50"`            // percent by which each wait is longer or shorter, at random; default 10
	Timeout     time.Duration `toml:"timeout" range:"1ms..10m"`        // of one fetch, and for the first list of a source that is watched; default 5s
	RetryMin    time.Duration `toml:"retry_min" range:"10ms..1h"`      // wait after the first failure; it doubles with each. Default 1s
	RetryMax    time.Duration `toml:"retry_max" range:"10ms..24h"`     // until this; default 30s
	Debounce    time.Duration `toml:"debounce" range:"0s..1m"`         // how long changes are collected before they are used; default 200ms
	OnFailure   string        `toml:"on_failure" oneof:"keep empty"`   // the backends of a source that fails: they stay, or go; default keep
	MaxAge      time.Duration `toml:"max_age" range:"0|1s..8760h"`     // how long a list is used that the source does not confirm, whatever on_failure says; default 0 = no limit
	MinShare    int           `toml:"min_share" range:"0..100"`        // percent: a list below this share of the one in use is held back. Default 50, 0 = never
	Confirm     int           `toml:"confirm" range:"0..1000"`         // fetches that must say the same before it is used; default 3
	MaxBackends int           `toml:"max_backends" range:"1..1048576"` // a longer list is an error; default 16384
	SaveTo      string        `toml:"save_to"`                         // file in which the lists outlive the process; default "" = none
}

// All returns the sources in the order in which they count.
func (d *Discovery) All() []*Source {
	if len(d.Sources) > 0 {
		return d.Sources
	}
	return []*Source{&d.Source}
}

// Source is one place that knows backends.
type Source struct {
	Kind string `toml:"kind" oneof:"file exec http dns srv consul docker lxd kubernetes etcd redis"` // required

	// Options are a pointer to the struct of the kind, whose keys stand beside kind: see sourceKinds.
	Options any `toml:"-"`
}

// sourceKind is what is particular to a kind of source.
type sourceKind struct {
	options reflect.Type                               // the struct with its keys
	fresh   func() any                                 // a pointer to one, as it is when none of its keys is there
	check   func(d *decoder, options any, table place) // notes what is wrong, and fills in what follows
}

// kindOf makes a sourceKind of a struct, its defaults and its check.
func kindOf[T any](defaults T, check func(d *decoder, o *T, table place)) sourceKind {
	return sourceKind{
		options: reflect.TypeFor[T](),
		fresh:   func() any { o := defaults; return &o },
		check:   func(d *decoder, options any, table place) { check(d, options.(*T), table) },
	}
}

// sourceKinds are the kinds by name; those with an API of their own are in sources.go. Another kind is a struct, an entry here, a word in the tag of Source.Kind and a case in
// discovery.newSource.
var sourceKinds = map[string]sourceKind{
	"file":   kindOf(FileSource{ListFormat: newListFormat}, (*decoder).checkFileSource),
	"exec":   kindOf(ExecSource{ListFormat: newListFormat}, (*decoder).checkExecSource),
	"http":   kindOf(HTTPSource{ListFormat: newListFormat}, (*decoder).checkHTTPSource),
	"dns":    kindOf(DNSSource{Lookups: newLookups}, (*decoder).checkDNSSource),
	"srv":    kindOf(SRVSource{Lookups: newLookups}, (*decoder).checkSRVSource),
	"consul": kindOf(ConsulSource{Wait: time.Minute, MaxBytes: 4 << 20}, (*decoder).checkConsulSource),

	"docker":     kindOf(newDockerSource, (*decoder).checkDockerSource),
	"lxd":        kindOf(newLXDSource, (*decoder).checkLXDSource),
	"kubernetes": kindOf(newKubernetesSource, (*decoder).checkKubernetesSource),
	"etcd":       kindOf(newEtcdSource, (*decoder).checkEtcdSource),
	"redis":      kindOf(newRedisSource, (*decoder).checkRedisSource),
}

// Secret is a text that nobody is to see: whoever prints it prints something else.
type Secret string

// String hides the text.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(not shown)"
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ListFormat is how a list is written.
type ListFormat struct {
	Format   string    `toml:"format" oneof:"auto text json toml"` // default auto: a file by the ending of its name, http by the Content-Type, anything else text
	Line     string    `toml:"line"`                               // text: a regular expression for its lines, with named groups; default "" = the grammar
	Lenient  bool      `toml:"lenient"`                            // leave out entries that make no sense, and count them, instead of refusing the list; default false
	MaxBytes Size      `toml:"max_bytes" range:"1KiB..64MiB"`      // more is an error; default 4MiB
	Paths    ListPaths `toml:"paths"`                              // json: where things are
}

var newListFormat = ListFormat{Format: "auto", MaxBytes: 4 << 20}

// ListPaths say where in a JSON document things are, as rows of keys and indexes such as data.items[0].host: list from the
// root, the others from an element of that array. "" is the usual place.
type ListPaths struct {
	List           string `toml:"list"`            // default: the root, or backends or hosts in it
	Address        string `toml:"address"`         // host:port; default: address
	Host           string `toml:"host"`            // default: host, or addr.host
	Port           string `toml:"port"`            // default: port, or addr.port
	Weight         string `toml:"weight"`          // default: weight
	Priority       string `toml:"priority"`        // default: priority
	MaxConnections string `toml:"max_connections"` // default: max_connections
	SNI            string `toml:"sni"`             // default: sni
	Zone           string `toml:"zone"`            // default: zone
	Labels         string `toml:"labels"`          // default: labels
}

// SourceTLS is how a source's server is spoken to where its URL says https.
type SourceTLS struct {
	CA                 string `toml:"ca"`                   // PEM file of those who may have signed its certificate; default "" = the system's
	Cert               string `toml:"cert"`                 // our certificate, PEM file; default none
	Key                string `toml:"key"`                  // PEM file with its key; with cert
	ServerName         string `toml:"server_name"`          // whom to expect and to ask for; default "" = the host of the URL
	InsecureSkipVerify bool   `toml:"insecure_skip_verify"` // take any certificate; default false; logs a warning
}

// FileSource is a file that somebody else writes.
type FileSource struct {
	Path string `toml:"path"` // required; counts from the folder of the configuration file
	ListFormat
}

// ExecSource is a program whose standard output is the list.
type ExecSource struct {
	Command []string `toml:"command"`           // the absolute path of a program, and its arguments; no shell. Required
	Env     []Secret `toml:"env" secret:"true"` // all of its environment, "NAME=value"; default none
	Folder  string   `toml:"folder"`            // where it runs; default /
	ListFormat
}

// HTTPSource is an HTTP server.
type HTTPSource struct {
	URL          Secret         `toml:"url" secret:"true"`      // http or https; its query is taken for a secret. Required
	Headers      []Secret       `toml:"headers" secret:"true"`  // "Name: value"; default none
	User         string         `toml:"user"`                   // basic authentication, with password or password_file; default none
	Password     Secret         `toml:"password" secret:"true"` // default none
	PasswordFile string         `toml:"password_file"`          // a file with it, read each time; default none
	Token        Secret         `toml:"token" secret:"true"`    // bearer token; default none
	TokenFile    string         `toml:"token_file"`             // a file with it, read each time; default none
	Allow        []netip.Prefix `toml:"allow"`                  // addresses of this machine, of metadata services and link-local ones that may be asked all the same; default none
	SourceTLS
	ListFormat
}

// Lookups is how names are looked up.
type Lookups struct {
	Family  string        `toml:"family" oneof:"both ipv4 ipv6"` // default both
	Servers []string      `toml:"servers"`                       // IP addresses, with or without a port, in the order in which they are asked; default those of /etc/resolv.conf
	MinTTL  time.Duration `toml:"min_ttl" range:"100ms..24h"`    // an answer is used at least so long; default 5s
	MaxTTL  time.Duration `toml:"max_ttl" range:"100ms..24h"`    // and at most so long; default 5m
}

var newLookups = Lookups{Family: "both", MinTTL: 5 * time.Second, MaxTTL: 5 * time.Minute}

// DNSSource is the addresses of a name.
type DNSSource struct {
	Name string `toml:"name"`                  // the whole name: there is no search list. Required
	Port int    `toml:"port" range:"1..65535"` // of all backends; required
	Lookups
}

// SRVSource is a service in the DNS.
type SRVSource struct {
	Name string `toml:"name"` // usually _service._proto.name; required
	Lookups
}

// ConsulSource is a service that Consul knows.
type ConsulSource struct {
	URL        string         `toml:"url"`                           // of an agent or a server; required
	Service    string         `toml:"service"`                       // required
	Tags       []string       `toml:"tags"`                          // an instance must have them all; default none
	Warning    bool           `toml:"warning"`                       // also instances whose checks warn; default false
	Datacenter string         `toml:"datacenter"`                    // default "" = the agent's
	Namespace  string         `toml:"namespace"`                     // Consul Enterprise; default ""
	Partition  string         `toml:"partition"`                     // Consul Enterprise; default ""
	Token      Secret         `toml:"token" secret:"true"`           // ACL token; default none
	TokenFile  string         `toml:"token_file"`                    // a file with it, read each time; default none
	Allow      []netip.Prefix `toml:"allow"`                         // as for http; this machine is allowed anyway
	Wait       time.Duration  `toml:"wait" range:"1s..10m"`          // how long the server may hold a query that has nothing new; when that is over, one without a leader is noticed. Default 1m
	MaxBytes   Size           `toml:"max_bytes" range:"1KiB..64MiB"` // of an answer; default 4MiB
	SourceTLS
}

func newDiscovery() *Discovery {
	return &Discovery{Interval: 10 * time.Second, Jitter: 10, Timeout: 5 * time.Second, RetryMin: time.Second, RetryMax: 30 * time.Second,
		Debounce: 200 * time.Millisecond, OnFailure: "keep", MinShare: 50, Confirm: 3, MaxBackends: 16384}
}

// sourceOf returns the source in a struct that is one, or has one.
func sourceOf(v reflect.Value) *Source {
	switch s := v.Addr().Interface().(type) {
	case *Source:
		return s
	case *Discovery:
		return &s.Source
	}
	return nil
}

// options decodes the keys in m that are for the kind of s, and returns how many there were. Keys of other kinds are told of
// as such, so that unknownKey is only for those that no kind has.
func (d *decoder) options(p place, m map[string]any, s *Source, others []string) (known []string) {
	kind, ok := sourceKinds[s.Kind]
	if ok {
		s.Options = kind.fresh()
		v := reflect.ValueOf(s.Options).Elem()
		for _, k := range keysOf(kind.options) {
			if raw, is := m[k.key]; is {
				d.value(p.key(k.key), raw, v.FieldByIndex(k.index), k.field.Tag)
			}
			known = append(known, k.key)
		}
	}
	for key := range m {
		if slices.Contains(known, key) || slices.Contains(others, key) {
			continue
		}
		if kinds := kindsWith(key); len(kinds) > 0 {
			known = append(known, key)
			if ok { // else there is another mistake to mend first
				d.fail(p.key(key), Error{Problem: fmt.Sprintf("is not for kind %q", s.Kind), Want: "kind " + list(quoted(kinds), "or")})
			}
		}
	}
	return known
}

// kindsWith returns the kinds that have a key.
func kindsWith(key string) (kinds []string) {
	for _, name := range slices.Sorted(maps.Keys(sourceKinds)) {
		if slices.Contains(keyNames(sourceKinds[name].options), key) {
			kinds = append(kinds, name)
		}
	}
	return kinds
}

// checkDiscovery checks the discovery table of p.
func (d *decoder) checkDiscovery(p *Pool) {
	c := p.Discovery
	if c == nil || d.places[c].bad {
		return
	}
	table := d.places[c]
	switch {
	case d.isSet(&c.Kind) && d.isSet(&c.Sources):
		d.fail(d.places[&c.Sources], Error{Problem: "kind is there too", Want: "one of the two", Hint: "move the keys of the source beside kind into a table of sources"})
		return
	case d.isSet(&c.Sources) && len(c.Sources) == 0 && !d.places[&c.Sources].bad:
		d.fail(d.places[&c.Sources], Error{Got: "an empty array", Want: "one source or more, or kind"})
	case !d.isSet(&c.Sources):
		d.checkSource(&c.Source, table)
	}
	for _, s := range c.Sources {
		d.checkSource(s, d.places[s])
	}
	files := true
	for _, s := range c.All() {
		files = files && s.Kind == "file"
	}
	if files && !d.isSet(&c.Interval) {
		c.Interval = time.Second // a look is one stat
	}
	d.checkOrder(&c.RetryMin, &c.RetryMax, "retry_min", "retry_max")
	d.localFile(&c.SaveTo)
	if at, ok := d.places[&c.SaveTo]; ok && !at.bad && c.SaveTo != "" {
		for _, o := range d.cfg.Pools {
			if o == p {
				break
			}
			if o.Discovery != nil && o.Discovery.SaveTo == c.SaveTo {
				d.fail(at, Error{Got: at.got(), Want: "a file of its own for each pool", Hint: d.places[&o.Discovery.SaveTo].path + " is the same"})
			}
		}
	}
}

// checkOrder makes sure that the second duration is not shorter than the first. The one that the file does not set follows.
func (d *decoder) checkOrder(low, high *time.Duration, lowName, highName string) {
	first, lowSet := d.places[low]
	second, highSet := d.places[high]
	switch {
	case *low <= *high || first.bad || second.bad:
	case highSet && !lowSet:
		*low = *high
	case lowSet && !highSet:
		*high = *low
	default:
		d.fail(second, Error{Got: second.got(), Want: "at least " + lowName + ", which is " + shortDuration(int64(*low))})
	}
}

func (d *decoder) checkSource(s *Source, table place) {
	switch {
	case table.bad || d.places[&s.Kind].bad:
	case d.checkMissing(&s.Kind, table.key("kind"), list(quoted(slices.Sorted(maps.Keys(sourceKinds))), "or")):
	case s.Options != nil:
		sourceKinds[s.Kind].check(d, s.Options, table)
	}
}

// checkGiven notes that a required key is missing or empty, and reports whether its value may be looked at.
func (d *decoder) checkGiven(field any, empty bool, p place, want string) bool {
	at, ok := d.places[field]
	switch {
	case !ok:
		d.fail(p, Error{Problem: "is missing", Want: want})
	case at.bad:
	case empty:
		d.fail(at, Error{Got: at.got(), Want: want})
	default:
		return true
	}
	return false
}

func (d *decoder) checkListFormat(f *ListFormat) { d.checkExpression(&f.Line) }

func (d *decoder) checkSourceTLS(t *SourceTLS) {
	d.localFile(&t.CA)
	d.localFile(&t.Cert)
	d.localFile(&t.Key)
	if at, ok := d.places[&t.ServerName]; ok && !at.bad {
		name, c := parseServerName(t.ServerName)
		if c != nil {
			d.refuse(at, *c)
		}
		t.ServerName = name
	}
	for _, one := range []struct {
		this, other *string
		want        string
	}{{&t.Cert, &t.Key, "key too"}, {&t.Key, &t.Cert, "cert too"}} {
		if at, ok := d.places[one.this]; ok && !at.bad && *one.this != "" && *one.other == "" && !d.places[one.other].bad {
			d.fail(at, Error{Got: at.got(), Want: one.want})
		}
	}
	if at, ok := d.places[&t.InsecureSkipVerify]; ok && t.InsecureSkipVerify {
		d.warn(at, "any certificate is taken: whoever gets between awe4lb and the source chooses the backends", "")
	}
}

// checkSecret makes sure that a secret is given in one way only.
func (d *decoder) checkSecret(value *Secret, file *string, name string) {
	d.localFile(file)
	if at, ok := d.places[file]; ok && !at.bad && d.isSet(value) {
		d.fail(at, Error{Problem: name + " is there too", Want: "one of the two"})
	}
}

func (d *decoder) checkFileSource(o *FileSource, table place) {
	if d.checkGiven(&o.Path, o.Path == "", table.key("path"), "the path of a file") {
		d.localFile(&o.Path)
	}
	d.checkListFormat(&o.ListFormat)
}

func (d *decoder) checkExecSource(o *ExecSource, table place) {
	want := `the absolute path of a program and its arguments, such as ["/usr/local/bin/backends", "--zone", "a"]`
	if d.checkGiven(&o.Command, len(o.Command) == 0, table.key("command"), want) && !d.places[&o.Command[0]].bad && !strings.HasPrefix(o.Command[0], "/") {
		d.refuse(d.places[&o.Command[0]], complaint{want: "the absolute path of a program", hint: "arguments are elements of their own, and no shell looks for the program"})
	}
	for i := range o.Env {
		if name, _, ok := strings.Cut(string(o.Env[i]), "="); !d.places[&o.Env[i]].bad && (!ok || !variableName(name)) {
			d.refuse(d.places[&o.Env[i]], complaint{want: `"NAME=value"`})
		}
	}
	if at, ok := d.places[&o.Folder]; ok && !at.bad && !strings.HasPrefix(o.Folder, "/") {
		d.refuse(at, complaint{want: "an absolute path"})
	}
	d.checkListFormat(&o.ListFormat)
}

// checkURL checks a URL, of which nothing is repeated: it may have secrets.
func (d *decoder) checkURL(field any, text string, table place) {
	const want = "a URL such as https://catalog.internal/backends"
	if !d.checkGiven(field, text == "", table.key("url"), want) {
		return
	}
	u, err := url.Parse(text)
	switch at := d.places[field]; {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.Fragment != "":
		d.fail(at, Error{Got: "something else, which is not shown here", Want: want})
	case u.User != nil:
		d.fail(at, Error{Problem: "has a user in it", Want: "it in keys of its own"})
	}
}

func (d *decoder) checkHTTPSource(o *HTTPSource, table place) {
	d.checkURL(&o.URL, string(o.URL), table)
	for i := range o.Headers {
		if at := d.places[&o.Headers[i]]; !at.bad {
			header, c := parseHeader(string(o.Headers[i]))
			if c != nil {
				if name, _, _ := strings.Cut(string(o.Headers[i]), ":"); strings.EqualFold(name, "host") {
					header, c = string(o.Headers[i]), nil
				}
			}
			if c != nil {
				d.refuse(at, complaint{want: c.want})
			}
			o.Headers[i] = Secret(header)
		}
	}
	d.checkSecret(&o.Password, &o.PasswordFile, "password")
	d.checkSecret(&o.Token, &o.TokenFile, "token")
	token := o.Token != "" || o.TokenFile != ""
	if at, ok := d.places[&o.User]; ok && !at.bad && o.User != "" && token {
		d.fail(at, Error{Problem: "a token is there too", Want: "one of the two"})
	}
	for key, field := range map[string]any{"password": &o.Password, "password_file": &o.PasswordFile} {
		if at, ok := d.places[field]; ok && !at.bad && o.User == "" && !d.places[&o.User].bad {
			d.fail(table.key(key), Error{Problem: "is of no use without a user", Want: "user too"})
		}
	}
	d.checkSourceTLS(&o.SourceTLS)
	d.checkListFormat(&o.ListFormat)
}

func (d *decoder) checkLookups(o *Lookups) {
	for i, s := range o.Servers {
		at := d.places[&o.Servers[i]]
		_, err1 := netip.ParseAddr(strings.Trim(s, "[]"))
		withPort, err2 := netip.ParseAddrPort(s)
		if !at.bad && err1 != nil && (err2 != nil || withPort.Port() == 0) {
			d.refuse(at, complaint{want: "an IP address such as 10.0.0.53, with or without a port"})
		}
		if err1 == nil {
			o.Servers[i] = strings.Trim(s, "[]")
		}
	}
	d.checkOrder(&o.MinTTL, &o.MaxTTL, "min_ttl", "max_ttl")
}

// checkDomain checks a name to look up.
func (d *decoder) checkDomain(field *string, table place, want string) {
	if !d.checkGiven(field, *field == "", table.key("name"), want) {
		return
	}
	name, c := parseName(*field, want, false)
	if c != nil {
		d.refuse(d.places[field], *c)
		return
	}
	*field = name
}

func (d *decoder) checkDNSSource(o *DNSSource, table place) {
	d.checkDomain(&o.Name, table, "a DNS name such as web.internal")
	d.checkMissing(&o.Port, table.key("port"), "the port of the backends")
	d.checkLookups(&o.Lookups)
}

func (d *decoder) checkSRVSource(o *SRVSource, table place) {
	d.checkDomain(&o.Name, table, "a name such as _http._tcp.web.internal")
	d.checkLookups(&o.Lookups)
}

func (d *decoder) checkConsulSource(o *ConsulSource, table place) {
	d.checkURL(&o.URL, o.URL, table)
	if at, ok := d.places[&o.URL]; ok && !at.bad && strings.ContainsAny(o.URL, "?") {
		d.fail(at, Error{Problem: "has a query", Want: "it in the other keys"})
	}
	d.checkGiven(&o.Service, o.Service == "", table.key("service"), "the name of a service")
	d.checkSecret(&o.Token, &o.TokenFile, "token")
	d.checkSourceTLS(&o.SourceTLS)
}
