package proc

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is the CPU time of the whole machine since boot, or between two readings, summed over its CPUs.
type Machine struct {
	Busy  time.Duration // everything that ran here: user, nice, system, interrupts
	Idle  time.Duration // idle and waiting for disks
	Steal time.Duration // what the hypervisor gave to somebody else while we wanted it
}

// Sub returns what passed since before.
func (m Machine) Sub(before Machine) Machine {
	return Machine{m.Busy - before.Busy, m.Idle - before.Idle, m.Steal - before.Steal}
}

// Total is all CPU time there was.
func (m Machine) Total() time.Duration { return m.Busy + m.Idle + m.Steal }

// ReadMachine reads /proc/stat, whose resolution is 10 ms per CPU.
func ReadMachine() (Machine, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	return parseMachine(string(b))
}

func parseMachine(text string) (Machine, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return Machine{}, fmt.Errorf("/proc/stat begins with %q, want cpu and at least 8 numbers", line)
	}
	var t [8]time.Duration // user nice system idle iowait irq softirq steal
	for i := range t {
		n, err := strconv.ParseInt(f[i+1], 10, 64)
		if err != nil {
			return Machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
		t[i] = time.Duration(n) * tick
	}
	return Machine{Busy: t[0] + t[1] + t[2] + t[5] + t[6], Idle: t[3] + t[4], Steal: t[7]}, nil
}

// LoadAverage returns the load averages over 1, 5 and 15 minutes, zeros when unreadable.
func LoadAverage() [3]float64 {
	var l [3]float64
	b, _ := os.ReadFile("/proc/loadavg")
	fmt.Sscan(string(b), &l[0], &l[1], &l[2])
	return l
}

// Description is what a reader of results must know of the machine, and nothing that tells whose it is.
type Description struct {
	Kernel    string `json:"kernel"`
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	MemoryMB  int64  `json:"memory_mb"`
	Virtual   bool   `json:"virtual"` // a hypervisor is present
	Autogroup bool   `json:"autogroup"`
	OpenFiles uint64 `json:"open_files_limit"`
}

// Describe reads the machine's description.
func Describe() Description {
	d := Description{CPU: "unknown", Cores: runtime.NumCPU()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		d.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(key) {
			case "model name":
				d.CPU = strings.TrimSpace(value)
			case "flags":
				d.Virtual = strings.Contains(value, " hypervisor")
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		n, _ := parseKB(string(b), "MemTotal:")
		d.MemoryMB = n >> 20
	}
	if b, err := os.ReadFile("/proc/sys/kernel/sched_autogroup_enabled"); err == nil {
		d.Autogroup = bytes.HasPrefix(b, []byte("1"))
	}
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) == nil {
		d.OpenFiles = lim.Max
	}
	return d
}
