package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// resource is a collection of objects, as the API server has it.
//
//	         load                        watch
//	┌───────┐ ───▶ ┌────────┐ ────────────────────────▶ ┌──────────┐ ──▶ objects come, change, go; bookmarks
//	│ empty │      │ listed │                           │ watching │     move the version on
//	└───────┘      └────────┘ ◀──────────────────────── └──────────┘
//	                 ▲    ends: by timeout, by EOF anywhere   │ 410 Gone, as status or as event: the version is too old
//	                 └──────────────── load ──────────────────┘
//
// A load puts all objects in place of those before, at once. Anything else that fails ends follow: the Runner keeps what it
// has, waits, and begins anew.
type resource[T any, P kubeObject[T]] struct {
	// Set once.
	k       *kube
	path    string
	query   url.Values
	what    string // for errors
	changed func()

	// Owned by the goroutine that calls load or follow.
	version string // what a watch begins behind; "" = a list is due

	// Guarded by mu.
	mu      sync.Mutex
	objects map[string]kept[T] // by namespace/name; nil before the first load
	bytes   int64              // what we keep of them would be, as JSON
}

type kept[T any] struct {
	object *T
	bytes  int64
}

type kubeObject[T any] interface {
	*T
	meta() *kubeMeta
}

const (
	kubePage   = "50"                   // objects of a page of a list. Slices have 100 endpoints as a rule, nodes are long
	kubePages  = 2000                   // of a list
	kubePause  = 100 * time.Millisecond // before a watch is asked for again
	kubeGone   = 3                      // lists in a row that are too old as soon as they are there
	kubeShort  = time.Second            // a watch that ends sooner and brings nothing is a failure
	kubeAnswer = 30 * time.Second       // for a page, and for what the way there and back takes on top of Wait
	kubeKept   = 16                     // MaxBytes that we keep of a resource
)

// errGone says that the server has forgotten the version that was asked for.
var errGone = errors.New("the resource version is too old")

func newResource[T any, P kubeObject[T]](k *kube, api, namespace, plural string, query url.Values, changed func()) *resource[T, P] {
	r := &resource[T, P]{k: k, path: api, query: query, what: plural, changed: changed}
	if namespace != "" {
		r.path += "/namespaces/" + namespace
		r.what += " in the namespace " + namespace
	}
	r.path += "/" + plural
	return r
}

func (r *resource[T, P]) loaded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.objects != nil
}

// all returns the objects, which are not to be changed.
func (r *resource[T, P]) all() []*T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*T, 0, len(r.objects))
	for _, o := range r.objects {
		all = append(all, o.object)
	}
	return all
}

// follow lists and watches until ctx is done or something fails.
func (r *resource[T, P]) follow(ctx context.Context) error {
	for gone := 0; ; {
		if r.version == "" {
			if err := r.load(ctx); err != nil {
				return err
			}
			r.changed()
		}
		began := time.Now()
		news, err := r.watch(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errGone) && gone < kubeGone:
			gone++
			r.version = ""
		case err != nil:
			return fmt.Errorf("watch %s: %w", r.what, err)
		case news == 0 && time.Since(began) < kubeShort:
			return fmt.Errorf("watch %s: the server ends it at once", r.what)
		}
		if news > 0 {
			gone = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(kubePause):
		}
	}
}

// load lists all objects, page by page. The pages are of one version, so that nothing comes or goes between them; when the
// server has forgotten that one in the meantime, it begins anew, once.
func (r *resource[T, P]) load(ctx context.Context) error {
	err := r.pages(ctx)
	if errors.Is(err, errGone) {
		err = r.pages(ctx)
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", r.what, err)
	}
	return nil
}

// kubeList is a page of a list.
type kubeList struct {
	Metadata struct{ ResourceVersion, Continue string }
	Items    []json.RawMessage
}

func (r *resource[T, P]) pages(ctx context.Context) error {
	objects, bytes := map[string]kept[T]{}, int64(0)
	next := ""
	for range kubePages {
		page, err := r.page(ctx, next)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			o, err := decodeObject[T](item)
			if err != nil {
				return err
			}
			objects[P(o.object).meta().key()] = o
			bytes += o.bytes
		}
		if most := r.most(); bytes > most {
			return tooLarge(most)
		}
		if next = page.Metadata.Continue; next == "" {
			r.version = page.Metadata.ResourceVersion
			r.mu.Lock()
			r.objects, r.bytes = objects, bytes
			r.mu.Unlock()
			return nil
		}
	}
	return fail(ReasonTooLarge, fmt.Errorf("more than %d pages", kubePages))
}

func (r *resource[T, P]) most() int64 { return kubeKept * r.k.access.most }

func (r *resource[T, P]) page(parent context.Context, next string) (*kubeList, error) {
	ctx, cancel := context.WithTimeoutCause(parent, kubeAnswer, fail(ReasonTimeout, fmt.Errorf("no answer within %v", kubeAnswer)))
	defer cancel()
	query := url.Values{"limit": {kubePage}}
	if next != "" {
		query.Set("continue", next)
	}
	body, err := r.get(ctx, query)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	defer body.Close()
	b, err := readLimited(body, r.k.access.most)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return decodeKubeList(b)
}

