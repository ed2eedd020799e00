// awe4lb is a layer-4 load balancer: one binary, one TOML file.
//
// This file is the wiring: the commands, and in process who feeds whom. The rest of the house is described in
// docs/architecture.md.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"awe4lb/admin"
	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/discovery"
	"awe4lb/engine"
	"awe4lb/health"
	"awe4lb/internal/cli"
	"awe4lb/internal/confstore"
	"awe4lb/internal/logs"
	"awe4lb/internal/privilege"
	"awe4lb/internal/socketfile"
	"awe4lb/internal/systemd"
	"awe4lb/tlsbridge/acme"
	"awe4lb/tlsbridge/certs"
)

// version is set by the Makefile from the tag it is built from.
var version = "dev"

//go:embed awe4lb.toml
var defaultConfig []byte

func main() {
	os.Exit(cli.Execute(cli.Program{
		Version:       version,
		Revision:      revision(),
		DefaultConfig: defaultConfig,
		Load:          config.Load,
		Host:          checkHost,
		Run:           run,
	}, os.Args[1:]))
}

// revision returns the commit the binary was built from, "" when the build did not see one.
func revision() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return rev + dirty
}

// checkHost returns what of a configuration this host does not have, as far as it shows without listening, and what else is
// to be said of it.
func checkHost(cfg *config.Config) (errs []error, notes []string) {
	errs = append(logs.Check(cfg.Log), engine.CheckHost(cfg)...)
	errs = append(errs, health.Check(cfg)...)
	later := func() {
		errs = append(errs, health.CheckHost(cfg)...)
		wrong, more := discovery.CheckHost(cfg)
		errs, notes = append(errs, wrong...), append(notes, more...)
	}
	become := false // that user asks sources, and starts the programs of checks
	if cfg.Engine.User != "" {
		err := privilege.Check(cfg.Engine.User, cfg.Engine.Group)
		if become = err == nil && os.Geteuid() == 0; become {
			err = privilege.As(cfg.Engine.User, cfg.Engine.Group, later)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if !become {
		later()
	}
	if a := cfg.Admin.Address; cfg.Admin.Bind != "" && a.IsUnix() {
		if err := socketfile.InTheWay(a.Path); err != nil {
			errs = append(errs, fmt.Errorf("admin.bind: %w", err))
		}
	}
	for i, err := range errs {
		errs[i] = cfg.Locate(err)
	}
	return errs, notes
}

// process is a running awe4lb.
type process struct {
	// Set once, never changed.
	path     string
	store    *confstore.Store
	started  time.Time
	logs     *logs.Logs
	issuer   *acme.Issuer
	keeper   *certs.Keeper
	director *balancer.Director
	engine   *engine.Engine
	health   *health.Prober
	sources  *discovery.Keeper
	admin    *admin.Server // nil when it is off
	ordered  chan struct{} // somebody has ordered the end by the API; holds one

	// Shared: atomics.
	reloads atomic.Pointer[admin.Reloads] // written under mu; what it points to is not changed
	now     atomic.Pointer[admin.Running] // likewise

	// members is held while who belongs to a pool changes, so that the director and the health checks hear of it in the same
	// order. It is taken after mu.
	members sync.Mutex

	// Guarded by mu, which also makes reloads wait for each other.
	mu     sync.Mutex
	cfg    *config.Config
	ending bool // the drain has begun, or is about to
}

// run starts a process and returns when it has ended: nil after a clean stop, else an error of package cli that carries
// the exit code. ready, if not nil, is called once everything listens.
func run(path string, ready func(cli.Running)) error {
	// Signals are caught from the first moment, so that none ends the process half started.
	signals, release := catchSignals()
	defer release()
	terminal := cli.StartedOn()
	var look <-chan time.Time // nil without a terminal
	if terminal.Is() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		look = ticker.C
	}

	p, err := start(path)
	if err != nil {
		return err
	}
	systemd.Ready()
	if ready != nil {
		ready(p.running())
	}
	for {
		select {
		case <-signals.reload:
			if terminal.Gone() {
				p.logs.Log.Info("the terminal was closed")
				p.end(signals)
				return nil
			}
			_, _ = p.reload() // it has logged what happened
		case <-look:
			if terminal.Look(); !terminal.Is() {
				look = nil
			}
		case <-signals.reopen:
			p.logs.Reopen()
		case <-signals.end:
			p.end(signals)
			return nil
		case <-p.ordered:
			p.end(signals)
			return nil
		}
	}
}

// orderEnd has the process end as after a signal. Never blocks.
func (p *process) orderEnd() {
	select {
	case p.ordered <- struct{}{}:
	default:
	}
}

// end drains and stops. Another signal to end cuts both short.
func (p *process) end(signals signals) {
	ctx, now := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-signals.end:
				now()
			case <-signals.reopen:
				p.logs.Reopen()
			case <-ctx.Done():
				return
			}
		}
	})
	drops := p.engine.AccessDrops()
	p.drain(ctx)
	p.stop(ctx)
	now()
	watch.Wait()
	if all := p.engine.AccessDrops(); all > 0 { // nobody can ask the metrics any more
		p.logs.Log.Warn("access log: lines were dropped, the writer was slower than the traffic",
			"at_exit", all-drops, "since_start", all)
	}
}

