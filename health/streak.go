package health

// streak turns results into a state. Only consecutive results count: one that agrees with the state forgets those against
// it.
//
//	            first result: good                  fall failures in a row
//	CHECKING ──────────────────────────▶ UP ◀──────────────────────────────▶ DOWN
//	    └────────────────────────────────────── bad ──▶ DOWN      rise successes in a row
type streak struct {
	rise, fall int // set once

	up       bool
	checking bool // there was no result yet, and the first decides alone; not up meanwhile
	run      int  // results in a row against the state
}

func newStreak(rise, fall int, initial string) streak {
	return streak{rise: rise, fall: fall, up: initial == "up", checking: initial == "checking"}
}

// add takes the next result and reports whether the state has changed.
func (s *streak) add(good bool) bool {
	if s.checking {
		s.checking, s.up, s.run = false, good, 0
		return true
	}
	if good == s.up {
		s.run = 0
		return false
	}
	need := s.fall
	if good {
		need = s.rise
	}
	if s.run++; s.run < need {
		return false
	}
	s.up, s.run = good, 0
	return true
}

// state names the state.
func (s *streak) state() string {
	switch {
	case s.checking:
		return "checking"
	case s.up:
		return "up"
	}
	return "down"
}
