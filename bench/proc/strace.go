package proc

import (
	"fmt"
	"strconv"
	"strings"
)

// clockCalls are system calls only where the vDSO cannot answer, as in some virtual machines. They say something about
// the machine rather than about the program, so they are counted apart.
var clockCalls = map[string]bool{"clock_gettime": true, "gettimeofday": true, "time": true, "clock_getres": true, "getcpu": true}

// runtimeCalls are what the Go runtime does by the clock rather than by the work: its monitor thread sleeps and sends
// preemption signals (sysmon: nanosleep, getpid and tgkill; the signal's return: rt_sigreturn). Under strace everything
// takes many times as long, so many times as many of them fall on each unit; they too are counted apart. No program
// measured here uses these calls to relay.
var runtimeCalls = map[string]bool{"nanosleep": true, "tgkill": true, "getpid": true, "rt_sigreturn": true}

// Syscalls is the outcome of one strace -c: calls by name.
type Syscalls map[string]int64

// Split returns the number of calls that belong to the work, of clock readings, and of calls of the Go runtime's
// monitor.
func (s Syscalls) Split() (calls, clock, monitor int64) {
	for name, n := range s {
		switch {
		case clockCalls[name]:
			clock += n
		case runtimeCalls[name]:
			monitor += n
		default:
			calls += n
		}
	}
	return calls, clock, monitor
}

// ParseStrace reads the summary of strace -c:
//
//	% time     seconds  usecs/call     calls    errors syscall
//	------ ----------- ----------- --------- --------- ----------------
//	 60.00    0.000600           3       200        10 read
//	 40.00    0.000400           2       200           sendto
//	------ ----------- ----------- --------- --------- ----------------
//	100.00    0.001000           2       400        10 total
//
// An empty text, which strace prints when nothing was called, is an empty result.
func ParseStrace(text string) (Syscalls, error) {
	out := Syscalls{}
	rules := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case strings.HasPrefix(f[0], "------"):
			rules++
		case rules == 1:
			if len(f) != 5 && len(f) != 6 {
				return nil, fmt.Errorf("strace line %q: want share, seconds, usecs/call, calls, perhaps errors, name", line)
			}
			n, err := strconv.ParseInt(f[3], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("strace line %q: calls: %w", line, err)
			}
			out[f[len(f)-1]] += n
		}
	}
	if rules == 1 {
		return nil, fmt.Errorf("strace table without its end")
	}
	return out, nil
}
