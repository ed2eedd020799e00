package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolver asks DNS servers, one after the other, for what the kinds dns and srv need. It keeps nothing: how long an answer
// holds is the Runner's business, by the TTL.
type resolver struct {
	servers []netip.AddrPort // in this order; none = those of conf, read each time
	conf    string           // resolv.conf
}

const (
	dnsRounds = 2    // how often each server is asked before we give up
	dnsUDP    = 1232 // bytes of an answer by UDP that pass everywhere, dnsflagday.net/2020
	maxAlias  = 16   // CNAMEs in a row
)

// newResolver checks the servers: IP addresses with or without a port.
func newResolver(servers []string) (*resolver, error) {
	r := &resolver{conf: "/etc/resolv.conf"}
	for _, s := range servers {
		a, err := parseServer(s, "53")
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, a)
	}
	return r, nil
}

func parseServer(s, port string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(s); err == nil && a.Port() != 0 {
		return a, nil
	}
	if a, err := netip.ParseAddrPort(net.JoinHostPort(s, port)); err == nil {
		return a, nil
	}
	return netip.AddrPort{}, fmt.Errorf("servers: got %s; want an IP address such as 10.0.0.53, with or without a port", quote(s))
}

func (r *resolver) list() ([]netip.AddrPort, error) {
	if len(r.servers) > 0 {
		return r.servers, nil
	}
	conf, err := dns.ClientConfigFromFile(r.conf)
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := parseServer(s, conf.Port); err == nil {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s names no server", r.conf)
	}
	return all, nil
}

// ask returns the answer to one question: one with records, or one without. That there is no such name is an error of
// ReasonNXDomain, which is believed of the first server that says so; when no server gives an answer, it is one of
// ReasonServFail, or of ReasonTimeout if none said anything. Each attempt has its share of the time that ctx leaves.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	servers, err := r.list()
	if err != nil {
		return nil, err
	}
	left := dnsRounds * len(servers)
	var last error
	for range dnsRounds {
		for _, s := range servers {
			one, cancel := share(ctx, left)
			left--
			m, err := r.exchange(one, s, name, kind)
			cancel()
			if err == nil {
				err = r.judge(m, name, kind)
			}
			switch {
			case err == nil:
				return m, nil
			case ctx.Err() != nil:
				return nil, errors.Join(ctx.Err(), last)
			case ReasonOf(err) == ReasonNXDomain:
				return nil, err
			}
			if last == nil || ReasonOf(err) == ReasonServFail {
				last = fail(ReasonOf(err), fmt.Errorf("%s: %w", s, err)) // what a server said counts more than silence
			}
		}
	}
	return nil, last
}

// share gives one of several attempts its part of the time that is left.
func share(ctx context.Context, attempts int) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, 5*time.Second)
	}
	return context.WithTimeout(ctx, time.Until(end)/time.Duration(attempts))
}

// judge tells an answer from a refusal.
func (r *resolver) judge(m *dns.Msg, name string, kind uint16) error {
	what := fmt.Sprintf("%s %s", strings.TrimSuffix(name, "."), dns.TypeToString[kind])
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return fail(ReasonNXDomain, fmt.Errorf("%s: there is no such name (NXDOMAIN)", what))
	default:
		return fail(ReasonServFail, fmt.Errorf("%s: %s", what, rcode(m.Rcode)))
	}
	if len(m.Answer) == 0 && !m.Authoritative && soaOf(m) == nil && slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS }) {
		return fail(ReasonServFail, fmt.Errorf("%s: a referral; want a server that resolves", what))
	}
	return nil
}

func rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", code)
}

// exchange asks one server by UDP, and by TCP if the answer does not fit, without EDNS if the server does not know it.
func (r *resolver) exchange(ctx context.Context, server netip.AddrPort, name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(dnsUDP, false)
	m, err := roundTrip(ctx, "udp", server, q)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		q.Extra = nil
		q.Id = dns.Id()
		m, err = roundTrip(ctx, "udp", server, q)
	}
	if err == nil && m.Truncated {
		q.Id = dns.Id()
		m, err = roundTrip(ctx, "tcp", server, q)
		if err == nil && m.Truncated {
			err = fail(ReasonServFail, errors.New("the answer is cut short by TCP too"))
		}
	}
	return m, err
}

