package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"awe4lb/bench/proc"
	"awe4lb/bench/report"
	"awe4lb/bench/sys"
)

const interruptSignal = syscall.SIGTERM

// maxFlows is what a proxy's flow table may hold, more than any scenario makes.
const maxFlows = 65536

// Options is what a run may be told. Zero values mean the defaults of the full or the quick run.
type Options struct {
	Quick     bool
	Systems   []string // names; nil = awe4lb, awe4lb-nice, haproxy, haproxy-splice, nginx, naive, direct, and whatever was named by a binary
	Scenarios []string // keys or groups; nil = all, or those of the quick run
	Rounds    int
	Window    time.Duration
	Warmup    time.Duration
	Rate      float64 // of the open loop, requests per second
	Workers   int     // threads, processes or shards of each proxy
	IdleConns int     // for memory; bounded by the open-files limit
	Traced    int     // requests under strace; a fifth of it short connections
	maxFlows  int     // UDP flows a proxy can hold: bounded by the open-files limit
	Subject   string  // the system that the bars are about

	Awe4lb    string      // its binary; "" = build the checkout
	Gobetween string      // binary; "" = leave out
	Gost      string      // binary; "" = leave out
	Also      [][2]string // name and binary of further awe4lb builds

	Nice     int    // priority of every process, see NewProcesses
	Install  bool   // install missing rivals by apt-get
	Command  string // what the user typed, for the report
	Self     string // the bench binary; "" = this program
	Progress *Progress
}

// The sizes of the full and the quick run. With them and 7 systems the full run takes about 18 minutes.
func (o Options) withDefaults() Options {
	set := func(p *int, full, quick int) {
		if *p == 0 {
			*p = map[bool]int{false: full, true: quick}[o.Quick]
		}
	}
	setTime := func(p *time.Duration, full, quick time.Duration) {
		if *p == 0 {
			*p = map[bool]time.Duration{false: full, true: quick}[o.Quick]
		}
	}
	set(&o.Rounds, 6, 3)
	set(&o.IdleConns, 9000, 2000)
	set(&o.Traced, 10000, 5000)
	set(&o.Workers, min(2, runtime.NumCPU()), min(2, runtime.NumCPU()))
	setTime(&o.Window, time.Second, 500*time.Millisecond)
	setTime(&o.Warmup, 250*time.Millisecond, 100*time.Millisecond)
	if o.Rate == 0 {
		o.Rate = 10000
	}
	if o.Subject == "" {
		o.Subject = "awe4lb"
	}
	if o.Progress == nil {
		o.Progress = NewProgress(os.Stdout)
	}
	return o
}

// env is a run under way.
type env struct {
	// Set once.
	o         Options
	root      string // of the checkout
	dir       string // temporary
	self      string // the bench binary
	openFiles uint64
	modules   string // nginx' module directory
	procs     *Processes
	backends  addresses
	backend   *Process
	res       *report.Results

	traces     bool   // system calls will be counted
	ecdsa, rsa string // PEM files, once TLS needs them
	nextPort   int
	clientPort int // the first of the UDP clients' ports; 0 before they are needed
	systems    []System
	instances  map[besideKey]*instance // side by side
}

// besideKey names an instance: a program has one for each family.
type besideKey struct {
	system string
	family family
}

// kindDirect is no program: the backend itself takes the place of a proxy.
const kindDirect = "direct"

// instance is one running proxy.
type instance struct {
	sys     System
	place   Place
	process *Process
	other   *Process // what clients of its API turn to instead, with Elsewhere
}

// Run measures everything and returns the results. It fails when a rival or a tool is missing, when nothing can be
// started, or when ctx ends; a proxy that fails under load is a result, not an error. Everything it starts is stopped
// before it returns.
func Run(ctx context.Context, o Options) (*report.Results, error) {
	o = o.withDefaults()
	e, err := newEnv(o)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(e.dir)
	defer e.procs.StopAll() // also on panic
	defer o.Progress.End()
	picked, err := e.pickScenarios()
	if err != nil {
		return nil, err
	}
	e.traces = picked.once[keySyscalls]
	if err := e.findSystems(ctx, picked.families...); err != nil {
		return nil, err
	}
	if err := e.startBackends(guardPool); err != nil {
		return nil, err
	}
	if slices.Contains(picked.families, overTLS) {
		if err := e.makeCertificates(); err != nil {
			return nil, err
		}
	}
	if err := e.startAllBeside(ctx); err != nil {
		return nil, err
	}
	e.res.SameSession = e.sameSession()
	if o.Nice != 0 {
		defer raiseAutogroup(o.Nice)()
	}
	e.res.LoadBefore = proc.LoadAverage()
	if l := e.res.LoadBefore[0]; l > 0.5*float64(runtime.NumCPU()) {
		o.Progress.Say("warning: the machine is busy already (load average %.1f): expect noise", l)
	}
	if err := e.procs.Recede(); err != nil {
		return nil, err
	}
	if err := e.execute(ctx, e.plan(ctx, picked)); err != nil {
		return nil, err
	}
	e.res.LoadAfter = proc.LoadAverage()
	return e.res, nil
}

