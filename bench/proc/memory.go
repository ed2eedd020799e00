package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// TreePSS returns the proportional set size of pid and its descendants in bytes: private pages, plus the fair share of
// shared ones. It is what the tree costs the machine in user memory; socket buffers and pipes are not in it.
func TreePSS(pid int) (int64, error) {
	sum := int64(0)
	for _, p := range Tree(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue // ended meanwhile
		}
		n, err := parseKB(string(b), "Pss:")
		if err != nil && p == pid {
			return 0, fmt.Errorf("smaps_rollup of process %d: %w", p, err)
		}
		sum += n
	}
	return sum, nil
}

// TreeRSS returns the resident set size of pid and its descendants in bytes.
func TreeRSS(pid int) (int64, error) {
	sum := int64(0)
	for _, p := range Tree(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue
		}
		n, _ := parseKB(string(b), "VmRSS:") // a zombie has none
		sum += n
	}
	return sum, nil
}

// TreeFDs returns how many file descriptors pid and its descendants have open.
func TreeFDs(pid int) (int, error) {
	sum := 0
	for _, p := range Tree(pid) {
		d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p))
		if err != nil && p == pid {
			return 0, err
		}
		sum += len(d)
	}
	return sum, nil
}

// SocketMemory returns the bytes of kernel memory in the buffers of all TCP sockets of the machine.
func SocketMemory() (int64, error) {
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	pages, err := parseSockstat(string(b))
	return pages * int64(os.Getpagesize()), err
}

// parseKB finds the line that begins with key and returns its value, given in kB, as bytes.
func parseKB(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) != 2 || f[1] != "kB" {
			return 0, fmt.Errorf("line %q: want a number and kB", line)
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("no line begins with %s", key)
}

// parseSockstat returns the pages behind "mem" in the TCP line of /proc/net/sockstat.
func parseSockstat(text string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "TCP:")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		for i := 0; i+1 < len(f); i += 2 {
			if f[i] == "mem" {
				return strconv.ParseInt(f[i+1], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("sockstat has no TCP mem")
}
