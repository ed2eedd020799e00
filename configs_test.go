package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// send is call with TOML, and headers given as pairs.
func (in *instance) send(method, path, body string, headers ...string) (int, string) {
	in.t.Helper()
	req, err := http.NewRequest(method, in.adminURL()+path, strings.NewReader(body))
	if err != nil {
		in.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/toml")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
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

// wants sends a request, makes sure of the status and of a part of the answer, and returns it.
func (in *instance) wants(status int, part, method, path, body string, headers ...string) string {
	in.t.Helper()
	code, text := in.send(method, path, body, headers...)
	if code != status || !strings.Contains(text, part) {
		in.t.Fatalf("%s %s: %d; want %d and %q: %s", method, path, code, status, part, text)
	}
	return text
}

// TestSelectedConfigs: what is selected runs, also after a reload and the next start, and lets its own admin in.
func TestSelectedConfigs(t *testing.T) {
	main := toml(lbtest.Echo(t), "[admin]\nbind = \"127.0.0.1:0\"\nanonymous = \"configure\"\n")
	in := startInstance(t, main)
	c := dial(t, in.address("f"))
	ask(t, c, "before")
	blue := strings.Replace(strings.ReplaceAll(main, "frontends.f", "frontends.blue"), "anonymous = \"configure\"", "anonymous = \"none\"", 1)
	in.wants(200, `"name": "blue"`, "PUT", "/api/v1/configs/blue", blue)
	in.wants(200, "frontend\",", "POST", "/api/v1/configs/blue/validate", "")
	in.wants(200, "blue", "POST", "/api/v1/configs/blue/select", "")
	if strings.Contains(in.log(), "acme storage") {
		t.Error("paths of files mean something else in another configuration")
	}
	ask(t, c, "a session goes on")
	in.wants(200, `"name": "blue"`, "GET", "/api/v1/status", "") // though blue lets nobody in
	in.signal(syscall.SIGHUP)
	in.wantLog("msg=reloaded")
	in.wants(200, `"name": "blue"`, "GET", "/api/v1/status", "")
	c.Close()

	again := startAgain(t, in)
	again.wantLog(`selected in place of the file" config=blue`)
	ask(t, dial(t, again.address("blue")), "after a start")
	again.wants(200, "listener", "POST", "/api/v1/configs/stop", "")
	again.wants(200, `"stopped": true`, "GET", "/api/v1/status", "")
	if _, err := net.Dial("tcp", again.address("blue")); err == nil {
		t.Error("stopped, and somebody listens")
	}
	again.wants(200, "frontend", "POST", "/api/v1/configs/main/select", "")
	again.wants(200, `"name": "main"`, "GET", "/api/v1/status", "")
}

// TestSelectedConfigThatIsGone: a start says so, and how to go back.
func TestSelectedConfigThatIsGone(t *testing.T) {
	in := startInstance(t, toml(lbtest.Echo(t), admin0))
	in.wants(200, "", "PUT", "/api/v1/configs/blue", toml(lbtest.Echo(t), admin0))
	in.wants(200, "", "POST", "/api/v1/configs/blue/select", "")
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
	blue := filepath.Join(filepath.Dir(in.path), "awe4lb.d", "blue.toml")
	if err := os.WriteFile(blue, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := result(t, "run", "--config", in.path); code != 1 || !strings.Contains(stderr, "blue.toml:1: nonsense") {
		t.Errorf("with a mistake: %d %s", code, stderr)
	}
	if err := os.Remove(blue); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := result(t, "run", "--config", in.path); code != 1 || !strings.Contains(stderr, "the configuration blue is selected") || !strings.Contains(stderr, "active") {
		t.Errorf("gone: %d %s", code, stderr)
	}
}

// startAgain ends a process and starts another with its file.
func startAgain(t *testing.T, in *instance) *instance {
	t.Helper()
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
	text, err := os.ReadFile(in.path)
	if err != nil {
		t.Fatal(err)
	}
	again := startInstanceIn(t, filepath.Dir(in.path), string(text))
	return again
}

// TestDryRunChangesNothing: neither what runs nor what is open nor what is on the disk, whatever the outcome.
func TestDryRunChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text := toml(lbtest.Echo(t), admin0+"configs = \"kept\"\n")
	in := startInstance(t, text)
	c := dial(t, in.address("f"))
	ask(t, c, "before")
	folder := filepath.Join(filepath.Dir(in.path), "kept")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().String()
	free.Close()
	dry := func(change func(string) string) string {
		return in.wants(200, "", "POST", "/api/v1/configs/main/validate", change(text))
	}
	rebound := func(address string) string {
		return dry(func(s string) string { return strings.Replace(s, "127.0.0.1:0\"]", address+"\"]", 1) })
	}
	rebound(port) // the first opens what the admin needs
	fds, config := in.descriptors(), in.wants(200, "", "GET", "/api/v1/config", "")
	for range 10 {
		if v := rebound(port); !strings.Contains(v, `"ok": true`) || !strings.Contains(v, fmt.Sprintf("%q,\n      \"action\": \"added\"", port)) || !strings.Contains(v, `"removed"`) {
			t.Fatalf("a free address: %s", v)
		}
		if v := rebound(taken.Addr().String()); !strings.Contains(v, `"ok": false`) || !strings.Contains(v, "another process listens there") {
			t.Fatalf("a taken address: %s", v)
		}
		v := dry(func(s string) string {
			return strings.Replace(s, "[pools.p]\nbackends = [{", "[pools.p]\non_removed = \"drain\"\nbackends = [{ address = \"127.0.0.1:9\" }] # {", 1)
		})
		if !strings.Contains(v, "1 session is drained within 30s") || !strings.Contains(v, "p/127.0.0.1:9") {
			t.Fatalf("a backend goes: %s", v)
		}
		if v := dry(func(s string) string { return "[engine]\nshards = 7\n[acme]\nstorage = \"/nowhere/acme\"\n" + s }); !strings.Contains(v, "names files") && !strings.Contains(v, "may name files") {
			t.Fatalf("a folder elsewhere: %s", v)
		}
		if v := dry(func(s string) string { return "[engine]\nshards = 7\n" + s }); !strings.Contains(v, `"engine.shards"`) {
			t.Fatalf("what needs a restart: %s", v)
		}
	}
	if n := in.descriptors(); n > fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
	if now := in.wants(200, "", "GET", "/api/v1/config", ""); now != config || now != text {
		t.Errorf("what runs is %s", now)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
	ask(t, c, "a session goes on")
	ask(t, dial(t, in.address("f")), "and the listener is there")
}

// TestWhatTheAPIMayNotBring: programs, foreign files, and an admin that its caller could not take back.
func TestWhatTheAPIMayNotBring(t *testing.T) {
	token := "[admin.tokens.ops]\ntoken = \"${OPS}\"\nrole = \"configure\"\n[admin.tokens.eyes]\ntoken = \"eyes-0123456789abcdef\"\n"
	text := toml(lbtest.Echo(t), admin0+token)
	in := startInstance(t, text, "OPS=ops-0123456789abcdef")
	ops := []string{"Authorization", "Bearer ops-0123456789abcdef"}
	eyes := []string{"Authorization", "Bearer eyes-0123456789abcdef"}
	run := "[pools.p.health]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"id\"]\n"
	for _, name := range []string{"main", "x"} {
		in.wants(422, "may not start programs", "PUT", "/api/v1/configs/"+name, text+run, ops...)
		in.wants(422, "may name files in", "PUT", "/api/v1/configs/"+name, "[log]\noutput = \"/etc/cron.d/x\"\n"+text, ops...)
	}
	in.wants(422, "the API cannot turn this on", "PUT", "/api/v1/configs/main", strings.Replace(text, admin0, admin0+"allow_exec = true\n", 1), ops...)
	in.wants(409, "would not have the role configure", "PUT", "/api/v1/configs/main", strings.Replace(text, `role = "configure"`, `role = "operate"`, 1), ops...)
	in.wants(409, "the admin would be off", "PUT", "/api/v1/configs/main", strings.Replace(text, admin0, "[admin]\nbind = \"\"\n", 1), ops...)
	in.wants(409, "would not have the role configure", "PUT", "/api/v1/configs/main", strings.Replace(text, "tokens.ops", "tokens.other", 1), ops...)

	// A draft with mistakes is stored unread, so that it is looked at when it is to run.
	in.wants(200, "", "PUT", "/api/v1/configs/x", text+run+"nonsense = 1\n", ops...)
	path := filepath.Join(filepath.Dir(in.path), "awe4lb.d", "x.toml")
	if err := os.WriteFile(path, []byte(text+run), 0o600); err != nil {
		t.Fatal(err)
	}
	in.wants(422, "may not start programs", "POST", "/api/v1/configs/x/select", "", ops...)

	// What the file has already is not what the API brings.
	in.write(text + "[pools.q]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/true\"] }\n")
	in.wants(200, "pool", "POST", "/api/v1/reload", "", ops...)
	in.wants(200, "", "PUT", "/api/v1/configs/main", text+"[pools.q]\nbackends = []\nhealth = { kind = \"exec\", command = [\"/bin/true\"] }\n# more\n", ops...)

	// Secrets are for who may change them.
	in.wants(403, "", "PUT", "/api/v1/configs/x", text, eyes...)
	for _, path := range []string{"/api/v1/config", "/api/v1/config?format=json", "/api/v1/configs/main", "/api/v1/configs/main/history/1"} {
		if got := in.wants(200, "(not shown)", "GET", path, "", eyes...); strings.Contains(got, "eyes-0123") {
			t.Errorf("%s: %s", path, got)
		}
	}
	in.wants(200, `token = "${OPS}"`, "GET", "/api/v1/configs/main", "", ops...)
	in.wants(200, "eyes-0123", "GET", "/api/v1/configs/main", "", ops...)
	shown := in.wants(200, "(not shown)", "GET", "/api/v1/config", "", ops...)
	in.wants(422, "this is what is shown in its place", "PUT", "/api/v1/configs/main", shown, ops...)
	if strings.Contains(in.log(), "eyes-0123") {
		t.Error("a secret is in the log")
	}
}

// TestAdminStaysClosed: a reload does not open an admin that the network reaches.
func TestAdminStaysClosed(t *testing.T) {
	text := toml(lbtest.Echo(t), "[admin]\nbind = \"0.0.0.0:0\"\n[admin.tokens.a]\ntoken = \"a-0123456789abcdef\"\nrole = \"configure\"\n")
	in := startInstance(t, text)
	in.write(toml(lbtest.Echo(t), admin0)) // on loopback this is for everybody, and the address only changes at a start
	in.signal(syscall.SIGHUP)
	in.wantLog("reload refused.*others than this host reach it")
	port := in.wantLog(`msg="admin listening" address=\S+:(\d+)`)[1]
	res, err := http.Get("http://127.0.0.1:" + port + "/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p struct{ Status int }
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != 401 {
		t.Errorf("%d %v", res.StatusCode, err)
	}
}

// TestPlaceOfWhatTheHostRefuses: an address in use, or one that this host does not have, is told with its place as other mistakes
// are: the line where a text was sent or lies, a pointer where JSON was.
func TestPlaceOfWhatTheHostRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text := toml(lbtest.Refused(t), admin0)
	in := startInstance(t, text)
	type place struct {
		File, Key, Pointer, Message string
		Line                        int
	}
	want := func(status int, detail string, want place, method, path, body string, headers ...string) {
		t.Helper()
		code, text := in.send(method, path, body, headers...)
		var p struct {
			Detail string
			Errors []place
		}
		if err := json.Unmarshal([]byte(text), &p); err != nil || code != status || len(p.Errors) != 1 || !strings.HasPrefix(p.Detail, detail) {
			t.Fatalf("%s %s: %v, %d %s", method, path, err, code, text)
		}
		got := p.Errors[0]
		message := want.Key + ": "
		if want.Line > 0 {
			message = fmt.Sprintf("%s:%d: %s", want.File, want.Line, message)
		}
		if !strings.HasPrefix(got.Message, message) {
			t.Errorf("%s %s: the message is %q; want %q first", method, path, got.Message, message)
		}
		if got.Message = ""; got != want {
			t.Errorf("%s %s: got %+v; want %+v", method, path, got, want)
		}
	}
	asJSON := []string{"Content-Type", "application/json"}
	front := fmt.Sprintf(`{"pool": "p", "bind": ["127.0.0.1:0", %q]}`, taken.Addr())
	inUse := place{Key: "frontends.g.bind[1]", Pointer: "/bind/1"}
	want(409, "frontends.g.bind[1]: ", inUse, "PUT", "/api/v1/frontends/g", front, asJSON...)
	want(409, "frontends.g.bind[1]: ", inUse, "PUT", "/api/v1/frontends/g?dry_run=true", front, asJSON...)
	want(409, "frontends.g.bind[0]: ", place{Key: "frontends.g.bind[0]", Pointer: "/bind/0"}, "PUT", "/api/v1/frontends/g",
		`{"pool": "p", "bind": ["192.0.2.1:80-81"]}`, asJSON...)
	want(409, "pools.p.source[1]: ", place{Key: "pools.p.source[1]", Pointer: "/source/1"}, "PUT", "/api/v1/pools/p",
		`{"source": ["127.0.0.1", "192.0.2.1"], "backends": []}`, asJSON...)
	want(409, "pools.p.backends[1].address: ", place{Key: "pools.p.backends[1].address", Pointer: "/address"}, "POST", "/api/v1/pools/p/backends",
		`{"address": "[fe80::1%nowhere]:1"}`, asJSON...)

	_, table := in.send("GET", "/api/v1/pools/p/table", "")
	want(409, "body:2: ", place{File: "body", Line: 2, Key: "pools.p.source[0]"}, "PUT", "/api/v1/pools/p/table",
		strings.Replace(table, "[pools.p]\n", "[pools.p]\nsource = [\"192.0.2.1\"]\n", 1))

	more := fmt.Sprintf("[frontends.g]\npool = \"p\"\nbind = [\n  \"127.0.0.1:0\",\n  %q,\n]\n", taken.Addr())
	line := strings.Count(text, "\n") + 5
	path := filepath.Join(filepath.Dir(in.path), "awe4lb.d", "g.toml")
	in.wants(200, "", "PUT", "/api/v1/configs/g", text+more)
	want(409, path, place{File: path, Line: line, Key: "frontends.g.bind[1]"}, "POST", "/api/v1/configs/g/select", "")
	code, verdict := in.send("POST", "/api/v1/configs/g/validate", "")
	if code != 200 || !strings.Contains(verdict, fmt.Sprintf(`"line": %d,`, line)) || !strings.Contains(verdict, `"key": "frontends.g.bind[1]"`) {
		t.Errorf("%d %s", code, verdict)
	}
	in.write(text + more)
	want(409, in.path, place{File: in.path, Line: line, Key: "frontends.g.bind[1]"}, "POST", "/api/v1/reload", "")
	in.write("[log]\noutput = \"/nonexistent/x.log\"\n" + text)
	want(422, in.path, place{File: in.path, Line: 2, Key: "log.output"}, "POST", "/api/v1/reload", "")
	in.write(text + "[pools.p.health]\nkind = \"tls\"\nca = \"/nonexistent/ca.pem\"\n")
	want(422, in.path, place{File: in.path, Line: strings.Count(text, "\n") + 1, Key: "pools.p.health"}, "POST", "/api/v1/reload", "")
	in.write(text + "[frontends.f.tls]\ncertificates = [{ cert = \"/nonexistent/c.pem\" }]\n")
	want(422, "files", place{File: in.path, Line: strings.Count(text, "\n") + 2, Key: "frontends.f.tls.certificates[0].cert"}, "POST", "/api/v1/reload", "")
}
