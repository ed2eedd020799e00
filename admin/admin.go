package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/health"
	"awe4lb/internal/socketfile"
	"awe4lb/tlsbridge/acme"
	"awe4lb/tlsbridge/certs"

	"github.com/valyala/fasthttp"
)

// Options are what an admin serves.
type Options struct {
	Engine   *engine.Engine
	Director *balancer.Director
	Reload   func() (*balancer.Report, error) // safe from any goroutine
	Reloads  func() Reloads                   // safe from any goroutine
	Log      *slog.Logger
	Version  string    // of the program
	Revision string    // the commit it was built from; "" when unknown
	Started  time.Time // of the process
	File     string    // the configuration

	Certificates *certs.Keeper // nil: there are none
	Issuer       *acme.Issuer  // nil: there is none

	Health *health.Prober // nil: there is none
}

// Refusal is an error of Options.Reload that names the answer it deserves.
type Refusal struct {
	Status int // of HTTP
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Reloads is the history of reloads.
type Reloads struct {
	OK     uint64    // that were applied, the start not counted
	Failed uint64    // that were refused
	Last   time.Time // when the last one, or the start, was tried
	LastOK bool      // whether that one was applied
	Error  string    // why it was not
}

// Server answers on one address. Make one with Start.
type Server struct {
	o        Options
	listener net.Listener
	server   *fasthttp.Server
	done     chan struct{}
	clients  clients
	grace    time.Duration // of Stop
}

// A stranger can make none of these grow: the API takes small requests from few clients.
const (
	maxBody     = 1 << 20
	maxClients  = 64
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
)

// Start listens on address, which is valid, and answers until Stop.
func Start(address config.Address, o Options) (*Server, error) {
	l, err := listen(address)
	if err != nil {
		return nil, fmt.Errorf("admin.bind: %w", err)
	}
	l = &patient{Listener: l, closed: make(chan struct{})}
	s := &Server{o: o, listener: l, done: make(chan struct{}), grace: stopGrace}
	s.server = &fasthttp.Server{
		Handler:                      s.handle,
		Name:                         "awe4lb",
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 readTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           maxBody,
		Concurrency:                  maxClients,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		ConnState:                    s.clients.note,
		Logger:                       quiet{},
	}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(l); err != nil {
			o.Log.Error("admin stopped", "error", err)
		}
	}()
	return s, nil
}

func listen(a config.Address) (net.Listener, error) {
	if !a.IsUnix() {
		return net.Listen("tcp", a.String())
	}
	switch err := socketfile.MakeWay(a.Path); {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: another process listens there", a)
	case err != nil:
		return nil, err
	}
	l, err := net.Listen("unix", a.Path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove whatever is there by then: see Stop
	if err := os.Chmod(a.Path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// patient is a listener that waits where fasthttp would give up for good: when the process or the system is out of
// descriptors or memory for a while.
type patient struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (p *patient) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
			errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
		default:
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-p.closed:
			return nil, net.ErrClosed
		}
	}
}

func (p *patient) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Listener.Close()
}

// Address returns where s listens, with the port the system chose.
func (s *Server) Address() string {
	if s.listener.Addr().Network() == "unix" {
		return "unix:" + s.listener.Addr().String()
	}
	return s.listener.Addr().String()
}

// handle is the table of routes.
func (s *Server) handle(c *fasthttp.RequestCtx) {
	c.Response.Header.Set("X-Content-Type-Options", "nosniff")
	c.Response.Header.Set("Cache-Control", "no-store")
	if s.listener.Addr().Network() != "unix" && !guard(c) {
		return
	}
	switch path := string(c.Path()); path {
	case "/":
		s.only(c, "GET", s.index)
	case "/healthz":
		s.only(c, "GET", s.healthz)
	case "/metrics":
		s.only(c, "GET", s.metrics)
	case "/api/v1/status":
		s.only(c, "GET", s.status)
	case "/api/v1/events":
		s.only(c, "GET", s.events)
	case "/api/v1/reload":
		s.only(c, "POST", s.reload)
	default:
		problem(c, fasthttp.StatusNotFound, "no such resource: "+path, nil)
	}
}

