package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"awe4lb/bench/load"
	"awe4lb/bench/proc"
	"awe4lb/bench/report"
)

// This file holds what is measured once or a few times, not in rounds: bytes, system calls, memory, stalled readers.

const (
	verifyStreams = 4
	verifyBytes   = 64 << 20 // per stream and direction; a quarter of it in a quick run
	stallStreams  = 8        // a quarter of it in a quick run
	stallBytes    = 200e6    // per stream
	settle        = 900 * time.Millisecond
	stillFor      = 400 * time.Millisecond // backends that pushed nothing for so long are stopped by back-pressure
	stillLimit    = 15 * time.Second
)

// verify sends bulk both ways at once and compares every byte at both ends; it also warms the proxy up.
func (e *env) verify(ctx context.Context, s System, f family) error {
	in, err := e.beside(ctx, s, f)
	if err != nil {
		return err
	}
	bytes := verifyBytes
	if e.o.Quick {
		bytes /= 4
	}
	args := []string{"bulk", "--to", in.place.Bulk, "--conns", strconv.Itoa(verifyStreams), "--up", "--down", "--verify", "--bytes", strconv.Itoa(bytes)}
	v := report.Verified{System: s.Name}
	if f == overTLS {
		v.Over = "TLS"
		args = append(args, "--tls", "1.3", "--certificate", in.place.ECDSA)
	}
	r, err := e.generate(ctx, nil, args...)
	if err != nil {
		return err
	}
	v.Bytes, v.Errors = r.BytesUp+r.BytesDown, r.ErrorText()
	e.res.Verified = append(e.res.Verified, v)
	return failure(r)
}

func failure(r *load.Result) error {
	if r.Failed() {
		return errors.New(r.ErrorText())
	}
	return nil
}

// countSyscalls attaches strace to the proxy for a fixed number of requests, then of connections.
func (e *env) countSyscalls(ctx context.Context, s System) error {
	in, err := e.beside(ctx, s, overTCP)
	if err != nil {
		return err
	}
	for _, w := range []struct {
		unit  report.Unit
		units int64
		mode  string
	}{{report.PerRequest, int64(e.o.Traced), "requests"}, {report.PerConnection, int64(e.o.Traced) / 5, "connections"}} {
		var tracer *Process
		table := filepath.Join(e.dir, "strace.txt")
		r, err := e.generate(ctx, &gates{
			ready: func() error {
				tracer, err = e.attach(ctx, in, table)
				return err
			},
			done: func() error {
				tracer.cmd.Process.Signal(os.Interrupt) // strace lets go and writes its table
				select {
				case <-tracer.ended:
					return nil
				case <-time.After(stopPatience):
					return errors.New("strace does not let go")
				}
			},
		}, w.mode, "--to", in.place.HTTP, "--conns", "64", "--count", strconv.FormatInt(w.units, 10))
		if tracer != nil {
			e.procs.Stop(tracer)
		}
		if err != nil {
			return err
		}
		text, err := os.ReadFile(table)
		if err != nil {
			return err
		}
		calls, err := proc.ParseStrace(string(text))
		if err != nil {
			return err
		}
		e.res.Syscalls = append(e.res.Syscalls, report.SyscallCount{System: s.Name, Unit: w.unit, Units: w.units, Calls: calls, Errors: r.ErrorText()})
		if err := failure(r); err != nil {
			return err
		}
	}
	return nil
}

// attach starts strace on every process of the instance and waits until it holds every thread.
func (e *env) attach(ctx context.Context, in *instance, table string) (*Process, error) {
	argv := []string{findBinary("strace"), "-f", "-c", "-o", table}
	pids := proc.Tree(in.process.PID)
	for _, pid := range pids {
		argv = append(argv, "-p", strconv.Itoa(pid))
	}
	q, err := e.procs.Start(Spec{Name: "strace", Argv: argv, Dir: e.dir})
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(5 * time.Second)
	for slices.ContainsFunc(pids, func(pid int) bool { return !traced(pid, q.PID) }) {
		switch {
		case ctx.Err() != nil:
			return q, ctx.Err()
		case q.Ended():
			return q, fmt.Errorf("strace ended at once: %s", q.Output())
		case time.Now().After(deadline):
			return q, fmt.Errorf("strace could not attach: %s", q.Output())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return q, nil
}

// traced says whether tracer holds every thread of pid.
func traced(pid, tracer int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	want := fmt.Sprintf("TracerPid:\t%d\n", tracer)
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, t.Name()))
		if err == nil && !strings.Contains(string(b), want) {
			return false
		}
	}
	return true
}

