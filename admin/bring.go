package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/confstore"
	"awe4lb/internal/convert"
	"awe4lb/tlsbridge/certs"

	"github.com/valyala/fasthttp"
)

// What configurations that come by the API may bring, and how they come: as TOML, as JSON, or as another balancer's JSON.

type change = balancer.Change

// mayBring returns what may object to a configuration that somebody sends.
func (s *Server) mayBring(c *call, name string) func(next, running *config.Config) error {
	return s.mayBringWith(c, name, func() []*config.Config { return nil })
}

// mayRestore returns what may object to a version that was stored before (decision 0074). The file that the process was started
// with may name again what it named when somebody wrote it by hand: all of it together, as it was.
func (s *Server) mayRestore(c *call, name string) func(next, running *config.Config) error {
	return s.mayBringWith(c, name, func() (byHand []*config.Config) {
		if name != confstore.Main {
			return nil
		}
		versions, _ := s.o.Configs.Store().Versions(name) // one that cannot be read is trusted in nothing
		for _, v := range versions {
			if v.Who != "" {
				continue
			}
			if _, text, err := s.o.Configs.Store().Version(name, v.Number); err == nil {
				if old, err := s.parseConfig(name, text); err == nil {
					old.Admin.AllowExec = false // whoever turned it off since meant it
					byHand = append(byHand, old)
				}
			}
		}
		return byHand
	})
}

// mayBringWith is mayBring where more configurations are trusted than those in force.
func (s *Server) mayBringWith(c *call, name string, more func() []*config.Config) func(next, running *config.Config) error {
	return func(next, running *config.Config) error {
		store := s.o.Configs.Store()
		if !running.Admin.AllowExec {
			trusted := []*config.Config{running}
			if f, err := store.Read(confstore.Main); err == nil { // what its owner wrote since the last reload counts as well
				if main, err := s.parseConfig(confstore.Main, f.Text); err == nil {
					trusted = append(trusted, main)
				}
			}
			errs := next.Beyond(store.Files(), trusted...)
			if errs != nil {
				errs = next.Beyond(store.Files(), append(trusted, more()...)...)
			}
			if errs != nil {
				return errs
			}
		}
		return s.keepsRole(c, name, next)
	}
}

// mayRun returns what may object to a configuration that is stored. What is in main was checked when it came by the API, or
// written by somebody who need not ask; others lie in a folder that says less about who wrote them.
func (s *Server) mayRun(c *call, name string) func(next, running *config.Config) error {
	if name != confstore.Main {
		return s.mayBring(c, name)
	}
	return func(next, _ *config.Config) error { return s.keepsRole(c, name, next) }
}

// keepsRole refuses a configuration by which the caller could not take it back.
func (s *Server) keepsRole(c *call, name string, next *config.Config) error {
	if name != confstore.Main {
		return nil // its [admin] does not count
	}
	if next.Admin.Bind == "" {
		return problemf(fasthttp.StatusConflict, "admin.bind: the admin would be off after the next start, and nobody could turn it on by the API: write that into the file")
	}
	a, err := newAccess(&next.Admin)
	if err != nil {
		return &Refusal{fasthttp.StatusUnprocessableEntity, err}
	}
	if a.roleNow(c.who) < configurer {
		return problemf(fasthttp.StatusConflict, "[admin]: %s would not have the role %s any more, and nobody could be sure to be able to take it back; change that in the file, and reload", c.who, configurer)
	}
	return nil
}

// roleNow returns the role that somebody has by a, however they have shown who they are before.
func (a *access) roleNow(who identity) role {
	switch who.how {
	case "basic", "cookie":
		return a.users[who.name].role
	case "bearer":
		for _, t := range a.tokens {
			if t.name == who.name {
				return t.role
			}
		}
		return nobody
	case "certificate":
		return a.clients
	}
	return a.anonymous
}

// holds reports whether who showed by was who they are would also by a, and may still watch.
func (a *access) holds(was *access, who identity) bool {
	switch {
	case a == was:
		return true
	case a.roleNow(who) < reader:
		return false
	case who.how == "basic":
		return bytes.Equal(a.users[who.name].hash, was.users[who.name].hash)
	case who.how == "bearer":
		return slices.ContainsFunc(a.tokens, func(t token) bool {
			return t.name == who.name && slices.ContainsFunc(was.tokens, func(o token) bool { return o.name == t.name && o.sum == t.sum })
		})
	}
	return true
}

