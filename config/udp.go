package config

import (
	"fmt"
	"net/netip"
	"strconv"
)

// What a frontend's protocol asks for, and the rules of [frontends.NAME.udp].

// checkProtocol refuses the keys of the other protocol, and checks the table of udp.
func (d *decoder) checkProtocol(f *Frontend) {
	if !f.IsUDP() {
		if p, ok := d.places[&f.UDP]; ok && !d.places[&f.Protocol].bad {
			d.fail(p, Error{Problem: "is for datagrams, and this frontend speaks " + f.Protocol, Hint: `write protocol = "udp"`})
		}
		return
	}
	for _, key := range []struct {
		field any
		hint  string
	}{
		{&f.MaxConnections, "udp.max_flows bounds the flows"},
		{&f.MaxConnectionsPerSource, "udp.max_flows_per_source bounds the flows of a source"},
		{&f.ConnectionRate, "udp.new_flow_rate bounds new flows"},
		{&f.ConnectionBurst, ""},
		{&f.ConnectionRatePerSource, "udp.new_flow_rate bounds new flows of a source"},
		{&f.ConnectionBurstPerSource, ""},
		{&f.SourcePrefixV4, "datagrams have udp.new_flow_prefix_v4"},
		{&f.SourcePrefixV6, "datagrams have udp.new_flow_prefix_v6"},
		{&f.UnixMode, ""},
		{&f.IdleTimeout, "datagrams have udp.idle_timeout"},
		{&f.HalfCloseTimeout, ""},
		{&f.MaxLifetime, ""},
		{&f.TCP, ""},
		{&f.TLS, "TLS is for connections; QUIC goes through unopened"},
		{&f.HelloTimeout, ""},
		{&f.MaxHandshakes, "udp.new_flow_rate bounds new flows"},
		{&f.MaxHandshakesPerPrefix, "udp.new_flow_rate bounds new flows"},
		{&f.UnknownName, ""},
		{&f.STARTTLS, ""},
		{&f.ACMEChallenges, ""},
	} {
		if p, ok := d.places[key.field]; ok {
			d.fail(p, Error{Problem: "is for connections, and this frontend speaks udp", Hint: key.hint})
		}
	}
	d.checkUDP(&f.UDP)
}

func (d *decoder) checkUDP(u *UDP) {
	if p, ok := d.places[&u.Replies]; ok && !u.Replies && u.Mode == "flow" {
		d.fail(p, Error{Got: "false", Want: `true, or mode = "datagram"`, Hint: "a flow is there to bring answers back"})
	}
	if p, ok := d.places[&u.MaxRequests]; ok && u.MaxRequests > 0 && u.Mode == "datagram" {
		d.fail(p, Error{Problem: `has no meaning in mode "datagram", which balances each datagram anyway`})
	}
	if p, ok := d.places[&u.MaxFlowsPerSource]; ok && u.MaxFlowsPerSource > u.MaxFlows {
		d.fail(p, Error{Got: strconv.Itoa(u.MaxFlowsPerSource), Want: fmt.Sprintf("at most max_flows, which is %d", u.MaxFlows)})
	}
	if u.GRO && (u.MaxRequests > 0 || u.MaxResponses > 0) {
		if p, ok := d.places[&u.GRO]; ok {
			d.fail(p, Error{Problem: "cannot be together with max_requests or max_responses: datagrams that are taken together cannot be counted off one by one"})
		}
	}
	if u.UnrepliedTimeout > u.IdleTimeout {
		if p, ok := d.places[&u.UnrepliedTimeout]; ok {
			d.fail(p, Error{Got: p.got(), Want: "at most idle_timeout, which is " + shortDuration(int64(u.IdleTimeout))})
		}
		u.UnrepliedTimeout = u.IdleTimeout
	}
	d.checkSharedSource(u)
}

// A shared_source smaller than this holds too few flows to be meant.
const minSharedBits = 8

func (d *decoder) checkSharedSource(u *UDP) {
	p, ok := d.places[&u.SharedSource]
	if !ok || len(u.SharedSource) == 0 {
		return
	}
	if u.Transparent {
		d.fail(p, Error{Problem: "cannot be together with transparent: a backend sees either the client's address or one of these"})
	}
	var first [2]place // by family: IPv4, IPv6
	for i, prefix := range u.SharedSource {
		at := d.places[&u.SharedSource[i]]
		if !prefix.IsValid() {
			continue // told already
		}
		if ip := prefix.Addr(); prefix.Addr().BitLen()-prefix.Bits() < minSharedBits || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
			d.refuse(at, complaint{want: "a unicast prefix of at most 24 bits (IPv4) or 120 bits (IPv6), such as 10.200.0.0/16 or fd00:200::/64"})
			continue
		}
		family := &first[0]
		if prefix.Addr().Is6() {
			family = &first[1]
		}
		if family.path != "" {
			d.fail(at, Error{Got: at.got(), Want: "one prefix for each of IPv4 and IPv6", Hint: family.path + " is of the same family"})
			continue
		}
		*family = at
	}
}

// checkDatagramPools refuses pools with unix sockets: datagrams cannot go there.
func (d *decoder) checkDatagramPools(f *Frontend) {
	check := func(name *string) {
		at, ok := d.places[name]
		pool := d.cfg.Pool(*name)
		if !ok || at.bad || pool == nil {
			return
		}
		if pool.TLS != nil {
			d.fail(at, Error{Got: at.got(), Want: "a pool without TLS", Hint: d.places[&pool.TLS].path + " is there, and datagrams go as they are"})
			return
		}
		if pool.SendProxy == "v1" {
			d.fail(at, Error{Got: at.got(), Want: `a pool with send_proxy = "v2" or "off"`, Hint: d.places[&pool.SendProxy].path + " is \"v1\", which cannot tell of datagrams"})
			return
		}
		if first := &pool.SendProxyDatagrams; *first == "first" && f.UDP.Mode == "datagram" && !f.UDP.Replies {
			d.fail(at, Error{Got: at.got(), Want: `a pool with send_proxy_datagrams = "every"`, Hint: d.places[first].path + " is \"first\", and without replies there is no flow to be the first of"})
			return
		}
		if pool.HashesName() {
			d.warn(at, "datagrams have no name to hash: clients go by their addresses", "")
		}
		for _, b := range pool.Backends {
			if b.Address.IsUnix() {
				d.fail(at, Error{Got: at.got(), Want: "a pool of IP addresses", Hint: d.places[&b.Address].path + " is " + b.Address.String() + ", where datagrams cannot go"})
				return
			}
		}
	}
	check(&f.Pool)
	for _, r := range f.Routes {
		check(&r.Pool)
	}
}

// SharedSourceFor returns the prefix of shared_source for flows to backends of ip's family.
func (u *UDP) SharedSourceFor(ip netip.Addr) (netip.Prefix, bool) {
	for _, p := range u.SharedSource {
		if p.Addr().Is4() == ip.Is4() {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
