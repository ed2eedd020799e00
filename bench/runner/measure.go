package runner

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"awe4lb/bench/hist"
	"awe4lb/bench/load"
	"awe4lb/bench/proc"
	"awe4lb/bench/report"
)

// measure makes one run of a scenario against one system and notes its figures.
func (e *env) measure(ctx context.Context, round int, sc scenario, s System) error {
	in, err := e.beside(ctx, s, sc.family)
	if err != nil {
		return err
	}
	to := in.place.HTTP
	if sc.bulk {
		to = in.place.Bulk
	}
	args := sc.args(&e.o)
	if sc.family == overTLS {
		var more []string
		to, more = in.place.secure(sc)
		args = append(args, more...)
	}
	if sc.family == overUDP {
		to = in.place.UDP
		if e.clientPort == 0 {
			if e.clientPort, err = e.freeClientPorts(clientPorts); err != nil {
				return err
			}
		}
		args = append(args, "--ports", strconv.Itoa(clientPorts), "--first-port", strconv.Itoa(e.clientPort))
	}
	warmup, window := e.o.Warmup, e.o.Window
	var f *flood
	var g *gates
	if sc.flood {
		warmup, window = e.o.floodWarmup(), e.o.floodWindow()
		f = &flood{length: warmup + window + floodTail}
		g = &gates{ready: func() error { f.begin(ctx, e, in); return nil }}
	}
	args = append(args, "--to", to, "--duration", window.String(), "--warmup", warmup.String())
	meanwhile := make(chan error, 1)
	meanwhileCtx, still := context.WithCancel(ctx)
	switch {
	case in.sys.Flaps:
		go func() { meanwhile <- flap(meanwhileCtx, in.place) }()
	case in.sys.Asked:
		go func() { meanwhile <- ask(meanwhileCtx, in.place) }()
	default:
		meanwhile <- nil
	}
	r, err := e.generate(ctx, g, append(args, e.watch(in)...)...)
	still()
	err = errors.Join(err, <-meanwhile)
	if f != nil {
		err = errors.Join(err, f.wait())
	}
	if err != nil {
		return err
	}
	run := report.Run{Round: round, Scenario: sc.Key, System: s.Name, Errors: r.ErrorText(),
		Foreign: r.Foreign, Steal: r.Steal, Bound: r.GeneratorBound()}
	fillRun(&run, sc.Unit, r)
	if f != nil {
		run.Flood = f.result.Rate()
		run.Foreign = max(0, run.Foreign-f.share()) // the flood's generator is no stranger
		run.Errors = errorTexts(r, f.result)
	}
	e.res.Runs = append(e.res.Runs, run)
	if run.Errors != "" {
		return errors.New(run.Errors)
	}
	if r.Latency != nil {
		e.keepLatency(sc.Key, s.Name, r.Latency)
	}
	return nil
}

func (e *env) watch(in *instance) []string {
	if in.sys.Kind == kindDirect {
		return []string{"--watch", fmt.Sprintf("backend=%d", e.backend.PID)}
	}
	return []string{"--watch", fmt.Sprintf("proxy=%d", in.process.PID), "--watch", fmt.Sprintf("backend=%d", e.backend.PID)}
}

// fillRun turns a generator's result into figures per unit: microseconds per request or connection, milliseconds per GB.
func fillRun(run *report.Run, unit report.Unit, r *load.Result) {
	run.Units, run.Rate = float64(r.Units), r.Rate()
	scale := 1e6
	if unit == report.PerGB {
		run.Units, run.Rate = float64(r.BytesUp+r.BytesDown)/1e9, r.GBps()
		scale = 1e3
	}
	per := func(name string) (cpu, switches float64, u proc.Usage) {
		u, _ = r.CPUOf(name)
		if run.Units == 0 {
			return 0, 0, u
		}
		return u.Total.Seconds() * scale / run.Units, float64(u.Switches) / run.Units, u
	}
	var u proc.Usage
	run.CPU, run.Switches, u = per("proxy")
	if both := u.User + u.System; both > 0 {
		run.User = float64(u.User) / float64(both)
	}
	run.BackendCPU, _, _ = per("backend")
	run.LoadCPU, _, _ = per("generator")
	if d := r.Datagrams; d != nil && r.Seconds > 0 {
		run.Sent, run.Loss, run.Moved = float64(d.Sent)/r.Seconds, d.Loss(), d.Moved
	}
	if r.Latency != nil {
		us := func(h *hist.Histogram, q float64) float64 { return float64(h.Quantile(q)) / 1e3 }
		run.P50, run.P99, run.P999 = us(r.Latency, 0.5), us(r.Latency, 0.99), us(r.Latency, 0.999)
		if r.Lag != nil {
			run.LagP99 = us(r.Lag, 0.99)
		}
	}
	if run.Units == 0 && run.Errors == "" {
		run.Errors = "nothing was completed in the window"
	}
}

func (e *env) keepLatency(scenario, system string, h *hist.Histogram) {
	for i := range e.res.Latencies {
		if l := &e.res.Latencies[i]; l.Scenario == scenario && l.System == system {
			l.Histogram.Merge(h)
			return
		}
	}
	e.res.Latencies = append(e.res.Latencies, report.Latency{Scenario: scenario, System: system, Histogram: h})
}
