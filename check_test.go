package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
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
	write("run.sh", "#!/bin/sh\ntouch "+dir+"/ran\n", 0o755)
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
		"[[pools.two.discovery.sources]]\nkind = \"exec\"\ncommand = [\"/nonexistent/program\"]\n" + // line 39
		"[[pools.two.discovery.sources]]\nkind = \"exec\"\ncommand = [\"" + dir + "/run.sh\"]\nfolder = \"" + dir + "/missing\"\n" +
		"[[pools.two.discovery.sources]]\nkind = \"exec\"\ncommand = [\"" + dir + "/run.sh\"]\nfolder = \"" + dir + "/good\"\n" +
		"[pools.three]\nbackends = [{ address = \"192.0.2.1:1\" }]\nhealth = { kind = \"exec\", command = [\"" + dir + "/list.sh\", \"s3cret\"] }\n" +
		"[pools.four]\nbackends = [{ address = \"192.0.2.1:1\" }]\nhealth = { kind = \"exec\", command = [\"" + dir + "/run.sh\"] }\n")
	for _, want := range []string{
		path + ":9: pools.http.discovery.token_file: open " + dir + "/missing: no such file or directory\n",
		path + ":14: pools.consul.discovery.token_file: " + dir + "/empty: want a secret of one line\n",
		path + ":20: pools.etcd.discovery.password_file: " + dir + ": got a folder; want a regular file\n",
		path + ":25: pools.redis.discovery.password_file: " + dir + "/lines: want a secret of one line\n",
		path + ":26: pools.redis.discovery.save_to: directory " + dir + "/missing: no such file or directory\n",
		path + ":33: pools.kube.discovery.token_file: open /nonexistent/token: no such file or directory\n",
		path + ":36: pools.exec.discovery.command[0]: " + dir + "/list.sh: permission denied\n",
		path + ":39: pools.two.discovery.sources[0].command[0]: stat /nonexistent/program: no such file or directory\n",
		path + ":43: pools.two.discovery.sources[1].folder: directory " + dir + "/missing: no such file or directory\n",
		path + ":47: pools.two.discovery.sources[2].folder: directory " + dir + "/good: not a directory\n",
		path + ":50: pools.three.health.command[0]: " + dir + "/list.sh: permission denied\n",
		": 11 problems\n",
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
	// So are programs started.
	if err := os.Mkdir(filepath.Join(dir, "roots"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("roots.sh", "#!/bin/sh\n", 0o700)
	code, got = check("[engine]\nuser = \"nobody\"\n" + frontend + pool("http", "exec", "command = [\""+dir+"/run.sh\"]\nfolder = \""+dir+"/roots\"") +
		"[pools.http]\nhealth = { kind = \"exec\", command = [\"" + dir + "/roots.sh\"] }\n")
	for _, want := range []string{":11: pools.http.discovery.folder: directory " + dir + "/roots: permission denied\n", ":13: pools.http.health.command[0]: " + dir + "/roots.sh: permission denied\n"} {
		if code != 1 || !strings.Contains(got, want) {
			t.Errorf("exit code %d: %s; want %s", code, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); !os.IsNotExist(err) {
		t.Errorf("a program was started: %v", err)
	}
}

// TestCheckLooksIntoKubeconfigs: check tells of the files that a kubeconfig names as of those that the configuration does, each with
// the place in the configuration and the key in the kubeconfig. It starts no plugin and shows nothing that is secret.
func TestCheckLooksIntoKubeconfigs(t *testing.T) {
	dir := openFolder(t)
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	ca := lbtest.NewCA(t)
	cert, key := ca.Issue(lbtest.Leaf{Names: []string{"me"}})
	_, other := ca.Issue(lbtest.Leaf{Names: []string{"me"}})
	write("ca.pem", string(ca.PEM), 0o644)
	write("cert.pem", string(cert), 0o644)
	write("key.pem", string(key), 0o600)
	write("public.pem", string(key), 0o644)
	write("other.pem", string(other), 0o600)
	write("s3cret.txt", "s3cret\ns3cret\n", 0o600) // no certificate, no token of one line
	write("token", "s3cret\n", 0o600)
	write("public", "s3cret\n", 0o644)
	write("plugin", "#!/bin/sh\ntouch "+dir+"/ran\n", 0o755)
	write("plugin.txt", "#!/bin/sh\n", 0o644)
	t.Setenv("PATH", "/usr/bin:/bin")
	path, kubeconfig := filepath.Join(dir, "awe4lb.toml"), filepath.Join(dir, "kubeconfig")
	write("awe4lb.toml", `[admin]
bind = ""
[frontends.f]
bind = ["127.0.0.1:0"]
pool = "k"
[pools.k.discovery]
kind = "kubernetes"
service = "web"
kubeconfig = "kubeconfig"
`, 0o600)
	place := path + ":9: pools.k.discovery.kubeconfig: "
	const execOf = "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: "
	for _, tc := range []struct {
		cluster, user string
		mode          os.FileMode
		want          []string // after the place; problems, or warnings
	}{
		{"certificate-authority: ca.pem", "client-certificate: cert.pem, client-key: key.pem", 0o600, nil},
		{"certificate-authority: " + dir + "/ca.pem", "tokenFile: token", 0o600, nil},
		{"certificate-authority: gone.pem", "", 0o600, []string{"certificate-authority: open " + dir + "/gone.pem: no such file or directory"}},
		{"certificate-authority: /nonexistent/ca.pem", "tokenFile: gone, client-certificate: gone.pem, client-key: /nonexistent/key.pem", 0o600, []string{
			"certificate-authority: open /nonexistent/ca.pem: no such file or directory",
			"client-certificate: open " + dir + "/gone.pem: no such file or directory",
			"client-key: open /nonexistent/key.pem: no such file or directory",
			"tokenFile: open " + dir + "/gone: no such file or directory"}},
		{"certificate-authority: s3cret.txt", "", 0o600, []string{"certificate-authority: want certificates as PEM"}},
		{"certificate-authority: .", "", 0o600, []string{"certificate-authority: " + dir + ": got a folder; want a regular file"}},
		{"certificate-authority-data: s3cret!", "", 0o600, []string{"certificate-authority-data: want base64"}},
		{"", "client-certificate: cert.pem, client-key: other.pem", 0o600, []string{"client-certificate and client-key: tls: private key does not match public key"}},
		{"", "client-certificate: cert.pem, client-key: s3cret.txt", 0o600, []string{"client-certificate and client-key: tls: failed to find any PEM data in key input"}},
		{"", "client-certificate: cert.pem", 0o600, []string{"client-certificate and client-key: tls: failed to find any PEM data in key input"}},
		{"", "tokenFile: s3cret.txt", 0o600, []string{"tokenFile: " + dir + "/s3cret.txt: want a secret of one line"}},
		{"", execOf + "plugin}", 0o600, []string{"exec: command: plugin: executable file not found in $PATH"}},
		{"", execOf + "./plugin, args: [s3cret]}", 0o600, nil},
		{"", execOf + dir + "/plugin}", 0o600, nil},
		{"", execOf + "sh}", 0o600, nil},
		{"", execOf + "./gone}", 0o600, []string{"exec: command: stat " + dir + "/gone: no such file or directory"}},
		{"", execOf + "./plugin.txt, env: [{name: A, value: s3cret}]}", 0o600, []string{"exec: command: " + dir + "/plugin.txt: permission denied"}},
		{"", "client-certificate: cert.pem, client-key: public.pem", 0o600, []string{"everybody on this host may read " + dir + "/public.pem: chmod 600 it"}},
		{"", "tokenFile: public", 0o600, []string{"everybody on this host may read " + dir + "/public: chmod 600 it"}},
		{"", "token: s3cret", 0o644, []string{"everybody on this host may read " + kubeconfig + ": chmod 600 it"}},
		{"", "username: me, password: s3cret", 0o644, []string{"everybody on this host may read " + kubeconfig + ": chmod 600 it"}},
		{"", "client-certificate: cert.pem, client-key: key.pem", 0o644, nil}, // it has only names
	} {
		t.Run(tc.cluster+" "+strings.ReplaceAll(tc.user, dir, ""), func(t *testing.T) {
			write("kubeconfig", fmt.Sprintf(`{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}},
				{name: other, context: {cluster: k, user: other}}],
				clusters: [{name: k, cluster: {server: "https://192.0.2.1:6443", %s}}],
				users: [{name: u, user: {%s}}, {name: other, user: {tokenFile: /of/nobody/who/is/asked}}]}`, tc.cluster, tc.user), tc.mode)
			code, _, got := result(t, "check", "--config", path)
			want, problems := "", 0
			for _, line := range tc.want {
				if strings.HasPrefix(line, "everybody") {
					want += "warning: " + place + line + "\n"
				} else {
					want += place + kubeconfig + ": " + line + "\n"
					problems++
				}
			}
			if strings.Contains(strings.ReplaceAll(got, "s3cret.txt", ""), "s3cret") {
				t.Errorf("shows a secret: %s", got)
			}
			if !strings.Contains(got, want) || want == "" && got != "" || (code == 0) != (problems == 0) {
				t.Errorf("exit code %d; it said:\n%swant:\n%s", code, got, want)
			}
			if n := strings.Count(got, place); n != len(tc.want) {
				t.Errorf("%d lines about it; want %d:\n%s", n, len(tc.want), got)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); !os.IsNotExist(err) {
		t.Errorf("a plugin was started: %v", err)
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
