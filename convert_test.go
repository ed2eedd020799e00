package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConvert: what the command writes passes check, and what it says and returns is as documented.
func TestConvert(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "gobetween.toml"), filepath.Join(dir, "awe4lb.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good = "[servers.a]\nbind = \"127.0.0.1:1\"\n[servers.a.discovery]\nkind = \"static\"\nstatic_list = [\"127.0.0.1:2\"]\n"

	write(good + "[profiler]\nenabled = true\n")
	code, stdout, stderr := result(t, "convert", in)
	if code != 0 || !strings.Contains(stdout, "\n[frontends.a]\n") || !strings.Contains(stderr, "gobetween.toml:6: profiler: not carried over: ") {
		t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := result(t, "convert", "--strict", in, "-o", out); code != 1 || stdout != "" || !strings.Contains(stderr, "--strict") {
		t.Errorf("strict: exit code %d:\n%s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("strict wrote the file")
	}

	write(good)
	if code, stdout, stderr := result(t, "convert", "--strict", in, "-o", out); code != 0 || stdout != "" {
		t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := result(t, "check", "--config", out); code != 0 {
		t.Errorf("check: exit code %d:\n%s", code, stderr)
	}

	before, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	write(strings.ReplaceAll(good, "servers.a", "servers.b"))
	if code, _, stderr := result(t, "convert", in, "-o", out); code != 1 || !strings.Contains(stderr, "is there already: --force replaces it") {
		t.Errorf("without --force: exit code %d:\n%s", code, stderr)
	}
	if after, _ := os.ReadFile(out); string(after) != string(before) {
		t.Error("a file was replaced without --force")
	}
	if code, _, stderr := result(t, "convert", in, "-o", out, "--force"); code != 0 {
		t.Errorf("with --force: exit code %d:\n%s", code, stderr)
	}
	if after, _ := os.ReadFile(out); !strings.Contains(string(after), "[frontends.b]") {
		t.Errorf("--force did not replace the file:\n%s", after)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	write("servers = 1\n")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{1, "gobetween.toml: neither gobetween's configuration", []string{in}},
		{1, "no such file", []string{in + ".missing"}},
		{2, `--from: got "haproxy"`, []string{"--from", "haproxy", in}},
		{2, "got 0 arguments; want: awe4lb convert FILE\n", nil},
	} {
		code, stdout, stderr := result(t, append([]string{"convert"}, c.args...)...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d; want %d and %q:\n%s%s", c.args, code, c.code, c.want, stdout, stderr)
		}
	}
}

// TestCompletion: each shell gets its script, and the flags have completions of their own.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, _ := result(t, "completion", shell); code != 0 || !strings.Contains(stdout, "awe4lb") {
			t.Errorf("%s: exit code %d:\n%.200s", shell, code, stdout)
		}
	}
	if code, stdout, _ := result(t, "__complete", "convert", "--from", ""); code != 0 || !strings.Contains(stdout, "gobetween\n") {
		t.Errorf("--from: exit code %d:\n%s", code, stdout)
	}
}