func newEnv(o Options) (*env, error) {
	limit, err := sys.RaiseOpenFiles()
	if err != nil {
		return nil, err
	}
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	self := o.Self
	if self == "" {
		if self, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	procs, err := NewProcesses(o.Nice)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "awe4lb-bench-")
	if err != nil {
		return nil, err
	}
	e := &env{o: o, root: root, dir: dir, self: self, openFiles: limit, procs: procs, instances: map[besideKey]*instance{},
		nextPort: 21000 + os.Getpid()*101%9000} // two runs at once, whose numbers may be neighbours, should not race for ports
	e.o.maxFlows = max(1, min(manyClients, int(limit)-1000))
	commit, dirty := Commit(root)
	e.res = &report.Results{
		Date: time.Now().UTC(), Commit: commit, Dirty: dirty, Command: o.Command, Quick: o.Quick, Subject: o.Subject,
		Machine: proc.Describe(),
		Settings: report.Settings{Workers: o.Workers, Rounds: o.Rounds, WindowSeconds: o.Window.Seconds(),
			WarmupSeconds: o.Warmup.Seconds(), OpenLoopRate: o.Rate, Nice: o.Nice},
	}
	return e, nil
}

// failed notes something that did not work, aloud and in the results.
func (e *env) failed(system, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), e.dir, "")
	e.res.Failures = append(e.res.Failures, report.Failure{System: system, Text: text})
	e.o.Progress.Say("FAILED: %s", text)
}

// startBackends starts the backends' process with n HTTP addresses.
func (e *env) startBackends(n int) error {
	argv := []string{e.self, "backend"}
	for range n {
		http, err := e.freeAddress()
		if err != nil {
			return err
		}
		e.backends.HTTP = append(e.backends.HTTP, http)
		argv = append(argv, "--http", http)
	}
	bulk, err1 := e.freeAddress()
	udp, err2 := e.freeAddress()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	e.backends.Bulk, e.backends.UDP = bulk, udp
	var err error
	if e.backend, err = e.procs.Start(Spec{Name: "backend", Argv: append(argv, "--bulk", bulk, "--udp", udp), Dir: e.dir}); err != nil {
		return err
	}
	return awaitReady(context.Background(), e.backend, "http://"+e.backends.HTTP[0])
}

// start runs a fresh instance of a system, on ports of its own, and waits until it answers.
func (e *env) start(ctx context.Context, s System) (*instance, error) {
	place, err := e.newPlace(s)
	if err != nil {
		return nil, err
	}
	return e.startAt(ctx, s, place)
}

// newPlace finds free addresses and makes a directory.
func (e *env) newPlace(s System) (Place, error) {
	http, err1 := e.freeAddress()
	bulk, err2 := e.freeAddress()
	dir, err3 := os.MkdirTemp(e.dir, s.Name+"-")
	admin := ""
	if s.Flaps || s.Asked {
		var err error
		if admin, err = e.freeAddress(); err != nil {
			return Place{}, err
		}
	}
	return Place{Dir: dir, HTTP: http, Bulk: bulk, HTTPBackend: e.httpBackends(s), BulkBackend: e.backends.Bulk, Guarded: s.Guarded, Admin: admin, AskAt: admin,
		Workers: e.o.Workers, MaxConns: (int(e.openFiles) - 200) / 2, Modules: e.modules}, errors.Join(err1, err2, err3)
}

// httpBackends returns those of a system: one, or with guards all there are.
func (e *env) httpBackends(s System) []string {
	if s.Guarded || len(e.backends.HTTP) != guardPool { // a soak has its own number, all of which are used
		return e.backends.HTTP
	}
	return e.backends.HTTP[:1]
}

// newUDPPlace is newPlace for UDP. Flows live for an hour: none is to end while something else is measured.
func (e *env) newUDPPlace(s System) (Place, error) {
	udp, err1 := e.freeAddress()
	dir, err2 := os.MkdirTemp(e.dir, s.Name+"-")
	return Place{Dir: dir, UDP: udp, UDPBackend: e.backends.UDP, HTTPBackend: e.httpBackends(s), Guarded: s.Guarded, FlowTimeout: time.Hour, MaxFlows: maxFlows,
		Workers: e.o.Workers, MaxConns: (int(e.openFiles) - 200) / 2, Modules: e.modules}, errors.Join(err1, err2)
}

