package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
)

// lxdInstance is what we read of an element of /1.0/instances.
type lxdInstance struct {
	Name, Status, Project, Location string
	Expanded                        map[string]string `json:"expanded_config"` // with that of its profiles
}

// lxdState is what we read of /1.0/instances/NAME/state. Network is null unless it runs.
type lxdState struct {
	Status  string
	Network map[string]struct {
		Addresses []struct{ Family, Address, Scope string }
	}
}

func (l *lxd) instances(ctx context.Context) (List, bool, error) {
	query := l.query(l.o.Project)
	query.Set("recursion", "1")
	var all []lxdInstance
	if err := l.metadata(ctx, "/1.0/instances", query, &all); err != nil {
		return List{}, false, err
	}
	all = slices.DeleteFunc(all, func(i lxdInstance) bool { return !l.meant(&i) })
	states, err := l.states(ctx, all)
	if err != nil {
		return List{}, false, err
	}
	return l.backends(all, states)
}

func (l *lxd) meant(i *lxdInstance) bool {
	v, ok := i.Expanded[l.o.Key]
	return (i.Status == "Running" || i.lost()) && (l.o.Key == "" || ok && (l.o.Value == "" || v == l.o.Value))
}

// lost reports whether the server does not know how an instance is, because the member of the cluster that has it does not
// answer. The instance may be well: only its daemon may be down.
func (i *lxdInstance) lost() bool { return i.Status == "Error" }

// states asks for the states of instances, a few at once. One that has gone meanwhile has nil.
func (l *lxd) states(ctx context.Context, all []lxdInstance) ([]*lxdState, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	states, next := make([]*lxdState, len(all)), make(chan int)
	var askers sync.WaitGroup
	for range min(lxdAtOnce, len(all)) {
		askers.Go(func() {
			for n := range next {
				if all[n].lost() {
					continue
				}
				var s lxdState
				err := l.metadata(ctx, "/1.0/instances/"+url.PathEscape(all[n].Name)+"/state", l.query(all[n].Project), &s)
				switch {
				case err == nil:
					states[n] = &s
				case !isStatus(err, http.StatusNotFound):
					cancel(err) // the first is the cause
				}
			}
		})
	}
	for n := range all {
		next <- n
	}
	close(next)
	askers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return states, nil
}

var errNoAddress = errors.New("it has no address yet")

// backends returns the list; ready is false while an instance has no address.
func (l *lxd) backends(all []lxdInstance, states []*lxdState) (list List, ready bool, err error) {
	ready = true
	known := make(map[string][]Backend, len(all))
	for n := range all {
		i, s := &all[n], states[n]
		id := i.Project + "/" + i.Name
		switch {
		case i.lost():
			known[id] = l.known[id]
			list.Backends = append(list.Backends, known[id]...)
			continue
		case s == nil || s.Status != "Running": // it has ended since it was listed
			continue
		case s.Network == nil:
			return List{}, false, fail(ReasonDecode, fmt.Errorf("instance %s: the state of one that runs says nothing of its network", quote(i.Name)))
		}
		before := len(list.Backends)
		if err := l.backend(&list, i, s); err != nil {
			ready = ready && !errors.Is(err, errNoAddress)
			list.skip("instance "+quote(i.Name), err)
		}
		known[id] = slices.Clone(list.Backends[before:])
	}
	l.known = known
	return list, ready, nil
}

// backend adds what an instance is to us, which is one backend for each of its ports.
func (l *lxd) backend(list *List, i *lxdInstance, s *lxdState) error {
	b, err := readLabels(i.Expanded, lxdPrefix, "interface")
	if err != nil || b.off {
		return err
	}
	if b.SNI == "" && l.o.SNIKey != "" {
		b.SNI = i.Expanded[l.o.SNIKey]
	}
	if b.place == "" && l.o.InterfaceKey != "" {
		b.place = i.Expanded[l.o.InterfaceKey]
	}
	if b.place == "" {
		b.place = l.o.Interface
	}
	if v := i.Expanded[l.o.PortKey]; b.ports == nil && l.o.PortKey != "" && v != "" {
		if b.ports, err = parsePorts(v); err != nil {
			return fmt.Errorf("%s: %w", l.o.PortKey, err)
		}
	}
	if b.ports == nil {
		if l.o.Port == 0 {
			return errors.New("no port is said; want a key " + lxdPrefix + "port, or port in the configuration")
		}
		b.ports = []uint16{uint16(l.o.Port)}
	}
	ip, err := l.address(s, b.place)
	if err != nil {
		return err
	}
	if b.Zone == "" && i.Location != "none" {
		b.Zone = i.Location // the member of a cluster; servers that are alone say none
	}
	b.tag("instance", i.Name)
	if l.o.Project == "*" {
		b.tag("project", i.Project)
	}
	for _, p := range b.ports {
		one := b.Backend
		if one.Address, err = addressOf(ip, p); err != nil {
			return err
		}
		list.add("instance "+quote(i.Name), one)
	}
	return nil
}

// address returns the first address of the wanted family on an interface; not a link-local one, which reaches nobody here.
func (l *lxd) address(s *lxdState, place string) (netip.Addr, error) {
	family := "inet"
	if l.o.IPv6 {
		family = "inet6"
	}
	for _, a := range s.Network[place].Addresses {
		if a.Family != family || a.Scope != "global" {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		if err != nil {
			return ip, fmt.Errorf("on %s it has the address %s; want an IP address", quote(place), quote(a.Address))
		}
		return ip, nil
	}
	return netip.Addr{}, fmt.Errorf("%s, %s: %w", quote(place), family, errNoAddress)
}
