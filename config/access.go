package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Who may use a frontend: the rules of [frontends.NAME.access], and the files they name.

// What bounds a file of prefixes.
const (
	MaxPrefixFile  = 32 << 20 // bytes
	MaxPrefixes    = 1 << 20  // in one file
	maxListErrors  = 20       // that are told of one file
	maxAccessRules = 1024     // of one frontend
)

// checkRates warns of bursts without a rate, which have no effect.
func (d *decoder) checkRates(f *Frontend) {
	if f.IsUDP() {
		return
	}
	d.checkBurst(&f.ConnectionBurst, f.ConnectionRate, "connection_rate")
	d.checkBurst(&f.ConnectionBurstPerSource, f.ConnectionRatePerSource, "connection_rate_per_source")
}

// checkBurst warns of a burst where the rate, a key of that name, is 0.
func (d *decoder) checkBurst(burst *int, rate int, name string) {
	if p, ok := d.places[burst]; ok && *burst > 0 && rate == 0 && !p.bad {
		d.warn(p, "there is no "+name+", so that this has no effect", "")
	}
}

// checkAccess checks the rules of f and makes the paths in them absolute.
func (d *decoder) checkAccess(f *Frontend) {
	a := &f.Access
	if len(a.Rules) > maxAccessRules {
		d.fail(d.places[&a.Rules], Error{Got: fmt.Sprintf("%d rules", len(a.Rules)), Want: fmt.Sprintf("at most %d", maxAccessRules),
			Hint: "a rule may have any number of prefixes"})
	}
	for _, r := range a.Rules {
		table := d.places[r]
		if table.bad {
			continue
		}
		keys := 0
		for _, field := range []any{&r.Allow, &r.Deny, &r.AllowFile, &r.DenyFile} {
			if d.isSet(field) {
				keys++
			}
		}
		if keys == 0 && table.node != nil && len(table.node.keys) > 0 {
			continue // an unknown key is told of already
		}
		if keys != 1 {
			d.fail(table, Error{Got: fmt.Sprintf("%d keys", keys), Want: "exactly one of allow, deny, allow_file and deny_file", Hint: "the order of rules decides: one rule for each"})
		}
		for _, list := range []*[]netip.Prefix{&r.Allow, &r.Deny} {
			if p, ok := d.places[list]; ok && *list != nil && len(*list) == 0 {
				d.fail(p, Error{Got: "an empty array", Want: "one prefix or more", Hint: "for none, leave the rule out"})
			}
		}
		for _, path := range []*string{&r.AllowFile, &r.DenyFile} {
			if p, ok := d.places[path]; ok && !p.bad && *path == "" {
				d.refuse(p, complaint{want: "the path of a file"})
			}
			d.localFile(path)
		}
	}
	if p, ok := d.places[a]; ok && !p.bad && a.Default == "deny" && len(a.Rules) == 0 && !d.isSet(&a.Rules) {
		d.warn(p, "there is no rule and the default is deny: every client is denied", "")
	}
}

// ParsePrefixes reads the text of a file of prefixes: one a line, or an IP address; what follows # or ; is a comment, and
// empty lines are nothing. It fails with Errors that have the file's name and the lines; no more than 20 of them.
func ParsePrefixes(file, text string) ([]netip.Prefix, error) {
	text = strings.TrimPrefix(text, "\ufeff")
	list := make([]netip.Prefix, 0, min(strings.Count(text, "\n")+1, MaxPrefixes))
	var errs Errors
	number := 0
	for line := range strings.Lines(text) {
		number++
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, c := parsePrefix(line)
		switch {
		case c != nil && len(errs) == maxListErrors-1:
			errs = append(errs, &Error{File: file, Line: number, Problem: "too many mistakes: the rest is not looked at"})
			return nil, errs
		case c != nil:
			e := &Error{File: file, Line: number, Got: quote(line), Want: c.want}
			if c.fix != "" {
				e.Hint = "write " + quote(c.fix)
			}
			errs = append(errs, e)
		case len(list) == MaxPrefixes:
			return nil, append(errs, &Error{File: file, Line: number, Problem: "too many prefixes", Want: fmt.Sprintf("at most %d", MaxPrefixes)})
		default:
			list = append(list, p)
		}
	}
	if errs != nil {
		return nil, errs
	}
	return list, nil
}
