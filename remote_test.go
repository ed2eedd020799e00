package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/crypto/bcrypt"
)

// run runs a command on in, and wants an exit code and parts of what it prints: on standard output where that is 0.
func (in *instance) run(code int, want string, args ...string) string {
	in.t.Helper()
	got, stdout, stderr := result(in.t, append(args, "--admin", in.adminURL())...)
	text := stdout
	if code != 0 {
		text = stderr
	}
	if got != code || !strings.Contains(text, want) {
		in.t.Errorf("awe4lb %s: exit code %d\n%s%s\nwant %d and %q", strings.Join(args, " "), got, stdout, stderr, code, want)
	}
	return stdout
}

// TestCommandsThatLook: each prints what it promises, as text and as the JSON of the API.
func TestCommandsThatLook(t *testing.T) {
	backend := lbtest.Echo(t)
	in := startInstance(t, strings.Replace(toml(backend, admin0), "[pools.p]\n", "[pools.p]\nhealth = { kind = \"tcp\", interval = \"100ms\" }\n", 1))
	c := dial(t, in.address("f"))
	ask(t, c, "hello")
	lbtest.Eventually(t, "the backend was probed", func() bool {
		_, text := in.call("GET", "/api/v1/health", "")
		return strings.Contains(text, `"good"`)
	})
	client := c.LocalAddr().String()
	in.run(0, "awe4lb dev, running, up ", "status")
	in.run(0, "sessions 1 of ", "status")
	in.run(0, "f         tcp       "+in.address("f"), "frontends")
	in.run(0, "LIMIT  ROUTES  ENDED", "frontends", "-o", "wide")
	in.run(0, "p     roundrobin  1   0     0      1     0        0", "pools")
	in.run(0, backend+"  up ", "backends")
	in.run(0, "tcp up", "backends", "p")
	in.run(0, "C2B/s", "backends", "-o", "wide")
	in.run(1, `there is no pool "q"`, "backends", "q")
	in.run(0, client, "sessions")
	in.run(0, client, "sessions", "--pool", "p", "--backend", backend, "--client", "127.0.0.0/8", "--sort", "age", "--protocol", "tcp", "--frontend", "f", "-o", "wide")
	in.run(0, "none", "sessions", "--client", "10.0.0.0/8")
	in.run(1, "limit: got 5000", "sessions", "--limit", "5000")
	in.run(0, "+", "health", "--pool", "p")
	in.run(0, "info\n", "log-level")
	in.run(2, `--output: got "xml"; want json, text or wide`, "status", "-o", "xml")
	in.run(2, "got 2 arguments; want: awe4lb backends [POOL]\n", "backends", "p", "q")

	for _, args := range [][]string{{"status"}, {"frontends"}, {"pools"}, {"backends"}, {"backends", "p"}, {"sessions"}, {"events"}, {"health"}, {"log-level"},
		{"enable", "p/" + backend}, {"weight", "p/" + backend, "reset"}, {"kill", "--pool", "p", "--dry-run"}, {"reload"}} {
		text := in.run(0, "{", append(args, "-o", "json")...)
		if !json.Valid([]byte(text)) {
			t.Errorf("%v: no JSON: %s", args, text)
		}
	}
}

