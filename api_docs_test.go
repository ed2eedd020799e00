package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// TestExamplesOfTheAPI runs the commands of docs/api.md, each of which has to succeed.
func TestExamplesOfTheAPI(t *testing.T) {
	for _, tool := range []string{"curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the examples of docs/api.md need it: %v", err)
		}
	}
	page, err := os.ReadFile("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	in := startInstance(t, admin0+"compat = \"gobetween\"\n[frontends.web]\nbind = [\"127.0.0.1:0\"]\npool = \"web\"\n[pools.web]\nbackends = [\n"+
		"  { address = \"127.0.0.1:9001\", weight = 2 }, # the old one\n  { address = \""+lbtest.Refused(t)+"\" },\n]\n")
	dir := t.TempDir()
	examples := strings.Split(string(page), "\n```sh\n")[1:]
	if len(examples) < 8 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, example := range examples {
		script, _, _ := strings.Cut(example, "\n```")
		c := exec.Command("sh", "-euc", script)
		c.Dir, c.Env = dir, append(os.Environ(), "A="+in.adminURL())
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, script, out)
		}
	}
	if text, err := os.ReadFile(in.path); err != nil || !strings.Contains(string(text), "# the old one") {
		t.Errorf("the comment is gone: %v\n%s", err, text)
	}
}
