package discovery

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// kubeService is what we read of a Service.
type kubeService struct {
	Metadata kubeMeta
	Spec     struct {
		Type                  string
		Ports                 []kubePort
		ExternalTrafficPolicy string // Local = a node serves only by endpoints of its own
	}
}

// kubeNode is what we read of a Node.
type kubeNode struct {
	Metadata kubeMeta
	Spec     struct {
		Taints []struct{ Key string }
	}
	Status struct {
		Addresses  []struct{ Type, Address string }
		Conditions []struct{ Type, Status string }
	}
}

func (s *kubeService) meta() *kubeMeta { return &s.Metadata }
func (n *kubeNode) meta() *kubeMeta    { return &n.Metadata }

// Well-known names, https://kubernetes.io/docs/reference/labels-annotations-taints/.
const (
	labelZone    = "topology.kubernetes.io/zone"
	labelExclude = "node.kubernetes.io/exclude-from-external-load-balancers"
	taintDeleted = "ToBeDeletedByClusterAutoscaler"
)

// nodePorts makes a list of nodes at the node ports of services.
func (k *kube) nodePorts(services []*kubeService, nodes []*kubeNode, all []*kubeSlice) List {
	slices.SortFunc(services, func(a, b *kubeService) int { return cmp.Compare(a.Metadata.key(), b.Metadata.key()) })
	slices.SortFunc(nodes, func(a, b *kubeNode) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
	var list List
	var found []candidate
	for _, s := range services {
		port, err := k.nodePort(s)
		if err != nil {
			list.skip("service "+quote(s.Metadata.Name), err)
			continue
		}
		var local map[string]*[kubeUnready]int
		if s.Spec.ExternalTrafficPolicy == "Local" {
			local = k.perNode(all, s)
		}
		weight := s.Metadata.number(&list, labelWeight, 1, maxWeight)
		priority := s.Metadata.number(&list, labelPriority, 0, maxPriority)
		for _, n := range nodes {
			c := candidate{Backend: Backend{Weight: weight, Priority: priority, Zone: n.Metadata.Labels[labelZone]}, condition: n.condition()}
			c.Weight = min(maxWeight, c.Weight*n.Metadata.number(&list, labelWeight, 1, maxWeight))
			if local != nil {
				c.share(local[n.Metadata.Name])
			}
			if c.condition == kubeUnready {
				continue
			}
			if err := k.fillNode(&c.Backend, n, port); err != nil {
				list.skip("node "+quote(n.Metadata.Name), err)
				continue
			}
			found = append(found, c)
		}
	}
	list.Backends = choose(found)
	return list
}

// nodePort returns the node port of the port of the options.
func (k *kube) nodePort(s *kubeService) (uint16, error) {
	if t := s.Spec.Type; t != "NodePort" && t != "LoadBalancer" {
		return 0, fmt.Errorf("is of the type %s; want NodePort or LoadBalancer", quote(t))
	}
	ours := k.ours(s.Spec.Ports)
	for _, p := range ours {
		if !k.wanted(p.Name, p.number(), len(ours)) {
			continue
		}
		if p.NodePort <= 0 || p.NodePort >= 1<<16 {
			return 0, fmt.Errorf("port %s has no node port", kubePorts([]kubePort{p}))
		}
		return uint16(p.NodePort), nil
	}
	return 0, k.noPort(ours)
}

// perNode counts the endpoints of a service on each node, by condition. A pod in slices of both families counts once.
func (k *kube) perNode(all []*kubeSlice, service *kubeService) map[string]*[kubeUnready]int {
	nodes := map[string]*[kubeUnready]int{}
	seen := map[string]bool{}
	for _, s := range all {
		if s.Metadata.Namespace != service.Metadata.Namespace || s.Metadata.Labels[sliceService] != service.Metadata.Name {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			who := e.pod()
			if who == "" && len(e.Addresses) > 0 {
				who = e.Addresses[0]
			}
			c := e.condition()
			if c == kubeUnready || e.NodeName == "" || seen[who] {
				continue
			}
			seen[who] = true
			if nodes[e.NodeName] == nil {
				nodes[e.NodeName] = new([kubeUnready]int)
			}
			nodes[e.NodeName][c]++
		}
	}
	return nodes
}

// share weights a node by its endpoints, the best of them; a node without any is not to be used. kube-proxy has those that
// terminate serve when a node has no others.
func (c *candidate) share(endpoints *[kubeUnready]int) {
	if endpoints == nil {
		c.condition = kubeUnready
		return
	}
	for condition, n := range endpoints {
		if n > 0 {
			c.condition = max(c.condition, condition)
			c.Weight = min(maxWeight, c.Weight*n)
			return
		}
	}
}

// condition of a node: to be used when it is ready, to be left when it is about to go.
func (n *kubeNode) condition() int {
	if _, ok := n.Metadata.Labels[labelExclude]; ok {
		return kubeUnready
	}
	for _, c := range n.Status.Conditions {
		if c.Type != "Ready" || c.Status != "True" {
			continue
		}
		for _, t := range n.Spec.Taints {
			if t.Key == taintDeleted {
				return kubeDraining
			}
		}
		if n.Metadata.DeletionTimestamp != nil {
			return kubeDraining
		}
		return kubeReady
	}
	return kubeUnready
}

// fillNode has in b the first address of the wanted kind and family.
func (k *kube) fillNode(b *Backend, n *kubeNode, port uint16) error {
	for _, a := range n.Status.Addresses {
		if a.Type != k.o.NodeAddress {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		if err != nil {
			return fmt.Errorf("got %s; want an IP address", quote(a.Address))
		}
		if !k.o.Family.has(ip) {
			continue
		}
		if b.Address, err = addressOf(ip, port); err != nil {
			return err
		}
		b.Labels = map[string]string{"node": n.Metadata.Name}
		return b.Check()
	}
	return fmt.Errorf("has no address of the type %s and the family", k.o.NodeAddress)
}
