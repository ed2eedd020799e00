package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// endpoint is one call of the API. The table of them is what the router, the roles and the OpenAPI document are made of.
type endpoint struct {
	method, path string // path as fasthttp/router has it: {name}, and {name:*} for the rest
	needs        role   // nobody: also who has shown no credentials
	does         string // one line for the document
	query        any    // struct whose fields have query tags; nil: there is none
	body         any    // of the type that is read; nil: there is none; text: a configuration, TOML or JSON; lines: TOML
	answer       any    // of the type that is written; nil: 204 and nothing
	handle       func(*Server, *call) (any, error)
}

// text stands in the table for a configuration: TOML, or the same as JSON.
type text struct{}

// lines stands in the table for a piece of a configuration as it is written: TOML, since JSON has no comments.
type lines struct{}

// call is a request under way.
type call struct {
	*fasthttp.RequestCtx
	who       identity
	converted bool // the body was another balancer's configuration
	dryRun    bool // whoever may make it asks what it would do, and nothing changes
}

// raw is an answer that is written as it is.
type raw struct {
	kind string // its content type
	body []byte
}

// streamed is an answer that the handler has arranged for itself.
type streamed struct{}

// endpoints is the API, in the order of the document.
func endpoints() []endpoint {
	return slices.Concat(generalEndpoints(), watchEndpoints(), discoveryEndpoints(), orderEndpoints(), sessionEndpoints(), processEndpoints(), persistenceEndpoints(), limitEndpoints(), configEndpoints(), changeEndpoints())
}

func generalEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/me", nobody, "who I am and what I may do", nil, nil, whoAmI{}, (*Server).me},
		{"POST", "/api/v1/login", nobody, "log in with a password; the answer sets a cookie", nil, credentials{}, whoAmI{}, (*Server).login},
		{"POST", "/api/v1/logout", nobody, "end the login of the cookie", nil, nil, nil, (*Server).logout},
		{"GET", "/api/v1/audit", configurer, "the last calls that changed something, or tried to, the newest first", nil, nil, auditLog{}, (*Server).auditLog},
		{"GET", "/api/v1/openapi.json", nobody, "this document", nil, nil, raw{}, (*Server).openAPI},
		{"POST", "/api/v1/reload", operator, "read the configuration file again; the answer says what changed", nil, nil, report{}, (*Server).reload},
	}
}

func watchEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/api/v1/status", reader, "frontends, pools, backends and shards with live counts", nil, nil, status{}, (*Server).status},
		{"GET", "/api/v1/frontends", reader, "the frontends, as in the status", nil, nil, frontendList{}, (*Server).frontends},
		{"GET", "/api/v1/frontends/{name}", reader, "one of them", nil, nil, frontendStatus{}, (*Server).frontend},
		{"GET", "/api/v1/pools", reader, "the pools with their backends, as in the status", nil, nil, poolList{}, (*Server).pools},
		{"GET", "/api/v1/pools/{pool}", reader, "one of them", nil, nil, poolStatus{}, (*Server).pool},
		{"GET", "/api/v1/pools/{pool}/backends/{address:*}", reader, "one backend", nil, nil, backendStatus{}, (*Server).backend},
		{"GET", "/api/v1/shards", reader, "the shards, as in the status", nil, nil, shardList{}, (*Server).shards},
		{"GET", "/api/v1/certificates", reader, "the certificates in use and when they expire, as in the status", nil, nil, certificateList{}, (*Server).certificates},
		{"GET", "/api/v1/history", reader, "the last quarter of an hour, for charts", nil, nil, history{}, (*Server).showHistory},
		{"GET", "/api/v1/stream", reader, "server-sent events: sample each second, change when states of backends do", streamQuery{}, nil, streamed{}, (*Server).stream},
		{"GET", "/api/v1/health", reader, "the health checks with their last results", nil, nil, checksList{}, (*Server).checks},
		{"GET", "/api/v1/events", reader, "what has happened to backends, and to what discovery finds, the newest first", nil, nil, eventList{}, (*Server).events},
	}
}

// routes returns what answers each request.
func (s *Server) routes() fasthttp.RequestHandler {
	r := router.New()
	r.HandleOPTIONS, r.RedirectTrailingSlash, r.RedirectFixedPath = false, false, false
	for _, e := range endpoints() {
		h := s.serve(e)
		r.Handle(e.method, e.path, h)
		if e.method == fasthttp.MethodGet {
			r.Handle(fasthttp.MethodHead, e.path, h)
		}
	}
	for _, method := range []string{fasthttp.MethodGet, fasthttp.MethodHead} {
		r.Handle(method, "/healthz", s.healthz)
		r.Handle(method, "/metrics", s.metricsForReaders)
	}
	s.pageRoutes(r)
	for _, e := range gobetweenEndpoints() {
		h := s.serve(e)
		r.Handle(e.method, e.path, func(c *fasthttp.RequestCtx) {
			if !s.access.Load().gobetween {
				r.NotFound(c)
				return
			}
			h(c)
		})
	}
	r.NotFound = func(c *fasthttp.RequestCtx) {
		s.fail(c, problemf(fasthttp.StatusNotFound, "no such resource: %s", c.Path()))
	}
	r.MethodNotAllowed = func(c *fasthttp.RequestCtx) {
		allowed := strings.ReplaceAll(string(c.Response.Header.Peek("Allow")), ", OPTIONS", "") // which the router adds, and nobody answers
		c.Response.Header.Set("Allow", allowed)
		s.fail(c, problemf(fasthttp.StatusMethodNotAllowed, "want %s", allowed))
	}
	r.PanicHandler = func(c *fasthttp.RequestCtx, v any) {
		s.o.Log.Error("admin: a request made us stumble; please report this", "method", string(c.Method()), "path", string(c.Path()),
			"panic", v, "stack", string(debug.Stack()))
		c.Response.ResetBody()
		s.fail(c, problemf(fasthttp.StatusInternalServerError, "an error of awe4lb itself; its log says more"))
	}
	return func(c *fasthttp.RequestCtx) {
		s.clients.mark(c.Conn(), false)
		defer func() { s.clients.mark(c.Conn(), c.Response.IsBodyStream()) }()
		harden(c)
		if err := s.guard(c); err != nil {
			s.fail(c, err)
			return
		}
		r.Handler(c)
	}
}

