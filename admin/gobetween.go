package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/convert"

	"github.com/valyala/fasthttp"
)

// gobetween's API, for programs that speak it: admin.compat = "gobetween". A server there is a frontend here, with the pools that
// it leads to. Statuses and shapes are gobetween's, errors are JSON strings; what it has no word for is left out. What is asked of
// who asks, their role and their content type, is ours.

func gobetweenEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/ping", nobody, "OK", nil, nil, raw{}, (*Server).gobetweenPing},
		{"GET", "/dump", reader, "the configuration that runs", formatQuery{}, nil, raw{}, (*Server).runningConfig},
		{"GET", "/servers", reader, "all servers", nil, nil, raw{}, (*Server).gobetweenServers},
		{"GET", "/servers/{name}", reader, "a server, or null", nil, nil, raw{}, (*Server).gobetweenServer},
		{"POST", "/servers/{name}", configurer, "make a server", nil, json.RawMessage{}, raw{}, (*Server).gobetweenCreate},
		{"DELETE", "/servers/{name}", configurer, "remove a server and cut its connections", nil, nil, raw{}, (*Server).gobetweenDelete},
		{"GET", "/servers/{name}/stats", reader, "counters of a server, or null", nil, nil, raw{}, (*Server).gobetweenStats},
	}
}

// gobetweenConfig is a server as gobetween shows it.
type gobetweenConfig struct {
	MaxConnections int                `json:"max_connections"`
	ClientIdle     string             `json:"client_idle_timeout"`
	BackendIdle    string             `json:"backend_idle_timeout"`
	BackendConnect string             `json:"backend_connection_timeout"`
	Bind           string             `json:"bind"`
	Protocol       string             `json:"protocol"`
	Balance        string             `json:"balance"`
	SNI            any                `json:"sni"`
	TLS            any                `json:"tls"`
	BackendsTLS    any                `json:"backends_tls"`
	UDP            any                `json:"udp"`
	Access         any                `json:"access"`
	ProxyProtocol  any                `json:"proxy_protocol"`
	Discovery      gobetweenDiscovery `json:"discovery"`
	HealthCheck    gobetweenHealth    `json:"healthcheck"`
}

type gobetweenDiscovery struct {
	Kind       string   `json:"kind"`
	FailPolicy string   `json:"failpolicy"`
	Interval   string   `json:"interval"`
	Timeout    string   `json:"timeout"`
	StaticList []string `json:"static_list"`
}

type gobetweenHealth struct {
	Kind          string `json:"kind"`
	Interval      string `json:"interval"`
	Passes        int    `json:"passes"`
	Fails         int    `json:"fails"`
	Timeout       string `json:"timeout"`
	InitialStatus string `json:"initial_status"`
}

// gobetweenBalance is gobetween's nearest word for a policy.
var gobetweenBalance = map[string]string{"random": "weight", "roundrobin": "roundrobin", "leastconn": "leastconn", "p2c": "leastconn",
	"leasttime": "leastconn", "leastbandwidth": "leastbandwidth", "iphash": "iphash1", "maglev": "iphash"}

// gobetweenJSON answers as gobetween does.
func (c *call) gobetweenJSON(status int, v any) (any, error) {
	b, err := json.MarshalIndent(v, "", "    ")
	c.SetStatusCode(status)
	return raw{"application/json; charset=utf-8", b}, err
}

func (s *Server) gobetweenPing(*call) (any, error) {
	return raw{"text/plain; charset=utf-8", []byte("OK")}, nil
}

func (s *Server) gobetweenServers(c *call) (any, error) {
	cfg, all := s.o.Director.Snapshot().Config, map[string]*gobetweenConfig{}
	for _, f := range cfg.Frontends {
		all[f.Name] = gobetweenOf(cfg, f)
	}
	return c.gobetweenJSON(fasthttp.StatusOK, all)
}

func (s *Server) gobetweenServer(c *call) (any, error) {
	cfg := s.o.Director.Snapshot().Config
	f := cfg.Frontend(c.param("name"))
	if f == nil {
		return c.gobetweenJSON(fasthttp.StatusOK, nil)
	}
	return c.gobetweenJSON(fasthttp.StatusOK, gobetweenOf(cfg, f))
}

