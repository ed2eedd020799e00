package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/bench/proc"
	"awe4lb/bench/report"
)

// TestMain lets the test binary be bench: the commands start copies of themselves, and so do these tests.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_TEST_IS_BENCH") == "1" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// bench prepares the command `bench args…`.
func bench(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "BENCH_TEST_IS_BENCH=1", "TMPDIR="+t.TempDir(),
		"GORACE=atexit_sleep_ms=0") // the race runtime sleeps a second at exit
	return cmd
}

func TestHelpTeaches(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"run", "--help"}, {"soak", "--help"}, {"soak-udp", "--help"}, {"load", "--help"}, {"load", "requests", "-h"}, {"backend", "--help"}, {"naive", "--help"}} {
		out, err := bench(t, args...).Output()
		if err != nil || !bytes.Contains(out, []byte("go run ./bench")) {
			t.Errorf("%v: %v, want help with an example:\n%s", args, err, out)
		}
	}
}

func TestUsageErrorsTeach(t *testing.T) {
	for want, args := range map[string][]string{
		`no command "fly"`:                {"fly"},
		"want a mode and --to":            {"load"},
		"not defined: -fast":              {"load", "requests", "--fast"},
		`unexpected "more"`:               {"run", "more"},
		"want at least one of":            {"backend"},
		"want LISTEN=BACKEND":             {"naive"},
		"want a number of bytes":          {"load", "stall", "--to", "127.0.0.1:1", "--bytes", "many"},
		`TLS "1.1": want`:                 {"load", "connections", "--to", "127.0.0.1:1", "--tls", "1.1"},
		"are about TLS":                   {"load", "connections", "--to", "127.0.0.1:1", "--resume"},
		`want NAME=PID`:                   {"load", "idle", "--to", "127.0.0.1:1", "--watch", "x"},
		`"x": want NAME=BINARY`:           {"run", "--also", "x"},
		"See: go run ./bench load --help": {"load", "requests"},
	} {
		var text bytes.Buffer
		cmd := bench(t, args...)
		cmd.Stderr = &text
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(text.String(), want) {
			t.Errorf("%v: %v, %q; want exit code 2 and %q", args, err, text.String(), want)
		}
	}
}

func TestCommandLineTellsNoDirectories(t *testing.T) {
	got := commandLine("run", []string{"--quick", "--also=old=/home/me/awe4lb", "--gost", "/opt/secret/gost", "--scenarios", "keep64,up1"})
	if got != "go run ./bench run --quick --also=old=awe4lb --gost gost --scenarios keep64,up1" {
		t.Errorf("got %q", got)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]uint64{"0": 0, "1000": 1000, "64KiB": 65536, "200MB": 200e6, "1GiB": 1 << 30, "3kB": 3000} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "MB", "-1", "1TB", "1.5GB", "99999999999999999999"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("%q: got %d, want an error", bad, got)
		}
	}
}

