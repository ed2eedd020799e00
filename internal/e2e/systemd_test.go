//go:build e2e

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"awe4lb/internal/lbtest"
)

// What a unit with Type=notify-reload hears from the service it has started.
func TestTellsSystemd(t *testing.T) {
	path := filepath.Join(openDir(t), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	heard := func() string {
		t.Helper()
		_ = socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 4096)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b[:n]))
	}
	lb := startAs(t, balance(lbtest.Echo(t)), func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	})
	if got := heard(); got != "READY=1" {
		t.Errorf("after the start: got %q", got)
	}

	reloads := func(change string) {
		t.Helper()
		lb.edit(change)
		before := monotonic()
		lb.signal(syscall.SIGHUP)
		reloading := heard()
		stamp, ok := strings.CutPrefix(reloading, "RELOADING=1\nMONOTONIC_USEC=")
		at, err := strconv.ParseInt(stamp, 10, 64)
		if !ok || err != nil || at < before || at > monotonic() {
			t.Errorf("on SIGHUP: got %q; want RELOADING=1 and MONOTONIC_USEC of now, from %d on", reloading, before)
		}
		if got := heard(); got != "READY=1" {
			t.Errorf("after the reload: got %q", got)
		}
	}
	reloads(balance(lbtest.Echo(t)))
	lb.expectError("reload refused")
	lb.expectError("configuration: ")
	reloads("[mistake]\n") // refused, and ready all the same

	lb.stop()
	if got := heard(); got != "STOPPING=1" {
		t.Errorf("on SIGTERM: got %q", got)
	}
}

// monotonic is CLOCK_MONOTONIC in microseconds.
func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano() / 1000
}
