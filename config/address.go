package config

import (
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// Address is one end to listen on or to connect to: an IP address with a port, or the path of a unix socket.
// The zero Address is invalid. Addresses are comparable and make good map keys.
type Address struct {
	IP   netip.AddrPort // valid unless Path is set; IPv4 is never written as IPv6
	Path string         // unix socket, absolute; "" for IP
}

// IsUnix reports whether a is the path of a unix socket.
func (a Address) IsUnix() bool { return a.Path != "" }

// IsValid reports whether a is an address at all.
func (a Address) IsValid() bool { return a.Path != "" || a.IP.IsValid() }

// String returns the address as the configuration writes it.
func (a Address) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.IP.String()
}

// maxUnixPath is what fits into sockaddr_un with its closing zero, see unix(7).
const maxUnixPath = 107

// complaint says what is wrong with a value, without repeating it.
type complaint struct {
	want string
	hint string // what to know
	fix  string // what to write instead, made of the value; not shown when that came from the environment
}

const (
	bindWant    = "an address such as 127.0.0.1:8080, [::1]:8080, :8080, 127.0.0.1:8000-8010 or unix:/path"
	adminWant   = "an address such as 127.0.0.1:7070, [::1]:7070, localhost:0 or unix:/path"
	backendWant = "an address such as 10.0.0.7:80, [fd00::7]:80, localhost:80 or unix:/path"
	portsWant   = "a port from 1 to 65535, a range such as 8000-8010, or 0 for any free one"
	portWant    = "a port from 1 to 65535"
	pathWant    = "an absolute path of at most 107 bytes, such as unix:/run/awe4lb/web.sock"
)

// binding is one entry of bind before it is expanded: hosts times ports, or a path.
type binding struct {
	hosts       []netip.Addr
	first, last uint16
	path        string
}

// size returns how many addresses b stands for.
func (b binding) size() int {
	if b.path != "" {
		return 1
	}
	return len(b.hosts) * (int(b.last) - int(b.first) + 1)
}

// addresses returns them, port by port.
func (b binding) addresses() []Address {
	if b.path != "" {
		return []Address{{Path: b.path}}
	}
	all := make([]Address, 0, b.size())
	for port := int(b.first); port <= int(b.last); port++ {
		for _, host := range b.hosts {
			all = append(all, addressOf(host, uint16(port)))
		}
	}
	return all
}

var (
	everyHost = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
)

// parseBind reads one entry of bind: host:port, [v6]:port, [v6%zone]:port, :port, *:port, localhost:port, each with one
// port, 0 or a range, or unix:/path.
func parseBind(s string) (binding, *complaint) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		p, c := parsePath(p)
		return binding{path: p}, c
	}
	host, port, c := splitPort(s, bindWant)
	if c != nil {
		return binding{}, c
	}
	var b binding
	switch host {
	case "", "*":
		b.hosts = everyHost
	case "localhost":
		b.hosts = loopbacks
	default:
		ip, c := parseHost(host, bindWant)
		if c != nil {
			if c.hint == nameHint {
				c.hint = `sockets are bound to IP addresses; "*" is every address`
			}
			return binding{}, c
		}
		b.hosts = []netip.Addr{ip}
	}
	low, high, isRange := strings.Cut(port, "-")
	if !isRange {
		high = low
	}
	var ok1, ok2 bool
	b.first, ok1 = parsePort(low)
	b.last, ok2 = parsePort(high)
	switch {
	case !ok1 || !ok2:
		return binding{}, &complaint{want: portsWant}
	case isRange && b.first == 0:
		return binding{}, &complaint{want: portsWant, hint: "a range cannot hold port 0"}
	case b.first > b.last:
		return binding{}, &complaint{want: portsWant, hint: "the range is upside down"}
	}
	return b, nil
}

// parseAdmin reads where the admin listens: as parseBind, but one address. "*" is [::], which takes IPv4 too.
func parseAdmin(s string) (Address, *complaint) {
	b, c := parseBind(s)
	if c != nil {
		if c.want == bindWant {
			c.want = adminWant
		}
		if strings.HasPrefix(c.fix, ":") {
			c.fix = "localhost" + c.fix
		}
		return Address{}, c
	}
	if b.path != "" {
		return Address{Path: b.path}, nil
	}
	if b.first != b.last {
		return Address{}, &complaint{want: "one port"}
	}
	host := b.hosts[0]
	if len(b.hosts) > 1 && host.IsUnspecified() {
		host = netip.IPv6Unspecified()
	}
	return addressOf(host, b.first), nil
}

const nameHint = "names are looked up by discovery, see pools.NAME.discovery"

