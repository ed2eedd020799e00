package engine

import (
	"net/netip"

	"awe4lb/acl"
	"awe4lb/balancer"
	"awe4lb/config"
)

// guard is who may use a frontend. It is made while a snapshot is prepared and goes with it; a frontend that lets everybody
// in has none.
type guard struct {
	// Set once, never changed.
	list *acl.List // nil: everybody
}

// guardOf returns f's guard, nil when it has none.
func guardOf(f *balancer.Frontend) *guard {
	g, _ := f.Guard.(*guard)
	return g
}

// prepareGuards reads the access lists of next and attaches what each frontend needs. The caller holds mu.
func (e *Engine) prepareGuards(next *balancer.Snapshot) (*acl.Set, error) {
	set, err := acl.Prepare(next.Config)
	if err != nil {
		return nil, err
	}
	for _, f := range next.Frontends {
		if list := set.List(f.Config.Name); list != nil {
			f.Guard = &guard{list: list}
		}
	}
	return set, nil
}

// introduces reports whether it shows only after accept who the client is: a proxy may tell.
func introduces(f *config.Frontend) bool {
	return f.ProxyProtocol.Accept == "optional" || f.ProxyProtocol.Accept == "required"
}

// admit returns why a client may not come, or none. Never blocks or allocates; safe from any goroutine.
func (g *guard) admit(client netip.Addr) Reason {
	if !g.allows(client) {
		return Denied
	}
	return none
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
