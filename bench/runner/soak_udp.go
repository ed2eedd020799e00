package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"awe4lb/bench/load"
	"awe4lb/bench/proc"
	"awe4lb/bench/soak"
)

// FlowSoakOptions is what a soak of the flow table may be told. Zero values mean the defaults of `bench soak-udp`.
type FlowSoakOptions struct {
	System    string        // awe4lb, or nginx, or gobetween with its binary
	Awe4lb    string        // its binary; "" = build the checkout
	Gobetween string        // its binary
	Duration  time.Duration // the cycle under way is finished
	Phase     time.Duration // how long strangers come in a cycle
	Rate      float64       // strangers per second
	Live      int           // clients that go on all the time
	LiveRate  float64       // their datagrams per second, together
	Timeout   time.Duration // idle timeout of flows
	MaxFlows  int           // of the table
	MaxGrowth int64         // see soak.Report
	Workers   int
	Command   string
	Self      string
	Progress  *Progress
}

const (
	soakPorts = 8               // of the strangers: each address is 8 of them
	soakGrace = 2 * time.Second // a tick of the flow table's clock, and a second
)

func (so FlowSoakOptions) withDefaults() FlowSoakOptions {
	set := func(p *time.Duration, to time.Duration) {
		if *p == 0 {
			*p = to
		}
	}
	if so.System == "" {
		so.System = "awe4lb"
	}
	set(&so.Duration, 5*time.Minute)
	set(&so.Phase, 12*time.Second)
	set(&so.Timeout, 10*time.Second)
	if so.Rate == 0 {
		so.Rate = 5000
	}
	if so.Live == 0 {
		so.Live = 100
	}
	if so.LiveRate == 0 {
		so.LiveRate = 2000
	}
	if so.MaxGrowth == 0 {
		so.MaxGrowth = 4e6
	}
	return so
}

// flowSoaker is a soak of the flow table under way.
type flowSoaker struct {
	soaker
	so       FlowSoakOptions
	out      *soak.FlowReport
	files    int // descriptors before the first flow
	nextAddr int // addresses below were strangers already
	ports    int // the strangers' first
}

// SoakFlows floods the flow table of one proxy in cycles and watches what becomes of it. It returns the report, also of a
// proxy that failed; an error means that there was no soak. Everything it starts is stopped before it returns.
func SoakFlows(ctx context.Context, so FlowSoakOptions) (*soak.FlowReport, error) {
	so = so.withDefaults()
	o := Options{Systems: []string{so.System}, Scenarios: []string{}, Awe4lb: so.Awe4lb, Gobetween: so.Gobetween, Workers: so.Workers, Self: so.Self,
		Command: so.Command, Progress: so.Progress}.withDefaults()
	e, err := newEnv(o)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(e.dir)
	defer e.procs.StopAll()
	defer o.Progress.End()
	if err := e.findSystems(ctx, overUDP); err != nil {
		if skipped := e.res.Systems; len(skipped) > 0 && skipped[0].Skipped != "" {
			return nil, errors.New(skipped[0].Skipped)
		}
		return nil, err
	}
	if e.systems[0].Kind == kindDirect {
		return nil, errors.New("direct has no flows: want a proxy")
	}
	if err := e.startBackends(1); err != nil {
		return nil, err
	}
	if so.MaxFlows == 0 {
		so.MaxFlows = max(1000, min(16384, int(e.openFiles)-2000)) // a socket each
	}
	s := &flowSoaker{so: so, nextAddr: so.Live}
	s.out = &soak.FlowReport{Live: so.Live, MaxFlows: so.MaxFlows, Timeout: so.Timeout, Grace: soakGrace, Rate: so.Rate, LeftAtTheEnd: -1,
		Report: soak.Report{System: so.System, Version: e.systems[0].Version, Commit: e.res.Commit, Dirty: e.res.Dirty, Command: so.Command,
			Date: e.res.Date, Kernel: e.res.Machine.Kernel, Cores: e.res.Machine.Cores, MaxGrowth: so.MaxGrowth}}
	s.soaker = soaker{env: e, so: SoakOptions{System: so.System, Duration: so.Duration, Phase: so.Phase}, report: &s.out.Report, flows: s.count}
	return s.out, s.run(ctx)
}

func (s *flowSoaker) run(ctx context.Context) error {
	place, err := s.newUDPPlace(s.systems[0])
	if err != nil {
		return err
	}
	place.FlowTimeout, place.MaxFlows = s.so.Timeout, s.so.MaxFlows
	if s.systems[0].Kind == "awe4lb" {
		if place.Admin, err = s.freeAddress(); err != nil {
			return err
		}
		s.metrics = "http://" + place.Admin + "/metrics"
	}
	if s.ports, err = s.freeClientPorts(soakPorts); err != nil {
		return err
	}
	if s.clientPort, err = s.freeClientPorts(clientPorts); err != nil {
		return err
	}
	if s.in, err = s.startAt(ctx, s.systems[0], place); err != nil {
		return err
	}
	if s.files, err = proc.TreeFDs(s.in.process.PID); err != nil { // the flow of awaitEcho among them
		return err
	}
	s.began = time.Now()
	if look, err := s.look(); err == nil {
		s.keep(look)
	}
	sampling, stopSampling := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { s.sampleLoop(sampling) })
	defer sampler.Wait()
	defer stopSampling()
	for time.Since(s.began) < s.so.Duration && s.failures() < maxFailures && !s.in.process.Ended() {
		if err := s.flood(ctx); err != nil {
			return err
		}
	}
	if s.in.process.Ended() {
		s.fail("%s has died (%v); it said: %s", s.so.System, s.in.process.err, s.in.process.Output())
	} else {
		s.show("the end")
		if err := wait(ctx, s.so.Timeout+soakGrace); err != nil {
			return err
		}
		s.out.LeftAtTheEnd = s.count()
	}
	s.out.Lasted = time.Since(s.began)
	return nil
}

