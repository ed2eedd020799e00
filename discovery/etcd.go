package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// EtcdOptions say under which keys of etcd (3.4 or newer) backends are.
type EtcdOptions struct {
	Endpoints []string // http:// or https://, host and port, 1 to 16; one after the other is tried
	Prefix    string   // of the keys, such as /backends/web/
	User      string   // with Password
	Password  Secret
	TLS       HTTPTLS        // a client certificate opens the door, and does not make a user: etcd does not take it for one here
	Allow     []netip.Prefix // as in HTTPOptions; this machine is allowed
	Decoding                 // of each value. Auto: JSON if it begins with { or [, otherwise Text

	Resync   time.Duration // how long a watch is trusted before the keys are read anew, 1s to 1h; 0 = 30 s
	MaxBytes int64         // of all keys and values under Prefix; 0 = 4 MiB
}

// etcd reads the keys under a prefix and follows their changes, by the JSON of etcd's gateway (decision 0048).
//
//	┌─▶ range at revision R ─▶ report ─▶ watch from R+1 ──── resync over, or compacted ──┐
//	│                            ▲         │ events: apply                               │
//	│                            └─────────┘                                             │
//	└────────────────────────────────────────────────────────────────────────────────────┘
//
// A range goes through the leader (it is linearizable): a member that has lost it cannot answer, and one that lags behind
// catches up first. So no list is older than one before it, whichever endpoint it comes from.
type etcd struct {
	// Set once.
	o        EtcdOptions
	apis     []*web
	dec      *decoder
	most     int64
	resync   time.Duration
	patience time.Duration // for a whole range, and for a watch to open

	// Owned by the goroutine that calls Fetch or Watch.
	at    int    // the endpoint that is asked
	token string // of User; "" = none yet
}

const (
	maxEndpoints = 16
	etcdPage     = 1000     // keys of one answer
	maxSmall     = 64 << 10 // bytes of a token or a refusal
)

// NewEtcd returns a source that follows the keys under a prefix. Each value is a list of its own, usually of one backend:
// a line of the text grammar, or JSON, which may be the object of one backend. A value that is empty means that the key's
// last part is the address. Where two values have the same address, that of the first key counts.
func NewEtcd(o EtcdOptions) (Watcher, error) {
	e, err := newEtcd(o)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return e, nil
}

func newEtcd(o EtcdOptions) (*etcd, error) {
	switch {
	case len(o.Endpoints) == 0 || len(o.Endpoints) > maxEndpoints:
		return nil, fmt.Errorf("endpoints: got %d; want 1 to %d", len(o.Endpoints), maxEndpoints)
	case o.Prefix == "" || checkText("", o.Prefix) != nil:
		return nil, fmt.Errorf("prefix: got %s; want one such as /backends/web/", quote(o.Prefix))
	case (o.User != "") != o.Password.set():
		return nil, errors.New("want user and password, or neither")
	}
	e := &etcd{o: o, patience: askTimeout}
	for _, at := range o.Endpoints {
		if strings.HasPrefix(at, "unix:") {
			return nil, fmt.Errorf("endpoint %s: want http or https", quote(at))
		}
		api, err := newAPI(at, o.TLS, o.Allow, o.MaxBytes)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", quote(redactText(at)), err)
		}
		e.apis = append(e.apis, api)
	}
	var err error
	if e.dec, err = newDecoder(o.Decoding); err != nil {
		return nil, err
	}
	e.dec.single = true
	if e.most, err = maxBytes(o.MaxBytes); err != nil {
		return nil, err
	}
	// A key, its value and their base64, and what stands around them.
	for _, api := range e.apis {
		api.most = 2*e.most + maxMessage
	}
	e.resync, err = checkResync(o.Resync)
	return e, err
}

func (e *etcd) String() string {
	var at []string
	for _, api := range e.apis {
		at = append(at, api.name)
	}
	return "etcd:" + strings.Join(at, ",") + " " + e.o.Prefix
}

