package main

import (
	"encoding/json"
	"errors"
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

// inFile returns the text of the file that the process was started with.
func (in *instance) inFile() string {
	in.t.Helper()
	text, err := os.ReadFile(in.path)
	if err != nil {
		in.t.Fatal(err)
	}
	return string(text)
}

// TestChangeCommands: backends, pools and frontends come and go: shown first, in words and as lines, then done, in memory or in
// the file; sessions go on all the while.
func TestChangeCommands(t *testing.T) {
	old := toml(lbtest.Echo(t), admin0)
	other := lbtest.Echo(t)
	in := startInstance(t, old)
	c := dial(t, in.address("f"))
	ask(t, c, "before")

	// Nothing is done by a dry run, or without an answer.
	shown := in.run(0, "backend p/"+other+" added", "backend", "add", "p/"+other, "--weight", "3", "--dry-run")
	if !strings.Contains(shown, "- ") || !strings.Contains(shown, "+ ") || !strings.Contains(shown, "weight = 3") {
		t.Errorf("no lines: %s", shown)
	}
	etag := strings.TrimSpace(shown[strings.LastIndex(shown, "etag ")+5:])
	in.run(2, "add "+other+" to the pool p? There is no terminal to ask: want --yes", "backend", "add", "p/"+other)
	if text := in.run(0, `"dry_run": true`, "backend", "add", "p/"+other, "--dry-run", "-o", "json"); !json.Valid([]byte(text)) {
		t.Errorf("no JSON: %s", text)
	}
	if got := in.run(0, "", "backends", "p"); strings.Contains(got, other) {
		t.Errorf("it was done: %s", got)
	}
	s := onTerminal(t, 120, 30, nil, "backend", "add", "p/"+other, "--admin", in.adminURL())
	s.wants("added", "add "+other+" to the pool p? y/N")
	s.press("n\n")
	s.wants("nothing is done")

	// In memory, by who has seen what runs; then not again by who has not.
	in.run(0, "in memory only: a reload drops it", "backend", "add", "p/"+other, "--weight", "3", "--yes", "--if-match", etag)
	in.run(0, other+"  up     -      3", "backends", "p")
	in.run(1, "somebody has changed it meanwhile", "backend", "remove", "p/"+other, "--yes", "--if-match", etag)
	in.run(0, "backend p/"+other+" removed", "backend", "remove", "p/"+other, "--yes")
	in.run(1, "there is no backend", "backend", "delete", "p/"+other, "--yes")
	in.run(2, `got "p"; want POOL/BACKEND`, "backend", "remove", "p")
	if got := in.inFile(); got != old {
		t.Errorf("the file is %s", got)
	}

	in.run(0, "in memory only", "backend", "add", "p/"+other, "--yes")
	in.run(0, "backend p/"+other+" removed", "reload")

	// A pool and a frontend, into the file and out of it.
	table := in.file("blue.table", "{\"backends\": [{\"address\": \""+other+"\"}]}")
	in.run(0, "pool blue added", "pool", "put", "blue", table, "--yes", "--persist")
	in.run(0, "frontend blue added", "frontend", "put", "blue", in.file("front.toml", "bind = [\"127.0.0.1:0\"]\npool = \"blue\"\n"), "--yes", "--persist")
	if got := in.inFile(); !strings.Contains(got, "[pools.blue]") || !strings.Contains(got, "[frontends.blue]") {
		t.Errorf("the file is %s", got)
	}
	type frontend struct {
		Name      string
		Listeners []string
	}
	var list struct{ Frontends []frontend }
	if err := json.Unmarshal([]byte(in.run(0, "{", "frontends", "-o", "json")), &list); err != nil || len(list.Frontends) != 2 {
		t.Fatalf("%v, %+v", err, list)
	}
	b := dial(t, list.Frontends[slices.IndexFunc(list.Frontends, func(f frontend) bool { return f.Name == "blue" })].Listeners[0])
	ask(t, b, "blue")
	in.run(1, "frontends.blue.pool", "pool", "delete", "blue", "--yes") // it is used
	in.run(1, "frontends.blue.nonsense", "frontend", "put", "blue", in.file("bad.toml", "nonsense = 1\n"), "--dry-run")
	in.run(0, "frontend blue removed", "frontend", "delete", "blue", "--yes", "--persist")
	in.run(0, "pool blue removed", "pool", "remove", "blue", "--yes", "--persist")
	if got := in.inFile(); strings.TrimSpace(got) != strings.TrimSpace(old) {
		t.Errorf("the file is %s", got)
	}
	ask(t, b, "goes on") // its frontend has gone
	ask(t, c, "goes on")
}

// TestChangeBesideOthers: what somebody else changes after it was shown what would change is not overwritten.
func TestChangeBesideOthers(t *testing.T) {
	in := startInstance(t, toml(lbtest.Echo(t), admin0))
	s := onTerminal(t, 120, 30, nil, "pool", "put", "mine", in.file("mine.toml", "policy = \"p2c\"\n"), "--admin", in.adminURL())
	s.wants("pool mine added", "make or replace the pool mine? y/N")
	in.run(0, "pool theirs added", "pool", "put", "theirs", in.file("theirs.toml", "policy = \"p2c\"\n"), "--yes")
	s.press("y\n")
	s.wants("somebody has changed it meanwhile")
	_ = s.cmd.Wait()
	if code := s.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if got := in.run(0, "theirs", "pools"); strings.Contains(got, "mine") {
		t.Errorf("it was done: %s", got)
	}
}

// TestCommandsThatLookCloser: limits, who is near them, who sticks where, certificates, shards, history, audit.
func TestCommandsThatLookCloser(t *testing.T) {
	backend := lbtest.Echo(t)
	cert := filepath.Join(t.TempDir(), "f.pem")
	in := startInstance(t, strings.Replace(toml(backend, admin0), "pool = \"p\"\n", "pool = \"p\"\nmax_connections_per_source = 1\n", 1)+
		"[pools.p.persistence]\nkey = \"source\"\n"+
		"[frontends.s]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[frontends.s.tls]\ncertificates = [{ cert = \""+cert+"\", self_signed = [\"shop.example\"] }]\n")
	in.run(0, "no limit was met\n", "limits", "--met")
	in.run(0, "none\n", "limits", "sources")
	in.run(0, "none\n", "persistence", "list", "p")
	in.run(1, "there is no client", "persistence", "get", "p", "127.0.0.1")
	c := dial(t, in.address("f"))
	ask(t, c, "hello")
	if more, err := net.Dial("tcp", in.address("f")); err == nil { // the refusal may come so soon that the connect sees it
		defer more.Close()
		_ = more.SetDeadline(time.Now().Add(20 * time.Second))
		wantCut(t, more)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}

	in.run(0, "frontend  f     max_connections_per_source  1      -    -     1", "limits", "--met")
	in.run(0, "engine.max_connections", "limits")
	in.run(0, "f         127.0.0.1  1     1      100%", "limits", "sources", "--frontend", "f")
	in.run(1, `there is no frontend "q"`, "limits", "sources", "--frontend", "q")
	in.run(1, "limit: got 0; want 1 to 1000", "limits", "sources", "--limit", "0")

	in.run(0, "p     1        ", "persistence")
	in.run(0, "127.0.0.1  "+backend, "persistence", "list", "p", "--all")
	in.run(0, "127.0.0.1  "+backend, "persistence", "get", "p", "127.0.0.1")
	in.run(1, `client: got "nobody"; want an address`, "persistence", "get", "p", "nobody")
	in.run(0, "127.0.0.1: forgotten\n", "persistence", "forget", "p", "127.0.0.1")
	in.run(1, "there is no client", "persistence", "forget", "p", "127.0.0.1")
	in.run(2, "forget all clients of p? There is no terminal to ask: want --yes", "persistence", "clear", "p")
	in.run(0, "0 clients forgotten\n", "persistence", "clear", "p", "--yes")
	in.run(1, `there is no pool "q"`, "persistence", "clear", "q", "--yes")

	in.run(0, "shop.example  s        20", "certificates")
	in.run(0, "FINGERPRINT", "certificates", "-o", "wide")
	in.run(0, "SHARD  SESSIONS", "shards")
	in.run(0, "anonymous, role configure\n", "whoami")
	in.run(0, "awe4lb dev", "version", "--running")
	in.run(0, "404     DELETE  /api/v1/persistence/p/127.0.0.1", "audit")
	if got := in.run(0, "DELETE", "audit", "--failed", "--limit", "1"); strings.Count(got, "\n") != 2 || !strings.Contains(got, "/api/v1/persistence/q ") {
		t.Errorf("the last failure: %s", got)
	}
	lbtest.Eventually(t, "a step of the history has passed", func() bool {
		_, text := in.call("GET", "/api/v1/history", "")
		return !strings.Contains(text, `"sessions": []`)
	})
	if got := in.run(0, "NEW/s", "history", "--limit", "1"); strings.Count(got, "\n") != 2 {
		t.Errorf("one step: %s", got)
	}
	for _, args := range [][]string{{"limits"}, {"limits", "sources"}, {"persistence"}, {"persistence", "list", "p"}, {"certificates"}, {"shards"}, {"history"}, {"audit"}, {"whoami"}, {"version", "--running"}} {
		if text := in.run(0, "{", append(args, "-o", "json")...); !json.Valid([]byte(text)) {
			t.Errorf("%v: no JSON: %s", args, text)
		}
	}
}

// TestShutdownCommand: it asks, says what is open, waits for the sessions, and for the end.
func TestShutdownCommand(t *testing.T) {
	in := startInstance(t, "[engine]\ndrain_timeout = \"20s\"\n"+toml(lbtest.Echo(t), admin0))
	c := dial(t, in.address("f"))
	ask(t, c, "hello")
	in.run(2, ", with 1 session and 0 flows? There is no terminal to ask: want --yes", "shutdown")
	in.run(2, "There is no terminal to ask", "upgrade")
	in.run(1, "admin.upgrade names no program", "upgrade", "--yes")
	ask(t, c, "still here")
	in.run(1, "it has not ended after 50ms", "shutdown", "--yes", "--wait", "50ms")
	ask(t, c, "still here")
	c.Close()
	lbtest.Eventually(t, "it has ended", func() bool {
		code, _, _ := result(t, "version", "--running", "--admin", in.adminURL())
		return code == 3
	})
	in.run(3, "nobody listens there", "shutdown", "--yes")
}
