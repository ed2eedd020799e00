package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// dockerContainer is what we read of an element of /containers/json.
type dockerContainer struct {
	ID              string `json:"Id"`
	Names           []string
	State, Status   string
	Labels          map[string]string
	Ports           []dockerPort
	HostConfig      struct{ NetworkMode string }
	NetworkSettings struct{ Networks map[string]*dockerNetwork }
}

type dockerPort struct {
	IP                      string
	PrivatePort, PublicPort uint16
	Type                    string
}

type dockerNetwork struct{ IPAddress, GlobalIPv6Address string }

func decodeContainers(b []byte) ([]dockerContainer, error) {
	var all []dockerContainer
	if err := unmarshal(b, &all); err != nil {
		return nil, err
	}
	if !isArray(b) {
		return nil, fail(ReasonDecode, errors.New("got null; want an array of containers"))
	}
	return all, nil
}

// askHosts reads HostEnv of containers that are new, and forgets it of those that are gone.
func (d *docker) askHosts(ctx context.Context, all []dockerContainer) error {
	if d.o.HostEnv == "" {
		return nil
	}
	hosts := make(map[string]string, len(all))
	for i := range all {
		id := all[i].ID
		v, ok := d.hosts[id]
		if !ok {
			b, err := d.api.get(ctx, d.version+"/containers/"+url.PathEscape(id)+"/json", nil)
			if isStatus(err, http.StatusNotFound) {
				continue // it has just gone
			}
			if err != nil {
				return err
			}
			if v, err = decodeEnv(b, d.o.HostEnv); err != nil {
				return err
			}
		}
		hosts[id] = v
	}
	d.hosts = hosts
	return nil
}

func decodeEnv(b []byte, name string) (string, error) {
	var c struct{ Config struct{ Env []string } }
	if err := unmarshal(b, &c); err != nil {
		return "", err
	}
	for _, e := range c.Config.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v, nil
		}
	}
	return "", nil
}

func (d *docker) backends(all []dockerContainer) List {
	var list List
	for i := range all {
		c := &all[i]
		if c.State != "" && c.State != "running" || !d.o.Unhealthy && c.ailing() {
			continue
		}
		if err := d.backend(&list, c); err != nil {
			list.skip("container "+quote(c.name()), err)
		}
	}
	return list
}

func (c *dockerContainer) name() string {
	for _, n := range c.Names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") { // not what a link calls it
			return n
		}
	}
	return c.ID[:min(len(c.ID), 12)]
}

// ailing reads what the daemon says to people: "Up 3 minutes (unhealthy)".
func (c *dockerContainer) ailing() bool {
	return strings.HasSuffix(c.Status, "(unhealthy)") || strings.HasSuffix(c.Status, "(health: starting)") || strings.HasSuffix(c.Status, "(starting)")
}

// backend adds what a container is to us, which is one backend for each of its ports.
func (d *docker) backend(list *List, c *dockerContainer) error {
	l, err := readLabels(c.Labels, labelPrefix, "network")
	if err != nil || l.off {
		return err
	}
	if l.SNI == "" && d.o.SNILabel != "" {
		l.SNI = c.Labels[d.o.SNILabel]
	}
	l.tag("container", c.name())
	ports, err := d.ports(c, l.ports)
	if err != nil {
		return err
	}
	var where []netip.AddrPort
	switch {
	case d.o.Published:
		where, err = d.published(c, ports)
	case c.HostConfig.NetworkMode == "host":
		where, err = d.onHost(c, ports)
	default:
		where, err = d.onNetwork(c, ports, l.place)
	}
	if err != nil {
		return err
	}
	for _, w := range where {
		b := l.Backend
		if b.Address, err = addressOf(w.Addr(), w.Port()); err != nil {
			return err
		}
		list.add("container "+quote(c.name()), b)
	}
	return nil
}

