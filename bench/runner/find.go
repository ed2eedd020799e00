package runner

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// AptInstall is the command that installs the rivals and the tools, for root.
const AptInstall = "apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 haproxy nginx libnginx-mod-stream strace linux-perf"

// findBinary looks in PATH and in the directories of system programs, which are not in every user's PATH.
func findBinary(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && s.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// install runs AptInstall, after an update when the package lists are missing.
func install(ctx context.Context, say func(string)) error {
	argv := strings.Fields(AptInstall)
	say("installing: " + AptInstall)
	run := func(argv ...string) error {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, lastLines(string(out), 5))
		}
		return nil
	}
	if run(argv...) == nil {
		return nil
	}
	if err := run("apt-get", "update", "-o", "DPkg::Lock::Timeout=300"); err != nil {
		return err
	}
	return run(argv...)
}

// versionOf runs a program for its version and returns the first line, without what identifies nothing.
func versionOf(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	for _, prefix := range []string{"HAProxy version ", "nginx version: nginx/", "awe4lb "} {
		line = strings.TrimPrefix(line, prefix)
	}
	line, _, _ = strings.Cut(line, " - ")
	return strings.TrimSpace(line)
}

// nginxModules returns the directory of nginx' stream module, "" when stream is built in, an error when there is none.
func nginxModules(binary string) (string, error) {
	out, _ := exec.Command(binary, "-V").CombinedOutput()
	dir, builtIn := parseNginxBuild(string(out))
	if builtIn {
		return "", nil
	}
	if _, err := os.Stat(filepath.Join(dir, "ngx_stream_module.so")); err != nil {
		return "", fmt.Errorf("nginx has no stream module; it is in the package libnginx-mod-stream")
	}
	return dir, nil
}

// parseNginxBuild reads the output of nginx -V.
func parseNginxBuild(text string) (modules string, streamBuiltIn bool) {
	for _, f := range strings.Fields(text) {
		if f == "--with-stream" {
			streamBuiltIn = true
		}
		if dir, ok := strings.CutPrefix(f, "--modules-path="); ok {
			modules = dir
		}
	}
	return modules, streamBuiltIn
}

// ModuleRoot walks up from the working directory to the checkout's root.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if b, err := os.ReadFile(filepath.Join(at, "go.mod")); err == nil && bytes.HasPrefix(b, []byte("module awe4lb\n")) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod of module awe4lb here or above; run this inside the checkout")
		}
	}
}

// BuildAwe4lb builds the checkout's main package into dir, as a release is built, and returns the binary's path.
func BuildAwe4lb(ctx context.Context, root, dir string) (string, error) {
	binary := filepath.Join(dir, "awe4lb")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("awe4lb does not build: %s", lastLines(strings.NewReplacer(root+"/", "", root, "the checkout").Replace(string(out)), 3))
	}
	return binary, nil
}

// Commit returns the checkout's short commit and whether files were changed since.
func Commit(root string) (commit string, dirty bool) {
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--short", "HEAD")
	if err != nil {
		return "none", true
	}
	status, err := git("status", "--porcelain", "--", ".", ":!bench/results")
	return commit, err != nil || status != ""
}

func goVersion() string { return runtime.Version() }

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
