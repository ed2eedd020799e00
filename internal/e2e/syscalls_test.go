//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// The kernel is nine tenths of what a relayed request costs, so its calls are counted.
func TestSystemCalls(t *testing.T) {
	lb := start(t, balance(echo(t)))
	address := lb.address("test")
	live := dial(t, address, 64)

	const requests, connections = 20000, 3000
	perUnit(t, lb, "request", requests, 4.2, func() error { return live.ask(requests) })
	perUnit(t, lb, "connection", connections, 16, func() error { return short(address, connections, 64) })
}

// notWork are calls that come with the clock and not with the work, and that strace, which makes everything many times
// slower, multiplies: reading the clock where the vDSO cannot, and the monitor thread of Go's runtime, which sleeps and
// interrupts what has run for long.
var notWork = []string{"clock_gettime", "nanosleep", "getpid", "tgkill", "rt_sigreturn"}

// perUnit does the work, prints what was called for each unit of it, and wants it to be at most so many. How many events
// come in one batch depends on what else the machine does, so the best of three times counts.
func perUnit(t *testing.T, lb *awe4lb, unit string, units int, most float64, work func() error) {
	t.Helper()
	for range 3 {
		each, list := count(trace(t, lb, work), units)
		t.Logf("%.2f system calls per %s: %s", each, unit, list)
		if each <= most {
			return
		}
	}
	t.Errorf("want at most %.1f system calls per %s", most, unit)
}

// count returns the calls per unit and a list of them.
func count(calls map[string]int, units int) (each float64, byName string) {
	sum := 0
	var list []string
	for _, name := range slices.SortedFunc(maps.Keys(calls), func(a, b string) int { return cmp.Compare(calls[b], calls[a]) }) {
		n := calls[name]
		note := ""
		if slices.Contains(notWork, name) {
			note = " (not counted)"
		} else {
			sum += n
		}
		list = append(list, fmt.Sprintf("%s %.3f%s", name, float64(n)/float64(units), note))
	}
	return float64(sum) / float64(units), strings.Join(list, ", ")
}

// trace counts the system calls of awe4lb, all threads, while work is done.
func trace(t *testing.T, lb *awe4lb, work func() error) map[string]int {
	t.Helper()
	summary := filepath.Join(t.TempDir(), "summary")
	s := launch(t, nil, "strace", "-f", "-c", "-o", summary, "-p", fmt.Sprint(lb.cmd.Process.Pid))
	s.waitFor("strace is attached", func() bool { return s.out.has("attached") })
	if err := work(); err != nil {
		t.Fatal(err)
	}
	s.end(syscall.SIGINT)
	text, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	//	% time     seconds  usecs/call     calls    errors syscall
	//	 60.00    0.000600           3       200        10 read
	calls := map[string]int{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil {
			calls[f[len(f)-1]] += n
		}
	}
	if len(calls) == 0 {
		t.Fatalf("strace said:\n%s", text)
	}
	lbtest.Eventually(t, "nobody traces awe4lb any more", func() bool {
		return !slices.ContainsFunc(threadsOf(t, lb.cmd.Process.Pid), func(s string) bool { return field(s, "TracerPid") != "0" })
	})
	return calls
}