// flood is one cycle: live clients all the while, strangers that are answered, strangers that are not, silence until all
// their flows should be gone, and a look.
func (s *flowSoaker) flood(ctx context.Context) error {
	length := s.so.Phase + s.so.Timeout + soakGrace + 2*time.Second
	ready, over := make(chan struct{}), make(chan struct{})
	go func() { // ends with the live load, and this function waits for it
		defer close(over)
		s.live(ctx, length, ready)
	}()
	defer func() { <-over }()
	select {
	case <-ready:
	case <-over:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.show("strangers, answered")
	s.strangers(ctx, s.so.Phase/2)
	s.show("strangers, not answered")
	s.strangers(ctx, s.so.Phase/2, "--one-way")
	s.show("silence")
	if err := wait(ctx, s.so.Timeout+soakGrace); err != nil || s.in.process.Ended() {
		return err
	}
	look, err := s.look()
	if err != nil {
		return err
	}
	look.Rest = true
	s.keep(look)
	left := max(0, look.Flows-s.so.Live)
	s.mu.Lock()
	s.out.Left = append(s.out.Left, left)
	s.out.Cycles++
	s.mu.Unlock()
	if left > 0 {
		s.fail("%d flows are left %v after the last stranger, beside the %d live ones", left, s.so.Timeout+soakGrace, s.so.Live)
	}
	return nil
}

// live keeps the live clients going; ready is closed when each of them has had an answer.
func (s *flowSoaker) live(ctx context.Context, length time.Duration, ready chan<- struct{}) {
	r, err := s.generate(ctx, &gates{ready: func() error { close(ready); return nil }},
		"udp", "--to", s.in.place.UDP, "--conns", strconv.Itoa(s.so.Live), "--rate", rate(s.so.LiveRate), "--duration", length.String(), "--warmup", "0s",
		"--ports", strconv.Itoa(clientPorts), "--first-port", strconv.Itoa(s.clientPort))
	if d := s.judge(ctx, "live clients", r, err); d != nil {
		s.mu.Lock()
		s.out.LiveSent += d.Sent
		s.out.LiveLost += d.Lost
		s.out.LiveMoved += d.Moved
		s.mu.Unlock()
	}
}

// strangers sends one datagram each from sources never seen before.
func (s *flowSoaker) strangers(ctx context.Context, length time.Duration, flags ...string) {
	sources := int(s.so.Rate*length.Seconds()) + 1
	args := append([]string{"udp", "--to", s.in.place.UDP, "--conns", strconv.Itoa(sources), "--rate", rate(s.so.Rate), "--duration", length.String(), "--warmup", "0s",
		"--fresh", "--ports", strconv.Itoa(soakPorts), "--first-port", strconv.Itoa(s.ports), "--first-address", strconv.Itoa(s.nextAddr)}, flags...)
	s.nextAddr += sources/soakPorts + 2*64 // blocks of 64 clients share a port
	r, err := s.generate(ctx, nil, args...)
	if d := s.judge(ctx, "strangers", r, err); d != nil {
		s.mu.Lock()
		s.out.Strangers += d.Sent
		s.mu.Unlock()
	}
}

// judge notes what is no loss but an error.
func (s *flowSoaker) judge(ctx context.Context, who string, r *load.Result, err error) *load.Datagrams {
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		s.fail("%s: %v", who, err)
		return nil
	case r.Failed():
		s.fail("%s: %s", who, r.ErrorText())
	}
	return r.Datagrams
}

// count returns how many flows there are: by the metrics of awe4lb, by sockets of others.
func (s *flowSoaker) count() int {
	if s.metrics != "" {
		if n, err := flowsByMetrics(s.metrics); err == nil {
			return n
		}
	}
	files, err := proc.TreeFDs(s.in.process.PID)
	if err != nil {
		return 0
	}
	return max(0, files-s.files)
}

// flowsByMetrics sums awe4lb_udp_sessions_active over the frontends.
func flowsByMetrics(url string) (int, error) {
	resp, err := httpClient.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New(resp.Status)
	}
	return sumOf(resp.Body, "awe4lb_udp_sessions_active")
}

// sumOf adds up all series of one metric; an error when there is none.
func sumOf(page io.Reader, metric string) (int, error) {
	sum, found := 0.0, false
	for sc := bufio.NewScanner(page); sc.Scan(); {
		rest, ok := strings.CutPrefix(sc.Text(), metric)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", metric, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("the metrics page has no %s", metric)
	}
	return int(sum), nil
}

func rate(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