func decodeKubeList(b []byte) (*kubeList, error) {
	var page kubeList
	if err := json.Unmarshal(b, &page); err != nil {
		return nil, badJSON(err)
	}
	if page.Metadata.ResourceVersion == "" {
		return nil, fail(ReasonDecode, errors.New("got no resourceVersion; want a list"))
	}
	return &page, nil
}

// kubeEvent is one of a watch.
type kubeEvent struct {
	Type   string
	Object json.RawMessage
}

// watch follows changes from the version on and returns how many events there were. An end of the stream, wherever it is, is
// no error: what is whole was taken, and the version says how far that goes.
func (r *resource[T, P]) watch(parent context.Context) (events int, err error) {
	ctx, cancel := context.WithTimeout(parent, r.k.wait+kubeAnswer)
	defer cancel()
	body, err := r.get(ctx, url.Values{"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {r.version},
		"timeoutSeconds": {strconv.Itoa(int(r.k.wait.Seconds()))}})
	if err != nil {
		return 0, causeOf(ctx, err)
	}
	defer body.Close()
	limited := &io.LimitedReader{R: body}
	dec := json.NewDecoder(limited)
	for ; ; events++ {
		limited.N = r.k.access.most
		var e kubeEvent
		if err := dec.Decode(&e); err != nil {
			var syntax *json.SyntaxError
			var kind *json.UnmarshalTypeError
			switch {
			case limited.N <= 0:
				return events, tooLarge(r.k.access.most)
			case errors.As(err, &syntax), errors.As(err, &kind):
				return events, badJSON(err)
			}
			return events, nil
		}
		if err := r.event(e); err != nil {
			return events, err
		}
	}
}

// event takes one change.
func (r *resource[T, P]) event(e kubeEvent) error {
	if e.Type == "ERROR" {
		return kubeError(e.Object)
	}
	o, err := decodeObject[T](e.Object)
	if err != nil {
		return err
	}
	meta := P(o.object).meta()
	if meta.ResourceVersion == "" {
		return fail(ReasonDecode, fmt.Errorf("event %s without a resourceVersion", quote(e.Type)))
	}
	switch e.Type {
	case "BOOKMARK":
		r.version = meta.ResourceVersion
		return nil
	case "ADDED", "MODIFIED":
		err = r.put(meta.key(), o)
	case "DELETED":
		err = r.put(meta.key(), kept[T]{})
	default:
		err = fail(ReasonDecode, fmt.Errorf("got the event %s; want ADDED, MODIFIED, DELETED, BOOKMARK or ERROR", quote(e.Type)))
	}
	if err != nil {
		return err
	}
	r.version = meta.ResourceVersion
	r.changed()
	return nil
}

// put has an object in place of the one of its name, or none.
func (r *resource[T, P]) put(key string, o kept[T]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += o.bytes - r.objects[key].bytes
	if o.object == nil {
		delete(r.objects, key)
		return nil
	}
	r.objects[key] = o
	if most := r.most(); r.bytes > most {
		return tooLarge(most)
	}
	return nil
}

// get asks for the resource and returns the body of status 200.
func (r *resource[T, P]) get(ctx context.Context, query url.Values) (io.ReadCloser, error) {
	w, err := r.k.access.web(ctx)
	if err != nil {
		return nil, err
	}
	req, err := w.request(ctx)
	if err != nil {
		return nil, err
	}
	base := *w.url
	base.Path = "/" + strings.TrimPrefix(base.Path, "/")
	req.URL = base.JoinPath(r.path)
	for key, values := range r.query {
		query[key] = values
	}
	req.URL.RawQuery = query.Encode()
	req.Header.Set("Accept", "application/json")
	res, err := w.do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	res.Body.Close()
	switch res.StatusCode {
	case http.StatusGone:
		return nil, errGone
	case http.StatusUnauthorized:
		r.k.access.forget()
		return nil, fail(ReasonStatus, errors.New("status 401: the server does not take these credentials"))
	case http.StatusForbidden:
		return nil, fail(ReasonStatus, errors.New("status 403; want the right to list and watch them"))
	}
	return nil, badStatus(res.StatusCode)
}

func (m *kubeMeta) key() string { return m.Namespace + "/" + m.Name }

// decodeObject reads what we keep of an object, which is far less than the server has to say.
func decodeObject[T any](b []byte) (kept[T], error) {
	o := new(T)
	if err := json.Unmarshal(b, o); err != nil {
		return kept[T]{}, badJSON(err)
	}
	ours, err := json.Marshal(o)
	return kept[T]{o, int64(len(ours))}, err
}

// kubeError reads the Status of an event ERROR.
func kubeError(b []byte) error {
	var status struct {
		Code   int
		Reason string
	}
	if err := unmarshal(b, &status); err != nil {
		return err
	}
	if status.Code == http.StatusGone {
		return errGone
	}
	return fail(ReasonStatus, fmt.Errorf("the server ends it: status %d, %s", status.Code, quote(status.Reason)))
}

// causeOf prefers why ctx is done to what came of it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
