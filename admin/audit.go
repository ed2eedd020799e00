package admin

import (
	"sync"
	"time"
)

// maxAudit is the number of calls remembered; the log has all of them.
const maxAudit = 512

// auditEntry is a call that changed something, or tried to.
type auditEntry struct {
	Time   time.Time `json:"time"`
	Who    string    `json:"who" description:"how:name, such as cookie:ops"`
	From   string    `json:"from" description:"the client's address"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Status int       `json:"status"`
	Error  string    `json:"error,omitempty"`
}

type auditLog struct {
	Calls []auditEntry `json:"calls"`
}

// audits is a ring of the last calls.
type audits struct {
	mu      sync.Mutex
	entries []auditEntry // guarded by mu
	next    int          // guarded by mu: where the oldest is, once it is full
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
	s.o.Log.Info("admin: "+e.Method+" "+e.Path, "who", e.Who, "from", e.From, "status", e.Status, "error", e.Error,
		"took", time.Since(begun).Round(time.Millisecond))
	s.audits.mu.Lock()
	defer s.audits.mu.Unlock()
	if len(s.audits.entries) < maxAudit {
		s.audits.entries = append(s.audits.entries, e)
		return
	}
	s.audits.entries[s.audits.next] = e
	s.audits.next = (s.audits.next + 1) % maxAudit
}

func (s *Server) auditLog(*call) (any, error) {
	s.audits.mu.Lock()
	defer s.audits.mu.Unlock()
	n := len(s.audits.entries)
	out := auditLog{Calls: make([]auditEntry, 0, n)}
	for i := range n {
		out.Calls = append(out.Calls, s.audits.entries[(s.audits.next+n-1-i)%n])
	}
	return out, nil
}
