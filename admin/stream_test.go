package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"awe4lb/config"
	"awe4lb/engine"
	"awe4lb/internal/lbtest"
)

// nextEvent reads one server-sent event.
func nextEvent(t *testing.T, r *bufio.Reader) (name, data string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		switch key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); {
		case line == "\n":
			return name, data
		case key == "event":
			name = value
		case key == "data":
			data += value
		}
	}
}

func (r *rig) open(path string, with func(*http.Request)) *http.Response {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if with != nil {
		with(req)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

// TestStream: samples show what happens, backends only of the pools asked for.
func TestStream(t *testing.T) {
	r := newRig(t, lbtest.Echo(t))
	res := r.open("/api/v1/stream?pools=p", nil)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	in := bufio.NewReader(res.Body)
	nextEvent(t, in)
	r.traffic()
	deadline := time.Now().Add(20 * time.Second)
	for {
		name, data := nextEvent(t, in)
		var s sample
		if err := json.Unmarshal([]byte(data), &s); err != nil || name != "sample" {
			t.Fatalf("%s: %v in %s", name, err, data)
		}
		if s.Totals.New > 0 {
			if s.Totals.Sessions != 1 || s.Totals.C2B <= 0 || s.Totals.B2C <= 0 || s.Totals.ConnectP99 == nil || *s.Totals.ConnectP99 <= 0 {
				t.Errorf("totals %+v", s.Totals)
			}
			p, others := s.Pools[0], s.Pools[1]
			if p.Name != "p" || p.Up != 1 || len(p.Backends) != 1 || p.Backends[0].Open != 1 || p.Backends[0].New <= 0 || len(others.Backends) != 0 {
				t.Errorf("pools %+v", s.Pools)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no sample shows the connection")
		}
	}
	stopped := make(chan struct{})
	go func() { r.s.Stop(context.Background()); close(stopped) }()
	lbtest.Eventually(t, "Stop ends the stream", func() bool {
		select {
		case <-stopped:
			return true
		default:
			return false
		}
	})
}

// TestStreamsAreBounded: so many and no more, of one client and of all; those that end make room.
func TestStreamsAreBounded(t *testing.T) {
	r := newRig(t)
	watch := func(source int) *http.Response {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(source))}}).DialContext}}
		res, err := client.Get(r.url + "/api/v1/stream")
		if err != nil {
			t.Error(err)
			return new(http.Response)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	first := watch(1)
	for source := 1; source <= maxStreams/maxOwn; source++ {
		var all sync.WaitGroup
		for n := range maxOwn {
			if source == 1 && n == 0 {
				continue // there is one already
			}
			all.Go(func() {
				if res := watch(source); res.StatusCode != 200 {
					t.Errorf("%d", res.StatusCode)
				}
			})
		}
		all.Wait()
		res := watch(source)
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 429 || !strings.Contains(string(text), "anonymous has 16 streams open already from this address") {
			t.Errorf("one more: %d %s %v; want 429", res.StatusCode, text, err)
		}
	}
	if res := watch(maxStreams/maxOwn + 1); res.StatusCode != 503 {
		t.Errorf("one more of another: %d; want 503", res.StatusCode)
	}
	if n := r.hits("admin_streams"); n != maxStreams/maxOwn+1 {
		t.Errorf("%d were counted", n)
	}
	first.Body.Close()
	lbtest.Eventually(t, "a stream that ended makes room", func() bool { return r.s.streams.count() < maxStreams })
	if res := watch(1); res.StatusCode != 200 {
		t.Errorf("after it has ended: %d", res.StatusCode)
	}
}

// TestStreamEndsWithItsLogin: who is logged out sees no more.
func TestStreamEndsWithItsLogin(t *testing.T) {
	g := newGuarded(t, nil)
	res, _ := g.send("POST", "/api/v1/login", `{"name": "read", "password": "read`+secretOf+`"}`, nil)
	with := func(r *http.Request) { r.AddCookie(res.Cookies()[0]) }
	stream := g.open("/api/v1/stream", with)
	in := bufio.NewReader(stream.Body)
	nextEvent(t, in)
	g.send("POST", "/api/v1/logout", "", with)
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := in.ReadString('\n'); err != nil {
				done <- err
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the stream goes on after logout")
	}
}

// TestStreamEndsWithItsCredentials: who is taken out of the configuration, or whose password or token is another, sees no more.
func TestStreamEndsWithItsCredentials(t *testing.T) {
	var c *config.Admin
	g := newGuarded(t, func(a *config.Admin) { c = a })
	basic := func(name string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(name, name+secretOf) }
	}
	ends := map[string]*bufio.Reader{}
	for name, with := range map[string]func(*http.Request){"user gone": basic("read"), "password changed": basic("operate"), "token gone": bearer("read" + secretOf),
		"token changed": bearer("operate" + secretOf), "stays": basic("configure"), "token stays": bearer("configure" + secretOf)} {
		in := bufio.NewReader(g.open("/api/v1/stream", with).Body)
		nextEvent(t, in)
		ends[name] = in
	}
	next := *c
	hash, err := bcrypt.GenerateFromPassword([]byte("another"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	next.Users = []*config.AdminUser{{Name: "operate", PasswordHash: string(hash), Role: "operate"}, c.Users[2]}
	next.Tokens = []*config.AdminToken{{Name: "operate", Token: "another-0123456789", Role: "operate"}, c.Tokens[2]}
	apply, err := g.s.Prepare(&next)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	lbtest.Eventually(t, "only the streams of those who are still there go on", func() bool { return g.s.streams.count() == 2 })
	for name, in := range ends {
		if strings.Contains(name, "stays") {
			nextEvent(t, in)
		}
	}
}

func TestPercentile(t *testing.T) {
	h := engine.NewBackendStats().Connect
	if percentile(&h, 0.5) != nil {
		t.Error("of nothing")
	}
	h.Counts[3], h.Counts[4] = 50, 50 // of 0.5 to 1 ms, and of 1 to 2.5 ms
	for share, want := range map[float64]float64{0.25: .00075, 0.5: .001, 0.75: .00175, 1: .0025} {
		if got := percentile(&h, share); math.Abs(*got-want) > 1e-9 {
			t.Errorf("%v: got %v; want %v", share, *got, want)
		}
	}
	h.Counts[15] = 1000
	if got := percentile(&h, 0.99); *got != 5 {
		t.Errorf("above all bounds: got %v; want 5", *got)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	s := newSeries()
	for i := range 3 * historySteps {
		s = s.add(&sampleTotals{Sessions: int64(i)})
	}
	if n := len(s.Sessions); n != historySteps || s.Sessions[n-1] != 3*historySteps-1 || s.Sessions[0] != 2*historySteps {
		t.Errorf("%d values, from %d to %d", n, s.Sessions[0], s.Sessions[n-1])
	}
}
