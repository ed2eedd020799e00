package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"awe4lb/bench/proc"
	"awe4lb/bench/soak"
)

// SoakOptions is what a soak may be told.
type SoakOptions struct {
	System    string        // which proxy; "" = awe4lb
	Awe4lb    string        // its binary; "" = build the checkout
	Duration  time.Duration // 0 = 10 minutes; the cycle under way is finished
	Phase     time.Duration // length of each kind of load in a cycle; 0 = 4 s
	Metrics   string        // URL to read go_goroutines from; "" = awe4lb's own admin, nothing for others
	MaxGrowth int64         // see soak.Report; 0 = 4 MB
	Workers   int
	Command   string
	Self      string
	Progress  *Progress
}

const (
	reloadEvery = 300 * time.Millisecond
	sampleEvery = time.Second
	maxFailures = 20 // a proxy that fails so often need not be kept busy any longer
)

// soaker is a soak under way.
type soaker struct {
	*env
	so      SoakOptions
	in      *instance
	metrics string
	flows   func() int // UDP: how many there are; nil in a soak of TCP
	began   time.Time

	// Guarded by mu.
	mu      sync.Mutex
	report  *soak.Report
	current string // phase, for the progress line
}

// Soak keeps one proxy busy in cycles and watches what it holds. It returns the report, also of a proxy that failed; an
// error means that there was no soak. Everything it starts is stopped before it returns.
func Soak(ctx context.Context, so SoakOptions) (*soak.Report, error) {
	if so.System == "" {
		so.System = "awe4lb"
	}
	set := func(p *time.Duration, to time.Duration) {
		if *p == 0 {
			*p = to
		}
	}
	set(&so.Duration, 10*time.Minute)
	set(&so.Phase, 4*time.Second)
	if so.MaxGrowth == 0 {
		so.MaxGrowth = 4e6
	}
	o := Options{Systems: []string{so.System}, Scenarios: []string{}, Awe4lb: so.Awe4lb, Workers: so.Workers, Self: so.Self,
		Command: so.Command, Progress: so.Progress}.withDefaults()
	e, err := newEnv(o)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(e.dir)
	defer e.procs.StopAll()
	defer o.Progress.End()
	if err := e.findSystems(ctx, overTCP); err != nil {
		if skipped := e.res.Systems; len(skipped) > 0 && skipped[0].Skipped != "" {
			return nil, errors.New(skipped[0].Skipped)
		}
		return nil, err
	}
	if err := e.startBackends(2); err != nil {
		return nil, err
	}
	s := &soaker{env: e, so: so, report: &soak.Report{System: so.System, Version: e.systems[0].Version, Commit: e.res.Commit,
		Dirty: e.res.Dirty, Command: so.Command, Date: e.res.Date, Kernel: e.res.Machine.Kernel, Cores: e.res.Machine.Cores, MaxGrowth: so.MaxGrowth}}
	return s.report, s.run(ctx)
}

func (s *soaker) run(ctx context.Context) error {
	place, err := s.newPlace(s.systems[0])
	if err != nil {
		return err
	}
	if s.metrics = s.so.Metrics; s.metrics == "" && s.systems[0].Kind == "awe4lb" {
		if place.Admin, err = s.freeAddress(); err != nil {
			return err
		}
		s.metrics = "http://" + place.Admin + "/metrics"
	}
	if s.in, err = s.startAt(ctx, s.systems[0], place); err != nil {
		return err
	}
	s.began = time.Now()
	sampling, stopSampling := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { s.sampleLoop(sampling) })
	defer sampler.Wait()
	defer stopSampling()
	for time.Since(s.began) < s.so.Duration && s.failures() < maxFailures {
		if err := s.cycle(ctx); err != nil {
			return err
		}
		if s.in.process.Ended() {
			s.fail("%s has died (%v); it said: %s", s.so.System, s.in.process.err, s.in.process.Output())
			break
		}
		s.mu.Lock()
		s.report.Cycles++
		s.mu.Unlock()
	}
	s.report.Lasted = time.Since(s.began)
	return nil
}

func (s *soaker) failures() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.report.Failures)
}

// cycle makes one kind of load after the other, then lets the proxy rest and takes the sample that is judged. It ends
// early when the proxy has died.
func (s *soaker) cycle(ctx context.Context) error {
	length := s.so.Phase.String()
	requests := func(conns int) []string {
		return []string{"requests", "--to", s.in.place.HTTP, "--conns", strconv.Itoa(conns), "--duration", length, "--warmup", "0s"}
	}
	short := []string{"connections", "--to", s.in.place.HTTP, "--conns", "64", "--duration", length, "--warmup", "0s"}
	for _, phase := range []struct {
		name string
		work func() error
	}{
		{"keep-alive requests", func() error { return s.load(ctx, requests(64)...) }},
		{"short connections", func() error { return s.load(ctx, short...) }},
		{"bulk both ways", func() error {
			return s.load(ctx, "bulk", "--to", s.in.place.Bulk, "--conns", "4", "--up", "--down", "--verify", "--duration", length, "--warmup", "0s")
		}},
		{"slow readers", func() error {
			return s.load(ctx, "stall", "--to", s.in.place.Bulk, "--conns", "16", "--bytes", "16MB", "--verify", "--hold", (s.so.Phase / 2).String())
		}},
		{"reloads under load", func() error { return s.reloads(ctx, requests(16), short) }},
		{"rest", func() error { return s.rest(ctx) }},
	} {
		s.show(phase.name)
		if err := phase.work(); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if s.in.process.Ended() {
			return nil
		}
	}
	return nil
}

