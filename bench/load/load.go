// Package load is the load generator: it offers work to a proxy and measures what comes back, without becoming the
// bottleneck itself. One or a few epoll loops own all connections; there is no goroutine per connection, nothing is
// allocated while it runs, and one clock reading is made per request.
//
// Over TLS, keep-alive requests have the same loops; handshakes and bulk have a goroutine per connection, since crypto/tls
// wants to block there.
//
// It does not start or know the proxy; it can only watch the CPU of processes it is told of. Every byte of every
// response is compared with the one that package wire says must come, and a run with a single error is a failed run.
//
// Latency in a closed loop (Rate 0) tells little about a server that stalls: while it stalls nothing is asked, so one
// slow answer stands for the hundred that were never requested. With a Rate each request has a time at which it should
// be sent, fixed in advance, and latency counts from there ("coordinated omission" is the name of the mistake avoided).
//
//	result, err := load.Run(ctx, load.Config{Mode: load.Requests, Target: "127.0.0.1:8080", Conns: 64, Duration: time.Second})
//
// A run goes through phases, the same for all modes; each loop follows the run's phase and reports back by channel:
//
//	connect --(all ready)--> [gate] --> run --(window over)--> drain --(nothing in flight)--> [gate] --> stop
package load

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"awe4lb/bench/hist"
	"awe4lb/bench/proc"
	"awe4lb/bench/sys"
)

const (
	generatorName = "generator"
	openLoopDelay = 5 * time.Millisecond // between the order to run and the first intended send
)

type phase = int32

const (
	phaseConnect phase = iota
	phaseRun
	phaseDrain
	phaseStop
)

// run is one run: what its loops share.
type run struct {
	// Set once, never changed.
	cfg    Config
	target sys.Addr
	epoch  time.Time // all times inside are nanoseconds since this
	parts  []part

	runNumber uint32 // UDP: see wire.Datagram

	// Written by the coordinator before the phase it belongs to, read by loops after.
	t0 int64 // open loop: the first intended send

	// Shared: atomics.
	phase     atomic.Int32
	measuring atomic.Bool // units that complete now belong to the window

	// Guarded by mu.
	mu     sync.Mutex
	errors map[string]int64
}

// Run makes one run and returns what it measured. Errors of the load itself (refused, short, mismatched) are in the
// result, see Result.Failed; an error is returned for a wrong Config, for a watched process that is gone, or when ctx ends.
// It blocks for the whole run, and uses cfg.Threads OS threads meanwhile.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	target, err := sys.ParseAddr(cfg.Target)
	if err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, target: target, epoch: time.Now(), runNumber: newRunNumber(), errors: map[string]int64{}}
	for i := range cfg.Threads {
		p, err := newPart(r, i)
		if err != nil {
			r.abandon()
			return nil, err
		}
		r.parts = append(r.parts, p)
	}
	var ended sync.WaitGroup
	for _, p := range r.parts {
		ended.Go(p.run)
	}
	w := newWindow(cfg.Watch)
	err = r.conduct(ctx, w)
	r.phase.Store(phaseStop)
	ended.Wait()
	if err != nil {
		return nil, err
	}
	return r.result(w)
}

