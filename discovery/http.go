package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// HTTPOptions say where a list is.
type HTTPOptions struct {
	URL      string            // http or https, without a user
	Headers  map[string]string // taken for secrets
	User     string            // basic authentication, with Password
	Password Secret
	Bearer   Secret // a token; not together with User
	TLS      HTTPTLS
	Allow    []netip.Prefix // addresses that may be asked though they are forbidden, see forbidden
	Decoding                // Auto: JSON if the Content-Type says so, otherwise Text
	MaxBytes int64          // of the body, unpacked; 0 = 4 MiB
}

// HTTPTLS is what https needs beside the authorities of the system.
type HTTPTLS struct {
	CA         string // PEM file of the authorities to trust instead
	Cert, Key  string // PEM files of what we show
	ServerName string // name to ask for and to verify; "" = that of the URL
	Insecure   bool   // verify nothing: whoever is on the way chooses the backends
}

// Secret is a value, or the file that has it. A file is read for each fetch, so that it may be replaced, and loses white
// space at its ends. No error, name or status says what is in it.
type Secret struct{ Value, File string }

func (s Secret) set() bool { return s != Secret{} }

// String hides the value from who prints options.
func (s Secret) String() string {
	switch {
	case s.File != "":
		return "file:" + s.File
	case s.Value != "":
		return "***"
	}
	return ""
}

// GoString is String for %#v.
func (s Secret) GoString() string { return s.String() }

func (s Secret) read() (string, error) {
	if s.File == "" {
		return s.Value, nil
	}
	b, err := readFile(s.File, 64<<10)
	if err != nil {
		return "", err
	}
	v := strings.TrimSpace(string(b))
	if v == "" || strings.ContainsAny(v, "\r\n\x00") {
		return "", fmt.Errorf("%s: want a secret of one line", s.File)
	}
	return v, nil
}

// web asks an HTTP server for a list.
type web struct {
	// Set once.
	o      HTTPOptions
	url    *url.URL
	name   string
	dec    *decoder
	most   int64
	client *http.Client

	// Owned by the goroutine that calls Fetch.
	etag string // of list; "" = none
	list List
}

const (
	maxRedirects   = 5
	maxHeaderBytes = 64 << 10
)

// NewHTTP returns a source that asks an HTTP server: status 200 and a body. Redirects are followed within the same origin
// only, and proxies from the environment are not used. Addresses of this machine and of metadata services are refused when
// it comes to connecting, so that no name leads there.
func NewHTTP(o HTTPOptions) (Source, error) {
	w, err := newWeb(o)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	return w, nil
}

func newWeb(o HTTPOptions) (*web, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("url: want one such as https://catalog.internal/backends") // err quotes it, with its secrets
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("url: got the scheme %q and the host %q; want http or https, and a host", u.Scheme, u.Host)
	case u.User != nil:
		return nil, errors.New("url: has a user; want it in user and password")
	case o.User != "" && o.Bearer.set():
		return nil, errors.New("want user and password or bearer, not both")
	case o.Password.set() && o.User == "":
		return nil, errors.New("password: want a user with it")
	}
	for k, v := range o.Headers {
		if k == "" || strings.ContainsAny(k, "\r\n\x00: ") || strings.ContainsAny(v, "\r\n\x00") {
			return nil, fmt.Errorf("headers: got the name %q; want names and values of one line", k)
		}
	}
	w := &web{o: o, url: u, name: "http:" + redact(u)}
	if u.RawQuery != "" {
		w.name += digest(u.RawQuery)
	}
	if w.dec, err = newDecoder(o.Decoding); err != nil {
		return nil, err
	}
	if w.most, err = maxBytes(o.MaxBytes); err != nil {
		return nil, err
	}
	conf, err := o.TLS.config()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{ControlContext: allowed(o.Allow)}
	w.client = &http.Client{
		CheckRedirect: w.redirect,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: conf, DisableKeepAlives: true,
			MaxResponseHeaderBytes: maxHeaderBytes, TLSHandshakeTimeout: 10 * time.Second,
		},
	}
	return w, nil
}

func (t HTTPTLS) config() (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: t.Insecure}
	if t.CA != "" {
		pem, err := readFile(t.CA, maxMaterial)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: want certificates as PEM", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("tls: want cert and key, or neither")
	}
	if t.Cert != "" {
		if _, err := readPair(t.Cert, t.Key); err != nil {
			return nil, err
		}
		// Read for each handshake, since it will be renewed.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := readPair(t.Cert, t.Key)
			return &pair, err
		}
	}
	return c, nil
}

// redact leaves out of a URL what may be secret: its query, and anything else but the way to the place.
func redact(u *url.URL) string {
	s := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	if u.RawQuery != "" {
		s += "?…"
	}
	return s
}

func (w *web) String() string { return w.name }

func (w *web) Fetch(ctx context.Context) (List, error) {
	list, err := w.fetch(ctx)
	if err != nil {
		return List{}, fmt.Errorf("%s: %w", w.name, err)
	}
	return list, nil
}

