package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxMessage = 1 << 20          // bytes of one message of a stream of events
	askTimeout = 10 * time.Second // of one request while a source is watched; listing may take several
	askPause   = 100 * time.Millisecond
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// newAPI is newWeb for a program whose API is asked by several requests: at unix:///path, http or https. This machine is
// allowed, since that is where such programs are. Connections are kept for the requests of one look and for idleKept.
func newAPI(place string, t HTTPTLS, allow []netip.Prefix, most int64) (*web, error) {
	path, isUnix := strings.CutPrefix(place, "unix://")
	at := place
	if isUnix {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("url: got %s; want unix:///path, http:// or https://", quote(place))
		}
		at = "http://localhost"
	}
	w, err := newWeb(HTTPOptions{URL: at, TLS: t, Allow: append(slices.Clone(allow), loopback...), MaxBytes: most})
	if err != nil {
		return nil, err
	}
	if w.url.RawQuery != "" || w.url.Fragment != "" {
		return nil, errors.New("url: has a query; want none")
	}
	w.name = redact(w.url)
	transport := w.client.Transport.(*http.Transport)
	transport.DisableKeepAlives = false
	transport.IdleConnTimeout = idleKept
	if isUnix {
		w.name = place
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	return w, nil
}

const idleKept = 5 * time.Second

// forget closes the connections that are kept: what is asked next does not meet a server that has gone.
func (w *web) forget() { w.client.CloseIdleConnections() }

// ask sends one request and returns its answer, whatever its status. path is below that of the URL, escaped. body is JSON;
// nil = none, and then the request is a GET.
func (w *web) ask(ctx context.Context, path string, query url.Values, header http.Header, body any) (*http.Response, error) {
	req, err := w.request(ctx)
	if err != nil {
		return nil, err
	}
	base := *w.url
	base.Path = "/" + strings.TrimPrefix(base.Path, "/")
	req.URL = base.JoinPath(path)
	req.URL.RawQuery = query.Encode()
	req.Header.Set("Accept", "application/json")
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req.Method, req.ContentLength = http.MethodPost, int64(len(b))
		req.Body = io.NopCloser(bytes.NewReader(b))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
		req.Header.Set("Content-Type", "application/json")
	}
	return w.do(req)
}

// get asks by GET and reads a whole answer of status 200.
func (w *web) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	res, err := w.ask(ctx, path, query, nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, badStatus(res.StatusCode)
	}
	return readLimited(res.Body, w.most)
}

// isStatus reports whether err is that of an answer with this status.
func isStatus(err error, code int) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == code
}

// messages reads a stream of JSON documents, each of at most most bytes.
type messages struct {
	most    int64
	limited io.LimitedReader
	dec     *json.Decoder
}

func newMessages(r io.Reader, most int64) *messages {
	m := &messages{most: most, limited: io.LimitedReader{R: r}}
	m.dec = json.NewDecoder(&m.limited)
	return m
}

// next reads one document into v, which is to be new. The end of the stream is an error like any other: streams of events
// have none.
func (m *messages) next(v any) error {
	m.limited.N = m.most
	err := m.dec.Decode(v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case m.limited.N <= 0:
		return tooLarge(m.most)
	case errors.Is(err, io.EOF):
		return errCut
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w within a message", errCut)
	case errors.As(err, &syntax) || errors.As(err, &kind):
		return badJSON(err)
	}
	return err
}

var errCut = errors.New("the stream was cut")

// unmarshal is json.Unmarshal with an error that can be shown.
func unmarshal(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return badJSON(err)
	}
	return nil
}

func badJSON(err error) error {
	return fail(ReasonDecode, errors.New(clip(strconv.QuoteToASCII(err.Error()))))
}

// isArray tells an array from null, of which encoding/json makes the same.
func isArray(b []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) }

// checkResync reads the setting of that name.
func checkResync(d time.Duration) (time.Duration, error) {
	switch {
	case d == 0:
		return 30 * time.Second, nil
	case d < time.Second || d > time.Hour:
		return 0, fmt.Errorf("resync: got %v; want 1s to 1h", d)
	}
	return d, nil
}
