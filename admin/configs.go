package admin

import (
	"bytes"
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/confstore"
	"awe4lb/tlsbridge/certs"

	"github.com/valyala/fasthttp"
)

// The calls about configurations: what runs, and those that are kept.

func configEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/config", reader, "the configuration that runs, without its secrets", formatQuery{}, nil, raw{}, (*Server).runningConfig},
		{"GET", "/api/v1/configs", reader, "the configurations that are kept; main is the file the process was started with", nil, nil, configList{}, (*Server).configs},
		{"POST", "/api/v1/configs/stop", configurer, "run no frontend, until one is selected, reloaded or the process starts again", nil, nil, report{}, (*Server).stopConfig},
		{"GET", "/api/v1/configs/{name}", reader, "the text of a configuration; secrets only for the role configure", formatQuery{}, nil, raw{}, (*Server).config},
		{"PUT", "/api/v1/configs/{name}", configurer, "store a configuration; it does not run before it is selected", nil, text{}, configInfo{}, (*Server).putConfig},
		{"DELETE", "/api/v1/configs/{name}", configurer, "delete a configuration that does not run, with its history", nil, nil, nil, (*Server).deleteConfig},
		{"POST", "/api/v1/configs/{name}/validate", configurer, "what would happen if it ran; without a body, of what is stored", nil, text{}, verdict{}, (*Server).validateConfig},
		{"POST", "/api/v1/configs/{name}/select", configurer, "run it, now and after the next start", nil, nil, report{}, (*Server).selectConfig},
		{"GET", "/api/v1/configs/{name}/history", reader, "the versions that are kept, the latest first", nil, nil, []configVersion{}, (*Server).configHistory},
		{"GET", "/api/v1/configs/{name}/history/{version}", reader, "the text of a version", formatQuery{}, nil, raw{}, (*Server).configVersion},
		{"POST", "/api/v1/configs/{name}/rollback", configurer, "store a version anew; if the configuration runs, run it", nil, rollback{}, report{}, (*Server).rollBack},
	}
}

type formatQuery struct {
	Format string `query:"format" enum:"toml,json" description:"default: what Accept asks for, else toml"`
}

type configList struct {
	Active  string       `json:"active" description:"the one that runs, and is to run after the next start"`
	Stopped bool         `json:"stopped" description:"nothing of it runs"`
	Unsaved bool         `json:"unsaved" description:"something runs that was changed in memory only: a reload drops it"`
	Configs []configInfo `json:"configs"`
}

type configInfo struct {
	Name     string    `json:"name"`
	Size     int       `json:"size" description:"bytes"`
	Changed  time.Time `json:"changed"`
	ETag     string    `json:"etag"`
	Active   bool      `json:"active"`
	Mistakes int       `json:"mistakes"`
}

type configVersion struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who,omitempty" description:"missing when it was not stored by the API"`
	Size    int       `json:"size" description:"bytes"`
}

// verdict says what would happen if a configuration ran.
type verdict struct {
	OK          bool      `json:"ok"`
	Errors      []mistake `json:"errors,omitempty"`
	Warnings    []string  `json:"warnings,omitempty"`
	Changes     []change  `json:"changes"`
	NeedRestart []string  `json:"need_restart,omitempty" description:"settings that change and take effect at the next start"`
}

type rollback struct {
	Version int `json:"version" required:"true" minimum:"1"`
}

func (s *Server) runningConfig(c *call) (any, error) {
	now := s.o.Configs.Running()
	c.setETag(confstore.Tag(now.Text))
	text, err := config.Redact(now.Name, now.Text)
	if err != nil {
		return nil, err
	}
	return c.configAs(text)
}

// configAs returns a configuration in the format that is asked for.
func (c *call) configAs(text []byte) (any, error) {
	var q formatQuery
	if err := c.query(&q); err != nil {
		return nil, err
	}
	accept := c.Request.Header.Peek("Accept")
	if q.Format == "" && bytes.Contains(accept, []byte("application/json")) && !bytes.Contains(accept, []byte("toml")) {
		q.Format = "json"
	}
	switch q.Format {
	case "", "toml":
		return raw{"application/toml; charset=utf-8", text}, nil
	case "json":
		d, err := config.ParseDocument("configuration", text)
		if err != nil {
			return nil, err
		}
		b, err := d.ToJSON()
		return raw{"application/json", b}, err
	}
	return nil, problemf(fasthttp.StatusBadRequest, "query: format: got %q; want toml or json", cutText(q.Format, 80))
}

