package engine

import (
	"net/netip"

	"awe4lb/acl"
	"awe4lb/balancer"
	"awe4lb/config"
)

// guard is who may use a frontend, and how much of it. It is made while a snapshot is prepared and goes with it; what it
// counts is taken over from the one before. A frontend that lets everybody in has none.
type guard struct {
	// Set once, never changed.
	list         *acl.List        // nil: everybody
	limits       *config.Frontend // whose limits they are
	bits4, bits6 int              // of a source prefix
	sources      *sourceTable     // of max_connections_per_source, or udp.max_flows_per_source; nil without
	perSource    *rateTable       // of connection_rate_per_source; nil without
	total        *bucket          // of connection_rate; nil without
	caps         *caps            // of bandwidth; nil without
}

// guardOf returns f's guard, nil when it has none.
func guardOf(f *balancer.Frontend) *guard {
	g, _ := f.Guard.(*guard)
	return g
}

// prepareGuards reads the access lists of next and attaches the guard that each frontend needs. The caller holds mu.
func (e *Engine) prepareGuards(next *balancer.Snapshot) (*acl.Set, map[string]*guard, error) {
	set, err := acl.Prepare(next.Config)
	if err != nil {
		return nil, nil, err
	}
	guards := map[string]*guard{}
	for _, f := range next.Frontends {
		if g := newGuard(f.Config, set.List(f.Config.Name), e.guards[f.Config.Name], e.caps[f.Config.Name]); g != nil {
			f.Guard, guards[f.Config.Name] = g, g
		}
	}
	return set, guards, nil
}

// newGuard returns the guard of c, nil when it needs none. It goes on counting where old, which may be nil, does, and
// has kept, if that is not nil, as its caps.
func newGuard(c *config.Frontend, list *acl.List, old *guard, kept *caps) *guard {
	g := &guard{list: list, limits: c, bits4: c.SourcePrefixV4, bits6: c.SourcePrefixV6}
	perSource := c.MaxConnectionsPerSource
	if c.IsUDP() {
		perSource, g.bits4, g.bits6 = c.UDP.MaxFlowsPerSource, c.UDP.NewFlowPrefixV4, c.UDP.NewFlowPrefixV6
	}
	if old == nil {
		old = &guard{}
	}
	same := old.bits4 == g.bits4 && old.bits6 == g.bits6
	if perSource > 0 {
		if g.sources = old.sources; g.sources == nil || !same {
			g.sources = newSourceTable(g.bits4, g.bits6, sourcePlaces)
		}
	}
	if c.ConnectionRatePerSource > 0 {
		if g.perSource = old.perSource; g.perSource == nil || !same {
			g.perSource = new(rateTable)
		}
	}
	if c.ConnectionRate > 0 {
		if g.total = old.total; g.total == nil {
			g.total = new(bucket)
		}
	}
	if hasCaps(c) {
		if g.caps = kept; g.caps == nil {
			g.caps = new(caps)
			g.caps.set(c, 0) // nobody uses them yet
		}
	}
	if list == nil && g.sources == nil && g.perSource == nil && g.total == nil && g.caps == nil {
		return nil
	}
	return g
}

// introduces reports whether it shows only after accept who the client is: a proxy may tell.
func introduces(f *config.Frontend) bool {
	return f.ProxyProtocol.Accept == "optional" || f.ProxyProtocol.Accept == "required"
}

// admit returns why a client may not come, or none. In that case it has counted the client in the table that it returns,
// if any, which is to be given back there when the session ends. Never blocks or allocates; safe from any goroutine.
//
// The order keeps those who are turned away for themselves from using up what is for all.
func (g *guard) admit(client netip.Addr, e *Engine, st *FrontendStats) (held *sourceTable, reason Reason) {
	if !g.allows(client) {
		return nil, Denied
	}
	c := g.limits
	if g.sources != nil && client.IsValid() {
		switch g.sources.acquire(client, c.MaxConnectionsPerSource) {
		case counted:
			held = g.sources
		case overLimit:
			return nil, SourceLimit
		case untracked:
			st.Untracked++
		}
	}
	if !g.afford(client, e) {
		if held != nil {
			held.release(client)
		}
		return nil, RateLimit
	}
	return held, none
}

// afford takes what a session of the client costs from the rates, or reports that there is not enough.
func (g *guard) afford(client netip.Addr, e *Engine) bool {
	if g.perSource == nil && g.total == nil {
		return true
	}
	c, now := g.limits, e.clock()
	if g.perSource != nil && client.IsValid() {
		if !g.perSource.allow(prefixHash(client, g.bits4, g.bits6), now, c.ConnectionRatePerSource, burstOf(c.ConnectionRatePerSource, c.ConnectionBurstPerSource)) {
			return false
		}
	}
	return g.total == nil || g.total.allow(now, c.ConnectionRate, burstOf(c.ConnectionRate, c.ConnectionBurst))
}

// burstOf returns how many may come at once: as many as in a second, unless the configuration says how many.
func burstOf(rate, burst int) int {
	if burst == 0 {
		return rate
	}
	return burst
}

// admitFlow returns why a client's flow may not begin, or kept. In that case it has counted the flow in the table that it
// returns, if any, as admit does.
func (g *guard) admitFlow(client netip.Addr, st *FrontendStats) (held *sourceTable, reason DropReason) {
	if !g.allows(client) {
		return nil, DropDenied
	}
	if g == nil || g.sources == nil {
		return nil, kept
	}
	switch g.sources.acquire(client, g.limits.UDP.MaxFlowsPerSource) {
	case overLimit:
		return nil, DropSourceLimit
	case untracked:
		st.Untracked++
		return nil, kept
	}
	return g.sources, kept
}

// allows reports whether a client may come, by the access list alone.
func (g *guard) allows(client netip.Addr) bool {
	return g == nil || g.list == nil || g.list.Allows(client)
}

// listsChanged follows a change of a file of prefixes: flows of clients who may come no longer end. Sessions go on. Safe from
// any goroutine.
func (e *Engine) listsChanged() {
	for _, sh := range e.shards {
		sh.loop.Post(func() {
			if sh.flows != nil {
				sh.flows.wake()
				sh.flows.cutDenied()
			}
		})
	}
}

// cutDenied ends the flows of clients who may not come any more: without that, one that never rests would never be denied.
func (fl *flows) cutDenied() {
	guarded := false
	for _, fr := range fl.fronts[1:] {
		guarded = guarded || fr != nil && guardOf(fr.front) != nil
	}
	if !guarded {
		return
	}
	fl.each(func(f *flow) {
		if !guardOf(fl.fronts[f.front].front).allows(f.key.clientIP()) {
			fl.end(f, Denied)
		}
	})
}

// AccessLists returns the files of prefixes in use, and how many of their changes were put to use and could not be. Safe
// from any goroutine.
func (e *Engine) AccessLists() (files []acl.File, ok, failed uint64) { return e.lists.Files() }
