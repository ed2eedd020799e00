package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ConsulOptions say which service of Consul to follow.
type ConsulOptions struct {
	URL        string // of an agent or server, such as http://127.0.0.1:8500; this machine is allowed
	Service    string
	Tags       []string // an instance must have them all
	Warning    bool     // also instances whose checks warn, with the weight they have for that
	Datacenter string   // "" = that of the agent
	Namespace  string   // Enterprise
	Partition  string   // Enterprise
	Token      Secret   // ACL token; needs service:read and node:read: that it may see nothing is an error
	TLS        HTTPTLS
	Allow      []netip.Prefix // as in HTTPOptions
	Wait       time.Duration  // how long the server may hold a query that has nothing new, and until one without a leader is noticed, 1s to 10m; 0 = 1 min
	MaxBytes   int64          // of an answer; 0 = 4 MiB
}

// consul follows /v1/health/service by blocking queries: each carries the index of the answer before it, and is answered
// when there is a newer one or Wait is over. Whether an instance is healthy is for Consul to say.
type consul struct {
	*web
	o    ConsulOptions
	wait time.Duration
}

const (
	consulPause  = 100 * time.Millisecond // between two queries, however fast the index moves
	consulMargin = 10 * time.Second       // what the way there and back may take on top of Wait
)

// NewConsul returns a source that follows the healthy instances of a service. An instance is where its service, or else its
// node, has its address; weights above 1000 count as 1000. A tag sni=NAME is its SNI, as in gobetween; its zone is that of
// its locality, or else the data centre; its labels are the service's meta data, as far as they are fit for labels.
func NewConsul(o ConsulOptions) (Watcher, error) {
	c, err := newConsul(o)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return c, nil
}

