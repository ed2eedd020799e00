package proc

import (
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	s, err := ParseStat("1234 (a) b (c)) S 1 1234 77 0 -1 4194560 900 0 0 0 250 125 30 20 20 0 3 0 5000 100 200\n")
	want := Stat{PID: 1234, PPID: 1, Session: 77, Command: "a) b (c)", State: 'S',
		User: 2500 * time.Millisecond, System: 1250 * time.Millisecond,
		ChildrenUser: 300 * time.Millisecond, ChildrenSystem: 200 * time.Millisecond, Threads: 3}
	if err != nil || s != want {
		t.Errorf("got %+v, %v; want %+v", s, err, want)
	}
	for _, bad := range []string{"", "12 nothing", "12 (x) S 1 2", "12 (x) S 1 1 1 0 -1 4 9 0 0 0 x 1 3 2 20 0 3 0 5"} {
		if s, err := ParseStat(bad); err == nil {
			t.Errorf("%q: read as %+v, want an error", bad, s)
		}
	}
}

func TestAddUsageCountsEndedChildren(t *testing.T) {
	var u Usage
	addUsage(&u, Stat{User: 10 * tick, System: 5 * tick, ChildrenUser: 2 * tick, ChildrenSystem: tick}, 151*time.Millisecond)
	addUsage(&u, Stat{User: tick}, 0) // no clock: ticks will do
	want := Usage{Total: 151*time.Millisecond + 4*tick, User: 13 * tick, System: 6 * tick}
	if u != want {
		t.Errorf("got %+v, want %+v", u, want)
	}
}

func TestTreeUsageSumsAWholeTree(t *testing.T) {
	// A shell that burns CPU in a child that ends, then in one that lives on, and tells when each is done.
	const burn = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
	cmd := exec.Command("sh", "-c", "sh -c '"+burn+"'; echo ended; sh -c '"+burn+"; echo living; read x; :' ; :")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	line := make([]byte, len("ended\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	one, err := TreeUsage(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("living\n"))); err != nil {
		t.Fatal(err)
	}
	both, err := TreeUsage(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if one.Total < tick || both.Total < one.Total+tick {
		t.Errorf("after the child that ended: %v; with the one that lives: %v; want both to count", one.Total, both.Total)
	}
	if diff := both.Total - both.User - both.System; diff.Abs() > 5*tick {
		t.Errorf("clock and ticks disagree: total %v, user %v + system %v", both.Total, both.User, both.System)
	}
	if n := len(Tree(cmd.Process.Pid)); n != 2 {
		t.Errorf("the tree has %d processes, want the shell and its living child", n)
	}
	if !slices.Equal(children(cmd.Process.Pid), scanChildren(cmd.Process.Pid)) {
		t.Error("the two ways to find children disagree")
	}
	if pss, err := TreePSS(cmd.Process.Pid); err != nil || pss < 100<<10 {
		t.Errorf("PSS of two shells: %d, %v", pss, err)
	}
	if rss, err := TreeRSS(cmd.Process.Pid); err != nil || rss < 500<<10 {
		t.Errorf("RSS of two shells: %d, %v", rss, err)
	}
	if n, err := TreeFDs(cmd.Process.Pid); err != nil || n < 6 {
		t.Errorf("two shells have %d open files, %v", n, err)
	}
}

func TestMeterSeesTheChildrenBornInItsWindow(t *testing.T) {
	const burn = "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done"
	cmd := exec.Command("sh", "-c", "read x; sh -c '"+burn+"; echo burnt; read y; :' ; :")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	m := NewMeter(cmd.Process.Pid)
	m.Prepare()
	m.Start()
	in.Write([]byte("go\n"))
	if _, err := io.ReadFull(out, make([]byte, len("burnt\n"))); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	u, err := m.Finish()
	if err != nil || u.Total < tick {
		t.Errorf("used %+v, %v; want the child's work in it", u, err)
	}
	if u.Total%tick == 0 {
		t.Errorf("%v looks like ticks, want the CPU clock's nanoseconds", u.Total)
	}
	if _, err := NewMeter(1 << 30).Finish(); err == nil {
		t.Error("a process that is gone must be an error")
	}
}

func TestUsageOfNobody(t *testing.T) {
	if _, err := TreeUsage(1 << 30); err == nil {
		t.Error("a process that does not exist must be an error")
	}
	if _, err := TreePSS(1 << 30); err == nil {
		t.Error("a process that does not exist must be an error")
	}
}

func TestParseMachine(t *testing.T) {
	m, err := parseMachine("cpu  3846 1 3144 155069 494 2 121 1298 0 0\ncpu0 1 2 3\n")
	want := Machine{Busy: (3846 + 1 + 3144 + 2 + 121) * tick, Idle: (155069 + 494) * tick, Steal: 1298 * tick}
	if err != nil || m != want {
		t.Errorf("got %+v, %v; want %+v", m, err, want)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8\n", "cpu 1 2 3 4 5 6 7 x\n"} {
		if _, err := parseMachine(bad); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}

func TestParseKBAndSockstat(t *testing.T) {
	rollup := "55d-7ff ---p 00000000 00:00 0 [rollup]\nRss:   5000 kB\nPss:   3801 kB\nPss_Anon:  90 kB\n"
	if n, err := parseKB(rollup, "Pss:"); err != nil || n != 3801<<10 {
		t.Errorf("Pss: got %d, %v", n, err)
	}
	if _, err := parseKB(rollup, "Nope:"); err == nil {
		t.Error("a missing key must be an error")
	}
	n, err := parseSockstat("sockets: used 9\nTCP: inuse 4 orphan 0 tw 7 alloc 5 mem 123\nUDP: inuse 1 mem 2\n")
	if err != nil || n != 123 {
		t.Errorf("sockstat: got %d, %v", n, err)
	}
}

func TestParseStrace(t *testing.T) {
	text, err := os.ReadFile("testdata/strace.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseStrace(string(text))
	if err != nil {
		t.Fatal(err)
	}
	want := Syscalls{"recvfrom": 40010, "sendto": 40000, "epoll_wait": 1207, "clock_gettime": 2607, "nanosleep": 300, "restart_syscall": 1}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if calls, clock, monitor := got.Split(); calls != 81218 || clock != 2607 || monitor != 300 {
		t.Errorf("split into %d, %d clock readings and %d of the monitor", calls, clock, monitor)
	}
	if s, err := ParseStrace(""); err != nil || len(s) != 0 {
		t.Errorf("no text: got %v, %v; want nothing", s, err)
	}
	if _, err := ParseStrace("------ ----\n 1.0 2.0 3 x read\n"); err == nil {
		t.Error("a bad count must be an error")
	}
}

func TestDescribeTellsNoNames(t *testing.T) {
	d := Describe()
	if d.Kernel == "" || d.Cores < 1 || d.MemoryMB < 1 || d.OpenFiles == 0 {
		t.Errorf("incomplete: %+v", d)
	}
	if m, err := ReadMachine(); err != nil || m.Total() == 0 {
		t.Errorf("machine: %+v, %v", m, err)
	}
}
