package admin

import (
	"slices"
	"strconv"

	"awe4lb/config"
	"awe4lb/internal/confstore"

	"github.com/valyala/fasthttp"
)

// The calls that change frontends, pools and backends in what runs: in its text, so that the whole of it is judged as the file is.

func changeEndpoints() []endpoint {
	return []endpoint{
		{"PUT", "/api/v1/frontends/{name}", configurer, "make or replace a frontend; the body is its table", changeQuery{}, text{}, changed{}, (*Server).putFrontend},
		{"DELETE", "/api/v1/frontends/{name}", configurer, "remove a frontend", changeQuery{}, nil, changed{}, (*Server).deleteFrontend},
		{"PUT", "/api/v1/pools/{pool}", configurer, "make or replace a pool; the body is its table", changeQuery{}, text{}, changed{}, (*Server).putPool},
		{"DELETE", "/api/v1/pools/{pool}", configurer, "remove a pool", changeQuery{}, nil, changed{}, (*Server).deletePool},
		{"GET", "/api/v1/frontends/{name}/table", configurer, "the lines of a frontend in the text that runs, with comments and secrets", nil, nil, raw{}, (*Server).frontendLines},
		{"PUT", "/api/v1/frontends/{name}/table", configurer, "change a frontend as it is written: the body takes the place of its lines", changeQuery{}, lines{}, changed{}, (*Server).putFrontendLines},
		{"GET", "/api/v1/pools/{pool}/table", configurer, "the lines of a pool in the text that runs, with comments and secrets", nil, nil, raw{}, (*Server).poolLines},
		{"PUT", "/api/v1/pools/{pool}/table", configurer, "change a pool as it is written: the body takes the place of its lines", changeQuery{}, lines{}, changed{}, (*Server).putPoolLines},
		{"POST", "/api/v1/pools/{pool}/backends", configurer, "add a backend to a pool; the body is its table", changeQuery{}, text{}, changed{}, (*Server).addBackend},
		{"DELETE", "/api/v1/pools/{pool}/backends/{address:*}", configurer, "remove a backend from a pool", changeQuery{}, nil, changed{}, (*Server).removeBackend},
	}
}

type changeQuery struct {
	DryRun  bool `query:"dry_run" description:"say what would happen, and change nothing"`
	Persist bool `query:"persist" description:"write it back to the configuration's file; else a reload drops it"`
}

// changed is what a change did, or with dry_run would do.
type changed struct {
	Version     uint64   `json:"version" description:"of the configuration in force; with dry_run, that it would have"`
	Changes     []change `json:"changes"`
	NeedRestart []string `json:"need_restart,omitempty"`
	Warnings    []string `json:"warnings,omitempty" description:"with dry_run"`
	DryRun      bool     `json:"dry_run"`
	Unsaved     bool     `json:"unsaved" description:"what runs is in memory only: a reload drops it"`
	Text        string   `json:"text,omitempty" description:"with dry_run: what would run, as /api/v1/config would show it"`
}

func (s *Server) putFrontend(c *call) (any, error) {
	return s.putTable(c, "frontends", c.param("name"))
}

func (s *Server) deleteFrontend(c *call) (any, error) {
	return s.removeTable(c, "frontends", c.param("name"), "frontend")
}

func (s *Server) putPool(c *call) (any, error) { return s.putTable(c, "pools", c.param("pool")) }

func (s *Server) deletePool(c *call) (any, error) {
	return s.removeTable(c, "pools", c.param("pool"), "pool")
}

func (s *Server) putTable(c *call, path ...string) (*changed, error) {
	value, err := c.tableText()
	if err != nil {
		return nil, err
	}
	return s.edit(c, func(*Running, *config.Document) ([]edit, error) { return []edit{{path, value, path}}, nil })
}

func (s *Server) removeTable(c *call, section, name, kind string) (*changed, error) {
	return s.edit(c, func(_ *Running, in *config.Document) ([]edit, error) {
		if tableIn(in.Values, section, name) == nil {
			return nil, notFound(kind, name)
		}
		return []edit{{[]string{section, name}, nil, nil}}, nil
	})
}

// tableIn returns a table in tables, nil when it is not there.
func tableIn(values map[string]any, path ...string) map[string]any {
	for _, key := range path {
		values, _ = values[key].(map[string]any)
	}
	return values
}

func (s *Server) addBackend(c *call) (any, error) {
	value, err := c.tableText()
	if err != nil {
		return nil, err
	}
	return s.editBackends(c, func(_ *Running, list []any) ([]any, error) { return append(list, value), nil })
}

