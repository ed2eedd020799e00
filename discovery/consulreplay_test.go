package discovery

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// What Consul said while an instance came, one changed and one went, then nothing happened, it was killed and started, and came
// back without its memory, with an index that goes back from 23 to 14.
var consulStream = []struct{ name, want string }{
	{"first", "10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 4/0/0 dc1"},
	{"added", "10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 4/0/0 dc1, 10.0.0.4:80 1/0/0 dc1"},
	{"changed", "10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 9/0/0 dc1, 10.0.0.4:80 1/0/0 dc1"},
	{"removed", "10.0.0.2:80 9/0/0 dc1, 10.0.0.4:80 1/0/0 dc1"},
	{"quiet", "10.0.0.2:80 9/0/0 dc1, 10.0.0.4:80 1/0/0 dc1"},
	{"restarted", "10.0.0.2:80 9/0/0 dc1, 10.0.0.5:80 1/0/0 dc1, 10.0.0.4:80 1/0/0 dc1"},
	{"forgotten", "10.0.0.6:80 1/0/0 dc1"},
}

const consulPath = "/v1/health/service/web"

// indexes returns those that were asked with.
func (p *replay) indexes() []string {
	var all []string
	for _, r := range p.requests(consulPath) {
		all = append(all, r.query.Get("index"))
	}
	return all
}

func consulRecording(t testing.TB, name string) []byte { return recording(t, "consul/"+name+".http") }