// parseBackend reads where a backend is: ip:port, [v6]:port, [v6%zone]:port, localhost:port or unix:/path.
func parseBackend(s string) (Address, *complaint) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		p, c := parsePath(p)
		return Address{Path: p}, c
	}
	host, port, c := splitPort(s, backendWant)
	if c != nil {
		return Address{}, c
	}
	if host == "" || host == "*" {
		return Address{}, &complaint{want: backendWant, hint: "a backend is one address"}
	}
	ip := loopbacks[0]
	if host != "localhost" {
		if ip, c = parseHost(host, backendWant); c != nil {
			return Address{}, c
		}
	}
	if ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return Address{}, &complaint{want: backendWant, hint: "TCP cannot connect to an unspecified, multicast or broadcast address"}
	}
	n, ok := parsePort(port)
	if !ok || n == 0 {
		return Address{}, &complaint{want: portWant}
	}
	return addressOf(ip, n), nil
}

// splitPort cuts host:port; brackets around an IPv6 host are checked and stay, so that parseHost knows of them.
func splitPort(s, want string) (host, port string, c *complaint) {
	c = &complaint{want: want}
	if i := strings.Index(s, "://"); i >= 0 {
		c.fix = s[i+3:]
		return "", "", c
	}
	if strings.HasPrefix(s, "/") {
		c.fix = "unix:" + s
		return "", "", c
	}
	end := strings.LastIndexByte(s, ']')
	colon := strings.LastIndexByte(s, ':')
	switch {
	case s != "" && strings.Trim(s, "0123456789") == "":
		c.hint = "the IP address is missing"
		if want == bindWant {
			c.fix = ":" + s
		}
	case strings.HasPrefix(s, "[") && end < 0:
		c.hint = "a bracket is missing"
	case !strings.HasPrefix(s, "[") && strings.Count(s, ":") > 1:
		c.hint = "an IPv6 address goes in brackets, and the port after them"
	case colon < end || colon < 0:
		c.hint = "the port is missing"
	default:
		return s[:colon], s[colon+1:], nil
	}
	return "", "", c
}

// parseHost reads an IP address: IPv4 without brackets, IPv6 with them.
func parseHost(host, want string) (netip.Addr, *complaint) {
	inner, open := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	ip, err := netip.ParseAddr(inner)
	zone := ip.Zone()
	switch {
	case open != closed:
		return ip, &complaint{want: want, hint: "a bracket is missing"}
	case err != nil && strings.Trim(inner, ".0123456789") == "":
		return ip, &complaint{want: want, hint: "the IP address is not complete or out of range"}
	case err != nil && open:
		return ip, &complaint{want: want, hint: "what is in the brackets is not an IPv6 address"}
	case err != nil:
		return ip, &complaint{want: want, hint: nameHint}
	case open && ip.Is4():
		return ip, &complaint{want: want, hint: "brackets are for IPv6"}
	case len(zone) > 15 || strings.ContainsAny(zone, "/: []%"):
		return ip, &complaint{want: want, hint: "a zone is the name of an interface, at most 15 bytes"}
	case zone != "" && ip.Is4In6():
		return ip, &complaint{want: want, hint: "an IPv4 address has no zone"}
	case zone == "" && ip.Is6() && ip.IsLinkLocalUnicast():
		return ip, &complaint{want: want, hint: "a link-local address needs a zone, as in [fe80::1%eth0]:80"}
	}
	return ip.Unmap(), nil
}

func parsePort(s string) (uint16, bool) {
	if s == "" || len(s) > 5 || strings.Trim(s, "0123456789") != "" || s[0] == '0' && s != "0" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}

func parsePath(s string) (string, *complaint) {
	c := &complaint{want: pathWant}
	switch {
	case strings.HasPrefix(s, "@"):
		c.hint = "abstract sockets are not supported"
	case !strings.HasPrefix(s, "/") || len(s) > maxUnixPath:
	case path.Clean(s) != s || s == "/":
		if s = path.Clean(s); s != "/" {
			c.fix = "unix:" + s
		}
	default:
		return s, nil
	}
	return "", c
}

// parsePrefix reads a prefix or a single address, which is a prefix of full length.
func parsePrefix(s string) (netip.Prefix, *complaint) {
	c := &complaint{want: "a prefix such as 10.0.0.0/8 or fd00::/8, or an IP address"}
	var p netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if p, err = netip.ParsePrefix(s); err != nil {
			return p, c
		}
	} else {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return p, c
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return p, &complaint{want: "a prefix with no bits set after its length", fix: m.String()}
	}
	return p, nil
}

// parseSource reads an address to connect from.
func parseSource(s string) (netip.Addr, *complaint) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() || ip.Is4In6() && ip.Zone() != "" {
		return ip, &complaint{want: "an IP address of this machine, without a port"}
	}
	return ip.Unmap(), nil
}

// parseRemote reads an address to connect to, without a port.
func parseRemote(s string) (netip.Addr, *complaint) {
	ip, c := parseSource(s)
	if c != nil {
		c.want = "an IP address such as 10.0.0.7 or fd00::7, without a port"
	}
	return ip, c
}
