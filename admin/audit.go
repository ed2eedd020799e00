package admin

import (
	"slices"
	"sync"
	"time"
)

// How many calls are remembered: those that people may make, of which the log has all, those that they may not, and those of
// strangers. Who is turned away is so as often as he likes, and is not to push the others out; of that the log has some.
const (
	maxAudit      = 512
	maxRefused    = 128
	maxStrangers  = 128
	refusedLogged = 10 // a second, strangers among them
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
	mu       sync.Mutex
	allowed  auditRing // what somebody may call, whatever came of it
	refused  auditRing // to people known
	strange  auditRing // refused to strangers
	second   int64     // of the last that was refused, of Unix time
	inSecond int       // refused in it
	silent   int       // refused since the last that was logged
	count    int
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
func (a *audits) remember(e auditEntry, refused, stranger bool) (logged bool, silent int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	e.number = a.count
	switch {
	case stranger:
		a.strange.add(e, maxStrangers)
	case refused:
		a.refused.add(e, maxRefused)
	default:
		a.allowed.add(e, maxAudit)
		return true, 0
	}
	if now := e.Time.Unix(); now != a.second {
		a.second, a.inSecond = now, 0
	}
	if a.inSecond++; a.inSecond > refusedLogged {
		a.silent++
		return false, 0
	}
	silent, a.silent = a.silent, 0
	return true, silent
}

// newest returns all calls, the newest first.
func (a *audits) newest() []auditEntry {
	a.mu.Lock()
	all := slices.Concat(a.allowed.entries, a.refused.entries, a.strange.entries)
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y auditEntry) int { return y.number - x.number })
	return all
}

// audit remembers and logs a call that changed something, or tried to. A dry run does neither: an editor makes one with each pause
// of who types, and they would push out what was changed. The level debug has them. One that is refused for want of credentials
// or of a role never became one: its handler was not asked.
func (s *Server) audit(c *call, needs role, begun time.Time, err error) {
	e := auditEntry{Time: rounded(begun), Who: c.who.String(), From: c.RemoteAddr().String(), Method: string(c.Method()),
		Path: cutText(string(c.Path()), 256), Status: c.Response.StatusCode()}
	if c.QueryArgs().GetBool("dry_run") {
		e.Path += "?dry_run=true"
	}
	if e.Who == "" {
		e.Who = "unknown"
	}
	if err != nil {
		e.Error = cutText(err.Error(), 512)
	}
	if c.dryRun {
		s.o.Log.Debug("admin: "+e.Method+" "+e.Path, e.logged(begun)...)
		return
	}
	logged, silent := s.audits.remember(e, err != nil && c.who.role < needs, err != nil && c.who.role == nobody)
	if !logged {
		return
	}
	line := e.logged(begun)
	if silent > 0 {
		line = append(line, "refused_not_logged", silent)
	}
	s.o.Log.Info("admin: "+e.Method+" "+e.Path, line...)
}

// logged is what a line of the log says of a call.
func (e *auditEntry) logged(begun time.Time) []any {
	return []any{"who", e.Who, "from", e.From, "status", e.Status, "error", e.Error, "took", time.Since(begun).Round(time.Millisecond)}
}

func (s *Server) auditLog(*call) (any, error) { return auditLog{s.audits.newest()}, nil }
