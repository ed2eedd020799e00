package engine

import (
	"slices"
	"syscall"

	"awe4lb/config"
)

// budget is how the process' descriptors are divided. The parts are fixed until the next reload, so that a flood of
// datagrams cannot take what sessions need, nor the other way round.
type budget struct {
	sessions int64 // at once, of two descriptors each
	sockets  int64 // of flows, at once
	pipes    int   // for splice, per shard
	lingers  int   // of clients that are told why they are turned away, per shard
}

// mayTurnAway reports whether clients of f may be told why they are turned away.
func mayTurnAway(f *config.Frontend) bool {
	return !f.IsUDP() && (f.TLS != nil || len(f.Routes) > 0 || f.STARTTLS == "postgres" || f.ACMEChallenges)
}

// maxLingers is the number of clients that hear at the same time why they are turned away; less where descriptors are few.
const maxLingers = 1024

// keptBack is the number of descriptors left to the rest of the process, the admin's clients above all; less where there
// are few.
const keptBack = 128

// budget divides the process' descriptors for a configuration with so many bound addresses.
func (e *Engine) budget(cfg *config.Config, bindings int) budget {
	nofile := openFiles()
	shards := len(e.shards)
	pipes := cfg.Engine.SplicePipes
	if !cfg.Engine.Splice {
		pipes = 0
	}
	pipes = min(pipes, nofile/8/2/shards) // pipes are a comfort: at most an eighth of all descriptors
	lingers := 0
	if slices.ContainsFunc(cfg.Frontends, mayTurnAway) {
		lingers = min(maxLingers, nofile/16) / shards
	}
	// What is neither session, flow nor pipe: listeners, loops, logs, the admin and its clients.
	reserved := min(keptBack, nofile/4) + (5+bindings+2*pipes+lingers)*shards
	room := int64(max(nofile-reserved, 2))

	// Flows get what their frontends ask for, but no more than half while there are sessions too, unless max_connections
	// leaves more.
	flows, tcp := int64(0), false
	for _, f := range cfg.Frontends {
		switch {
		case !f.IsUDP():
			tcp = true
		case needsSockets(cfg, f):
			flows += int64(f.UDP.MaxFlows)
		}
	}
	most := room
	want := int64(cfg.Engine.MaxConnections)
	if tcp {
		most = room / 2
		if want > 0 {
			most = max(most, room-2*want)
		}
	}
	b := budget{sockets: min(flows, most), pipes: pipes, lingers: lingers}
	b.sessions = max((room-b.sockets)/2, 1)
	if want > b.sessions {
		e.log.Warn("engine.max_connections is more than the open files allow",
			"max_connections", want, "open_files", nofile, "sessions", b.sessions)
	} else if want > 0 {
		b.sessions = want
	}
	if flows > b.sockets {
		e.log.Info("the open files allow fewer flows than the max_flows of the frontends together",
			"max_flows", flows, "open_files", nofile, "flows", b.sockets)
	}
	return b
}

// needsSockets reports whether flows of f have sockets of their own: it has no shared_source, or a backend of a family without;
// one that is found may be of either.
func needsSockets(cfg *config.Config, f *config.Frontend) bool {
	v4, v6 := families(cfg, f)
	shared4, shared6 := false, false
	for _, p := range f.UDP.SharedSource {
		shared4 = shared4 || p.Addr().Is4()
		shared6 = shared6 || p.Addr().Is6()
	}
	if discovers(cfg, f) {
		v4, v6 = true, true
	}
	return len(f.UDP.SharedSource) == 0 || v4 && !shared4 || v6 && !shared6
}

// admitSocket counts one more socket of a flow, or reports that there is no room for it. Safe from any goroutine.
func (e *Engine) admitSocket() bool {
	if e.sockets.Add(1) <= e.socketLimit.Load() {
		return true
	}
	e.dismissSocket()
	return false
}

// dismissSocket gives back what admitSocket counted.
func (e *Engine) dismissSocket() { e.sockets.Add(-1) }

// openFiles returns RLIMIT_NOFILE, which Go's runtime has raised to the hard limit.
func openFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(r.Cur, 1<<30))
}
