package config

import (
	"fmt"
	"math"
	"slices"
)

// otherPolicies are the names that other balancers have for our policies.
var otherPolicies = map[string]string{
	"weight": "random", "weighted": "random",
	"rr": "roundrobin", "wrr": "roundrobin", "round_robin": "roundrobin", "static-rr": "roundrobin",
	"least_conn": "leastconn", "leastconnections": "leastconn", "least_request": "leastconn",
	"least_time": "leasttime", "latency": "leasttime", "ewma": "leasttime", "least_bandwidth": "leastbandwidth",
	"power_of_two": "p2c", "random_two": "p2c",
	"iphash1": "iphash", "ip_hash": "iphash", "source": "iphash", "rendezvous": "iphash",
	"hash": "maglev", "ring_hash": "maglev", "consistent": "maglev",
}

// checkPolicy warns of settings that the policy of p does not use.
func (d *decoder) checkPolicy(p *Pool) {
	if o := p.Outliers; o != nil && o.MaxEjection < o.Ejection {
		if at, ok := d.places[&o.MaxEjection]; ok {
			d.fail(at, Error{Got: at.got(), Want: "at least ejection, which is " + shortDuration(int64(o.Ejection))})
		}
		o.MaxEjection = o.Ejection
	}
	d.checkSuccessRate(p)
	if s := p.Persistence; s != nil && !d.places[&s.Key].bad && s.Key != "prefix" {
		for _, bits := range []*int{&s.PrefixV4, &s.PrefixV6} {
			if at, ok := d.places[bits]; ok {
				d.warn(at, `without effect unless key is "prefix"`, "")
			}
		}
	}
	if d.places[&p.Policy].bad || d.places[&p.HashKey].bad {
		return
	}
	if at, ok := d.places[&p.HashKey]; ok && !p.Hashes() {
		d.warn(at, "only the policies iphash and maglev go by a hash", "")
	}
	for _, bits := range []*int{&p.HashPrefixV4, &p.HashPrefixV6} {
		if at, ok := d.places[bits]; ok && !(p.Hashes() && p.HashKey == "prefix") {
			d.warn(at, `without effect unless hash_key is "prefix"`, "")
		}
	}
	if at, ok := d.places[&p.SlowStart]; ok && p.SlowStart > 0 && p.Hashes() {
		d.warn(at, "a policy that goes by a hash has no slow start: clients would move twice", "")
	}
	if at, ok := d.places[&p.PreferZone]; ok && p.PreferZone {
		switch in := func(b *Backend) bool { return b.Zone == d.cfg.Engine.Zone }; {
		case d.cfg.Engine.Zone == "":
			d.warn(at, "engine.zone does not say which zone is to be preferred", "")
		case p.Discovery == nil && len(p.Backends) > 0 && !slices.ContainsFunc(p.Backends, in):
			d.warn(at, "no backend of the pool is in the zone "+quote(d.cfg.Engine.Zone), "")
		}
	}
}

// hashesName reports whether a pool that f leads to goes by the name in the ClientHello, so that f waits for one.
func (d *decoder) hashesName(f *Frontend) bool {
	is := func(name string) bool {
		p := d.cfg.Pool(name)
		return p != nil && p.HashesName()
	}
	return is(f.Pool) || slices.ContainsFunc(f.Routes, func(r *Route) bool { return is(r.Pool) })
}

// checkSuccessRate warns where backends that are listed are too few to be compared. Of n backends, one that fails alone is the
// square root of n-1 standard deviations below the average, and none is more.
func (d *decoder) checkSuccessRate(p *Pool) {
	n := len(p.Backends)
	if p.Outliers == nil || p.Outliers.SuccessRate == nil || n == 0 {
		return
	}
	s := p.Outliers.SuccessRate
	at := d.places[s]
	switch {
	case at.bad:
	case n < s.MinBackends:
		d.warn(at, fmt.Sprintf("without effect: min_backends is %d, and the pool has %d", s.MinBackends, n), "")
	case s.Deviation*s.Deviation >= (n-1)*100*100:
		d.warn(at, fmt.Sprintf("without effect: of %d backends none is ever as far below the average as deviation says", n),
			fmt.Sprintf("%d or less", int(math.Ceil(100*math.Sqrt(float64(n-1))))-1))
	}
}
