package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"awe4lb/bench/report"
)

// SystemNames lists the systems that need no binary to be named.
var SystemNames = []string{"awe4lb", "awe4lb-nice", "awe4lb-guarded", "awe4lb-flapping", "awe4lb-flapping-elsewhere", "awe4lb-asked", "awe4lb-asked-elsewhere", "haproxy", "haproxy-splice", "nginx", "naive", "direct"}

// findSystems decides who takes part: it builds awe4lb, finds the rivals, and offers to install what is missing. awe4lb
// that does not build is skipped, aloud; a missing rival is an error, since a race without rivals tells nothing. wanted
// is what will be measured: who does nothing of it is not looked for.
func (e *env) findSystems(ctx context.Context, wanted ...family) error {
	o := &e.o
	// of returns those of the families a program can do that are wanted.
	of := func(can ...family) []family {
		return slices.DeleteFunc(can, func(f family) bool { return !slices.Contains(wanted, f) })
	}
	want := func(name string) bool {
		can := map[string][]family{"haproxy": {overTCP, overTLS}, "haproxy-splice": {overTCP}, "naive": {overTCP}, "gost": {overTCP},
			"gobetween": {overTCP, overUDP}, "direct": {overUDP}, "awe4lb-nice": {overTLS}, "awe4lb-guarded": {overTCP, overUDP}, "awe4lb-flapping": {overTCP}, "awe4lb-flapping-elsewhere": {overTCP},
			"awe4lb-asked": {overTCP}, "awe4lb-asked-elsewhere": {overTCP}}[name]
		if can != nil && len(of(can...)) == 0 {
			return false
		}
		return o.Systems == nil || slices.Contains(o.Systems, name)
	}
	for _, name := range o.Systems {
		known := slices.Contains(SystemNames, name) || name == "gobetween" && o.Gobetween != "" || name == "gost" && o.Gost != "" ||
			slices.ContainsFunc(o.Also, func(a [2]string) bool { return a[0] == name })
		if !known {
			return fmt.Errorf("system %q: want some of %s, or one named by --gobetween, --gost or --also", name, strings.Join(SystemNames, ", "))
		}
	}
	if err := e.checkTools(ctx, want); err != nil {
		return err
	}
	if want("awe4lb") {
		e.addAwe4lb(ctx, of(overTCP, overUDP, overTLS), func(name string, can ...family) []family {
			if !want(name) {
				return nil
			}
			return of(can...)
		})
	}
	for _, a := range o.Also {
		if want(a[0]) {
			e.add(System{Name: a[0], Kind: "awe4lb", Binary: a[1], Version: versionOf(a[1], "version"), Note: "another build of awe4lb", For: of(overTCP, overUDP, overTLS), FDsPerConn: 2})
		}
	}
	if path := findBinary("haproxy"); path != "" {
		version := versionOf(path, "-v")
		note := fmt.Sprintf("mode tcp, nbthread %d", o.Workers)
		if want("haproxy") {
			e.add(System{Name: "haproxy", Kind: "haproxy", Binary: path, Version: version, Note: note, For: of(overTCP, overTLS), FDsPerConn: 2})
		}
		if want("haproxy-splice") {
			e.add(System{Name: "haproxy-splice", Kind: "haproxy-splice", Binary: path, Version: version, Note: note + ", option splice-request and splice-response; bulk only", For: of(overTCP), FDsPerConn: 2, BulkOnly: true})
		}
	}
	if want("nginx") {
		path := findBinary("nginx")
		modules, err := nginxModules(path)
		if err != nil {
			return err
		}
		e.modules = modules
		e.add(System{Name: "nginx", Kind: "nginx", Binary: path, Version: versionOf(path, "-v"),
			Note: fmt.Sprintf("stream, %d workers, reuseport, proxy_half_close on; proxy_responses unset", o.Workers), For: of(overTCP, overUDP, overTLS), FDsPerConn: 2})
	}
	if want("naive") {
		path, err := e.selfCopy()
		if err != nil {
			return err
		}
		e.add(System{Name: "naive", Kind: "naive", Binary: path, Version: goVersion(),
			Note: fmt.Sprintf("bench/backend/naive.go: two goroutines and io.Copy (which splices) per connection, GOMAXPROCS %d", o.Workers), For: of(overTCP), FDsPerConn: 6})
	}
	if o.Gobetween != "" && want("gobetween") {
		e.add(System{Name: "gobetween", Kind: "gobetween", Binary: o.Gobetween, Version: versionOf(o.Gobetween, "--version"), Note: fmt.Sprintf("GOMAXPROCS %d", o.Workers), For: of(overTCP, overUDP), FDsPerConn: 6})
	}
	if o.Gost != "" && want("gost") {
		e.add(System{Name: "gost", Kind: "gost", Binary: o.Gost, Version: versionOf(o.Gost, "-V"), Note: fmt.Sprintf("tcp forward, GOMAXPROCS %d", o.Workers), For: of(overTCP), FDsPerConn: 6})
	}
	if want("direct") {
		e.add(System{Name: "direct", Kind: kindDirect, Version: goVersion(), Note: "no proxy: the generator speaks with the echo", For: of(overUDP)})
	}
	if len(e.systems) == 0 {
		return errors.New("no system is left to measure")
	}
	return nil
}

