// Command bench measures awe4lb beside other layer-4 proxies, and holds the tools it needs for that: a load generator,
// backends, a naive proxy, a soak test. `go run ./bench` lists the commands; README.md tells what is measured and how.
//
// This package is the command line: one file per command, which parses flags and calls the package that does the work
// (load, backend, runner, soak). Nothing here is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// command is one word after `bench`.
type command struct {
	name  string
	short string // one line for the list
	run   func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"run", "measure awe4lb beside haproxy, nginx and a naive proxy; write bench/results", runRun},
		{"soak", "keep awe4lb busy for a long time and watch its memory and files", runSoak},
		{"soak-udp", "flood the UDP flow table with strangers and watch flows and memory", runSoakUDP},
		{"load", "the load generator by itself", runLoad},
		{"backend", "the backends by themselves: HTTP, bulk, echo", runBackend},
		{"naive", "the naive io.Copy proxy by itself", runNaive},
	}
}

// Exit codes: 0 all well, 1 a run failed or could not be made, 2 wrong usage.
func main() {
	os.Exit(Main(os.Args[1:]))
}

// Main runs one command and returns the exit code.
func Main(args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" || args[0] == "-help" {
		usage(os.Stdout)
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err := c.run(ctx, args[1:])
		var bad usageError
		switch {
		case err == nil || errors.Is(err, flag.ErrHelp):
			return 0
		case errors.As(err, &bad):
			if bad.text != "" {
				fmt.Fprintf(os.Stderr, "bench %s: %s\nSee: go run ./bench %s --help\n", c.name, bad.text, c.name)
			}
			return 2
		case errors.Is(err, context.Canceled):
			fmt.Fprintf(os.Stderr, "bench %s: interrupted; everything it had started is stopped\n", c.name)
			return 1
		}
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", c.name, err)
		return 1
	}
	fmt.Fprintf(os.Stderr, "bench: there is no command %q\n\n", args[0])
	usage(os.Stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, `bench measures awe4lb and its rivals.

  go run ./bench <command> [flags]

`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, `
Each command teaches itself: go run ./bench <command> --help
The whole comparison in under three minutes: go run ./bench run --quick
`)
}

// usageError is a mistake on the command line; an empty text was already shown.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// newFlags returns a flag set whose help is the given text followed by the flags.
func newFlags(name, help string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.Usage = func() {
		w := fs.Output()
		fmt.Fprintf(w, "%s\n\nFlags:\n", strings.TrimSpace(help))
		fs.VisitAll(func(f *flag.Flag) {
			kind, text := flag.UnquoteUsage(f)
			head := "--" + f.Name
			if kind != "" {
				head += " " + kind
			}
			fmt.Fprintf(w, "  %-22s %s", head, text)
			if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" && f.DefValue != "0s" {
				fmt.Fprintf(w, " (default %s)", f.DefValue)
			}
			fmt.Fprintln(w)
		})
	}
	return fs
}

// parse reads args and refuses what is left over. Help goes to standard output, mistakes to standard error.
func parse(fs *flag.FlagSet, args []string) error {
	for _, a := range args {
		if a == "-h" || a == "--help" || a == "-help" {
			fs.SetOutput(os.Stdout)
			fs.Usage()
			return flag.ErrHelp
		}
	}
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		return usageError{err.Error()}
	}
	if fs.NArg() > 0 {
		return usagef("unexpected %q", fs.Arg(0))
	}
	return nil
}