// ports returns those of the container that count, at least one.
func (d *docker) ports(c *dockerContainer, said []uint16) ([]uint16, error) {
	switch {
	case len(said) > 0:
		return said, nil
	case d.o.Port > 0:
		return []uint16{uint16(d.o.Port)}, nil
	}
	var exposed []uint16
	for _, p := range c.Ports {
		if d.kind(p) && !slices.Contains(exposed, p.PrivatePort) {
			exposed = append(exposed, p.PrivatePort)
		}
	}
	if len(exposed) != 1 || exposed[0] == 0 {
		return nil, errNoPort
	}
	return exposed, nil
}

func (d *docker) kind(p dockerPort) bool {
	if d.o.UDP {
		return p.Type == "udp"
	}
	return p.Type == "tcp" || p.Type == ""
}

// onNetwork is where a container is on one of its networks.
func (d *docker) onNetwork(c *dockerContainer, ports []uint16, name string) ([]netip.AddrPort, error) {
	if name == "" {
		name = d.o.Network
	}
	networks := c.NetworkSettings.Networks
	names := slices.Sorted(maps.Keys(networks))
	switch {
	case name != "":
	case len(names) == 1:
		name = names[0]
	default:
		return nil, fmt.Errorf("it is on %d networks (%s); want network, or a label %snetwork", len(names), clip(strconv.QuoteToASCII(strings.Join(names, ", "))), labelPrefix)
	}
	n := networks[name]
	if n == nil {
		return nil, fmt.Errorf("it is not on the network %s", quote(name))
	}
	address := n.IPAddress
	if d.o.IPv6 || address == "" {
		address = n.GlobalIPv6Address
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil, fmt.Errorf("on the network %s it has the address %s; want an IP address", quote(name), quote(address))
	}
	return each(ip, ports), nil
}

func each(ip netip.Addr, ports []uint16) []netip.AddrPort {
	var all []netip.AddrPort
	for _, p := range ports {
		all = append(all, netip.AddrPortFrom(ip, p))
	}
	return all
}

// onHost is where a container is that has the host's network.
func (d *docker) onHost(c *dockerContainer, ports []uint16) ([]netip.AddrPort, error) {
	host, err := d.hostOf(c)
	if err != nil {
		return nil, err
	}
	return each(host, ports), nil
}

// hostOf returns the address of the host as the container or the options have it.
func (d *docker) hostOf(c *dockerContainer) (netip.Addr, error) {
	if said := d.hosts[c.ID]; said != "" {
		ip, err := netip.ParseAddr(said)
		if err != nil {
			return ip, fmt.Errorf("its variable %s: got %s; want an IP address", d.o.HostEnv, quote(said))
		}
		return ip, nil
	}
	if !d.host.IsValid() {
		return d.host, errors.New("the address of the daemon's host is not known; want host in the configuration")
	}
	return d.host, nil
}

// published is where the ports of a container are on the host: the address they are published on, or, for those published
// on all, that of the host. Docker says the latter twice, for IPv4 and IPv6.
func (d *docker) published(c *dockerContainer, ports []uint16) ([]netip.AddrPort, error) {
	if c.HostConfig.NetworkMode == "host" {
		return d.onHost(c, ports)
	}
	var all []netip.AddrPort
	for _, p := range c.Ports {
		if p.PublicPort == 0 || !d.kind(p) || !slices.Contains(ports, p.PrivatePort) {
			continue
		}
		ip, err := netip.ParseAddr(p.IP)
		if p.IP != "" && err != nil {
			return nil, fmt.Errorf("port %d is published on %s; want an IP address", p.PrivatePort, quote(p.IP))
		}
		if d.hosts[c.ID] != "" || !ip.IsValid() || ip.IsUnspecified() {
			if ip, err = d.hostOf(c); err != nil {
				return nil, err
			}
		}
		if a := netip.AddrPortFrom(ip, p.PublicPort); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("it publishes none of the ports %v", ports)
	}
	return all, nil
}
