package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// call sends a request, holds the answer against the document, and decodes it into v, unless v is nil.
func (r *rig) call(method, path, body string, v any) int {
	r.t.Helper()
	res, text := (&guarded{r, http.DefaultClient}).send(method, path, body, nil)
	if len(text) > 0 {
		fits(r.t, method, documented(r.t, method, path), res.StatusCode, []byte(text))
	}
	if v != nil && res.StatusCode < 400 {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return res.StatusCode
}

func TestSessions(t *testing.T) {
	backend := lbtest.Echo(t)
	r := newRig(t, backend)
	var clients []string
	for range 2 { // which is the limit of frontend f
		clients = append(clients, r.traffic().LocalAddr().String())
	}
	r.datagrams()
	slices.Sort(clients)

	var all sessionList
	if code := r.call("GET", "/api/v1/sessions?sort=client", "", &all); code != 200 || len(all.Sessions) != 3 || *all.Total != 3 {
		t.Fatalf("%d %+v", code, all)
	}
	var tcp sessionList
	r.call("GET", "/api/v1/sessions?protocol=tcp&client=127.0.0.0/8&pool=p&frontend=f&backend="+backend, "", &tcp)
	var got []string
	for _, s := range tcp.Sessions {
		got = append(got, s.Client)
		if s.Backend != backend || s.Pool != "p" || s.Frontend != "f" || s.State != "open" || s.Bytes != (bytesStatus{4, 4}) || s.Datagrams != nil {
			t.Errorf("%+v", s)
		}
	}
	if slices.Sort(got); !slices.Equal(got, clients) {
		t.Errorf("clients %v; want %v", got, clients)
	}
	var flows sessionList
	if r.call("GET", "/api/v1/flows", "", &flows); len(flows.Sessions) != 1 || *flows.Sessions[0].Datagrams != (bytesStatus{1, 1}) {
		t.Errorf("flows %+v", flows.Sessions)
	}

	// Pages: each session on exactly one.
	seen := map[string]bool{}
	for cursor, pages := "", 0; ; pages++ {
		var page sessionList
		if r.call("GET", "/api/v1/sessions?limit=1&cursor="+cursor, "", &page); pages > 4 {
			t.Fatal("pages without end")
		}
		for _, s := range page.Sessions {
			if seen[s.ID] {
				t.Errorf("%s is on two pages", s.ID)
			}
			seen[s.ID] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d sessions on the pages; want 3", len(seen))
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "protocol=sctp", "client=nobody", "sort=name", "cursor=1", "frontned=f", "sort=age&cursor=0-s1"} {
		if code := r.call("GET", "/api/v1/sessions?"+query, "", nil); code != 400 {
			t.Errorf("%s: %d; want 400", query, code)
		}
	}
}

func TestKill(t *testing.T) {
	r := newRig(t, lbtest.Echo(t))
	a, b := r.traffic(), r.traffic()
	r.datagrams()
	var all sessionList
	r.call("GET", "/api/v1/sessions?protocol=tcp", "", &all)
	id, victim, other := all.Sessions[0].ID, a, b
	if all.Sessions[0].Client != a.LocalAddr().String() {
		victim, other = b, a
	}
	if code := r.call("DELETE", "/api/v1/sessions/"+id, "", nil); code != 204 {
		t.Errorf("kill: %d", code)
	}
	if _, err := victim.Read(make([]byte, 1)); err == nil {
		t.Error("the session goes on")
	}
	for path, want := range map[string]int{id: 404, "x": 400, "0-0": 400} {
		if code := r.call("DELETE", "/api/v1/sessions/"+path, "", nil); code != want {
			t.Errorf("kill %s: %d; want %d", path, code, want)
		}
	}
	if code := r.call("POST", "/api/v1/sessions/kill", "{}", nil); code != 400 {
		t.Errorf("no filter: %d; want 400", code)
	}
	var n killed
	if r.call("POST", "/api/v1/sessions/kill", `{"all": true, "dry_run": true}`, &n); n != (killed{2, true}) {
		t.Errorf("dry run: %+v", n)
	}
	if _, err := fmt.Fprint(other, "pong"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(other, make([]byte, 4)); err != nil {
		t.Errorf("after a dry run: %v", err)
	}
	if r.call("POST", "/api/v1/sessions/kill", `{"pool": "p", "client": "127.0.0.1"}`, &n); n != (killed{1, false}) {
		t.Errorf("kill of pool p: %+v", n)
	}
	if _, err := other.Read(make([]byte, 1)); err == nil {
		t.Error("the other session goes on")
	}
	lbtest.Eventually(t, "the end is counted", func() bool {
		f := r.e.Stats().Frontends["f"]
		return f != nil && f.Ended[17] == 2
	})
}

// TestOrders: what is ordered of a backend is in force at once, in sight, and in the history.
func TestOrders(t *testing.T) {
	one, two := lbtest.Echo(t), lbtest.Echo(t)
	r := newRig(t, one, two)
	path := "/api/v1/pools/p/backends/" + one
	var b backendStatus
	if code := r.call("PATCH", path, `{"state": "drain", "weight": 7}`, &b); code != 200 || b.State != "drain" || b.Weight != 7 || b.Configured != 1 {
		t.Errorf("%d %+v", code, b)
	}
	for range 2 {
		c := r.traffic()
		var at sessionList
		r.call("GET", "/api/v1/sessions?client="+host(c), "", &at)
		for _, s := range at.Sessions {
			if s.Backend != two {
				t.Errorf("a new session on the backend that drains: %+v", s)
			}
		}
	}
	var events eventList
	if r.call("GET", "/api/v1/events", "", &events); len(events.Events) != 2 || events.Events[1].By != "anonymous" || events.Events[1].To != "drain" {
		t.Errorf("%+v", events.Events)
	}
	if r.call("PATCH", path, `{"state": "ready", "weight": null}`, &b); b.State != "up" || b.Weight != 1 {
		t.Errorf("%+v", b)
	}
	for body, want := range map[string]int{`{}`: 400, `{"state": "up"}`: 400, `{"weight": 1001}`: 400, `{"weight": -1}`: 400, `{"weight": "1"}`: 400,
		`{"weight": 1.5}`: 400, `{"state": "drain", "wieght": 3}`: 400, `[]`: 400, `{"state": "drain"} {}`: 400, `{"state": "drain", "weight": 5000}`: 400} {
		if code := r.call("PATCH", path, body, nil); code != want {
			t.Errorf("%s: %d; want %d", body, code, want)
		}
	}
	if r.call("GET", path, "", &b); b.State != "up" || b.Weight != 1 {
		t.Errorf("what was refused had an effect: %+v", b)
	}
	for path, want := range map[string]int{"/api/v1/pools/none/backends/" + one: 404, "/api/v1/pools/p/backends/10.0.0.1:1": 404, "/api/v1/pools/unused/backends/unix:/x": 200} {
		if code := r.call("PATCH", path, `{"weight": 3}`, nil); code != want {
			t.Errorf("%s: %d; want %d", path, code, want)
		}
	}
}

func host(c net.Conn) string { h, _, _ := strings.Cut(c.LocalAddr().String(), ":"); return h }
