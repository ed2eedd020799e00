package main

import (
	"context"
	"fmt"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"awe4lb/bench/backend"
	"awe4lb/bench/sys"
)

const backendHelp = `
bench backend: what stands behind the proxies, until Ctrl-C.

  go run ./bench backend --http 127.0.0.1:9001 --bulk 127.0.0.1:9002

The HTTP server answers GET / with a body of 13 bytes, GET /bytes/N with N bytes, and GET /counters with what
it has done. The bulk server swallows and gives pattern (see bench/wire). The echoes send back what comes; the UDP
echo only counts a datagram of the generator that asks for no reply.
Try it:  curl -v http://127.0.0.1:9001/   and   curl http://127.0.0.1:9001/counters
`

func runBackend(ctx context.Context, args []string) error {
	cfg := backend.Config{}
	fs := newFlags("backend", backendHelp)
	fs.Func("http", "`ADDRESS` of the HTTP server; may be repeated; port 0 = any", func(s string) error {
		cfg.HTTP = append(cfg.HTTP, s)
		return nil
	})
	fs.StringVar(&cfg.Bulk, "bulk", "", "`ADDRESS` of the bulk server")
	fs.StringVar(&cfg.Echo, "echo", "", "`ADDRESS` of the echo")
	fs.StringVar(&cfg.UDP, "udp", "", "`ADDRESS` of the UDP echo")
	fs.IntVar(&cfg.Threads, "threads", 1, "event loops")
	fs.IntVar(&cfg.Backlog, "backlog", 4096, "of the listeners")
	if err := parse(fs, args); err != nil {
		return err
	}
	if len(cfg.HTTP) == 0 && cfg.Bulk == "" && cfg.Echo == "" && cfg.UDP == "" {
		return usagef("want at least one of --http, --bulk, --echo and --udp")
	}
	if _, err := sys.RaiseOpenFiles(); err != nil {
		return err
	}
	runtime.GOMAXPROCS(cfg.Threads + 1)
	s, err := backend.Start(cfg)
	if err != nil {
		return err
	}
	defer s.Stop()
	fmt.Printf("HTTP %v  bulk %s  echo %s  UDP echo %s\nCtrl-C ends it.\n", s.HTTP, s.Bulk, s.Echo, s.UDP)
	<-ctx.Done()
	return nil
}

const naiveHelp = `
bench naive: the proxy every Go programmer would write first, two goroutines and io.Copy per connection.

  go run ./bench naive 127.0.0.1:8080=127.0.0.1:9001

Relays each listen address to its backend, half-close included, until Ctrl-C. GOMAXPROCS bounds its cores.
`

func runNaive(ctx context.Context, args []string) error {
	fs := newFlags("naive", naiveHelp)
	var pairs []string
	for len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		pairs, args = append(pairs, args[0]), args[1:]
	}
	if err := parse(fs, args); err != nil {
		return err
	}
	if len(pairs) == 0 {
		return usagef("want LISTEN=BACKEND, such as 127.0.0.1:8080=127.0.0.1:9001")
	}
	signal.Ignore(syscall.SIGHUP) // it has nothing to reload
	if _, err := sys.RaiseOpenFiles(); err != nil {
		return err
	}
	for _, p := range pairs {
		listen, to, ok := cutPair(p)
		if !ok {
			return usagef("%q: want LISTEN=BACKEND", p)
		}
		if _, err := backend.StartNaive(listen, to); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

func cutPair(s string) (listen, to string, ok bool) {
	listen, to, ok = strings.Cut(s, "=")
	return listen, to, ok && listen != "" && to != ""
}
