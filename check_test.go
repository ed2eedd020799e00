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
		path + ":10: frontends.f.bind[0]: 192.0.2.7: bind: cannot assign requested address (no interface of this host has that address)\n",
		"frontends.f.bind[1]: unix:" + file + ": a regular file is in the way",
		path + ":10: frontends.f.bind[2]: unix:/nonexistent/f.sock: /nonexistent: no such file or directory\n",
		"frontends.f.bind[3]: [fe80::1%nowhere]:",
		path + ":13: pools.p.source[0]: 192.0.2.1: bind: cannot assign requested address",
		path + `:14: pools.p.backends[0].address: [fe80::1%nowhere]:80: no interface "nowhere" on this host`,
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

// TestCheckLooksAtSecrets: secrets that sources would fail by are told by check, each at its place, and so is what a program
// or a folder lacks. Nothing of what is in them is shown.
func TestCheckLooksAtSecrets(t *testing.T) {
	dir := openFolder(t)
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", " \n", 0o600)
	write("lines", "s3cret\ns3cret\n", 0o600)
	write("good", "s3cret\n", 0o600)
	write("public", "s3cret\n", 0o644)
	write("list.sh", "#!/bin/sh\n", 0o600)
	path := filepath.Join(dir, "awe4lb.toml")
	check := func(text string) (int, string) {
		t.Helper()
		write("awe4lb.toml", text, 0o600)
		code, _, stderr := result(t, "check", "--config", path)
		if strings.Contains(stderr, "s3cret") {
			t.Errorf("shows the secret: %s", stderr)
		}
		return code, stderr
	}
	pool := func(name, kind, more string) string {
		return fmt.Sprintf("[pools.%s.discovery]\nkind = %q\n%s\n", name, kind, more)
	}
	frontend := "[admin]\nbind = \"\"\n[frontends.f]\nbind = [\"127.0.0.1:0\"]\npool = \"http\"\n"
	code, got := check(frontend + pool("http", "http", `url = "https://192.0.2.1"
token_file = "missing"`) + // line 9
		pool("consul", "consul", `url = "http://192.0.2.1"
service = "web"
token_file = "empty"`) +
		pool("etcd", "etcd", `endpoints = ["http://192.0.2.1"]
prefix = "/web"
user = "lb"
password_file = "."`) +
		pool("redis", "redis", `url = "redis://192.0.2.1:6379"
name = "web"
password_file = "lines"
save_to = "missing/redis.json"`) +
		pool("kube", "kubernetes", `url = "https://192.0.2.1"
service = "web"
namespace = "shop"
port = "80"
token_file = "/nonexistent/token"`) +
		pool("exec", "exec", `command = ["`+dir+`/list.sh", "s3cret"]`) +
		"[[pools.two.discovery.sources]]\nkind = \"exec\"\ncommand = [\"/nonexistent/program\"]\n")
	for _, want := range []string{
		path + ":9: pools.http.discovery.token_file: open " + dir + "/missing: no such file or directory\n",
		path + ":14: pools.consul.discovery.token_file: " + dir + "/empty: want a secret of one line\n",
		path + ":20: pools.etcd.discovery.password_file: " + dir + ": got a folder; want a regular file\n",
		path + ":25: pools.redis.discovery.password_file: " + dir + "/lines: want a secret of one line\n",
		path + ":26: pools.redis.discovery.save_to: directory " + dir + "/missing: no such file or directory\n",
		path + ":33: pools.kube.discovery.token_file: open /nonexistent/token: no such file or directory\n",
		path + ":36: pools.exec.discovery.command[0]: " + dir + "/list.sh: permission denied\n",
		path + ":39: pools.two.discovery.sources[0].command[0]: stat /nonexistent/program: no such file or directory\n",
		": 8 problems\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if code != 1 || t.Failed() {
		t.Errorf("exit code %d, want 1; it said:\n%s", code, got)
	}

	// What everybody may read is odd, and no more than that.
	good := frontend + pool("http", "http", "url = \"https://192.0.2.1\"\ntoken_file = \"public\"\nsave_to = \"http.json\"")
	code, got = check(good)
	if want := "warning: " + path + ":9: pools.http.discovery.token_file: everybody on this host may read " + dir + "/public: chmod 600 it\n"; code != 0 || got != want {
		t.Errorf("exit code %d: %s; want %s", code, got, want)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, got = check(good); code != 0 || got != "" {
		t.Errorf("in a folder of ours: exit code %d: %s", code, got)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	// Sources are asked after the rights of root were given up.
	if os.Geteuid() != 0 {
		t.Skip("root is needed for the rest")
	}
	mine := "[engine]\nuser = \"nobody\"\n" + frontend + pool("http", "http", "url = \"https://192.0.2.1\"\ntoken_file = \"good\"\nsave_to = \"http.json\"")
	code, got = check(mine)
	for _, want := range []string{":11: pools.http.discovery.token_file: open " + dir + "/good: permission denied\n", ":12: pools.http.discovery.save_to: directory " + dir + ": permission denied\n"} {
		if code != 1 || !strings.Contains(got, want) {
			t.Errorf("exit code %d: %s; want %s", code, got, want)
		}
	}
	for _, name := range []string{dir, dir + "/good"} {
		if err := os.Chown(name, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	if code, got = check(mine); code != 0 || got != "" {
		t.Errorf("with what belongs to the user: exit code %d: %s", code, got)
	}
}

// openFolder makes a folder that everybody on this host may look into.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "awe4lb-check-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
