package admin

import (
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"
)

// guard refuses what a web page open in a browser on this host could send: requests under a name that only resolves here
// (DNS rebinding) and requests from another origin (CSRF). It reports whether the request may go on, and has answered when
// it may not.
func guard(c *fasthttp.RequestCtx) bool {
	host := string(c.Host())
	if !isLocal(host) {
		problem(c, fasthttp.StatusForbidden, "Host is not a loopback address", nil)
		return false
	}
	if c.IsGet() || c.IsHead() {
		return true
	}
	switch site := string(c.Request.Header.Peek("Sec-Fetch-Site")); site {
	case "", "same-origin", "none":
	default:
		problem(c, fasthttp.StatusForbidden, "cross-site request", nil)
		return false
	}
	if origin := string(c.Request.Header.Peek("Origin")); origin != "" && origin != "http://"+host {
		problem(c, fasthttp.StatusForbidden, "Origin is not this server", nil)
		return false
	}
	return true
}

// isLocal reports whether a Host header names the loopback interface: an exact match, since 127.0.0.1.example.com is
// anybody's.
func isLocal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && a.IsLoopback()
}