// roundTrip sends q and waits for its answer. By UDP, what is no answer to q is not listened to.
func roundTrip(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	if err := outside(ctx, server.Addr()); err != nil {
		return nil, err
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	c := &dns.Conn{Conn: raw, UDPSize: dns.MaxMsgSize} // some send more than they were asked to
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.WriteMsg(q); err != nil {
		return nil, contextError(ctx, err)
	}
	for {
		m, err := c.ReadMsg()
		if err != nil {
			var n net.Error
			switch {
			case ctx.Err() != nil:
				return nil, contextError(ctx, err)
			case errors.As(err, &n) || network == "tcp":
				return nil, err
			case m == nil || m.Id != q.Id:
				continue
			}
			return nil, fail(ReasonDecode, fmt.Errorf("a malformed answer: %w", err))
		}
		if m.Id == q.Id && m.Response && len(m.Question) == 1 && m.Question[0].Qtype == q.Question[0].Qtype &&
			m.Question[0].Qclass == dns.ClassINET && strings.EqualFold(m.Question[0].Name, q.Question[0].Name) {
			return m, nil
		}
		if m.Id == q.Id && m.Response && len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
			return m, nil // some leave the question out of a refusal
		}
		if network == "tcp" {
			return nil, fail(ReasonDecode, errors.New("an answer to something else"))
		}
	}
}

func contextError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// soaOf returns the record that says how long there is nothing.
func soaOf(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if s, ok := rr.(*dns.SOA); ok {
			return s
		}
	}
	return nil
}

// records returns those of an answer that belong to name, through its aliases, and for how long they hold, aliases
// included. Of none, it is how long there are none, or 0 when the server does not say.
func records(m *dns.Msg, name string, kind uint16) ([]dns.RR, time.Duration) {
	ttl := uint32(1<<31 - 1)
	for range maxAlias {
		i := slices.IndexFunc(m.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && strings.EqualFold(rr.Header().Name, name)
		})
		if i < 0 {
			break
		}
		ttl = min(ttl, m.Answer[i].Header().Ttl)
		name = m.Answer[i].(*dns.CNAME).Target
	}
	var found []dns.RR
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Rrtype == kind && h.Class == dns.ClassINET && strings.EqualFold(h.Name, name) {
			found = append(found, rr)
			ttl = min(ttl, h.Ttl)
		}
	}
	if len(found) == 0 {
		s := soaOf(m)
		if s == nil {
			return nil, 0
		}
		ttl = min(ttl, s.Hdr.Ttl, s.Minttl)
	}
	return found, known(ttl)
}

// known is the time of a record. One that holds for no time at all is not one of which it is not known.
func known(ttl uint32) time.Duration { return max(time.Duration(ttl)*time.Second, time.Nanosecond) }

// addressIn returns the address of an A or AAAA record.
func addressIn(rr dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// Family says which addresses a name is looked up for.
type Family uint8

const (
	Both Family = iota
	IPv4
	IPv6
)

func (f Family) kinds() []uint16 {
	return [][]uint16{{dns.TypeA, dns.TypeAAAA}, {dns.TypeA}, {dns.TypeAAAA}}[f]
}

// addresses looks a name up for all kinds at once. If one lookup fails all do: half the addresses would be a list that
// shrinks and grows with the weather.
func (r *resolver) addresses(ctx context.Context, name string, kinds []uint16) ([]netip.Addr, time.Duration, error) {
	var wg sync.WaitGroup
	found, ttls, errs := make([][]dns.RR, len(kinds)), make([]time.Duration, len(kinds)), make([]error, len(kinds))
	for i, kind := range kinds {
		wg.Go(func() {
			m, err := r.ask(ctx, name, kind)
			if err != nil {
				errs[i] = err
				return
			}
			found[i], ttls[i] = records(m, name, kind)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, 0, err
		}
	}
	var all []netip.Addr
	for _, rr := range slices.Concat(found...) {
		if ip, ok := addressIn(rr); ok {
			all = append(all, ip)
		}
	}
	return all, shortest(ttls...), nil
}

// shortest returns the shortest of the times that are known, 0 if none is.
func shortest(all ...time.Duration) time.Duration {
	var least time.Duration
	for _, d := range all {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}

// bounds keeps what servers say about time within reason.
type bounds struct{ floor, ceiling time.Duration }

const (
	defaultMinTTL = 5 * time.Second
	defaultMaxTTL = 5 * time.Minute
)

func newBounds(floor, ceiling time.Duration) (bounds, error) {
	if floor == 0 {
		floor = defaultMinTTL
	}
	if ceiling == 0 {
		ceiling = max(defaultMaxTTL, floor)
	}
	if floor < 100*time.Millisecond || ceiling < floor {
		return bounds{}, fmt.Errorf("min_ttl, max_ttl: got %v and %v; want 100ms or more, and the second not shorter", floor, ceiling)
	}
	return bounds{floor, ceiling}, nil
}

func (b bounds) clamp(ttl time.Duration) time.Duration { return min(max(ttl, b.floor), b.ceiling) }

// absolute checks a name and returns it with its dot. There is no search list: what is meant is what is written.
func absolute(name string) (string, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return "", fmt.Errorf("name: got %q; want a name, an address needs no looking up", name)
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "." || checkText("name", name) != nil || strings.ContainsAny(name, " \\") {
		return "", fmt.Errorf("name: got %s; want a DNS name such as web.internal", quote(name))
	}
	return dns.Fqdn(name), nil
}
