package admin

import (
	"maps"
	"slices"
	"time"

	"awe4lb/discovery"

	"github.com/valyala/fasthttp"
)

// discoveryStatus is how the discovery of a pool is.
type discoveryStatus struct {
	Pool      string         `json:"pool"`
	Backends  int            `json:"backends"` // found; those that the configuration names are apart
	Changes   uint64         `json:"changes"`  // of the list
	Changed   *time.Time     `json:"changed,omitempty"`
	Saved     *time.Time     `json:"saved,omitempty"`
	SaveError string         `json:"save_error,omitempty"`
	Sources   []sourceStatus `json:"sources"`           // in the order in which they count
	History   []event        `json:"history,omitempty"` // the newest first; only in the answer about discovery

	labels string // for the metrics
}

// sourceStatus is how one source is.
type sourceStatus struct {
	Name      string            `json:"name"`
	State     string            `json:"state"` // waiting, restored, fresh, holding, failing or stale
	Since     time.Time         `json:"since"`
	Backends  int               `json:"backends"`            // of it, in use
	Held      *int              `json:"held,omitempty"`      // backends of the list that is held back
	Confirmed int               `json:"confirmed,omitempty"` // how often the source has said that list again
	Good      *time.Time        `json:"last_success,omitempty"`
	Tried     *time.Time        `json:"last_try,omitempty"`
	Failures  int               `json:"failures"` // in a row
	Error     string            `json:"error,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	Skipped   string            `json:"skipped,omitempty"` // what was wrong with the first entry left out
	Refreshes map[string]uint64 `json:"refreshes"`         // by result: changed, unchanged, held, or why it failed
	Entries   uint64            `json:"entries_skipped"`   // in all
	Stale     uint64            `json:"stale"`             // times that its list went because of its age

	labels string // for the metrics
}

func (s *Server) discoveryStatus(history bool) []discoveryStatus {
	all := []discoveryStatus{}
	if s.o.Discovery == nil {
		return all
	}
	for _, d := range s.o.Discovery.Status() {
		out := discoveryStatus{Pool: d.Pool, Backends: d.Backends, Changes: d.Changes, Changed: given(d.Changed), Saved: given(d.Saved),
			SaveError: d.SaveError, Sources: []sourceStatus{}, labels: labels("pool", d.Pool)}
		for i := range d.Sources {
			out.Sources = append(out.Sources, sourceStatusOf(d.Pool, &d.Sources[i]))
		}
		if history {
			out.History = eventsOf(&d, time.Time{})
			slices.Reverse(out.History)
		}
		all = append(all, out)
	}
	return all
}

func sourceStatusOf(pool string, s *discovery.SourceStatus) sourceStatus {
	out := sourceStatus{Name: s.Name, State: s.State.String(), Since: rounded(s.Since), Backends: s.Backends, Confirmed: s.Confirmed,
		Good: given(s.Good), Tried: given(s.Tried), Failures: s.Failures, Error: s.Error, Reason: s.Reason, Skipped: s.Skipped,
		Refreshes: map[string]uint64{"changed": s.Counters.Changed, "unchanged": s.Counters.Unchanged, "held": s.Counters.Held},
		Entries:   s.Counters.Skipped, Stale: s.Counters.Stale, labels: labels("pool", pool, "source", s.Name)}
	for reason, n := range s.Counters.Failed {
		out.Refreshes[reason] = n
	}
	if s.State == discovery.Holding {
		out.Held = &s.Held
	}
	return out
}

// given returns nil for the zero time.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(rounded(t))
}

// discoveryEvent is what discovery has to say beside the why of an event.
type discoveryEvent struct {
	Event    string `json:"event"`            // change, held, released, failing, recovered, stale, restored or save
	Source   string `json:"source,omitempty"` // missing: the pool as a whole
	Added    int    `json:"added"`            // these three of a change: what became of backends
	Removed  int    `json:"removed"`
	Changed  int    `json:"changed"`
	Backends int    `json:"backends"` // of the list
}

// eventsOf returns what has happened to a pool's discovery after t, the oldest first.
func eventsOf(d *discovery.Status, t time.Time) (all []event) {
	for _, e := range d.History {
		if e.Time.After(t) {
			all = append(all, event{Time: rounded(e.Time), Pool: d.Pool, What: "discovery", Why: e.Detail,
				Discovery: &discoveryEvent{e.What, e.Source, e.Added, e.Removed, e.Altered, e.Length}})
		}
	}
	return all
}

// withDiscovery returns list with what discovery has to tell after t, the newest first.
func (s *Server) withDiscovery(list []event, t time.Time) []event {
	if s.o.Discovery == nil {
		return list
	}
	for _, d := range s.o.Discovery.Status() {
		list = append(list, eventsOf(&d, t)...)
	}
	slices.SortStableFunc(list, func(a, b event) int { return b.Time.Compare(a.Time) })
	return list
}

// newestDiscovery returns when the last event of discovery was.
func (s *Server) newestDiscovery() (newest time.Time) {
	if s.o.Discovery == nil {
		return newest
	}
	for _, d := range s.o.Discovery.Status() {
		if n := len(d.History); n > 0 && d.History[n-1].Time.After(newest) {
			newest = d.History[n-1].Time
		}
	}
	return newest
}

func discoveryEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/discovery", reader, "the sources of backends, and what has happened to them", nil, nil, discoveryList{}, (*Server).discoveries},
		{"POST", "/api/v1/discovery/{pool}/refresh", operator, "ask the sources of a pool now; what comes of it is told by the status", nil, nil, nil, (*Server).refresh},
		{"POST", "/api/v1/discovery/{pool}/accept", operator, "use the lists of a pool that are held back", nil, nil, acceptedLists{}, (*Server).accept},
	}
}

type discoveryList struct {
	Pools []discoveryStatus `json:"pools"`
}

// acceptedLists is what became of the lists that were held back.
type acceptedLists struct {
	Pool  string `json:"pool"`
	Lists int    `json:"lists"` // in use now
}

func (s *Server) discoveries(*call) (any, error) { return discoveryList{s.discoveryStatus(true)}, nil }

func (s *Server) refresh(c *call) (any, error) {
	if pool := poolOf(c); s.o.Discovery == nil || !s.o.Discovery.Refresh(pool) {
		return nil, noDiscovery(pool)
	}
	return nil, nil
}

func (s *Server) accept(c *call) (any, error) {
	pool := poolOf(c)
	if s.o.Discovery == nil {
		return nil, noDiscovery(pool)
	}
	switch lists, ok := s.o.Discovery.Accept(pool); {
	case !ok:
		return nil, noDiscovery(pool)
	case lists == 0:
		return nil, problemf(fasthttp.StatusConflict, "no list of pool %q is held back", pool)
	default:
		return acceptedLists{pool, lists}, nil
	}
}

// poolOf returns the pool that the path names.
func poolOf(c *call) string {
	name, _ := c.UserValue("pool").(string)
	return name
}

func noDiscovery(pool string) error {
	return problemf(fasthttp.StatusNotFound, "there is no pool %q with discovery", pool)
}

func writeDiscovery(x *exposition, all []discoveryStatus) {
	pools := func(name, kind, help string, write func(d *discoveryStatus, name string)) {
		x.family(name, kind, help)
		for i := range all {
			write(&all[i], name)
		}
	}
	sources := func(name, kind, help string, write func(s *sourceStatus, name string)) {
		pools(name, kind, help, func(d *discoveryStatus, name string) {
			for i := range d.Sources {
				write(&d.Sources[i], name)
			}
		})
	}
	pools("awe4lb_discovery_backends", "gauge", "Backends found for the pool and in use.", func(d *discoveryStatus, name string) {
		x.gauge(float64(d.Backends), name, d.labels)
	})
	pools("awe4lb_discovery_changes_total", "counter", "Changes of the list of a pool.", func(d *discoveryStatus, name string) {
		x.count(d.Changes, name, d.labels)
	})
	pools("awe4lb_discovery_save_failing", "gauge", "1 when the lists of the pool could not be saved or read the last time.", func(d *discoveryStatus, name string) {
		x.gauge(oneIf(d.SaveError != ""), name, d.labels)
	})
	sources("awe4lb_discovery_source_backends", "gauge", "Backends of the source that are in use.", func(s *sourceStatus, name string) {
		x.gauge(float64(s.Backends), name, s.labels)
	})
	sources("awe4lb_discovery_source_up", "gauge", "1 when the last answer of the source is in use.", func(s *sourceStatus, name string) {
		x.gauge(oneIf(s.State == "fresh"), name, s.labels)
	})
	sources("awe4lb_discovery_held", "gauge", "1 while a list of the source is held back.", func(s *sourceStatus, name string) {
		x.gauge(oneIf(s.State == "holding"), name, s.labels)
	})
	sources("awe4lb_discovery_last_success_timestamp_seconds", "gauge", "When the source last said what is in use; 0 when it never did.", func(s *sourceStatus, name string) {
		at := 0.0
		if s.Good != nil {
			at = float64(s.Good.UnixMilli()) / 1000
		}
		x.gauge(at, name, s.labels)
	})
	sources("awe4lb_discovery_refreshes_total", "counter", "Answers and failures of the source, by result.", func(s *sourceStatus, name string) {
		for _, result := range slices.Sorted(maps.Keys(s.Refreshes)) {
			x.count(s.Refreshes[result], name, s.labels+","+labels("result", result))
		}
	})
	sources("awe4lb_discovery_entries_skipped_total", "counter", "Entries left out of lists because they make no sense.", func(s *sourceStatus, name string) {
		x.count(s.Entries, name, s.labels)
	})
	sources("awe4lb_discovery_stale_total", "counter", "Times that the list of the source went because of its age.", func(s *sourceStatus, name string) {
		x.count(s.Stale, name, s.labels)
	})
}
