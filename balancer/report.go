package balancer

import (
	"fmt"
	"reflect"
	"slices"

	"awe4lb/config"
)

// Report says what a change of configuration did.
type Report struct {
	Version     uint64   `json:"version"`                // of the snapshot now in force
	Changes     []Change `json:"changes"`                // empty when the new configuration means the same
	NeedRestart []string `json:"need_restart,omitempty"` // settings that changed and take effect at the next start
}

// Change is one difference.
type Change struct {
	Kind   string `json:"kind"`             // frontend, listener, pool, backend, log, engine, admin, acme
	Name   string `json:"name"`             // of the frontend or pool; an address; pool/address for backends; a key of [engine], [admin] or [acme]
	Action string `json:"action"`           // added, removed, changed
	Detail string `json:"detail,omitempty"` // in words
}

// String returns the change in words: "backend web/127.0.0.1:9001 removed: 2 sessions go on".
func (c Change) String() string {
	s := c.Kind
	if c.Name != "" {
		s += " " + c.Name
	}
	s += " " + c.Action
	if c.Detail != "" {
		s += ": " + c.Detail
	}
	return s
}

func reportOf(old, next *Snapshot) *Report {
	return &Report{Version: next.Version, Changes: compare(old, next), NeedRestart: needRestart(old, next)}
}

// compare lists what differs between two snapshots.
func compare(old, next *Snapshot) []Change {
	changes := []Change{}
	add := func(kind, name, action, detail string) {
		changes = append(changes, Change{kind, name, action, detail})
	}
	for _, f := range old.Frontends {
		if next.Frontend(f.Config.Name) == nil {
			add("frontend", f.Config.Name, "removed", sessions(f.Live.Active()))
		}
	}
	for _, f := range next.Frontends {
		was := old.Frontend(f.Config.Name)
		switch {
		case was == nil:
			add("frontend", f.Config.Name, "added", "")
		case !reflect.DeepEqual(was.Config, f.Config):
			add("frontend", f.Config.Name, "changed", newSettings(was.Config, f.Config))
		}
	}
	for _, p := range old.Pools {
		if next.Pool(p.Config.Name) == nil {
			add("pool", p.Config.Name, "removed", leaving(p.Config, p.active()))
		}
	}
	for _, p := range next.Pools {
		was := old.Pool(p.Config.Name)
		if was == nil {
			with := fmt.Sprintf("%d backends", len(p.Members))
			if len(p.Members) == 1 {
				with = "1 backend"
			}
			add("pool", p.Config.Name, "added", with)
			continue
		}
		if !samePool(was.Config, p.Config) {
			add("pool", p.Config.Name, "changed", newSettings(was.Config, p.Config, "backends"))
		}
		compareMembers(was, p, add)
	}
	if !reflect.DeepEqual(old.Config.Log, next.Config.Log) {
		add("log", "", "changed", "")
	}
	if old.Version > 0 { // the first configuration changes nothing
		compareKeys("engine", old.Config.Engine, next.Config.Engine, add)
		compareKeys("admin", old.Config.Admin, next.Config.Admin, add)
		compareKeys("acme", old.Config.ACME, next.Config.ACME, add)
	}
	return changes
}

// samePool compares what a pool says of itself, its backends apart.
func samePool(a, b *config.Pool) bool {
	x, y := *a, *b
	x.Backends, y.Backends = nil, nil
	return reflect.DeepEqual(x, y)
}

func compareMembers(was, now *Pool, add func(kind, name, action, detail string)) {
	for _, m := range now.Members {
		old := was.members[m.Address]
		name := m.Pool + "/" + m.Name
		switch {
		case old == nil:
			add("backend", name, "added", "")
		case !old.Config.Same(m.Config):
			add("backend", name, "changed", fmt.Sprintf("weight %d, priority %d, max_connections %d",
				m.Config.Weight, m.Config.Priority, m.Config.MaxConnections))
		}
	}
	for _, m := range was.Members { // in order
		if now.members[m.Address] == nil {
			add("backend", m.Pool+"/"+m.Name, "removed", leaving(now.Config, m.Active()))
		}
	}
}

// active returns the number of sessions with the backends of p.
func (p *Pool) active() (n int64) {
	for _, m := range p.Members {
		n += m.Active()
	}
	return n
}

// leaving says what becomes of n sessions with backends that are no longer configured; p is the last to say.
func leaving(p *config.Pool, n int64) string {
	are := fmt.Sprintf("%d sessions are", n)
	if n == 1 {
		are = "1 session is"
	}
	switch {
	case n > 0 && p.OnRemoved == "cut":
		return are + " cut"
	case n > 0 && p.OnRemoved == "drain":
		return fmt.Sprintf("%s drained within %v", are, p.DrainTimeout)
	}
	return sessions(n)
}

func sessions(n int64) string {
	switch n {
	case 0:
		return "no session left"
	case 1:
		return "1 session goes on"
	}
	return fmt.Sprintf("%d sessions go on", n)
}

// needRestart names the settings that differ and that only a start applies. The first configuration is that start.
func needRestart(old, next *Snapshot) []string {
	if old.Version == 0 {
		return nil
	}
	var names []string
	note := func(table string, was, now any) {
		a, b := reflect.ValueOf(was), reflect.ValueOf(now)
		for i := range a.NumField() {
			key := a.Type().Field(i).Tag.Get("toml")
			if slices.Contains(atStart[table], key) && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				names = append(names, table+"."+key)
			}
		}
	}
	note("engine", old.Config.Engine, next.Config.Engine)
	note("admin", old.Config.Admin, next.Config.Admin)
	return names
}
