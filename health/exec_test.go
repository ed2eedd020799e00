package health

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// script writes a program and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExec(t *testing.T) {
	lbtest.CheckLeaks(t)
	t.Setenv("SECRET", "hunter2")
	for _, tc := range []struct {
		script, health string
		verdict        verdict
		said           string
	}{
		{"exit 0", "", good, "exit status 0"},
		{"exit 3", "", bad, "exit status 3"},
		{"echo oh no >&2; exit 1", "", bad, `exit status 1: "oh no"`},
		{"kill -9 $$", "", bad, "signal: killed"},
		{"[ \"$1 $2 $3\" = '10.0.0.1 --port=80 a b;c' ] && [ $# = 3 ]", "", good, ""},
		{"[ \"$AWE4LB_HOST:$AWE4LB_PORT\" = 10.0.0.1:80 ] && [ \"$PWD\" = / ] && [ -z \"$SECRET\" ] && [ -z \"$HOME\" ]", "", good, ""},
		{"echo 1", "output_up = '1'", good, `output "1"`},
		{"echo 0", "output_up = '1'\noutput_down = '0'", bad, `output "0"`},
		{"echo 2", "output_up = '1'\noutput_down = '0'", unknown, "neither up nor down"},
		{"echo anything", "output_down = '0'", unknown, "neither up nor down"},
		{"echo 1; exit 1", "output_up = '1'", bad, "exit status 1"},
		{"head -c 100000000 /dev/zero", "output_up = '1'", unknown, "neither"},
		{"sleep 60", "timeout = '200ms'", bad, "not done within 200ms"},
		{"trap '' TERM INT; while :; do sleep 1; done", "timeout = '200ms'", bad, "not done within"},
		{"sleep 60 & sleep 60", "timeout = '200ms'", bad, "not done within"},
		{"sleep 60 &", "", good, "exit status 0"}, // whoever is left behind is killed
		{"printf '\\033[31m\\000'; exit 1", "", bad, `\x1b[31m\x00`},
	} {
		o := probeOnce(t, "10.0.0.1:80", "kind = 'exec'\ncommand = ['"+script(t, tc.script)+"', '$host', '--port=$port', 'a b;c']\n"+tc.health)
		expectOutcome(t, tc.script, o, tc.verdict, tc.said)
	}
	o := probeOnce(t, "10.0.0.1:80", "kind = 'exec'\ncommand = ['/no/such/program']")
	expectOutcome(t, "no program", o, unknown, "start: no such file")
}

// TestExecLeavesNobody: children of the command are killed with it.
func TestExecLeavesNobody(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		v      verdict
	}{
		"its time is up": {"sleep 300 & echo $! > $0.pid; wait", bad},
		"it has ended":   {"sleep 300 >/dev/null 2>&1 & echo $! > $0.pid", good},
	} {
		path := script(t, tc.script)
		o := probeOnce(t, "10.0.0.1:80", "kind = 'exec'\ntimeout = '500ms'\ncommand = ['"+path+"']")
		expectOutcome(t, name, o, tc.v, "")
		b, err := os.ReadFile(path + ".pid")
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		lbtest.EventuallyIn(t, 5*time.Second, name+": the child is gone", func() bool {
			if syscall.Kill(pid, 0) != nil {
				return true
			}
			stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat") // dead, and not reaped by whoever is process 1 here
			return strings.Contains(string(stat), ") Z ")
		})
	}
}
