package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"awe4lb/internal/lbtest"
)

// TestEveryLineIsAccountedForAtExit ends a process with masses of sessions: each has its line in the access log, or is
// among those that the process says it dropped.
func TestEveryLineIsAccountedForAtExit(t *testing.T) {
	const sessions = 3000
	access := filepath.Join(t.TempDir(), "access.log")
	in := startInstance(t, toml(lbtest.Echo(t), admin0+"[engine]\nshards = 1\n"+
		fmt.Sprintf("[log.access]\noutput = %q\n", access)))
	address, url := in.address("f"), in.adminURL()
	for range sessions {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	lbtest.Eventually(t, "all are open", func() bool {
		_, m := get(t, "GET", url+"/metrics")
		return strings.Contains(m, fmt.Sprintf("awe4lb_server_connections_active{server=\"f\",protocol=\"tcp\"} %d\n", sessions))
	})
	in.signal(syscall.SIGTERM)
	in.wantLog("msg=\"draining")
	in.signal(syscall.SIGTERM)
	in.wantExit(0)
	b, err := os.ReadFile(access)
	if err != nil {
		t.Fatal(err)
	}
	lines, dropped := strings.Count(string(b), "reason=killed"), 0
	if m := regexp.MustCompile(`lines were dropped.* at_exit=(\d+) since_start=(\d+)`).FindStringSubmatch(in.log()); m != nil {
		dropped, _ = strconv.Atoi(m[1])
		if m[1] != m[2] {
			t.Errorf("%s at exit, %s in all", m[1], m[2])
		}
	}
	if lines+dropped != sessions {
		t.Errorf("%d lines and %d dropped of %d", lines, dropped, sessions)
	}
	t.Logf("%d lines, %d dropped", lines, dropped)
}
