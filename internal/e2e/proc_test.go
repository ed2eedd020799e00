//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What Linux tells about a process.

// cpuOf returns the processor time a process has used, to 10 ms.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat := readProc(t, pid, "stat")
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.Atoi(f[11]) // field 14 of proc(5), the first here being 3
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory is what a process holds, in kB: all of it, and its share of what others hold too.
type memory struct{ rss, pss int64 }

func memoryOf(t *testing.T, pid int) memory {
	t.Helper()
	text := readProc(t, pid, "smaps_rollup")
	return memory{kB(t, text, "Rss"), kB(t, text, "Pss")}
}

// resetPeak makes peakOf begin anew.
func resetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// peakOf returns the most a process has held since resetPeak, in kB.
func peakOf(t *testing.T, pid int) int64 {
	t.Helper()
	return kB(t, readProc(t, pid, "status"), "VmHWM")
}

// filesOf returns the number of a process' open descriptors.
func filesOf(t *testing.T, pid int) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// threadsOf returns the status texts of a process' threads.
func threadsOf(t *testing.T, pid int) []string {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, task := range tasks {
		texts = append(texts, readProc(t, pid, "task/"+task.Name()+"/status"))
	}
	return texts
}

func readProc(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// field returns the value of a line "name: value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// kB returns the value of a line "name: number kB".
func kB(t *testing.T, text, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(field(text, name), " kB"), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
