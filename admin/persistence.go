package admin

import (
	"net/netip"
	"strconv"

	"awe4lb/balancer"

	"github.com/valyala/fasthttp"
)

// The calls about who sticks to which backend.

func persistenceEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/persistence", reader, "the pools with persistence", nil, nil, persistenceList{}, (*Server).persistence},
		{"GET", "/api/v1/persistence/{pool}", reader, "the clients of a pool that have a backend, a page at a time", persistenceQuery{}, nil, stickList{}, (*Server).sticks},
		{"GET", "/api/v1/persistence/{pool}/{client}", reader, "the backend of the client of that address", nil, nil, stickStatus{}, (*Server).stick},
		{"DELETE", "/api/v1/persistence/{pool}", operator, "forget them all", nil, nil, forgotten{}, (*Server).unstickAll},
		{"DELETE", "/api/v1/persistence/{pool}/{client}", operator, "forget the client of that address", nil, nil, nil, (*Server).unstick},
	}
}

type persistenceList struct {
	Pools []persistencePool `json:"pools"`
}

type persistencePool struct {
	Pool string `json:"pool"`
	persistenceStatus
}

type persistenceQuery struct {
	Limit  int    `query:"limit" description:"1 to 1000; default 100"`
	Cursor string `query:"cursor" description:"what the page before said is next"`
}

type stickList struct {
	Clients []stickStatus `json:"clients"`
	Next    string        `json:"next,omitempty" description:"cursor of the next page; missing on the last"`
}

type stickStatus struct {
	Client  string  `json:"client" description:"an address, or a prefix"`
	Backend string  `json:"backend" description:"empty when it is no longer configured"`
	Idle    float64 `json:"idle_seconds" description:"since the client last came"`
	Left    float64 `json:"left_seconds" description:"until it is forgotten if it does not come"`
}

type forgotten struct {
	Forgotten int `json:"forgotten"`
}

func (s *Server) persistence(*call) (any, error) {
	out := persistenceList{[]persistencePool{}}
	for _, p := range s.collect().Pools {
		if p.Persistence != nil {
			out.Pools = append(out.Pools, persistencePool{p.Name, *p.Persistence})
		}
	}
	return out, nil
}

// sticky returns the pool in the path, which has persistence.
func (s *Server) sticky(c *call) (*balancer.Pool, error) {
	p := s.o.Director.Snapshot().Pool(c.param("pool"))
	if p == nil {
		return nil, notFound("pool", c.param("pool"))
	}
	if p.Config.Persistence == nil {
		return nil, problemf(fasthttp.StatusConflict, "pool %q has no persistence", p.Config.Name)
	}
	return p, nil
}

func (s *Server) sticks(c *call) (any, error) {
	p, err := s.sticky(c)
	if err != nil {
		return nil, err
	}
	q := persistenceQuery{Limit: 100}
	if err := c.query(&q); err != nil {
		return nil, err
	}
	from, err := strconv.Atoi("0" + q.Cursor)
	if err != nil || q.Limit < 1 || q.Limit > 1000 {
		return nil, problemf(fasthttp.StatusBadRequest, "query: got limit %d and cursor %q; want a limit from 1 to 1000 and what a page before this one said is next",
			q.Limit, cutText(q.Cursor, 80))
	}
	entries, next := p.StickEntries(from, q.Limit)
	out := stickList{Clients: []stickStatus{}}
	for _, e := range entries {
		out.Clients = append(out.Clients, stickStatusOf(e))
	}
	if next >= 0 {
		out.Next = strconv.Itoa(next)
	}
	return out, nil
}

func stickStatusOf(e balancer.StickEntry) stickStatus {
	return stickStatus{sourceName(e.Client), e.Backend, e.Idle.Seconds(), e.Left.Seconds()}
}

// sourceName is a prefix, or an address where it is one.
func sourceName(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (s *Server) stick(c *call) (any, error) {
	p, client, err := s.stickyClient(c)
	if err != nil {
		return nil, err
	}
	e, ok := p.StickEntry(client)
	if !ok {
		return nil, notFound("client", c.param("client"))
	}
	return stickStatusOf(e), nil
}

// stickyClient returns the pool and the client in the path.
func (s *Server) stickyClient(c *call) (*balancer.Pool, netip.Addr, error) {
	p, err := s.sticky(c)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	client, err := netip.ParseAddr(c.param("client"))
	if err != nil {
		return nil, client, problemf(fasthttp.StatusBadRequest, "client: got %q; want an address", cutText(c.param("client"), 80))
	}
	return p, client, nil
}

func (s *Server) unstickAll(c *call) (any, error) {
	p, err := s.sticky(c)
	if err != nil {
		return nil, err
	}
	return forgotten{p.UnstickAll()}, nil
}

func (s *Server) unstick(c *call) (any, error) {
	p, client, err := s.stickyClient(c)
	if err != nil {
		return nil, err
	}
	if !p.Unstick(client) {
		return nil, notFound("client", c.param("client"))
	}
	return nil, nil
}