// gobetweenOf shows a frontend with the first of its pools.
func gobetweenOf(cfg *config.Config, f *config.Frontend) *gobetweenConfig {
	out := &gobetweenConfig{MaxConnections: f.MaxConnections, ClientIdle: f.IdleTimeout.String(), BackendIdle: f.IdleTimeout.String(),
		Bind: f.Bind[0], Protocol: "tcp", Balance: "weight", BackendConnect: "0s",
		Discovery:   gobetweenDiscovery{Kind: "static", FailPolicy: "keeplast", Interval: "0", Timeout: "0", StaticList: []string{}},
		HealthCheck: gobetweenHealth{Kind: "none", Interval: "0", Timeout: "0", Passes: 1, Fails: 1, InitialStatus: "healthy"}}
	switch {
	case f.IsUDP():
		out.Protocol, out.ClientIdle, out.BackendIdle = "udp", f.UDP.IdleTimeout.String(), f.UDP.IdleTimeout.String()
		out.UDP = map[string]any{"max_requests": f.UDP.MaxRequests, "max_responses": f.UDP.MaxResponses, "transparent": f.UDP.Transparent}
	case f.TLS != nil:
		out.Protocol = "tls"
	}
	for i, p := range poolsOf(cfg, f) {
		sni := ""
		if i == 0 {
			out.Balance, out.BackendConnect = gobetweenBalance[p.Policy], p.ConnectTimeout.String()
			if p.SendProxy != "off" {
				out.ProxyProtocol = map[string]any{"version": strings.TrimPrefix(p.SendProxy, "v")}
			}
			if h := p.Health; h.Checks() {
				out.HealthCheck = gobetweenHealth{"ping", h.Interval.String(), h.Rise, h.Fall, h.Timeout.String(), "healthy"}
				if h.Kind == "exec" {
					out.HealthCheck.Kind = "exec"
				}
			}
		}
		for _, r := range f.Routes {
			if r.Pool == p.Name && len(r.Match.SNI) > 0 {
				sni = " sni=" + r.Match.SNI[0]
			}
		}
		for _, b := range p.Backends {
			line := fmt.Sprintf("%s weight=%d priority=%d", b.Address, b.Weight, b.Priority)
			if b.MaxConnections > 0 {
				line += fmt.Sprintf(" max_connections=%d", b.MaxConnections)
			}
			out.Discovery.StaticList = append(out.Discovery.StaticList, line+sni)
		}
	}
	return out
}

// poolsOf returns the pools that a frontend leads to, that of the unmatched first.
func poolsOf(cfg *config.Config, f *config.Frontend) (pools []*config.Pool) {
	names := []string{f.Pool}
	for _, r := range f.Routes {
		names = append(names, r.Pool)
	}
	for i, name := range names {
		if p := cfg.Pool(name); p != nil && !slices.Contains(names[:i], name) {
			pools = append(pools, p)
		}
	}
	return pools
}

// gobetweenCreate makes the frontend and the pools that the body is converted to. As in gobetween they last until the process
// ends, or a reload.
func (s *Server) gobetweenCreate(c *call) (any, error) {
	name, body := c.param("name"), bytes.TrimSpace(c.PostBody())
	if !json.Valid(body) || body[0] != '{' {
		return c.gobetweenJSON(fasthttp.StatusBadRequest, "the body is not a server as JSON")
	}
	quoted, _ := json.Marshal(name) // a string
	result, err := convert.Convert("body", fmt.Appendf(nil, `{"servers": {%s: %s}}`, quoted, body), convert.Options{})
	if err == nil {
		err = s.gobetweenAdd(c, name, result)
	}
	if err != nil {
		return c.gobetweenJSON(fasthttp.StatusConflict, gobetweenError(err))
	}
	for _, n := range result.Notes {
		s.o.Log.Warn("admin: a server of gobetween's API is not all as it was there", "server", name, "note", n.Key+": "+n.Text)
	}
	return c.gobetweenJSON(fasthttp.StatusOK, nil)
}

func (s *Server) gobetweenAdd(c *call, name string, result *convert.Result) error {
	made, err := config.ParseDocument("body", result.TOML)
	if err != nil {
		return err
	}
	_, err = s.edit(c, func(_ *Running, in *config.Document) (edits []edit, err error) {
		if tableIn(made.Values, "frontends", name) == nil {
			return nil, fmt.Errorf("%s cannot be the server that is asked for: %s", name, notesOf(result))
		}
		for _, section := range []string{"pools", "frontends"} {
			tables := tableIn(made.Values, section)
			for _, key := range slices.Sorted(maps.Keys(tables)) {
				if tableIn(in.Values, section, key) != nil {
					return nil, fmt.Errorf("there is already a server of that name, or a %s %s", strings.TrimSuffix(section, "s"), key)
				}
				edits = append(edits, edit{path: []string{section, key}, value: tables[key]})
			}
		}
		return edits, nil
	})
	return err
}

func notesOf(r *convert.Result) string {
	var all []string
	for _, n := range r.Notes {
		all = append(all, n.Key+": "+n.Text)
	}
	return strings.Join(all, "; ")
}

// gobetweenError is an error as one line.
func gobetweenError(err error) string {
	p := asProblem(err)
	if p.Status == fasthttp.StatusInternalServerError {
		return err.Error()
	}
	text := p.Detail
	for _, m := range p.Errors {
		if !strings.Contains(text, m.Message) {
			text += "; " + m.Message
		}
	}
	return text
}

