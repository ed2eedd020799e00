package discovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Source says which backends there are. String names it, by kind and place and without secrets: it stands in status,
// history and logs, and a list saved to disk belongs to the source of the same name.
type Source interface {
	String() string
	// Fetch returns the whole list as it is now, or why there is none. An empty list without an error means that the
	// source answered and knows no backend. It returns soon after ctx is done. Never called twice at once.
	Fetch(ctx context.Context) (List, error)
}

// Watcher is a Source that tells by itself what changes. A Runner calls Watch and never Fetch.
type Watcher interface {
	Source
	// Watch calls report with the whole list as it is, and again whenever it has changed, until ctx is done or the source
	// cannot be followed any more, which it says by an error. Noticing a stream that has gone dead is Watch's duty.
	Watch(ctx context.Context, report func(List)) error
}

// Error is the failure of a fetch whose reason is worth counting and telling apart.
type Error struct {
	Reason string // one word of a closed list per kind: see Reasons
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Reasons that Error has and ReasonOf returns.
const (
	ReasonTimeout  = "timeout"  // no whole answer within Timeout
	ReasonDecode   = "decode"   // the answer is not what its format says
	ReasonTooLarge = "toolarge" // more bytes or more backends than allowed
	ReasonExit     = "exit"     // exec, and plugins of kubernetes: exit status other than 0, or killed by a signal
	ReasonStatus   = "status"   // by HTTP: any status but 200, and 304 where it was asked for; redis: an error
	ReasonRefused  = "refused"  // by HTTP and redis: an address, a redirect or a certificate that is not allowed
	ReasonNXDomain = "nxdomain" // dns, srv: there is no such name
	ReasonServFail = "servfail" // dns, srv: the resolver could not find out, or would not
	ReasonOther    = "other"
)

func fail(reason string, err error) error { return &Error{Reason: reason, Err: err} }

// ReasonOf returns the reason of a failed fetch.
func ReasonOf(err error) string {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return ReasonTimeout
	}
	return ReasonOther
}

// digest tells names of sources apart by what they do not show. It is 32 bits: too few to find a good secret by.
func digest(hidden ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(hidden, "\x00")))
	return hex.EncodeToString(sum[:4])
}
