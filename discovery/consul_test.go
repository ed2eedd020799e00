package discovery

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// catalog is an HTTP server with Consul's blocking queries, as its documentation has them.
type catalog struct {
	mu      sync.Mutex
	index   uint64
	body    string
	status  int
	changed chan struct{}
	asked   []url.Values
	token   string
	path    string
}

func (c *catalog) set(index uint64, status int, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.status, c.body = index, status, body
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *catalog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	index, _ := strconv.ParseUint(q.Get("index"), 10, 64)
	wait, _ := time.ParseDuration(q.Get("wait"))
	c.mu.Lock()
	c.asked = append(c.asked, q)
	c.token, c.path = r.Header.Get("X-Consul-Token"), r.URL.EscapedPath()
	if changed := c.changed; index > 0 && index == c.index && c.status == 200 {
		c.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(wait):
		case <-r.Context().Done():
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	w.Header().Set("X-Consul-Index", strconv.FormatUint(c.index, 10))
	w.WriteHeader(c.status)
	_, _ = w.Write([]byte(c.body))
}

func instance(ip string) string {
	return `{"Node":{"Node":"n","Address":"` + ip + `","Datacenter":"dc1"},"Service":{"Service":"web","Address":"","Port":80},"Checks":[{"Status":"passing"}]}`
}

func TestConsulInstances(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		list, err := decodeConsul([]byte(in))
		if got := show(list); err != nil || got != want {
			t.Errorf("got %s %v; want %s", got, err, want)
		}
	}
	f(`[]`, "")
	f("["+instance("10.0.0.1")+"]", "10.0.0.1:80 1/0/0 dc1")
	f(`[{"Node":{"Address":"10.0.0.1","Datacenter":"dc1"},"Service":{"Address":"fd00::1","Port":81,"Tags":["a","sni=www.test"],
		"Meta":{"rack":"7","bad":"a\nb"},"Weights":{"Passing":5,"Warning":2},"Locality":{"Region":"eu","Zone":"eu-1"}},
		"Checks":[{"Status":"passing"},{"Status":"passing"}]}]`, "[fd00::1]:81 5/0/0 www.test eu-1 rack=7")
	f(`[{"Node":{"Address":"10.0.0.1"},"Service":{"Port":81,"Weights":{"Passing":65535,"Warning":2}},"Checks":[{"Status":"warning"}]},
		{"Node":{"Address":"10.0.0.2"},"Service":{"Port":81,"Weights":{"Passing":65535,"Warning":2}}},
		{"Node":{"Address":"10.0.0.3"},"Service":{"Port":81},"Checks":[{"Status":"passing"},{"Status":"critical"}]}]`, "10.0.0.1:81 2/0/0, 10.0.0.2:81 1000/0/0")
	for in, want := range map[string]string{
		`null`: "got null", `[null]`: "got null", `{}`: "cannot unmarshal", ``: "unexpected end", `[{}]`: "host: got",
		`[{"Node":{"Address":"10.0.0.1"},"Service":{"Port":0}}]`:                          "port: got",
		`[{"Node":{"Address":"web.internal"},"Service":{"Port":1}}]`:                      "want an IP address",
		`[{"Node":{"Address":"10.0.0.1"},"Service":{"Port":1,"Weights":{"Passing":-1}}}]`: "weight: got -1",
	} {
		if list, err := decodeConsul([]byte(in)); err == nil || !strings.Contains(err.Error(), want) || len(list.Backends) > 0 {
			t.Errorf("%s: got %v; want %s", in, err, want)
		}
	}
}

