package balancer

import (
	"fmt"
	"testing"
)

// subsetOf returns who is in the first tier of a pool of so many, for a process of that name.
func subsetOf(t *testing.T, backends, n int, name string) map[string]bool {
	t.Helper()
	var addresses []string
	for range backends {
		addresses = append(addresses, "1")
	}
	c := pool("roundrobin", addresses...)
	c.Subset = n
	p := buildPool(c, c.Backends, here{name: name}, identities{})
	tiers := *p.tiers.Load()
	first := map[string]bool{}
	for _, m := range tiers[0].members {
		first[m.Name] = true
	}
	all := 0
	for _, t := range tiers {
		all += len(t.members)
	}
	if len(first) != min(n, backends) || all != backends {
		t.Fatalf("%d in the first tier, %d in all; want %d, %d", len(first), all, n, backends)
	}
	return first
}

// TestSubset: processes of one name have the same subset, those of others have others, and a backend more changes at most one
// place.
func TestSubset(t *testing.T) {
	uses := map[string]int{}
	for i := range 200 {
		name := fmt.Sprint("lb", i)
		had, again := subsetOf(t, 100, 10, name), subsetOf(t, 100, 10, name)
		kept := 0
		for b := range subsetOf(t, 101, 10, name) {
			if had[b] {
				kept++
			}
		}
		if kept < 9 {
			t.Errorf("%s: a backend more leaves %d of 10", name, kept)
		}
		for b := range had {
			uses[b]++
			if !again[b] {
				t.Fatalf("%s has another subset the second time", name)
			}
		}
	}
	// 200 draws of a tenth: 20 for each, with a deviation of 4.2.
	if len(uses) != 100 {
		t.Errorf("%d of 100 backends are in some subset", len(uses))
	}
	for b, n := range uses {
		if n < 3 || n > 42 {
			t.Errorf("%s is in %d of 200 subsets; want about 20", b, n)
		}
	}
	subsetOf(t, 5, 10, "lb") // all of them are ours
}

// TestSubsetGivesWay: when ours are down, the others of the tier serve before the next priority.
func TestSubsetGivesWay(t *testing.T) {
	c := pool("roundrobin", "1", "1", "1", "1", "1/1")
	c.Subset, c.PanicThreshold = 1, 50
	p := buildPool(c, c.Backends, here{name: "lb"}, identities{})
	p.sit(*p.tiers.Load())
	ours := p.Pick(0, nil)
	for range 10 {
		if b := p.Pick(0, nil); b != ours {
			t.Fatalf("got %s; want %s, the only one of ours", b.Name, ours.Name)
		}
	}
	ours.SetState(Down)
	got := map[string]bool{}
	for range 30 {
		got[p.Pick(0, nil).Name] = true
	}
	if len(got) != 3 || got[ours.Name] || got[p.Members[4].Name] {
		t.Errorf("got %v; want the three others of the tier", got)
	}
}
