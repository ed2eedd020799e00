package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"awe4lb/config"
)

// check is what is probed and how. Immutable.
type check struct {
	h       *config.Health
	pool    *config.PoolTLS // what h says nothing about; nil: the pool speaks no TLS
	address config.Address  // where to
	sni     string          // whom to expect where nothing else says so, by discovery; "" = the IP address
}

// newCheck returns the check of a backend: with the address and the port that its pool's health table puts in place of the
// backend's.
func newCheck(p *config.Pool, backend *config.Backend) *check {
	c := &check{h: p.Health, address: backend.Address}
	if c.h.UseTLS {
		c.pool = p.TLS
		if c.h.ServerName == "" {
			c.sni = backend.SNI
		}
	}
	ip, port := backend.Address.IP.Addr(), backend.Address.IP.Port()
	if c.h.Address.IsValid() {
		ip = c.h.Address
	}
	if c.h.Port != 0 {
		port = uint16(c.h.Port)
	}
	if c.h.Address.IsValid() || c.h.Port != 0 {
		c.address = config.Address{IP: netip.AddrPortFrom(ip, port)}
	}
	return c
}

// identity returns a text that is the same for checks that need to be made only once. What is counted of their results may
// differ.
func (c *check) identity() string {
	h := *c.h
	h.Rise, h.Fall, h.Initial, h.Address, h.Port = 0, 0, "", netip.Addr{}, 0
	b, err := json.Marshal(struct {
		Health  config.Health
		Pool    *config.PoolTLS
		Address string
		SNI     string
	}{h, c.pool, c.address.String(), c.sni})
	if err != nil {
		panic(err) // our own types
	}
	return string(b)
}

// verdict is what a probe says of the backend.
type verdict int

const (
	unknown verdict = iota // nothing: we could not ask, or the answer has no meaning
	good
	bad
)

// verdictNames are what statuses call verdicts.
var verdictNames = [...]string{unknown: "unknown", good: "good", bad: "bad"}

// outcome is what a probe has found.
type outcome struct {
	verdict
	why     string // in words
	note    string // what else the backend said
	weight  int    // percent, -1: nothing was said
	order   string // of an agent: ready, drain or maint; "": nothing was said
	expires time.Time
}

func isGood(why string) outcome { return outcome{verdict: good, why: why, weight: -1} }
func isBad(format string, args ...any) outcome {
	return outcome{verdict: bad, why: fmt.Sprintf(format, args...), weight: -1}
}

// failed is the outcome of an error: the backend's fault, unless it is surely ours.
func (c *check) failed(doing string, err error) outcome {
	o := isBad("%s: %s", doing, c.explain(err))
	for _, ours := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EAGAIN, context.Canceled} {
		if errors.Is(err, ours) {
			o.verdict = unknown
		}
	}
	return o
}

// explain says what an error means, without what is said elsewhere.
func (c *check) explain(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + c.h.Timeout.String()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ended in the middle"
	case errors.Is(err, io.EOF):
		return "it closed the connection"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return cut(err.Error(), 200)
}

// maxShown is how much of what a backend says is repeated.
const maxShown = 80

// shown returns what a backend says, in quotes, escaped and cut.
func shown[T []byte | string](said T) string {
	if len(said) > maxShown {
		return strconv.Quote(string(said[:maxShown])) + "…"
	}
	return strconv.Quote(string(said))
}

// cut returns s on one line, escaped, and at most n bytes of it.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// run makes one probe. It ends within the timeout, or when ctx does.
func (p *Prober) run(ctx context.Context, c *check) outcome {
	ctx, cancel := context.WithTimeout(ctx, c.h.Timeout)
	defer cancel()
	switch c.h.Kind {
	case "tcp":
		return c.connected(ctx, "tcp", nil, c.converse)
	case "tls":
		return p.secured(ctx, c, nil, c.converse)
	case "udp":
		return c.connected(ctx, "udp", nil, c.exchange)
	case "http":
		return p.askHTTP(ctx, c)
	case "grpc":
		return p.askGRPC(ctx, c)
	case "exec":
		return c.execute(ctx)
	case "agent":
		return c.connected(ctx, "tcp", nil, c.askAgent)
	case "redis":
		return p.secured(ctx, c, nil, c.askRedis)
	case "postgres":
		return p.secured(ctx, c, askPostgresTLS, c.askPostgres)
	case "mysql":
		return c.connected(ctx, "tcp", nil, c.askMySQL)
	}
	panic("health: kind " + c.h.Kind + " passed validation and is not known")
}

// dial connects to where the check goes.
func (c *check) dial(ctx context.Context, network string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if c.address.IsUnix() {
		return d.DialContext(ctx, "unix", c.address.Path)
	}
	ip := c.address.IP.Addr()
	if s := c.h.Source; s.IsValid() && s.Is4() == ip.Is4() {
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
		}
	}
	return d.DialContext(ctx, network, c.address.String())
}

// wrapper puts something around a connection, TLS.
type wrapper func(context.Context, net.Conn) (net.Conn, *outcome)

// connected connects and has ask find out the rest. The connection is closed in the end, and all that happens on it fails
// when ctx is over.
func (c *check) connected(ctx context.Context, network string, wrap wrapper, ask func(net.Conn) outcome) outcome {
	conn, err := c.dial(ctx, network)
	if err != nil {
		return c.failed("connect", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if wrap == nil {
		return ask(conn)
	}
	wrapped, o := wrap(ctx, conn)
	if o != nil {
		return *o
	}
	return ask(wrapped)
}

// hostPort returns where the check goes, for those who want the two apart. A unix socket is a host without a port.
func (c *check) hostPort() (host, port string) {
	if c.address.IsUnix() {
		return c.address.Path, ""
	}
	return c.address.IP.Addr().String(), strconv.Itoa(int(c.address.IP.Port()))
}
