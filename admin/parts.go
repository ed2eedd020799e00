package admin

import "github.com/valyala/fasthttp"

// Parts of the status, for who does not want all of it.

type frontendList struct {
	Frontends []frontendStatus `json:"frontends"`
}

type poolList struct {
	Pools   []poolStatus    `json:"pools"`
	Retired []backendStatus `json:"retired" description:"backends no longer configured that still have sessions"`
}

type shardList struct {
	Shards []shardStatus `json:"shards"`
}

type certificateList struct {
	Certificates []certificateStatus `json:"certificates"`
	ACME         []acmeStatus        `json:"acme"`
}

func (s *Server) frontends(*call) (any, error) { return frontendList{s.collect().Frontends}, nil }

func (s *Server) frontend(c *call) (any, error) {
	for _, f := range s.collect().Frontends {
		if f.Name == c.param("name") {
			return f, nil
		}
	}
	return nil, notFound("frontend", c.param("name"))
}

func (s *Server) pools(*call) (any, error) {
	st := s.collect()
	return poolList{st.Pools, st.Retired}, nil
}

func (s *Server) pool(c *call) (any, error) {
	for _, p := range s.collect().Pools {
		if p.Name == c.param("pool") {
			return p, nil
		}
	}
	return nil, notFound("pool", c.param("pool"))
}

func (s *Server) backend(c *call) (any, error) {
	for _, p := range s.collect().Pools {
		if p.Name != c.param("pool") {
			continue
		}
		for _, b := range p.Backends {
			if b.Address == c.param("address") {
				return b, nil
			}
		}
		return nil, notFound("backend", c.param("address"))
	}
	return nil, notFound("pool", c.param("pool"))
}

func (s *Server) shards(*call) (any, error) { return shardList{s.collect().Shards}, nil }

func (s *Server) certificates(*call) (any, error) {
	st := s.collect()
	return certificateList{st.Certificates, st.ACME}, nil
}

func notFound(kind, name string) error {
	return problemf(fasthttp.StatusNotFound, "there is no %s %q", kind, cutText(name, 80))
}
