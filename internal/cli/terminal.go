package cli

import (
	"os"
	"slices"

	"golang.org/x/term"
)

// Terminal is the terminal that the process was started on, by those of its standard streams that are one.
type Terminal struct {
	fds  []int
	left bool // it had gone at the last look
}

// StartedOn returns the terminal of this process; it has no streams when there is none, as under systemd or after nohup, and
// when it is another session's, as after setsid: the kernel does not say then that it has gone.
func StartedOn() Terminal {
	own, err := os.OpenFile("/dev/tty", os.O_RDONLY, 0)
	if err != nil {
		return Terminal{}
	}
	_ = own.Close()
	return Terminal{fds: slices.DeleteFunc([]int{0, 1, 2}, func(fd int) bool { return !term.IsTerminal(fd) })}
}

// Is reports whether there is a terminal, or was one that counts.
func (t *Terminal) Is() bool { return len(t.fds) > 0 }

// Gone reports whether there was a terminal and it has been closed. The kernel sends SIGHUP when that happens, which is
// otherwise an order to reload.
func (t *Terminal) Gone() bool { return t.Is() && !slices.ContainsFunc(t.fds, term.IsTerminal) }

// Look is to be called every second. A terminal that went without a SIGHUP, as after disown, does not count from the second
// look on: a SIGHUP that comes later is an order.
func (t *Terminal) Look() {
	gone := t.Gone()
	if gone && t.left {
		t.fds = nil
	}
	t.left = gone
}
