package balancer

import "awe4lb/config"

// roster is who belongs to a pool beside those that the configuration names. It is the Director's, guarded by its mu.
//
// Who a pool has is worked out anew whenever one of the parts changes: those configured, then those found. Where two parts
// have the same address, the earlier is right, so that what an operator writes down is never overruled by a source. Another
// part, such as backends added by order, is a field here and a line in backends; orders that change what is said of a
// backend apply to the result.
type roster struct {
	found []*config.Backend // by discovery
}

// backends returns who belongs to pool c. The result is not to be changed: it may be c's own.
func (r roster) backends(c *config.Pool) []*config.Backend {
	if len(r.found) == 0 {
		return c.Backends
	}
	all := make([]*config.Backend, 0, len(c.Backends)+len(r.found))
	seen := make(map[config.Address]bool, len(c.Backends)+len(r.found))
	for _, part := range [][]*config.Backend{c.Backends, r.found} {
		for _, b := range part {
			if !seen[b.Address] {
				seen[b.Address] = true
				all = append(all, b)
			}
		}
	}
	return all
}
