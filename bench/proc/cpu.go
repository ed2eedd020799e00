// Package proc reads what Linux tells about processes and about the machine: CPU of a process tree, memory, open files,
// load, steal, and the tables strace prints. It reads and parses; it measures nothing by itself and starts nothing.
//
// CPU time is the figure everything else in bench/ hangs on, so here is where it comes from. The kernel keeps the exact
// run time of every process in nanoseconds; /proc/PID/stat rounds it to ticks of 10 ms, split into user and system.
// Total is read with nanosecond resolution from the process' CPU clock, User and System from /proc/PID/stat. Children
// that have exited and were waited for are in their parent's cutime and cstime, so nothing is lost when a worker ends.
package proc

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// tick is the unit of times in /proc: USER_HZ is 100 on every Linux.
const tick = 10 * time.Millisecond

// Stat is the part of /proc/PID/stat used here.
type Stat struct {
	PID, PPID, Session int
	Command            string
	State              byte
	User, System       time.Duration // of the process, all threads, ended ones too
	ChildrenUser       time.Duration // of children that ended and were waited for
	ChildrenSystem     time.Duration
	Threads            int
}

// Usage is the CPU a process tree has used since it began, or between two readings.
type Usage struct {
	Total    time.Duration `json:"total_ns"` // to the nanosecond
	User     time.Duration `json:"user_ns"`  // to 10 ms
	System   time.Duration `json:"system_ns"`
	Switches int64         `json:"switches"` // context switches of living threads, voluntary and not
}

// Sub returns what was used since before.
func (u Usage) Sub(before Usage) Usage {
	return Usage{u.Total - before.Total, u.User - before.User, u.System - before.System, u.Switches - before.Switches}
}

// ParseStat reads the text of /proc/PID/stat. The command may contain spaces and parentheses.
func ParseStat(text string) (Stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return Stat{}, fmt.Errorf("stat line %q: want PID (command) state …", text)
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 18 {
		return Stat{}, fmt.Errorf("stat line %q: %d fields after the command, want at least 18", text, len(f))
	}
	var err error
	number := func(s string) int64 {
		n, e := strconv.ParseInt(s, 10, 64)
		if e != nil && err == nil {
			err = fmt.Errorf("stat line %q: %w", text, e)
		}
		return n
	}
	// Field numbers of proc(5) minus 3: f[0] is field 3, the state.
	s := Stat{
		PID:            int(number(strings.TrimSpace(text[:open]))),
		Command:        text[open+1 : end],
		State:          f[0][0],
		PPID:           int(number(f[1])),
		Session:        int(number(f[3])),
		User:           time.Duration(number(f[11])) * tick,
		System:         time.Duration(number(f[12])) * tick,
		ChildrenUser:   time.Duration(number(f[13])) * tick,
		ChildrenSystem: time.Duration(number(f[14])) * tick,
		Threads:        int(number(f[17])),
	}
	return s, err
}

// ReadStat reads /proc/PID/stat; an error means that the process is gone.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(string(b))
}

// Tree returns pid and all its living descendants.
func Tree(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
}

// children reads /proc/PID/task/*/children, or scans every process on kernels without it (CONFIG_PROC_CHILDREN).
func children(pid int) []int {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	var out []int
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if os.IsNotExist(err) && len(out) == 0 {
			if _, gone := os.Stat(fmt.Sprintf("/proc/%d/task/%s", pid, t.Name())); gone == nil {
				return scanChildren(pid)
			}
		}
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

func scanChildren(pid int) []int {
	entries, _ := os.ReadDir("/proc")
	var out []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := ReadStat(child); err == nil && s.PPID == pid {
			out = append(out, child)
		}
	}
	return out
}

// TreeUsage returns the CPU used so far by pid and its descendants, living and ended. A process that ends while it is
// read counts as 0 here and shows up in its parent's account. It fails only when pid itself is gone.
func TreeUsage(pid int) (Usage, error) {
	if _, err := ReadStat(pid); err != nil {
		return Usage{}, fmt.Errorf("process %d is gone: %w", pid, err)
	}
	pids := Tree(pid)
	u := cpuOf(pids)
	for _, p := range pids {
		u.Switches += switches(p)
	}
	return u, nil
}

func cpuOf(pids []int) Usage {
	var u Usage
	for _, p := range pids {
		if s, err := ReadStat(p); err == nil {
			addUsage(&u, s, cpuClock(p))
		}
	}
	return u
}

// Meter measures the CPU of a process tree over a window. Prepare and Finish may take milliseconds; Start and Stop, which
// belong next to the window's ends, take some 50 microseconds.
//
//	m := proc.NewMeter(pid); m.Prepare(); m.Start(); work(); m.Stop(); used, err := m.Finish()
type Meter struct {
	pid           int
	pids          []int
	before, after Usage
}

// NewMeter returns a meter for pid and its descendants.
func NewMeter(pid int) *Meter { return &Meter{pid: pid} }

// Prepare finds the tree and counts its context switches.
func (m *Meter) Prepare() {
	m.pids = Tree(m.pid)
	for _, p := range m.pids {
		m.before.Switches += switches(p)
	}
}

// Start reads the CPU used so far.
func (m *Meter) Start() {
	n := m.before.Switches
	m.before = cpuOf(m.pids)
	m.before.Switches = n
}

// Stop reads the CPU used by now.
func (m *Meter) Stop() { m.after = cpuOf(m.pids) }

// Finish adds the processes that were born in the window and returns what was used in it. It fails when the root of the
// tree is gone, since then part of the account is gone too.
func (m *Meter) Finish() (Usage, error) {
	if _, err := ReadStat(m.pid); err != nil {
		return Usage{}, fmt.Errorf("process %d ended while it was measured: %w", m.pid, err)
	}
	now := Tree(m.pid)
	var born []int
	for _, p := range now {
		if !slices.Contains(m.pids, p) {
			born = append(born, p)
		}
		m.after.Switches += switches(p)
	}
	extra := cpuOf(born)
	m.after.Total += extra.Total
	m.after.User += extra.User
	m.after.System += extra.System
	return m.after.Sub(m.before), nil
}

// addUsage adds one process to the account of its tree. clock is its exact run time, 0 when not known.
func addUsage(u *Usage, s Stat, clock time.Duration) {
	if clock == 0 {
		clock = s.User + s.System
	}
	u.Total += clock + s.ChildrenUser + s.ChildrenSystem
	u.User += s.User + s.ChildrenUser
	u.System += s.System + s.ChildrenSystem
}

// cpuClock reads the CPU clock of a process, all its threads together (clock_getcpuclockid(3)); 0 when it is gone.
func cpuClock(pid int) time.Duration {
	const cpuClockSched = 2
	id := ^pid<<3 | cpuClockSched
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(id), uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}

// switches counts context switches over the living threads of a process.
func switches(pid int) int64 {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	sum := int64(0)
	for _, t := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, t.Name()))
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "voluntary_ctxt_switches") {
				n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				sum += n
			}
		}
	}
	return sum
}
