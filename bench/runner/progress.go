package runner

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// Progress shows which step runs and how long the rest takes: one line that rewrites itself on a terminal, else a plain
// line whenever the step's group changes. Owned by one goroutine.
type Progress struct {
	out      io.Writer
	terminal bool
	width    int

	total   time.Duration // estimate of all steps
	done    time.Duration // estimate of those that are over
	steps   int
	current int
	began   time.Time
	group   string
	now     func() time.Time
}

// NewProgress returns a progress line on out.
func NewProgress(out io.Writer) *Progress {
	p := &Progress{out: out, now: time.Now, width: 100}
	if f, ok := out.(*os.File); ok {
		p.terminal, p.width = terminalWidth(f)
	}
	return p
}

// terminalWidth says whether f is a terminal, and how wide.
func terminalWidth(f *os.File) (bool, int) {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return false, 100
	}
	if size.columns == 0 {
		return true, 100
	}
	return true, int(size.columns)
}

// Begin announces how many steps will follow and how long they should take together.
func (p *Progress) Begin(steps int, total time.Duration) {
	p.steps, p.total, p.began = steps, total, p.now()
}

// Step shows that a step begins. group is what a plain log is divided by.
func (p *Progress) Step(group, label string) {
	p.current++
	at := fmt.Sprintf("[%d/%d] %s", p.current, p.steps, group)
	p.Show(group, fmt.Sprintf("%s: %s, %s left", at, label, p.left()), fmt.Sprintf("%s, %s left", at, p.left()))
}

// Show replaces the progress line by text; where there is no terminal, it writes plain instead, once per group.
func (p *Progress) Show(group, text, plain string) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", clip(text, p.width-1))
	} else if group != p.group {
		fmt.Fprintln(p.out, plain)
	}
	p.group = group
}

// Done says that the step is over, which should have taken estimate.
func (p *Progress) Done(estimate time.Duration) { p.done += estimate }

// Say writes a line that stays.
func (p *Progress) Say(format string, args ...any) {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// End removes the progress line.
func (p *Progress) End() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// left returns the rest in words, corrected by how long the steps so far really took.
func (p *Progress) left() string {
	rest := p.total - p.done
	if p.done > 5*time.Second {
		rest = time.Duration(float64(rest) * float64(p.now().Sub(p.began)) / float64(p.done))
	}
	return inWords(rest)
}

// inWords writes a rest of time as a person would: 12 s, 3:05 min.
func inWords(rest time.Duration) string {
	rest = max(rest, 0).Round(time.Second)
	if rest >= time.Minute {
		return fmt.Sprintf("%d:%02d min", int(rest.Minutes()), int(rest.Seconds())%60)
	}
	return fmt.Sprintf("%d s", int(rest.Seconds()))
}

// clip shortens s to at most width characters.
func clip(s string, width int) string {
	r := []rune(s)
	if width <= 0 || len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}
