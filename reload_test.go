package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// descriptors returns the number of open descriptors of the process.
func (in *instance) descriptors() int {
	in.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", in.cmd.Process.Pid))
	if err != nil {
		in.t.Fatal(err)
	}
	return len(names)
}

// TestRefusedReloadsLeaveNothingOpen: log files that a reload has opened are closed when the reload is refused.
func TestRefusedReloadsLeaveNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	logs := filepath.Join(t.TempDir(), "own.log")
	text := toml(lbtest.Refused(t), admin0)
	in := startInstance(t, text)
	url := in.adminURL()
	in.write(fmt.Sprintf("[log]\noutput = %q\naccess = { output = %q }\n", logs, logs+".access") +
		strings.Replace(text, "127.0.0.1:0\"]", taken.Addr().String()+"\"]", 1))
	refuse := func() {
		if code, body := get(t, "POST", url+"/api/v1/reload"); code != 409 {
			t.Fatalf("%d %s; want 409", code, body)
		}
	}
	refuse() // the first opens what the admin needs too
	before := in.descriptors()
	for range 10 {
		refuse()
	}
	if n := in.descriptors(); n > before {
		t.Errorf("%d descriptors, were %d", n, before)
	}
}
