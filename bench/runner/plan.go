package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// picked is what of all scenarios this run makes.
type picked struct {
	scenarios []scenario
	once      map[string]bool
}

func (e *env) pickScenarios() (picked, error) {
	p := picked{once: map[string]bool{}}
	known := ScenarioKeys()
	for _, k := range e.o.Scenarios {
		if !slices.Contains(known, k) {
			return p, fmt.Errorf("scenario %q: want some of %s", k, strings.Join(known, ", "))
		}
	}
	want := func(key string, quick bool) bool {
		if e.o.Scenarios != nil {
			return slices.Contains(e.o.Scenarios, key)
		}
		return quick || !e.o.Quick
	}
	for _, s := range scenarios() {
		if want(s.Key, s.quick) {
			p.scenarios = append(p.scenarios, s)
			e.res.Scenarios = append(e.res.Scenarios, s.Scenario)
		}
	}
	for _, k := range onceKeys {
		p.once[k] = want(k, true)
	}
	return p, nil
}

// plan lists every step in order.
func (e *env) plan(ctx context.Context, p picked) []group {
	o := &e.o
	var out []group
	if p.once[keyVerify] {
		g := group{title: "every byte compared"}
		for _, s := range e.systems {
			g.add(s.Name, 1500*time.Millisecond, func() (string, error) { return "", e.verify(ctx, s) })
		}
		out = append(out, g)
	}
	for round := range o.Rounds {
		for _, sc := range p.scenarios {
			g := group{title: fmt.Sprintf("round %d of %d, %s", round+1, o.Rounds, sc.Title)}
			var takePart []System
			for _, s := range e.systems {
				if !s.BulkOnly || sc.bulk {
					takePart = append(takePart, s)
				}
			}
			for _, i := range order(len(takePart), round) {
				s := takePart[i]
				g.add(s.Name, o.Warmup+o.Window+100*time.Millisecond, func() (string, error) { return "", e.measure(ctx, round+1, sc, s) })
			}
			out = append(out, g)
		}
	}
	if p.once[keySyscalls] {
		g := group{title: "system calls"}
		for _, s := range e.systems {
			if !s.BulkOnly {
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
			for _, at := range order(len(e.systems), i) {
				if s := e.systems[at]; !s.BulkOnly {
					g.add(s.Name, map[bool]time.Duration{false: 4 * time.Second, true: 2500 * time.Millisecond}[o.Quick], func() (string, error) { return "", e.idleMemory(ctx, s) })
				}
			}
			out = append(out, g)
		}
	}
	if p.once[keyStall] {
		g := group{title: "readers that stall"}
		for _, s := range e.systems {
			g.add(s.Name, 4*time.Second, func() (string, error) { return "", e.stall(ctx, s) })
		}
		out = append(out, g)
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
