package convert

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// backend is a backend of a list in the source. Numbers below 0 are not given.
type backend struct {
	address                string
	weight, priority, most int
	sni                    string
	at                     place
}

// parseBackend reads gobetween's HOST:PORT[ weight=N][ priority=N][ max_connections=N][ sni=NAME].
func parseBackend(line string, at place) (b backend, ok bool) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return b, false
	}
	b = backend{address: words[0], weight: -1, priority: -1, most: -1, at: at}
	if _, port, err := net.SplitHostPort(b.address); err != nil || port == "" || strings.Trim(port, "0123456789") != "" {
		return b, false
	}
	for _, w := range words[1:] {
		key, text, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(text)
		switch {
		case key == "sni" && text != "":
			b.sni = strings.ToLower(text)
		case err != nil || n < 0:
			return b, false
		case key == "weight":
			b.weight = n
		case key == "priority":
			b.priority = n
		case key == "max_connections":
			b.most = n
		default:
			return b, false
		}
	}
	return b, true
}

const (
	maxWeight   = 1000
	maxPriority = 255
)

// host returns the name of a backend's host, or "" when its address is one.
func (b *backend) host() string {
	host, _, _ := net.SplitHostPort(b.address)
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return ""
	}
	return host
}

// onlyName returns the name that all backends have, or "".
func onlyName(list []backend) (name string) {
	for i := range list {
		if h := list[i].host(); h == "" || name != "" && h != name {
			return ""
		}
		name = list[i].host()
	}
	return name
}

// hosts writes backends that are named and not addressed: discovery looks them up.
func (r *run) hosts(pool string, list []backend) {
	if len(list) == 0 {
		return
	}
	d := r.doc.section(list[0].at, "pools", pool, "discovery")
	var sources []item
	for _, b := range list {
		_, port, _ := net.SplitHostPort(b.address)
		r.changed(d, b.at, "the name is looked up in the DNS again and again, and each of its addresses is a backend")
		if b.weight >= 0 || b.priority >= 0 || b.most >= 0 {
			r.lost(d, b.at, what("weight, priority, max_connections"), "backends that are looked up have none")
		}
		sources = append(sources, item{"{ kind = \"dns\", name = " + r.text(b.host()) + ", port = " + port + " }", b.at})
	}
	d.list(place{}, "sources", sources)
}

// list writes the backends of a pool. weighted: its policy goes by weights and priorities, both of which are 1 where they
// are not given; else they have no effect in the source, and are left out here, where they would have one.
func (r *run) list(s *section, pool string, all []backend, weighted bool) {
	var list, named []backend
	for _, b := range all {
		if b.host() == "" {
			list = append(list, b)
		} else {
			named = append(named, b)
		}
	}
	r.hosts(pool, named)
	if weighted {
		r.fitWeights(s, list)
		r.fitPriorities(s, list)
	}
	noted := false
	var items []item
	for _, b := range list {
		fields := "{ address = " + r.text(b.address)
		if b.weight >= 0 || b.priority >= 0 {
			switch {
			case !weighted && !noted:
				r.lost(s, b.at, what("weights and priorities"), "without effect there too, with this way to balance; here they would have one")
				noted = true
			case weighted && b.weight >= 0 && b.weight != 1:
				fields += ", weight = " + strconv.Itoa(b.weight)
			}
			if weighted && b.priority >= 0 {
				fields += ", priority = " + strconv.Itoa(b.priority)
			}
		}
		if b.most > 0 {
			fields += ", max_connections = " + strconv.Itoa(b.most)
		}
		items = append(items, item{fields + " }", b.at})
	}
	if len(items) > 0 {
		s.list(place{}, "backends", items)
	}
}

// fitWeights brings weights into the range that awe4lb has.
func (r *run) fitWeights(s *section, list []backend) {
	most, sum := 0, 0
	for _, b := range list {
		most = max(most, b.weight)
		if b.weight != 0 {
			sum++
		}
	}
	for i := range list {
		b := &list[i]
		switch {
		case sum == 0:
			r.changed(s, b.at, "when all weights are 0 all are equal there; here 0 means no clients")
			b.weight = 1
		case most > maxWeight && b.weight != 0:
			weight := int64(max(b.weight, 1))
			if b.weight < 0 {
				weight = 1
			}
			b.weight = int(max(weight*maxWeight/int64(most), 1))
			r.changed(s, b.at, "weights go up to %d: this one is %d", maxWeight, b.weight)
		}
	}
}

// fitPriorities says priorities where they differ, brought into the range that awe4lb has.
func (r *run) fitPriorities(s *section, list []backend) {
	var all []int
	for i := range list {
		if list[i].priority < 0 {
			list[i].priority = 1
		}
		all = append(all, list[i].priority)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for i := range list {
		b := &list[i]
		rank, _ := slices.BinarySearchFunc(all, b.priority, cmp.Compare[int])
		switch {
		case len(all) == 1:
			b.priority = -1
		case all[len(all)-1] > maxPriority:
			b.priority = min(rank, maxPriority)
			r.changed(s, b.at, "priorities go up to %d: this one is %d", maxPriority, b.priority)
		}
	}
}