func TestConsul(t *testing.T) {
	lbtest.CheckLeaks(t)
	c := &catalog{index: 7, status: 200, body: "[" + instance("10.0.0.1") + "]", changed: make(chan struct{})}
	sv := serveHTTP(t, c.ServeHTTP)
	s, err := NewConsul(ConsulOptions{URL: sv.URL, Service: "we b", Tags: []string{"a", "b"}, Datacenter: "dc1", Token: Secret{Value: "s3cret"}, Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, s, "10.0.0.1:80 1/0/0 dc1")
	if got := c.asked[0].Encode(); got != "dc=dc1&passing=1&tag=a&tag=b" || c.token != "s3cret" || c.path != "/v1/health/service/we%20b" {
		t.Errorf("asked %s with %s of %s", got, c.token, c.path)
	}

	lists := make(chan List, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	watch := func() { go func() { ended <- s.Watch(ctx, func(l List) { lists <- l }) }() }
	next := func(want string) {
		t.Helper()
		select {
		case l := <-lists:
			if got := show(l); got != want {
				t.Errorf("got %s; want %s", got, want)
			}
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing; want %s", want)
		}
	}
	watch()
	next("10.0.0.1:80 1/0/0 dc1")
	c.set(8, 200, "["+instance("10.0.0.1")+","+instance("10.0.0.2")+"]")
	next("10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 1/0/0 dc1")
	next("10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 1/0/0 dc1") // Wait is over: alive, nothing new
	c.set(3, 200, "["+instance("10.0.0.2")+"]")          // an index that goes back
	next("10.0.0.2:80 1/0/0 dc1")
	next("10.0.0.2:80 1/0/0 dc1")
	c.mu.Lock()
	if last := c.asked[len(c.asked)-1]; last.Has("index") && last.Get("index") != "3" {
		t.Errorf("asked with %s after the index went back", last.Get("index"))
	}
	c.mu.Unlock()

	// What ends it. One that begins anew does so when the next answer is there: else the last one ends it again.
	for i, e := range []struct {
		index        uint64
		status       int
		body         string
		reason, want string
	}{
		{9, 500, "No cluster leader", ReasonStatus, "status 500; want 200 (No cluster leader)"},
		{9, 403, "token s3cret", ReasonStatus, "status 403"},
		{0, 200, "[]", ReasonDecode, "X-Consul-Index"},
		{9, 200, "[", ReasonDecode, "unexpected end"},
	} {
		if c.set(e.index, e.status, e.body); i > 0 {
			watch()
		}
		for done := false; !done; {
			select {
			case <-lists:
			case err := <-ended:
				done = true
				if ReasonOf(err) != e.reason || !strings.Contains(err.Error(), e.want) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("got %v (%s); want %s: %s", err, ReasonOf(err), e.reason, e.want)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("goes on after %s", e.want)
			}
		}
	}
	c.set(10, 200, "[]")
	watch()
	cancel()
	<-ended
}

// TestConsulInRunner is the two together: a service that is gone is held back, a server that is gone changes nothing.
func TestConsulInRunner(t *testing.T) {
	lbtest.CheckLeaks(t)
	c := &catalog{index: 7, status: 200, body: "[" + instance("10.0.0.1") + "," + instance("10.0.0.2") + "]", changed: make(chan struct{})}
	sv := serveHTTP(t, c.ServeHTTP)
	s, err := NewConsul(ConsulOptions{URL: sv.URL, Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	set := Defaults()
	set.Debounce, set.RetryMin = 0, time.Millisecond
	r, err := New("web", []Source{s}, set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reports, done := make(chan []Backend, 100), make(chan struct{})
	go func() { r.Run(ctx, func(l []Backend) { reports <- l }); close(done) }()
	if l := <-reports; len(l) != 2 {
		t.Error(l)
	}
	state := func(want State) {
		t.Helper()
		lbtest.Eventually(t, want.String(), func() bool { return r.Status().Sources[0].State == want })
	}
	c.set(8, 200, "[]")
	state(Holding)
	c.set(9, 500, "")
	state(Failing)
	c.set(10, 200, "["+instance("10.0.0.3")+"]")
	if l := <-reports; len(l) != 1 || l[0].Address.String() != "10.0.0.3:80" {
		t.Error(l)
	}
	cancel()
	<-done
}

func TestConsulOptionsAreChecked(t *testing.T) {
	for _, o := range []ConsulOptions{{}, {URL: "http://127.0.0.1"}, {Service: "a"}, {URL: "http://127.0.0.1?dc=a", Service: "a"}, {URL: "http://127.0.0.1", Service: "a", Wait: time.Millisecond}} {
		if _, err := NewConsul(o); err == nil || !strings.HasPrefix(err.Error(), "consul: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	a, err := NewConsul(ConsulOptions{URL: "http://127.0.0.1:8500", Service: "a"})
	if err != nil || a.String() != "consul:http://127.0.0.1:8500/a" {
		t.Error(a, err)
	}
}

func FuzzConsul(f *testing.F) {
	f.Add([]byte("[" + instance("10.0.0.1") + "]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeConsul(b)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Error("read what is no JSON")
		}
		for i := range list.Backends {
			if err := list.Backends[i].Check(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestConsulIndexAlwaysBack: a server whose index goes back with each answer, however odd, is heard all the same, at the pace
// that is kept with all.
func TestConsulIndexAlwaysBack(t *testing.T) {
	lbtest.CheckLeaks(t)
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", strconv.FormatInt(1000-asked.Add(1), 10))
		_, _ = io.WriteString(w, "[]")
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun, reports := time.Now(), 0
	err := newTestConsul(t, server.URL).Watch(ctx, func(List) {
		if reports++; reports == 4 {
			cancel()
		}
	})
	if took, n := time.Since(begun), asked.Load(); reports != 4 || n != 7 || took < 6*consulPause {
		t.Errorf("%d queries and %d reports in %v, %v; want 7 and 4 in %v or more", n, reports, took, err, 6*consulPause)
	}
}