// start brings everything up in order: configuration, logs, data plane, admin; then it gives up root.
func start(path string) (*process, error) {
	p := &process{path: path, started: time.Now(), logs: logs.New(), director: balancer.NewDirector(), ordered: make(chan struct{}, 1)}
	cfg, err := p.first(path)
	if err != nil {
		return nil, cli.BadConfig(err)
	}
	p.cfg = cfg
	if cfg.Engine.User != "" {
		if err := privilege.Check(cfg.Engine.User, cfg.Engine.Group); err != nil {
			return nil, cli.BadConfig(cfg.Locate(err))
		}
	}
	applyLogs, _, err := p.logs.Prepare(cfg.Log)
	if err != nil {
		return nil, cli.BadConfig(cfg.Locate(err))
	}
	applyLogs()
	p.warn(cfg)

	// A shard is a goroutine that wants a processor of its own; more processors than shards only make the scheduler move
	// them about: twice the CPU at low load (docs/decisions/0001-gnet-reactor.md).
	shards := cfg.Engine.Shards
	if shards == 0 {
		shards = runtime.GOMAXPROCS(0)
	}
	runtime.GOMAXPROCS(shards)
	p.issuer = acme.New(p.logs.Log)
	p.keeper = certs.New(p.logs.Log, p.issuer)
	p.engine, err = engine.New(p.director, engine.Options{Shards: shards, ReadBuffer: int(cfg.Engine.ReadBuffer), KeepCalm: true,
		Log: p.logs.Log, Access: p.logs.Access, Flush: p.logs.Flush, Certificates: p.keeper, Challenge: p.issuer.HTTP01})
	if err != nil {
		return nil, cli.CannotBind(err)
	}
	// What the issuer writes is to be the user's that the process is about to become.
	release := p.issuer.Hold()
	defer release()
	p.director.Drive(p.engine)
	p.health = health.New(health.Options{Log: p.logs.Log, Changed: p.healthChanged, Advised: p.agentAdvises})
	if err := p.health.Prepare(cfg); err != nil {
		p.close()
		return nil, cli.BadConfig(err)
	}
	p.sources = discovery.NewKeeper(discovery.KeeperOptions{Changed: p.found, Tell: p.tellDiscovery})
	lists, err := p.sources.Prepare(cfg)
	if err != nil {
		p.close()
		return nil, cli.BadConfig(err)
	}
	p.engine.SetAccess(p.logs.HasAccess())
	report, err := p.apply(cfg, lists.Found(), false)
	if err != nil {
		p.close()
		var files certs.Errors
		var mistakes config.Errors // in files of prefixes
		if errors.As(err, &files) || errors.As(err, &mistakes) {
			return nil, cli.BadConfig(err)
		}
		return nil, cli.CannotBind(cfg.Locate(err))
	}
	p.reloads.Store(&admin.Reloads{Last: time.Now(), LastOK: true})
	if cfg.Admin.Bind != "" {
		p.admin, err = admin.Start(&cfg.Admin, admin.Options{Engine: p.engine, Director: p.director,
			Reload: p.reload, Reloads: p.history, Configs: p, Log: p.logs.Log,
			Version: version, Revision: revision(), Started: p.started, File: path,
			Certificates: p.keeper, Issuer: p.issuer, Health: p.health, Discovery: p.sources,
			Level: p.logs.Level, SetLevel: p.logs.SetLevel, End: p.orderEnd})
		if err != nil {
			p.close()
			err = cfg.Locate(err)
			var wrong *admin.ConfigError
			if errors.As(err, &wrong) {
				return nil, cli.BadConfig(err)
			}
			return nil, cli.CannotBind(err)
		}
	}
	if cfg.Engine.User != "" {
		if usesACME(cfg) {
			if err := privilege.Give(cfg.ACME.Storage, cfg.Engine.User, cfg.Engine.Group); err != nil {
				p.stop(context.Background())
				return nil, cli.BadConfig(fmt.Errorf("acme.storage: %w", err))
			}
		}
		if err := privilege.Drop(cfg.Engine.User, cfg.Engine.Group, keptCapabilities(cfg)...); err != nil {
			p.stop(context.Background())
			return nil, cli.BadConfig(err)
		}
	}
	// Now, so that what these run is not root's.
	p.checkMembers(cfg)
	p.sources.Commit(lists)
	p.sources.Wait(context.Background(), firstLists)
	for _, l := range p.engine.Listeners() {
		p.logs.Log.Info("listening", "frontend", l.Frontend, "protocol", l.Protocol, "address", l.Address.String())
	}
	if p.admin != nil {
		p.logs.Log.Info("admin listening", "address", p.admin.Address())
	}
	_, sessions := p.engine.Sessions()
	_, flows := p.engine.Flows()
	if name := p.now.Load().Name; name != confstore.Main {
		p.logs.Log.Warn("a configuration runs that was selected in place of the file", "config", name, "file", path)
	}
	p.logs.Log.Info("ready", "version", version, "config", path, "config_version", report.Version, "shards", shards,
		"session_limit", sessions, "flow_limit", flows)
	return p, nil
}

