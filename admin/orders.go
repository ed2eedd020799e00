package admin

import (
	"encoding/json"
	"errors"

	"awe4lb/balancer"

	"github.com/valyala/fasthttp"
)

// The calls that order something of a backend at run time.

func orderEndpoints() []endpoint {
	return []endpoint{
		{"PATCH", "/api/v1/pools/{pool}/backends/{address:*}", operator, "drain a backend, take it out for maintenance, admit it again, or give it another weight", nil, backendOrder{}, backendStatus{}, (*Server).order},
	}
}

// backendOrder is what is wanted of a backend. What is missing stays as it is. Orders hold over reloads, until they are taken
// back.
type backendOrder struct {
	State  string          `json:"state,omitempty" enum:"ready,drain,maintenance" description:"ready takes back the other two"`
	Weight json.RawMessage `json:"weight,omitempty" description:"0 to 1000; null: as it is configured"`
}

// order does what the body says, all of it or nothing.
func (s *Server) order(c *call) (any, error) {
	var o backendOrder
	if err := c.decode(&o); err != nil {
		return nil, err
	}
	pool, address, by := c.param("pool"), c.param("address"), c.who.String()
	steps := []func() error{}
	if o.State != "" {
		order, err := balancer.ParseOrder(o.State)
		if err != nil {
			return nil, problemf(fasthttp.StatusBadRequest, "state: %v", err)
		}
		steps = append(steps, func() error { return s.o.Director.Order(pool, address, order, by) })
	}
	switch weight := -1; {
	case o.Weight == nil:
	case string(o.Weight) == "null":
		steps = append(steps, func() error { return s.o.Director.ResetWeight(pool, address, by) })
	case json.Unmarshal(o.Weight, &weight) != nil || weight < 0 || weight > balancer.MaxWeight:
		return nil, problemf(fasthttp.StatusBadRequest, "weight: got %s; want an integer from 0 to %d, or null", cutText(string(o.Weight), 80), balancer.MaxWeight)
	default:
		steps = append(steps, func() error { return s.o.Director.SetWeight(pool, address, weight, by) })
	}
	if len(steps) == 0 {
		return nil, problemf(fasthttp.StatusBadRequest, "the body orders nothing: want state, weight or both")
	}
	for _, step := range steps { // after the first, the others cannot fail: the backend is there and the weight is right
		switch err := step(); {
		case errors.Is(err, balancer.ErrNoPool):
			return nil, notFound("pool", pool)
		case errors.Is(err, balancer.ErrNoBackend):
			return nil, notFound("backend", address)
		case err != nil:
			return nil, err
		}
	}
	return s.backend(c)
}