// Fetch reads the keys from the first endpoint that answers.
func (e *etcd) Fetch(ctx context.Context) (list List, err error) {
	defer e.forget()
	for range e.apis {
		s := &etcdState{dec: e.dec, most: e.most}
		if err = e.load(ctx, s); err == nil {
			list, err = s.list()
		}
		if err == nil || ctx.Err() != nil || ReasonOf(err) == ReasonDecode {
			break
		}
		err = e.next(err)
	}
	return list, err
}

// Watch reports the keys at first, after each change and every resync. An endpoint that fails is left for the next; once
// each has failed since a watch last lived for resync, Watch ends.
func (e *etcd) Watch(ctx context.Context, report func(List)) error {
	defer e.forget()
	for failed := 0; ; {
		switch err := e.stretch(ctx, report); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failed = 0
		case errors.Is(err, errCompacted):
		default:
			err = e.next(err)
			if failed++; failed >= len(e.apis) || ReasonOf(err) == ReasonDecode {
				return err
			}
		}
		if err := pause(ctx, askPause); err != nil {
			return err
		}
	}
}

// next names the endpoint that failed, and goes on to the one behind it.
func (e *etcd) next(err error) error {
	err = fmt.Errorf("etcd:%s: %w", e.apis[e.at].name, err)
	e.at = (e.at + 1) % len(e.apis)
	return err
}

func (e *etcd) forget() {
	for _, api := range e.apis {
		api.forget()
	}
}

// errCompacted is the end of a watch whose next revision is no longer kept: everything has to be read anew.
var errCompacted = errors.New("compacted")

// stretch reads everything and follows its changes for resync.
func (e *etcd) stretch(parent context.Context, report func(List)) error {
	s := &etcdState{dec: e.dec, most: e.most}
	if err := e.within(parent, func(ctx context.Context) error { return e.load(ctx, s) }); err != nil {
		return err
	}
	list, err := s.list()
	if err != nil {
		return err
	}
	report(list)

	ctx, cancel := context.WithTimeout(parent, e.resync)
	defer cancel()
	err = e.follow(ctx, s, report)
	if ctx.Err() != nil && parent.Err() == nil {
		return nil
	}
	return err
}

// within gives a request as long as there is patience for.
func (e *etcd) within(parent context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(parent, e.patience)
	defer cancel()
	err := ask(ctx)
	if err != nil && ctx.Err() != nil && parent.Err() == nil {
		return noAnswer(e.patience)
	}
	return err
}

// load reads all keys, page by page at one revision.
func (e *etcd) load(ctx context.Context, s *etcdState) error {
	end := prefixEnd(e.o.Prefix)
	for from := []byte(e.o.Prefix); ; {
		body := map[string]any{"key": from, "range_end": end, "limit": etcdPage, "revision": strconv.FormatInt(s.revision, 10)}
		b, err := e.post(ctx, "/v3/kv/range", body)
		if err != nil {
			return err
		}
		a, err := decodeRange(b)
		if err != nil {
			return err
		}
		if s.revision == 0 {
			s.revision = int64(a.Header.Revision)
		}
		for _, kv := range a.Kvs {
			if err := s.put(kv); err != nil {
				return err
			}
		}
		if !a.More {
			return nil
		}
		if len(a.Kvs) == 0 {
			return fail(ReasonDecode, errors.New("got a page without keys that says there are more"))
		}
		from = append([]byte(a.Kvs[len(a.Kvs)-1].Key), 0)
	}
}

// follow applies what a watch says until it ends.
func (e *etcd) follow(ctx context.Context, s *etcdState, report func(List)) error {
	res, err := e.watched(ctx, s.revision+1)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	in := newMessages(res.Body, 2*e.most+maxMessage)
	for {
		var m etcdMessage
		if err := in.next(&m); err != nil {
			return err
		}
		changed, err := s.apply(&m)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		list, err := s.list()
		if err != nil {
			return err
		}
		report(list)
	}
}

