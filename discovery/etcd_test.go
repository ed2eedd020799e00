package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// etcdServer replays etcd as it was recorded: two keys, and a watch that sees one come, one change and one go, and is cut.
func etcdServer(t *testing.T) *replay {
	p := &replay{}
	p.set("/v3/auth/authenticate", answer{bytes: recording(t, "etcd/token.http")})
	p.set("/v3/kv/range", answer{bytes: recording(t, "etcd/range.http")})
	p.set("/v3/watch", answer{bytes: recording(t, "etcd/watch.http")})
	return p
}

func newTestEtcd(t *testing.T, user string, endpoints ...string) *etcd {
	t.Helper()
	o := EtcdOptions{Endpoints: endpoints, Prefix: "/backends/web/", User: user}
	if user != "" {
		o.Password = Secret{Value: "s3cret"}
	}
	e, err := newEtcd(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const (
	etcdFirst  = "10.0.0.1:80 1/0/0, 10.0.0.2:80 4/0/0"
	etcdSecond = "10.0.0.1:80 1/0/0, 10.0.0.2:80 4/0/0, 10.0.0.3:80 1/0/0"
	etcdThird  = "10.0.0.1:80 1/0/0, 10.0.0.2:80 9/0/0, 10.0.0.3:80 1/0/0"
	etcdLast   = "10.0.0.2:80 9/0/0, 10.0.0.3:80 1/0/0"
)

var etcdLists = []string{etcdFirst, etcdSecond, etcdThird, etcdLast}

func TestEtcd(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := etcdServer(t)
	e := newTestEtcd(t, "lb", p.tcp(t))
	fetch(t, e, etcdFirst)
	lists, err := watched(t, e, 10*time.Second)
	if !slices.Equal(lists, etcdLists) {
		t.Errorf("got %q", lists)
	}
	wantEnd(t, err, ReasonOther, "the stream was cut")

	asked := p.requests("/v3/watch")[0]
	var q struct {
		Create struct {
			Key  []byte
			End  []byte `json:"range_end"`
			From string `json:"start_revision"`
		} `json:"create_request"`
	}
	if err := json.Unmarshal([]byte(asked.body), &q); err != nil || string(q.Create.Key) != "/backends/web/" || string(q.Create.End) != "/backends/web0" || q.Create.From != "4" {
		t.Errorf("asked %s: %v", asked.body, err)
	}
	if asked.header.Get("Grpc-Metadata-Hasleader") != "true" || asked.header.Get("Authorization") == "" {
		t.Errorf("asked with %v", asked.header)
	}
	if n := len(p.requests("/v3/auth/authenticate")); n != 1 {
		t.Errorf("signed in %d times", n)
	}
	if s := fmt.Sprintf("%s %+v", e, e.o); strings.Contains(s, "s3cret") {
		t.Errorf("%s has the password", s)
	}
}

// TestEtcdCutAnywhere: wherever a stream ends, what was reported is what had been said before.
func TestEtcdCutAnywhere(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := etcdServer(t)
	e := newTestEtcd(t, "", p.tcp(t))
	whole := recording(t, "etcd/watch.http")
	for n := 0; n < len(whole); n += 9 {
		p.set("/v3/watch", answer{bytes: whole[:n]})
		lists, err := watched(t, e, 10*time.Second)
		if err == nil || len(lists) == 0 || len(lists) > 4 || !slices.Equal(lists, etcdLists[:len(lists)]) {
			t.Fatalf("cut at %d: %q %v", n, lists, err)
		}
	}
	whole = recording(t, "etcd/range.http")
	for n := 0; n < len(whole)-1; n += 9 {
		p.set("/v3/kv/range", answer{bytes: whole[:n]})
		if lists, err := watched(t, e, 10*time.Second); err == nil || len(lists) > 0 {
			t.Fatalf("cut at %d: %q %v", n, lists, err)
		}
	}
}

func TestEtcdBadMoments(t *testing.T) {
	lbtest.CheckLeaks(t)
	say := func(name string) answer { return answer{bytes: recording(t, "etcd/"+name+".http")} }
	for _, c := range []struct {
		name, user   string
		path         string
		say          []answer
		lists        []string
		reason, want string
		ranges       int // requests
	}{
		{"a token that has expired", "lb", "/v3/kv/range", []answer{say("expired"), say("range")}, etcdLists, ReasonOther, "cut", 2},
		{"tokens that never work", "lb", "/v3/kv/range", []answer{say("expired")}, nil, ReasonStatus, "status 401; want 200 (invalid auth token)", 2},
		{"a token that expires before the watch", "lb", "/v3/watch", []answer{say("expired"), say("watch")}, etcdLists, ReasonOther, "cut", 1},
		{"no user", "", "/v3/kv/range", []answer{say("nouser")}, nil, ReasonStatus, "status 400; want 200 (user name is empty)", 1},
		{"a user who may not", "lb", "/v3/kv/range", []answer{say("denied")}, nil, ReasonStatus, "status 403; want 200 (permission denied)", 1},
		{"a wrong password", "lb", "/v3/auth/authenticate", []answer{say("wrongpassword")}, nil, ReasonStatus, "signing in: status 400; want 200 (authentication failed)", 0},
		{"no leader", "", "/v3/kv/range", []answer{say("noleader-range")}, nil, ReasonStatus, "status 503; want 200 (request timed out)", 1},
		{"no leader any more", "", "/v3/watch", []answer{say("noleader-watch")}, []string{etcdFirst}, ReasonStatus, "status 503; want 200 (no leader)", 1},
		{"compacted", "", "/v3/watch", []answer{say("compacted"), say("watch")}, etcdLists, ReasonOther, "cut", 2},
		{"garbage", "", "/v3/watch", []answer{ok(`{"result":{}} garbage`)}, []string{etcdFirst}, ReasonDecode, "invalid character", 1},
		{"another shape", "", "/v3/watch", []answer{ok(`[]`)}, []string{etcdFirst}, ReasonDecode, "cannot unmarshal", 1},
		{"nothing in it", "", "/v3/watch", []answer{ok(`{}`)}, []string{etcdFirst}, ReasonDecode, "neither result nor error", 1},
		{"cancelled", "", "/v3/watch", []answer{ok(`{"result":{"canceled":true,"cancel_reason":"why"}}`)}, []string{etcdFirst}, ReasonStatus, `cancelled: "why"`, 1},
		{"an unknown event", "", "/v3/watch", []answer{ok(`{"result":{"events":[{"type":"RENAME","kv":{"key":"YQ=="}}]}}`)}, []string{etcdFirst}, ReasonDecode, `"RENAME"`, 1},
		{"a value that is none", "", "/v3/watch", []answer{ok(`{"result":{"events":[{"kv":{"key":"YQ==","value":"bm9uZQ==","mod_revision":"9"}}]}}`)}, []string{etcdFirst}, ReasonDecode, `key "a": text: line 1`, 1},
		{"no revision", "", "/v3/kv/range", []answer{ok(`{"kvs":[]}`)}, nil, ReasonDecode, "without a revision", 1},
		{"pages without end", "", "/v3/kv/range", []answer{ok(`{"header":{"revision":"3"},"more":true}`)}, nil, ReasonDecode, "page without keys", 1},
		{"an endless message", "", "/v3/watch", []answer{ok(`{"result":{"x":"` + strings.Repeat("a", 10<<20) + `"}}`)}, []string{etcdFirst}, ReasonTooLarge, "more than", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := etcdServer(t)
			p.set(c.path, c.say...)
			e := newTestEtcd(t, c.user, p.tcp(t))
			lists, err := watched(t, e, 10*time.Second)
			if !slices.Equal(lists, c.lists) {
				t.Errorf("got %q; want %q", lists, c.lists)
			}
			wantEnd(t, err, c.reason, c.want)
			if n := len(p.requests("/v3/kv/range")); n != c.ranges {
				t.Errorf("%d ranges; want %d", n, c.ranges)
			}
		})
	}
}

// TestEtcdEndpoints: one that does not answer, or stops to, is left for the next, and only when all fail it is told.
func TestEtcdEndpoints(t *testing.T) {
	lbtest.CheckLeaks(t)
	good, lost := etcdServer(t), etcdServer(t)
	lost.set("/v3/watch", answer{bytes: recording(t, "etcd/noleader-watch.http")})
	e := newTestEtcd(t, "", "http://"+lbtest.Refused(t), lost.tcp(t), good.tcp(t))
	lists, err := watched(t, e, 10*time.Second)
	if !slices.Equal(lists, etcdLists) {
		t.Errorf("got %q", lists)
	}
	wantEnd(t, err, ReasonOther, "the stream was cut")
	fetch(t, e, etcdFirst)
}

// TestEtcdDeadStream: a watch that says nothing is not trusted for ever, and one that does not even begin, or a range that
// is never answered, is an error.
func TestEtcdDeadStream(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := etcdServer(t)
	head, _, _ := bytes.Cut(recording(t, "etcd/watch.http"), []byte("10.0"))
	p.set("/v3/watch", answer{bytes: head[:bytes.Index(head, []byte("109"))], hold: true})
	e := newTestEtcd(t, "", p.tcp(t))
	e.resync = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	err := e.Watch(ctx, func(List) {
		if n++; n == 4 {
			cancel()
		}
	})
	if n != 4 || ctx.Err() == nil || len(p.requests("/v3/kv/range")) < 4 {
		t.Errorf("%d lists of %d ranges: %v", n, len(p.requests("/v3/kv/range")), err)
	}
	e.resync, e.patience = time.Minute, 300*time.Millisecond
	p.set("/v3/watch", answer{hold: true})
	_, err = watched(t, e, 10*time.Second)
	wantEnd(t, err, ReasonTimeout, "no answer within 300ms")
	p.set("/v3/kv/range", answer{hold: true})
	_, err = watched(t, e, 10*time.Second)
	wantEnd(t, err, ReasonTimeout, "no answer within 300ms")
}

func TestEtcdSlowly(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := etcdServer(t)
	p.set("/v3/kv/range", answer{bytes: recording(t, "etcd/range.http"), slow: true})
	p.set("/v3/watch", answer{bytes: recording(t, "etcd/watch.http"), slow: true})
	lists, err := watched(t, newTestEtcd(t, "", p.tcp(t)), 20*time.Second)
	if !slices.Equal(lists, etcdLists) {
		t.Errorf("got %q %v", lists, err)
	}
}

func TestEtcdPages(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := etcdServer(t)
	page := func(more bool, key, value string) answer {
		return ok(etcdPageOf(more, key, value))
	}
	p.set("/v3/kv/range", page(true, "/backends/web/1", "10.0.0.1:80"), page(false, "/backends/web/2", "10.0.0.2:80"))
	fetch(t, newTestEtcd(t, "", p.tcp(t)), "10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0")
	second := p.requests("/v3/kv/range")[1]
	var q struct {
		Key      []byte
		Revision string
	}
	if err := json.Unmarshal([]byte(second.body), &q); err != nil || string(q.Key) != "/backends/web/1\x00" || q.Revision != "7" {
		t.Errorf("asked %s", second.body)
	}
}

func etcdPageOf(more bool, key, value string) string {
	b, _ := json.Marshal(map[string]any{"header": map[string]any{"revision": "7"}, "more": more,
		"kvs": []any{map[string]any{"key": []byte(key), "value": []byte(value), "mod_revision": 3}}})
	return string(b)
}

// TestEtcdValues is what a value may be.
func TestEtcdValues(t *testing.T) {
	f := func(d Decoding, key, value, want string) {
		t.Helper()
		dec, err := newDecoder(d)
		if err != nil {
			t.Fatal(err)
		}
		dec.single = true
		s := &etcdState{dec: dec, most: 1 << 20}
		if err := s.put(etcdKV{Key: []byte(key), Value: []byte(value), ModRevision: 1}); err != nil {
			t.Fatal(err)
		}
		list, err := s.list()
		got := show(list)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s=%s: got %s; want %s", key, value, got, want)
		}
	}
	f(Decoding{}, "/w/1", "10.0.0.1:80 weight=2 zone=a", "10.0.0.1:80 2/0/0 a")
	f(Decoding{}, "/w/1", " {\"address\":\"10.0.0.1:80\",\"weight\":2}\n", "10.0.0.1:80 2/0/0")
	f(Decoding{}, "/w/1", `{"host":"10.0.0.1","port":80}`, "10.0.0.1:80 1/0/0")
	f(Decoding{}, "/w/1", `["10.0.0.1:80","10.0.0.2:80"]`, "10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0")
	f(Decoding{}, "/w/1", `{"backends":[{"address":"10.0.0.1:80"}]}`, "10.0.0.1:80 1/0/0")
	f(Decoding{}, "/w/1", "10.0.0.1:80\n10.0.0.2:80\n", "10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0")
	f(Decoding{}, "/w/[fd00::1]:80", "", "[fd00::1]:80 1/0/0")
	f(Decoding{}, "/w/1", "", `key "/w/1": text: line 1`)
	f(Decoding{}, "/w/1", `{"weight":2}`, `key "/w/1": json: element 0: host: got nothing`)
	f(Decoding{Lenient: true}, "/w/1", `nonsense`, "skipped 1: ")
	f(Decoding{Paths: Paths{Address: "at"}}, "/w/1", `{"at":"10.0.0.1:80"}`, "10.0.0.1:80 1/0/0")
}

