package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// comesAndGoes is a backend that says its name to whoever asks, and can leave and come back.
type comesAndGoes struct {
	t       *testing.T
	name    string
	address string
	l       net.Listener
}

func newComesAndGoes(t *testing.T, name string) *comesAndGoes {
	b := &comesAndGoes{t: t, name: name, address: lbtest.Free(t)}
	b.come()
	t.Cleanup(func() { b.l.Close() })
	return b
}

func (b *comesAndGoes) come() {
	b.t.Helper()
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.l, b.address = l, l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 100)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					_, _ = io.WriteString(c, b.name)
				}
			}()
		}
	}()
}

func (b *comesAndGoes) leave() { b.l.Close() } // connections that it has stay

// who asks for the name of a backend.
func who(t *testing.T, c net.Conn) string {
	t.Helper()
	if _, err := io.WriteString(c, "?"); err != nil {
		return err.Error()
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		return err.Error()
	}
	return string(b)
}

// TestHealth: from a backend that goes to one that is not picked, is told of, and comes back.
func TestHealth(t *testing.T) {
	a, b := newComesAndGoes(t, "a"), newComesAndGoes(t, "b")
	text := admin0 + fmt.Sprintf(`
[frontends.f]
bind = ["127.0.0.1:0"]
pool = "p"
[pools.p]
backends = [ { address = %q }, { address = %q } ]
on_down = "cut"
connect_attempts = 1
[pools.p.health]
interval = "100ms"
rise = 2
fall = 2
`, a.address, b.address)
	in := startInstance(t, text)
	address, url := in.address("f"), in.adminURL()
	heard := func() map[string]int {
		names := map[string]int{}
		for range 10 {
			c, err := net.Dial("tcp", address)
			if err != nil { // reset at once
				names[err.Error()]++
				continue
			}
			names[who(t, c)]++
			c.Close()
		}
		return names
	}
	if got := heard(); got["a"] != 5 || got["b"] != 5 {
		t.Errorf("both are up: %v", got)
	}
	var onA, onB net.Conn
	for onA == nil || onB == nil {
		c := dial(t, address)
		if who(t, c) == "a" {
			onA = c
		} else {
			onB = c
		}
	}

	a.leave()
	in.wantLog(`level=WARN msg="backend is down" pool=p backend=` + a.address + ` why="connect: connection refused" was=up for=\S+ sessions=[1-9]`)
	lbtest.Eventually(t, "the session on it was reset", func() bool {
		return strings.Contains(who(t, onA), "reset") || strings.Contains(who(t, onA), "broken pipe")
	})
	if got := who(t, onB); got != "b" {
		t.Errorf("the session on the other: %s", got)
	}
	if got := heard(); got["b"] != 10 {
		t.Errorf("a is down: %v", got)
	}
	_, status := get(t, "GET", url+"/api/v1/status")
	if !strings.Contains(status, `"state": "down"`) || !strings.Contains(status, `"last_error": "connect: connection refused"`) || !strings.Contains(status, `"backend_down": 1`) {
		t.Errorf("status: %s", status)
	}

	// A reload changes nothing of it: not even for a moment is the one that is down picked.
	in.write(text + "jitter = 10\n")
	in.signal(syscall.SIGHUP)
	in.wantLog("msg=reloaded")
	if got := heard(); got["b"] != 10 {
		t.Errorf("a is down, after a reload: %v", got)
	}

	b.leave()
	in.wantLog(`level=ERROR msg="no backend of the pool is up" pool=p panic_threshold=50`)
	a.come() // panic: it is found before its check does
	lbtest.Eventually(t, "it is used", func() bool { return heard()["a"] > 0 })
	in.wantLog(`level=INFO msg="backend is up" pool=p backend=` + a.address + ` why="it accepts connections" was=down for=`)
	in.wantLog(`msg="the pool has a backend that is up again" pool=p`)
	if got := heard(); got["a"] != 10 {
		t.Errorf("b is down: %v", got)
	}
	_, events := get(t, "GET", url+"/api/v1/events")
	if strings.Count(events, `"to": "down"`) != 2 || strings.Count(events, `"to": "up"`) != 1 {
		t.Errorf("events: %s", events)
	}

	// Without a check everybody is up.
	in.write(toml(b.address, admin0))
	in.signal(syscall.SIGHUP)
	in.wantLog(`why="it is not checked any more"`)
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
}

// TestHealthFiles: what a check needs and is not there is told by check, at the start and at a reload, which then changes
// nothing.
func TestHealthFiles(t *testing.T) {
	text := toml(lbtest.Refused(t), admin0)
	missing := text + "[pools.p.health]\nkind = \"tls\"\nca = \"/nonexistent/ca.pem\"\n"
	path := filepath.Join(t.TempDir(), "awe4lb.toml")
	if err := os.WriteFile(path, []byte(missing), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "run"} {
		if code, _, stderr := result(t, command, "--config", path); code != 1 || !strings.Contains(stderr, "pools.p.health: ca: stat /nonexistent/ca.pem: no such file or directory") {
			t.Errorf("%s: exit code %d, %q", command, code, stderr)
		}
	}
	in := startInstance(t, text)
	in.write(missing)
	if code, body := get(t, "POST", in.adminURL()+"/api/v1/reload"); code != 422 || !strings.Contains(body, "/nonexistent/ca.pem") {
		t.Errorf("%d %s", code, body)
	}
}

// TestAgentTakesEffect: what an agent says of weight, drain and maintenance is in force, and in the history.
func TestAgentTakesEffect(t *testing.T) {
	a, b := lbtest.Named(t, "a"), lbtest.Named(t, "b")
	var says atomic.Value
	says.Store("ready 100%")
	agent := lbtest.Serve(t, func(c *net.TCPConn) { fmt.Fprintln(c, says.Load()) })
	_, port, _ := net.SplitHostPort(agent)
	in := startInstance(t, "[admin]\nbind = '127.0.0.1:0'\n[frontends.f]\nbind = ['127.0.0.1:0']\npool = 'p'\n[pools.p]\nbackends = [{address = '"+a+"', weight = 10}]\n"+
		"health = {kind = 'agent', port = "+port+", interval = '100ms'}\n[pools.q]\nbackends = [{address = '"+b+"'}]\n")
	url := in.adminURL()
	for _, tc := range []struct{ says, want string }{
		{"25%", `"weight": 2,`}, {"drain", `"state": "drain"`}, {"maint", `"agent_order": "maintenance"`}, {"ready 0%", `"state": "disabled"`}, {"150%", `"weight": 15,`},
	} {
		says.Store(tc.says)
		lbtest.Eventually(t, tc.says+" is in force", func() bool {
			_, status := get(t, "GET", url+"/api/v1/status")
			return strings.Contains(status, tc.want)
		})
	}
	_, events := get(t, "GET", url+"/api/v1/events")
	for _, want := range []string{`"what": "agent"`, `"to": "drain"`, `"to": "15"`, `"why": "the agent says 150%"`} {
		if !strings.Contains(events, want) {
			t.Errorf("no %s in %s", want, events)
		}
	}
	in.wantLog(`msg="an agent has changed the state of its backend" pool=p`)
}