func TestRunFromEndToEnd(t *testing.T) {
	dir := t.TempDir()
	scenarios := "keep1,open64,short64,both1,verify,memory"
	if _, err := exec.LookPath("strace"); err == nil {
		scenarios += ",syscalls"
	}
	cmd := bench(t, "run", "--quick", "--systems", "naive", "--subject", "naive", "--scenarios", scenarios, "--rounds", "2",
		"--window", "100ms", "--warmup", "20ms", "--rate", "1000", "--idle-conns", "100", "--traced", "1000", "--out", dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*.md"))
	raws, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(pages) != 1 || len(raws) != 1 {
		t.Fatalf("pages %v, raw numbers %v; want one each\n%s", pages, raws, out)
	}
	text, _ := os.ReadFile(raws[0])
	var r report.Results
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 8 || len(r.Memory) != 1 || len(r.Verified) != 1 || !r.SameSession || len(r.Failures) != 0 {
		t.Errorf("%d runs, %d memory, %d verified, same session %v, failures %v", len(r.Runs), len(r.Memory), len(r.Verified), r.SameSession, r.Failures)
	}
	for _, run := range r.Runs {
		if run.CPU <= 0 || run.Rate <= 0 || run.Errors != "" {
			t.Errorf("%+v", run)
		}
	}
	for _, s := range r.Syscalls {
		if calls, _, _ := s.PerUnit(); calls < 4 || calls > 100 {
			t.Errorf("%s: %.1f system calls per %s: %v", s.System, calls, s.Unit, s.Calls)
		}
	}
	page, _ := os.ReadFile(pages[0])
	host, _ := os.Hostname()
	wd, _ := os.Getwd()
	for _, private := range []string{os.TempDir() + "/", "awe4lb-bench-", wd, host + "."} {
		if bytes.Contains(page, []byte(private)) {
			t.Errorf("the page tells %q", private)
		}
	}
}

func TestUDPFromEndToEnd(t *testing.T) {
	t.Parallel() // it waits most of the time, for flows to expire
	dir := t.TempDir()
	systems, runs, flows := "direct", 4, 0
	if _, err := exec.LookPath("/usr/sbin/nginx"); err == nil {
		systems, runs, flows = "nginx,direct", 8, 1
	}
	cmd := bench(t, "run", "--quick", "--systems", systems, "--subject", "direct", "--scenarios", "udp1,udp-trains,udp-open100,udp10k-1200,udp-flows", "--rounds", "1",
		"--window", "100ms", "--warmup", "20ms", "--idle-conns", "200", "--out", dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raws, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(raws) != 1 {
		t.Fatalf("raw numbers %v; want one\n%s", raws, out)
	}
	text, _ := os.ReadFile(raws[0])
	var r report.Results
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != runs || len(r.Flows) != flows || len(r.Failures) != 0 {
		t.Errorf("%d runs, %d lives of flows, failures %v; want %d, %d and none", len(r.Runs), len(r.Flows), r.Failures, runs, flows)
	}
	for _, run := range r.Runs {
		if run.Rate <= 0 || run.Sent <= 0 || run.Errors != "" || (run.CPU > 0) != (run.System != "direct") {
			t.Errorf("%+v", run)
		}
	}
	for _, f := range r.Flows {
		if f.Create <= 0 || f.Expire <= 0 || f.PerFlow() <= 0 || f.Overdue < 0 || f.IdleCPU < 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestTLSFromEndToEnd(t *testing.T) {
	systems, runs := "", 0
	for name, n := range map[string]int{"nginx": 5, "haproxy": 5} {
		if _, err := exec.LookPath("/usr/sbin/" + name); err == nil {
			systems, runs = systems+","+name, runs+n
		}
	}
	if systems == "" {
		t.Skip("neither haproxy nor nginx is installed")
	}
	dir := t.TempDir()
	subject, _, _ := strings.Cut(systems[1:], ",")
	cmd := bench(t, "run", "--quick", "--systems", systems[1:], "--subject", subject, "--rounds", "1", "--window", "100ms", "--warmup", "20ms", "--idle-conns", "200", "--out", dir,
		"--scenarios", "tls-full,tls-resumed,tls12-resumed,tls-down8,tls-flood,tls-verify,tls-memory,tls-half-open")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raws, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(raws) != 1 {
		t.Fatalf("raw numbers %v; want one\n%s", raws, out)
	}
	text, _ := os.ReadFile(raws[0])
	var r report.Results
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != runs || len(r.Verified) != runs/5 || len(r.Memory) != 2*runs/5 || len(r.Failures) != 0 {
		t.Errorf("%d runs, %d verified, %d memories, failures %v; want %d runs", len(r.Runs), len(r.Verified), len(r.Memory), r.Failures, runs)
	}
	for _, run := range r.Runs {
		if run.Rate <= 0 || run.CPU <= 0 || run.Errors != "" || (run.Flood > 0) != (run.Scenario == report.TLSFlood) {
			t.Errorf("%+v", run)
		}
	}
	for _, m := range r.Memory {
		if m.PerConnection() <= 0 || m.Connections != 88 {
			t.Errorf("%+v", m)
		}
	}
}

func TestSoakFromEndToEnd(t *testing.T) {
	dir := t.TempDir()
	out, err := bench(t, "soak", "--system", "naive", "--duration", "1s", "--phase", "100ms", "--out", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "too short to judge growth") {
		t.Errorf("unexpected verdict:\n%s", out)
	}
	if pages, _ := filepath.Glob(filepath.Join(dir, "soak-*.md")); len(pages) != 1 {
		t.Errorf("pages: %v", pages)
	}
}

func TestSoakUDPFromEndToEnd(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("/usr/sbin/nginx"); err != nil {
		t.Skip("nginx is not installed")
	}
	dir := t.TempDir()
	out, err := bench(t, "soak-udp", "--system", "nginx", "--duration", "1s", "--phase", "500ms", "--idle-timeout", "1s", "--rate", "2000", "--out", dir).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not so: live flows") { // a busy machine may lose some
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "kept    all flows are gone 3s after") {
		t.Errorf("unexpected verdict:\n%s", out)
	}
	if pages, _ := filepath.Glob(filepath.Join(dir, "soak-udp-*.md")); len(pages) != 1 {
		t.Errorf("pages: %v", pages)
	}
}

func TestEverythingIsStopped(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd := bench(t, "run", "--systems", "naive", "--scenarios", "keep1", "--window", "30s", "--out", t.TempDir())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The backends, the proxy and the generator must be there.
		var family []int
		for deadline := time.Now().Add(20 * time.Second); len(family) < 4; family = proc.Tree(cmd.Process.Pid) {
			if time.Now().After(deadline) {
				t.Fatalf("only %d processes after 20 s", len(family))
			}
			time.Sleep(5 * time.Millisecond)
		}
		cmd.Process.Signal(signal)
		cmd.Wait()
		if signal == syscall.SIGINT && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "interrupted")) {
			t.Errorf("after SIGINT: %v, %q", cmd.ProcessState, out.String())
		}
		for _, pid := range family[1:] {
			for deadline := time.Now().Add(10 * time.Second); alive(pid); {
				if time.Now().After(deadline) {
					t.Fatalf("after %v process %s is still there", signal, strconv.Itoa(pid))
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

func alive(pid int) bool {
	s, err := proc.ReadStat(pid)
	return err == nil && s.State != 'Z'
}