// TestEtcdEvents is what changes do to what is known.
func TestEtcdEvents(t *testing.T) {
	dec, _ := newDecoder(Decoding{})
	s := &etcdState{dec: dec, most: 60}
	put := func(key, value string, rev int) error {
		return s.put(etcdKV{Key: []byte(key), Value: []byte(value), ModRevision: number(rev)})
	}
	want := func(want string) {
		t.Helper()
		if list, err := s.list(); err != nil || show(list) != want {
			t.Errorf("got %s %v; want %s", show(list), err, want)
		}
	}
	for _, err := range []error{put("b", "10.0.0.2:80", 5), put("a", "10.0.0.1:80", 4), put("a", "10.0.0.9:80", 3)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want("10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0") // what is older does not count
	s.remove(etcdKV{Key: []byte("a"), ModRevision: 2})
	s.remove(etcdKV{Key: []byte("x"), ModRevision: 9})
	want("10.0.0.1:80 1/0/0, 10.0.0.2:80 1/0/0")
	s.remove(etcdKV{Key: []byte("a"), ModRevision: 6})
	want("10.0.0.2:80 1/0/0")
	for i := range 100 { // what goes makes room
		if err := put("c", "10.0.0.3:80 weight="+fmt.Sprint(i), 7+i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("d", strings.Repeat(" ", 60), 200); ReasonOf(err) != ReasonTooLarge {
		t.Error(err)
	}
}

func TestEtcdOptionsAreChecked(t *testing.T) {
	at := []string{"http://127.0.0.1:2379"}
	for _, o := range []EtcdOptions{
		{}, {Endpoints: at}, {Prefix: "/a"}, {Endpoints: []string{"127.0.0.1:2379"}, Prefix: "/a"}, {Endpoints: make([]string, 17), Prefix: "/a"},
		{Endpoints: at, Prefix: "/a", User: "u"}, {Endpoints: at, Prefix: "/a", Password: Secret{Value: "s3cret"}}, {Endpoints: at, Prefix: "/a", Resync: 1},
		{Endpoints: at, Prefix: "/a", MaxBytes: -1}, {Endpoints: []string{"unix:///a"}, Prefix: "/a"}, {Endpoints: []string{"http://u:s3cret@h:1"}, Prefix: "/a"},
		{Endpoints: at, Prefix: "/a", Decoding: Decoding{Line: "("}},
	} {
		if _, err := NewEtcd(o); err == nil || !strings.HasPrefix(err.Error(), "etcd: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	e, err := NewEtcd(EtcdOptions{Endpoints: []string{"http://10.0.0.1:2379", "https://10.0.0.2:2379"}, Prefix: "/a/", User: "u", Password: Secret{Value: "s3cret"}})
	if err != nil || e.String() != "etcd:http://10.0.0.1:2379,https://10.0.0.2:2379 /a/" {
		t.Error(e, err)
	}
	for in, want := range map[string]string{"/a/": "/a0", "a\xff": "b", "\xff\xff": "\x00"} {
		if got := string(prefixEnd(in)); got != want {
			t.Errorf("%q: got %q; want %q", in, got, want)
		}
	}
}

// FuzzEtcd reads any bytes as an answer, and any as a stream.
func FuzzEtcd(f *testing.F) {
	f.Add(body(f, "etcd/range.http"), []byte(`{"result":{"events":[{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"9"}}]}}{"error":{"http_code":503,"message":"no leader"}}`))
	f.Add([]byte(etcdPageOf(false, "a", `{"address":"10.0.0.1:80"}`)), []byte(`{"result":{"canceled":true,"compact_revision":7}}`))
	dec, err := newDecoder(Decoding{Lenient: true})
	if err != nil {
		f.Fatal(err)
	}
	dec.single = true
	f.Fuzz(func(t *testing.T, answer, stream []byte) {
		s := &etcdState{dec: dec, most: 1 << 10}
		check := func() {
			list, err := s.list()
			if err != nil {
				t.Fatal(err)
			}
			for i := range list.Backends {
				if err := list.Backends[i].Check(); err != nil {
					t.Error(err)
				}
			}
			if s.bytes < 0 || s.bytes > s.most {
				t.Errorf("%d bytes", s.bytes)
			}
		}
		if a, err := decodeRange(answer); err == nil {
			for _, kv := range a.Kvs {
				if s.put(kv) != nil {
					return
				}
			}
			check()
		}
		for in := newMessages(bytes.NewReader(stream), 1<<12); ; check() {
			var m etcdMessage
			if in.next(&m) != nil {
				break
			}
			if _, err := s.apply(&m); err != nil {
				break
			}
		}
		if token, err := decodeToken(answer); err == nil && strings.ContainsAny(token, "\r\n") {
			t.Errorf("token %q", token)
		}
	})
}
