package balancer

// State is what is known of a backend beyond its configuration. A reload keeps it.
//
//	      SetState(Down)                 SetState(Drain)
//	Up ◀──────────────────▶ Down    Up, Down ──────────▶ Drain
//	      SetState(Up)                 ▲      ──────────▶ Maintenance
//	                                   └── Readmit ──────┘
//
// Up and Down are what checks find, Ejected what sessions met (outlier.go), Drain and Maintenance what somebody ordered, or
// the backend's agent did (weight.go). An order hides what checks find and does not stop them: Readmit brings back what they said last.
type State uint8

const (
	Up          State = iota
	Down              // no new sessions, unless too few of the pool are up: see config.Pool.PanicThreshold
	Drain             // no new sessions, but of clients that stick to it; those it has go on
	Maintenance       // no new sessions, by order; those it has go as config.Pool.OnMaintenance says
	Ejected           // as Down, for a time: it failed one client after the other
)

var stateNames = [...]string{"up", "down", "drain", "maintenance", "ejected"}

func (s State) String() string { return stateNames[s] }

// The bits of Backend.condition. 0 is Up.
const (
	isDown uint32 = 1 << iota
	isDraining
	isInMaintenance
	isEjected
	agentDrains
	agentMaintains
	ordered = isDraining | isInMaintenance
)

func stateOf(condition uint32) State {
	switch {
	case condition&(isInMaintenance|agentMaintains) != 0:
		return Maintenance
	case condition&(isDraining|agentDrains) != 0:
		return Drain
	case condition&isDown != 0:
		return Down
	case condition&isEjected != 0:
		return Ejected
	}
	return Up
}

// State returns the state of b. Safe from any goroutine; one atomic load.
func (b *Backend) State() State { return stateOf(b.condition.Load()) }

// IsDown reports whether checks found b down, whatever was ordered besides. Safe from any goroutine.
func (b *Backend) IsDown() bool { return b.condition.Load()&isDown != 0 }

// SetState changes the state of b and returns the one before. The next pick goes by it: nothing is built anew. A backend
// that becomes Up has slow start, where its pool has that. Safe from any goroutine; never blocks.
func (b *Backend) SetState(s State) (was State) {
	switch s {
	case Up:
		return b.change(isDown, 0)
	case Down:
		return b.change(isDown, isDown)
	case Drain:
		return b.change(ordered, isDraining)
	default:
		return b.change(ordered, isInMaintenance)
	}
}

// Readmit takes back the order to drain or to be in maintenance, and returns the state before. Safe from any goroutine.
func (b *Backend) Readmit() (was State) { return b.change(ordered, 0) }

// change sets the bits of mask to those of set, and returns the state before.
func (b *Backend) change(mask, set uint32) (was State) { return stateOf(b.exchange(mask, set)) }

// exchange is change that returns the bits before: one may hide another.
func (b *Backend) exchange(mask, set uint32) (was uint32) {
	for {
		old := b.condition.Load()
		next := old&^mask | set
		if next == 0 && old != 0 {
			b.startSlow() // before anybody can pick it
		}
		if b.condition.CompareAndSwap(old, next) {
			if next != old {
				b.live.states.Add(1)
				b.live.roomMade()
			}
			return old
		}
	}
}
