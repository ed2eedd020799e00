//go:build e2e

// Package e2e puts the real awe4lb binary between real programs: curl and wrk before nginx, redis-benchmark before Redis,
// pgbench before PostgreSQL, ssh before sshd, iperf3, socat; over UDP dig before bind9, sipp, iperf3, and a QUIC connection.
// What needs a network of its own has network namespaces. Beside them stand the promises that only a whole process
// with real limits can show: what it costs to be idle, what a slow reader can make it hold, how many system calls and
// allocations a request takes, what it does when descriptors run out, what it may still do once it has given up root.
//
// Each test is also an example: the configuration and the commands are in it. The programs come from `make deps`; a test
// that misses one fails and says so. Some start what insists on its own user (PostgreSQL, sshd) or make network namespaces,
// so run as root:
//
//	make e2e                                                          # all
//	go test -tags e2e -count=1 -v -run TestPostgres ./internal/e2e    # one, with the figures it prints
//
// awe4lb is built once, listens on ports the kernel chooses, and at the end of each test must end on SIGTERM with exit
// code 0, no session left and no ERROR in its log that the test did not ask for.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binary is the awe4lb under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "awe4lb-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "awe4lb")
	if err := build(binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the module's root as a release is built.
func build(to string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("go list -m: %w", err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, ".")
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("awe4lb does not build: %w\n%s", err, out)
	}
	return nil
}
