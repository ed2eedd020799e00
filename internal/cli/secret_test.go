package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

type writes func(p []byte)

func (w writes) Write(p []byte) (int, error) { w(p); return len(p), nil }

// TestNothingOfASecretShows has the terminal show nothing of what is typed from the first question to the last answer, also by
// who types before a question is there to be read, and all again afterwards.
func TestNothingOfASecretShows(t *testing.T) {
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer tty.Close()
	shows := func() bool {
		m, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return m.Lflag&unix.ECHO != 0
	}
	if !shows() {
		t.Fatal("it shows nothing even before")
	}
	var asked strings.Builder
	out := writes(func(p []byte) {
		if shows() {
			t.Errorf("%q is written while the terminal shows what is typed", p)
		}
		asked.Write(p)
		if strings.HasSuffix(asked.String(), "1: ") {
			if _, err := io.WriteString(keys, "correct\nhorse\n"); err != nil { // the second answer comes before its question
				t.Error(err)
			}
		}
	})
	said, err := askSecrets(tty, out, "1: ", "2: ")
	if err != nil || len(said) != 2 || said[0] != "correct" || said[1] != "horse" || asked.String() != "1: \r\n2: \r\n" {
		t.Errorf("asked %q, got %q, %v", asked.String(), said, err)
	}
	if !shows() {
		t.Error("it shows nothing afterwards")
	}
}
