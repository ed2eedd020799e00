package admin

import "testing"

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
