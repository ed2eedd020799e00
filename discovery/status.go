package discovery

import "time"

// State of a source: see the package comment.
type State uint8

const (
	Waiting  State = iota // no answer yet, and no list of an earlier time
	Restored              // no answer yet; the list is of an earlier time
	Fresh                 // the last answer is in use
	Holding               // the last answer is held back; the list before it is in use
	Failing               // the last fetch failed; by the fail policy the list before it is in use, or none
	Stale                 // no answer for MaxAge: no list is in use
)

func (s State) String() string {
	return [...]string{"waiting", "restored", "fresh", "holding", "failing", "stale"}[s]
}

// Counters of a source, since the Runner was made.
type Counters struct {
	Changed   uint64 // answers that were taken and differ from the list before
	Unchanged uint64 // answers that were the list in use
	Held      uint64 // answers that were held back
	Failed    map[string]uint64
	Skipped   uint64 // entries left out of answers
	Stale     uint64 // times that a list went because of its age
}

// SourceStatus is how a source is.
type SourceStatus struct {
	Name      string
	State     State
	Since     time.Time // of State
	Backends  int       // in use from this source
	Held      int       // backends of the list that is held back, while Holding
	Confirmed int       // how often it was confirmed
	Good      time.Time // when the source last said what is in use; zero = never
	Tried     time.Time // when its last answer or failure came; zero = never
	Failures  int       // in a row
	Error     string    // of the last fetch that failed; "" once one has not
	Reason    string    // of that error
	Skipped   string    // what was wrong with the first entry left out of the last answer
	Counters  Counters
}

// Age returns how long ago the source last said what is in use, or -1 when it never did.
func (s *SourceStatus) Age(now time.Time) time.Duration {
	if s.Good.IsZero() {
		return -1
	}
	return max(now.Sub(s.Good), 0)
}

// Status is how a Runner is.
type Status struct {
	Pool      string
	Backends  int // in the list last reported, static ones among them
	Static    int
	Changes   uint64 // lists reported
	Changed   time.Time
	Saved     time.Time
	SaveError string // why the last attempt to read or write it failed
	Sources   []SourceStatus
	History   []Event // oldest first, at most 64
}

// What of an Event.
const (
	EventChange    = "change"    // a list was reported
	EventHeld      = "held"      // a list was held back
	EventReleased  = "released"  // Accept put a held list into use
	EventFailing   = "failing"   // a source began to fail, or fails in another way
	EventRecovered = "recovered" // it answers again
	EventStale     = "stale"     // a list went because of its age
	EventRestored  = "restored"  // a list of an earlier time is in use
	EventSave      = "save"      // the file of lists could not be read or written
)

// Event is one entry of the history.
type Event struct {
	Time                            time.Time
	What                            string
	Source                          string // "" = the pool as a whole
	Detail                          string
	Added, Removed, Altered, Length int // EventChange: what became of backends; EventHeld, EventRestored: Length of that list
}

const maxHistory = 64

// history is a ring of the last events.
type history struct {
	events []Event
	next   int // where the oldest is, once it is full
}

func (h *history) add(e Event) {
	if len(h.events) < maxHistory {
		h.events = append(h.events, e)
		return
	}
	h.events[h.next] = e
	h.next = (h.next + 1) % maxHistory
}

func (h *history) all() []Event {
	return append(append(make([]Event, 0, len(h.events)), h.events[h.next:]...), h.events[:h.next]...)
}