func newTestConsul(t *testing.T, url string) *consul {
	t.Helper()
	c, err := newConsul(ConsulOptions{URL: url, Service: "web", Token: Secret{Value: "s3cret"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConsulRecorded: all of it in one Watch, at once and byte by byte, and then the leader is gone.
func TestConsulRecorded(t *testing.T) {
	lbtest.CheckLeaks(t)
	for _, slow := range []bool{false, true} {
		p := &replay{}
		var answers []answer
		var want []string
		for _, s := range consulStream {
			answers = append(answers, answer{bytes: consulRecording(t, s.name), slow: slow})
			want = append(want, s.want)
		}
		// The index of the last went back, so that it is asked for again.
		p.set(consulPath, append(answers, answers[len(answers)-1], answer{bytes: consulRecording(t, "noleader"), slow: slow})...)
		lists, err := watched(t, newTestConsul(t, p.tcp(t)), 30*time.Second)
		if want = slices.Compact(want); !slices.Equal(lists, want) {
			t.Errorf("slow %v: got %q", slow, lists)
		}
		wantEnd(t, err, ReasonStatus, "status 500; want 200 (No cluster leader)")
	}
}

// TestConsulClusterRecorded: the server that leads is killed while another holds the query, which is answered when there is
// something new from who leads next. When nobody can lead, the query is answered with what was there, which confirms nothing:
// what the server says to who asks for the first time ends the stream.
func TestConsulClusterRecorded(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	p.set(consulPath, answer{bytes: consulRecording(t, "cluster-first")}, answer{bytes: consulRecording(t, "cluster-newleader")},
		answer{bytes: consulRecording(t, "cluster-leaderlost")}, answer{bytes: consulRecording(t, "noleader")})
	lists, err := watched(t, newTestConsul(t, p.tcp(t)), 10*time.Second)
	const two = "10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 4/0/0 dc1"
	if want := []string{two, two + ", 10.0.0.3:80 1/0/0 dc1"}; !slices.Equal(lists, want) {
		t.Errorf("got %q", lists)
	}
	wantEnd(t, err, ReasonStatus, "status 500; want 200 (No cluster leader)")
	if got, want := p.indexes(), []string{"", "17", "21", ""}; !slices.Equal(got, want) {
		t.Errorf("asked with the indexes %q; want %q", got, want)
	}
}

// TestConsulQuiet: with a leader, the answer at the end of a quiet query names none either, and the one that is asked for then
// says that all is well.
func TestConsulQuiet(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	p.set(consulPath, answer{bytes: consulRecording(t, "removed")}, answer{bytes: consulRecording(t, "quiet")},
		answer{bytes: consulRecording(t, "first")}, answer{hold: true})
	lists, want := []string{}, []string{consulStream[3].want, consulStream[0].want}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := newTestConsul(t, p.tcp(t)).Watch(ctx, func(l List) {
		if lists = append(lists, show(l)); len(lists) == len(want) {
			cancel()
		}
	})
	if !slices.Equal(lists, want) {
		t.Errorf("got %q, %v; want %q", lists, err, want)
	}
	if got, want := p.indexes(), []string{"", "18", ""}; !slices.Equal(got, want) {
		t.Errorf("asked with the indexes %q; want %q", got, want)
	}
}

// TestConsulLeaderLost: a pool keeps what a server without a leader goes on saying, and tells that nobody vouches for it.
func TestConsulLeaderLost(t *testing.T) {
	lbtest.CheckLeaks(t)
	var asked atomic.Bool
	first, behind, lost := consulRecording(t, "cluster-first"), consulRecording(t, "cluster-leaderlost"), consulRecording(t, "noleader")
	url := "http://" + lbtest.Serve(t, func(c *net.TCPConn) {
		defer c.Close()
		say := first
		if req, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		} else if req.URL.Query().Has("index") {
			say = behind
		} else if asked.Swap(true) {
			say = lost
		}
		_, _ = c.Write(say)
	})
	set := Defaults()
	set.Debounce, set.RetryMin, set.Interval = 0, time.Millisecond, 100*time.Millisecond
	r, err := New("web", []Source{newTestConsul(t, url)}, set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports, done := make(chan []Backend, 100), make(chan struct{})
	go func() { r.Run(ctx, func(l []Backend) { reports <- l }); close(done) }()
	var s SourceStatus
	lbtest.Eventually(t, "the leader is missed", func() bool { s = r.Status().Sources[0]; return s.State == Failing })
	good := s.Good
	lbtest.Eventually(t, "it is missed again", func() bool { s = r.Status().Sources[0]; return s.Counters.Failed[ReasonStatus] > 2 })
	if s.State != Failing || s.Backends != 3 || !strings.Contains(s.Error, "No cluster leader") || !s.Good.Equal(good) {
		t.Errorf("%+v; want 3 backends that nobody has confirmed since %v", s, good)
	}
	cancel()
	<-done
	if close(reports); len(reports) != 2 {
		t.Errorf("%d lists; want those with two and three backends", len(reports))
	}
}

// TestConsulAnswersStale: an agent that is set to answer from any server (discovery_max_stale) says when that one knows no
// leader, also to who asks for the first time.
func TestConsulAnswersStale(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	stale := bytes.Replace(consulRecording(t, "first"), []byte("X-Consul-Knownleader: true\r\nX-Consul-Lastcontact: 0"), []byte("X-Consul-Knownleader: false\r\nX-Consul-Lastcontact: 75000"), 1)
	p.set(consulPath, answer{bytes: stale})
	c := newTestConsul(t, p.tcp(t))
	const want = "the server knows no leader, and its last word of one is 1m15s old"
	_, err := c.Fetch(t.Context())
	wantEnd(t, err, ReasonStatus, want)
	lists, err := watched(t, c, 10*time.Second)
	if len(lists) > 0 {
		t.Errorf("reports %q", lists)
	}
	wantEnd(t, err, ReasonStatus, want)
}

// TestConsulAgentRecorded: an agent that was without a server says behind an index what it had before the outage, while a first
// query is answered by the server. What came meanwhile must not go again.
func TestConsulAgentRecorded(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	p.set(consulPath, answer{bytes: consulRecording(t, "agent-fresh")}, answer{bytes: consulRecording(t, "agent-stale")},
		answer{bytes: consulRecording(t, "agent-fresh")}, answer{bytes: consulRecording(t, "agent-noserver")})
	lists, err := watched(t, newTestConsul(t, p.tcp(t)), 10*time.Second)
	if want := []string{"10.0.0.1:80 1/0/0 dc1, 10.0.0.2:80 4/0/0 dc1"}; !slices.Equal(lists, want) {
		t.Errorf("got %q; want %q", lists, want)
	}
	wantEnd(t, err, ReasonStatus, "status 500; want 200 (No known Consul servers)")
	if got, want := p.indexes(), []string{"", "19", "", "19"}; !slices.Equal(got, want) {
		t.Errorf("asked with the indexes %q; want %q", got, want)
	}
}

// TestConsulCutAnywhere: an answer that ends before its end is no list.
func TestConsulCutAnywhere(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	c := newTestConsul(t, p.tcp(t))
	for _, s := range consulStream {
		whole := consulRecording(t, s.name)
		for n := 0; n < len(whole); n += 23 {
			p.set(consulPath, answer{bytes: whole[:n]})
			if list, err := c.Fetch(t.Context()); err == nil {
				t.Fatalf("%s cut behind %d of %d bytes: got %s", s.name, n, len(whole), show(list))
			}
		}
		p.set(consulPath, answer{bytes: whole})
		fetch(t, c, s.want)
	}
}

// TestConsulDenied: a token that is not known is refused; with one that may see nothing, Consul says that there is nothing,
// which must not empty a pool.
func TestConsulDenied(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	c := newTestConsul(t, p.tcp(t))
	for name, want := range map[string]string{"denied": "status 403; want 200 (ACL not found)", "filtered": "the token may not read"} {
		p.set(consulPath, answer{bytes: consulRecording(t, name)})
		_, err := c.Fetch(t.Context())
		wantEnd(t, err, ReasonStatus, want)
		lists, err := watched(t, c, 10*time.Second)
		if len(lists) > 0 {
			t.Errorf("%s: reports %q", name, lists)
		}
		wantEnd(t, err, ReasonStatus, want)
	}
}

// TestConsulHeld: a server that is killed while it holds a query says nothing, and whoever stops does not wait for it.
func TestConsulHeld(t *testing.T) {
	lbtest.CheckLeaks(t)
	p := &replay{}
	p.set(consulPath, answer{bytes: consulRecording(t, "first")}, answer{})
	lists, err := watched(t, newTestConsul(t, p.tcp(t)), 10*time.Second)
	if len(lists) != 1 || err == nil || t.Context().Err() != nil {
		t.Errorf("got %q, %v", lists, err)
	}
	p.set(consulPath, answer{bytes: consulRecording(t, "first")}, answer{hold: true})
	ctx, cancel := context.WithCancel(t.Context())
	if err := newTestConsul(t, p.tcp(t)).Watch(ctx, func(List) { cancel() }); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
