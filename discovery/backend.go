package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"awe4lb/config"
)

// Backend is one entry of a list: where a backend is, and what its source says about it. Ranges are those
// config.Backend; Check tells.
type Backend struct {
	Address        config.Address
	Weight         int    // 0 to 1000; 0 = no new sessions. Sources that say nothing mean 1
	Priority       int    // 0 to 255, the lowest tier serves
	MaxConnections int    // 0 = no limit
	Zone           string // where it stands, as the source calls it
	SNI            string // name to ask the backend for by TLS
	Labels         map[string]string
}

// List is what a source answers.
type List struct {
	Backends []Backend
	TTL      time.Duration // how long the source says this holds; 0 = it does not say, and the Runner's Interval counts
	Skipped  int           // entries that were left out because they make no sense; only decoders told to be Lenient do that
	Why      string        // what is wrong with the first of them
}

const (
	maxWeight   = 1000
	maxPriority = 255
	maxConns    = 1<<31 - 1
	maxText     = 253 // bytes of a zone, a name, a key or a value of a label
	maxLabels   = 64
)

// Check says what is wrong with b, or nil.
func (b *Backend) Check() error {
	switch {
	case !b.Address.IsValid():
		return errors.New("no address")
	case b.Weight < 0 || b.Weight > maxWeight:
		return fmt.Errorf("weight: got %d; want 0 to %d", b.Weight, maxWeight)
	case b.Priority < 0 || b.Priority > maxPriority:
		return fmt.Errorf("priority: got %d; want 0 to %d", b.Priority, maxPriority)
	case b.MaxConnections < 0 || b.MaxConnections > maxConns:
		return fmt.Errorf("max_connections: got %d; want 0 to %d", b.MaxConnections, maxConns)
	case len(b.Labels) > maxLabels:
		return fmt.Errorf("%d labels; want at most %d", len(b.Labels), maxLabels)
	}
	if err := checkText("zone", b.Zone); err != nil {
		return err
	}
	if err := checkText("sni", b.SNI); err != nil {
		return err
	}
	for k, v := range b.Labels {
		if err := errors.Join(checkText("label", k), checkText("label "+quote(k), v)); err != nil {
			return err
		}
	}
	return nil
}

// checkText keeps what a source says fit for logs, metrics and pages.
func checkText(what, s string) error {
	if len(s) > maxText {
		return fmt.Errorf("%s: %d bytes; want at most %d", what, len(s), maxText)
	}
	for _, c := range s {
		if !strconv.IsPrint(c) || c == '\uFFFD' {
			return fmt.Errorf("%s: got %s; want printable UTF-8", what, quote(s))
		}
	}
	return nil
}

// quote makes what a stranger wrote fit for an error: escaped, and cut.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

const addressWant = "an address such as 10.0.0.7:80 or [fd00::7]:80"

// parseAddress reads host:port as a list has it; host is an IP address, IPv6 in brackets, or localhost.
func parseAddress(s string) (config.Address, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return config.Address{}, fmt.Errorf("got %s; want %s", quote(s), addressWant)
	}
	host, port := s[:i], s[i+1:]
	inner, open := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if open != closed || open != strings.Contains(inner, ":") {
		return config.Address{}, fmt.Errorf("got %s; want %s", quote(s), addressWant)
	}
	return joinAddress(inner, port)
}

// joinAddress is parseAddress for a source that has the two apart; an IPv6 address may have brackets.
func joinAddress(host, port string) (config.Address, error) {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return config.Address{}, fmt.Errorf("host: got %s; want an IP address (names are looked up by the kinds dns and srv only)", quote(host))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return config.Address{}, fmt.Errorf("port: got %s; want 1 to 65535", quote(port))
	}
	return addressOf(ip, uint16(n))
}

// addressOf refuses what nobody can connect to.
func addressOf(ip netip.Addr, port uint16) (config.Address, error) {
	ip = ip.Unmap()
	zone := ip.Zone()
	switch {
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return config.Address{}, fmt.Errorf("got %s; want an address that can be connected to", ip)
	case len(zone) > 15 || strings.ContainsAny(zone, "/: []%") || checkText("zone", zone) != nil:
		return config.Address{}, fmt.Errorf("got %s; want the name of an interface behind %%", quote(ip.String()))
	}
	return config.Address{IP: netip.AddrPortFrom(ip, port)}, nil
}

// normalise returns list in the order of addresses, each address once: of several, the first in list is taken. list stays
// as it is.
func normalise(list []Backend) []Backend {
	all := slices.Clone(list)
	slices.SortStableFunc(all, func(a, b Backend) int {
		return cmp.Or(cmp.Compare(a.Address.Path, b.Address.Path), a.Address.IP.Compare(b.Address.IP))
	})
	return slices.CompactFunc(all, func(a, b Backend) bool { return a.Address == b.Address })
}

func sameBackend(a, b Backend) bool {
	return a.Address == b.Address && a.Weight == b.Weight && a.Priority == b.Priority && a.MaxConnections == b.MaxConnections &&
		a.Zone == b.Zone && a.SNI == b.SNI && maps.Equal(a.Labels, b.Labels)
}

// same compares two normalised lists.
func same(a, b []Backend) bool { return slices.EqualFunc(a, b, sameBackend) }

// merge puts lists together: where two have the same address, the earlier list is right. The result is normalised.
func merge(lists ...[]Backend) []Backend { return normalise(slices.Concat(lists...)) }

// difference counts what became of the backends of one normalised list in the next.
func difference(old, next []Backend) (added, removed, changed int) {
	was := make(map[config.Address]Backend, len(old))
	for _, b := range old {
		was[b.Address] = b
	}
	for _, b := range next {
		if o, ok := was[b.Address]; !ok {
			added++
		} else {
			if !sameBackend(o, b) {
				changed++
			}
			delete(was, b.Address)
		}
	}
	return added, len(was), changed
}
