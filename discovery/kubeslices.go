package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// sliceService is the label by which a slice belongs to a service.
const sliceService = "kubernetes.io/service-name"

// sliceFamilies are the address types of slices that we can use.
var sliceFamilies = map[string]Family{"IPv4": IPv4, "IPv6": IPv6}

// kubeSlice is what we read of an EndpointSlice of discovery.k8s.io/v1.
type kubeSlice struct {
	Metadata    kubeMeta
	AddressType string // IPv4, IPv6 or FQDN
	Endpoints   []kubeEndpoint
	Ports       []kubePort
}

type kubeEndpoint struct {
	Addresses  []string // the first counts: the API says that they are fungible, and has one in fact
	Conditions struct{ Ready, Serving, Terminating *bool }
	NodeName   string
	Zone       string
	TargetRef  *struct{ Namespace, Name, UID string }
}

// kubePort is a port of a slice or of a service.
type kubePort struct {
	Name     string
	Protocol string // "" = TCP
	Port     *int   // of a slice, nil = any
	NodePort int    // of a service
}

func (p *kubePort) number() int {
	if p.Port == nil {
		return 0
	}
	return *p.Port
}

func (s *kubeSlice) meta() *kubeMeta { return &s.Metadata }

// How much an endpoint is worth, best first.
const (
	kubeReady    = iota
	kubeDraining // terminates, and still serves
	kubeLeaving  // terminates
	kubeUnready  // is not to be used
)

// condition is as the API has it: ready and serving that are not there mean true, terminating means false. A terminating
// endpoint is not ready, except where the service publishes those that are not ready: then it is said to be both.
func (e *kubeEndpoint) condition() int {
	is := func(b *bool, otherwise bool) bool {
		if b == nil {
			return otherwise
		}
		return *b
	}
	c := &e.Conditions
	ready := is(c.Ready, true)
	switch {
	case is(c.Terminating, false) && is(c.Serving, ready):
		return kubeDraining
	case is(c.Terminating, false):
		return kubeLeaving
	case ready:
		return kubeReady
	}
	return kubeUnready
}

// pod names what is behind an endpoint, the same in slices of both families; "" = it does not say.
func (e *kubeEndpoint) pod() string {
	if e.TargetRef == nil {
		return ""
	}
	return cmp.Or(e.TargetRef.UID, e.TargetRef.Namespace+"/"+e.TargetRef.Name)
}

// candidate is an endpoint or a node on its way into a list.
type candidate struct {
	Backend
	condition int
	pod       string
}

// endpoints makes a list of slices. While an endpoint moves from one slice to another it may be in both, and said to be
// different: the better one is believed.
func (k *kube) endpoints(all []*kubeSlice) List {
	slices.SortFunc(all, func(a, b *kubeSlice) int { return cmp.Compare(a.Metadata.key(), b.Metadata.key()) })
	var list List
	var found []candidate
	for _, s := range all {
		found = append(found, k.slice(&list, s)...)
	}
	list.Backends = choose(onceEach(found))
	return list
}

// slice returns the endpoints of one slice.
func (k *kube) slice(list *List, s *kubeSlice) []candidate {
	family, known := sliceFamilies[s.AddressType]
	if len(s.Endpoints) == 0 || known && k.o.Family != Both && k.o.Family != family {
		return nil
	}
	port, err := k.slicePort(s.Ports)
	if !known {
		err = fmt.Errorf("addresses of the type %s; want IPv4 or IPv6", quote(s.AddressType))
	}
	if err != nil {
		list.skip("slice "+quote(s.Metadata.Name), err)
		return nil
	}
	weight := s.Metadata.number(list, labelWeight, 1, maxWeight)
	priority := s.Metadata.number(list, labelPriority, 0, maxPriority)
	var found []candidate
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		c := candidate{Backend{Weight: weight, Priority: priority, Zone: e.Zone}, e.condition(), e.pod()}
		if c.condition == kubeUnready {
			continue
		}
		if err := e.fill(&c.Backend, port); err != nil {
			list.skip(fmt.Sprintf("slice %s: endpoint %d", quote(s.Metadata.Name), i), err)
			continue
		}
		found = append(found, c)
	}
	return found
}

// fill has the address of an endpoint in b, and who it is in its labels.
func (e *kubeEndpoint) fill(b *Backend, port uint16) error {
	if len(e.Addresses) == 0 {
		return errors.New("no address")
	}
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return fmt.Errorf("got %s; want an IP address", quote(e.Addresses[0]))
	}
	if b.Address, err = addressOf(ip, port); err != nil {
		return err
	}
	b.Labels = map[string]string{}
	if e.TargetRef != nil && e.TargetRef.Name != "" {
		b.Labels["pod"] = e.TargetRef.Name
	}
	if e.NodeName != "" {
		b.Labels["node"] = e.NodeName
	}
	return b.Check()
}

// slicePort returns the port of the options.
func (k *kube) slicePort(ports []kubePort) (uint16, error) {
	ours := k.ours(ports)
	for _, p := range ours {
		switch {
		case p.Port == nil && k.port != 0:
			return uint16(k.port), nil // any port: ours is one
		case p.Port != nil && *p.Port > 0 && *p.Port < 1<<16 && k.wanted(p.Name, *p.Port, len(ours)):
			return uint16(*p.Port), nil
		}
	}
	if len(ports) == 0 && k.port != 0 {
		return uint16(k.port), nil
	}
	return 0, k.noPort(ours)
}

// ours returns the ports of the protocol of the options.
func (k *kube) ours(ports []kubePort) []kubePort {
	return slices.DeleteFunc(slices.Clone(ports), func(p kubePort) bool { return cmp.Or(p.Protocol, "TCP") != k.protocol() })
}

func (k *kube) noPort(ours []kubePort) error {
	if k.o.Port == "" {
		return fmt.Errorf("has the %s ports %s; want one of them in port", k.protocol(), quote(kubePorts(ours)))
	}
	return fmt.Errorf("has the %s ports %s; want %s", k.protocol(), quote(kubePorts(ours)), k.o.Port)
}

// onceEach leaves out the IPv6 addresses of pods that have an IPv4 address too.
func onceEach(found []candidate) []candidate {
	four := map[string]bool{}
	for _, c := range found {
		if c.Address.IP.Addr().Is4() && c.pod != "" {
			four[c.pod] = true
		}
	}
	return slices.DeleteFunc(found, func(c candidate) bool { return c.Address.IP.Addr().Is6() && four[c.pod] })
}

// choose makes a list of what was found, the best of each address. What terminates gets no new sessions; only when nothing is
// ready, those do that still serve, as kube-proxy has it.
func choose(found []candidate) []Backend {
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.condition, b.condition) })
	var all []Backend
	for _, c := range found {
		if c.condition != kubeReady && (c.condition == kubeLeaving || found[0].condition == kubeReady) {
			c.Weight = 0
		}
		all = append(all, c.Backend)
	}
	return normalise(all)
}