// usesACME reports whether a frontend wants certificates from a CA.
func usesACME(cfg *config.Config) bool {
	for _, f := range cfg.Frontends {
		if f.TLS != nil && len(f.TLS.ACME) > 0 {
			return true
		}
	}
	return false
}

// keptCapabilities returns what the process needs for cfg after it has given up root.
func keptCapabilities(cfg *config.Config) (kept []privilege.Capability) {
	for _, f := range cfg.Frontends {
		if f.IsUDP() && f.UDP.Transparent {
			return []privilege.Capability{privilege.NetAdmin}
		}
	}
	return nil
}

// running tells where the process listens.
func (p *process) running() cli.Running {
	var r cli.Running
	for _, l := range p.engine.Listeners() {
		listener := cli.Listener{Frontend: l.Frontend, Protocol: l.Protocol, Address: l.Address.String()}
		if tls := p.cfg.Frontend(l.Frontend).TLS; tls != nil && len(tls.Certificates) > 0 {
			listener.Certificate = tls.Certificates[0].Cert
		}
		r.Listeners = append(r.Listeners, listener)
	}
	if p.admin != nil {
		r.Admin = p.admin.Address()
	}
	return r
}

func (p *process) warn(cfg *config.Config) {
	for _, w := range cfg.Warnings {
		p.logs.Log.Warn("configuration: " + w)
	}
}

// errEnding refuses a reload. It is nobody's failure: nothing is logged or counted, and systemd has heard of the end.
var errEnding = &admin.Refusal{Status: http.StatusConflict, Err: errors.New("the process is draining and about to end")}

// reload reads the configuration again and applies it, all or nothing. Safe from any goroutine.
func (p *process) reload() (*balancer.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return nil, errEnding
	}
	systemd.Reloading()
	defer systemd.Ready()
	report, err := p.tryReload()
	history := *p.reloads.Load()
	history.Last, history.LastOK, history.Error = time.Now(), err == nil, ""
	if err == nil {
		history.OK++
	} else {
		history.Failed++
		history.Error = err.Error()
	}
	p.reloads.Store(&history) // whoever reads of it in the log finds it counted
	if err != nil {
		p.logs.Log.Error("reload refused: the running configuration stays", "error", p.mistakes(err))
		return nil, err
	}
	for _, c := range report.Changes {
		p.logs.Log.Info("reload: " + c.String())
	}
	for _, name := range report.NeedRestart {
		p.logs.Log.Warn("reload: takes effect at the next start", "setting", name)
	}
	p.logs.Log.Info("reloaded", "config", p.path, "config_version", report.Version, "changes", len(report.Changes))
	return report, nil
}

