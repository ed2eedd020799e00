package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"
)

// screen is a terminal with awe4lb on it.
type screen struct {
	t      *testing.T
	cmd    *exec.Cmd
	keys   *os.File
	before *unix.Termios
	vt     vt10x.Terminal
	done   chan struct{} // closed when nothing more is written

	mu  sync.Mutex
	all bytes.Buffer // guarded by mu: what was written
}

// onTerminal starts awe4lb on a terminal of that size.
func onTerminal(t *testing.T, columns, rows uint16, env []string, args ...string) *screen {
	t.Helper()
	s := &screen{t: t, cmd: command(args...), vt: vt10x.New(vt10x.WithSize(int(columns), int(rows))), done: make(chan struct{})}
	s.cmd.Env = append(append(s.cmd.Env, "TERM=linux"), env...) // of which vt10x knows all that bubbletea sends
	f, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(f, &pty.Winsize{Cols: columns, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	s.keys = f
	s.before = s.modes()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	go func() {
		defer close(s.done)
		b := make([]byte, 1<<16)
		for {
			n, err := f.Read(b)
			s.mu.Lock()
			s.all.Write(b[:n])
			s.mu.Unlock()
			_, _ = s.vt.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		f.Close()
		<-s.done
		if t.Failed() {
			t.Logf("its screen:\n%s", s.vt.String())
		}
	})
	return s
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, keys); err != nil {
		s.t.Fatal(err)
	}
}

// wants waits until the screen has all parts.
func (s *screen) wants(parts ...string) {
	s.t.Helper()
	for _, part := range parts {
		lbtest.Eventually(s.t, "the screen has "+part, func() bool { return strings.Contains(s.vt.String(), part) })
	}
}

// wantsRow waits until the screen has a line that begins with some words.
func (s *screen) wantsRow(words ...string) {
	s.t.Helper()
	lbtest.Eventually(s.t, "the screen has a row "+strings.Join(words, " "), func() bool {
		for line := range strings.SplitSeq(s.vt.String(), "\n") {
			if f := strings.Fields(line); len(f) >= len(words) && strings.Join(f[:len(words)], " ") == strings.Join(words, " ") {
				return true
			}
		}
		return false
	})
}

// written is all that was written to the terminal.
func (s *screen) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// wantsEnd waits for the end, with a terminal as it was before.
func (s *screen) wantsEnd() {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("top ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		s.t.Fatal("top does not end")
	}
	if after := s.modes(); *after != *s.before {
		s.t.Errorf("the terminal is not as it was: %+v, %+v", s.before, after)
	}
	<-s.done
	text := s.written()
	for _, undone := range []struct{ on, off string }{{"\x1b[?1049h", "\x1b[?1049l"}, {"\x1b[?25l", "\x1b[?25h"}} {
		if on := strings.LastIndex(text, undone.on); on >= 0 && strings.LastIndex(text, undone.off) < on {
			s.t.Errorf("%q is not taken back", undone.on)
		}
	}
}

func (s *screen) modes() *unix.Termios {
	s.t.Helper()
	m, err := unix.IoctlGetTermios(int(s.keys.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// streamsOn starts awe4lb with its streams on a terminal that nobody else reads: a read under way would keep it open. own says
// whether the terminal is that of the process's session too. The process is killed after ten seconds, which ends each wait.
func streamsOn(t *testing.T, own bool, path string) (keys *os.File, cmd *exec.Cmd) {
	t.Helper()
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	cmd = command("run", "--config", path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: own}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	end := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		end.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return keys, cmd
}

// TestTerminalThatGoesEndsIt closes the terminal that awe4lb runs on, after a SIGHUP that was an order to reload.
func TestTerminalThatGoesEndsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb.toml")
	if err := os.WriteFile(path, []byte("[engine]\nshards = 1\n[admin]\nbind = \"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, cmd := streamsOn(t, true, path)
	lines := bufio.NewReader(keys)
	wants := func(part string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("want %q, got %v", part, err)
			}
			if strings.Contains(line, part) {
				return
			}
		}
	}
	wants("msg=ready")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	wants("msg=reloaded")
	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("without its terminal it ended with %v, want by itself", err)
	}
}

// TestTerminalOfOthersEndsNothing has streams on a terminal that is not the process's own, as after setsid(1): nobody says
// that it has been closed, so that the SIGHUP that comes later is an order to reload.
func TestTerminalOfOthersEndsNothing(t *testing.T) {
	dir := t.TempDir()
	path, log := filepath.Join(dir, "lb.toml"), filepath.Join(dir, "log")
	text := "[log]\noutput = \"" + log + "\"\n[engine]\nshards = 1\n[admin]\nbind = \"\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, cmd := streamsOn(t, false, path)
	logged := func(part string) {
		t.Helper()
		lbtest.Eventually(t, part+" is logged", func() bool {
			b, _ := os.ReadFile(log)
			return strings.Contains(string(b), part)
		})
	}
	logged("msg=ready")
	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	logged("msg=reloaded")
}