func (s *Server) removeBackend(c *call) (any, error) {
	address := c.param("address")
	return s.editBackends(c, func(now *Running, list []any) ([]any, error) {
		i := -1
		if p := now.Config.Pool(c.param("pool")); p != nil && len(p.Backends) == len(list) {
			i = slices.IndexFunc(p.Backends, func(b *config.Backend) bool { return b.Address.String() == address })
		}
		if i < 0 {
			return nil, notFound("backend in the configuration", address)
		}
		return slices.Delete(list, i, i+1), nil
	})
}

func (s *Server) editBackends(c *call, change func(now *Running, list []any) ([]any, error)) (*changed, error) {
	pool := c.param("pool")
	return s.edit(c, func(now *Running, in *config.Document) ([]edit, error) {
		table := tableIn(in.Values, "pools", pool)
		if table == nil {
			return nil, notFound("pool", pool)
		}
		var list []any
		switch v := table["backends"].(type) {
		case []any:
			list = slices.Clone(v)
		case []map[string]any:
			for _, b := range v {
				list = append(list, b)
			}
		}
		list, err := change(now, list)
		path := []string{"pools", pool, "backends"}
		return []edit{{path, list, append(slices.Clone(path), strconv.Itoa(len(list)-1))}}, err
	})
}

// tableText returns the body as a table.
func (c *call) tableText() (map[string]any, error) {
	text := c.PostBody()
	if c.sendsJSON() {
		toml, err := config.FromJSON(text)
		if err != nil {
			return nil, problemf(fasthttp.StatusBadRequest, "%v", err)
		}
		text = toml
	}
	d, err := config.ParseDocument("body", text)
	if err != nil {
		return nil, err
	}
	return d.Values, nil
}

// edit is a value of the text that is to be another; nil: that is to go.
type edit struct {
	path  []string
	value any
	body  []string // where in the configuration the body stands
}

// edit changes the text of what runs as what says, and makes the result what runs.
func (s *Server) edit(c *call, what func(now *Running, in *config.Document) ([]edit, error)) (*changed, error) {
	return s.rewrite(c, func(now *Running) (text []byte, explain func(error) error, err error) {
		document, err := config.ParseDocument(now.Name, now.Text)
		if err != nil {
			return nil, nil, err
		}
		edits, err := what(now, document)
		if err != nil {
			return nil, nil, err
		}
		text = now.Text
		for _, e := range edits {
			if text, err = config.Edit(text, e.path, e.value); err != nil {
				return nil, nil, problemf(fasthttp.StatusConflict, "%v", err)
			}
		}
		return text, func(err error) error { return c.within(edits[0].body, err) }, nil
	})
}

// rewrite makes another text of the one that runs, and that what runs. explain makes the mistakes in it those of what was sent.
func (s *Server) rewrite(c *call, with func(now *Running) (text []byte, explain func(error) error, err error)) (*changed, error) {
	var q changeQuery
	if err := c.query(&q); err != nil {
		return nil, err
	}
	c.dryRun = q.DryRun
	if !q.DryRun {
		s.editing.Lock()
		defer s.editing.Unlock()
	}
	now := s.o.Configs.Running()
	tag := confstore.Tag(now.Text)
	if err := c.ifMatch(tag); err != nil {
		return nil, err
	}
	if now.Stopped {
		return nil, problemf(fasthttp.StatusConflict, "the configuration is stopped: select one first")
	}
	text, explain, err := with(now)
	if err != nil {
		return nil, err
	}
	ch := Change{Name: now.Name, Text: text, Stored: now.Stored, After: tag, Check: s.mayBring(c, now.Name)}
	if q.DryRun {
		preview, err := s.o.Configs.Preview(ch)
		if err != nil {
			return nil, explain(err)
		}
		shown, err := config.Redact(now.Name, text)
		if err != nil {
			return nil, err
		}
		c.setETag(tag) // of what it would change
		r := preview.Report
		return &changed{r.Version, r.Changes, r.NeedRestart, preview.Warnings, true, !q.Persist && confstore.Tag(text) != now.Stored, string(shown)}, nil
	}
	if q.Persist {
		staged, err := s.o.Configs.Store().Stage(now.Name, text, c.who.String(), func(stored string) error {
			if stored != now.Stored {
				return problemf(fasthttp.StatusConflict, "the file has been changed since it was read: reload it first, or leave out persist")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		defer staged.Discard() // unless it is committed
		ch.Stored, ch.Keep = confstore.Tag(text), staged.Commit
	}
	r, err := s.o.Configs.Run(ch)
	if err != nil {
		return nil, explain(err)
	}
	c.setETag(confstore.Tag(text))
	return &changed{r.Version, r.Changes, r.NeedRestart, nil, false, ch.Stored != confstore.Tag(text), ""}, nil
}
