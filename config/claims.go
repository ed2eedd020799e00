package config

import (
	"fmt"
	"net/netip"
)

// maxAddresses bounds what port ranges expand to: each address is a socket on every shard.
const maxAddresses = 65536

// claims knows who listens where, so that no address is given away twice. Only equal addresses of one protocol clash:
// *:80 and 127.0.0.1:80 can both be bound, and the kernel prefers the specific one.
type claims struct {
	d     *decoder
	owner map[spot]*claim
	total int
	full  bool // the limit has been complained about
}

// spot is what one socket is bound to.
type spot struct {
	udp     bool
	address Address
}

// claim is one entry of the bind of one frontend.
type claim struct {
	frontend *Frontend
	at       place
}

func newClaims(d *decoder) *claims {
	return &claims{d: d, owner: make(map[spot]*claim)}
}

// take returns the addresses of one entry of a frontend's bind, after noting what is wrong with them.
func (c *claims) take(f *Frontend, bind *string) []Address {
	p, ok := c.d.places[bind]
	if !ok || p.bad {
		return nil
	}
	b, wrong := parseBind(*bind)
	if wrong != nil {
		c.d.refuse(p, *wrong)
		return nil
	}
	if b.path != "" && f.IsUDP() {
		c.d.refuse(p, complaint{want: "an address such as 127.0.0.1:5353, [::1]:5353, :5353 or 127.0.0.1:5000-5010", hint: "unix sockets are for tcp"})
		return nil
	}
	if c.total += b.size(); c.total > maxAddresses {
		if !c.full {
			c.full = true
			c.d.fail(p, Error{Got: fmt.Sprintf("%d addresses up to here", c.total), Want: fmt.Sprintf("at most %d in all frontends", maxAddresses)})
		}
		return nil
	}
	all := b.addresses()
	mine := &claim{f, p}
	told := make(map[*claim]bool) // a range that overlaps another is one mistake
	for _, a := range all {
		if a.Path == "" && a.IP.Port() == 0 {
			continue
		}
		at := spot{f.IsUDP(), a}
		owner, taken := c.owner[at]
		if !taken {
			c.owner[at] = mine
			continue
		}
		if told[owner] {
			continue
		}
		told[owner] = true
		e := Error{Got: p.got(), Want: "an address of its own", Hint: owner.at.says(), Other: owner.at.path}
		if b.size() > 1 && !p.fromEnv {
			e.Hint = a.String() + ": " + e.Hint
		}
		c.d.fail(p, e)
	}
	return all
}

// reached returns the frontend that a connection from this machine to at comes to, or nil.
func (c *claims) reached(at spot) *Frontend {
	a := at.address
	if owner := c.owner[at]; owner != nil {
		return owner.frontend
	}
	if !a.IP.IsValid() || !a.IP.Addr().IsLoopback() {
		return nil
	}
	every := everyHost[0]
	if a.IP.Addr().Is6() {
		every = everyHost[1]
	}
	if owner := c.owner[spot{at.udp, addressOf(every, a.IP.Port())}]; owner != nil {
		return owner.frontend
	}
	return nil
}

// says tells that the place has what somebody else wants.
func (p place) says() string { return fmt.Sprintf("%s at line %d has it already", p.path, p.line) }

func addressOf(ip netip.Addr, port uint16) Address {
	return Address{IP: netip.AddrPortFrom(ip, port)}
}
