package logs

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"awe4lb/config"
	"awe4lb/engine"
)

// Logs is the two logs of a process. Apply makes them what a configuration says, at start and at each reload.
type Logs struct {
	// Log writes to whatever the last Apply set. Set once, never changed.
	Log *slog.Logger

	// Shared: atomics.
	current atomic.Pointer[state]
}

// state is what one configuration made of the logs.
type state struct {
	handler slog.Handler
	level   slog.LevelVar
	log     *Output
	access  *accessWriter // nil when there is no access log
}

// New returns logs that write warnings and errors to standard error until Apply is called.
func New() *Logs {
	l := new(Logs)
	out, _ := Open("stderr") // cannot fail
	first := &state{log: out}
	first.begin(config.Log{Level: "warn", Format: "text"})
	l.current.Store(first)
	l.Log = slog.New(handler{logs: l})
	return l
}

// Prepare opens what cfg asks for. The logs stay as they are until apply is called; discard, called in its place, closes
// what was opened. On error nothing is left open.
func (l *Logs) Prepare(cfg config.Log) (apply, discard func(), err error) {
	next := new(state)
	if next.log, err = Open(cfg.Output); err != nil {
		return nil, nil, fmt.Errorf("log.output: %w", err)
	}
	next.begin(cfg)
	if cfg.Access.Output != "" {
		out, err := Open(cfg.Access.Output)
		if err != nil {
			next.log.Close()
			return nil, nil, fmt.Errorf("log.access.output: %w", err)
		}
		next.access = newAccessWriter(out, cfg.Access.Format)
	}
	return func() { l.current.Swap(next).close() }, next.close, nil
}

// close writes what is left of the access log and closes the files.
func (s *state) close() {
	s.log.Close()
	if s.access != nil {
		s.access.close()
	}
}

// HasAccess reports whether there is an access log.
func (l *Logs) HasAccess() bool { return l.current.Load().access != nil }

// Access writes the line of an ended session to the access log's buffer. It is called from one goroutine.
func (l *Logs) Access(r *engine.Record) {
	for {
		if a := l.current.Load().access; a == nil || a.write(r) {
			return
		}
	}
}

// Flush writes the access log's buffer out. It is called from the goroutine of Access.
func (l *Logs) Flush() {
	if a := l.current.Load().access; a != nil {
		a.flush()
	}
}

// Reopen opens the log files anew, after they were moved away for rotation.
func (l *Logs) Reopen() {
	s := l.current.Load()
	if err := s.log.Reopen(); err != nil {
		l.Log.Error("log not reopened: the old file stays in use", "error", err)
	}
	if s.access != nil {
		if err := s.access.out.Reopen(); err != nil {
			l.Log.Error("access log not reopened: the old file stays in use", "error", err)
		}
	}
	l.Log.Info("log files reopened")
}

// begin makes the handler of s.
func (s *state) begin(cfg config.Log) {
	_ = s.level.UnmarshalText([]byte(cfg.Level)) // config has checked it
	o := &slog.HandlerOptions{Level: &s.level}
	if cfg.Format == "json" {
		s.handler = slog.NewJSONHandler(s.log, o)
	} else {
		s.handler = slog.NewTextHandler(s.log, o)
	}
}

// Level returns what the log is at now. Safe from any goroutine.
func (l *Logs) Level() slog.Level { return l.current.Load().level.Level() }

// SetLevel changes that until the next Apply. Safe from any goroutine.
func (l *Logs) SetLevel(level slog.Level) { l.current.Load().level.Set(level) }

// handler passes everything to the handler of the moment.
type handler struct {
	logs *Logs
	with func(slog.Handler) slog.Handler // attributes and groups; nil for none
}

func (h handler) now() slog.Handler {
	c := h.logs.current.Load().handler
	if h.with != nil {
		c = h.with(c)
	}
	return c
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.logs.current.Load().handler.Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error { return h.now().Handle(ctx, r) }

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.wrap(func(s slog.Handler) slog.Handler { return s.WithAttrs(attrs) })
}

func (h handler) WithGroup(name string) slog.Handler {
	return h.wrap(func(s slog.Handler) slog.Handler { return s.WithGroup(name) })
}

func (h handler) wrap(f func(slog.Handler) slog.Handler) handler {
	outer := h.with
	return handler{h.logs, func(s slog.Handler) slog.Handler {
		if outer != nil {
			s = outer(s)
		}
		return f(s)
	}}
}
