package discovery

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// LXDOptions say which instances of an LXD or Incus server are backends.
type LXDOptions struct {
	URL         string         // unix:///path or https://host:8443; "" = unix:///var/lib/lxd/unix.socket. gobetween: lxd_server_address
	TLS         HTTPTLS        // the client certificate the server trusts, authorities; not with unix
	Fingerprint string         // SHA-256 of the server's certificate, 64 hexadecimal digits: only this one is taken, whoever signed it
	Password    Secret         // LXD's trust password: with it, the client certificate is made trusted if it is not. Incus and newer LXD have none. gobetween: lxd_server_remote_password
	Allow       []netip.Prefix // as in HTTPOptions; this machine is allowed
	Project     string         // "" = that called default; "*" = all

	Key, Value   string // a configuration key an instance must have, and its value; "" = any. gobetween: lxd_container_label_key, _value
	Port         int    // 1 to 65535; 0 = the instance says it. gobetween: lxd_container_port
	PortKey      string // a configuration key with the port, beside user.awe4lb.port. gobetween: lxd_container_port_key
	Interface    string // in the instance; "" = eth0. gobetween: lxd_container_interface
	InterfaceKey string // a configuration key with the interface, beside user.awe4lb.interface. gobetween: lxd_container_interface_key
	SNIKey       string // a configuration key with the SNI, beside user.awe4lb.sni. gobetween: lxd_container_sni_key
	IPv6         bool   // the IPv6 address instead of the IPv4 one. gobetween: lxd_container_address_type

	Resync   time.Duration // how long an event stream is trusted before it is opened and everything listed anew, 1s to 1h; 0 = 30 s
	MaxBytes int64         // of an answer; 0 = 4 MiB
}

// lxd lists running instances, asks for the state of those that are meant, and does both again when an event says that one
// has changed. No event says that an instance has got its address: while one has none, it is asked again soon.
type lxd struct {
	// Set once.
	o   LXDOptions
	api *web
	follower

	// Owned by the goroutine that calls Fetch or Watch.
	known map[string][]Backend // of running instances by project and name, as they were last seen
}

const (
	lxdPrefix   = "user." + labelPrefix
	lxdAtOnce   = 4 // requests for states
	fingerprint = "want the SHA-256 of the server's certificate as 64 hexadecimal digits"
)

// NewLXD returns a source that follows the running instances of an LXD or Incus server. An instance that makes no sense, or
// has no address yet, is left out and counted. Configuration keys that begin with user.awe4lb. say more about it, those of
// profiles included: see labels.go; its name is the label instance.
func NewLXD(o LXDOptions) (Watcher, error) {
	l, err := newLXD(o)
	if err != nil {
		return nil, fmt.Errorf("lxd: %w", err)
	}
	return l, nil
}

func newLXD(o LXDOptions) (*lxd, error) {
	if o.URL == "" {
		o.URL = "unix:///var/lib/lxd/unix.socket"
	}
	if o.Interface == "" {
		o.Interface = "eth0"
	}
	isUnix := strings.HasPrefix(o.URL, "unix:")
	switch {
	case !isUnix && !strings.HasPrefix(o.URL, "https://"):
		return nil, fmt.Errorf("url: got %s; want unix:///path or https://host:8443", quote(redactText(o.URL)))
	case isUnix && (o.TLS != (HTTPTLS{}) || o.Fingerprint != "" || o.Password.set()):
		return nil, errors.New("tls, fingerprint and password are for https; want none of them with a unix socket")
	case !isUnix && o.TLS.Cert == "":
		return nil, errors.New("tls: want the certificate and the key that the server knows us by")
	case o.Port < 0 || o.Port > 65535:
		return nil, fmt.Errorf("port: got %d; want 0 to 65535", o.Port)
	case o.Value != "" && o.Key == "":
		return nil, errors.New("value: want a key with it")
	case checkText("", o.Project) != nil:
		return nil, fmt.Errorf("project: got %s; want a name, or *", quote(o.Project))
	}
	l := &lxd{o: o}
	var err error
	if l.api, err = newAPI(o.URL, o.TLS, o.Allow, o.MaxBytes); err != nil {
		return nil, err
	}
	if o.Fingerprint != "" {
		if err := pin(l.api.client.Transport.(*http.Transport).TLSClientConfig, o.Fingerprint); err != nil {
			return nil, err
		}
	}
	if l.resync, err = checkResync(o.Resync); err != nil {
		return nil, err
	}
	l.patience = askTimeout
	l.open, l.list = l.events, l.instances
	return l, nil
}

// redactText hides what a URL may have of a user, for errors about one that makes no sense.
func redactText(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}

// pin makes a connection take one certificate, and no other whoever vouches for it.
func pin(c *tls.Config, want string) error {
	sum, err := hex.DecodeString(strings.ReplaceAll(want, ":", ""))
	if err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("fingerprint: got %d characters; %s", len(want), fingerprint)
	}
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error {
		got := sha256.Sum256(s.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(got[:], sum) != 1 {
			return fail(ReasonRefused, fmt.Errorf("the server's certificate has the fingerprint %x; want that of the configuration", got))
		}
		return nil
	}
	return nil
}

