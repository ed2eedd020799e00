package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"awe4lb/bench/certs"
	"awe4lb/bench/load"
	"awe4lb/bench/runner"
	"awe4lb/bench/sys"
)

const loadHelp = `
bench load: offer load to a proxy and measure what comes back.

  go run ./bench load <mode> --to ADDRESS [flags]

  requests      keep-alive requests over --conns connections
  connections   short connections, --conns at a time: connect, one request, response, close
  bulk          --conns streams of bytes, --up, --down or both
  idle          open --conns connections, one request each, then hold them for --hold
  half-open     --conns clients that send a ClientHello, hear the answer, and stay silent for --hold; with --tls
  stall         download --bytes over each of --conns streams, but read nothing for --hold
  udp           datagrams of --conns clients (an address of 127.64.0.0/10 and a port each), answered by the UDP echo

The far end must be a backend of ours (go run ./bench backend), directly or through a proxy: every byte that
comes back is compared with the one that must come, and a single wrong one fails the run (exit code 1).

Closed loop, as fast as answers come:    bench load requests --to 127.0.0.1:8080 --conns 64 --duration 2s
Open loop, 10,000 requests a second:     bench load requests --to 127.0.0.1:8080 --conns 64 --duration 2s --rate 10000
   Latency then counts from when a request should have been sent: the honest figure under a stall.
Short connections, and the CPU of a PID: bench load connections --to 127.0.0.1:8080 --conns 64 --watch proxy=4711
UDP, 256 round trips under way:          bench load udp --to 127.0.0.1:8082 --conns 10000 --size 64 --window 256
UDP, 200,000 datagrams a second:         bench load udp --to 127.0.0.1:8082 --conns 100 --rate 200000
UDP, trains of 16 of the same client:    bench load udp --to 127.0.0.1:8082 --conns 4 --size 1200 --train 16
Full TLS handshakes, one request each:   bench load connections --to 127.0.0.1:8443 --conns 32 --tls 1.3
The same, sessions resumed:              bench load connections --to 127.0.0.1:8443 --conns 32 --tls 1.3 --resume
   Key exchange is X25519 and the suite AES-128-GCM, whatever the server likes better.
Both directions, every byte compared:    bench load bulk --to 127.0.0.1:8081 --conns 8 --up --down --verify
`

