package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"syscall"

	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/confstore"
	"awe4lb/tlsbridge/certs"

	"github.com/valyala/fasthttp"
)

// problem is why a request is refused: RFC 9457 problem details.
type problem struct {
	Title  string    `json:"title" description:"the meaning of the status"`
	Status int       `json:"status"`
	Detail string    `json:"detail" description:"what is wrong with this request"`
	Errors []mistake `json:"errors,omitempty" description:"each mistake of a configuration"`

	wait int // seconds after which to try again; 0: not said
}

func (p *problem) Error() string { return p.Detail }

// mistake is one error of a configuration, for programs.
type mistake struct {
	File    string `json:"file,omitempty" description:"file, line and key are missing where a mistake has no place in the configuration"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Pointer string `json:"pointer,omitempty" description:"JSON pointer into the body, in place of file and line, where that was JSON"`
	Message string `json:"message" description:"the whole line as awe4lb check prints it"`

	other string // the key of another place that is as much to blame
}

func problemf(status int, format string, args ...any) *problem {
	return &problem{Title: fasthttp.StatusMessage(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// fail answers with what is wrong.
func (s *Server) fail(c *fasthttp.RequestCtx, err error) {
	p := asProblem(err)
	if p.wait > 0 {
		c.Response.Header.Set("Retry-After", strconv.Itoa(p.wait))
	}
	c.SetStatusCode(p.Status)
	writeJSON(c, "application/problem+json", p)
}

// asProblem says which status an error deserves.
func asProblem(err error) *problem {
	const stays = "; the running configuration stays"
	var p *problem
	var mistakes config.Errors
	var named certs.Errors
	var bind *engine.BindError
	var host *engine.HostError
	var refusal *Refusal
	switch {
	case errors.As(err, &p):
	case errors.As(err, &mistakes):
		p = problemf(fasthttp.StatusUnprocessableEntity, "the configuration has mistakes%s", stays)
		p.Errors = mistakesOf(mistakes)
	case errors.As(err, &named):
		p = problemf(fasthttp.StatusUnprocessableEntity, "files that the configuration names cannot be used%s", stays)
		p.Errors = mistakesOf(named)
	case errors.Is(err, confstore.ErrNotFound):
		p = problemf(fasthttp.StatusNotFound, "%v", err)
	case errors.Is(err, confstore.ErrName):
		p = problemf(fasthttp.StatusBadRequest, "name of a configuration: %v", err)
	case errors.Is(err, confstore.ErrTooLarge):
		p = problemf(fasthttp.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, confstore.ErrTooMany), errors.Is(err, confstore.ErrNotFile), errors.Is(err, confstore.ErrIsMain),
		errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		p = problemf(fasthttp.StatusConflict, "%v", err)
	case errors.As(err, &bind), errors.As(err, &host):
		p = problemf(fasthttp.StatusConflict, "%v%s", err, stays)
		p.Errors = mistakesOf(placed(err))
	case errors.As(err, &refusal):
		p = problemf(refusal.Status, "%v%s", err, stays)
		p.Errors = mistakesOf(placed(err))
	default:
		p = problemf(fasthttp.StatusInternalServerError, "%v%s", err, stays)
	}
	return p
}

func mistakesOf[E error](errs []E) (list []mistake) {
	for _, err := range errs {
		m := mistake{Message: err.Error()}
		switch e := any(err).(type) {
		case *config.Error:
			m.File, m.Line, m.Key, m.other = e.File, e.Line, e.Key, e.Other
		case *config.Placed:
			m.File, m.Line, m.Key = e.File, e.Line, e.Key
		}
		list = append(list, m)
	}
	return list
}

// placed returns those of the errors in err that say where in a configuration they are.
func placed(err error) []error {
	switch e := err.(type) {
	case *config.Placed:
		return []error{e}
	case interface{ Unwrap() []error }:
		var all []error
		for _, err := range e.Unwrap() {
			all = append(all, placed(err)...)
		}
		return all
	case interface{ Unwrap() error }:
		return placed(e.Unwrap())
	}
	return nil
}