func (w *web) fetch(ctx context.Context) (List, error) {
	req, err := w.request(ctx)
	if err != nil {
		return List{}, err
	}
	res, err := w.do(req)
	if err != nil {
		return List{}, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotModified && w.etag != "" {
		return w.list, nil
	}
	if res.StatusCode != http.StatusOK {
		return List{}, badStatus(res.StatusCode)
	}
	b, err := readLimited(res.Body, w.most)
	if err != nil {
		return List{}, err
	}
	auto := Text
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "application/json" || strings.HasSuffix(kind, "+json") {
		auto = JSON
	}
	// A body that only the end of the connection ends may have been cut anywhere. JSON shows it.
	endless := res.ProtoMajor == 1 && res.ContentLength < 0 && len(res.TransferEncoding) == 0 && !res.Uncompressed
	if endless && w.dec.formatOf(auto) == Text && len(b) > 0 && b[len(b)-1] != '\n' {
		return List{}, fail(ReasonDecode, errors.New("the text ends within a line, and the server does not say how long it is: it may have been cut"))
	}
	list, err := w.dec.decode(b, auto)
	if err != nil {
		w.etag = ""
		return List{}, err
	}
	w.etag, w.list = res.Header.Get("ETag"), list
	return list, nil
}

// do is Client.Do, with an error that does not quote the URL: its query may be secret.
func (w *web) do(req *http.Request) (*http.Response, error) {
	res, err := w.client.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return res, err
}

// badStatus does not quote the body: servers that explain themselves repeat the request, with its secrets.
func badStatus(code int) error { return fail(ReasonStatus, &statusError{code}) }

type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("status %d; want 200", e.code) }

// withText adds to an error the first of texts that is in what the server says. Nothing else of it is shown: it may hold what
// was sent, a token too.
func withText(err error, said string, texts []string) error {
	for _, t := range texts {
		if strings.Contains(said, t) {
			return fmt.Errorf("%w (%s)", err, t)
		}
	}
	return err
}

func (w *web) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url.String(), nil)
	if err != nil {
		return nil, errors.New("the URL makes no request")
	}
	req.Header.Set("User-Agent", "awe4lb")
	req.Header.Set("Accept", "application/json, text/plain;q=0.9, */*;q=0.1")
	for k, v := range w.o.Headers {
		if strings.EqualFold(k, "Host") {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	if req.Header.Del("If-None-Match"); w.etag != "" {
		req.Header.Set("If-None-Match", w.etag)
	}
	switch {
	case w.o.User != "":
		password, err := w.o.Password.read()
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(w.o.User, password)
	case w.o.Bearer.set():
		token, err := w.o.Bearer.read()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// redirect keeps requests, which may carry secrets of any header, with the origin they are for.
func (w *web) redirect(next *http.Request, via []*http.Request) error {
	if next.URL.Scheme != w.url.Scheme || !strings.EqualFold(next.URL.Host, w.url.Host) {
		return fail(ReasonRefused, fmt.Errorf("a redirect to %s is refused: it is not the same origin", quote(redact(next.URL))))
	}
	if len(via) > maxRedirects {
		return fail(ReasonRefused, fmt.Errorf("more than %d redirects", maxRedirects))
	}
	return nil
}

// allowed returns what looks at the address that a connection is about to be made to.
func allowed(allow []netip.Prefix) func(ctx context.Context, _, address string, _ syscall.RawConn) error {
	return func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		ip := a.Addr().WithZone("").Unmap()
		if err := outside(ctx, ip); err != nil {
			return err
		}
		why := forbidden(ip)
		if why == "" && !slices.ContainsFunc(allow, isLoopback) && isOurs(ip) {
			why = "an address of this machine"
		}
		if why != "" && !slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return fail(ReasonRefused, fmt.Errorf("%s is refused: it is %s; allow it if that is what you want", ip, why))
		}
		return nil
	}
}

// isLoopback reports whether who is allowed p is allowed this machine.
func isLoopback(p netip.Prefix) bool { return slices.Contains(loopback, p.Masked()) }

// isOurs reports whether an interface of this machine has ip: what listens on all of them is there as on loopback.
func isOurs(ip netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		own, ok := netip.AddrFromSlice(n.IP)
		return ok && own.Unmap() == ip
	})
}

// metadata are the places of metadata services that are not link-local.
var metadata = prefixes(
	"100.100.100.200/32", "fd00:100::100:200/128", // Alibaba
	"fd00:ec2::/32",                            // AWS
	"168.63.129.16/32",                         // Azure
	"fd20:ce::254/128",                         // Google
	"fd00:a9fe:a9fe::1/128",                    // Linode
	"192.0.0.192/32", "fd00:c1::a9fe:a9fe/128", // Oracle
	"fd00:42::42/128", // Scaleway
)

// embedded are prefixes whose addresses hold an IPv4 address in their last 32 bits: NAT64, and what Unmap leaves.
var embedded = prefixes("64:ff9b::/96", "64:ff9b:1::/48", "::/96")

var sixToFour = netip.MustParsePrefix("2002::/16") // RFC 3056: an IPv4 address behind the first 16 bits

func prefixes(all ...string) (list []netip.Prefix) {
	for _, s := range all {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// forbidden says what is special about an address that a list should not come from, or "". A URL may be written by
// somebody who may not reach what we reach (SSRF).
func forbidden(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback() || ip.IsUnspecified() || ip.Is4() && ip.As4()[0] == 0:
		return "an address of this machine"
	case ip.IsLinkLocalUnicast():
		return "a link-local address, as those of metadata services are"
	case slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(ip) }):
		return "the address of a metadata service"
	case ip.IsMulticast():
		return "a multicast address"
	}
	b := ip.As16()
	if sixToFour.Contains(ip) {
		return forbidden(netip.AddrFrom4([4]byte(b[2:6])))
	}
	for _, p := range embedded {
		if p.Contains(ip) {
			return forbidden(netip.AddrFrom4([4]byte(b[12:])))
		}
	}
	return ""
}
