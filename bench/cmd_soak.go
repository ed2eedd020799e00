package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"awe4lb/bench/runner"
)

const soakHelp = `
bench soak: keep one proxy busy for a long time and watch what it holds.

  go run ./bench soak                    awe4lb, 10 minutes
  go run ./bench soak --duration 8h      over night

In cycles: keep-alive requests, short connections, bulk both ways with every byte compared, readers that stall,
and SIGHUP every 300 ms under load with a configuration that changes. After each cycle the load stops and memory,
open files and goroutines are read. At the end: the slope of each per hour, and passed or FAILED (exit code 1)
when something grew or any request failed. Writes a page with pictures into bench/results/soak-<date>-<commit>.

To see what a rival does (haproxy without its master and the naive proxy ignore the reloads):
  go run ./bench soak --system nginx --duration 2m
`

func runSoak(ctx context.Context, args []string) error {
	so := runner.SoakOptions{}
	var out string
	fs := newFlags("soak", soakHelp)
	fs.DurationVar(&so.Duration, "duration", 10*time.Minute, "how long; the last cycle is finished")
	fs.DurationVar(&so.Phase, "phase", 4*time.Second, "`time` of each kind of load in a cycle")
	fs.StringVar(&so.System, "system", "awe4lb", "awe4lb, haproxy, nginx or naive")
	fs.StringVar(&so.Awe4lb, "awe4lb", "", "a `BINARY` to use instead of building the checkout")
	fs.StringVar(&so.Metrics, "metrics", "", "`URL` of a metrics page with go_goroutines; awe4lb's own is found without")
	growth := fs.Float64("max-growth", 4, "`MB` that may be added after the warm-up; a tenth of the memory at rest is always allowed")
	fs.IntVar(&so.Workers, "workers", 0, "threads, processes or shards (2, or 1 on one core)")
	fs.StringVar(&out, "out", "", "`DIR` for the page (bench/results)")
	if err := parse(fs, args); err != nil {
		return err
	}
	so.MaxGrowth = int64(*growth * 1e6)
	so.Command = commandLine("soak", args)
	so.Progress = runner.NewProgress(os.Stdout)
	root, err := runner.ModuleRoot()
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(root, "bench", "results")
	}
	report, err := runner.Soak(ctx, so)
	if err != nil {
		return err
	}
	path, err := report.Write(out)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, path); err == nil {
		path = rel
	}
	fmt.Printf("\n%sWritten: %s\n", report.Summary(), path)
	if !report.Passed() {
		return errors.New(report.Verdict())
	}
	return nil
}
