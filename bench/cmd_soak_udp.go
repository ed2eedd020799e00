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

const soakUDPHelp = `
bench soak-udp: flood the UDP flow table of one proxy and watch flows and memory.

  go run ./bench soak-udp                      awe4lb, 5 minutes, 700,000 strangers
  go run ./bench soak-udp --duration 8h        over night

In cycles: strangers come at --rate, each from an address and port of its own, with one datagram; the first half of
them are answered, the second half are not. Then silence until their flows should be gone. A few live clients go on
all the while. Promised, and judged at the end (exit code 1 when broken): memory is bounded and steady, live flows
lose nothing and are not forgotten, and all flows are gone a tick and a second after their idle timeout. Writes a
page with pictures into bench/results/soak-udp-<date>-<commit>.

To see what a rival does:  go run ./bench soak-udp --system nginx --duration 1m
`

func runSoakUDP(ctx context.Context, args []string) error {
	so := runner.FlowSoakOptions{}
	var out string
	fs := newFlags("soak-udp", soakUDPHelp)
	fs.DurationVar(&so.Duration, "duration", 5*time.Minute, "how long; the last cycle is finished")
	fs.DurationVar(&so.Phase, "phase", 12*time.Second, "`time` in which strangers come, in a cycle")
	fs.Float64Var(&so.Rate, "rate", 5000, "strangers per second")
	fs.IntVar(&so.Live, "live", 100, "clients that go on all the time")
	fs.Float64Var(&so.LiveRate, "live-rate", 2000, "their datagrams per second")
	fs.DurationVar(&so.Timeout, "idle-timeout", 10*time.Second, "`time` after which a flow is idle for too long")
	fs.IntVar(&so.MaxFlows, "max-flows", 0, "the table's limit (16384, or what the open-files limit allows)")
	fs.StringVar(&so.System, "system", "awe4lb", "awe4lb, nginx, or gobetween with --gobetween")
	fs.StringVar(&so.Awe4lb, "awe4lb", "", "a `BINARY` to use instead of building the checkout")
	fs.StringVar(&so.Gobetween, "gobetween", "", "`BINARY` of gobetween")
	growth := fs.Float64("max-growth", 4, "`MB` that may be added after the warm-up; a tenth of the memory at rest is always allowed")
	fs.IntVar(&so.Workers, "workers", 0, "threads, processes or shards (2, or 1 on one core)")
	fs.StringVar(&out, "out", "", "`DIR` for the page (bench/results)")
	if err := parse(fs, args); err != nil {
		return err
	}
	so.MaxGrowth = int64(*growth * 1e6)
	so.Command = commandLine("soak-udp", args)
	so.Progress = runner.NewProgress(os.Stdout)
	root, err := runner.ModuleRoot()
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(root, "bench", "results")
	}
	report, err := runner.SoakFlows(ctx, so)
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