// mistakes logs every mistake of a configuration on a line of its own and returns what is to be said of all together.
func (p *process) mistakes(err error) string {
	var inFile config.Errors
	var named certs.Errors // files that it names
	var all []error
	switch {
	case errors.As(err, &inFile):
		for _, e := range inFile {
			all = append(all, e)
		}
	case errors.As(err, &named):
		all = named
	default:
		return err.Error()
	}
	for _, e := range all {
		p.logs.Log.Error("configuration: " + e.Error())
	}
	return cli.Plural(len(all), "mistake")
}

func (p *process) tryReload() (*balancer.Report, error) {
	c, err := p.selected()
	if err != nil {
		return nil, err
	}
	cfg, err := p.parse(c, p.cfg)
	if err != nil {
		return nil, err
	}
	report, err := p.enact(cfg)
	if err != nil {
		return nil, located(cfg, err)
	}
	p.now.Store(&admin.Running{Name: c.Name, Text: c.Text, Stored: c.Stored, Config: cfg})
	return report, nil
}

// enact makes cfg what everything goes by, all or nothing. Under mu.
func (p *process) enact(cfg *config.Config) (*balancer.Report, error) {
	applyLogs, discardLogs, err := p.logs.Prepare(cfg.Log)
	if err != nil {
		return nil, &admin.Refusal{Status: http.StatusUnprocessableEntity, Err: err}
	}
	if err := p.health.Prepare(cfg); err != nil {
		discardLogs()
		return nil, &admin.Refusal{Status: http.StatusUnprocessableEntity, Err: err}
	}
	applyAdmin := func() {}
	if p.admin != nil {
		if applyAdmin, err = p.admin.Prepare(&cfg.Admin); err != nil {
			discardLogs()
			return nil, &admin.Refusal{Status: http.StatusUnprocessableEntity, Err: err}
		}
	}
	lists, err := p.sources.Prepare(cfg)
	if err != nil {
		discardLogs()
		return nil, &admin.Refusal{Status: http.StatusUnprocessableEntity, Err: err}
	}
	report, err := p.apply(cfg, lists.Found(), true)
	if err != nil {
		discardLogs()
		return nil, err
	}
	p.sources.Commit(lists)
	applyLogs()
	applyAdmin()
	p.engine.SetAccess(p.logs.HasAccess())
	p.store.Move(cfg.Admin.Configs)
	p.cfg = cfg
	p.warn(cfg)
	return report, nil
}

// history returns what became of the reloads so far, without waiting for one at work. Safe from any goroutine.
func (p *process) history() admin.Reloads { return *p.reloads.Load() }

// drain stops listening and lets sessions finish, for drain_timeout at the most and no longer than ctx lasts.
func (p *process) drain(ctx context.Context) {
	p.mu.Lock() // a reload at work finishes first
	p.ending = true
	timeout := p.cfg.Engine.DrainTimeout
	p.mu.Unlock()
	begun := time.Now()
	systemd.Stopping()
	sessions, _ := p.engine.Sessions()
	flows, _ := p.engine.Flows()
	p.logs.Log.Info("draining: a second signal ends at once", "sessions", sessions, "flows", flows, "timeout", timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cut := p.engine.Drain(ctx, func() engine.Reason {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return engine.Drained
		}
		return engine.Killed
	})
	p.logs.Log.Info("drained", "cut", cut, "took", time.Since(begun).Round(time.Millisecond))
}

// stop ends what is still there. The admin's clients have as long as ctx lasts, and a second at the most.
func (p *process) stop(ctx context.Context) {
	if p.admin != nil {
		p.admin.Stop(ctx)
	}
	p.close()
	p.logs.Flush()
}

// close ends the data plane, and then what it stands on.
func (p *process) close() {
	if p.sources != nil {
		p.sources.Close()
	}
	p.health.Close()
	p.engine.Close()
	p.keeper.Close()
	p.issuer.Close()
}