// conduct leads the loops through the phases.
func (r *run) conduct(ctx context.Context, w *window) error {
	cfg := &r.cfg
	if err := r.await(ctx, "connections to open", func(f *figures) chan struct{} { return f.ready }, time.Hour); err != nil {
		return err
	}
	if r.failed() {
		return nil // what cannot even connect is not worth loading
	}
	if cfg.silent() {
		return r.holdIdle(ctx, w)
	}
	if err := r.holdReady(ctx); err != nil {
		return err
	}

	w.prepare()
	if cfg.counted() {
		w.start(r)
		r.phase.Store(phaseRun)
	} else {
		r.t0 = r.now() + int64(openLoopDelay)
		r.phase.Store(phaseRun)
		delay := cfg.Warmup
		if cfg.Rate > 0 {
			delay += openLoopDelay
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		w.start(r)
		if err := sleep(ctx, cfg.Duration); err != nil {
			return err
		}
		w.stop(r)
		r.phase.Store(phaseDrain)
	}
	limit := 2*cfg.Timeout + 5*time.Second
	if cfg.counted() {
		limit = time.Hour
	}
	if err := r.await(ctx, "answers to the last requests", func(f *figures) chan struct{} { return f.done }, limit); err != nil {
		return err
	}
	if cfg.counted() {
		w.stop(r)
	}
	if cfg.Gate != nil && cfg.Gate.Done != nil {
		return cfg.Gate.Done(ctx)
	}
	return nil
}

// holdReady waits at the first gate.
func (r *run) holdReady(ctx context.Context) error {
	if r.cfg.Gate != nil && r.cfg.Gate.Ready != nil {
		return r.cfg.Gate.Ready(ctx)
	}
	if r.cfg.Mode == Stall {
		return sleep(ctx, r.cfg.Hold)
	}
	return nil
}

// holdIdle measures the silence: CPU that a proxy uses for connections that do nothing.
func (r *run) holdIdle(ctx context.Context, w *window) error {
	w.prepare()
	w.start(r)
	var err error
	if r.cfg.Gate != nil && r.cfg.Gate.Ready != nil {
		err = r.cfg.Gate.Ready(ctx)
	} else {
		err = sleep(ctx, r.cfg.Hold)
	}
	w.stop(r)
	return err
}

// await waits until every part has closed the channel that which picks.
func (r *run) await(ctx context.Context, what string, which func(*figures) chan struct{}, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, p := range r.parts {
		select {
		case <-which(p.measured()):
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return fmt.Errorf("gave up after %v waiting for %s", limit, what)
		}
	}
	return nil
}

func (r *run) result(w *window) (*Result, error) {
	cfg := &r.cfg
	out := &Result{Mode: cfg.Mode, Connections: cfg.Conns, Threads: cfg.Threads, OfferedRate: cfg.Rate, Errors: r.errors}
	if cfg.Mode == UDP {
		out.Datagrams = new(Datagrams)
	}
	if cfg.Mode == Requests || cfg.Mode == Connections || cfg.Mode == UDP {
		out.Latency = new(hist.Histogram)
		if cfg.Rate > 0 {
			out.Lag = new(hist.Histogram)
		}
	}
	for _, p := range r.parts {
		l := p.measured()
		out.Units += l.units
		out.BytesUp += l.bytesUp
		out.BytesDown += l.bytesDown
		if out.Datagrams != nil {
			out.Datagrams.add(&l.datagrams)
		}
		if out.Latency != nil {
			out.Latency.Merge(l.latency)
		}
		if out.Lag != nil {
			out.Lag.Merge(l.lag)
		}
	}
	return out, w.account(out)
}

// fail counts n units that failed for one reason. Safe from any goroutine.
func (r *run) fail(kind string, n int64) {
	r.mu.Lock()
	r.errors[kind] += n
	r.mu.Unlock()
}

func (r *run) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.errors) > 0
}

// now returns nanoseconds since the epoch: one clock reading.
func (r *run) now() int64 { return int64(time.Since(r.epoch)) }

func (r *run) abandon() {
	for _, p := range r.parts {
		p.abandon()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// window is the measured stretch of a run, owned by the coordinator. The slow readings are made outside of it.
type window struct {
	names          []string
	meters         []*proc.Meter
	began, ended   int64
	machine0       proc.Machine
	machine1       proc.Machine
	opened, closed bool
}

func newWindow(watch []Watch) *window {
	w := &window{}
	for _, t := range watch {
		w.names = append(w.names, t.Name)
		w.meters = append(w.meters, proc.NewMeter(t.PID))
	}
	w.names = append(w.names, generatorName)
	w.meters = append(w.meters, proc.NewMeter(os.Getpid()))
	return w
}

func (w *window) prepare() {
	for _, m := range w.meters {
		m.Prepare()
	}
}

func (w *window) start(r *run) {
	w.opened = true
	w.machine0, _ = proc.ReadMachine()
	for _, m := range w.meters {
		m.Start()
	}
	w.began = r.now()
	r.measuring.Store(true)
}

func (w *window) stop(r *run) {
	r.measuring.Store(false)
	w.ended = r.now()
	w.closed = true
	for _, m := range w.meters {
		m.Stop()
	}
	w.machine1, _ = proc.ReadMachine()
}

// account fills in what the window saw; a run that never opened it has nothing to add.
func (w *window) account(out *Result) error {
	if !w.opened || !w.closed {
		return nil
	}
	out.Seconds = float64(w.ended-w.began) / 1e9
	known := time.Duration(0)
	for i, m := range w.meters {
		u, err := m.Finish()
		if err != nil {
			return fmt.Errorf("watched %s: %w", w.names[i], err)
		}
		known += u.Total
		out.CPU = append(out.CPU, Share{w.names[i], u})
	}
	d := w.machine1.Sub(w.machine0)
	if total := float64(d.Total()); total > 0 {
		out.Foreign = max(0, float64(d.Busy-known)/total)
		out.Steal = float64(d.Steal) / total
	}
	return nil
}
