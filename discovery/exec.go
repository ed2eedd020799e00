package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ExecOptions say what to run. There is no shell: what is in Argv is what the program gets.
type ExecOptions struct {
	Argv     []string // the first is the absolute path of the program
	Env      []string // all of its environment, KEY=VALUE; nothing is inherited
	Dir      string   // where it runs; "" = /
	Decoding          // of its standard output; Auto is Text
	MaxBytes int64    // of output; more ends it. 0 = 4 MiB
}

// program runs something and reads its standard output. Exit status 0 means that the list is whole, anything else that
// there is none. It runs in a process group of its own; all of that is killed at the timeout, when there is too much
// output, and when it leaves children behind that hold its output open.
type program struct {
	o    ExecOptions
	dec  *decoder
	most int64
}

const (
	execGrace = time.Second // for what holds the output open after the program has ended
	maxStderr = 300         // bytes of the end of standard error that an error quotes
)

// NewExec returns a source that runs a program. It runs with the rights of this process: who may write the program, or
// configure one, has them too.
func NewExec(o ExecOptions) (Source, error) {
	if len(o.Argv) == 0 || !filepath.IsAbs(o.Argv[0]) {
		return nil, fmt.Errorf("exec: argv: got %q; want an absolute path first", o.Argv)
	}
	for _, s := range append(append([]string{o.Dir}, o.Argv...), o.Env...) {
		if strings.ContainsRune(s, 0) {
			return nil, fmt.Errorf("exec: got %q; want no zero bytes", s)
		}
	}
	for _, e := range o.Env {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" {
			return nil, errors.New("exec: env: want entries KEY=VALUE")
		}
	}
	if o.Dir == "" {
		o.Dir = "/"
	}
	dec, err := newDecoder(o.Decoding)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	most, err := maxBytes(o.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	return &program{o: o, dec: dec, most: most}, nil
}

// String leaves the arguments out, since they may hold secrets, and has a digest of them instead.
func (p *program) String() string {
	name := "exec:" + p.o.Argv[0]
	if len(p.o.Argv) > 1 {
		name += " …" + digest(p.o.Argv[1:]...)
	}
	return name
}

func (p *program) Fetch(ctx context.Context) (List, error) {
	b, err := p.output(ctx)
	if err != nil {
		return List{}, err
	}
	list, err := p.dec.decode(b, Text)
	if err != nil {
		return List{}, fmt.Errorf("%s: %w", p, err)
	}
	return list, nil
}

// output runs the program and returns what it wrote.
func (p *program) output(parent context.Context) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	out := &limited{most: p.most, full: func() { cancel(tooLarge(p.most)) }}
	var stderr tail
	c := exec.CommandContext(ctx, p.o.Argv[0], p.o.Argv[1:]...)
	c.Env = append([]string{}, p.o.Env...) // nil would inherit
	c.Dir = p.o.Dir
	c.Stdout, c.Stderr = out, &stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return killGroup(c.Process.Pid) }
	c.WaitDelay = execGrace
	err := c.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// The program has ended; the group lives on in whoever holds the output.
		_ = killGroup(c.Process.Pid)
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, fmt.Errorf("%s: %w", p, cause)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return nil, fail(ReasonExit, fmt.Errorf("%s: %s%s", p, exit.ProcessState, stderr.quoted()))
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, fail(ReasonExit, fmt.Errorf("%s: has ended, and left something behind that holds its output open", p))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return out.b.Bytes(), nil
}

// killGroup ends a process and whatever it started, unless that left the group.
func killGroup(pid int) error {
	return syscall.Kill(-pid, syscall.SIGKILL)
}

// limited collects up to most bytes, and calls full when more come. What is over is dropped, so that whoever writes is not
// told by a signal of its own.
type limited struct {
	b    bytes.Buffer
	most int64
	full func()
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(l.b.Len()+len(p)) > l.most {
		l.full()
		return len(p), nil
	}
	return l.b.Write(p)
}

// tail keeps the last bytes.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-maxStderr):]...)
	t.b = append(t.b[:0], t.b[max(0, len(t.b)-maxStderr):]...)
	return len(p), nil
}

func (t *tail) quoted() string {
	s := strings.TrimSpace(string(t.b))
	if s == "" {
		return ""
	}
	// The last line says it, as a rule.
	return ": " + quote(s[strings.LastIndexByte(s, '\n')+1:])
}
