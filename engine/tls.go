package engine

import (
	"errors"
	"runtime"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/tlsbridge"
	"awe4lb/tlsbridge/certs"
)

// What the shards share for TLS: who makes handshakes, what with, and how many at once.

// usesTLS reports whether cfg needs any of it.
func usesTLS(cfg *config.Config) bool {
	for _, f := range cfg.Frontends {
		if f.TLS != nil {
			return true
		}
	}
	for _, p := range cfg.Pools {
		if p.TLS != nil {
			return true
		}
	}
	return false
}

// prepareTLS reads what next's TLS tables name and attaches it, and starts those who make handshakes. The caller holds mu.
func (e *Engine) prepareTLS(next *balancer.Snapshot) (*certs.Set, error) {
	if e.keeper == nil {
		if usesTLS(next.Config) {
			return nil, errors.New("engine: TLS without Options.Certificates")
		}
		return nil, nil
	}
	set, err := e.keeper.Prepare(next.Config)
	if err != nil {
		return nil, err
	}
	for _, f := range next.Frontends {
		if server := set.Servers[f.Config.Name]; server != nil {
			f.Attached = server
		}
	}
	for _, p := range next.Pools {
		if client := set.Clients[p.Config.Name]; client != nil {
			p.Attached = client
		}
	}
	if e.workers.Load() == nil && usesTLS(next.Config) {
		return set, e.startWorkers(&next.Config.Engine)
	}
	return set, nil
}

// startWorkers starts those who make handshakes, for the rest of the process's life. They are processors' work beside that
// of the shards.
func (e *Engine) startWorkers(c *config.Engine) error {
	count := c.TLSWorkers
	if count == 0 {
		count = len(e.shards)
	}
	workers, err := tlsbridge.NewWorkers(tlsbridge.WorkerOptions{Count: count, Nice: c.TLSNice, CPUs: c.TLSCPUs})
	if err != nil {
		return err
	}
	// Only for threads of their own: without them, one processor of Go's more than shards costs 12 % more CPU per handshake and
	// 9 % per request, two 20 and 16 %, and p99 gained nothing that could be told from noise (2 shards; bench, tls-full,
	// tls-keep64, tls-flood, 2026-11-25).
	if c.TLSNice > 0 || len(c.TLSCPUs) > 0 {
		runtime.GOMAXPROCS(len(e.shards) + count)
	}
	e.workers.Store(workers)
	return nil
}

// commitTLS puts what was prepared to use. The caller holds mu.
func (e *Engine) commitTLS(p *plan) {
	if p.tls != nil {
		e.keeper.Commit(p.tls)
	}
	e.gatesMu.Lock()
	defer e.gatesMu.Unlock()
	for _, b := range p.wanted {
		if !b.udp {
			b.gate = e.gateOf(b.front)
		}
	}
	for name := range e.gates {
		if f := p.next.Frontend(name); f == nil || !speaksFirst(f) {
			delete(e.gates, name)
		}
	}
}

// gate is a Gate and the limits it was made for.
type gate struct {
	*tlsbridge.Gate
	limit, ofPrefix int
}

// gateOf returns the Gate of f, nil when it needs none. It stays the same as long as its limits do. The caller holds gatesMu.
func (e *Engine) gateOf(f *balancer.Frontend) *tlsbridge.Gate {
	c := f.Config
	if !speaksFirst(f) || c.MaxHandshakes == 0 && c.MaxHandshakesPerPrefix == 0 {
		return nil
	}
	g := e.gates[c.Name]
	if g == nil || g.limit != c.MaxHandshakes || g.ofPrefix != c.MaxHandshakesPerPrefix {
		g = &gate{tlsbridge.NewGate(c.MaxHandshakes, c.MaxHandshakesPerPrefix, 0, 0), c.MaxHandshakes, c.MaxHandshakesPerPrefix}
		e.gates[c.Name] = g
	}
	return g.Gate
}
