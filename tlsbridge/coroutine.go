package tlsbridge

import (
	"fmt"
	"iter"
)

// coroutine is a handshake's own stack. crypto/tls cannot leave a handshake and come back, so the handshake runs on a
// stack that is put aside while it waits for the peer: 71 ns per switch, no scheduler involved. All but wait is for the
// worker, which makes every call: a coroutine that was made on a locked thread may be resumed on no other.
type coroutine struct {
	step  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	dead  bool // stopped: wait fails at once
	err   error
}

func (co *coroutine) started() bool { return co.step != nil }

// resume runs handshake until it waits or ends, and reports which. A panic in it ends it and is returned as an error:
// what a stranger sent may not end the process.
func (co *coroutine) resume(handshake func() error) (waiting bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			waiting, err = false, fmt.Errorf("panic: %v", p)
		}
	}()
	if co.step == nil {
		co.step, co.stop = iter.Pull(func(yield func(struct{}) bool) {
			co.yield = yield
			co.err = handshake()
		})
	}
	_, waiting = co.step()
	return waiting, co.err
}

// wait puts the handshake aside until it is resumed. It returns false when it is to end instead.
func (co *coroutine) wait() bool {
	if !co.dead && !co.yield(struct{}{}) {
		co.dead = true
	}
	return !co.dead
}

// free ends the handshake where it waits, and its stack with it.
func (co *coroutine) free() {
	defer func() { _ = recover() }() // as in resume; nobody asks for the reason any more
	if co.stop != nil {
		co.stop()
	}
}
