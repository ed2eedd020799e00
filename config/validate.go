package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// What takes more than one value to see: references, required keys, and what cannot be together. decode has checked
// every value by itself; what it refused is passed over here, so that one mistake is told once.

// validate finishes cfg: it fills in what follows from other values and notes the mistakes left.
func (d *decoder) validate() {
	c := d.cfg
	d.checkLog(&c.Log)
	d.checkEngine(&c.Engine)
	d.checkTCP(&c.Defaults.TCP)

	claims := newClaims(d)
	for _, f := range c.Frontends {
		d.checkFrontend(f, claims)
	}
	d.checkAdmin(&c.Admin, claims)
	d.checkACME(&c.ACME)

	used := d.checkReferences()
	for _, p := range c.Pools {
		d.checkPool(p)
		if !used[p.Name] {
			d.warn(d.places[p], "no frontend uses this pool", "")
		}
	}
	d.checkHealthPools()
	d.checkLoops(claims)
	if len(c.Frontends) == 0 {
		d.warn(place{line: 1}, "there are no frontends: awe4lb listens on nothing", "")
	}
}

func (d *decoder) checkLog(l *Log) {
	if !d.isSet(&l.Access.Format) {
		l.Access.Format = l.Format
	}
	d.checkOutput(&l.Output, "stdout, stderr or the path of a file")
	if l.Access.Output != "" {
		d.checkOutput(&l.Access.Output, `stdout, stderr, the path of a file, or ""`)
	}
}

func (d *decoder) checkOutput(output *string, want string) {
	p, ok := d.places[output]
	if !ok || p.bad {
		return
	}
	d.files = append(d.files, output)
	if s := *output; s == "" || strings.HasSuffix(s, "/") || len(s) >= 4096 {
		d.refuse(p, complaint{want: want})
	}
}

func (d *decoder) checkEngine(e *Engine) {
	if e.Splice && e.SplicePipes == 0 {
		d.warn(d.places[&e.SplicePipes], "splice has no pipes to work with", "write splice = false to turn it off")
	}
	for _, account := range []*string{&e.User, &e.Group} {
		p, ok := d.places[account]
		if ok && !p.bad && (len(*account) > 32 || strings.ContainsAny(*account, " :/,")) {
			d.refuse(p, complaint{want: "a name or a number of at most 32 bytes"})
		}
	}
	d.checkBurst(&e.ConnectionBurst, e.ConnectionRate, "connection_rate")
	d.localFile(&e.TicketSecret)
	d.checkCPUs(&e.TLSCPUs)
	if p, ok := d.places[&e.Group]; ok && e.Group != "" && !d.isSet(&e.User) {
		d.fail(p, Error{Got: p.got(), Want: "a user too", Hint: "a group is only changed to together with engine.user"})
	}
}

func (d *decoder) checkTCP(t *TCP) {
	// Only where the key stands: those who inherit it have not made the mistake.
	if p, ok := d.places[&t.Keepalive]; ok && t.Keepalive%time.Second != 0 {
		d.refuse(p, complaint{want: "whole seconds"})
	}
	if p, ok := d.places[&t.UserTimeout]; ok && t.UserTimeout%time.Millisecond != 0 {
		d.refuse(p, complaint{want: "whole milliseconds"})
	}
}

func (d *decoder) checkFrontend(f *Frontend, claims *claims) {
	table := d.places[f]
	if table.bad {
		return
	}
	d.checkTCP(&f.TCP)
	d.checkMissing(&f.Bind, table.key("bind"), "one address or more")
	if f.Bind != nil && len(f.Bind) == 0 {
		d.fail(d.places[&f.Bind], Error{Got: "an empty array", Want: "one address or more"})
	}
	d.checkProtocol(f)
	for i := range f.Bind {
		f.Addresses = append(f.Addresses, claims.take(f, &f.Bind[i])...)
	}
	d.checkRoutes(f)
	d.checkFrontendTLS(f)
	d.checkProxyProtocol(f)
	d.checkAccess(f)
	d.checkRates(f)
	if len(f.Routes) == 0 && f.Pool == "" {
		d.warn(table, "there is neither a pool nor a route: every connection is refused", "")
	}
}

// checkMissing notes that a required key is not in its table, and reports whether it is so.
func (d *decoder) checkMissing(field any, p place, want string) bool {
	if d.isSet(field) {
		return false
	}
	d.fail(p, Error{Problem: "is missing", Want: want})
	return true
}

