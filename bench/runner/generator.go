package runner

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"awe4lb/bench/backend"
	"awe4lb/bench/load"
)

// gates are called while a generator waits; nil means go on at once.
type gates struct {
	ready, done func() error
}

// generate runs `bench load` as a process of its own and returns its result. Errors of the load are in the result; an
// error means that there is none. With gates the generator stops at both of them.
func (e *env) generate(ctx context.Context, g *gates, args ...string) (*load.Result, error) {
	argv := append([]string{e.self, "load"}, args...)
	argv = append(argv, "--json")
	if g != nil {
		argv = append(argv, "--gate")
	}
	q, err := e.procs.Start(Spec{Name: "bench load", Argv: argv, Dir: e.dir, Pipe: true})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { q.cmd.Process.Signal(interruptSignal) })
	defer stop()
	result, readErr := readResult(q, g)
	if readErr != nil {
		e.procs.Stop(q)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("load %s: %w; it said: %s", strings.Join(args, " "), readErr, q.Output())
	}
	exit := e.procs.Finish(q)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if result == nil {
		return nil, fmt.Errorf("load %s: no result (%v); it said: %s", strings.Join(args, " "), exit, q.Output())
	}
	return result, nil
}

// readResult reads the generator's output to its end, opening the gates on the way.
func readResult(q *Process, g *gates) (*load.Result, error) {
	var result *load.Result
	sc := bufio.NewScanner(q.Out)
	sc.Buffer(nil, 16<<20)
	open := func(f func() error) error {
		if f != nil {
			if err := f(); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(q.In)
		return err
	}
	for sc.Scan() {
		switch line := sc.Text(); line {
		case GateReady:
			if err := open(g.ready); err != nil {
				return nil, err
			}
		case GateDone:
			if err := open(g.done); err != nil {
				return nil, err
			}
		default:
			result = new(load.Result)
			if err := json.Unmarshal([]byte(line), result); err != nil {
				return nil, fmt.Errorf("result %q: %w", clip(line, 60), err)
			}
		}
	}
	return result, sc.Err()
}

// httpClient is used for the few questions asked beside the load: never kept alive, never slow.
var httpClient = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the generator looks at certificates

// counters asks the backends what they have done.
func (e *env) counters() (backend.Counters, error) {
	var c backend.Counters
	resp, err := httpClient.Get("http://" + e.backends.HTTP[0] + "/counters")
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	return c, json.NewDecoder(resp.Body).Decode(&c)
}

// awaitReady waits until url answers a request through the proxy, or the process has ended.
func awaitReady(ctx context.Context, q *Process, url string) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		resp, err := httpClient.Get(url + "/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case q.Ended():
			return fmt.Errorf("%s ended at once (%v); it said: %s", q.Name, q.err, q.Output())
		case time.Now().After(deadline):
			return fmt.Errorf("%s does not answer on %s: %v; it said: %s", q.Name, url, err, q.Output())
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// freeAddress returns an address of loopback whose port is free now, for TCP and UDP, below the range that outgoing connections are given
// ports from: there, a generator's own socket could take it before the proxy does.
func (e *env) freeAddress() (string, error) {
	for ; e.nextPort < 32000; e.nextPort++ {
		address := fmt.Sprintf("127.0.0.1:%d", e.nextPort)
		ln, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		ln.Close()
		udp, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		udp.Close()
		e.nextPort++
		return address, nil
	}
	return "", errors.New("no free port between 21000 and 32000")
}