func TestCommandsThatChange(t *testing.T) {
	backend := lbtest.Echo(t)
	in := startInstance(t, toml(backend, admin0))
	name := "p/" + backend
	c := dial(t, in.address("f"))
	ask(t, c, "hello")

	in.run(0, name+": drain, weight 1, 1 open\n", "drain", name)
	in.run(1, "1 still open after 10ms", "drain", "--wait", "10ms", name)
	in.run(0, "drain", "backends", "p")
	in.run(0, name+": maintenance", "maintenance", name)
	in.run(0, name+": up", "enable", name)
	in.run(0, name+": up, weight 5", "weight", name, "5")
	in.run(0, "5 (1)", "backends")
	in.run(0, name+": disabled, weight 0", "weight", name, "0")
	in.run(0, name+": up, weight 1", "weight", name, "reset")
	in.run(1, "weight: got 1001", "weight", name, "1001")
	in.run(2, `weight: got "x"; want a number from 0 to 1000, or reset`, "weight", name, "x")
	in.run(2, "want POOL/BACKEND", "drain", "p")
	in.run(1, "there is no backend", "drain", "p/127.0.0.1:1")
	in.run(0, "order up → drain: drain (by anonymous)", "events")
	if lines := strings.Split(strings.TrimSpace(in.run(0, "weight", "events", "--limit", "1")), "\n"); len(lines) != 1 {
		t.Errorf("--limit 1: %q", lines)
	}

	in.run(0, "debug\n", "log-level", "debug")
	in.run(1, `level: got "loud"`, "log-level", "loud")
	in.run(0, "nothing changes", "reload")
	in.write(toml("127.0.0.1:99999", admin0))
	in.run(1, "want a port", "reload")

	in.run(2, "want ids, or filters, or --all", "kill")
	in.run(2, "There is no terminal to ask: want --yes", "kill", "--pool", "p")
	in.run(0, "1 session would end", "kill", "--pool", "p", "--dry-run")
	ask(t, c, "still here")
	in.run(0, "1 session ended", "kill", "--pool", "p", "--yes")
	wantCut(t, c)
	in.run(0, "", "drain", "--wait", "10s", name)
	in.run(0, "", "enable", name)

	c = dial(t, in.address("f"))
	ask(t, c, "hello")
	var list struct{ Sessions []struct{ ID string } }
	if err := json.Unmarshal([]byte(in.run(0, "{", "sessions", "-o", "json")), &list); err != nil || len(list.Sessions) != 1 {
		t.Fatalf("%v, %v", err, list)
	}
	in.run(0, list.Sessions[0].ID+": ended", "kill", list.Sessions[0].ID)
	wantCut(t, c)
	in.run(1, "there is no session", "kill", list.Sessions[0].ID)
}

func wantCut(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the session was not cut: %v", err)
	}
}

// TestDiscoveryCommands: what sources say is seen, asked for anew, and a list that is held back accepted.
func TestDiscoveryCommands(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"]`)
	in := startInstance(t, admin0+"[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[pools.p.discovery]\nkind = \"file\"\npath = \""+list+"\"\n")
	lbtest.Eventually(t, "the backends are found", func() bool {
		_, text := in.call("GET", "/api/v1/pools/p", "")
		return strings.Contains(text, "127.0.0.1:4")
	})
	in.run(0, "p     file:"+list+"  fresh", "discovery")
	in.run(0, "p discovery +4 -0 of 4", "events")
	write(`["127.0.0.1:1"]`)
	in.run(0, "p: its sources are being asked", "discovery", "refresh", "p")
	lbtest.Eventually(t, "the short list is held back", func() bool {
		_, text := in.call("GET", "/api/v1/discovery", "")
		return strings.Contains(text, "holding")
	})
	in.run(0, "holding", "discovery")
	in.run(0, "p discovery held (file:"+list+")", "events")
	in.run(0, "p: what was held back is in use", "discovery", "accept", "p")
	in.run(1, "held back", "discovery", "accept", "p")
	in.run(1, "there is no pool", "discovery", "refresh", "q")
}

// TestKillAsks: on a terminal it says how many sessions that are, and does nothing without yes.
func TestKillAsks(t *testing.T) {
	in := startInstance(t, toml(lbtest.Echo(t), admin0))
	c := dial(t, in.address("f"))
	ask(t, c, "hello")
	for _, tc := range []struct {
		answer, want string
		code         int
	}{{"\n", "nothing is done", 1}, {"no\n", "nothing is done", 1}, {"yes\n", "1 session ended", 0}} {
		ask(t, c, "still here")
		s := onTerminal(t, 80, 24, nil, "kill", "--all", "--admin", in.adminURL())
		s.wants("end 1 session? y/N")
		s.press(tc.answer)
		s.wants(tc.want)
		_ = s.cmd.Wait()
		if code := s.cmd.ProcessState.ExitCode(); code != tc.code {
			t.Errorf("%q: exit code %d, want %d", tc.answer, code, tc.code)
		}
	}
	wantCut(t, c)
}

