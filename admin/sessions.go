package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"awe4lb/engine"

	"github.com/valyala/fasthttp"
)

// The calls about single sessions and flows.

func sessionEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/sessions", reader, "the sessions and flows there are, a page at a time", sessionsQuery{}, nil, sessionList{}, (*Server).sessions},
		{"GET", "/api/v1/flows", reader, "the same, of UDP flows alone", sessionsQuery{}, nil, sessionList{}, (*Server).flows},
		{"GET", "/api/v1/sessions/{id}", reader, "one session or flow", nil, nil, sessionStatus{}, (*Server).session},
		{"DELETE", "/api/v1/sessions/{id}", operator, "end it now", nil, nil, nil, (*Server).killOne},
		{"POST", "/api/v1/sessions/kill", operator, "end those that a filter means", nil, killOrder{}, killed{}, (*Server).kill},
	}
}

// sessionsQuery says which sessions are wanted, and in which order.
type sessionsQuery struct {
	Protocol string `query:"protocol" enum:"tcp,udp"`
	Frontend string `query:"frontend"`
	Pool     string `query:"pool"`
	Backend  string `query:"backend" description:"its address"`
	Client   string `query:"client" description:"a prefix or an address"`
	Sort     string `query:"sort" enum:"age,idle,bytes,client" description:"the oldest, quietest, largest first, or by client; default: as they come"`
	Offset   int    `query:"offset" description:"with sort: how many to leave out"`
	Limit    int    `query:"limit" description:"1 to 1000; default 100"`
	Cursor   string `query:"cursor" description:"without sort: what the page before said is next"`
}

type sessionList struct {
	Sessions []sessionStatus `json:"sessions"`
	Next     string          `json:"next,omitempty" description:"cursor of the next page; missing on the last"`
	Total    *int            `json:"total,omitempty" description:"with sort: how many there are"`
}

type sessionStatus struct {
	ID       string      `json:"id"`
	Protocol string      `json:"protocol" enum:"tcp,udp"`
	Frontend string      `json:"frontend"`
	Pool     string      `json:"pool,omitempty" description:"missing while it is not known"`
	Backend  string      `json:"backend,omitempty" description:"missing between attempts to connect"`
	Client   string      `json:"client" description:"empty on a unix socket"`
	Proxy    string      `json:"proxy,omitempty" description:"who has told who the client is"`
	State    string      `json:"state"`
	Started  time.Time   `json:"started"`
	Age      float64     `json:"age_seconds"`
	Idle     float64     `json:"idle_seconds"`
	Bytes    bytesStatus `json:"bytes"`
	SNI      string      `json:"sni,omitempty"`
	TLS      string      `json:"tls,omitempty" description:"version, where the client's TLS ends here"`

	Datagrams *bytesStatus `json:"datagrams,omitempty" description:"of flows"`
}

// maxSorted bounds what a sorted page costs: all that the filter means are gathered.
const maxSorted = 50_000

func (s *Server) sessions(c *call) (any, error) { return s.listSessions(c, "") }

func (s *Server) flows(c *call) (any, error) { return s.listSessions(c, "udp") }

func (s *Server) listSessions(c *call, protocol string) (any, error) {
	q := sessionsQuery{Limit: 100}
	if err := c.query(&q); err != nil {
		return nil, err
	}
	if protocol != "" {
		q.Protocol = protocol
	}
	if q.Limit < 1 || q.Limit > engine.MaxPage {
		return nil, problemf(fasthttp.StatusBadRequest, "query: limit: got %d; want 1 to %d", q.Limit, engine.MaxPage)
	}
	f, err := filterOf(q.Protocol, q.Frontend, q.Pool, q.Backend, q.Client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	if q.Sort != "" {
		return s.sortedSessions(ctx, f, &q)
	}
	page, next, err := s.o.Engine.ListSessions(ctx, f, q.Cursor, q.Limit)
	if err != nil {
		return nil, problemf(fasthttp.StatusBadRequest, "query: cursor: %v", err)
	}
	return sessionList{Sessions: sessionsOf(page), Next: next}, nil
}

// sessionOrders compare sessions by what a query may sort by.
var sessionOrders = map[string]func(a, b engine.SessionInfo) int{
	"age":    func(a, b engine.SessionInfo) int { return cmp.Compare(b.Age, a.Age) },
	"idle":   func(a, b engine.SessionInfo) int { return cmp.Compare(b.Idle, a.Idle) },
	"bytes":  func(a, b engine.SessionInfo) int { return cmp.Compare(b.C2B+b.B2C, a.C2B+a.B2C) },
	"client": func(a, b engine.SessionInfo) int { return a.Client.Compare(b.Client) },
}

func (s *Server) sortedSessions(ctx context.Context, f engine.SessionFilter, q *sessionsQuery) (any, error) {
	order := sessionOrders[q.Sort]
	if order == nil || q.Cursor != "" {
		return nil, problemf(fasthttp.StatusBadRequest, "query: sort: got %q; want age, idle, bytes or client, and no cursor", cutText(q.Sort, 80))
	}
	var all []engine.SessionInfo
	for after := ""; ; {
		page, next, err := s.o.Engine.ListSessions(ctx, f, after, engine.MaxPage)
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); len(all) > maxSorted {
			return nil, problemf(fasthttp.StatusUnprocessableEntity, "more than %d sessions fit: ask for fewer, or without sort", maxSorted)
		}
		if after = next; after == "" {
			break
		}
	}
	slices.SortStableFunc(all, order)
	total := len(all)
	from := min(q.Offset, total)
	return sessionList{Sessions: sessionsOf(all[from:min(from+q.Limit, total)]), Total: &total}, nil
}