func (s *Server) configs(*call) (any, error) {
	files, err := s.o.Configs.Store().List()
	if err != nil {
		return nil, err
	}
	now := s.o.Configs.Running()
	out := configList{Active: now.Name, Stopped: now.Stopped, Unsaved: now.Unsaved(), Configs: []configInfo{}}
	s.judged.keep(files)
	for _, f := range files {
		out.Configs = append(out.Configs, s.infoOf(f))
	}
	return out, nil
}

// judged remembers the number of mistakes of texts: to read all of them again for each list would be much.
type judged struct {
	mu       sync.Mutex
	mistakes map[string]int // guarded by mu; by name and tag
}

// keep forgets all but the files given.
func (j *judged) keep(files []*confstore.File) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := map[string]int{}
	for _, f := range files {
		key := f.Name + " " + confstore.Tag(f.Text)
		if n, ok := j.mistakes[key]; ok {
			kept[key] = n
		}
	}
	j.mistakes = kept
}

// of returns the number of mistakes of a file, which count finds out.
func (j *judged) of(f *confstore.File, count func() int) int {
	key := f.Name + " " + confstore.Tag(f.Text)
	j.mu.Lock()
	defer j.mu.Unlock()
	n, ok := j.mistakes[key]
	if !ok {
		n = count()
		if j.mistakes == nil || len(j.mistakes) >= 4*confstore.MaxConfigs { // texts that were stored while nobody asked for the list
			j.mistakes = map[string]int{}
		}
		j.mistakes[key] = n
	}
	return n
}

func (s *Server) infoOf(f *confstore.File) configInfo {
	mistakes := s.judged.of(f, func() int {
		var mistakes config.Errors
		_, err := s.parseConfig(f.Name, f.Text)
		errors.As(err, &mistakes)
		return len(mistakes)
	})
	return configInfo{Name: f.Name, Size: len(f.Text), Changed: rounded(f.Changed), ETag: confstore.Tag(f.Text),
		Active: f.Name == s.o.Configs.Running().Name, Mistakes: mistakes}
}

// parseConfig reads a text as the configuration of a name.
func (s *Server) parseConfig(name string, text []byte) (*config.Config, error) {
	path, err := s.o.Configs.Store().Path(name)
	if err != nil {
		return nil, err
	}
	main, err := s.o.Configs.Store().Path(confstore.Main)
	if err != nil {
		return nil, err
	}
	return config.ParseIn(filepath.Dir(main), path, text)
}

func (s *Server) config(c *call) (any, error) {
	f, err := s.o.Configs.Store().Read(c.param("name"))
	if err != nil {
		return nil, err
	}
	c.setETag(confstore.Tag(f.Text))
	return c.shown(f.Name, f.Text)
}

// shown returns a text for whoever asks: who may change it sees all of it.
func (c *call) shown(name string, text []byte) (any, error) {
	if c.who.role < configurer {
		redacted, err := config.Redact(name, text)
		if err != nil {
			return nil, problemf(fasthttp.StatusForbidden, "it is not TOML, so that secrets in it cannot be told: this needs the role %s", configurer)
		}
		text = redacted
	}
	return c.configAs(text)
}

func (s *Server) putConfig(c *call) (any, error) {
	name, store := c.param("name"), s.o.Configs.Store()
	text, err := c.configText()
	if err != nil {
		return nil, err
	}
	if err := s.mayStore(name, text, s.mayBring(c, name)); err != nil {
		return nil, c.asSent(err)
	}
	staged, err := store.Stage(name, text, c.who.String(), c.ifMatch)
	if err != nil {
		return nil, err
	}
	if err := staged.Commit(); err != nil {
		return nil, err
	}
	c.setETag(confstore.Tag(text))
	f, err := store.Read(name)
	if err != nil {
		return nil, err
	}
	return s.infoOf(f), nil
}

// mayStore reports why a text may not be stored. What is to run at the next start or reload has no mistakes; a draft may.
func (s *Server) mayStore(name string, text []byte, may func(next, running *config.Config) error) error {
	now := s.o.Configs.Running()
	next, err := s.parseConfig(name, text)
	var mistakes config.Errors
	switch {
	case errors.As(err, &mistakes) && name != confstore.Main && name != now.Name:
		return nil
	case err != nil:
		return err
	}
	return may(next, now.Config)
}