// serve returns the handler of e: who is it, may they, what do they send, what do they get.
func (s *Server) serve(e endpoint) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		c, begun := &call{RequestCtx: ctx}, time.Now()
		err := s.admit(c, e)
		if err == nil {
			if e.method != fasthttp.MethodGet && e.needs > nobody {
				s.clients.mark(c.Conn(), true)
			}
			err = s.answer(e, c)
		}
		if err != nil {
			s.fail(ctx, err)
		}
		if e.method != fasthttp.MethodGet {
			s.audit(c, e.needs, begun, err)
		}
	}
}

// answer answers a call. What only looks is answered one at a time: however many ask, the shards have all processors but one for
// themselves.
func (s *Server) answer(e endpoint, c *call) error {
	s.crowd.comes(time.Now(), c.ConnID())
	if e.method == fasthttp.MethodGet {
		s.looking.Lock()
		defer s.looking.Unlock()
	}
	answer, err := e.handle(s, c)
	if err == nil {
		s.breathe()
		c.reply(answer)
		s.breathe() // writing it comes next
	}
	return err
}

// admit finds out who calls, and whether they may.
func (s *Server) admit(c *call, e endpoint) (err error) {
	if c.who, err = s.identify(c.RequestCtx); err != nil {
		return err
	}
	if err := s.may(c.RequestCtx, c.who, e.needs); err != nil {
		return err
	}
	return c.checkContentType(e.body)
}

// may returns why somebody of that identity is refused what needs a role.
func (s *Server) may(c *fasthttp.RequestCtx, who identity, needs role) error {
	switch {
	case who.role >= needs:
		return nil
	case who.how == "anonymous":
		return s.unauthorized(c, "this needs credentials of role "+needs.String())
	}
	return problemf(fasthttp.StatusForbidden, "this needs the role %s; %s has %s", needs, who.name, who.role)
}

func (s *Server) metricsForReaders(c *fasthttp.RequestCtx) {
	who, err := s.identify(c)
	if err == nil {
		err = s.may(c, who, reader)
	}
	if err != nil {
		s.fail(c, err)
		return
	}
	s.crowd.comes(time.Now(), c.ConnID())
	s.looking.Lock()
	defer s.looking.Unlock()
	s.metrics(c)
	s.breathe()
}

// checkContentType refuses what a form of a foreign page could send.
func (c *call) checkContentType(body any) error {
	kind, _, _ := strings.Cut(strings.ToLower(string(c.Request.Header.ContentType())), ";")
	kind = strings.TrimSpace(kind)
	wants := []string{"application/json"}
	switch body.(type) {
	case text:
		wants = append(wants, "application/toml")
	case lines:
		wants = []string{"application/toml"}
	}
	_, isText := body.(text) // which may be left out where there is one already
	if slices.Contains(wants, kind) || kind == "" && (body == nil || isText) && len(c.PostBody()) == 0 {
		return nil
	}
	if kind == "" && body == nil {
		return problemf(fasthttp.StatusBadRequest, "a body; want none")
	}
	return problemf(fasthttp.StatusUnsupportedMediaType, "Content-Type: got %q; want %s", kind, strings.Join(wants, " or "))
}

// decode reads the body into v: JSON, with the keys that v has and no others.
func (c *call) decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.PostBody()))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return problemf(fasthttp.StatusBadRequest, "the body is not the JSON that is wanted: %v", err)
	}
	return nil
}

// param returns a part of the path.
func (c *call) param(name string) string {
	v, _ := c.UserValue(name).(string)
	return v
}

// from returns the address of the client; the zero Addr on a unix socket.
func from(c *fasthttp.RequestCtx) netip.Addr {
	return addressOf(c.RemoteAddr())
}

// reply writes what a handler returned.
func (c *call) reply(answer any) {
	switch a := answer.(type) {
	case streamed:
	case nil:
		c.SetStatusCode(fasthttp.StatusNoContent)
	case raw:
		c.SetContentType(a.kind)
		c.SetBody(a.body)
	default:
		writeJSON(c.RequestCtx, "application/json", answer)
	}
}

func writeJSON(c *fasthttp.RequestCtx, contentType string, v any) {
	c.SetContentType(contentType)
	e := json.NewEncoder(c)
	if !isProgram(c) {
		e.SetIndent("", "  ")
	}
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("admin: cannot encode %T: %v", v, err)) // our own types
	}
}

// isProgram reports whether the client says that it wants JSON and nothing else, as the page and the commands do. Indenting an
// answer costs more than writing it, which who asks each second is spared.
func isProgram(c *fasthttp.RequestCtx) bool {
	return string(c.Request.Header.Peek(fasthttp.HeaderAccept)) == "application/json"
}
