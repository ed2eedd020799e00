package balancer

import (
	"net/netip"

	"awe4lb/config"
)

// keyed says what of a client the policy of a pool goes by. Immutable.
type keyed struct {
	by     keyKind
	v4, v6 int // bits, for byPrefix
}

type keyKind uint8

const (
	byNothing keyKind = iota
	bySource
	bySourcePort
	byPrefix
	byName
)

// keyedBy returns what a pool's policy goes by.
func keyedBy(c *config.Pool) keyed {
	k := keyed{v4: c.HashPrefixV4, v6: c.HashPrefixV6}
	if !c.Hashes() {
		return k
	}
	switch c.HashKey {
	case "source_port":
		k.by = bySourcePort
	case "prefix":
		k.by = byPrefix
	case "sni":
		k.by = byName
	default:
		k.by = bySource
	}
	return k
}

// Key returns the hash of a client that Pick is to be given: 64 bits, the same in every process, so that a client finds its
// backend again after a restart. 0 where the policy does not go by a hash.
//
// client is the address that counts as the client's, the zero AddrPort on a unix socket; name is the one in its
// ClientHello, empty if it has none or none was read. A client without what config.Pool.HashKey asks for goes by its
// address. Safe from any goroutine; never blocks or allocates.
func (p *Pool) Key(client netip.AddrPort, name []byte) uint64 {
	switch p.keyed.by {
	case byNothing:
		return 0
	case bySourcePort:
		return mix(ClientKey(client.Addr()) ^ uint64(client.Port()))
	case byPrefix:
		return ClientKey(p.keyed.prefix(client.Addr()))
	case byName:
		if len(name) > 0 {
			return mix(hashText(name))
		}
	}
	return ClientKey(client.Addr())
}

// AsksName reports whether Key is to be given the name in the ClientHello.
func (p *Pool) AsksName() bool { return p.keyed.by == byName }

// prefix returns the first address of the prefix that a is in.
func (k *keyed) prefix(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	bits := k.v6
	if a.Is4() {
		bits = k.v4
	}
	prefix, err := a.Prefix(bits)
	if err != nil { // no address
		return a
	}
	return prefix.Addr()
}

// ClientKey returns the hash of an address. A client without one, on a unix socket, has a key too.
func ClientKey(client netip.Addr) uint64 {
	b := client.Unmap().As16()
	return mix(hashText(b[:]))
}

// hashText is FNV-1a.
func hashText[T []byte | string](text T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h
}

// mix spreads every bit of x over all of them: the finalizer of MurmurHash3.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
