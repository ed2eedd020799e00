package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"awe4lb/bench/runner"
)

const runHelp = `
bench run: measure awe4lb beside haproxy, nginx and a naive Go proxy, and write the results.

  go run ./bench run            everything, TCP, UDP and TLS, about 18 minutes, into bench/results/<date>-<commit>.md
  go run ./bench run --quick    a first look in under 3 minutes, into bench/results/quick (not kept by git)

Each round runs every scenario for a second or two against every system in turn. What counts is the CPU of the
proxy per unit of work as a ratio to haproxy (UDP: nginx) in the same round; see bench/README.md. The machine should be quiet:
the report says when it was not. haproxy, nginx and strace must be installed (--install does it, as root).
Exit code 1 when anything failed under awe4lb; what fails under a rival is in the report and no error.

Only what you work on:       go run ./bench run --quick --scenarios keep64,short64 --systems awe4lb,haproxy
All of one protocol:         go run ./bench run --scenarios tls
Two builds of awe4lb:        go run ./bench run --quick --also before=/tmp/awe4lb-before
More rivals, if you have:    go run ./bench run --gobetween ~/go/bin/gobetween --gost ~/go/bin/gost
`

func runRun(ctx context.Context, args []string) error {
	o := runner.Options{Command: commandLine("run", args)}
	var systems, scenarios, out string
	fs := newFlags("run", runHelp)
	fs.BoolVar(&o.Quick, "quick", false, "fewer scenarios, fewer and shorter runs")
	fs.StringVar(&systems, "systems", "", "`LIST` of "+strings.Join(runner.SystemNames, ",")+" and any named below")
	fs.StringVar(&scenarios, "scenarios", "", "`LIST` of "+strings.Join(runner.ScenarioKeys(), ","))
	fs.IntVar(&o.Rounds, "rounds", 0, "`N` rounds (6, quick 3)")
	fs.DurationVar(&o.Window, "window", 0, "measured `time` of one run (1s, quick 500ms)")
	fs.DurationVar(&o.Warmup, "warmup", 0, "`time` before it (250ms, quick 100ms)")
	fs.Float64Var(&o.Rate, "rate", 10000, "requests per second of the open loop over TCP")
	fs.IntVar(&o.Workers, "workers", 0, "threads, processes or shards of each proxy (2, or 1 on one core)")
	fs.IntVar(&o.IdleConns, "idle-conns", 0, "idle connections, and UDP flows, for memory (9000, quick 2000); four ninths of it over TLS")
	fs.IntVar(&o.Traced, "traced", 0, "requests counted under strace (10000, quick 5000); a fifth of it short connections")
	fs.StringVar(&o.Subject, "subject", "awe4lb", "the `SYSTEM` the bars are about")
	fs.StringVar(&o.Awe4lb, "awe4lb", "", "a `BINARY` to use instead of building the checkout")
	fs.StringVar(&o.Gobetween, "gobetween", "", "`BINARY` of gobetween, to measure it too")
	fs.StringVar(&o.Gost, "gost", "", "`BINARY` of gost, to measure it too")
	fs.Func("also", "measure one more build of awe4lb, `NAME=BINARY`; may be repeated", func(s string) error {
		name, binary, ok := cutPair(s)
		if !ok {
			return fmt.Errorf("%q: want NAME=BINARY", s)
		}
		o.Also = append(o.Also, [2]string{name, binary})
		return nil
	})
	fs.IntVar(&o.Nice, "nice", 0, "run everything at this priority; -15 keeps other users of the machine out (as root)")
	fs.BoolVar(&o.Install, "install", false, "install missing rivals and tools by apt-get (as root)")
	fs.StringVar(&out, "out", "", "`DIR` for the results (bench/results, quick: bench/results/quick)")
	if err := parse(fs, args); err != nil {
		return err
	}
	o.Systems, o.Scenarios = list(systems), list(scenarios)
	root, err := runner.ModuleRoot()
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(root, "bench", "results")
		if o.Quick {
			out = filepath.Join(out, "quick")
		}
	}
	o.Progress = runner.NewProgress(os.Stdout)
	began := time.Now()
	results, err := runner.Run(ctx, o)
	if err != nil {
		return err
	}
	path, err := results.Write(out)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, path); err == nil {
		path = rel
	}
	fmt.Printf("\n%s\nWritten in %s: %s\n", results.Summary(), time.Since(began).Round(time.Second), path)
	if n := results.SubjectFailures(); n > 0 {
		return fmt.Errorf("%d failures of %s, see the report", n, o.Subject)
	}
	return nil
}

// commandLine returns what the user typed, for the report, without the directories of files: they tell whose machine
// this is and nothing else.
func commandLine(command string, args []string) string {
	words := []string{"go run ./bench " + command}
	for _, a := range args {
		flag, value, ok := strings.Cut(a, "=/")
		if ok {
			a = flag + "=" + filepath.Base(value)
		} else if strings.Contains(a, "/") && !strings.HasPrefix(a, "-") {
			a = filepath.Base(a)
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// list splits a comma-separated flag; nil when it is empty.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
