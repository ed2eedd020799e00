package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// SRVOptions say which service to look up.
type SRVOptions struct {
	Name           string // _service._proto.name, absolute
	Family         Family
	Servers        []string // as in DNSOptions
	MinTTL, MaxTTL time.Duration
}

// service looks up SRV records (RFC 2782) and the addresses of their targets: those in the additional section, and where
// that has none of a family, by asking.
type service struct {
	name     string // with its dot
	o        SRVOptions
	resolver *resolver
	bounds   bounds
}

const (
	maxTargets = 256 // of one name; more is an error
	maxLookups = 8   // at once
)

// NewSRV returns a source that looks up SRV records. Each address of a target is a backend with the port of its record,
// the record's weight and priority as scale has them, and the target as SNI. A target that does not exist is left out and
// counted; one that cannot be looked up fails the fetch.
func NewSRV(o SRVOptions) (Source, error) {
	name, err := absolute(o.Name)
	if err == nil && o.Family > IPv6 {
		err = fmt.Errorf("family: got %d; want both, ipv4 or ipv6", o.Family)
	}
	s := &service{name: name, o: o}
	if err == nil {
		s.bounds, err = newBounds(o.MinTTL, o.MaxTTL)
	}
	if err == nil {
		s.resolver, err = newResolver(o.Servers)
	}
	if err != nil {
		return nil, fmt.Errorf("srv: %w", err)
	}
	return s, nil
}

func (s *service) String() string {
	return "srv:" + strings.TrimSuffix(s.name, ".") + [...]string{"", "/ipv4", "/ipv6"}[s.o.Family]
}

func (s *service) Fetch(ctx context.Context) (List, error) {
	list, err := s.fetch(ctx)
	if err != nil {
		return List{}, fmt.Errorf("srv: %w", err)
	}
	return list, nil
}

// lookup is one target and what it led to.
type lookup struct {
	target string
	ips    []netip.Addr
	ttl    time.Duration
	err    error
}

func (s *service) fetch(ctx context.Context) (List, error) {
	m, err := s.resolver.ask(ctx, s.name, dns.TypeSRV)
	if err != nil {
		return List{}, err
	}
	rrs, ttl := records(m, s.name, dns.TypeSRV)
	srvs := inOrder(rrs)
	targets := targetsOf(srvs)
	if len(targets) > maxTargets {
		return List{}, fail(ReasonTooLarge, fmt.Errorf("%d targets; want at most %d", len(targets), maxTargets))
	}
	found := s.lookUp(ctx, m, targets)
	list := List{}
	ttls := []time.Duration{ttl}
	for _, l := range found {
		if ttls = append(ttls, l.ttl); l.err == nil {
			continue
		}
		if ReasonOf(l.err) != ReasonNXDomain {
			return List{}, l.err
		}
		if list.Skipped++; list.Why == "" {
			list.Why = clip(l.err.Error())
		}
	}
	if len(targets) > 0 && list.Skipped == len(targets) {
		return List{}, fail(ReasonNXDomain, fmt.Errorf("no target exists: %s", list.Why))
	}
	list.TTL = s.bounds.clamp(shortest(ttls...))
	weights, priorities := scale(srvs)
	for i, srv := range srvs {
		l := found[strings.ToLower(srv.Target)]
		for _, ip := range l.ips {
			a, err := addressOf(ip, srv.Port)
			if err == nil && srv.Port == 0 {
				err = errors.New("port: got 0; want 1 to 65535")
			}
			if err != nil {
				return List{}, fail(ReasonDecode, fmt.Errorf("%s: %w", quote(srv.Target), err))
			}
			list.Backends = append(list.Backends, Backend{
				Address: a, Weight: weights[i], Priority: priorities[i], SNI: strings.ToLower(strings.TrimSuffix(srv.Target, ".")),
			})
		}
	}
	return list, nil
}

// inOrder returns the records in an order that does not depend on how the server turned them: of two that lead to the same
// address, the better one is first and counts. A target of "." says that there is no such service (RFC 2782).
func inOrder(rrs []dns.RR) []*dns.SRV {
	var all []*dns.SRV
	for _, rr := range rrs {
		if srv, ok := rr.(*dns.SRV); ok && srv.Target != "." {
			all = append(all, srv)
		}
	}
	slices.SortFunc(all, func(a, b *dns.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Weight, a.Weight),
			cmp.Compare(strings.ToLower(a.Target), strings.ToLower(b.Target)), cmp.Compare(a.Port, b.Port))
	})
	return all
}

func targetsOf(srvs []*dns.SRV) []string {
	var all []string
	for _, srv := range srvs {
		all = append(all, strings.ToLower(srv.Target))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// lookUp finds the addresses of all targets, some at once.
func (s *service) lookUp(ctx context.Context, m *dns.Msg, targets []string) map[string]*lookup {
	found := make(map[string]*lookup, len(targets))
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxLookups)
	for _, target := range targets {
		l := &lookup{target: target}
		found[target] = l
		missing := l.additional(m, s.o.Family.kinds())
		if len(missing) == 0 {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ips, ttl, err := s.resolver.addresses(ctx, target, missing)
			l.ips, l.ttl, l.err = append(l.ips, ips...), shortest(l.ttl, ttl), err
		})
	}
	wg.Wait()
	return found
}

// additional takes what came with the answer, and returns the kinds of which nothing did: that may be because there is
// nothing, or because it did not fit.
func (l *lookup) additional(m *dns.Msg, kinds []uint16) (missing []uint16) {
	for _, kind := range kinds {
		any := false
		for _, rr := range m.Extra {
			h := rr.Header()
			if h.Rrtype != kind || h.Class != dns.ClassINET || !strings.EqualFold(h.Name, l.target) {
				continue
			}
			if ip, ok := addressIn(rr); ok {
				any = true
				l.ips = append(l.ips, ip)
				l.ttl = shortest(l.ttl, known(h.Ttl))
			}
		}
		if !any {
			missing = append(missing, kind)
		}
	}
	return missing
}

// scale puts weights and priorities, each 0 to 65535, into our ranges.
//
// Weights stay as they are if none is above 1000, and otherwise keep their proportions. In SRV a weight of 0 means a small
// share, and here none at all: it becomes 1. Priorities stay as they are if none is above 255, and otherwise become their
// ranks, since only their order means something; ranks above 255 share the last tier.
func scale(srvs []*dns.SRV) (weights, priorities []int) {
	heaviest, ranks := 0, []int{}
	for _, srv := range srvs {
		heaviest = max(heaviest, int(srv.Weight))
		ranks = append(ranks, int(srv.Priority))
	}
	slices.Sort(ranks)
	ranks = slices.Compact(ranks)
	for _, srv := range srvs {
		w, p := int(srv.Weight), int(srv.Priority)
		if heaviest > maxWeight {
			w = w * maxWeight / heaviest
		}
		if ranks[len(ranks)-1] > maxPriority {
			p, _ = slices.BinarySearch(ranks, p)
		}
		weights, priorities = append(weights, max(w, 1)), append(priorities, min(p, maxPriority))
	}
	return weights, priorities
}
