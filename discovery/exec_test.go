package discovery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// shell returns a source that runs a script by /bin/sh: the shell is the program here, not how programs are run.
func shell(t *testing.T, script string, set ...func(*ExecOptions)) Source {
	t.Helper()
	o := ExecOptions{Argv: []string{"/bin/sh", "-c", script}}
	for _, f := range set {
		f(&o)
	}
	s, err := NewExec(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExec(t *testing.T) {
	lbtest.CheckLeaks(t)
	t.Setenv("SECRET_OF_THE_BALANCER", "1")
	fetch(t, shell(t, `echo 10.0.0.1:80 weight=5; echo noise >&2`), "10.0.0.1:80 5/0/0")
	fetch(t, shell(t, `:`), "")
	fetch(t, shell(t, `echo '["10.0.0.1:80"]'`, func(o *ExecOptions) { o.Format = JSON }), "10.0.0.1:80 1/0/0")

	// argv is passed as it is, the environment is the one that was given, and nothing waits for input.
	s, err := NewExec(ExecOptions{Argv: []string{"/bin/sh", "-c", `cat; echo "$1"; pwd >&2; exit 3`, "x", "10.0.0.1:80; echo $HOME `id`"}})
	if err != nil {
		t.Fatal(err)
	}
	fetchFails(t, s, ReasonExit, `: exit status 3: "/"`)
	env, err := NewExec(ExecOptions{Argv: []string{"/usr/bin/env"}, Env: []string{"A=10.0.0.1:80"}, Decoding: Decoding{Line: `^A=(?P<address>.*)$`}})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, env, "10.0.0.1:80 1/0/0")
}

func TestExecNames(t *testing.T) {
	a, b := shell(t, "echo secret"), shell(t, "echo else")
	if a.String() == b.String() || strings.Contains(a.String(), "secret") || a.String() != shell(t, "echo secret").String() {
		t.Errorf("%s, %s", a, b)
	}
}

func TestExecFailures(t *testing.T) {
	lbtest.CheckLeaks(t)
	fetchFails(t, shell(t, `echo 10.0.0.1:80; echo first >&2; echo "no \033[31mdatabase" >&2; exit 1`), ReasonExit, `exit status 1: "no \x1b[31mdatabase"`)
	fetchFails(t, shell(t, `kill -9 $$`), ReasonExit, "signal: killed")
	fetchFails(t, shell(t, `echo nonsense`), ReasonDecode, ": text: line 1")
	fetchFails(t, shell(t, `exec head -c 1000000000 /dev/zero`), ReasonTooLarge, "more than 4194304 bytes")
	fetchFails(t, shell(t, `head -c 100000 /dev/zero >&2; echo >&2; echo end >&2; exit 1`), ReasonExit, `"end"`)

	s, err := NewExec(ExecOptions{Argv: []string{filepath.Join(t.TempDir(), "missing")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, o := range []ExecOptions{{}, {Argv: []string{"sh"}}, {Argv: []string{"/bin/sh", "a\x00"}}, {Argv: []string{"/bin/sh"}, Env: []string{"A"}}} {
		if _, err := NewExec(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestExecTimeout: the whole group goes, also those who ignore what can be ignored.
func TestExecTimeout(t *testing.T) {
	lbtest.CheckLeaks(t)
	pids := filepath.Join(t.TempDir(), "pids")
	s := shell(t, `trap "" TERM INT HUP; sleep 300 & echo $$ $! > "$PIDS.new"; mv "$PIDS.new" "$PIDS"; wait`, func(o *ExecOptions) {
		o.Env = []string{"PIDS=" + pids, "PATH=/usr/bin:/bin"}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(pids); err == nil {
				break
			}
		}
		cancel()
	}()
	if _, err := s.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	wantGone(t, strings.Fields(string(b)))
}

// TestExecLeavesBehind: a program that ends while its child keeps the output open does not hold us up.
func TestExecLeavesBehind(t *testing.T) {
	lbtest.CheckLeaks(t)
	pids := filepath.Join(t.TempDir(), "pids")
	start := time.Now()
	fetchFails(t, shell(t, `sleep 300 & echo $! > "$PIDS"; echo 10.0.0.1:80`, func(o *ExecOptions) {
		o.Env = []string{"PIDS=" + pids, "PATH=/usr/bin:/bin"}
	}), ReasonExit, "left something behind")
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	wantGone(t, strings.Fields(string(b)))
}

// wantGone waits until no such process runs. Who is dead and not yet reaped by its parent, which may be nobody we know, is
// gone enough.
func wantGone(t *testing.T, pids []string) {
	t.Helper()
	if len(pids) == 0 {
		t.Fatal("no process was started")
	}
	for _, s := range pids {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		lbtest.Eventually(t, "process "+s+" to end", func() bool {
			if syscall.Kill(pid, 0) == syscall.ESRCH {
				return true
			}
			b, err := os.ReadFile("/proc/" + s + "/stat")
			return err != nil || strings.Contains(string(b), ") Z ")
		})
	}
}
