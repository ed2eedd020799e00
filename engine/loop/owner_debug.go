//go:build race

package loop

import (
	"bytes"
	"fmt"
	"runtime"
)

// owner remembers which goroutine runs the loop. Before Run, anyone may set things up.
type owner struct{ id string }

func (o *owner) take() { o.id = goroutineID() }

// Assert panics when the caller is not the loop's goroutine. It costs about 1 us, so only -race builds have it.
func (l *Loop) Assert() {
	if l.owner.id == "" {
		return
	}
	if id := goroutineID(); id != l.owner.id {
		panic(fmt.Sprintf("loop: called from goroutine %s, owned by goroutine %s", id, l.owner.id))
	}
}

func goroutineID() string {
	var b [64]byte
	line := b[:runtime.Stack(b[:], false)] // "goroutine 18 [running]:…"
	return string(bytes.Fields(line)[1])
}
