package admin

import (
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// The calls about the process as a whole.

func processEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/version", nobody, "what runs", nil, nil, version{}, (*Server).version},
		{"GET", "/api/v1/log", reader, "the level of the log", nil, nil, logLevel{}, (*Server).logLevel},
		{"PUT", "/api/v1/log", operator, "change the level of the log, until the next reload", nil, logLevel{}, logLevel{}, (*Server).setLogLevel},
		{"POST", "/api/v1/upgrade", configurer, "start the program that admin.upgrade names, which brings a new version", nil, nil, upgrading{}, (*Server).upgrade},
		{"POST", "/api/v1/drain", operator, "as SIGTERM: listen no more, let sessions finish within engine.drain_timeout, and end", nil, nil, draining{}, (*Server).drain},
	}
}

type version struct {
	Version  string    `json:"version"`
	Revision string    `json:"revision,omitempty" description:"the commit it was built from"`
	Go       string    `json:"go"`
	Started  time.Time `json:"started"`
}

func (s *Server) version(*call) (any, error) {
	return version{s.o.Version, s.o.Revision, runtime.Version(), rounded(s.o.Started)}, nil
}

type logLevel struct {
	Level string `json:"level" required:"true" enum:"debug,info,warn,error"`
}

func (s *Server) logLevel(*call) (any, error) {
	return logLevel{strings.ToLower(s.o.Level().String())}, nil
}

func (s *Server) setLogLevel(c *call) (any, error) {
	var in logLevel
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if in.Level == strings.ToLower(level.String()) {
			s.o.SetLevel(level)
			return in, nil
		}
	}
	return nil, problemf(fasthttp.StatusBadRequest, "level: got %q; want debug, info, warn or error", cutText(in.Level, 80))
}

// draining is what a drain has before it.
type draining struct {
	Sessions int64   `json:"sessions" description:"open when it began"`
	Flows    int64   `json:"flows"`
	Timeout  float64 `json:"timeout_seconds" description:"then those that are left are cut"`
}

func (s *Server) drain(*call) (any, error) {
	var out draining
	out.Sessions, _ = s.o.Engine.Sessions()
	out.Flows, _ = s.o.Engine.Flows()
	out.Timeout = s.o.Director.Snapshot().Config.Engine.DrainTimeout.Seconds()
	s.o.End()
	return out, nil
}