// TestCredentials: who one is can be said in each way, and is told apart from not being reached.
func TestCredentials(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	backend := lbtest.Echo(t)
	in := startInstance(t, toml(backend, admin0+"[admin.users.ops]\npassword_hash = \""+string(hash)+"\"\nrole = \"operate\"\n[admin.tokens.eyes]\ntoken = \"0123456789abcdef\"\n"))
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(env string, code int, want string, args ...string) {
		t.Helper()
		name, value, _ := strings.Cut(env, "=")
		t.Setenv(name, value)
		in.run(code, want, args...)
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	in.run(4, "this needs credentials of role read (--token-file, $AWE4LB_TOKEN or --user)", "status")
	in.run(0, "running", "status", "--token-file", token)
	with("AWE4LB_TOKEN=0123456789abcdef", 0, "running", "status")
	with("AWE4LB_TOKEN=fedcba9876543210", 4, "wrong credentials", "status")
	with("AWE4LB_TOKEN=0123456789abcdef", 4, "this needs the role operate; eyes has read", "drain", "p/"+backend)
	with("AWE4LB_PASSWORD=correct horse", 0, "drain", "drain", "p/"+backend, "--user", "ops")
	with("AWE4LB_PASSWORD=wrong", 4, "wrong credentials", "status", "--user", "ops")
	in.run(2, "no password: want it in $AWE4LB_PASSWORD, or a terminal to ask", "status", "--user", "ops")
	in.run(2, "--token-file: open", "status", "--token-file", token+".gone")
	in.run(2, "none of the others can be", "status", "--token-file", token, "--user", "ops")

	s := onTerminal(t, 80, 24, nil, "pools", "--user", "ops", "--admin", in.adminURL())
	s.wants("Password of ops: ")
	s.press("correct horse\n")
	s.wants("roundrobin")
	if strings.Contains(s.vt.String(), "horse") {
		t.Error("the password shows")
	}

	// Who thinks better of it gets the terminal back as it was.
	s = onTerminal(t, 80, 24, nil, "pools", "--user", "ops", "--admin", in.adminURL())
	s.wants("Password of ops: ")
	s.press("\x03")
	if err := s.cmd.Wait(); s.cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("Ctrl-C: it ended with %v", err)
	}
	s.wants("no password was typed")
	if after := s.modes(); *after != *s.before {
		t.Errorf("after Ctrl-C the terminal is not as it was: %+v, %+v", s.before, after)
	}
}

// TestWhereTheAdminIs: by flag, environment and configuration; and what is said where there is none.
func TestWhereTheAdminIs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	in := startInstance(t, toml(lbtest.Refused(t), "[admin]\nbind = \"unix:"+socket+"\"\n"))
	t.Setenv("AWE4LB_ADMIN", "127.0.0.1:1")
	other := filepath.Join(t.TempDir(), "other.toml")
	for text, want := range map[string]string{admin0: "admin.bind has port 0", "": "the admin is off", "x = 1\n" + admin0: "1 mistake"} {
		if err := os.WriteFile(other, []byte(toml("127.0.0.1:1", text)), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := result(t, "status", "--config", other); code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, %s", text, code, stderr)
		}
	}
	notOurs := lbtest.Serve(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	})
	for _, tc := range []struct {
		args []string
		code int
		want string // "": all is well
	}{
		{[]string{"--admin", "unix:" + socket}, 0, ""},
		{[]string{"--config", in.path}, 0, ""},
		{nil, 3, "connection refused: nobody listens there; --admin or $AWE4LB_ADMIN says where awe4lb does"},
		{[]string{"--admin", "unix:" + socket + ".gone"}, 3, "nobody listens there"},
		{[]string{"--admin", notOurs}, 3, "this is not the admin of an awe4lb"},
		{[]string{"--admin", "nowhere"}, 2, `got "nowhere"; want host:port`},
		{[]string{"--admin", "x:1", "--config", in.path}, 2, "none of the others can be"},
	} {
		code, _, stderr := result(t, append([]string{"status"}, tc.args...)...)
		if code != tc.code || !strings.Contains(stderr, tc.want) || tc.want == "" && stderr != "" {
			t.Errorf("%v: exit code %d, %q; want %d, %q", tc.args, code, stderr, tc.code, tc.want)
		}
	}
	t.Setenv("AWE4LB_ADMIN", "unix:"+socket)
	if code, _, stderr := result(t, "status"); code != 0 {
		t.Errorf("by $AWE4LB_ADMIN: exit code %d, %s", code, stderr)
	}
}

