// Package acl decides who may use a frontend: ordered rules of prefixes, from the configuration or from files that are
// watched. It knows nothing of connections.
//
// A Keeper reads what a configuration names and makes a List for each frontend that has rules. List.Allows is for the data
// path: one lookup in a trie, without a lock or an allocation. When a file changes, the Keeper makes the trie anew beside
// the data path and exchanges it with one atomic store.
package acl

import (
	"net/netip"
	"sync/atomic"

	"awe4lb/config"
)

// List is the rules of one frontend.
type List struct {
	// Set once, never changed.
	rules []rule
	allow bool // who is in no rule

	// Shared: atomics. What it points to is not changed.
	table atomic.Pointer[table]
}

// rule is some prefixes and what becomes of clients in them.
type rule struct {
	allow    bool
	prefixes []netip.Prefix // nil for a file
	file     *file
}

// newList makes the List of a; files are those that it names, by path.
func newList(a *config.Access, files map[string]*file) *List {
	l := &List{allow: a.Default != "deny"}
	for _, r := range a.Rules {
		made := rule{allow: r.Allows(), prefixes: r.Allow}
		if path, _ := r.File(); path != "" {
			made.file = files[path]
		} else if !made.allow {
			made.prefixes = r.Deny
		}
		l.rules = append(l.rules, made)
	}
	return l
}

// build makes the table of what the files hold now. The caller holds Keeper.mu, or nobody else has l yet.
func (l *List) build() { l.table.Store(newTable(l.rules, l.allow)) }

// Allows reports whether a client may come: the first rule that has its address decides. A client without an address, on
// a unix socket, always may. Never blocks or allocates; safe from any goroutine.
func (l *List) Allows(client netip.Addr) bool {
	if !client.IsValid() {
		return true
	}
	return l.table.Load().allows(client.Unmap().WithZone(""))
}
