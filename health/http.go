package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"awe4lb/config"
)

// maxHeader bounds the header of an answer.
const maxHeader = 64 << 10

// askHTTP makes one request on a connection of its own, so that it is seen whether the backend still accepts any.
func (p *Prober) askHTTP(ctx context.Context, c *check) outcome {
	return p.request(ctx, c, "http/1.1", func(client *http.Client, base string) outcome {
		request, err := http.NewRequestWithContext(ctx, c.h.Method, base+c.h.Path, nil)
		if err != nil {
			return isBad("%s", cut(err.Error(), 200))
		}
		request.Host = c.hostHeader()
		request.Header.Set("User-Agent", "awe4lb-health")
		for _, line := range c.h.Headers {
			name, value, _ := strings.Cut(line, ": ")
			request.Header.Add(name, value)
		}
		response, err := client.Do(request)
		if err != nil {
			return c.failedHTTP(err)
		}
		defer response.Body.Close()
		if !statusIn(c.h.StatusSet, response.StatusCode) {
			return isBad("status: got %d; want %s", response.StatusCode, c.h.Status)
		}
		if c.h.Body == "" && c.h.BodyRegexp == "" {
			return isGood(fmt.Sprintf("status %d", response.StatusCode))
		}
		return c.judgeBody(response)
	})
}

// judgeBody looks into as much of the body as is allowed.
func (c *check) judgeBody(response *http.Response) outcome {
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(c.h.ReadLimit)))
	if c.h.Body != "" && !bytes.Contains(body, []byte(c.h.Body)) {
		if err != nil {
			return c.failed("body", err)
		}
		return isBad("body: got %s; want %s in it", shown(body), shown(c.h.Body))
	}
	if c.h.BodyRegexp != "" && !regexp.MustCompile(c.h.BodyRegexp).Match(body) {
		if err != nil {
			return c.failed("body", err)
		}
		return isBad("body: got %s; want what matches %s", shown(body), shown(c.h.BodyRegexp))
	}
	return isGood(fmt.Sprintf("status %d and the body are as expected", response.StatusCode))
}

func statusIn(set []config.StatusRange, status int) bool {
	return slices.ContainsFunc(set, func(r config.StatusRange) bool { return status >= r.First && status <= r.Last })
}

// hostHeader returns the name to ask for.
func (c *check) hostHeader() string {
	switch {
	case c.h.Host != "":
		return c.h.Host
	case c.h.UseTLS && c.h.ServerName != "":
		return c.h.ServerName
	case c.sni != "":
		return c.sni
	case c.address.IsUnix():
		return "localhost"
	}
	ip := c.address.IP.Addr().WithZone("") // which says something only on this host
	return net.JoinHostPort(ip.String(), fmt.Sprint(c.address.IP.Port()))
}

// request has ask use a client that connects nowhere but to c's subject, whatever a redirect says, and only once for each
// request.
func (p *Prober) request(ctx context.Context, c *check, alpn string, ask func(client *http.Client, base string) outcome) outcome {
	var expires time.Time
	var ended *outcome // why there was no connection
	transport := &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              new(http.Protocols),
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.dial(ctx, "tcp")
		if err != nil {
			o := c.failed("connect", err)
			ended = &o
			return nil, err
		}
		if !c.h.UseTLS {
			if alpn == "h2" { // where we speak first anyway
				return conn, nil
			}
			return &patient{Conn: conn, asked: make(chan struct{})}, nil
		}
		secure, o := p.handshake(ctx, c, conn, nil, alpn)
		if o != nil {
			conn.Close()
			ended = o
			return nil, errors.New(o.why)
		}
		expires = expiry(secure.ConnectionState())
		return secure, nil
	}
	base := "http://backend"
	if c.h.UseTLS {
		base = "https://backend"
		transport.DialTLSContext = dial
	} else {
		transport.DialContext = dial
	}
	if alpn == "h2" {
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
		transport.DisableKeepAlives = false // means nothing to HTTP/2 but a header
	} else {
		transport.Protocols.SetHTTP1(true)
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if !c.h.FollowRedirects || len(via) > 5 {
			return http.ErrUseLastResponse
		}
		if next.Host = next.URL.Host; next.Host == "backend" {
			next.Host = via[0].Host
		}
		next.URL.Scheme, next.URL.Host = via[0].URL.Scheme, "backend" // it stays where it is
		return nil
	}}
	o := ask(client, base)
	if ended != nil {
		o = *ended
	}
	o.expires = expires
	return o
}

// failedHTTP is failed for what net/http says.
func (c *check) failedHTTP(err error) outcome {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return isBad("answer: it does not speak TLS")
	}
	return c.failed("answer", err)
}

// patient is a connection that is not read before something was sent: of a server that answers before it is asked, net/http
// tells the log of the whole process.
type patient struct {
	net.Conn
	asked chan struct{}
	once  sync.Once
}

func (c *patient) ask() { c.once.Do(func() { close(c.asked) }) }

func (c *patient) Read(b []byte) (int, error) {
	<-c.asked
	return c.Conn.Read(b)
}

func (c *patient) Write(b []byte) (int, error) {
	c.ask()
	return c.Conn.Write(b)
}

// Close lets a reader go too.
func (c *patient) Close() error {
	c.ask()
	return c.Conn.Close()
}
