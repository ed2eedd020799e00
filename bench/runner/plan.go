package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"awe4lb/bench/report"
)

// picked is what of all scenarios this run makes.
type picked struct {
	scenarios []scenario
	once      map[string]bool
	families  []family // those of which there is anything
}

func (e *env) pickScenarios() (picked, error) {
	p := picked{once: map[string]bool{}}
	known := ScenarioKeys()
	for _, k := range e.o.Scenarios {
		if !slices.Contains(known, k) {
			return p, fmt.Errorf("scenario %q: want some of %s", k, strings.Join(known, ", "))
		}
	}
	// A group's name means what the run, full or quick, would make of it; a scenario's own name means it in any case.
	want := func(key string, f family, quick bool) bool {
		names := e.o.Scenarios
		if slices.Contains(names, key) {
			return true
		}
		if names != nil && !slices.Contains(names, string(f)) && !slices.Contains(names, groupAll) {
			return false
		}
		return quick || !e.o.Quick
	}
	uses := func(f family) {
		if !slices.Contains(p.families, f) {
			p.families = append(p.families, f)
		}
	}
	for _, s := range scenarios() {
		if want(s.Key, s.family, s.quick) {
			p.scenarios = append(p.scenarios, s)
			e.res.Scenarios = append(e.res.Scenarios, s.Scenario)
			uses(s.family)
		}
	}
	for _, k := range onceKeys {
		if want(k.key, k.family, k.quick) {
			p.once[k.key] = true
			uses(k.family)
		}
	}
	return p, nil
}

// plan lists every step in order.
func (e *env) plan(ctx context.Context, p picked) []group {
	o := &e.o
	var out []group
	if p.once[keyVerify] {
		g := group{title: "every byte compared"}
		for _, s := range e.taking(overTCP) {
			g.add(s.Name, 1500*time.Millisecond, func() (string, error) { return "", e.verify(ctx, s, overTCP) })
		}
		out = append(out, g)
	}
	if p.once[keyTLSVerify] {
		g := group{title: "every byte compared, TLS"}
		for _, s := range e.taking(overTLS) {
			if !s.isVariant() {
				g.add(s.Name, 2*time.Second, func() (string, error) { return "", e.verify(ctx, s, overTLS) })
			}
		}
		out = append(out, g)
	}
	for round := range o.Rounds {
		for _, sc := range p.scenarios {
			g := group{title: fmt.Sprintf("round %d of %d, %s", round+1, o.Rounds, sc.Title)}
			var takePart []System
			for _, s := range e.taking(sc.family) {
				if s.Kind == kindDirect && round > 0 {
					continue // it only shows that the ends are no bottleneck
				}
				if s.takes(sc) {
					takePart = append(takePart, s)
				}
			}
			for _, i := range order(len(takePart), round) {
				s := takePart[i]
				length := o.Warmup + o.Window
				if sc.flood {
					length = o.floodWarmup() + o.floodWindow() + floodTail
				}
				g.add(s.Name, length+100*time.Millisecond, func() (string, error) { return "", e.measure(ctx, round+1, sc, s) })
			}
			out = append(out, g)
		}
	}
	if p.once[keySyscalls] {
		g := group{title: "system calls"}
		for _, s := range e.taking(overTCP) {
			if !s.isVariant() {
				g.add(s.Name, 4*time.Second, func() (string, error) { return "", e.countSyscalls(ctx, s) })
			}
		}
		out = append(out, g)
	}
	// From here on every system is measured alone in a fresh process: pages shared with a twin would halve its PSS.
	out = append(out, group{title: "stopping the proxies", steps: []step{{"all", time.Second, func() (string, error) { e.stopBeside(); return "", nil }}}})
	if p.once[keyMemory] {
		for i := range map[bool]int{false: 3, true: 1}[o.Quick] {
			g := group{title: "memory of idle connections"}
			systems := e.taking(overTCP)
			for _, at := range order(len(systems), i) {
				if s := systems[at]; !s.isVariant() {
					g.add(s.Name, map[bool]time.Duration{false: 4 * time.Second, true: 2500 * time.Millisecond}[o.Quick], func() (string, error) { return "", e.idleMemory(ctx, s) })
				}
			}
			out = append(out, g)
		}
	}
	for _, m := range []struct{ key, kind, title string }{{keyTLSMemory, report.MemoryTLS, "memory of idle TLS connections"}, {keyTLSHalfOpen, report.MemoryHalfOpen, "memory of half-open handshakes"}} {
		for i := range map[bool]int{false: 2, true: 1}[o.Quick] {
			if !p.once[m.key] {
				continue
			}
			g := group{title: m.title}
			systems := e.taking(overTLS)
			for _, at := range order(len(systems), i) {
				if s := systems[at]; !s.isVariant() {
					g.add(s.Name, map[bool]time.Duration{false: 5 * time.Second, true: 3 * time.Second}[o.Quick], func() (string, error) { return "", e.secureMemory(ctx, s, m.kind) })
				}
			}
			out = append(out, g)
		}
	}
	if p.once[keyStall] {
		g := group{title: "readers that stall"}
		for _, s := range e.taking(overTCP) {
			if !s.Guarded && !s.Asked {
				g.add(s.Name, 4*time.Second, func() (string, error) { return "", e.stall(ctx, s) })
			}
		}
		out = append(out, g)
	}
	if p.once[keyFlows] {
		for i := range map[bool]int{false: 2, true: 1}[o.Quick] {
			g := group{title: "the life of UDP flows"}
			systems := e.taking(overUDP)
			for _, at := range order(len(systems), i) {
				if s := systems[at]; s.Kind != kindDirect && !s.Guarded {
					g.add(s.Name, o.flowTimeout()+4*time.Second, func() (string, error) { return "", e.flowCost(ctx, s) })
				}
			}
			out = append(out, g)
		}
	}
	return out
}

// taking returns the systems that are measured for a family.
func (e *env) taking(f family) []System {
	var out []System
	for _, s := range e.systems {
		if slices.Contains(s.For, f) {
			out = append(out, s)
		}
	}
	return out
}

// group is a stretch of steps with a common title.
type group struct {
	title string
	steps []step // a step's label is its system
}

func (g *group) add(label string, estimate time.Duration, work func() (string, error)) {
	g.steps = append(g.steps, step{label, estimate, work})
}

func (e *env) execute(ctx context.Context, groups []group) error {
	n, total := 0, time.Duration(0)
	for _, g := range groups {
		for _, s := range g.steps {
			n++
			total += s.estimate
		}
	}
	p := e.o.Progress
	p.Begin(n, total)
	for _, g := range groups {
		for _, s := range g.steps {
			p.Step(g.title, s.label)
			_, err := s.work()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				e.failed(s.label, "%s, %s: %v", g.title, s.label, err)
			}
			p.Done(s.estimate)
		}
	}
	return nil
}