// watched opens a watch. A member that has lost its leader is to end it, which etcd does for those who say so.
func (e *etcd) watched(ctx context.Context, from int64) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(e.patience, cancel)
	res, err := e.ask(ctx, "/v3/watch", map[string]any{"create_request": map[string]any{
		"key": []byte(e.o.Prefix), "range_end": prefixEnd(e.o.Prefix), "start_revision": strconv.FormatInt(from, 10),
	}})
	switch {
	case err != nil:
		if !late.Stop() {
			err = noAnswer(e.patience)
		}
		cancel()
		return nil, err
	case !late.Stop():
		res.Body.Close()
		cancel()
		return nil, noAnswer(e.patience)
	}
	res.Body = &endsContext{res.Body, cancel}
	return res, nil
}

// endsContext is a body whose request's context ends with it.
type endsContext struct {
	io.ReadCloser
	cancel func()
}

func (b *endsContext) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// post asks and reads a whole answer.
func (e *etcd) post(ctx context.Context, path string, body any) ([]byte, error) {
	res, err := e.ask(ctx, path, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return readLimited(res.Body, e.apis[e.at].most)
}

// ask asks the endpoint. Without a token, or with one that is not taken any more (they expire, and are forgotten when a
// server starts or rights change), it gets one first, once.
func (e *etcd) ask(ctx context.Context, path string, body any) (*http.Response, error) {
	for again := false; ; again = true {
		if e.o.User != "" && e.token == "" {
			if err := e.login(ctx); err != nil {
				return nil, err
			}
		}
		header := http.Header{"Grpc-Metadata-Hasleader": {"true"}}
		if e.token != "" {
			header.Set("Authorization", e.token)
		}
		res, err := e.apis[e.at].ask(ctx, path, nil, header, body)
		if err != nil || res.StatusCode == http.StatusOK {
			return res, err
		}
		said := etcdRefusal(res)
		if said.expired() && e.token != "" && !again {
			e.token = ""
			continue
		}
		return nil, said.err()
	}
}

// login gets a token for User.
func (e *etcd) login(ctx context.Context) error {
	password, err := e.o.Password.read()
	if err != nil {
		return err
	}
	res, err := e.apis[e.at].ask(ctx, "/v3/auth/authenticate", nil, nil, map[string]string{"name": e.o.User, "password": password})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("signing in: %w", etcdRefusal(res).err())
	}
	defer res.Body.Close()
	b, err := readLimited(res.Body, maxSmall)
	if err != nil {
		return err
	}
	e.token, err = decodeToken(b)
	return err
}

func decodeToken(b []byte) (string, error) {
	var a struct{ Token string }
	if err := unmarshal(b, &a); err != nil {
		return "", fail(ReasonDecode, errors.New("the answer to signing in is not JSON")) // the error could quote the token
	}
	if a.Token == "" || strings.ContainsFunc(a.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fail(ReasonDecode, errors.New("got no token"))
	}
	return a.Token, nil
}

// refusal is an answer that is not status 200.
type refusal struct {
	status  int
	code    int // of gRPC
	message string
}

func etcdRefusal(res *http.Response) refusal {
	defer res.Body.Close()
	b, _ := readLimited(res.Body, maxSmall)
	var a struct {
		Code           int
		Error, Message string
	}
	_ = json.Unmarshal(b, &a)
	return refusal{res.StatusCode, a.Code, a.Error + " " + a.Message}
}

// expired reports whether the token is what is wrong. The texts are those of etcd's api/v3rpc/rpctypes.
func (r refusal) expired() bool {
	return r.status == http.StatusUnauthorized || strings.Contains(r.message, "invalid auth token") || strings.Contains(r.message, "revision of auth store is old")
}

// etcdTexts are what of a refusal may be shown: it helps, and holds no secret.
var etcdTexts = []string{
	"no leader", "request timed out", "leader changed", "invalid auth token", "user name is empty", "authentication failed", "permission denied",
	"authentication is not enabled", "required revision has been compacted", "too many requests", "corrupt",
}

func (r refusal) err() error {
	return withText(badStatus(r.status), r.message, etcdTexts)
}