// gobetweenDelete removes a frontend with the pools that lead nowhere else, and cuts its sessions. It says null whatever happens,
// as gobetween does; only when the server is still there it does not.
func (s *Server) gobetweenDelete(c *call) (any, error) {
	name := c.param("name")
	_, err := s.edit(c, func(now *Running, _ *config.Document) ([]edit, error) {
		f := now.Config.Frontend(name)
		if f == nil {
			return nil, notFound("frontend", name)
		}
		edits := []edit{{path: []string{"frontends", name}}}
		for _, p := range poolsOf(now.Config, f) {
			if !usedBesides(now.Config, f, p) {
				edits = append(edits, edit{path: []string{"pools", p.Name}})
			}
		}
		return edits, nil
	})
	var p *problem
	if errors.As(err, &p) && p.Status == fasthttp.StatusNotFound {
		err = nil
	}
	if err != nil {
		return c.gobetweenJSON(fasthttp.StatusConflict, gobetweenError(err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	if _, err := s.o.Engine.KillSessions(ctx, engine.SessionFilter{Frontend: name}); err != nil {
		return nil, err
	}
	return c.gobetweenJSON(fasthttp.StatusOK, nil)
}

// usedBesides reports whether something else than f needs p.
func usedBesides(cfg *config.Config, f *config.Frontend, p *config.Pool) bool {
	for _, other := range cfg.Frontends {
		if other != f && slices.Contains(poolsOf(cfg, other), p) {
			return true
		}
	}
	return slices.ContainsFunc(cfg.Pools, func(o *config.Pool) bool { return o.Health != nil && o.Health.Pool == p.Name })
}

// gobetweenCounters are a server's; rx is what backends send, tx what they get.
type gobetweenCounters struct {
	Active   int64              `json:"active_connections"`
	RxTotal  uint64             `json:"rx_total"`
	TxTotal  uint64             `json:"tx_total"`
	RxSecond uint64             `json:"rx_second"`
	TxSecond uint64             `json:"tx_second"`
	Backends []gobetweenBackend `json:"backends"`
}

type gobetweenBackend struct {
	Host           string `json:"host"`
	Port           string `json:"port"`
	Priority       int    `json:"priority"`
	Weight         int    `json:"weight"`
	MaxConnections int    `json:"max_connections,omitempty"`
	SNI            string `json:"sni,omitempty"`
	Stats          struct {
		Live       bool   `json:"live"`
		Discovered bool   `json:"discovered"`
		Total      uint64 `json:"total_connections"`
		Active     int64  `json:"active_connections"`
		Refused    uint64 `json:"refused_connections"`
		Rx         uint64 `json:"rx"`
		Tx         uint64 `json:"tx"`
		RxSecond   uint64 `json:"rx_second"`
		TxSecond   uint64 `json:"tx_second"`
	} `json:"stats"`
}

func (s *Server) gobetweenStats(c *call) (any, error) {
	name, cfg := c.param("name"), s.o.Director.Snapshot().Config
	front := cfg.Frontend(name)
	if front == nil {
		return c.gobetweenJSON(fasthttp.StatusOK, nil)
	}
	st, now := s.collect(), s.count()
	rates := s.since(&s.last.Load().now, &now, func(string) bool { return true })
	out := gobetweenCounters{Backends: []gobetweenBackend{}}
	for _, f := range st.Frontends {
		if f.Name == name {
			out.Active, out.RxTotal, out.TxTotal = f.Open, f.Bytes.B2C, f.Bytes.C2B
		}
	}
	for _, f := range rates.Frontends {
		if f.Name == name {
			out.RxSecond, out.TxSecond = uint64(f.B2C), uint64(f.C2B)
		}
	}
	for _, p := range st.Pools {
		if !slices.ContainsFunc(poolsOf(cfg, front), func(o *config.Pool) bool { return o.Name == p.Name }) {
			continue
		}
		perSecond := map[string]flowing{}
		for _, r := range rates.Pools {
			for _, b := range r.Backends {
				if r.Name == p.Name {
					perSecond[b.Address] = b.flowing
				}
			}
		}
		for i := range p.Backends {
			out.Backends = append(out.Backends, gobetweenBackendOf(&p.Backends[i], perSecond[p.Backends[i].Address]))
		}
	}
	return c.gobetweenJSON(fasthttp.StatusOK, out)
}

func gobetweenBackendOf(b *backendStatus, rate flowing) gobetweenBackend {
	out := gobetweenBackend{Host: b.Address, Priority: b.Priority, Weight: b.Weight, MaxConnections: b.MaxConnections, SNI: b.SNI}
	if host, port, err := net.SplitHostPort(b.Address); err == nil {
		out.Host, out.Port = host, port
	}
	n := &out.Stats
	n.Live, n.Discovered = b.State == "up", true
	n.Total, n.Active, n.Rx, n.Tx = b.Connected, b.Open, b.Bytes.B2C, b.Bytes.C2B
	n.RxSecond, n.TxSecond = uint64(rate.B2C), uint64(rate.C2B)
	for _, errs := range b.ConnectErrors {
		n.Refused += errs
	}
	return out
}