func (l *lxd) String() string {
	s := "lxd:" + l.api.name
	if l.o.Project != "" {
		s += "/" + l.o.Project
	}
	if l.o.Key != "" {
		s += " " + l.o.Key + "=" + l.o.Value
	}
	return s + " …" + digest(l.o.PortKey, l.o.Interface, l.o.InterfaceKey, l.o.SNIKey, fmt.Sprint(l.o.Port, l.o.IPv6))
}

// Fetch lists the instances.
func (l *lxd) Fetch(ctx context.Context) (List, error) {
	defer l.api.forget()
	if err := l.trust(ctx); err != nil {
		return List{}, l.named(err)
	}
	list, _, err := l.instances(ctx)
	return list, l.named(err)
}

// Watch reports the instances after each event, and every resync.
func (l *lxd) Watch(ctx context.Context, report func(List)) error {
	defer l.api.forget()
	return l.named(l.watch(ctx, report))
}

func (l *lxd) named(err error) error {
	if err != nil {
		return fmt.Errorf("lxd:%s: %w", l.api.name, err)
	}
	return nil
}

func (l *lxd) query(project string) url.Values {
	switch {
	case project == "*":
		return url.Values{"all-projects": {"true"}}
	case project != "":
		return url.Values{"project": {project}}
	}
	return url.Values{}
}

// events opens the stream of events, which is a WebSocket.
func (l *lxd) events(ctx context.Context) (stream, error) {
	if err := l.trust(ctx); err != nil {
		return nil, err
	}
	u := l.api.url.JoinPath("/1.0/events")
	q := l.query(l.o.Project)
	q.Set("type", "lifecycle")
	u.RawQuery = q.Encode()
	conn, res, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: l.api.client})
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			return nil, badStatus(res.StatusCode)
		}
		return nil, plain(err)
	}
	conn.SetReadLimit(maxMessage)
	return &lxdStream{ctx: ctx, conn: conn}, nil
}

// plain takes the URL out of an error.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

type lxdStream struct {
	ctx  context.Context
	conn *websocket.Conn
}

// next waits for an event that may change the list. There are many others, of who looks at what.
func (s *lxdStream) next() error {
	for {
		_, b, err := s.conn.Read(s.ctx)
		switch {
		case errors.Is(err, websocket.ErrMessageTooBig):
			return tooLarge(maxMessage)
		case err != nil:
			return fmt.Errorf("%w: %s", errCut, clip(quote(err.Error())))
		}
		matters, err := decodeLifecycle(b)
		if matters || err != nil {
			return err
		}
	}
}

func (s *lxdStream) close() { _ = s.conn.CloseNow() }

// lxdActions may change the list. They are those of LXD from 4.0 on, and of Incus.
var lxdActions = []string{
	"instance-started", "instance-stopped", "instance-shutdown", "instance-restarted", "instance-paused", "instance-resumed", "instance-ready",
	"instance-updated", "instance-renamed", "instance-deleted", "instance-restored", "instance-created", "profile-updated", "network-updated",
}

// decodeLifecycle reports whether an event may change the list.
func decodeLifecycle(b []byte) (bool, error) {
	var e struct {
		Type     string
		Metadata json.RawMessage
	}
	if err := unmarshal(b, &e); err != nil {
		return false, err
	}
	if e.Type == "" {
		return false, fail(ReasonDecode, errors.New("got an event without type"))
	}
	if e.Type != "lifecycle" {
		return false, nil
	}
	var m struct{ Action string }
	if err := unmarshal(e.Metadata, &m); err != nil {
		return false, err
	}
	return slices.Contains(lxdActions, m.Action), nil
}

// trust makes our certificate one that the server knows, if there is a password and it is needed.
func (l *lxd) trust(ctx context.Context) error {
	if !l.o.Password.set() {
		return nil
	}
	var server struct{ Auth string }
	if err := l.metadata(ctx, "/1.0", nil, &server); err != nil {
		return err
	}
	if server.Auth != "untrusted" {
		return nil
	}
	password, err := l.o.Password.read()
	if err != nil {
		return err
	}
	res, err := l.api.ask(ctx, "/1.0/certificates", nil, nil, map[string]string{"type": "client", "password": password})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return fmt.Errorf("the password was not taken: %w", badStatus(res.StatusCode))
	}
	return nil
}

// metadata asks by GET and reads what the answer is about. Errors have a status of their own, and are not quoted.
func (l *lxd) metadata(ctx context.Context, path string, query url.Values, v any) error {
	b, err := l.api.get(ctx, path, query)
	if err != nil {
		return err
	}
	return decodeMetadata(b, v)
}

func decodeMetadata(b []byte, v any) error {
	var answer struct {
		Type     string
		Metadata json.RawMessage
	}
	if err := unmarshal(b, &answer); err != nil {
		return err
	}
	if answer.Type != "sync" || len(answer.Metadata) == 0 || string(answer.Metadata) == "null" {
		return fail(ReasonDecode, fmt.Errorf("got an answer of type %s; want sync, with metadata", quote(answer.Type)))
	}
	return unmarshal(answer.Metadata, v)
}