func (e *env) add(s System) {
	e.systems = append(e.systems, s)
	e.res.Systems = append(e.res.Systems, report.System{Name: s.Name, Version: s.Version, Note: s.Note})
}

// addAwe4lb builds the checkout, or takes the binary that was named, and adds it with other settings besides. variant returns
// what one of these is measured for, of what it can be; nothing: it is not wanted.
func (e *env) addAwe4lb(ctx context.Context, families []family, variant func(name string, can ...family) []family) {
	s := System{Name: "awe4lb", Kind: "awe4lb", Binary: e.o.Awe4lb, For: families, FDsPerConn: 2, Note: fmt.Sprintf("%d shards", e.o.Workers)}
	var err error
	if s.Binary == "" {
		e.o.Progress.Say("building awe4lb: CGO_ENABLED=0 go build -trimpath -ldflags \"-s -w\"")
		s.Binary, err = BuildAwe4lb(ctx, e.root, e.dir)
	}
	if err != nil {
		e.o.Progress.Say("awe4lb is left out: %v", err)
		e.res.Systems = append(e.res.Systems, report.System{Name: s.Name, Skipped: err.Error()})
		return
	}
	s.Version = versionOf(s.Binary, "version")
	e.add(s)
	for _, v := range []struct {
		System
		can []family
	}{
		{System{Name: "awe4lb-nice", FloodOnly: true, TLSNice: 19, Note: "engine.tls_nice = 19 (0 is the default); in the flood of handshakes only"}, []family{overTLS}},
		{System{Name: "awe4lb-guarded", Guarded: true,
			Note: fmt.Sprintf("an access list of %d prefixes, limits of sources and rates, outliers, a pool of %d checked each second", guardPrefixes, guardPool)}, []family{overTCP, overUDP}},
		{System{Name: "awe4lb-flapping", Guarded: true, Flaps: true,
			Note: fmt.Sprintf("the same, while weights and states of its backends change %d times a second", flapsASecond)}, []family{overTCP}},
		{System{Name: "awe4lb-flapping-elsewhere", Guarded: true, Flaps: true, Elsewhere: true,
			Note: "the same with all that protects, while it is another awe4lb beside whose backends change"}, []family{overTCP}},
		{System{Name: "awe4lb-asked", Asked: true,
			Note: fmt.Sprintf("while %d clients of its API ask %.0f times a second", askers, askers/askPause.Seconds())}, []family{overTCP}},
		{System{Name: "awe4lb-asked-elsewhere", Asked: true, Elsewhere: true,
			Note: "while they ask another awe4lb beside, which relays nothing"}, []family{overTCP}},
	} {
		if v.For = variant(v.Name, v.can...); len(v.For) > 0 {
			v.Kind, v.Binary, v.Version, v.FDsPerConn, v.Note = s.Kind, s.Binary, s.Version, s.FDsPerConn, s.Note+", "+v.Note
			e.add(v.System)
		}
	}
}

// checkTools finds out whether something must be installed before anything is started.
func (e *env) checkTools(ctx context.Context, want func(string) bool) error {
	missing := func() []string {
		var out []string
		if (want("haproxy") || want("haproxy-splice")) && findBinary("haproxy") == "" {
			out = append(out, "haproxy")
		}
		if want("nginx") {
			if path := findBinary("nginx"); path == "" {
				out = append(out, "nginx")
			} else if _, err := nginxModules(path); err != nil {
				out = append(out, "nginx' stream module")
			}
		}
		if e.traces && findBinary("strace") == "" {
			out = append(out, "strace")
		}
		return out
	}
	gone := missing()
	if len(gone) == 0 {
		return nil
	}
	if !e.o.Install {
		return fmt.Errorf("missing: %s. As root: %s\nor let bench do it with --install, or leave them out with --systems and --scenarios", strings.Join(gone, ", "), AptInstall)
	}
	if err := install(ctx, func(s string) { e.o.Progress.Say("%s", s) }); err != nil {
		return err
	}
	if gone := missing(); len(gone) > 0 {
		return fmt.Errorf("still missing after the installation: %s", strings.Join(gone, ", "))
	}
	return nil
}
