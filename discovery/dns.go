package discovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// DNSOptions say which name to look up.
type DNSOptions struct {
	Name           string   // absolute, with or without a dot at the end; neither a search list nor /etc/hosts is used
	Port           uint16   // of all backends
	Family         Family   // Both: one that cannot be looked up fails both
	Servers        []string // IP addresses with or without a port, in the order in which they are asked; none = those of /etc/resolv.conf
	MinTTL, MaxTTL time.Duration
}

// host looks up the addresses of a name. It is asked again when the TTL of the answer is over, within MinTTL (default 5 s)
// and MaxTTL (default 5 min); that is so for answers without addresses too, if they say how long there are none.
type host struct {
	name     string // with its dot
	o        DNSOptions
	resolver *resolver
	bounds   bounds
}

// NewDNS returns a source that looks up A and AAAA records. That the name does not exist is an error (ReasonNXDomain), that
// it has no addresses is an empty list.
func NewDNS(o DNSOptions) (Source, error) {
	h, err := newHost(o)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	return h, nil
}

func newHost(o DNSOptions) (*host, error) {
	name, err := absolute(o.Name)
	switch {
	case err != nil:
		return nil, err
	case o.Port == 0:
		return nil, errors.New("port: got 0; want 1 to 65535")
	case o.Family > IPv6:
		return nil, fmt.Errorf("family: got %d; want both, ipv4 or ipv6", o.Family)
	}
	h := &host{name: name, o: o}
	if h.bounds, err = newBounds(o.MinTTL, o.MaxTTL); err != nil {
		return nil, err
	}
	h.resolver, err = newResolver(o.Servers)
	return h, err
}

func (h *host) String() string {
	return fmt.Sprintf("dns:%s:%d", strings.TrimSuffix(h.name, "."), h.o.Port) + [...]string{"", "/ipv4", "/ipv6"}[h.o.Family]
}

func (h *host) Fetch(ctx context.Context) (List, error) {
	ips, ttl, err := h.resolver.addresses(ctx, h.name, h.o.Family.kinds())
	if err != nil {
		return List{}, fmt.Errorf("dns: %w", err)
	}
	list := List{TTL: h.bounds.clamp(ttl)}
	for _, ip := range ips {
		a, err := addressOf(ip, h.o.Port)
		if err != nil {
			return List{}, fail(ReasonDecode, fmt.Errorf("dns: %s: %w", strings.TrimSuffix(h.name, "."), err))
		}
		list.Backends = append(list.Backends, Backend{Address: a, Weight: 1})
	}
	return list, nil
}
