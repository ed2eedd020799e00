// Package client speaks with the admin of a running awe4lb: its calls as JSON, its errors as Go errors, its stream of samples.
// It holds no state but connections, and knows nothing of terminals.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultAddress is where the admin listens unless told otherwise.
const DefaultAddress = "127.0.0.1:7070"

const (
	dialTimeout = 5 * time.Second
	callTimeout = 30 * time.Second
	maxAnswer   = 64 << 20 // bytes: a status with some 60,000 backends
)

// Options say whom to speak with, and as whom.
type Options struct {
	Address string // host:port, http://host:port, https://host:port or unix:/path; "" is DefaultAddress
	TLS     bool   // host:port means https

	Token          string // sent as a bearer token where it is not empty; else
	User, Password string // sent by basic authentication where User is not empty

	CA        string // PEM file of the authorities to trust; "" = this host's
	Cert, Key string // PEM files of a client certificate; Key "" = in Cert
}

// Client is one admin. Make it with New. Safe from any goroutine.
type Client struct {
	address string // for people
	base    url.URL
	options Options
	http    *http.Client
	silence time.Duration // without a sample for so long, a stream is given up
}

// New returns a client; nothing is sent yet. It fails where an option makes no sense or a file cannot be read.
func New(o Options) (*Client, error) {
	c := &Client{options: o, silence: streamSilence}
	dial := (&net.Dialer{Timeout: dialTimeout}).DialContext
	switch address := o.Address; {
	case address == "":
		c.base = url.URL{Scheme: "http", Host: DefaultAddress}
	case strings.HasPrefix(address, "unix:"):
		path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
		if path == "" {
			return nil, fmt.Errorf("got %q; want unix:/path", address)
		}
		c.base = url.URL{Scheme: "http", Host: "localhost"}
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
		}
	case strings.Contains(address, "://"):
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("got %q; want host:port, http://host:port, https://host:port or unix:/path", address)
		}
		c.base = url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	default:
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("got %q; want host:port, http://host:port, https://host:port or unix:/path", address)
		}
		c.base = url.URL{Scheme: "http", Host: address}
	}
	if o.TLS && !strings.Contains(o.Address, "://") {
		c.base.Scheme = "https"
	}
	if c.address = o.Address; c.address == "" {
		c.address = DefaultAddress
	}
	secure, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{
		// No proxy of the environment: credentials go to the admin and nobody else. No redirects for the same reason.
		Transport:     &http.Transport{DialContext: dial, TLSClientConfig: secure, TLSHandshakeTimeout: dialTimeout, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func tlsConfig(o Options) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificate: want PEM", o.CA)
		}
	}
	if o.Cert != "" {
		key := o.Key
		if key == "" {
			key = o.Cert
		}
		pair, err := tls.LoadX509KeyPair(o.Cert, key)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Address returns whom c speaks with, as it was given.
func (c *Client) Address() string { return c.address }

// SendsInTheClear reports whether credentials would cross a network that others may read.
func (c *Client) SendsInTheClear() bool {
	if c.options.Token == "" && c.options.User == "" || c.base.Scheme == "https" || strings.HasPrefix(c.address, "unix:") {
		return false
	}
	host := c.base.Hostname()
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// Request is one call. Path is not escaped: "/api/v1/pools/web".
type Request struct {
	Method, Path string
	Query        url.Values
	Body         any    // sent as JSON; nil: Text is
	Text         []byte // sent as it is, with ContentType; nil: nothing
	ContentType  string
	Header       http.Header // more of it
}

// Response is the answer to a call that went well.
type Response struct {
	Header http.Header
	Body   []byte // empty for 204
}

// Get calls what changes nothing and decodes the answer into answer. It fails as Do.
func (c *Client) Get(ctx context.Context, path string, query url.Values, answer any) error {
	return c.Call(ctx, Request{Method: http.MethodGet, Path: path, Query: query}, answer)
}

// Call is Do with the answer decoded into answer; nil: it is not wanted.
func (c *Client) Call(ctx context.Context, r Request, answer any) error {
	if answer != nil && r.Header.Get("Accept") == "" {
		r.Header = r.Header.Clone()
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set("Accept", "application/json") // and not indented
	}
	res, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	return c.Decode(r, res, answer)
}

// Decode decodes what came for r into answer; nil: it is not wanted.
func (c *Client) Decode(r Request, res *Response, answer any) error {
	if answer == nil || len(res.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(res.Body, answer); err != nil {
		return c.stranger(fmt.Sprintf("%s %s: %v", r.Method, r.Path, err))
	}
	return nil
}

// Do makes a call, within half a minute and what ctx leaves. A *Problem is a refusal by the admin, an *Unreachable everything
// that kept its answer from coming.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, &Unreachable{c.address, err}
	case len(body) > maxAnswer:
		return nil, c.stranger(fmt.Sprintf("an answer of more than %d bytes", maxAnswer))
	}
	return &Response{res.Header, body}, nil
}

// send sends r and returns an answer of success; the caller closes it.
func (c *Client) send(ctx context.Context, r Request) (*http.Response, error) {
	body, kind := r.Text, r.ContentType
	if r.Body != nil {
		text, err := json.Marshal(r.Body)
		if err != nil {
			return nil, err
		}
		body, kind = text, "application/json"
	}
	u := c.base
	u.Path += r.Path
	u.RawQuery = r.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	switch o := &c.options; {
	case o.Token != "":
		req.Header.Set("Authorization", "Bearer "+o.Token)
	case o.User != "":
		req.SetBasicAuth(o.User, o.Password)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var outer *url.Error // says method and URL, which the caller knows
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return nil, &Unreachable{c.address, err}
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.problemOf(res)
}
