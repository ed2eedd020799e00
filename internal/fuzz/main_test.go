package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What go 1.26 prints when nothing was found, but its deadline came to the coordinator before it came to the workers.
const raced = `fuzz: elapsed: 9s, execs: 68459 (9236/sec), new interesting: 126 (total: 320)
fuzz: elapsed: 10s, execs: 78218 (9065/sec), new interesting: 138 (total: 332)
--- FAIL: FuzzLine (10.10s)
    context deadline exceeded
FAIL
exit status 1
FAIL	awe4lb/discovery	10.123s
`

// What it prints when an input fails.
const failed = `fuzz: elapsed: 0s, gathering baseline coverage: 2/2 completed, now fuzzing with 2 workers
fuzz: elapsed: 0s, execs: 26 (1048/sec), new interesting: 0 (total: 2)
--- FAIL: FuzzLine (0.03s)
    --- FAIL: FuzzLine (0.00s)
        line_test.go:9: context deadline exceeded

    Failing input written to testdata/fuzz/FuzzLine/5838cdfae7b16cde
    To re-run:
    go test -run=FuzzLine/5838cdfae7b16cde
FAIL
exit status 1
FAIL	awe4lb/discovery	0.034s
`

func TestDeadlineOnly(t *testing.T) {
	hung := `--- FAIL: FuzzLine (10.10s)
    fuzzing process hung or terminated unexpectedly: exit status 2
    Failing input written to testdata/fuzz/FuzzLine/5838cdfae7b16cde
FAIL
`
	for _, c := range []struct {
		name, out string
		want      bool
	}{
		{"the race", raced, true},
		{"a failing input", failed, false},
		{"a failing input, then the race", failed + raced, false},
		{"a panic, then the race", "panic: index out of range\n" + raced, false},
		{"a worker that hung", hung, false},
		{"what does not build", "FAIL\tawe4lb/discovery [build failed]\n", false},
		{"nothing", "", false},
	} {
		if got := deadlineOnly(c.out); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// stand writes a go command that prints text and ends with 1.
func stand(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "go")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncat <<'END'\n"+text+"END\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFuzz(t *testing.T) {
	line := target{"./discovery", "FuzzLine"}
	if err := line.fuzz(stand(t, raced), 0); err != nil {
		t.Errorf("only its deadline was reported: got %v, want no error", err)
	}
	if err := line.fuzz(stand(t, failed), 0); err == nil {
		t.Error("an input failed: got no error")
	}
}

func TestFind(t *testing.T) {
	targets, err := find("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []target{{"./../../discovery", "FuzzLine"}, {"./../../engine/proxyproto", "FuzzParse"}} {
		if !slices.Contains(targets, want) {
			t.Errorf("%v is not among %v", want, targets)
		}
	}
}