func filterOf(protocol, frontend, pool, backend, client string) (engine.SessionFilter, error) {
	prefix, err := prefixOf(client)
	if err != nil {
		return engine.SessionFilter{}, err
	}
	if protocol != "" && protocol != "tcp" && protocol != "udp" {
		return engine.SessionFilter{}, problemf(fasthttp.StatusBadRequest, "protocol: got %q; want tcp or udp", cutText(protocol, 80))
	}
	return engine.SessionFilter{Protocol: protocol, Frontend: frontend, Pool: pool, Backend: backend, Client: prefix}, nil
}

func sessionsOf(page []engine.SessionInfo) []sessionStatus {
	list := make([]sessionStatus, 0, len(page))
	for i := range page {
		list = append(list, sessionOf(&page[i]))
	}
	return list
}

func sessionOf(i *engine.SessionInfo) sessionStatus {
	out := sessionStatus{ID: i.ID.String(), Protocol: i.Protocol, Frontend: i.Frontend, Pool: i.Pool, Backend: i.Backend, State: i.State,
		Started: rounded(i.Started), Age: i.Age.Seconds(), Idle: i.Idle.Seconds(), Bytes: bytesStatus{i.C2B, i.B2C}, SNI: i.ServerName}
	if i.Client.IsValid() {
		out.Client = i.Client.String()
	}
	if i.Proxy.IsValid() {
		out.Proxy = i.Proxy.String()
	}
	if i.TLSVersion != 0 {
		out.TLS = tlsVersions[(i.TLSVersion-0x0301)%engine.NumTLSVersions]
	}
	if i.Protocol == "udp" {
		out.Datagrams = &bytesStatus{i.Asked, i.Answered}
	}
	return out
}

// one returns the filter of the session in the path.
func (c *call) one() (engine.SessionFilter, error) {
	id, err := engine.ParseSessionID(c.param("id"))
	if err != nil {
		return engine.SessionFilter{}, problemf(fasthttp.StatusBadRequest, "%v", err)
	}
	return engine.SessionFilter{ID: id}, nil
}

func (s *Server) session(c *call) (any, error) {
	f, err := c.one()
	if err != nil {
		return nil, err
	}
	page, _, err := s.o.Engine.ListSessions(context.Background(), f, "", 1)
	if err != nil || len(page) == 0 {
		return nil, cmp.Or(err, notFound("session", c.param("id")))
	}
	return sessionOf(&page[0]), nil
}

func (s *Server) killOne(c *call) (any, error) {
	f, err := c.one()
	if err != nil {
		return nil, err
	}
	n, err := s.o.Engine.KillSessions(context.Background(), f)
	if err == nil && n == 0 {
		err = notFound("session", c.param("id"))
	}
	return nil, err
}

// killOrder says which sessions and flows are to end: those that all of it means.
type killOrder struct {
	Protocol string `json:"protocol,omitempty" enum:"tcp,udp"`
	Frontend string `json:"frontend,omitempty"`
	Pool     string `json:"pool,omitempty"`
	Backend  string `json:"backend,omitempty" description:"its address"`
	Client   string `json:"client,omitempty" description:"a prefix or an address"`
	All      bool   `json:"all,omitempty" description:"required where nothing else is said"`
	DryRun   bool   `json:"dry_run,omitempty" description:"count only"`
}

type killed struct {
	Killed int  `json:"killed" description:"sessions and flows that were ended, or with dry_run would be"`
	DryRun bool `json:"dry_run"`
}

func (s *Server) kill(c *call) (any, error) {
	var o killOrder
	if err := c.decode(&o); err != nil {
		return nil, err
	}
	c.dryRun = o.DryRun
	f, err := filterOf(o.Protocol, o.Frontend, o.Pool, o.Backend, o.Client)
	if err != nil {
		return nil, err
	}
	if f == (engine.SessionFilter{}) && !o.All {
		return nil, problemf(fasthttp.StatusBadRequest, `no filter: write {"all": true} to end every session and flow`)
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	out := killed{DryRun: o.DryRun}
	if !o.DryRun {
		out.Killed, err = s.o.Engine.KillSessions(ctx, f)
		return out, err
	}
	for after := ""; ; {
		page, next, err := s.o.Engine.ListSessions(ctx, f, after, engine.MaxPage)
		if err != nil {
			return nil, err
		}
		out.Killed += len(page)
		if after = next; after == "" {
			return out, nil
		}
	}
}
