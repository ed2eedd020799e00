//go:build real

// Package follow has a Runner follow a real server for a test, and looks at each list that it reports.
package follow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/discovery"
)

// Pool is a Runner and what it has reported.
type Pool struct {
	*discovery.Runner
	t    testing.TB
	stop context.CancelFunc
	done chan struct{}

	// Guarded by mu.
	mu      sync.Mutex
	allowed []string // lists that are right at this moment
	wrong   []string // reports that were not
	reports int
}

const patience = time.Minute

// Start follows a source with short waits, and returns when its first list is there. A list that is suddenly too short is
// held back for five seconds.
func Start(t testing.TB, s discovery.Source, first string) *Pool {
	t.Helper()
	set := discovery.Defaults()
	set.Interval, set.Debounce, set.RetryMin, set.RetryMax, set.Confirm = 100*time.Millisecond, 0, 50*time.Millisecond, 200*time.Millisecond, 50
	r, err := discovery.New("web", []discovery.Source{s}, set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{Runner: r, t: t, stop: cancel, done: make(chan struct{})}
	t.Cleanup(p.Stop)
	p.Step(first, func() {
		go func() {
			defer close(p.done)
			r.Run(ctx, p.report)
		}()
	})
	return p
}

// Stop ends it; twice does no harm.
func (p *Pool) Stop() {
	p.stop()
	<-p.done
}

// Show writes a list in one line: address/weight.
func Show(list []discovery.Backend) string {
	var all []string
	for _, b := range list {
		all = append(all, fmt.Sprintf("%s/%d", b.Address, b.Weight))
	}
	return strings.Join(all, " ")
}

func (p *Pool) report(list []discovery.Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports++
	if s := Show(list); !slices.Contains(p.allowed, s) {
		p.wrong = append(p.wrong, s)
	}
}

// Reports returns how many lists there were.
func (p *Pool) Reports() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports
}

// Step makes a change after which the list is want, and waits until it is. From the moment that the change is made, no list
// but that and the one before is right.
func (p *Pool) Step(want string, change func()) {
	p.t.Helper()
	p.mu.Lock()
	p.allowed = append(p.allowed, want)
	p.allowed = p.allowed[max(0, len(p.allowed)-2):]
	p.mu.Unlock()
	change()
	p.wait(func() string { return Show(p.List()) }, want)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wrong) > 0 {
		p.t.Errorf("on the way to %q the list was %q", want, p.wrong)
		p.wrong = nil
	}
}

// State waits for the state of the source.
func (p *Pool) State(want discovery.State) {
	p.t.Helper()
	p.wait(func() string { return p.Status().Sources[0].State.String() }, want.String())
}

func (p *Pool) wait(is func() string, want string) {
	p.t.Helper()
	for end := time.Now().Add(patience); is() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("after %v got %q; want %q; the source: %+v", patience, is(), want, p.Status().Sources[0])
		}
	}
}