// idleMemory opens idle connections through a fresh instance and reads its memory before and after.
func (e *env) idleMemory(ctx context.Context, s System) error {
	in, err := e.start(ctx, s)
	if err != nil {
		return err
	}
	defer e.procs.Stop(in.process)
	m := report.Memory{System: s.Name, Connections: min(e.o.IdleConns, (int(e.openFiles)-400)/s.FDsPerConn)}
	return e.hold(ctx, in, m, "idle", "--to", in.place.HTTP)
}

// hold reads in's memory before and while connections are held, as args say.
func (e *env) hold(ctx context.Context, in *instance, m report.Memory, args ...string) error {
	var err error
	if m.Before, err = settledPSS(ctx, in.process.PID); err != nil {
		return err
	}
	r, err := e.generate(ctx, &gates{ready: func() error {
		m.After, err = settledPSS(ctx, in.process.PID)
		return err
	}}, slices.Concat(args, []string{"--conns", strconv.Itoa(m.Connections)}, e.watch(in))...)
	if err != nil {
		return err
	}
	if u, ok := r.CPUOf("proxy"); ok && r.Seconds > 0 {
		m.IdleCPU = u.Total.Seconds() / r.Seconds
	}
	m.Errors = r.ErrorText()
	e.res.Memory = append(e.res.Memory, m)
	return failure(r)
}

// settledPSS waits a moment, for allocators and collectors to come to rest, and returns the middle of three readings.
func settledPSS(ctx context.Context, pid int) (int64, error) {
	var all []int64
	for range 3 {
		select {
		case <-time.After(settle / 3):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		n, err := proc.TreePSS(pid)
		if err != nil {
			return 0, err
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return all[1], nil
}

// stall lets backends push at clients that read nothing, waits until nothing moves any more, reads the proxy's memory,
// and then lets the clients read everything and compare it.
func (e *env) stall(ctx context.Context, s System) error {
	in, err := e.start(ctx, s)
	if err != nil {
		return err
	}
	defer e.procs.Stop(in.process)
	m := report.Stall{System: s.Name, Streams: stallStreams, Each: stallBytes}
	if e.o.Quick {
		m.Each /= 4
	}
	if m.Before, err = settledPSS(ctx, in.process.PID); err != nil {
		return err
	}
	sockets, err1 := proc.SocketMemory()
	before, err2 := e.counters()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r, err := e.generate(ctx, &gates{ready: func() error {
		if m.Absorbed, err = e.untilStill(ctx, before.BulkSent); err != nil {
			return err
		}
		if now, err := proc.SocketMemory(); err == nil {
			m.Sockets = now - sockets
		}
		m.After, err = settledPSS(ctx, in.process.PID)
		return err
	}}, "stall", "--to", in.place.Bulk, "--conns", strconv.Itoa(m.Streams), "--bytes", strconv.FormatInt(m.Each, 10), "--verify")
	if err != nil {
		return err
	}
	m.Errors = r.ErrorText()
	e.res.Stalls = append(e.res.Stalls, m)
	return failure(r)
}

// untilStill waits until the backends cannot push any more, and returns how much they have pushed since start.
func (e *env) untilStill(ctx context.Context, start int64) (int64, error) {
	last, since := int64(-1), time.Now()
	for began := time.Now(); time.Since(began) < stillLimit; {
		c, err := e.counters()
		if err != nil {
			return 0, err
		}
		if c.BulkSent != last {
			last, since = c.BulkSent, time.Now()
		} else if last > start && time.Since(since) > stillFor {
			return last - start, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("the backends still push after %v: %d bytes so far", stillLimit, last-start)
}
