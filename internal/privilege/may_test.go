package privilege

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMay(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	for _, c := range []struct {
		may        func(string) error
		name, want string
	}{
		{MayRun, dir + "/run", ""},
		{MayRun, "run", ""},
		{MayRun, dir + "/text", dir + "/text: permission denied"},
		{MayRun, "text", "text: executable file not found in $PATH"},
		{MayRun, dir + "/gone", "stat " + dir + "/gone: no such file or directory"},
		{MayRun, dir, dir + ": is a directory"},
		{MayEnter, dir, ""},
		{MayEnter, "/", ""},
		{MayEnter, dir + "/run", "directory " + dir + "/run: not a directory"},
		{MayEnter, dir + "/gone", "directory " + dir + "/gone: no such file or directory"},
	} {
		got := ""
		if err := c.may(c.name); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q; want %q", c.name, got, c.want)
		}
	}
}
