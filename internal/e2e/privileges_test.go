//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"strings"
	"testing"

	"awe4lb/internal/lbtest"
)

// Started as root with engine.user, awe4lb binds and then becomes that user, on every thread, with one capability left:
// to bind a port below 1024, so that a reload can add one.
func TestGivesUpRoot(t *testing.T) {
	needRoot(t, "only root can give it up")
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	const as = "\n[engine]\nuser = \"nobody\"\n"
	low := lowPorts(t, 2)
	backend := lbtest.Named(t, "backend")
	frontend := func(name string, port int) string {
		return fmt.Sprintf("\n[frontends.%s]\nbind = [%q]\npool = \"test\"\n", name, local(port))
	}
	lb := start(t, balance(backend)+frontend("low", low[0])+as)

	check := func() {
		t.Helper()
		const netBindService = 1 << 10
		for _, thread := range threadsOf(t, lb.cmd.Process.Pid) {
			for name, want := range map[string]string{
				"Uid":        strings.Join([]string{nobody.Uid, nobody.Uid, nobody.Uid, nobody.Uid}, "\t"),
				"Gid":        strings.Join([]string{nobody.Gid, nobody.Gid, nobody.Gid, nobody.Gid}, "\t"),
				"Groups":     nobody.Gid,
				"CapInh":     fmt.Sprintf("%016x", 0),
				"CapPrm":     fmt.Sprintf("%016x", netBindService),
				"CapEff":     fmt.Sprintf("%016x", netBindService),
				"CapAmb":     fmt.Sprintf("%016x", 0),
				"NoNewPrivs": "1",
			} {
				if got := field(thread, name); got != want {
					t.Errorf("thread %s: %s is %q, want %q", field(thread, "Pid"), name, got, want)
				}
			}
		}
		t.Logf("%d threads", len(threadsOf(t, lb.cmd.Process.Pid)))
	}
	check()

	lb.edit(balance(backend) + frontend("low", low[0]) + frontend("added", low[1]) + as)
	if err := lb.reload(); err != nil {
		t.Fatalf("a reload with a new port %d: %v", low[1], err)
	}
	check()
	for _, name := range []string{"test", "low", "added"} {
		c, err := net.Dial("tcp", lb.address(name))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 7)
		if _, err := c.Read(b); err != nil || string(b) != "backend" {
			t.Errorf("through %s: got %q, %v", name, b, err)
		}
		c.Close()
	}
}

// lowPorts returns free ports below 1024, which an ordinary process could not bind.
func lowPorts(t *testing.T, n int) []int {
	t.Helper()
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(b)) != "1024" {
		t.Fatalf("net.ipv4.ip_unprivileged_port_start is %s; want 1024, or low ports prove nothing", b)
	}
	var found []int
	for port := 1023; port > 600 && len(found) < n; port-- {
		if l, err := net.Listen("tcp", local(port)); err == nil {
			l.Close()
			found = append(found, port)
		}
	}
	if len(found) < n {
		t.Fatal("no free ports below 1024")
	}
	return found
}
