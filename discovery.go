package main

import (
	"fmt"
	"strings"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/discovery"
)

// firstLists is how long a start waits for sources to be tried once, so that the first clients find backends. What comes
// later is used when it comes.
const firstLists = time.Second

// found hands the list of a pool to those who act on it: the director first, which changes who is picked, then the health
// checks, which begin with those who are new. It is called by one goroutine per pool at a time.
func (p *process) found(pool string, list []*config.Backend) {
	p.members.Lock()
	changes := p.director.SetBackends(pool, list)
	if len(changes) > 0 {
		p.health.SetMembers(pool, configsOf(p.director.Snapshot().Pool(pool)))
	}
	p.members.Unlock()
	if len(changes) == 0 {
		return
	}
	left := len(p.director.Snapshot().Pool(pool).Members)
	p.logs.Log.Info("backends have changed", append([]any{"pool", pool, "backends", left}, inWords(changes)...)...)
	if left == 0 {
		p.logs.Log.Error("the pool has no backend left: connections that come here are refused", "pool", pool)
	}
}

// namedChanges is how many backends a line of the log names.
const namedChanges = 5

// inWords counts changes by what was done, and names the first of each.
func inWords(changes []balancer.Change) (attrs []any) {
	for _, action := range []string{"added", "removed", "changed"} {
		var names []string
		n := 0
		for _, c := range changes {
			if c.Action != action {
				continue
			}
			if n++; n <= namedChanges {
				_, name, _ := strings.Cut(c.Name, "/")
				names = append(names, name)
			}
		}
		if n > namedChanges {
			names = append(names, fmt.Sprintf("and %d more", n-namedChanges))
		}
		if n > 0 {
			attrs = append(attrs, action, strings.Join(names, " "))
		}
	}
	return attrs
}

// tellDiscovery logs what happens to the sources of a pool. Changes are logged where they are made.
func (p *process) tellDiscovery(pool string, e discovery.Event) {
	log, what := p.logs.Log, []any{"pool", pool}
	if e.Source != "" {
		what = append(what, "source", e.Source)
	}
	detail := func(key string) []any { return append(what, key, e.Detail) }
	switch e.What {
	case discovery.EventHeld:
		log.Warn("a source suddenly knows far fewer backends: its list is held back, and the one before stays in use",
			append(detail("got"), "to_use_it_now", "POST /api/v1/discovery/"+pool+"/accept")...)
	case discovery.EventReleased:
		log.Info("the list that was held back is used by order", append(what, "backends", e.Length)...)
	case discovery.EventFailing:
		log.Warn("a source of backends fails: it is tried again and again, and meanwhile on_failure counts", detail("error")...)
	case discovery.EventRecovered:
		log.Info("a source of backends answers again", detail("came")...)
	case discovery.EventStale:
		log.Error("the list of a source is older than max_age: its backends are no longer used", append(detail("why"), "backends", e.Length)...)
	case discovery.EventRestored:
		log.Info("until the source answers, the list of an earlier time is used", append(detail("list"), "backends", e.Length)...)
	case discovery.EventSave:
		log.Warn("discovery.save_to: lists cannot be saved or read", detail("error")...)
	}
}

// configsOf returns what is said of the members of a pool.
func configsOf(p *balancer.Pool) []*config.Backend {
	all := make([]*config.Backend, len(p.Members))
	for i, m := range p.Members {
		all[i] = m.Config
	}
	return all
}

// apply makes cfg the running configuration, with what discovery knows already, and has the health checks follow.
func (p *process) apply(cfg *config.Config, found map[string][]*config.Backend, check bool) (*balancer.Report, error) {
	p.members.Lock()
	defer p.members.Unlock()
	report, err := p.director.ApplyFound(cfg, found)
	if err == nil && check {
		p.checkMembers(cfg)
	}
	return report, err
}

// checkMembers has the health checks follow cfg and who is a member now. p.members is held, or nobody else is there yet.
func (p *process) checkMembers(cfg *config.Config) {
	members := map[string][]*config.Backend{}
	for _, pool := range p.director.Snapshot().Pools {
		if pool.Config.Discovery != nil {
			members[pool.Config.Name] = configsOf(pool)
		}
	}
	p.health.ApplyMembers(cfg, members)
}
