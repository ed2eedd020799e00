package admin

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// guard refuses what a web page open in somebody's browser could send: requests under a name that only resolves here (DNS
// rebinding) and requests from another origin (CSRF), also those that only look: they take streams and time. Without TLS an
// Origin with https is ours too: of a proxy before us that has it. Nobody's browser speaks to a unix socket.
func (s *Server) guard(c *fasthttp.RequestCtx) error {
	if hasTwoLengths(&c.Request.Header) {
		c.SetConnectionClose()
		return problemf(fasthttp.StatusBadRequest, "Transfer-Encoding and Content-Length: want one of the two")
	}
	if s.listener.Addr().Network() == "unix" {
		return nil
	}
	host := string(c.Host())
	if !s.isOurs(host) {
		return problemf(fasthttp.StatusForbidden, "Host: got %q, which admin.hosts does not have", cutText(host, 80))
	}
	if isCrossSite(c) {
		return problemf(fasthttp.StatusForbidden, "a cross-site request")
	}
	if origin := string(c.Request.Header.Peek("Origin")); origin != "" && origin != "https://"+host && (s.tls || origin != "http://"+host) {
		return problemf(fasthttp.StatusForbidden, "Origin is not this server")
	}
	return nil
}

// hasTwoLengths reports whether a request says twice where it ends. fasthttp goes by the chunks, and whoever is between us and the
// client may go by the length: what is a body to the one is another request to the other (RFC 9112, section 6.3).
func hasTwoLengths(h *fasthttp.RequestHeader) bool {
	length, chunks := false, false
	for line := range bytes.Lines(h.RawHeaders()) { // ContentLength says by now what was read
		name, _, _ := bytes.Cut(line, []byte(":"))
		length = length || bytes.EqualFold(name, []byte("Content-Length"))
		chunks = chunks || bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
	return length && chunks
}

// isCrossSite reports whether a browser says that a page of somebody else's sends the request. A link to us that somebody follows
// is none: it changes nothing, and that page does not see what comes of it.
func isCrossSite(c *fasthttp.RequestCtx) bool {
	h := &c.Request.Header
	switch string(h.Peek("Sec-Fetch-Site")) {
	case "", "same-origin", "none":
		return false
	}
	return !(c.IsGet() || c.IsHead()) || string(h.Peek("Sec-Fetch-Mode")) != "navigate" || string(h.Peek("Sec-Fetch-Dest")) != "document"
}

// harden sets the headers that every answer has: browsers are to take it for what it is, for our own page alone, and to keep none
// of it.
func harden(c *fasthttp.RequestCtx) {
	h := &c.Response.Header
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", dataPolicy)
}

// dataPolicy lets whatever a browser shows of an answer that is no page do nothing.
const dataPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// unread answers what could not be read as a request, after which fasthttp closes the connection.
func (s *Server) unread(c *fasthttp.RequestCtx, err error) {
	c.Response.Reset()
	harden(c)
	var large *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &large):
		err = problemf(fasthttp.StatusRequestHeaderFieldsTooLarge, "the header is too large; want at most %d bytes", maxHeader)
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		err = problemf(fasthttp.StatusRequestEntityTooLarge, "the body is too large; want at most %d bytes", maxBody)
	case errors.As(err, &network) && network.Timeout():
		err = problemf(fasthttp.StatusRequestTimeout, "the request was not complete after %v", readTimeout)
	default:
		err = problemf(fasthttp.StatusBadRequest, "this is not HTTP/1.1 as it is wanted here")
	}
	s.fail(c, err)
}

// expected says whether a client that asks first may send its body.
func (s *Server) expected(c *fasthttp.RequestCtx) int {
	if c.Request.Header.ContentLength() <= maxBody {
		return fasthttp.StatusContinue
	}
	s.unread(c, fasthttp.ErrBodyTooLarge)
	return c.Response.StatusCode()
}

