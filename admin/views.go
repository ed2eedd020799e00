package admin

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"awe4lb/engine"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"
)

// GET /metrics shows one status in several ways: by our own names, or by those that dashboards for other balancers ask for.
// One scrape takes one view, so that nothing is stored twice.

// view is one way to show the status.
type view struct {
	sections []section
	filters  bool // knows HAProxy's metrics, no-maint, extra-counters and desc-labels
	runtime  bool // go_ and process_ series follow

	size *atomic.Int64 // of the last text, in bytes
}

// section is the part of a view that a scope selects.
type section struct {
	scope string // "" in views that have none
	write func(*Server, *exposition, *status)
}

var views = map[string]view{
	"": {size: new(atomic.Int64), runtime: true, sections: []section{
		{"process", (*Server).writeProcess},
		{"frontend", func(_ *Server, x *exposition, st *status) { writeFrontends(x, st); writeDatagrams(x, st) }},
		{"pool", func(_ *Server, x *exposition, st *status) { writePools(x, st) }},
		{"backend", func(_ *Server, x *exposition, st *status) { writeBackends(x, st) }},
		{"process", func(_ *Server, x *exposition, st *status) { writeShards(x, st) }},
		{"certificate", func(_ *Server, x *exposition, st *status) { writeCertificates(x, st) }},
		{"process", func(_ *Server, x *exposition, st *status) { writeAccessLists(x, st) }},
		{"discovery", func(_ *Server, x *exposition, st *status) { writeDiscovery(x, st.discovery) }},
	}},
	"gobetween": {size: new(atomic.Int64), runtime: true, sections: []section{{"", (*Server).writeGobetween}}},
	"haproxy":   {size: new(atomic.Int64), filters: true, sections: haproxySections},
	"envoy":     {size: new(atomic.Int64), sections: []section{{"", (*Server).writeEnvoy}}},
}

func init() { metrics.ExposeMetadata(true) } // HELP and TYPE for go_ and process_ series too

// viewQuery is what a scrape asks for.
type viewQuery struct {
	view
	scopes  map[string]bool // nil: all
	only    map[string]bool // families; nil: all that are not in except
	except  map[string]bool
	noMaint bool // backends in maintenance are left out
}

// parseViewQuery reads the query of a scrape. What it does not know it refuses: a filter that is misspelt would mean everything.
func parseViewQuery(args *fasthttp.Args) (*viewQuery, error) {
	name := string(args.Peek("view"))
	v, ok := views[name]
	if !ok {
		return nil, problemf(fasthttp.StatusBadRequest, "query: view: got %q; want gobetween, haproxy or envoy, or none for awe4lb's own names", cutText(name, 80))
	}
	q := &viewQuery{view: v}
	for key, value := range args.All() {
		switch key, value := string(key), string(value); {
		case key == "view":
		case key == "scope" && v.sections[0].scope != "":
			if err := q.scope(value); err != nil {
				return nil, err
			}
		case key == "metrics" && v.filters:
			q.families(value)
		case key == "no-maint" && v.filters:
			q.noMaint = true
		case (key == "extra-counters" || key == "desc-labels") && v.filters: // nothing here has any
		default:
			return nil, problemf(fasthttp.StatusBadRequest, "query: %q is not known here", cutText(key, 80))
		}
	}
	return q, nil
}

// scope adds a scope; * is all of them, and an empty one takes back those before.
func (q *viewQuery) scope(name string) error {
	if q.scopes == nil || name == "" {
		q.scopes = map[string]bool{}
	}
	known := map[string]bool{}
	for _, s := range q.sections {
		known[s.scope] = true
	}
	switch {
	case name == "":
	case name == "*":
		maps.Copy(q.scopes, known)
	case known[name]:
		q.scopes[name] = true
	default:
		want := slices.Sorted(maps.Keys(known))
		return problemf(fasthttp.StatusBadRequest, "query: scope: got %q; want %s, * or nothing", cutText(name, 80), strings.Join(want, ", "))
	}
	return nil
}

// families adds names of families, separated by commas: those wanted, or with a minus those that are not.
func (q *viewQuery) families(list string) {
	for name := range strings.SplitSeq(list, ",") {
		set, name := &q.only, strings.TrimSpace(name)
		if rest, minus := strings.CutPrefix(name, "-"); minus {
			set, name = &q.except, rest
		}
		if name == "" {
			continue
		}
		if *set == nil {
			*set = map[string]bool{}
		}
		(*set)[name] = true
	}
}

func (q *viewQuery) wants(family string) bool {
	return !q.except[family] && (q.only == nil || q.only[family])
}

// textFormat is the content type of a scrape.
const textFormat = "text/plain; version=0.0.4; charset=utf-8"

func (s *Server) metrics(c *fasthttp.RequestCtx) {
	q, err := parseViewQuery(c.QueryArgs())
	if err != nil {
		s.fail(c, err)
		return
	}
	c.SetContentType(textFormat)
	c.Response.SetBodyRaw(s.text(q))
}

// text returns what q asks for, as it is at this moment.
func (s *Server) text(q *viewQuery) []byte {
	x := exposition{buf: make([]byte, 0, q.size.Load()+64<<10)} // as large as last time: growing cost half of a scrape
	if q.only != nil || q.except != nil {
		x.wanted = q.wants
	}
	st := s.collect()
	st.noMaint = q.noMaint
	for _, section := range q.sections {
		if q.scopes == nil || q.scopes[section.scope] {
			section.write(s, &x, st)
		}
	}
	if q.runtime && (q.scopes == nil || q.scopes["process"]) {
		w := bytes.NewBuffer(x.buf)
		metrics.WriteProcessMetrics(w)
		x.buf = w.Bytes()
	}
	q.size.Store(int64(len(x.buf)))
	return x.buf
}

// totals returns what each pool has counted, backends that are gone included, so that no sum falls when one goes. It goes by the
// counters alone: the lists of backends are of another moment.
func (st *status) totals() []*engine.BackendStats {
	all, of := make([]*engine.BackendStats, len(st.Pools)), map[string]*engine.BackendStats{}
	for i, p := range st.Pools {
		t := engine.NewBackendStats()
		t.Add(&p.stats.Gone)
		all[i], of[p.Name] = t, t
	}
	for b, n := range st.counted {
		if t := of[b.Pool]; t != nil {
			t.Add(n)
		}
	}
	return all
}

// failures returns how many attempts to connect failed.
func failures(st *engine.BackendStats) (n uint64) {
	for _, errors := range st.ConnectErrors {
		n += errors
	}
	return n
}