func newConsul(o ConsulOptions) (*consul, error) {
	if o.Service == "" || checkText("service", o.Service) != nil {
		return nil, fmt.Errorf("service: got %s; want a name", quote(o.Service))
	}
	c := &consul{o: o, wait: o.Wait}
	if c.wait == 0 {
		c.wait = time.Minute
	}
	if c.wait < time.Second || c.wait > 10*time.Minute {
		return nil, fmt.Errorf("wait: got %v; want 1s to 10m", o.Wait)
	}
	allow := append(slices.Clone(o.Allow), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	var err error
	if c.web, err = newWeb(HTTPOptions{URL: o.URL, TLS: o.TLS, Allow: allow, MaxBytes: o.MaxBytes}); err != nil {
		return nil, err
	}
	if c.url.RawQuery != "" {
		return nil, errors.New("url: has a query; want it in the other options")
	}
	return c, nil
}

func (c *consul) String() string {
	s := "consul:" + redact(c.url) + "/" + c.o.Service
	if more := append([]string{c.o.Datacenter, c.o.Namespace, c.o.Partition, strconv.FormatBool(c.o.Warning)}, c.o.Tags...); strings.Join(more, "") != "false" {
		s += " …" + digest(more...)
	}
	return s
}

// Fetch returns what there is now.
func (c *consul) Fetch(ctx context.Context) (List, error) {
	a, err := c.query(ctx, 0)
	return a.list, err
}

// Watch reports the answer of each query, also one that is as before: that says that the stream is alive. Two kinds of answer
// are not reported, but what the next query gets, which waits for nothing and so is answered by a leader or not at all. One is
// that whose index went back: agents say behind an index what they have, which may be old. The other is that with nothing new
// from who names no leader: servers and agents that have lost theirs go on saying what they have, and those that have one do
// not name it either where they follow by streaming.
func (c *consul) Watch(ctx context.Context, report func(List)) error {
	for index := uint64(0); ; {
		one, cancel := context.WithTimeout(ctx, c.wait+c.wait/16+consulMargin) // Consul adds up to a 16th
		a, err := c.query(one, index)
		cancel()
		switch {
		case err != nil:
			return err
		case a.index < index, a.index == index && a.leaderless:
			index = 0
		default:
			report(a.list)
			index = a.index
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(consulPause):
		}
	}
}

// consulAnswer is a good answer to a query.
type consulAnswer struct {
	list       List
	index      uint64 // from 1
	leaderless bool   // who answers does not know who leads, or does not say so
}

// consulTexts are what of a refusal may be shown. They are those of Consul's agent/structs/errors.go.
var consulTexts = []string{
	"No cluster leader", "No known Consul servers", "No path to datacenter", "ACL not found", "Permission denied", "Not ready to serve consistent reads", "rate limit",
}

func (c *consul) query(ctx context.Context, index uint64) (consulAnswer, error) {
	a, err := c.ask(ctx, index)
	if err != nil {
		return consulAnswer{}, fmt.Errorf("%s: %w", c, err)
	}
	return a, nil
}

func (c *consul) ask(ctx context.Context, index uint64) (consulAnswer, error) {
	req, err := c.request(ctx)
	if err != nil {
		return consulAnswer{}, err
	}
	// JoinPath makes a path without a slash at its start of an empty one, and servers answer that with 400.
	base := *c.url
	base.Path = "/" + strings.TrimPrefix(base.Path, "/")
	req.URL = base.JoinPath("v1", "health", "service", url.PathEscape(c.o.Service))
	req.URL.RawQuery = c.values(index).Encode()
	token, err := c.o.Token.read()
	if err != nil {
		return consulAnswer{}, err
	}
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	res, err := c.do(req)
	if err != nil {
		return consulAnswer{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := readLimited(res.Body, maxSmall)
		return consulAnswer{}, withText(badStatus(res.StatusCode), string(b), consulTexts)
	}
	next, err := strconv.ParseUint(res.Header.Get("X-Consul-Index"), 10, 64)
	if err != nil || next == 0 {
		return consulAnswer{}, fail(ReasonDecode, fmt.Errorf("X-Consul-Index: got %s; want a number from 1", quote(res.Header.Get("X-Consul-Index"))))
	}
	// To a query that waits for nothing only a server that may answer without a leader does so: by an agent's discovery_max_stale.
	leaderless := res.Header.Get("X-Consul-KnownLeader") == "false"
	if leaderless && index == 0 && res.Header.Get("X-Consul-Query-Backend") != "streaming" { // which never names one
		return consulAnswer{}, fail(ReasonStatus, errors.New("the server knows no leader"+lastContact(res.Header)))
	}
	b, err := readLimited(res.Body, c.most)
	if err != nil {
		return consulAnswer{}, err
	}
	list, err := decodeConsul(b)
	if err != nil {
		return consulAnswer{}, fail(ReasonDecode, err)
	}
	if len(list.Backends) == 0 && res.Header.Get("X-Consul-Results-Filtered-By-Acls") == "true" { // says 200 and []
		return consulAnswer{}, fail(ReasonStatus, errors.New("the token may not read the service and its nodes"))
	}
	return consulAnswer{list, next, leaderless}, nil
}

// lastContact says how long ago a server heard of its leader, if it tells.
func lastContact(h http.Header) string {
	ms, err := strconv.ParseUint(h.Get("X-Consul-LastContact"), 10, 40)
	if err != nil || ms == 0 {
		return ""
	}
	return fmt.Sprintf(", and its last word of one is %v old", time.Duration(ms)*time.Millisecond)
}

func (c *consul) values(index uint64) url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	set("dc", c.o.Datacenter)
	set("ns", c.o.Namespace)
	set("partition", c.o.Partition)
	if !c.o.Warning {
		v.Set("passing", "1")
	}
	for _, t := range c.o.Tags {
		v.Add("tag", t)
	}
	if index > 0 {
		v.Set("index", strconv.FormatUint(index, 10))
		v.Set("wait", strconv.FormatInt(c.wait.Milliseconds(), 10)+"ms")
	}
	return v
}

// consulEntry is what we read of an element of /v1/health/service.
type consulEntry struct {
	Node struct {
		Address, Datacenter string
	}
	Service struct {
		Address  string
		Port     int
		Tags     []string
		Meta     map[string]string
		Weights  *struct{ Passing, Warning int }
		Locality *struct{ Zone string }
	}
	Checks []struct{ Status string }
}

func decodeConsul(b []byte) (List, error) {
	var entries []*consulEntry
	if err := json.Unmarshal(b, &entries); err != nil {
		return List{}, errors.New(clip(strconv.QuoteToASCII(err.Error())))
	}
	if entries == nil && !bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) {
		return List{}, errors.New("got null; want an array")
	}
	var list List
	for i, e := range entries {
		if e == nil {
			return List{}, fmt.Errorf("instance %d: got null", i)
		}
		back, ok, err := e.backend()
		if err == nil && ok {
			err = back.Check()
		}
		if err != nil {
			return List{}, fmt.Errorf("instance %d: %w", i, err)
		}
		if ok {
			list.Backends = append(list.Backends, back)
		}
	}
	return list, nil
}

// backend returns what an instance is to us; false when it is critical, or in maintenance, which is a critical check.
func (e *consulEntry) backend() (b Backend, ok bool, err error) {
	passing := true
	for _, c := range e.Checks {
		switch c.Status {
		case "passing":
		case "warning":
			passing = false
		default:
			return b, false, nil
		}
	}
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	if b.Address, err = joinAddress(host, strconv.Itoa(e.Service.Port)); err != nil {
		return b, false, err
	}
	b.Weight = 1
	if w := e.Service.Weights; w != nil {
		b.Weight = w.Passing
		if !passing {
			b.Weight = w.Warning
		}
		b.Weight = min(b.Weight, maxWeight)
	}
	for _, t := range e.Service.Tags {
		if name, ok := strings.CutPrefix(t, "sni="); ok {
			b.SNI = name
		}
	}
	b.Zone = e.Node.Datacenter
	if l := e.Service.Locality; l != nil && l.Zone != "" {
		b.Zone = l.Zone
	}
	for k, v := range e.Service.Meta {
		if len(e.Service.Meta) > maxLabels || checkText("", k) != nil || checkText("", v) != nil {
			continue
		}
		if b.Labels == nil {
			b.Labels = map[string]string{}
		}
		b.Labels[k] = v
	}
	return b, true, nil
}
