package discovery

// guard holds back a list that is suddenly much shorter than the one in use, until it is confirmed. It is a pure state
// machine: no time, no goroutines.
//
//	    long enough: accept
//	   ┌──────────┐
//	   ▼          │
//	┌──────┐   too short: hold   ┌─────────┐  too short beside the held one: hold, count from 0
//	│ idle │────────────────────▶│ holding │─────┐
//	└──────┘◀────────────────────└─────────┘◀────┘
//	      long enough, or confirmed often enough, or release
type guard struct {
	// Set once.
	share     int  // percent of the list in use that a new one must reach; 0 = everything is taken
	confirm   int  // how many more lists must say the same before it is taken
	keepEmpty bool // an empty list is never taken in place of one that is not empty, however often it comes

	holding   bool
	held      []Backend
	confirmed int
}

// judge reports whether next may take the place of current. Both are normalised.
func (g *guard) judge(current, next []Backend) bool {
	switch {
	case len(current) == 0, !g.tooShort(current, next):
		g.release()
		return true
	case g.holding && !tooShort(g.held, next, g.share):
		g.held = next
		g.confirmed++
	default:
		g.holding, g.held, g.confirmed = true, next, 0
	}
	if g.confirmed < g.confirm || g.keepEmpty && len(next) == 0 {
		return false
	}
	g.release()
	return true
}

func (g *guard) tooShort(current, next []Backend) bool {
	return g.keepEmpty && len(next) == 0 || tooShort(current, next, g.share)
}

func tooShort(current, next []Backend, share int) bool {
	return len(next)*100 < len(current)*share
}

// release forgets what was held and returns it.
func (g *guard) release() []Backend {
	held := g.held
	g.holding, g.held, g.confirmed = false, nil, 0
	return held
}
