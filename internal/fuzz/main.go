// Command fuzz runs each fuzz target below the working directory for a time, one after the other, and ends with 1 when one
// has found something: `make fuzz`.
//
// It is more than a loop in a Makefile because of one bug of Go before 1.27 (go.dev/issue/75804): at the end of -fuzztime the
// coordinator can see that its context has ended before its workers' context has, and then reports its own deadline as a
// failure. A run that failed by nothing else has passed.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	each := flag.Duration("time", 10*time.Second, "how long each target runs")
	run := flag.String("run", "", "only targets whose name matches this regular expression")
	goTool := flag.String("go", "go", "the go command")
	flag.Parse()
	only, err := regexp.Compile(*run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz: -run:", err)
		os.Exit(2)
	}
	targets, err := find(".")
	if err == nil && len(targets) == 0 {
		err = fmt.Errorf("no fuzz target below the working directory")
	}
	for _, t := range targets {
		if err == nil && only.MatchString(t.name) {
			err = t.fuzz(*goTool, *each)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// target is one function for go test -fuzz.
type target struct{ dir, name string }

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// find returns the fuzz targets of the packages below root, in the order of their files.
func find(root string) ([]target, error) {
	var found []target
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			found = append(found, target{"./" + filepath.Dir(path), string(m[1])})
		}
		return err
	})
	return found, err
}

// fuzz runs t. Its output goes to standard output as it comes.
func (t target) fuzz(goTool string, each time.Duration) error {
	fmt.Printf("fuzz %s %s %v\n", t.dir, t.name, each)
	var out bytes.Buffer
	// Inputs are made smaller by count: making them smaller for a minute would be counted as fuzzing.
	cmd := exec.Command(goTool, "test", t.dir, "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", "20x")
	cmd.Stdout = io.MultiWriter(os.Stdout, &out)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	if err != nil && deadlineOnly(out.String()) {
		fmt.Printf("fuzz: %s passed: only the end of its time was reported, go.dev/issue/75804\n", t.name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", t.name, t.dir, err)
	}
	return nil
}

var deadline = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w* \([0-9.]+s\)\n {4}context deadline exceeded\nFAIL\n`)

// deadlineOnly says whether out, of a go test -fuzz that failed, names no failure but the end of the time it had. What fuzzing
// finds is written to a file, and said so.
func deadlineOnly(out string) bool {
	return deadline.MatchString(out) && strings.Count(out, "--- FAIL") == 1 &&
		!strings.Contains(out, "Failing input written to") && !strings.Contains(out, "panic:")
}
