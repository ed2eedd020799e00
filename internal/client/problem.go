package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"awe4lb/internal/human"
)

// Problem is why the admin refuses a call: RFC 9457.
type Problem struct {
	Title  string    `json:"title"`
	Status int       `json:"status"`
	Detail string    `json:"detail"`
	Errors []Mistake `json:"errors"`
}

// Mistake is one error of a configuration.
type Mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Key     string `json:"key"`
	Message string `json:"message"` // the whole line
}

// Error returns the detail, with each mistake that it does not have on a line before it.
func (p *Problem) Error() string {
	var b strings.Builder
	for _, m := range p.Errors {
		if strings.Contains(p.Detail, m.Message) {
			continue
		}
		b.WriteString(human.Printable(m.Message) + "\n")
	}
	b.WriteString(human.Printable(p.Detail))
	return b.String()
}

// IsDenied reports whether other credentials would help.
func (p *Problem) IsDenied() bool {
	return p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden || p.Status == http.StatusTooManyRequests
}

// Unreachable is an answer that did not come.
type Unreachable struct {
	Address string
	Err     error
}

func (u *Unreachable) Error() string { return u.Address + ": " + u.Err.Error() }

func (u *Unreachable) Unwrap() error { return u.Err }

// stranger returns the error for answers that no awe4lb gives.
func (c *Client) stranger(what string) error {
	return &Unreachable{c.address, fmt.Errorf("this is not the admin of an awe4lb, or of another version: %s", human.Printable(what))}
}

// problemOf reads a refusal.
func (c *Client) problemOf(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return &Unreachable{c.address, err}
	}
	p := &Problem{}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(text, p) != nil || p.Detail == "" {
		return c.stranger("it answers " + res.Status)
	}
	p.Status = res.StatusCode
	if wait := res.Header.Get("Retry-After"); wait != "" {
		p.Detail += " (after " + wait + " s)"
	}
	return p
}
