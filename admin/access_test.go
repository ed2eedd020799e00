package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/config"
)

// TestAccessLists: files of prefixes are in the status and the metrics.
func TestAccessLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocked.txt")
	if err := os.WriteFile(path, []byte("10.0.0.0/8\n::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "127.0.0.1:1")
	cfg, err := config.Parse("test.toml", []byte("[frontends.f]\nbind = [\"127.0.0.1:0\"]\naccess = { rules = [{ deny_file = '"+path+"' }] }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.d.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	_, body, _ := r.do("GET", "/api/v1/status")
	var st status
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		t.Fatal(err)
	}
	if len(st.AccessLists) != 1 || st.AccessLists[0].File != path || st.AccessLists[0].Prefixes != 2 || st.AccessLists[0].Changed.IsZero() || st.AccessLists[0].Error != "" {
		t.Errorf("%+v", st.AccessLists)
	}
	_, body, _ = r.do("GET", "/metrics")
	for _, line := range []string{`awe4lb_access_list_prefixes{file="` + path + `"} 2`, `awe4lb_access_list_stale{file="` + path + `"} 0`,
		`awe4lb_access_list_changes_total{result="failed"} 0`} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}
