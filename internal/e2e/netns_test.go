//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"awe4lb/internal/lbtest"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace by its name, as `ip netns` knows it. Sockets belong to the namespace they are opened in,
// so the test opens them there and uses them from anywhere.
type namespace string

// newNamespace makes a namespace with a name of its own and a loopback interface that is up. It goes with the test.
func newNamespace(t *testing.T, name string) namespace {
	t.Helper()
	needRoot(t, "only root makes network namespaces")
	ns := namespace(fmt.Sprintf("awe4lb-e2e-%d-%s", os.Getpid(), name))
	run(t, "ip", "netns", "add", string(ns))
	t.Cleanup(func() { run(t, "ip", "netns", "delete", string(ns)) })
	ns.ip(t, "link set lo up")
	return ns
}

// ip runs an ip command in the namespace.
func (ns namespace) ip(t *testing.T, command string) {
	t.Helper()
	run(t, "ip", append([]string{"-n", string(ns)}, strings.Fields(command)...)...)
}

// do calls f in the namespace: on a thread that enters it and leaves it again.
func (ns namespace) do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + string(ns))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	failed := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err) // the thread stays locked, and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return failed
}

// listen opens a socket for datagrams in the namespace. It is closed with the test.
func (ns namespace) listen(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := ns.do(func() (err error) {
		a, err := net.ResolveUDPAddr("udp", address)
		if err == nil {
			c, err = net.ListenUDP("udp", a)
		}
		return err
	}); err != nil {
		t.Fatalf("listen in %s: %v", ns, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// start is startAs in the namespace; the test talks to the admin there. prefix is as there.
func (ns namespace) start(t *testing.T, config string, prefix ...string) *awe4lb {
	t.Helper()
	lb := startAs(t, config, nil, append(ns.exec(t), prefix...)...)
	lb.api = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = ns.do(func() error {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
	t.Cleanup(lb.api.CloseIdleConnections)
	return lb
}

// exec is the command that runs another one in the namespace, in its own place. `ip netns exec` would hide the cgroups.
func (ns namespace) exec(t *testing.T) []string {
	t.Helper()
	return []string{find(t, "nsenter"), "--net=/run/netns/" + string(ns)}
}

// refuse runs awe4lb in the namespace with a configuration that it must refuse because of the host, and returns what it
// said.
func (ns namespace) refuse(t *testing.T, config string, prefix ...string) string {
	t.Helper()
	path := write(t, openDir(t), "awe4lb.toml", prelude+config)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	argv := append(append(ns.exec(t), prefix...), binary, "run", "--config", path)
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Errorf("awe4lb runs; want it to refuse\n%s", out)
	}
	t.Logf("%v: %s", err, strings.TrimSpace(string(out)))
	return string(out)
}

// echoFrom answers every datagram at a socket with the sender's address and the datagram, until the socket is closed.
func echoFrom(t *testing.T, c *net.UDPConn) {
	t.Helper()
	_ = c.SetReadBuffer(4 << 20)
	done := make(chan bool)
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "%v %s", plain(from), b[:n]), from)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
}

// plain is an address without mapping and zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// exchange sends a datagram and returns the answer and where it came from. An answer that does not come fails the test.
func exchange(t *testing.T, c *net.UDPConn, to netip.AddrPort, text string) (answer string, from netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("%v asked %v: %v", c.LocalAddr(), to, err)
	}
	return string(b[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// flowsEnd waits until no flow is left, so that the process can end at once.
func (lb *awe4lb) flowsEnd() {
	lb.t.Helper()
	lbtest.EventuallyIn(lb.t, 20*time.Second, "all flows have ended", func() bool { return lb.status().Flows.Open == 0 })
}
