//go:build real

// Package real follows lists of backends as real servers tell them: etcd and Consul, one and a cluster of three, Redis, bind9,
// dockerd, LXD and kube-apiserver. Each goes through the same story (story_test.go): backends come, change and go, the server
// restarts, is killed, and is down for a minute. All the while no list may be wrong, and no client of a balancer that follows
// the server may be turned away (traffic_test.go).
//
//	make test-real                                                       # etcd, Redis, bind9, Docker, LXD
//	make test-real KINDS=Etcd DOWN=15s                                   # what costs little
//	make test-real-kubernetes test-real-consul                           # what is built first
//	go test -tags real -count=1 -v ./internal/real -run TestDocker -down 15s
//
// The programs are Debian packages, or are built, by deps.sh. dockerd and lxd want root and cgroups, and have a network and a
// mount namespace of their own, which end with the test. Pods of Kubernetes are at an address of this machine that is not of
// loopback. A test that misses what it needs fails and says so.
//
// With -record DIR, TestRecord writes what the servers said into DIR: that is how discovery/testdata was made.
package real

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"awe4lb/internal/lbtest"
)

var (
	down   = flag.Duration("down", time.Minute, "how long a server is down")
	record = flag.String("record", "", "write recordings of the servers into this folder")
)

// output runs a program to its end and returns what it printed.
func output(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, ok := try(env, name, args...)
	if !ok {
		t.Fatalf("%s %s: %s", name, strings.Join(args, " "), out)
	}
	return out
}

// try is output for what may fail; then it returns the error too.
func try(env []string, name string, args ...string) (string, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("%v\n%s%s", err, &out, &errs), false
	}
	return out.String(), true
}

// binary returns the path of a program that deps.sh has built: in AWE4LB_REAL, or else awe4lb-real in the user's cache.
func binary(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("AWE4LB_REAL")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "awe4lb-real")
	}
	return filepath.Join(dir, name)
}

// process is a server that the test may end and start again.
type process struct {
	t    *testing.T
	argv []string
	env  []string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("%v (deps.sh installs it)", err)
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

// stop sends a signal and waits for the end.
func (p *process) stop(s syscall.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("%s did not end within 30s of %v", p.argv[0], s)
	}
	p.cmd = nil
}

// tail returns the end of the log, for a test that has failed.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-3000):])
}

// until waits for ok, which is asked again and again.
func until(t *testing.T, what string, d time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

func freePort(t *testing.T) string { return strconv.Itoa(lbtest.FreePort(t)) }

// enclosure is a network and a mount namespace with a bridge, br0, at 10.77.0.1/24. They live as long as the process that
// made them and those that run in them.
type enclosure int // the process

func newEnclosure(t *testing.T) enclosure {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("want root, to make namespaces")
	}
	// What was mounted on /sys shows the network of where it was mounted; the cgroups below it have to come along. A bridge
	// without an address of its own takes the lowest of its ports: instances would lose it whenever another comes.
	const script = `set -e
cg=$(mktemp -d)
mount --rbind /sys/fs/cgroup "$cg"
mount -t sysfs sysfs /sys
mount --rbind "$cg" /sys/fs/cgroup
umount -l "$cg"
rmdir "$cg"
ip link set lo up
ip link add br0 address 02:00:0a:4d:00:01 type bridge
ip addr add 10.77.0.1/24 dev br0
ip link set br0 up
echo ready
exec cat`
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-c", script)
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e := enclosure(cmd.Process.Pid)
	t.Cleanup(func() {
		e.clear()
		hold.Close()
		_ = cmd.Wait()
	})
	b := make([]byte, 16)
	if n, err := out.Read(b); err != nil || string(b[:n]) != "ready\n" {
		t.Fatalf("no namespaces: %q %v", b[:n], err)
	}
	return e
}

// clear ends what still runs in the enclosure's network beside the process that holds it.
func (e enclosure) clear() {
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", e))
	if err != nil {
		return
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if ns, err := os.Readlink(p + "/ns/net"); err == nil && ns == mine && pid != int(e) && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// dial opens a TCP connection from within.
func (e enclosure) dial(address string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", e))
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // this thread would be in the wrong network
		}
	}()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	a := netip.MustParseAddrPort(address)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	return net.FileConn(f)
}

// door listens outside and leads to an address within; it returns its own.
func (e enclosure) door(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			out, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer out.Close()
				in, err := e.dial(address)
				if err != nil {
					return
				}
				defer in.Close()
				go func() { _, _ = io.Copy(in, out); in.Close() }()
				_, _ = io.Copy(out, in)
			}()
		}
	}()
	return l.Addr().String()
}

// in returns the command line of a program that runs in there.
func (e enclosure) in(argv ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(int(e)), "--net", "--mount", "--"}, argv...)
}

// named builds what runs in the containers.
func named(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "named")
	output(t, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./testdata/named")
	return file
}

// shortDir returns a folder whose path is short enough for unix sockets in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "real-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Log(fmt.Errorf("clean up: %w", err))
		}
	})
	return dir
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}