// only runs h for the method given, and HEAD where that is GET.
func (s *Server) only(c *fasthttp.RequestCtx, method string, h func(*fasthttp.RequestCtx)) {
	if m := string(c.Method()); m != method && !(m == "HEAD" && method == "GET") {
		c.Response.Header.Set("Allow", method)
		problem(c, fasthttp.StatusMethodNotAllowed, "want "+method, nil)
		return
	}
	h(c)
}

func (s *Server) index(c *fasthttp.RequestCtx) {
	c.SetContentType("text/plain; charset=utf-8")
	fmt.Fprintf(c, `awe4lb %s

GET  /healthz         ok, or 503 while draining
GET  /api/v1/status   frontends, pools, backends and shards with live counts
GET  /api/v1/events   changes of backends' health, the newest first
POST /api/v1/reload   read the configuration again; the answer says what changed
GET  /metrics         for Prometheus
`, s.o.Version)
}

func (s *Server) healthz(c *fasthttp.RequestCtx) {
	if s.o.Engine.Draining() {
		c.SetStatusCode(fasthttp.StatusServiceUnavailable)
		c.SetBodyString("draining\n")
		return
	}
	c.SetBodyString("ok\n")
}

// reload answers with the director's report, or with a problem that lists every mistake of the file.
func (s *Server) reload(c *fasthttp.RequestCtx) {
	report, err := s.o.Reload()
	var mistakes config.Errors
	var named certs.Errors
	var bind *engine.BindError
	var host *engine.HostError
	var refusal *Refusal
	switch {
	case err == nil:
		writeJSON(c, "application/json", report)
	case errors.As(err, &mistakes):
		problem(c, fasthttp.StatusUnprocessableEntity, "the configuration has mistakes; the running one stays", mistakesOf(mistakes))
	case errors.As(err, &named):
		problem(c, fasthttp.StatusUnprocessableEntity, "files that the configuration names cannot be used; the running one stays", mistakesOf(named))
	case errors.As(err, &bind), errors.As(err, &host):
		problem(c, fasthttp.StatusConflict, err.Error()+"; the running configuration stays", nil)
	case errors.As(err, &refusal):
		problem(c, refusal.Status, err.Error()+"; the running configuration stays", nil)
	default:
		problem(c, fasthttp.StatusInternalServerError, err.Error()+"; the running configuration stays", nil)
	}
}

// mistake is one error of a configuration, for programs.
type mistake struct {
	File    string `json:"file,omitempty"` // file, line and key are missing for files that the configuration names
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"` // the whole line as `awe4lb check` prints it
}

func mistakesOf[E error](errs []E) (list []mistake) {
	for _, err := range errs {
		m := mistake{Message: err.Error()}
		if e, ok := any(err).(*config.Error); ok {
			m.File, m.Line, m.Key = e.File, e.Line, e.Key
		}
		list = append(list, m)
	}
	return list
}

// problem answers with RFC 9457 problem details.
func problem(c *fasthttp.RequestCtx, status int, detail string, mistakes []mistake) {
	p := struct {
		Title  string    `json:"title"`
		Status int       `json:"status"`
		Detail string    `json:"detail"`
		Errors []mistake `json:"errors,omitempty"`
	}{Title: fasthttp.StatusMessage(status), Status: status, Detail: detail, Errors: mistakes}
	writeJSON(c, "application/problem+json", p)
	c.SetStatusCode(status)
}

func writeJSON(c *fasthttp.RequestCtx, contentType string, v any) {
	c.SetContentType(contentType)
	e := json.NewEncoder(c)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types
	}
}

// quiet drops fasthttp's own messages, which are about what clients do wrong.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
