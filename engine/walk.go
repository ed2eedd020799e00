package engine

import (
	"cmp"
	"context"

	"awe4lb/engine/loop"
)

// walk visits the sessions and flows of a shard, a slice of them at a time, so that whoever wants to see all of a million does
// not keep the others waiting. Sessions are visited in the order in which they began; those that begin meanwhile are not.
// Owned by the shard's goroutine.
type walk struct {
	// Set once, never changed. A visit that returns false ends the walk. It may end whom it visits.
	sh      *shard
	session func(*session) bool // nil: sessions are passed over
	flow    func(*flow) bool    // nil: flows are
	done    func()
	slice   int // how many are visited before others have their turn; 0 is walkSlice

	at    *session // to be visited next; nil: no session is left
	until int64    // those that began later are not visited
	next  uint32   // flow to be visited next
	turn  loop.Timer

	other *walk // on the shard's list
}

// walkSlice is how many are visited before others have their turn: 50 us or so.
const walkSlice = 1024

// start begins w, whose functions are set; from is the first flow to be visited. It runs on the loop.
func (w *walk) start(sh *shard, from uint32) {
	w.sh, w.at, w.until, w.next = sh, sh.sessions.next, sh.stamped, from
	if w.session == nil {
		w.at = nil
	}
	w.turn.Handle(w)
	w.other, sh.walks = sh.walks, w
	w.Expire()
}

// Expire is called by the loop when the others have had their turn.
func (w *walk) Expire() {
	more := true
	for left := cmp.Or(w.slice, walkSlice); more && left > 0; left-- {
		switch s := w.at; {
		case s == nil:
			more = w.visitFlow()
		case s == &w.sh.sessions || s.started > w.until:
			w.at = nil
		default:
			w.at = s.next
			more = w.session(s)
		}
	}
	if more {
		w.sh.loop.Yield(&w.turn)
		return
	}
	for link := &w.sh.walks; *link != nil; link = &(*link).other {
		if *link == w {
			*link = w.other
			break
		}
	}
	w.done()
}

// visitFlow visits the next flow, and reports whether there may be another.
func (w *walk) visitFlow() bool {
	fl := w.sh.flows
	if w.flow == nil || fl == nil || int(w.next>>flowChunkBits) >= len(fl.table.chunks) {
		return false
	}
	f := fl.table.at(w.next)
	w.next++
	if f.target == 0 { // nobody is there
		return true
	}
	fl.wake()
	return w.flow(f)
}

// passOver keeps w from visiting s, which is about to leave the list.
func (sh *shard) passOver(s *session) {
	for w := sh.walks; w != nil; w = w.other {
		if w.at == s {
			w.at = s.next
		}
	}
}

// run walks over the sessions and flows of sh and waits for the end, or for that of ctx. Not for the loop's own goroutine.
func (w *walk) run(ctx context.Context, sh *shard, from uint32) error {
	done := make(chan struct{})
	w.done = func() { close(done) }
	sh.loop.Post(func() { w.start(sh, from) })
	select {
	case <-done:
		return nil
	case <-sh.loop.Ended():
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}
