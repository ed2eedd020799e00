package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// kept is what `config list -o json` says of a configuration.
type kept struct {
	Name, ETag string
	Active     bool
	Mistakes   int
}

// kept returns the configurations by name, and whether nothing runs.
func (in *instance) kept() (byName map[string]kept, stopped bool) {
	in.t.Helper()
	var list struct {
		Stopped bool
		Configs []kept
	}
	if err := json.Unmarshal([]byte(in.run(0, "{", "config", "list", "-o", "json")), &list); err != nil {
		in.t.Fatal(err)
	}
	byName = map[string]kept{}
	for _, k := range list.Configs {
		byName[k.Name] = k
	}
	return byName, list.Stopped
}

// file writes a configuration beside that of the process, for a command to read.
func (in *instance) file(name, text string) string {
	in.t.Helper()
	path := filepath.Join(filepath.Dir(in.path), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		in.t.Fatal(err)
	}
	return path
}

// TestConfigCommands: a change is looked at, refused with its line, applied, and taken back; sessions go on all the while.
func TestConfigCommands(t *testing.T) {
	old := toml(lbtest.Echo(t), admin0)
	in := startInstance(t, old)
	c := dial(t, in.address("f"))
	ask(t, c, "before")
	policy := func(name string) string {
		return strings.Replace(old, "[pools.p]\n", "[pools.p]\npolicy = \""+name+"\"\n", 1)
	}

	in.run(0, "main  runs", "config", "list")
	if got := in.run(0, "", "config", "get", "main"); got != old {
		t.Errorf("main is %q", got)
	}
	if got := in.run(0, `"frontends"`, "config", "get", "-o", "json"); !json.Valid([]byte(got)) {
		t.Errorf("no JSON: %s", got)
	}

	// Mistakes: each with its line in the file that was given, nothing stored, exit code 1.
	bad := in.file("bad.toml", policy("rand")+"nonsense = 1\n")
	file := regexp.QuoteMeta(bad)
	at := regexp.MustCompile(`(?m)^` + file + `:(\d+): pools\.p\.policy: got "rand".*\n` + file + `:(\d+): pools\.p\.nonsense.*\nawe4lb: 2 mistakes$`)
	for _, args := range [][]string{{"validate", bad}, {"diff", bad}, {"apply", bad}, {"apply", bad, "--yes"}} {
		code, _, stderr := result(t, append(append([]string{"config"}, args...), "--admin", in.adminURL())...)
		lines := strings.Split(policy("rand")+"nonsense = 1", "\n")
		m := at.FindStringSubmatch(stderr)
		if code != 1 || m == nil || !strings.Contains(line(lines, m[1]), "policy") || !strings.Contains(line(lines, m[2]), "nonsense") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	torn := in.file("torn.toml", "[frontends\n")
	in.run(1, torn+":1: not valid TOML", "config", "validate", torn)
	in.run(1, bad+":10: pools.p.nonsense", "config", "put", "main", bad)
	in.run(1, "no such file", "config", "apply", bad+".gone")
	if got := in.run(0, "", "config", "get", "main"); got != old {
		t.Errorf("after mistakes main is %q", got)
	}

	// What would change; then that it does.
	good := in.file("good.toml", policy("leastconn"))
	in.run(0, "good: 1 change\n", "config", "validate", good)
	in.run(0, "pool p changed", "config", "diff", good)
	in.run(1, "it differs from what runs", "config", "diff", good, "--exit-code")
	in.run(0, "roundrobin", "pools")
	in.run(2, "There is no terminal to ask: want --yes", "config", "apply", good)
	in.run(0, "roundrobin", "pools")
	s := onTerminal(t, 100, 24, nil, "config", "apply", good, "--admin", in.adminURL())
	s.wants("pool p changed", "run it as main? y/N")
	s.press("n\n")
	s.wants("nothing is done")
	in.run(0, "roundrobin", "pools")
	in.run(0, "main runs, as configuration 2\n", "config", "apply", good, "--yes")
	in.run(0, "leastconn", "pools")
	in.run(0, "nothing changes\n", "config", "diff", good, "--exit-code")

	// And back.
	in.run(0, "2        ", "config", "history")
	if got := in.run(0, "", "config", "get", "main", "--version", "1"); got != old {
		t.Errorf("version 1 is %q", got)
	}
	in.run(1, "version 9 of main: no such version; its history lists those there are", "config", "rollback", "9")
	in.run(2, `VERSION: got "x"`, "config", "rollback", "x")
	in.run(0, "main: version 1 is the newest\npool p changed", "config", "rollback", "1")
	in.run(0, "roundrobin", "pools")
	if text, err := os.ReadFile(in.path); err != nil || string(text) != old {
		t.Errorf("the file is %q, %v", text, err)
	}
	ask(t, c, "a session goes on")
}

// line returns the line of a number, counted from 1 as messages do.
func line(lines []string, number string) string {
	var n int
	if err := json.Unmarshal([]byte(number), &n); err != nil || n < 1 || n > len(lines) {
		return ""
	}
	return lines[n-1]
}

// TestConfigsByName: a second configuration is kept, selected, stopped and deleted; a draft may have mistakes, and does not run.
func TestConfigsByName(t *testing.T) {
	text := toml(lbtest.Echo(t), admin0)
	in := startInstance(t, text)
	blue := in.file("other.toml", strings.ReplaceAll(text, "frontends.f", "frontends.blue"))

	in.run(0, "blue: stored, ", "config", "put", "blue", blue, "--create")
	in.run(1, "it exists already", "config", "put", "blue", blue, "--create")
	in.run(0, "frontend blue added", "config", "diff", "--name", "blue")
	in.run(0, "draft: stored, ", "config", "put", "draft", in.file("draft.toml", "nonsense = 1\n"))
	in.run(1, "draft.toml:1: nonsense", "config", "validate", "--name", "draft")
	in.run(1, "draft.toml:1: nonsense", "config", "select", "draft")
	in.run(1, "red: no such configuration", "config", "select", "red")

	in.run(0, "blue runs, as configuration 2\n", "config", "select", "blue")
	in.run(0, "blue      tcp", "frontends")
	in.run(1, "it runs: select another one first", "config", "delete", "blue", "--yes")
	if list, _ := in.kept(); !list["blue"].Active || list["main"].Active || list["draft"].Mistakes != 1 {
		t.Errorf("%+v", list)
	}

	in.run(2, "There is no terminal to ask: want --yes", "config", "stop")
	in.run(0, "frontend blue removed", "config", "stop", "--yes")
	if _, stopped := in.kept(); !stopped {
		t.Error("stopped, and the list does not say so")
	}
	in.run(0, "blue   stopped", "config", "list")
	in.run(0, "frontend f added", "config", "select", "main")
	in.run(0, "f         tcp       127.0.0.1:", "frontends")

	in.run(2, "There is no terminal to ask: want --yes", "config", "delete", "blue")
	in.run(0, "blue: deleted\n", "config", "delete", "blue", "--yes")
	in.run(1, "blue: no such configuration", "config", "get", "blue")
	if list, _ := in.kept(); len(list) != 2 {
		t.Errorf("%+v", list)
	}
}

// TestTwoWriters: of two who have seen the same version one stores, and the other is told and overwrites nothing.
func TestTwoWriters(t *testing.T) {
	text := toml(lbtest.Echo(t), admin0)
	in := startInstance(t, text)
	ours, theirs := in.file("ours.toml", text+"# ours\n"), in.file("theirs.toml", text+"# theirs\n")
	list, _ := in.kept()
	seen := list["main"].ETag
	in.run(0, "main: stored, ", "config", "put", "main", theirs, "--if-match", seen)
	in.run(1, "somebody has changed it meanwhile", "config", "put", "main", ours, "--if-match", seen)
	if got := in.run(0, "", "config", "get", "main"); got != text+"# theirs\n" {
		t.Errorf("main is %q", got)
	}

	// One waits at the question of apply while the other stores.
	s := onTerminal(t, 100, 24, nil, "config", "apply", ours, "--admin", in.adminURL())
	s.wants("run it as main? y/N")
	in.run(0, "main: stored, ", "config", "put", "main", in.file("later.toml", text+"# later\n"))
	s.press("y\n")
	s.wants("somebody has changed it meanwhile")
	_ = s.cmd.Wait()
	if code := s.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if got := in.run(0, "", "config", "get", "main"); got != text+"# later\n" {
		t.Errorf("main is %q", got)
	}

	// At once, many times: one of the two is stored, whole, and the other told.
	for range 5 {
		list, _ := in.kept()
		var both [2]*exec.Cmd
		for i, path := range []string{ours, theirs} {
			both[i] = command("config", "put", "main", path, "--if-match", list["main"].ETag, "--admin", in.adminURL())
			if err := both[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		var codes [2]int
		for i := range both {
			_ = both[i].Wait()
			codes[i] = both[i].ProcessState.ExitCode()
		}
		want := map[[2]int]string{{0, 1}: text + "# ours\n", {1, 0}: text + "# theirs\n"}[codes]
		if got := in.run(0, "", "config", "get", "main"); want == "" || got != want {
			t.Fatalf("exit codes %d; main is %q", codes, got)
		}
		in.run(0, "", "config", "put", "main", in.file("later.toml", text+"# later\n"))
	}
}