// isOurs reports whether a Host header names this server: an exact match, since 127.0.0.1.example.com is anybody's.
func (s *Server) isOurs(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if host == "localhost" || s.access.Load().hosts[host] {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	// An IP address needs no resolver that could lie. On loopback no other than loopback's own leads here.
	bound, err := netip.ParseAddrPort(s.listener.Addr().String())
	return a.IsLoopback() || err == nil && !bound.Addr().IsLoopback()
}

// cutText shortens what a stranger wrote.
func cutText(s string, most int) string {
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// identify finds out who sends a request. Credentials that are wrong are an error, even where none are needed.
func (s *Server) identify(c *fasthttp.RequestCtx) (identity, error) {
	a := s.access.Load()
	if header := string(c.Request.Header.Peek("Authorization")); header != "" {
		scheme, rest, _ := strings.Cut(header, " ")
		switch strings.ToLower(scheme) {
		case "bearer":
			secret := strings.TrimSpace(rest)
			return s.prove(c, []string{"bearer", secret}, func(a *access) (identity, bool) { return a.bearer(secret) })
		case "basic":
			name, password, ok := basicAuth(rest)
			if !ok {
				return identity{}, s.unauthorized(c, "Authorization: not the base64 of NAME:PASSWORD")
			}
			return s.provePassword(c, name, password)
		}
		return identity{}, s.unauthorized(c, "Authorization: want Basic or Bearer")
	}
	if cookie := string(c.Request.Header.Cookie(cookieName)); cookie != "" {
		if who, ok := s.logins.who(cookie, time.Now()); ok {
			return who, nil
		}
	}
	if a.clients > nobody {
		if state := c.TLSConnectionState(); state != nil && s.secure.trusts(state) {
			return identity{state.PeerCertificates[0].Subject.String(), "certificate", a.clients}, nil
		}
	}
	return identity{how: "anonymous", role: a.anonymous}, nil
}

// prove tests credentials, unless too many wrong ones came from where they come. The same ones again are none: who shows them
// learns nothing. But that is only for who does not have to wait, else one could find out for nothing what others have shown.
func (s *Server) prove(c *fasthttp.RequestCtx, shown []string, test func(*access) (identity, bool)) (identity, error) {
	source, a := from(c), s.access.Load()
	if wait := s.guesses.wait(source, time.Now()); wait > 0 {
		return identity{}, tooMany(wait)
	}
	if a.wrongs.has(sourceOf(source), shown...) {
		return identity{}, s.unauthorized(c, "wrong credentials")
	}
	who, ok := test(a)
	if !ok {
		if a.wrongs.add(sourceOf(source), shown...) {
			s.guesses.wrong(source, time.Now())
		}
		return identity{}, s.unauthorized(c, "wrong credentials")
	}
	return who, nil
}

// provePassword is prove for a password. Who has to wait for its turn is asked again then whether it may: hundreds that come at
// once would all have come before the first of them was wrong.
func (s *Server) provePassword(c *fasthttp.RequestCtx, name, password string) (identity, error) {
	a, source, shown := s.access.Load(), sourceOf(from(c)), []string{"basic", name, password}
	if wait := s.guesses.wait(from(c), time.Now()); wait > 0 {
		return identity{}, tooMany(wait)
	}
	if who, ok := a.basicAgain(name, password); ok {
		return who, nil
	}
	if a.wrongs.has(source, shown...) {
		return identity{}, s.unauthorized(c, "wrong credentials")
	}
	if err := s.queue.enter(source); err != nil {
		return identity{}, err
	}
	defer s.queue.leave(source)
	hashing.Lock()
	defer hashing.Unlock()
	if s.clients.hasGone(c.Conn()) {
		return identity{}, problemf(fasthttp.StatusServiceUnavailable, "the connection had to give way to another")
	}
	return s.prove(c, shown, func(a *access) (identity, bool) { return a.basic(name, password) })
}

func tooMany(wait time.Duration) error {
	p := problemf(fasthttp.StatusTooManyRequests, "too many wrong credentials; try again later")
	p.wait = int(wait/time.Second) + 1
	return p
}

// unauthorized refuses, and says how to do better. A page's own script asks by itself: no browser is to put up its dialog.
func (s *Server) unauthorized(c *fasthttp.RequestCtx, detail string) error {
	challenge := `Basic realm="awe4lb", charset="UTF-8"`
	if len(c.Request.Header.Peek("Sec-Fetch-Site")) > 0 || len(s.access.Load().users) == 0 {
		challenge = "Bearer"
	}
	c.Response.Header.Set("WWW-Authenticate", challenge)
	return problemf(fasthttp.StatusUnauthorized, "%s", detail)
}