// load makes one load and notes what it did. Failed requests are noted, not returned.
func (s *soaker) load(ctx context.Context, args ...string) error {
	r, err := s.generate(ctx, nil, args...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.fail("%s: %v", args[0], err)
		return nil
	}
	s.mu.Lock()
	s.report.Requests += r.Units
	s.report.Bytes += r.BytesUp + r.BytesDown
	s.mu.Unlock()
	if r.Failed() {
		s.fail("%s: %s", args[0], r.ErrorText())
	}
	return nil
}

// reloads sends SIGHUP again and again while both kinds of request load run. Every other configuration has one backend
// less, so that each reload changes something.
func (s *soaker) reloads(ctx context.Context, loads ...[]string) error {
	var running sync.WaitGroup
	errs := make([]error, len(loads))
	for i, args := range loads {
		running.Go(func() { errs[i] = s.load(ctx, args...) })
	}
	over := make(chan struct{})
	go func() { running.Wait(); close(over) }()
	for n := 1; ; n++ {
		select {
		case <-over:
			return errors.Join(errs...)
		case <-time.After(reloadEvery):
		}
		place := s.in.place
		place.HTTPBackend = place.HTTPBackend[:1+n%2]
		if _, _, err := kinds[s.in.sys.Kind](s.in.sys, place); err != nil {
			s.fail("write the configuration: %v", err)
		}
		if s.in.process.Ended() {
			continue
		}
		s.in.process.cmd.Process.Signal(syscall.SIGHUP)
		s.mu.Lock()
		s.report.Reloads++
		s.mu.Unlock()
	}
}

// rest waits until the proxy has settled, and takes the middle of three looks.
func (s *soaker) rest(ctx context.Context) error {
	var looks []soak.Sample
	for range 3 {
		if err := wait(ctx, s.so.Phase/4); err != nil {
			return err
		}
		if look, err := s.look(); err == nil {
			looks = append(looks, look)
		}
	}
	if len(looks) == 0 {
		return nil
	}
	slices.SortFunc(looks, func(a, b soak.Sample) int { return int(a.RSS - b.RSS) })
	look := looks[len(looks)/2]
	look.Rest = true
	s.keep(look)
	return nil
}

func (s *soaker) sampleLoop(ctx context.Context) {
	for wait(ctx, sampleEvery) == nil {
		if look, err := s.look(); err == nil {
			s.keep(look)
		}
		s.mu.Lock()
		current := s.current
		s.mu.Unlock()
		s.show(current)
	}
}

func (s *soaker) keep(look soak.Sample) {
	look.Seconds = time.Since(s.began).Seconds()
	s.mu.Lock()
	s.report.Samples = append(s.report.Samples, look)
	s.mu.Unlock()
}

// look reads what the proxy holds now.
func (s *soaker) look() (soak.Sample, error) {
	rss, err1 := proc.TreeRSS(s.in.process.PID)
	fds, err2 := proc.TreeFDs(s.in.process.PID)
	look := soak.Sample{RSS: rss, FDs: fds, Goroutines: goroutines(s.metrics)}
	if s.flows != nil {
		look.Flows = s.flows()
	}
	return look, errors.Join(err1, err2)
}

// goroutines reads go_goroutines from a page of metrics; -1 when it cannot.
func goroutines(url string) int {
	if url == "" {
		return -1
	}
	resp, err := httpClient.Get(url)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return -1
	}
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if value, ok := strings.CutPrefix(sc.Text(), "go_goroutines "); ok {
			if n, err := strconv.Atoi(value); err == nil {
				return n
			}
		}
	}
	return -1
}

func (s *soaker) fail(format string, args ...any) {
	text := fmt.Sprintf("after %s: ", time.Since(s.began).Round(time.Second)) + strings.ReplaceAll(fmt.Sprintf(format, args...), s.dir, "")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.Failures = append(s.report.Failures, text)
	s.o.Progress.Say("FAILED %s", text)
}

// show writes the progress line.
func (s *soaker) show(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = phase
	held := ""
	if n := len(s.report.Samples); n > 0 {
		last := s.report.Samples[n-1]
		held = fmt.Sprintf(", %.1f MB, %d files", float64(last.RSS)/1e6, last.FDs)
		if s.flows != nil {
			held = fmt.Sprintf(", %d flows, %.1f MB", last.Flows, float64(last.RSS)/1e6)
		}
	}
	text := fmt.Sprintf("cycle %d, %s%s, %d failures, %s left", s.report.Cycles+1, phase, held, len(s.report.Failures), inWords(s.so.Duration-time.Since(s.began)))
	s.o.Progress.Show(strconv.Itoa(s.report.Cycles), text, text)
}

// wait sleeps until d has passed or ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
