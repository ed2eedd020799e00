package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckReadsAccessLists: mistakes in files of prefixes are told by check, with their lines, and keep run from starting.
func TestCheckReadsAccessLists(t *testing.T) {
	dir := t.TempDir()
	path, list := filepath.Join(dir, "awe4lb.toml"), filepath.Join(dir, "blocked.txt")
	for name, text := range map[string]string{list: "10.0.0.0/8\n10.0.0.1/8\n", path: `
[admin]
bind = ""
[frontends.f]
bind = ["127.0.0.1:0"]
pool = "p"
[frontends.f.access]
rules = [ { deny_file = "blocked.txt" }, { deny_file = "missing.txt" } ]
[pools.p]
backends = [{ address = "127.0.0.1:1" }]
`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mistakes := list + `:2: got "10.0.0.1/8"; want a prefix with no bits set after its length (write "10.0.0.0/8")` + "\n" +
		path + ":8: frontends.f.access.rules[1].deny_file: " + filepath.Join(dir, "missing.txt") + ": no such file or directory\n"
	for _, command := range []string{"check", "run"} {
		if code, _, stderr := result(t, command, "--config", path); code != 1 || !strings.Contains(stderr, mistakes) {
			t.Errorf("%s: exit code %d:\n%s\nwant:\n%s", command, code, stderr, mistakes)
		}
	}
}

// TestCheckLooksAtTheHost: what the host lacks is told by check, all at once, and not only by run.
func TestCheckLooksAtTheHost(t *testing.T) {
	dir := t.TempDir()
	path, file := filepath.Join(dir, "awe4lb.toml"), filepath.Join(dir, "precious")
	for _, name := range []string{file, file + ".admin"} {
		if err := os.WriteFile(name, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(text string) (int, string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := result(t, "check", "--config", path)
		return code, stderr
	}
	code, got := check(fmt.Sprintf(`
[log]
output = "/nonexistent/x.log"
access = { output = "/nonexistent/y.log" }
[admin]
bind = "unix:%s.admin"
[engine]
user = "nobody-of-that-name"
[frontends.f]
bind = ["192.0.2.7:80-90", "unix:%s", "unix:/nonexistent/f.sock", "[fe80::1%%nowhere]:80"]
pool = "p"
[pools.p]
source = ["192.0.2.1"]
backends = [{ address = "[fe80::1%%nowhere]:80" }, { address = "127.0.0.1:1" }]
[pools.q.discovery]
kind = "kubernetes"
kubeconfig = "/nonexistent/kubeconfig"
service = "q"
port = "80"
`, file, file))
	for _, want := range []string{
		path + ":3: log.output: /nonexistent/x.log: directory /nonexistent: no such file or directory\n",
		path + ":4: log.access.output: /nonexistent/y.log: directory",
		path + ":6: admin.bind: a regular file is in the way at " + file + ".admin",
		path + ":8: engine.user: user: unknown user nobody-of-that-name\n",
		path + ":10: frontends.f.bind: 192.0.2.7: bind: cannot assign requested address (no interface of this host has that address)\n",
		"frontends.f.bind: unix:" + file + ": a regular file is in the way",
		path + ":10: frontends.f.bind: unix:/nonexistent/f.sock: /nonexistent: no such file or directory\n",
		"frontends.f.bind: [fe80::1%nowhere]:",
		path + ":13: pools.p.source: 192.0.2.1: bind: cannot assign requested address",
		path + `:14: pools.p.backends: [fe80::1%nowhere]:80: no interface "nowhere" on this host`,
		"\n" + path + ":15: pools.q.discovery: kubernetes: open /nonexistent/kubeconfig: no such file or directory\n",
		"awe4lb: the file is good, but not for this host: 11 problems\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if code != 1 || t.Failed() {
		t.Errorf("exit code %d, want 1; it said:\n%s", code, got)
	}

	// A port that is taken is not its business: the running awe4lb has it.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, got = check(strings.Replace(toml("127.0.0.1:1", ""), "127.0.0.1:0", taken.Addr().String(), 1) + "source = [\"127.0.0.1\", \"::1\"]\n")
	if code != 0 {
		t.Errorf("exit code %d: %s", code, got)
	}
}
