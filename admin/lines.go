package admin

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"awe4lb/config"
	"awe4lb/internal/confstore"

	"github.com/valyala/fasthttp"
)

// The calls that show and change one frontend or pool as it is written: its lines, with what somebody has noted beside them
// (decision 0088).

func (s *Server) frontendLines(c *call) (any, error) {
	return s.tableLines(c, "frontend", "frontends", c.param("name"))
}

func (s *Server) putFrontendLines(c *call) (any, error) {
	return s.putTableLines(c, "frontend", "frontends", c.param("name"))
}

func (s *Server) poolLines(c *call) (any, error) {
	return s.tableLines(c, "pool", "pools", c.param("pool"))
}

func (s *Server) putPoolLines(c *call) (any, error) {
	return s.putTableLines(c, "pool", "pools", c.param("pool"))
}

func (s *Server) tableLines(c *call, kind string, path ...string) (any, error) {
	now := s.o.Configs.Running()
	text, err := config.TableLines(now.Text, path)
	if errors.Is(err, config.ErrNoTable) {
		return nil, notFound(kind, path[1])
	} else if err != nil {
		return nil, err
	}
	c.setETag(confstore.Tag(now.Text))
	return raw{"application/toml; charset=utf-8", text}, nil
}

func (s *Server) putTableLines(c *call, kind string, path ...string) (any, error) {
	body := bytes.Clone(c.PostBody())
	return s.rewrite(c, func(now *Running) (text []byte, explain func(error) error, err error) {
		text, above, err := config.SetTableLines(now.Text, path, bodyName, body)
		switch {
		case errors.Is(err, config.ErrNoTable):
			return nil, nil, notFound(kind, path[1])
		case errors.Is(err, config.ErrEdit):
			return nil, nil, problemf(fasthttp.StatusConflict, "%v", err)
		case err != nil:
			return nil, nil, err
		}
		return text, func(err error) error { return inBody(err, body, above) }, nil
	})
}

// bodyName stands for the file in mistakes in what was sent.
const bodyName = "body"

// inBody makes mistakes in a text of which the body stands below some lines point into the body, where they are there; above is -1
// when it does not stand there as it was sent.
func inBody(err error, body []byte, above int) error {
	if !isAbout(err) {
		return err
	}
	p, found := withoutLines(err), asProblem(err).Errors
	last := bytes.Count(bytes.TrimSuffix(body, []byte("\n")), []byte("\n")) + 1
	for i := range p.Errors {
		m := &p.Errors[i]
		if line := found[i].Line - above; above >= 0 && found[i].File != "" && line >= 1 && line <= last {
			m.File, m.Line = bodyName, line
			message := fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Message)
			p.Detail = strings.ReplaceAll(p.Detail, m.Message, message)
			m.Message = message
		}
	}
	return p
}