// checkReferences checks that every pool that is named exists, and returns the names in use.
func (d *decoder) checkReferences() (used map[string]bool) {
	exists, used := make(map[string]bool), make(map[string]bool)
	if d.places[&d.cfg.Pools].bad {
		return used
	}
	var names, shown []string
	for _, p := range d.cfg.Pools {
		exists[p.Name] = true
		names = append(names, p.Name)
		shown = append(shown, joinKey("", p.Name))
	}
	check := func(name *string, optional bool) {
		p, ok := d.places[name]
		switch {
		case !ok || p.bad || optional && *name == "":
		case exists[*name]:
			used[*name] = true
		case len(names) == 0:
			d.refuse(p, complaint{want: "the name of a pool", hint: "there are no pools; a table [pools.NAME] makes one"})
		default:
			c := complaint{want: "the name of a pool: " + list(shown, "or")}
			if near := nearest(*name, names); near != "" && !p.fromEnv {
				c.hint = didYouMean(near)
			}
			d.refuse(p, c)
		}
	}
	for _, f := range d.cfg.Frontends {
		check(&f.Pool, true)
		for _, r := range f.Routes {
			check(&r.Pool, false)
		}
		if f.IsUDP() {
			d.checkDatagramPools(f)
		} else {
			d.checkNestedTLS(f)
		}
	}
	for _, p := range d.cfg.Pools {
		if p.Health != nil && p.Health.Kind == "pool" {
			check(&p.Health.Pool, false)
		}
	}
	return used
}

func (d *decoder) checkPool(p *Pool) {
	table := d.places[p]
	if table.bad {
		return
	}
	d.checkTCP(&p.TCP)
	d.checkPoolTLS(p)
	d.checkSendProxy(p)
	d.checkPolicy(p)
	d.checkQueue(p)
	d.checkHealth(p)
	d.checkDiscovery(p)
	if at, ok := d.places[&p.TCP.Backlog]; ok {
		d.fail(at, Error{Problem: "a pool does not listen", Hint: "backlog belongs to [frontends.NAME.tcp] or [defaults.tcp]"})
	}
	first := make(map[Address]place)
	weight := 0
	for _, b := range p.Backends {
		table := d.places[b]
		if table.bad || d.checkMissing(&b.Address, table.key("address"), backendWant) || !b.Address.IsValid() {
			continue
		}
		weight += b.Weight
		at := d.places[&b.Address]
		if other, twice := first[b.Address]; twice {
			d.fail(at, Error{Got: at.got(), Want: "each backend once in a pool",
				Hint: fmt.Sprintf("%s at line %d is the same", other.path, other.line), Other: other.path})
			continue
		}
		first[b.Address] = at
		d.checkSourceFamily(p, b, at)
	}
	d.checkSourceTwice(p)
	switch {
	case p.Discovery != nil: // there may be others
	case len(p.Backends) == 0:
		d.warn(table, "there are no backends: connections that come here are refused", "")
	case weight == 0:
		d.warn(table, "no backend has a weight above 0: connections that come here are refused", "")
	}
}

// checkSourceFamily warns when no address in source can reach b.
func (d *decoder) checkSourceFamily(p *Pool, b *Backend, at place) {
	if b.Address.IsUnix() || len(p.Source) == 0 {
		return
	}
	for _, ip := range p.Source {
		if ip.Is4() == b.Address.IP.Addr().Is4() {
			return
		}
	}
	family := "IPv6"
	if b.Address.IP.Addr().Is4() {
		family = "IPv4"
	}
	d.warn(at, "the source addresses of the pool have no "+family+" address to reach this backend from", "")
}

func (d *decoder) checkSourceTwice(p *Pool) {
	first := make(map[netip.Addr]place)
	for i, ip := range p.Source {
		at := d.places[&p.Source[i]]
		if other, twice := first[ip]; twice {
			d.fail(at, Error{Got: at.got(), Want: "each address once", Hint: other.path + " is the same"})
		} else if ip.IsValid() {
			first[ip] = at
		}
	}
}

// checkLoops warns of frontends that send connections to themselves.
func (d *decoder) checkLoops(claims *claims) {
	local := make(map[string][]*Backend) // by pool: those who are the address of some frontend
	for _, p := range d.cfg.Pools {
		for _, b := range p.Backends {
			if claims.reached(spot{false, b.Address}) != nil || claims.reached(spot{true, b.Address}) != nil {
				local[p.Name] = append(local[p.Name], b)
			}
		}
	}
	for _, f := range d.cfg.Frontends {
		names := []string{f.Pool}
		for _, r := range f.Routes {
			names = append(names, r.Pool)
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			for _, b := range local[name] {
				if claims.reached(spot{f.IsUDP(), b.Address}) == f {
					d.warn(d.places[&b.Address], "this is an address of "+d.places[f].path+", which sends connections here: they go round and round", "")
				}
			}
		}
	}
}
