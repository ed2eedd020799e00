package admin

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

func TestLogLevel(t *testing.T) {
	r := newRig(t)
	var now logLevel
	if code := r.call("PUT", "/api/v1/log", `{"level": "debug"}`, &now); code != 200 || r.level.Load() != -4 {
		t.Errorf("%d, the log is at %d", code, r.level.Load())
	}
	if r.call("GET", "/api/v1/log", "", &now); now.Level != "debug" {
		t.Errorf("%+v", now)
	}
	for _, body := range []string{`{"level": "trace"}`, `{"level": "DEBUG"}`, `{}`, `{"level": 1}`} {
		if code := r.call("PUT", "/api/v1/log", body, nil); code != 400 || r.level.Load() != -4 {
			t.Errorf("%s: %d, the log is at %d", body, code, r.level.Load())
		}
	}
}

func TestDrainByAPI(t *testing.T) {
	r := newRig(t)
	var d draining
	if code := r.call("POST", "/api/v1/drain", "", &d); code != 200 || !r.ended.Load() || d.Timeout != 30 {
		t.Errorf("%d %+v, ended %v", code, d, r.ended.Load())
	}
}

// TestUpgrade: the program is started without a shell, and once at a time.
func TestUpgrade(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGuarded(t, func(c *config.Admin) { c.Upgrade = []string{"/bin/cat", fifo} })
	post := func() (*http.Response, string) {
		return g.send("POST", "/api/v1/upgrade", "", bearer("configure"+secretOf))
	}
	res, text := post()
	if res.StatusCode != 200 || !strings.Contains(text, `"program": "/bin/cat"`) {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	if res, text := post(); res.StatusCode != 409 {
		t.Errorf("a second one meanwhile: %d %s", res.StatusCode, text)
	}
	if err := os.WriteFile(fifo, []byte("done"), 0); err != nil { // has it end
		t.Fatal(err)
	}
	lbtest.Eventually(t, "it has ended", func() bool { return !g.s.upgrades.Load() })

	for _, argv := range [][]string{nil, {"/no/such/program"}} {
		g := newGuarded(t, func(c *config.Admin) { c.Upgrade = argv })
		if res, text := g.send("POST", "/api/v1/upgrade", "", bearer("configure"+secretOf)); res.StatusCode < 400 || g.s.upgrades.Load() {
			t.Errorf("%v: %d %s", argv, res.StatusCode, text)
		}
	}
}
