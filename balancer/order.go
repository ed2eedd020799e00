package balancer

import (
	"errors"
	"fmt"
	"strconv"
)

// Order is what somebody wants of a backend, at run time.
type Order uint8

const (
	Admit    Order = iota // takes back the other two
	DrainIt               // no new sessions; those it has go on
	Maintain              // no new sessions; those it has go as config.Pool.OnMaintenance says
)

var orderNames = [...]string{"ready", "drain", "maintenance"}

func (o Order) String() string { return orderNames[o] }

// bits returns the bits of Backend.condition that o sets, of those that it is about.
func (o Order) bits() uint32 { return [...]uint32{0, isDraining, isInMaintenance}[o] }

// ParseOrder returns the order of that name: ready, drain or maintenance.
func ParseOrder(name string) (Order, error) {
	for i, n := range orderNames {
		if n == name {
			return Order(i), nil
		}
	}
	return 0, fmt.Errorf("got %q; want ready, drain or maintenance", name)
}

// What orders are refused for. They are wrapped with the name in question.
var (
	ErrNoPool    = errors.New("no such pool")
	ErrNoBackend = errors.New("the pool has no such backend")
	ErrWeight    = errors.New("a weight is from 0 to 1000")
)

// MaxWeight is the greatest weight that may be configured or ordered.
const MaxWeight = 1000

// orders are what was ordered of a backend. They hold until they are taken back, also while it is not configured.
type orders struct {
	order  Order
	weight int32 // plus 1; 0: none
}

// apply has b, which is new, obey.
func (o orders) apply(b *Backend) {
	b.change(ordered, o.order.bits())
	b.weightOrder.Store(o.weight)
}

// Order orders o of the backend at address, as text, in a pool; by says who does, for the history. It is in force when Order
// returns, for every pick from then on, and survives reloads. The error is ErrNoPool or ErrNoBackend. Safe from any
// goroutine; blocks while an Apply runs.
func (d *Director) Order(pool, address string, o Order, by string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, m, err := d.find(pool, address)
	if err != nil {
		return err
	}
	was := m.change(ordered, o.bits())
	d.keep(m.Backend, func(k *orders) { k.order = o })
	if is := m.State(); is != was {
		d.Record(Event{Pool: pool, Backend: m.Name, What: "order", From: was.String(), To: is.String(), Why: o.String(), By: by})
	}
	d.tell(m.Backend)
	return nil
}

// SetWeight gives the backend at address, as text, in a pool another weight than it is configured with, until ResetWeight: also
// over reloads. 0 is no new sessions. The error is ErrNoPool, ErrNoBackend or ErrWeight. Else it is as Order; it takes
// as long as making the pickers of the pool, 10 ms for the largest table of maglev.
func (d *Director) SetWeight(pool, address string, weight int, by string) error {
	if weight < 0 || weight > MaxWeight {
		return fmt.Errorf("%d: %w", weight, ErrWeight)
	}
	return d.orderWeight(pool, address, int32(weight+1), by)
}

// ResetWeight gives a backend back the weight that it is configured with. It is as SetWeight.
func (d *Director) ResetWeight(pool, address, by string) error {
	return d.orderWeight(pool, address, 0, by)
}

func (d *Director) orderWeight(pool, address string, order int32, by string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, m, err := d.find(pool, address)
	if err != nil {
		return err
	}
	was := m.Weight()
	m.weightOrder.Store(order)
	d.keep(m.Backend, func(k *orders) { k.weight = order })
	if is := m.Weight(); is != was {
		if was == 0 {
			m.startSlow()
		}
		p.arrange()
		d.Record(Event{Pool: pool, Backend: m.Name, What: "weight", From: strconv.Itoa(was), To: strconv.Itoa(is), By: by})
	}
	return nil
}

// find returns a pool and the member of it at an address, as text. d.mu is held.
func (d *Director) find(pool, address string) (*Pool, *Member, error) {
	p := d.current.Load().Pool(pool)
	if p == nil {
		return nil, nil, fmt.Errorf("%s: %w", pool, ErrNoPool)
	}
	for _, m := range p.Members {
		if m.Name == address {
			return p, m, nil
		}
	}
	return nil, nil, fmt.Errorf("%s/%s: %w", pool, address, ErrNoBackend)
}

// keep notes what was ordered of b, for as long as the order holds. Orders come from the operator, and so is their number
// his. d.mu is held.
func (d *Director) keep(b *Backend, change func(*orders)) {
	key := backendKey{b.Pool, b.Address}
	k := d.orders[key]
	if change(&k); k == (orders{}) {
		delete(d.orders, key)
		return
	}
	d.orders[key] = k
}

// tell has the plane act on what has happened to b. d.mu is held.
func (d *Director) tell(b *Backend) {
	if d.plane != nil {
		d.plane.BackendChanged(b)
	}
}

// Ordered returns what somebody ordered of b: Admit when nobody did. Safe from any goroutine.
func (b *Backend) Ordered() Order {
	switch c := b.condition.Load(); {
	case c&isInMaintenance != 0:
		return Maintain
	case c&isDraining != 0:
		return DrainIt
	}
	return Admit
}
