package balancer

import (
	"slices"
	"strings"
)

// remember keeps the identities of the frontends of s for as long as the process lives: one that comes back under its
// name goes on counting where it was, and sessions that outlive theirs stay in sight. Names come from the configuration,
// so that their number is the operator's. d.mu is held.
func (d *Director) remember(s *Snapshot) {
	for _, f := range s.Frontends {
		d.frontends[f.Config.Name] = &Frontend{Config: f.Config, Live: f.Live} // without its pools, which may go
	}
}

// RetiredFrontends returns the frontends that are no longer configured and still have sessions, by name, as they were
// last configured. Safe from any goroutine.
func (d *Director) RetiredFrontends() []*Frontend {
	d.mu.Lock()
	defer d.mu.Unlock()
	var retired []*Frontend
	for name, f := range d.frontends {
		if d.current.Load().Frontend(name) == nil && f.Live.Active() > 0 {
			retired = append(retired, f)
		}
	}
	slices.SortFunc(retired, func(a, b *Frontend) int { return strings.Compare(a.Config.Name, b.Config.Name) })
	return retired
}
