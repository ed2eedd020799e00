package admin

import (
	"slices"
	"sync"
	"time"
)

// How many calls are remembered: those of people known, of which the log has all, and those of strangers, who are turned away as
// often as they like and are not to push the others out. Of theirs the log has some.
const (
	maxAudit        = 512
	maxStrangers    = 128
	strangersLogged = 10 // a second
)

// auditEntry is a call that changed something, or tried to.
type auditEntry struct {
	Time   time.Time `json:"time"`
	Who    string    `json:"who" description:"how:name, such as cookie:ops"`
	From   string    `json:"from" description:"the client's address"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Status int       `json:"status"`
	Error  string    `json:"error,omitempty"`

	number int // of the call
}

type auditLog struct {
	Calls []auditEntry `json:"calls"`
}

// audits is the last calls.
type audits struct {
	// Guarded by mu.
	mu               sync.Mutex
	known, strangers auditRing
	second           int64 // of the last stranger, of Unix time
	inSecond         int   // strangers in it
	silent           int   // strangers since the last that was logged
	count            int
}

// auditRing is the last of some calls.
type auditRing struct {
	entries []auditEntry
	next    int // where the oldest is, once it is full
}

func (r *auditRing) add(e auditEntry, most int) {
	if len(r.entries) < most {
		r.entries = append(r.entries, e)
		return
	}
	r.entries[r.next] = e
	r.next = (r.next + 1) % most
}

// remember keeps a call, and returns whether it is to be logged, and how many before it were not.
func (a *audits) remember(e auditEntry, stranger bool) (logged bool, silent int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	e.number = a.count
	if !stranger {
		a.known.add(e, maxAudit)
		return true, 0
	}
	a.strangers.add(e, maxStrangers)
	if now := e.Time.Unix(); now != a.second {
		a.second, a.inSecond = now, 0
	}
	if a.inSecond++; a.inSecond > strangersLogged {
		a.silent++
		return false, 0
	}
	silent, a.silent = a.silent, 0
	return true, silent
}

// newest returns all calls, the newest first.
func (a *audits) newest() []auditEntry {
	a.mu.Lock()
	all := slices.Concat(a.known.entries, a.strangers.entries)
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y auditEntry) int { return y.number - x.number })
	return all
}

// audit remembers and logs a call that changed something, or tried to.
func (s *Server) audit(c *call, begun time.Time, err error) {
	e := auditEntry{Time: rounded(begun), Who: c.who.String(), From: c.RemoteAddr().String(), Method: string(c.Method()),
		Path: cutText(string(c.Path()), 256), Status: c.Response.StatusCode()}
	if e.Who == "" {
		e.Who = "unknown"
	}
	if err != nil {
		e.Error = cutText(err.Error(), 512)
	}
	logged, silent := s.audits.remember(e, err != nil && c.who.role == nobody)
	if !logged {
		return
	}
	more := []any{}
	if silent > 0 {
		more = append(more, "strangers_not_logged", silent)
	}
	s.o.Log.Info("admin: "+e.Method+" "+e.Path, append([]any{"who", e.Who, "from", e.From, "status", e.Status, "error", e.Error,
		"took", time.Since(begun).Round(time.Millisecond)}, more...)...)
}

func (s *Server) auditLog(*call) (any, error) { return auditLog{s.audits.newest()}, nil }
