package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// call sends a JSON body to the admin and returns what it answers.
func (in *instance) call(method, path, body string) (int, string) {
	in.t.Helper()
	req, err := http.NewRequest(method, in.adminURL()+path, strings.NewReader(body))
	if err != nil {
		in.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		in.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// TestDrainByAPI: the process drains and ends as after SIGTERM.
func TestDrainByAPI(t *testing.T) {
	in := startInstance(t, toml(lbtest.Echo(t), admin0))
	c := dial(t, in.address("f"))
	ask(t, c, "before")
	if code, text := in.call("POST", "/api/v1/drain", ""); code != 200 || !strings.Contains(text, `"sessions": 1`) {
		t.Fatalf("%d %s", code, text)
	}
	in.wantLog("draining: a second signal ends at once")
	ask(t, c, "while it drains")
	c.Close()
	in.wantExit(0)
}

// TestLogLevelByAPI: it changes what is logged, until a reload.
func TestLogLevelByAPI(t *testing.T) {
	in := startInstance(t, toml(lbtest.Echo(t), admin0))
	if code, text := in.call("PUT", "/api/v1/log", `{"level": "error"}`); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	before := strings.Count(in.log(), "level=INFO")
	if code, text := in.call("PUT", "/api/v1/log", `{"level": "error"}`); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	if after := strings.Count(in.log(), "level=INFO"); after != before {
		t.Errorf("%d lines of level INFO, then %d", before, after)
	}
	if code, text := in.call("POST", "/api/v1/reload", ""); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := in.call("GET", "/api/v1/log", ""); code != 200 || !strings.Contains(text, `"info"`) {
		t.Errorf("after a reload: %d %s", code, text)
	}
}
