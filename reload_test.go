package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// descriptors returns the number of open descriptors of the process.
func (in *instance) descriptors() int {
	in.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", in.cmd.Process.Pid))
	if err != nil {
		in.t.Fatal(err)
	}
	return len(names)
}

// TestRefusedReloadsLeaveNothingOpen: log files that a reload has opened are closed when the reload is refused.
func TestRefusedReloadsLeaveNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	logs := filepath.Join(t.TempDir(), "own.log")
	text := toml(lbtest.Refused(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	in.write(fmt.Sprintf("[log]\noutput = %q\naccess = { output = %q }\n", logs, logs+".access") +
		strings.Replace(text, "127.0.0.1:0\"]", taken.Addr().String()+"\"]", 1))
	refuse := func() {
		if code, body := get(t, "POST", url+"/api/v1/reload"); code != 409 {
			t.Fatalf("%d %s; want 409", code, body)
		}
	}
	refuse() // the first opens what the admin needs too
	before := in.descriptors()
	for range 10 {
		refuse()
	}
	if n := in.descriptors(); n > before {
		t.Errorf("%d descriptors, were %d", n, before)
	}
}

// TestStatusDuringAReload: the admin answers while a reload takes its time.
func TestStatusDuringAReload(t *testing.T) {
	text := toml(lbtest.Echo(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	finish := in.stuckReload(func() { in.signal(syscall.SIGHUP) })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for _, path := range []string{"/api/v1/status", "/metrics", "/healthz"} {
			if code, body := get(t, "GET", url+path); code != 200 {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
	}()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		t.Error("no answer while a reload is at work")
	}
	finish(text)
	<-answered
	in.wantLog("msg=reloaded")
	if _, m := get(t, "GET", url+"/metrics"); !strings.Contains(m, `awe4lb_config_reloads_total{result="ok"} 1`) {
		t.Error("the reload was not counted")
	}
}

// TestReloadWhileDraining is refused, and nobody but the caller hears of it: neither the log nor systemd, to which READY
// after STOPPING would mean a service that goes on.
func TestReloadWhileDraining(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	in := startInstance(t, toml(lbtest.Echo(t), admin0), "NOTIFY_SOCKET="+path)
	url := in.adminURL()
	c := dial(t, in.address("f"))
	ask(t, c, "open")
	in.signal(syscall.SIGTERM)
	in.wantLog("msg=\"draining")
	code, body := get(t, "POST", url+"/api/v1/reload")
	if code != 409 || !strings.Contains(body, "draining") {
		t.Errorf("%d %s; want 409", code, body)
	}
	if _, m := get(t, "GET", url+"/metrics"); !strings.Contains(m, `awe4lb_config_reloads_total{result="failed"} 0`) ||
		!strings.Contains(m, "awe4lb_config_last_reload_success 1") {
		t.Error("counted as a failed reload")
	}
	c.Close()
	in.wantExit(0)
	if strings.Contains(in.log(), "level=ERROR") {
		t.Error("logged as an error")
	}
	var heard []string
	b := make([]byte, 4096)
	_ = manager.SetReadDeadline(time.Now().Add(time.Second)) // all of it is there: the process has ended
	for len(heard) < 9 {
		n, err := manager.Read(b)
		if err != nil {
			break
		}
		heard = append(heard, string(b[:n]))
		if heard[len(heard)-1] == "STOPPING=1" {
			_ = manager.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
	}
	if want := []string{"READY=1", "STOPPING=1"}; !slices.Equal(heard, want) {
		t.Errorf("systemd heard %q; want %q", heard, want)
	}
}

// TestReloadAnswersOfTheHost: what this host does not have is a conflict, and what it does not let us open cannot be
// processed; neither is a fault of the server.
func TestReloadAnswersOfTheHost(t *testing.T) {
	text := toml(lbtest.Refused(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	for _, tc := range []struct {
		text string
		code int
		want string
	}{
		{text + "source = [\"192.0.2.1\"]\n", 409, "pools.p.source: 192.0.2.1: "},
		{strings.Replace(text, "address = ", "address = \"[fe80::1%nowhere]:1\" }, { address = ", 1), 409, `pools.p.backends: [fe80::1%nowhere]:1: no interface`},
		{"[log]\noutput = \"/nonexistent/x.log\"\n" + text, 422, "/nonexistent/x.log"},
		{"[log.access]\noutput = \"/nonexistent/y.log\"\n" + text, 422, "/nonexistent/y.log"},
	} {
		in.write(tc.text)
		var p struct {
			Status int
			Detail string
		}
		code, body := get(t, "POST", url+"/api/v1/reload")
		if err := json.Unmarshal([]byte(body), &p); err != nil || code != tc.code || p.Status != code ||
			!strings.Contains(p.Detail, tc.want) || !strings.HasSuffix(p.Detail, "; the running configuration stays") {
			t.Errorf("%d %s; want %d and %s", code, body, tc.code, tc.want)
		}
	}
}
