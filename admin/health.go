package admin

import (
	"time"

	"awe4lb/balancer"
	"awe4lb/health"
)

// healthStatus is what a health check knows of a backend.
type healthStatus struct {
	Kind    string    `json:"kind"`
	State   string    `json:"state"` // up, down or checking
	Since   time.Time `json:"since"`
	Why     string    `json:"why,omitempty"` // the state is that; missing for the initial one
	Streak  int       `json:"streak"`        // results in a row that speak against the state
	Changes uint64    `json:"changes"`

	LastCheck  *time.Time `json:"last_check,omitempty"` // these are missing before the first probe
	LastResult string     `json:"last_result,omitempty"`
	LastError  string     `json:"last_error,omitempty"`
	Note       string     `json:"note,omitempty"`
	Latency    float64    `json:"latency_seconds"`
	Weight     *int       `json:"agent_weight,omitempty"`
	Expires    *time.Time `json:"certificate_not_after,omitempty"`

	Good    uint64 `json:"good"`
	Bad     uint64 `json:"bad"`
	Unknown uint64 `json:"unknown"`
}

func (s *Server) healthStatus() map[health.Key]health.Status {
	if s.o.Health == nil {
		return nil
	}
	return s.o.Health.Status()
}

// healthOf returns what is known of b, or nil.
func healthOf(checked map[health.Key]health.Status, b *balancer.Backend) *healthStatus {
	h, ok := checked[health.Key{Pool: b.Pool, Address: b.Address}]
	if !ok {
		return nil
	}
	out := &healthStatus{Kind: h.Kind, State: h.State, Since: rounded(h.Since), Why: h.Why, Streak: h.Streak, Changes: h.Changes,
		LastResult: h.Result, LastError: h.Error, Note: h.Note, Latency: h.Took.Seconds(), Good: h.Good, Bad: h.Bad, Unknown: h.Unknown}
	if !h.Checked.IsZero() {
		out.LastCheck = new(rounded(h.Checked))
	}
	if h.Weight >= 0 {
		out.Weight = &h.Weight
	}
	if !h.Expires.IsZero() {
		out.Expires = new(h.Expires.UTC())
	}
	return out
}

func rounded(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// writeHealth writes the families of backends that have a health check.
func writeHealth(each func(name, kind, help string, write func(b *backendStatus, name string)), x *exposition) {
	checked := func(name, kind, help string, write func(b *backendStatus, name string)) {
		each(name, kind, help, func(b *backendStatus, name string) {
			if b.Health != nil {
				write(b, name)
			}
		})
	}
	checked("awe4lb_backend_state_changes_total", "counter", "Times the backend went up or down by its health check.",
		func(b *backendStatus, name string) { x.count(b.Health.Changes, name, b.labels) })
	checked("awe4lb_backend_last_change_timestamp_seconds", "gauge", "When the backend last went up or down, or its check began.",
		func(b *backendStatus, name string) {
			x.gauge(float64(b.Health.Since.UnixMilli())/1000, name, b.labels)
		})
	checked("awe4lb_health_checks_total", "counter", "Probes of the backend, by result; unknown: we could not ask.",
		func(b *backendStatus, name string) {
			x.count(b.Health.Good, name, b.labels+","+labels("result", "good"))
			x.count(b.Health.Bad, name, b.labels+","+labels("result", "bad"))
			x.count(b.Health.Unknown, name, b.labels+","+labels("result", "unknown"))
		})
	checked("awe4lb_health_check_duration_seconds", "gauge", "How long the last probe of the backend took.",
		func(b *backendStatus, name string) { x.gauge(b.Health.Latency, name, b.labels) })
}

// event is something that happened to a backend.
type event struct {
	Time    time.Time `json:"time"`
	Pool    string    `json:"pool"`
	Backend string    `json:"backend"` // "" where it is about the pool
	What    string    `json:"what"`    // health, outlier, order, weight, agent or discovery: what has changed, or who has changed it
	From    string    `json:"from"`    // before: a state, or a weight
	To      string    `json:"to"`
	Why     string    `json:"why,omitempty"`
	By      string    `json:"by,omitempty"`            // who asked for it
	After   float64   `json:"after_seconds,omitempty"` // health: how long the state before had lasted

	Discovery *discoveryEvent `json:"discovery,omitempty"` // what it is, where what is discovery
}

type eventList struct {
	Events []event `json:"events"`
}

func (s *Server) events(*call) (any, error) { return eventList{s.eventsSince(time.Time{})}, nil }

// eventsSince returns the events after t, the newest first.
func (s *Server) eventsSince(t time.Time) []event {
	list := []event{}
	for _, e := range s.o.Director.Events() {
		if !e.Time.After(t) {
			break
		}
		list = append(list, event{rounded(e.Time), e.Pool, e.Backend, e.What, e.From, e.To, e.Why, e.By, e.After.Seconds(), nil})
	}
	return s.withDiscovery(list, t)
}

// newestEvent returns when the last event was.
func (s *Server) newestEvent() time.Time {
	newest := s.newestDiscovery()
	if all := s.o.Director.Events(); len(all) > 0 && all[0].Time.After(newest) {
		return all[0].Time
	}
	return newest
}

// checksList is the answer of GET /api/v1/health.
type checksList struct {
	Checks []checkStatus `json:"checks"`
}

type checkStatus struct {
	Pool    string        `json:"pool"`
	Backend string        `json:"backend"`
	Kind    string        `json:"kind"`
	State   string        `json:"state" enum:"up,down,checking"`
	Since   time.Time     `json:"since"`
	Why     string        `json:"why,omitempty"`
	Streak  int           `json:"streak"`
	Last    []checkResult `json:"last" description:"the last probes, at most 60, the oldest first"`
}

type checkResult struct {
	Time   time.Time `json:"time"`
	Result string    `json:"result" enum:"good,bad,unknown"`
	Took   float64   `json:"seconds"`
}

func (s *Server) checks(*call) (any, error) {
	out := checksList{[]checkStatus{}}
	if s.o.Health == nil {
		return out, nil
	}
	all := s.o.Health.Status()
	for _, p := range s.o.Director.Snapshot().Pools {
		for _, m := range p.Members {
			key := health.Key{Pool: m.Pool, Address: m.Address}
			h, ok := all[key]
			if !ok {
				continue
			}
			c := checkStatus{m.Pool, m.Name, h.Kind, h.State, rounded(h.Since), h.Why, h.Streak, []checkResult{}}
			for _, r := range s.o.Health.Recent(key) {
				c.Last = append(c.Last, checkResult{rounded(r.Time), r.Result, r.Took.Seconds()})
			}
			out.Checks = append(out.Checks, c)
		}
	}
	return out, nil
}
