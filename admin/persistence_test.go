package admin

import (
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// sticking is a rig whose pool p has persistence.
func sticking(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, lbtest.Echo(t), lbtest.Echo(t))
	c := *r.d.Snapshot().Config
	p := *c.Pools[0]
	p.Persistence = &config.Persistence{Key: "source", TTL: time.Hour, MaxEntries: 100}
	c.Pools = append([]*config.Pool{&p}, c.Pools[1:]...)
	if _, err := r.d.Apply(&c); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPersistenceByAPI(t *testing.T) {
	r := sticking(t)
	r.traffic().Close()
	var pools persistenceList
	if r.call("GET", "/api/v1/persistence", "", &pools); len(pools.Pools) != 2 || pools.Pools[0].Pool != "p" || pools.Pools[0].Entries != 1 {
		t.Errorf("%+v", pools)
	}
	var page stickList
	if r.call("GET", "/api/v1/persistence/p", "", &page); len(page.Clients) != 1 || page.Clients[0].Client != "127.0.0.1" || page.Next != "" {
		t.Fatalf("%+v", page)
	}
	member := false
	for _, m := range r.d.Snapshot().Pool("p").Members {
		member = member || m.Name == page.Clients[0].Backend
	}
	if c := page.Clients[0]; !member || c.Left < 3500 || c.Left > 3600 {
		t.Errorf("%+v", c)
	}
	var one stickStatus
	if r.call("GET", "/api/v1/persistence/p/127.0.0.1", "", &one); one.Backend != page.Clients[0].Backend || one.Client != "127.0.0.1" {
		t.Errorf("looked up: %+v", one)
	}
	for path, want := range map[string]int{"/p/127.0.0.2": 404, "/p/nobody": 400, "/none/127.0.0.1": 404, "/unused/127.0.0.1": 409} {
		if code := r.call("GET", "/api/v1/persistence"+path, "", nil); code != want {
			t.Errorf("GET %s: %d; want %d", path, code, want)
		}
	}
	for path, want := range map[string]int{"/p/127.0.0.2": 404, "/p/nobody": 400, "/none/127.0.0.1": 404, "/unused/127.0.0.1": 409, "/p/127.0.0.1": 204} {
		if code := r.call("DELETE", "/api/v1/persistence"+path, "", nil); code != want {
			t.Errorf("DELETE %s: %d; want %d", path, code, want)
		}
	}
	if r.call("GET", "/api/v1/persistence/p", "", &page); len(page.Clients) != 0 {
		t.Errorf("after it was forgotten: %+v", page)
	}
	r.traffic().Close()
	var n forgotten
	if r.call("DELETE", "/api/v1/persistence/p", "", &n); n.Forgotten != 1 {
		t.Errorf("%+v", n)
	}
	for _, query := range []string{"limit=0", "limit=1001", "cursor=-1", "cursor=x"} {
		if code := r.call("GET", "/api/v1/persistence/p?"+query, "", nil); code != 400 {
			t.Errorf("%s: %d; want 400", query, code)
		}
	}
}

func TestLimitsByAPI(t *testing.T) {
	r := newRig(t, lbtest.Echo(t))
	r.traffic()
	var list limitList
	r.call("GET", "/api/v1/limits", "", &list)
	got := map[string]limitStatus{}
	for _, l := range list.Limits {
		got[l.Scope+" "+l.Name+" "+l.Limit] = l
	}
	if l := got["frontend f max_connections"]; l.Value != 2 || *l.Now != 1 || *l.Hits != 0 {
		t.Errorf("%+v in %+v", l, got)
	}
	if l := got["frontend f max_connections_per_source"]; l.Value != 1000 || l.Now != nil {
		t.Errorf("%+v", l)
	}
	if l := got["process  engine.max_connections"]; l.Value == 0 || *l.Now != 1 {
		t.Errorf("%+v", l)
	}
	if l := got["frontend d udp.max_flows"]; l.Value != 65536 || *l.Now != 0 {
		t.Errorf("%+v", l)
	}
}

// TestBusySourcesByAPI: who has the most of what the limits allow comes first.
func TestBusySourcesByAPI(t *testing.T) {
	r := newRig(t, lbtest.Echo(t))
	r.traffic()
	var list busySourceList
	r.call("GET", "/api/v1/limits/sources", "", &list)
	if len(list.Sources) != 1 || list.Sources[0] != (busySource{"f", "127.0.0.1", 1, 1000}) {
		t.Errorf("%+v", list)
	}
	r.call("GET", "/api/v1/limits/sources?frontend=f&limit=1", "", &list)
	if len(list.Sources) != 1 {
		t.Errorf("of f: %+v", list)
	}
	if r.call("GET", "/api/v1/limits/sources?frontend=d", "", &list); len(list.Sources) != 0 || list.Sources == nil {
		t.Errorf("of d: %+v", list)
	}
	for query, want := range map[string]int{"limit=0": 400, "limit=1001": 400, "frontend=none": 404} {
		if code := r.call("GET", "/api/v1/limits/sources?"+query, "", nil); code != want {
			t.Errorf("%s: %d; want %d", query, code, want)
		}
	}
}
