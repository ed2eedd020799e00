package main

import (
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// TestTop: traffic shows, a backend is drained and enabled and a session ended by keys, and the terminal is left as it was.
func TestTop(t *testing.T) {
	backend := lbtest.Echo(t)
	in := startInstance(t, toml(backend, admin0))
	url := in.adminURL()
	s := onTerminal(t, 100, 30, nil, "top", "--admin", url)
	s.wants("live", "[1 backends]", "sessions 0/")
	s.wantsRow("p", backend, "up", "1", "0")

	c := dial(t, in.address("f"))
	ask(t, c, "hello")
	s.wants("sessions 1/")
	s.wantsRow("p", backend, "up", "1", "1")

	s.press("d")
	s.wants("drain p/" + backend + " (1 open go on)? y/N")
	s.press("y")
	s.wants("p/" + backend + ": drain, weight 1, 1 open")
	s.wantsRow("p", backend, "drain")
	if _, text := in.call("GET", "/api/v1/pools/p", ""); !strings.Contains(text, `"order": "drain"`) {
		t.Errorf("the process knows of no drain: %s", text)
	}
	s.press("5")
	s.wants("up → drain", "by anonymous")
	s.press("1ey")
	s.wantsRow("p", backend, "up")

	s.press("4")
	s.wants(c.LocalAddr().String())
	s.press("xy")
	s.wants("ended: " + c.LocalAddr().String())
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the session goes on")
	}

	s.press("q")
	s.wantsEnd()
}

// TestTopComesBack: the picture is stale while the process is gone, and live when there is one again.
func TestTopComesBack(t *testing.T) {
	socket := t.TempDir() + "/admin.sock"
	text := toml(lbtest.Echo(t), "[admin]\nbind = \"unix:"+socket+"\"\n")
	in := startInstance(t, text)
	s := onTerminal(t, 80, 24, []string{"AWE4LB_ADMIN=unix:" + socket}, "top")
	s.wants("live", "sessions 0/")
	_ = in.cmd.Process.Kill()
	<-in.ended
	s.wants("STALE", "trying again")
	startInstance(t, text)
	lbtest.EventuallyIn(t, 20*time.Second, "it is live again", func() bool { return strings.Contains(s.vt.String(), "live") })
	_ = s.cmd.Process.Signal(unix.SIGTERM)
	s.wantsEnd()
}

// TestTopWithoutColour: NO_COLOR is heeded, and what is no terminal refused.
func TestTopWithoutColour(t *testing.T) {
	in := startInstance(t, toml(lbtest.Refused(t), admin0))
	// SGR 30 to 49 and 90 to 107 are colours; the others, such as bold and reverse, are not.
	colours := func(text string) bool {
		for _, sgr := range strings.Split(text, "\x1b[")[1:] {
			parameters, _, ok := strings.Cut(sgr, "m")
			if !ok || strings.Trim(parameters, "0123456789;") != "" {
				continue
			}
			for p := range strings.SplitSeq(parameters, ";") {
				if len(p) == 2 && (p[0] == '3' || p[0] == '4' || p[0] == '9') {
					return true
				}
			}
		}
		return false
	}
	for _, tc := range []struct {
		env  string
		want bool
	}{{"TERM=xterm-256color", true}, {"NO_COLOR=1", false}} {
		s := onTerminal(t, 80, 24, []string{tc.env}, "top", "--admin", in.adminURL())
		s.wants("live")
		s.press("q")
		s.wantsEnd()
		if got := colours(s.written()); got != tc.want {
			t.Errorf("%s: colours: %v; %q", tc.env, got, s.written())
		}
	}
	code, stdout, stderr := result(t, "top", "--admin", in.adminURL())
	if code != 2 || stdout != "" || !strings.Contains(stderr, "top needs a terminal") {
		t.Errorf("without a terminal: exit code %d, %q, %q", code, stdout, stderr)
	}
}
