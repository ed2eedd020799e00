package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"awe4lb/bench/proc"
)

const (
	stopPatience = 3 * time.Second        // between one signal and a stronger one
	waitDelay    = 500 * time.Millisecond // for an orphan that keeps the output open; see exec.Cmd.WaitDelay
	outputKept   = 8 << 10                // bytes of output kept per process, for error messages
)

// Processes starts and stops everything a run needs. Safe from any goroutine.
type Processes struct {
	spawn  chan func() // run on one thread that lives as long as the process: see NewProcesses
	thread int         // its id, set before NewProcesses returns

	// Guarded by mu.
	mu      sync.Mutex
	running []*Process
}

// Process is one program that was started.
type Process struct {
	Name   string
	PID    int
	Out    io.ReadCloser  // standard output, when it was asked for
	In     io.WriteCloser // standard input, when output was asked for
	cmd    *exec.Cmd
	output *tail
	once   sync.Once
	ended  chan struct{} // closed when it has ended and was waited for
	err    error         // its exit, set before ended is closed
}

// NewProcesses starts the goroutine that starts processes. It is locked to its thread and never ends, since the kernel
// sends the parent-death signal when the thread that started a child ends, not only when the process does.
//
// nice is the priority of what it starts: negative ones need root and keep other users of the machine out.
func NewProcesses(nice int) (*Processes, error) {
	p := &Processes{spawn: make(chan func())}
	ready := make(chan error)
	go p.spawner(nice, ready)
	return p, <-ready
}

func (p *Processes) spawner(nice int, ready chan<- error) {
	runtime.LockOSThread()
	if nice != 0 {
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice); err != nil { // of this thread; children inherit it
			ready <- fmt.Errorf("setpriority %d: %w; negative ones need root", nice, err)
			return
		}
	}
	p.thread = syscall.Gettid()
	ready <- nil
	for f := range p.spawn {
		f()
	}
}

// Recede gives all threads of this process the lowest priority but for the one that starts others, and so what it starts. What the
// runner does while somebody is measured, clients of the API above all, is to take what the others leave: outside a bench it is
// done on other machines.
func (p *Processes) Recede() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks { // threads that come later get the priority of the one that makes them
		if tid, err := strconv.Atoi(t.Name()); err == nil && tid != p.thread {
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, 19); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("setpriority 19: %w", err)
			}
		}
	}
	return nil
}

// Spec says what to start.
type Spec struct {
	Name string
	Argv []string
	Env  []string // added to ours
	Dir  string
	Pipe bool // hand out standard input and output instead of keeping the output's end for messages
}

// Start starts a program in the runner's session but in a process group of its own, so that Ctrl-C on a terminal reaches
// only the runner, which then stops everything in order.
func (p *Processes) Start(s Spec) (*Process, error) {
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.WaitDelay = waitDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	q := &Process{Name: s.Name, cmd: cmd, output: &tail{}, ended: make(chan struct{})}
	cmd.Stderr = q.output
	if s.Pipe {
		var err1, err2 error
		q.Out, err1 = cmd.StdoutPipe()
		q.In, err2 = cmd.StdinPipe()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
	} else {
		cmd.Stdout = q.output
	}
	result := make(chan error)
	p.spawn <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	q.PID = cmd.Process.Pid
	p.mu.Lock()
	p.running = append(p.running, q)
	p.mu.Unlock()
	if !s.Pipe { // with pipes the reader must be done before Wait: see Finish
		go q.wait()
	}
	return q, nil
}

func (q *Process) wait() {
	q.once.Do(func() {
		q.err = q.cmd.Wait()
		close(q.ended)
	})
}

// Finish waits for a process that was started with pipes, after its output was read to the end, and returns its exit.
func (p *Processes) Finish(q *Process) error {
	q.wait()
	p.forget(q)
	return q.err
}

// Ended says whether the process has ended.
func (q *Process) Ended() bool {
	select {
	case <-q.ended:
		return true
	default:
		return false
	}
}

// Output returns the last that the process wrote, without line ends at its end.
func (q *Process) Output() string { return strings.TrimSpace(q.output.String()) }

// Stop ends a process by its PID: SIGTERM, once more if it takes its time (a proxy that drains), then SIGKILL. Children
// that it leaves behind are killed too. It returns when the process is gone.
func (p *Processes) Stop(q *Process) {
	defer p.forget(q)
	if q.Out != nil { // nobody else will wait for it
		q.In.Close()
		q.Out.Close()
		go q.wait()
	}
	family := proc.Tree(q.PID)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL} {
		if q.Ended() {
			break
		}
		q.cmd.Process.Signal(sig)
		select {
		case <-q.ended:
		case <-time.After(stopPatience):
		}
	}
	<-q.ended
	for _, pid := range family[1:] {
		if s, err := proc.ReadStat(pid); err == nil && s.PPID == 1 { // an orphan of ours
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// StopAll stops everything, the last started first.
func (p *Processes) StopAll() {
	for {
		p.mu.Lock()
		if len(p.running) == 0 {
			p.mu.Unlock()
			return
		}
		q := p.running[len(p.running)-1]
		p.mu.Unlock()
		p.Stop(q)
	}
}

func (p *Processes) forget(q *Process) {
	p.mu.Lock()
	p.running = slices.DeleteFunc(p.running, func(x *Process) bool { return x == q })
	p.mu.Unlock()
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(b)
	if extra := t.b.Len() - outputKept; extra > 0 {
		t.b.Next(extra)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