func (s *Server) deleteConfig(c *call) (any, error) {
	name := c.param("name")
	return nil, s.o.Configs.Store().Remove(name, func(tag string) error {
		if name == s.o.Configs.Running().Name {
			return problemf(fasthttp.StatusConflict, "it runs: select another one first")
		}
		return c.ifMatch(tag)
	})
}

func (s *Server) validateConfig(c *call) (any, error) {
	c.dryRun = true
	name, store := c.param("name"), s.o.Configs.Store()
	if _, err := store.Path(name); err != nil {
		return nil, err
	}
	var text []byte
	if len(c.PostBody()) > 0 {
		var err error
		if text, err = c.configText(); err != nil {
			return nil, err
		}
	} else {
		f, err := store.Read(name)
		if err != nil {
			return nil, err
		}
		text = f.Text
	}
	return s.judge(c, Change{Name: name, Text: text, Check: s.mayBring(c, name)})
}

// judge says what would come of a change.
func (s *Server) judge(c *call, ch Change) (verdict, error) {
	preview, err := s.o.Configs.Preview(ch)
	if err == nil {
		return verdict{OK: true, Warnings: preview.Warnings, Changes: preview.Report.Changes, NeedRestart: preview.Report.NeedRestart}, nil
	}
	out, err := verdict{Changes: []change{}}, c.asSent(err)
	var p *problem
	var mistakes config.Errors
	var named certs.Errors
	var bind *engine.BindError
	var host *engine.HostError
	var refusal *Refusal
	switch {
	case errors.As(err, &mistakes), errors.As(err, &named):
		out.Errors = asProblem(err).Errors
	case errors.As(err, &p) && p.Errors != nil:
		out.Errors = p.Errors
	case len(placed(err)) > 0:
		out.Errors = mistakesOf(placed(err))
	case errors.As(err, &p), errors.As(err, &bind), errors.As(err, &host), errors.As(err, &refusal):
		out.Errors = []mistake{{Message: err.Error()}}
	default:
		return out, err
	}
	return out, nil
}

func (s *Server) selectConfig(c *call) (any, error) {
	name, store := c.param("name"), s.o.Configs.Store()
	f, err := store.Read(name)
	if err != nil {
		return nil, err
	}
	tag := confstore.Tag(f.Text)
	if err := c.ifMatch(tag); err != nil {
		return nil, err
	}
	return s.o.Configs.Run(Change{Name: name, Text: f.Text, Stored: tag, Check: s.mayRun(c, name), Keep: func() error { return store.Select(name) }})
}

func (s *Server) stopConfig(*call) (any, error) { return s.o.Configs.Stop() }

func (s *Server) configHistory(c *call) (any, error) {
	versions, err := s.o.Configs.Store().Versions(c.param("name"))
	if err != nil {
		return nil, err
	}
	out := make([]configVersion, 0, len(versions))
	for _, v := range versions {
		out = append(out, configVersion{v.Number, v.Time, v.Who, v.Size})
	}
	return out, nil
}

func (s *Server) configVersion(c *call) (any, error) {
	n, err := strconv.Atoi(c.param("version"))
	if err != nil {
		return nil, problemf(fasthttp.StatusBadRequest, "version: want a number")
	}
	_, text, err := s.o.Configs.Store().Version(c.param("name"), n)
	if err != nil {
		return nil, err
	}
	c.setETag(confstore.Tag(text))
	return c.shown(c.param("name"), text)
}

func (s *Server) rollBack(c *call) (any, error) {
	var in rollback
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name, store := c.param("name"), s.o.Configs.Store()
	_, text, err := store.Version(name, in.Version)
	if err != nil {
		return nil, err
	}
	may := s.mayRestore(c, name)
	if err := s.mayStore(name, text, may); err != nil {
		return nil, err
	}
	staged, err := store.Stage(name, text, c.who.String(), c.ifMatch)
	if err != nil {
		return nil, err
	}
	defer staged.Discard() // unless it is committed
	now := s.o.Configs.Running()
	if name != now.Name || now.Stopped {
		return report{Version: s.o.Director.Snapshot().Version, Changes: []change{}}, staged.Commit()
	}
	return s.o.Configs.Run(Change{Name: name, Text: text, Stored: confstore.Tag(text), Check: may, Keep: staged.Commit})
}
