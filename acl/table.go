package acl

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// table answers for rules in order by one search for the longest prefix. Immutable.
//
// All prefixes that contain an address contain each other, so those that contain the longest of them are all there are: the
// first rule among them is the same for every address that has that longest prefix, and is found here, beforehand. Only
// prefixes that say something else than the one around them go into the trie: of a long list to deny, those inside of
// others do not.
type table struct {
	trie  bart.Table[bool] // whether clients whose longest prefix it is may come
	allow bool             // those in none
}

func newTable(rules []rule, allow bool) *table {
	type entry struct {
		prefix netip.Prefix
		rule   int32
	}
	var all []entry
	n := 0
	for _, r := range rules {
		n += len(r.list())
	}
	all = make([]entry, 0, n)
	for i, r := range rules {
		for _, p := range r.list() {
			all = append(all, entry{p, int32(i)})
		}
	}
	// What contains others comes before them; of equals, the first rule.
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.rule, b.rule))
	})
	t := &table{allow: allow}
	var around []entry // those that contain the entry at hand, with the first rule that each has or is in
	for i, e := range all {
		if i > 0 && e.prefix == all[i-1].prefix {
			continue
		}
		for len(around) > 0 && !around[len(around)-1].prefix.Contains(e.prefix.Addr()) {
			around = around[:len(around)-1]
		}
		outside := allow
		if len(around) > 0 {
			first := around[len(around)-1].rule
			outside = rules[first].allow
			e.rule = min(e.rule, first)
		}
		around = append(around, e)
		if inside := rules[e.rule].allow; inside != outside {
			t.trie.Insert(e.prefix, inside)
		}
	}
	return t
}

// list returns the prefixes of r.
func (r *rule) list() []netip.Prefix {
	if r.file != nil {
		return r.file.prefixes
	}
	return r.prefixes
}

func (t *table) allows(client netip.Addr) bool {
	if allow, found := t.trie.Lookup(client); found {
		return allow
	}
	return t.allow
}