// staysClosed refuses an [admin] that opens to the network an admin that listens there: the address only changes at a start.
func (s *Server) staysClosed(c *config.Admin) error {
	bound, err := netip.ParseAddrPort(s.listener.Addr().String())
	if err != nil || bound.Addr().IsLoopback() {
		return nil // a unix socket, or this host
	}
	if !c.HasCredentials() || roleOf(c.Anonymous) > reader {
		return errors.New("admin: it listens on " + net.JoinHostPort(bound.Addr().String(), "*") +
			" until the next start, where others than this host reach it: want users, tokens or tls.client_ca, and anonymous none or read")
	}
	return nil
}

// configText returns the body as TOML. JSON of the original awe4lb or of gobetween is converted.
func (c *call) configText() ([]byte, error) {
	body := c.PostBody()
	if !c.sendsJSON() {
		return bytes.Clone(body), nil
	}
	var shape struct{ Servers json.RawMessage }
	if json.Unmarshal(body, &shape) == nil && shape.Servers != nil {
		r, err := convert.Convert("body", body, convert.Options{})
		if err != nil {
			return nil, problemf(fasthttp.StatusUnprocessableEntity, "%v", err)
		}
		c.converted = true
		return r.TOML, nil
	}
	text, err := config.FromJSON(body)
	if err != nil {
		return nil, problemf(fasthttp.StatusBadRequest, "%v", err)
	}
	return text, nil
}

func (c *call) sendsJSON() bool {
	return bytes.HasPrefix(bytes.ToLower(c.Request.Header.ContentType()), []byte("application/json"))
}

// asSent makes mistakes in what was sent as JSON point there, and not into the TOML that was made of it.
func (c *call) asSent(err error) error {
	if !c.sendsJSON() || len(c.PostBody()) == 0 || !isAbout(err) {
		return err
	}
	p := withoutLines(err)
	for i := range p.Errors {
		if !c.converted {
			p.Errors[i].Pointer = pointerOf(p.Errors[i].Key)
		}
	}
	return p
}

// within makes mistakes in a configuration of which the body was the part at path point into the body, where they are there.
func (c *call) within(path []string, err error) error {
	if !isAbout(err) {
		return err
	}
	p := withoutLines(err)
	if !c.sendsJSON() || len(c.PostBody()) == 0 {
		return p
	}
	for i := range p.Errors {
		for _, key := range []string{p.Errors[i].Key, p.Errors[i].other} {
			if pointer, inside := strings.CutPrefix(pointerOf(key)+"/", "/"+strings.Join(path, "/")+"/"); inside {
				p.Errors[i].Pointer = strings.TrimSuffix("/"+pointer, "/")
				break
			}
		}
	}
	return p
}

// isAbout reports whether err is about places in a configuration.
func isAbout(err error) bool {
	var mistakes config.Errors
	var named certs.Errors
	return errors.As(err, &mistakes) || errors.As(err, &named) || len(placed(err)) > 0
}

// withoutLines is asProblem for mistakes in a text that the caller has not seen.
func withoutLines(err error) *problem {
	p := asProblem(err)
	for i := range p.Errors {
		m := &p.Errors[i]
		if _, rest, ok := strings.Cut(m.Message, ": "); ok && m.File != "" { // FILE:LINE
			p.Detail = strings.ReplaceAll(p.Detail, m.Message, rest)
			m.Message = rest
		}
		if before, after, ok := strings.Cut(m.Message, m.other+" at line "); ok && m.other != "" {
			m.Message = before + m.other + strings.TrimLeft(after, "0123456789")
		}
		m.File, m.Line = "", 0
	}
	return p
}

// pointerOf returns the JSON pointer (RFC 6901) of a key such as frontends.web.bind[1].
func pointerOf(key string) string {
	var b strings.Builder
	for key != "" {
		part := ""
		if strings.HasPrefix(key, `"`) {
			end := strings.Index(key[1:], `"`) + 2
			part, key = strings.Trim(key[:end], `"`), key[end:]
		} else if i := strings.IndexAny(key, ".["); i >= 0 {
			part, key = key[:i], key[i:]
		} else {
			part, key = key, ""
		}
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
		for strings.HasPrefix(key, "[") {
			index, rest, _ := strings.Cut(key[1:], "]")
			b.WriteString("/" + index)
			key = rest
		}
		key = strings.TrimPrefix(key, ".")
	}
	return b.String()
}
