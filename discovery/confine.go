package discovery

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// The limit of Settings.Within travels in the context of Fetch and Watch, so that a kind that connects through newWeb or
// roundTrip has it without knowing of it. One with a dialer of its own asks outside.

type confinedKey struct{}

// confine returns ctx with the addresses that may be asked; none = any.
func confine(ctx context.Context, allowed []netip.Prefix) context.Context {
	if len(allowed) == 0 {
		return ctx
	}
	return context.WithValue(ctx, confinedKey{}, allowed)
}

// outside returns why ip may not be asked by whoever has ctx, or nil.
func outside(ctx context.Context, ip netip.Addr) error {
	allowed, _ := ctx.Value(confinedKey{}).([]netip.Prefix)
	ip = ip.WithZone("").Unmap()
	if len(allowed) == 0 || slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	return fail(ReasonRefused, fmt.Errorf("%s is refused: engine.discovery_allow does not have it", ip))
}