func (e *env) startAt(ctx context.Context, s System, place Place) (*instance, error) {
	if s.Kind == kindDirect {
		return &instance{sys: s, place: Place{UDP: e.backends.UDP}, process: e.backend}, nil
	}
	argv, env, err := kinds[s.Kind](s, place)
	if err != nil {
		return nil, err
	}
	q, err := e.procs.Start(Spec{Name: s.Name, Argv: argv, Env: env, Dir: place.Dir})
	if err != nil {
		return nil, err
	}
	switch {
	case place.UDP != "":
		err = awaitEcho(ctx, q, place.UDP)
	case place.TLS != "":
		err = awaitReady(ctx, q, "https://"+place.TLS)
	default:
		err = awaitReady(ctx, q, "http://"+place.HTTP)
	}
	if err != nil {
		e.procs.Stop(q)
		return nil, err
	}
	return &instance{sys: s, place: place, process: q}, nil
}

// startAllBeside starts everybody. A build of awe4lb that does not relay UDP or TLS yet is left out of that, aloud.
func (e *env) startAllBeside(ctx context.Context) error {
	for i := range e.systems {
		s := &e.systems[i]
		for _, f := range slices.Clone(s.For) {
			err := e.startBeside(ctx, *s, f)
			if err != nil && (s.Kind != "awe4lb" || f == overTCP || ctx.Err() != nil) {
				return err
			}
			if err != nil {
				e.failed(s.Name, "%s takes no part in %s: %v", s.Name, strings.ToUpper(string(f)), err)
				s.For = slices.DeleteFunc(s.For, func(x family) bool { return x == f })
			}
		}
	}
	return nil
}

func (e *env) startBeside(ctx context.Context, s System, f family) error {
	newPlace := map[family]func(System) (Place, error){overTCP: e.newPlace, overUDP: e.newUDPPlace, overTLS: e.newTLSPlace}[f]
	place, err := newPlace(s)
	if err != nil {
		return err
	}
	var other *Process
	if s.Elsewhere {
		in, err := e.start(ctx, s)
		if err != nil {
			return err
		}
		other, place.AskAt = in.process, in.place.Admin
	}
	in, err := e.startAt(ctx, s, place)
	if err != nil {
		return err // Run stops what was started
	}
	in.other = other
	e.instances[besideKey{s.Name, f}] = in
	return nil
}

func (e *env) stop(in *instance) {
	if in.other != nil {
		e.procs.Stop(in.other)
	}
	if in.sys.Kind != kindDirect {
		e.procs.Stop(in.process)
	}
}

func (e *env) stopBeside() {
	for _, in := range e.instances {
		e.stop(in)
	}
	clear(e.instances)
}

// beside returns the running instance of a system, a new one should it have died.
func (e *env) beside(ctx context.Context, s System, f family) (*instance, error) {
	key := besideKey{s.Name, f}
	in := e.instances[key]
	if in != nil && !in.process.Ended() {
		return in, nil
	}
	if in != nil {
		e.failed(s.Name, "%s has died (%v); it said: %s", s.Name, in.process.err, in.process.Output())
		e.stop(in)
		delete(e.instances, key)
	}
	if err := e.startBeside(ctx, s, f); err != nil {
		return nil, err
	}
	return e.instances[key], nil
}

// sameSession says whether every process has our session, and hence our scheduling group.
func (e *env) sameSession() bool {
	me, err := proc.ReadStat(os.Getpid())
	if err != nil {
		return false
	}
	for _, pid := range proc.Tree(os.Getpid()) {
		if s, err := proc.ReadStat(pid); err == nil && s.Session != me.Session {
			return false
		}
	}
	return true
}

// raiseAutogroup gives the scheduling group of our session, of which the shell is a member, the same priority, since nice
// values count only within a group. It returns what puts it back.
func raiseAutogroup(nice int) func() {
	const path = "/proc/self/autogroup"
	before := 0
	if b, err := os.ReadFile(path); err == nil {
		fmt.Sscanf(string(b), "/autogroup-%d nice %d", new(int), &before)
	}
	set := func(n int) { os.WriteFile(path, []byte(fmt.Sprint(n)), 0) } // fails where there are no autogroups: nothing to do then
	set(nice)
	return func() { set(before) }
}

// selfCopy returns a copy of the bench binary under another inode, so that the naive proxy shares no pages with the
// generator and the backends, which would hide part of its memory.
func (e *env) selfCopy() (string, error) {
	path := filepath.Join(e.dir, "naive")
	b, err := os.ReadFile(e.self)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, b, 0o755)
}
