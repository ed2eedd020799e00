package cli

import (
	"testing"

	"github.com/creack/pty"
)

// TestTerminalOutlived has a terminal go while nobody says so: it counts for a second, in which the signal may come.
func TestTerminalOutlived(t *testing.T) {
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	own := Terminal{fds: []int{int(tty.Fd())}}
	for range 3 {
		if own.Look(); own.Gone() {
			t.Fatal("gone, though it is open")
		}
	}
	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	if own.Look(); !own.Gone() {
		t.Error("not gone, though it has just been closed")
	}
	if own.Look(); own.Gone() || own.Is() {
		t.Error("it still counts, though nobody has said that it was closed")
	}
}
