package admin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// file returns the text of the file that the rig was started with.
func (r *rig) file() string {
	r.t.Helper()
	path, err := r.configs.store.Path("main")
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// tag returns the version of what runs.
func (r *rig) tag() string {
	r.t.Helper()
	_, _, h := r.body("GET", "/api/v1/config", "", "")
	return h.Get("ETag")
}

func TestChanges(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	before := r.file()
	put := `{"backends": [{"address": "127.0.0.1:10"}], "policy": "random"}`

	dry := decoded[changed](t, r.want(200, "PUT", "/api/v1/pools/new?dry_run=true", asJSON, put))
	if !dry.DryRun || !dry.Unsaved || len(dry.Changes) == 0 || len(dry.Warnings) == 0 || r.d.Snapshot().Pool("new") != nil {
		t.Errorf("%+v", dry)
	}
	if _, _, h := r.body("PUT", "/api/v1/pools/new?dry_run=true", asJSON, put); h.Get("ETag") != r.tag() {
		t.Errorf("a dry run of version %s says it is of %s", r.tag(), h.Get("ETag"))
	}
	if calls := decoded[auditLog](t, r.want(200, "GET", "/api/v1/audit", "", "")).Calls; len(calls) != 0 {
		t.Errorf("the audit has dry runs: %+v", calls)
	}
	did := decoded[changed](t, r.want(200, "PUT", "/api/v1/pools/new", asJSON, put))
	if fmt.Sprint(did.Changes) != fmt.Sprint(dry.Changes) || !did.Unsaved || r.d.Snapshot().Pool("new") == nil {
		t.Errorf("%+v; the dry run said %+v", did, dry)
	}
	if _, text, _ := r.body("GET", "/api/v1/config", "", ""); did.Text != "" || dry.Text != text || !strings.Contains(text, "[pools.new]") {
		t.Errorf("the dry run said %s; it became %s", dry.Text, text)
	}
	if r.file() != before {
		t.Error("the file has changed")
	}
	if list := decoded[configList](t, r.want(200, "GET", "/api/v1/configs", "", "")); !list.Unsaved {
		t.Error("nothing is unsaved")
	}
	r.want(200, "PUT", "/api/v1/frontends/new?persist=true", asTOML, "bind = [\"127.0.0.1:0\"]\npool = \"new\"\n")
	if got := r.file(); !strings.HasPrefix(got, before) || !strings.Contains(got, "[frontends.new]") || !strings.Contains(got, "[pools.new]") {
		t.Errorf("got %s", got)
	}
	if list := decoded[configList](t, r.want(200, "GET", "/api/v1/configs", "", "")); list.Unsaved {
		t.Error("something is unsaved")
	}

	r.want(200, "POST", "/api/v1/pools/new/backends", asJSON, `{"address": "127.0.0.1:11", "weight": 3}`)
	r.want(422, "POST", "/api/v1/pools/new/backends", asJSON, `{"address": "127.0.0.1:11"}`) // twice
	if p := r.d.Snapshot().Pool("new"); len(p.Members) != 2 || p.Members[1].Config.Weight != 3 {
		t.Errorf("%d backends", len(p.Members))
	}
	r.want(200, "DELETE", "/api/v1/pools/new/backends/127.0.0.1:10", "", "")
	r.want(404, "DELETE", "/api/v1/pools/new/backends/127.0.0.1:10", "", "")
	if p := r.d.Snapshot().Pool("new"); len(p.Members) != 1 || p.Members[0].Name != "127.0.0.1:11" {
		t.Error("the wrong backend is gone")
	}

	p := decoded[problem](t, r.want(422, "PUT", "/api/v1/pools/new", asJSON, `{"policy": "rand", "backends": [{"address": "nowhere"}]}`))
	if len(p.Errors) != 2 || p.Errors[0].Line != 0 || !strings.Contains(p.Errors[0].Pointer+p.Errors[1].Pointer, "/backends/0/address") {
		t.Errorf("%+v", p)
	}
	p = decoded[problem](t, r.want(422, "POST", "/api/v1/pools/new/backends", asJSON, `{"address": "127.0.0.1:12", "weigth": 3}`))
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/weigth" {
		t.Errorf("%+v", p)
	}
	// An address that somebody else has is told of whoever comes later in the text; the body is to blame all the same, and the
	// caller knows no lines.
	r.want(200, "PUT", "/api/v1/frontends/b", asTOML, "bind = [\"127.0.0.1:7\"]\npool = \"new\"\n")
	p = decoded[problem](t, r.want(422, "PUT", "/api/v1/frontends/a", asJSON, `{"pool": "new", "bind": ["127.0.0.1:0", "127.0.0.1:7"]}`))
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/bind/1" || strings.Contains(p.Errors[0].Message, "line") {
		t.Errorf("%+v", p)
	}
	p = decoded[problem](t, r.want(422, "PUT", "/api/v1/frontends/new", asJSON, `{"pool": "new", "bind": ["127.0.0.1:7"]}`))
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/bind/0" || strings.Contains(p.Errors[0].Message, "line") {
		t.Errorf("%+v", p)
	}
	r.want(200, "DELETE", "/api/v1/frontends/b", "", "")
	r.want(200, "PUT", "/api/v1/pools/newer", asJSON, `{"backends": []}`)
	p = decoded[problem](t, r.want(422, "PUT", "/api/v1/pools/newer", asJSON, `{"backends": [{"address": "127.0.0.1"}]}`))
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/backends/0/address" {
		t.Errorf("%+v", p)
	}
	r.want(200, "DELETE", "/api/v1/pools/newer", "", "")
	text := r.want(422, "DELETE", "/api/v1/pools/new", "", "") // a frontend uses it
	if !strings.Contains(text, `"key": "frontends.new.pool"`) {
		t.Error(text)
	}
	r.want(404, "DELETE", "/api/v1/pools/none", "", "")
	r.want(422, "PUT", "/api/v1/pools/bad%20name", asJSON, `{}`)
	r.want(200, "DELETE", "/api/v1/frontends/new", "", "")
	r.want(200, "DELETE", "/api/v1/pools/new?persist=true", "", "")
	if got := r.file(); strings.TrimSpace(got) != strings.TrimSpace(before) {
		t.Errorf("got %s", got)
	}

	// The file that somebody has written by hand meanwhile is not overwritten.
	if err := os.WriteFile(r.configs.store.Dir()+"/../test.toml", []byte(before+"# by hand\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.want(409, "PUT", "/api/v1/pools/new?persist=true", asJSON, put)
	if r.d.Snapshot().Pool("new") != nil {
		t.Error("it runs although it could not be stored")
	}
}

// TestConcurrentChanges: changes that say nothing of what they have seen are made one after the other, also those that write the
// file; of two with the same If-Match one is.
func TestConcurrentChanges(t *testing.T) {
	r := newRig(t, "127.0.0.1:9")
	var all sync.WaitGroup
	var mu sync.Mutex
	for i := range 8 {
		all.Go(func() {
			for j := range 5 {
				status, text, _ := r.body("PUT", fmt.Sprintf("/api/v1/pools/new%d-%d?persist=%v", i, j, i%2 == 0), asJSON, `{"backends": []}`)
				if status != 200 {
					t.Errorf("%d %s", status, text)
				}
				status, text, _ = r.body("POST", "/api/v1/pools/p/backends?persist=true", asJSON, fmt.Sprintf(`{"address": "127.0.%d.%d:10"}`, i, j+1))
				if status != 200 {
					t.Errorf("%d %s", status, text)
				}
			}
		})
	}
	all.Wait()
	file := r.file()
	for i := range 8 {
		for j := range 5 {
			name, backend := fmt.Sprintf("new%d-%d", i, j), fmt.Sprintf(`"127.0.%d.%d:10"`, i, j+1)
			if r.d.Snapshot().Pool(name) == nil || !strings.Contains(file, backend) || !strings.Contains(file, "[pools."+name+"]") && i%2 == 0 {
				t.Errorf("%s or %s has been lost", name, backend)
			}
		}
	}

	_, _, header := r.body("GET", "/api/v1/config", "", "")
	won := 0
	for i := range 8 {
		all.Go(func() {
			status, text, _ := r.body("PUT", fmt.Sprint("/api/v1/pools/one", i), asJSON, `{"backends": []}`, "If-Match", header.Get("ETag"))
			mu.Lock()
			defer mu.Unlock()
			if status == 200 {
				won++
			} else if status != 412 {
				t.Errorf("%d %s", status, text)
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("%d of 8 won", won)
	}
}