// TestCompletionOfWhatRuns: Tab offers what runs; and nothing, at once, where nothing does.
func TestCompletionOfWhatRuns(t *testing.T) {
	backend := lbtest.Refused(t)
	in := startInstance(t, toml(backend, admin0))
	for _, tc := range []struct {
		words []string
		want  string
	}{
		{[]string{"drain", ""}, "p/" + backend + "\tup\n:4\n"},
		{[]string{"drain", "p/" + backend, ""}, ":4\n"},
		{[]string{"weight", "p"}, "p/" + backend + "\tup\n:4\n"},
		{[]string{"backends", ""}, "p\n:4\n"},
		{[]string{"sessions", "--frontend", ""}, "f\n:4\n"},
		{[]string{"kill", "--backend", ""}, backend + "\tof p\n:4\n"},
		{[]string{"backend", "add", ""}, "p/\n:4\n"},
		{[]string{"backend", "remove", ""}, "p/" + backend + "\tup\n:4\n"},
		{[]string{"pool", "put", ""}, "p\n:4\n"},
		{[]string{"pool", "put", "p", ""}, ":0\n"},
		{[]string{"frontend", "delete", ""}, "f\n:4\n"},
		{[]string{"persistence", "get", ""}, "p\n:4\n"},
		{[]string{"limits", "sources", "--frontend", ""}, "f\n:4\n"},
		{[]string{"log-level", ""}, "debug\ninfo\nwarn\nerror\n:"},
		{[]string{"status", ""}, ":4\n"},
		{[]string{"kill", ""}, ":4\n"},
		{[]string{"config", "rollback", ""}, ":4\n"},
		{[]string{"config", "apply", ""}, ":0\n"},
		{[]string{"convert", ""}, ":0\n"},
		{[]string{"status", "-o", ""}, "json\ntext\nwide\n:4\n"},
	} {
		t.Setenv("AWE4LB_ADMIN", in.adminURL())
		if code, stdout, _ := result(t, append([]string{"__complete"}, tc.words...)...); code != 0 || !strings.HasPrefix(stdout, tc.want) {
			t.Errorf("%q: %q, want %q", tc.words, stdout, tc.want)
		}
	}
	t.Setenv("AWE4LB_ADMIN", lbtest.Blackhole(t))
	began := time.Now()
	if code, stdout, _ := result(t, "__complete", "drain", ""); code != 0 || stdout != ":4\n" {
		t.Errorf("%d, %q", code, stdout)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a shell hangs on Tab for %v", took)
	}
}

// TestEventsFollow: what happened before, and each thing that happens then, once; also after the process was started anew.
func TestEventsFollow(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	backend := lbtest.Refused(t)
	text := toml(backend, "[admin]\nbind = \"unix:"+socket+"\"\n")
	in := startInstance(t, text)
	cli := func(args ...string) {
		t.Helper()
		if code, _, stderr := result(t, append(args, "--admin", "unix:"+socket)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	cli("drain", "p/"+backend)
	follow := command("events", "--follow", "-o", "json", "--admin", "unix:"+socket)
	lines, stop := linesOf(t, follow)
	defer stop()
	wants := func(to string) {
		t.Helper()
		select {
		case line := <-lines:
			var e struct{ To string }
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.To != to {
				t.Fatalf("%s, %v; want to %s", line, err, to)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing came; want to %s", to)
		}
	}
	wants("drain")
	cli("enable", "p/"+backend)
	wants("up")
	cli("maintenance", "p/"+backend)
	wants("maintenance")
	_ = in.cmd.Process.Kill()
	<-in.ended
	startInstance(t, text)
	cli("drain", "p/"+backend)
	wants("drain")
}

// linesOf starts a command and returns the lines that it prints.
func linesOf(t *testing.T, c *exec.Cmd) (lines chan string, stop func()) {
	t.Helper()
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines = make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines, func() {
		_ = c.Process.Kill()
		<-ended
		_ = c.Wait()
	}
}
