package cli

import (
	"slices"

	"golang.org/x/term"
)

// Terminal is the terminal that the process was started on, by those of its standard streams that are one.
type Terminal struct{ fds []int }

// StartedOn returns the terminal of this process; it has no streams when there is none, as under systemd or after nohup.
func StartedOn() Terminal {
	return Terminal{slices.DeleteFunc([]int{0, 1, 2}, func(fd int) bool { return !term.IsTerminal(fd) })}
}

// Gone reports whether there was a terminal and it has been closed. The kernel sends SIGHUP when that happens, which is
// otherwise an order to reload.
func (t Terminal) Gone() bool {
	return len(t.fds) > 0 && !slices.ContainsFunc(t.fds, term.IsTerminal)
}
