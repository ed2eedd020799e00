package balancer

import (
	"slices"
	"testing"

	"awe4lb/config"
)

// checked gives a pool a health check.
func checked(p *config.Pool, initial string) *config.Pool {
	p.Health = &config.Health{Kind: "tcp", Initial: initial}
	return p
}

// TestHealthOutlivesSnapshots: a state belongs to the backend, not to a snapshot of it; a new backend has the initial one.
func TestHealthOutlivesSnapshots(t *testing.T) {
	d := NewDirector()
	d.Drive(nowhere{})
	apply := func(p *config.Pool) *Pool {
		t.Helper()
		if _, err := d.Apply(&config.Config{Pools: []*config.Pool{p}}); err != nil {
			t.Fatal(err)
		}
		return d.Snapshot().Pool("p")
	}
	states := func(p *Pool) (s []State) {
		for _, m := range p.Members {
			s = append(s, m.State())
		}
		return s
	}
	first := apply(checked(pool("random", "1", "1"), "up"))
	if b := d.SetHealth("p", first.Members[0].Address, false); b != first.Members[0].Backend {
		t.Errorf("SetHealth returned %v", b)
	}
	if d.SetHealth("q", first.Members[0].Address, false) != nil || d.SetHealth("p", config.Address{Path: "/x"}, false) != nil {
		t.Error("SetHealth of what is not there")
	}
	for initial, want := range map[string]State{"down": Down, "checking": Down, "up": Up} {
		apply(checked(pool("random", "1", "1"), "up"))
		if got := states(apply(checked(pool("random", "1", "1", "1"), initial))); !slices.Equal(got, []State{Down, Up, want}) {
			t.Errorf("%s: %v", initial, got)
		}
	}
	if got := states(apply(pool("random", "1", "1", "1", "1"))); !slices.Equal(got, []State{Up, Up, Up, Up}) {
		t.Errorf("without a check: %v", got)
	}
}

// nowhere is a Plane that carries nothing.
type nowhere struct{}

func (nowhere) Still(f func())                      { f() }
func (nowhere) Prepare(*Snapshot) (Plan, error)     { return nowhere{}, nil }
func (nowhere) PrepareMembers(*Pool)                {}
func (nowhere) CommitMembers(string, []*Backend)    {}
func (nowhere) Commit() []Change                    { return nil }
func (nowhere) BackendChanged(*Backend)             {}
func (nowhere) Preview(*Snapshot) ([]Change, error) { return nil, nil }