func runLoad(ctx context.Context, args []string) error {
	cfg := load.Config{}
	fs := newFlags("load", loadHelp)
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		cfg.Mode = load.Mode(args[0])
		args = args[1:]
	}
	fs.StringVar(&cfg.Target, "to", "", "`ADDRESS` of the proxy, IPv4 and port")
	fs.IntVar(&cfg.Conns, "conns", 64, "connections, streams or UDP clients")
	fs.IntVar(&cfg.Threads, "threads", 1, "event loops; one does 100,000 requests/s and more")
	fs.DurationVar(&cfg.Duration, "duration", 2*time.Second, "length of the measured `time`")
	fs.DurationVar(&cfg.Warmup, "warmup", 200*time.Millisecond, "`time` of load before it")
	fs.Int64Var(&cfg.Count, "count", 0, "stop after `N` requests, connections or datagrams instead")
	fs.Float64Var(&cfg.Rate, "rate", 0, "offered load per second (open loop); 0 = closed loop")
	fs.DurationVar(&cfg.Timeout, "timeout", 0, "`time` after which a request has failed (10s) or a datagram is lost (500ms)")
	fs.IntVar(&cfg.RequestBytes, "request", 0, "bytes of a request, head and all; 0 = the shortest GET")
	fs.IntVar(&cfg.ResponseBytes, "response", 13, "bytes of a response's body")
	fs.BoolVar(&cfg.ClientCloses, "client-closes", false, "connections: the client closes first, not the backend")
	fs.BoolVar(&cfg.Up, "up", false, "bulk: the client sends")
	fs.BoolVar(&cfg.Down, "down", false, "bulk: the backend sends")
	fs.BoolVar(&cfg.Verify, "verify", false, "bulk, stall: compare every byte at both ends")
	bytes := fs.String("bytes", "", "bulk, stall: `SIZE` per stream and direction, such as 200MB or 1GiB")
	version := fs.String("tls", "", "speak TLS of `VERSION` 1.2 or 1.3; requests, connections, bulk, idle, half-open")
	certificate := fs.String("certificate", "", "with --tls: PEM `FILE` of the one certificate that the server must show; without it, any will do")
	resume := fs.Bool("resume", false, "with --tls: connections that resume the session of one before them")
	fs.IntVar(&cfg.DatagramBytes, "size", 64, "udp: `BYTES` of a datagram")
	fs.IntVar(&cfg.Window, "window", 256, "udp: datagrams out at a time; closed loop")
	fs.IntVar(&cfg.Train, "train", 1, "udp: datagrams of one client that leave at once (UDP_SEGMENT)")
	fs.BoolVar(&cfg.OneWay, "one-way", false, "udp: ask for no answers")
	fs.BoolVar(&cfg.Fresh, "fresh", false, "udp: do not let each client have a round trip first; with --count, what a new flow costs")
	fs.IntVar(&cfg.Ports, "ports", 4, "udp: ports that the clients share")
	fs.IntVar(&cfg.FirstPort, "first-port", 0, "udp: the lowest of them; 0 = any that are free")
	fs.IntVar(&cfg.FirstAddress, "first-address", 0, "udp: `NUMBER` of the first client's address in 127.64.0.0/10")
	fs.IntVar(&cfg.Sources, "sources", 0, "spread the clients over `N` addresses of 127.1.0.0/16")
	fs.DurationVar(&cfg.Hold, "hold", 5*time.Second, "idle, stall: `time` of silence")
	fs.Func("watch", "measure the CPU of a process tree, as `NAME=PID`; may be repeated", func(s string) error {
		name, pid, ok := strings.Cut(s, "=")
		n, err := strconv.Atoi(pid)
		if !ok || err != nil {
			return fmt.Errorf("%q: want NAME=PID", s)
		}
		cfg.Watch = append(cfg.Watch, load.Watch{Name: name, PID: n})
		return nil
	})
	asJSON := fs.Bool("json", false, "print the result as JSON")
	gate := fs.Bool("gate", false, "print \"ready\" and \"done\" and wait for a line of input at each: time to attach a tracer")
	if err := parse(fs, args); err != nil {
		return err
	}
	if cfg.Target == "" || cfg.Mode == "" {
		return usagef("want a mode and --to ADDRESS, such as: requests --to 127.0.0.1:8080")
	}
	if *bytes != "" {
		n, err := parseSize(*bytes)
		if err != nil {
			return usageError{err.Error()}
		}
		cfg.Bytes = n
	}
	if *version == "" && (*resume || *certificate != "") {
		return usagef("--resume and --certificate are about TLS: want --tls 1.2 or --tls 1.3 too")
	}
	if *version != "" {
		t, err := tlsOf(*version, *certificate)
		if err != nil {
			return usageError{err.Error()}
		}
		t.Resume, cfg.TLS = *resume, t
		debug.SetGCPercent(400) // a handshake leaves 70 kB behind
	}
	if *gate {
		cfg.Gate = stdioGate(os.Stdin, os.Stdout)
	}
	if _, err := sys.RaiseOpenFiles(); err != nil {
		return err
	}
	runtime.GOMAXPROCS(cfg.Threads + 2) // the loops' threads never wait for a P, nor does the coordinator
	result, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
			return err
		}
	} else {
		result.Print(os.Stdout)
	}
	if result.Failed() {
		return errors.New("the run failed: " + result.ErrorText())
	}
	return nil
}

// tlsOf returns what the flags say about TLS.
func tlsOf(version, certificate string) (*load.TLS, error) {
	t := &load.TLS{}
	switch version {
	case "1.2":
		t.Version = tls.VersionTLS12
	case "1.3":
		t.Version = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("TLS %q: want 1.2 or 1.3", version)
	}
	if certificate == "" {
		return t, nil
	}
	text, err := os.ReadFile(certificate)
	if err != nil {
		return nil, err
	}
	if t.Certificate, err = certs.Leaf(text); err != nil {
		return nil, fmt.Errorf("%s: %w", certificate, err)
	}
	return t, nil
}

// stdioGate speaks with whoever holds the other ends: a word out, any line in.
func stdioGate(in io.Reader, out io.Writer) *load.Gate {
	lines := make(chan error)
	go func() { // ends with the process: a read of standard input cannot be taken back
		r := bufio.NewReader(in)
		for {
			_, err := r.ReadString('\n')
			lines <- err
		}
	}()
	stop := func(word string) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			fmt.Fprintln(out, word)
			select {
			case err := <-lines:
				if err != nil {
					return fmt.Errorf("waiting at the gate %q: %w", word, err)
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return &load.Gate{Ready: stop(runner.GateReady), Done: stop(runner.GateDone)}
}

// parseSize reads bytes with an optional unit: 1000, 64KiB, 200MB, 1GiB.
func parseSize(s string) (uint64, error) {
	units := []struct {
		name  string
		bytes uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"", 1}}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n > 1<<40 {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("size %q: want a number of bytes, perhaps with kB, MB, GB, KiB, MiB or GiB", s)
}
