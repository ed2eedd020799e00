// Package lbtest gives tests what a load balancer meets: backends of every temper, streams whose every byte is checked,
// and the means to wait for an event and to notice a leak. All backends listen on 127.0.0.1 and end with the test.
package lbtest

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// Serve runs handle for every connection and returns the address. The connection is closed when handle returns.
func Serve(t testing.TB, handle func(*net.TCPConn)) string {
	t.Helper()
	return serve(t, listen(t, "127.0.0.1:0"), func(c net.Conn) { handle(c.(*net.TCPConn)) })
}

// ServeAt is Serve on a given address, for a backend that comes back.
func ServeAt(t testing.TB, address string, handle func(*net.TCPConn)) string {
	t.Helper()
	return serve(t, listen(t, address), func(c net.Conn) { handle(c.(*net.TCPConn)) })
}

// ServeUnix is Serve on a unix socket.
func ServeUnix(t testing.TB, path string, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, handle)
	return "unix:" + path
}

// ServeOn is Serve on a listener that is there already; it is closed with the test.
func ServeOn(t testing.TB, l net.Listener, handle func(net.Conn)) {
	t.Helper()
	serve(t, l, handle)
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serve(t testing.TB, l net.Listener, handle func(net.Conn)) string {
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				time.Sleep(10 * time.Millisecond) // out of descriptors: not this test's subject
				continue
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// Echo answers every byte with itself and the end with the end.
func Echo(t testing.TB) string {
	t.Helper()
	return Serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
}

// Named says its name at once and closes: who was picked?
func Named(t testing.TB, name string) string {
	t.Helper()
	return Serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, name) })
}

// Silent accepts and neither reads nor says anything until the client resets the connection or the test ends.
func Silent(t testing.TB) string {
	t.Helper()
	return Serve(t, func(c *net.TCPConn) {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		_ = raw.Read(isClosed) // asked at every event, until it says yes
	})
}

// isClosed reports whether a TCP socket is in the state CLOSE, as after a reset.
func isClosed(fd uintptr) bool {
	const tcpClose = 7
	info := [8]byte{} // struct tcp_info begins with the state
	size := uint32(len(info))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno != 0 || info[0] == tcpClose
}

// Refused is an address nobody listens on, neither over TCP nor for datagrams: see Free.
func Refused(t testing.TB) string {
	t.Helper()
	return Free(t)
}

// Blackhole is an address whose SYNs get no answer: a full accept queue.
func Blackhole(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}
	for range 8 {
		c, err := net.DialTimeout("tcp", address.String(), 200*time.Millisecond)
		if err != nil {
			return address.String()
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("lbtest: an accept queue of 0 took 8 connections")
	return ""
}

// Eventually waits until ok, asked again and again, is true, and fails the test with what after 30 seconds: a machine with too much to do is no bug.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	EventuallyIn(t, 30*time.Second, what, ok)
}

// EventuallyIn is Eventually with a deadline of one's own.
func EventuallyIn(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); ; {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(2 * time.Millisecond) // the pace of asking, not a guess at the answer
	}
}

// FDs returns the number of open descriptors of this process.
func FDs(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// CheckLeaks fails the test when, after everything registered with t.Cleanup later than this call has run, there are
// more descriptors or goroutines than now. Call it first.
func CheckLeaks(t testing.TB) {
	t.Helper()
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close() // the runtime's own poller opens its descriptors with the first socket and keeps them
	}
	fds, goroutines := FDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		for end := time.Now().Add(5 * time.Second); FDs(t) > fds || runtime.NumGoroutine() > goroutines; {
			if time.Now().After(end) {
				t.Fatalf("leak: %d descriptors, were %d: %s; %d goroutines, were %d: %s", FDs(t), fds, openFiles(),
					runtime.NumGoroutine(), goroutines, leftovers())
			}
			runtime.GC() // io.Copy's own pipes are freed by finalizers
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// openFiles names the open descriptors, for the message.
func openFiles() string {
	names, _ := os.ReadDir("/proc/self/fd")
	var files []string
	for _, n := range names {
		file, _ := os.Readlink("/proc/self/fd/" + n.Name())
		files = append(files, n.Name()+" "+file)
	}
	return strings.Join(files, ", ")
}

// leftovers names the goroutines, for the message.
func leftovers() string {
	b := make([]byte, 64<<10)
	b = b[:runtime.Stack(b, true)]
	var names []string
	for _, g := range strings.Split(string(b), "\n\n") {
		if i := strings.LastIndex(g, "created by "); i >= 0 {
			names = append(names, strings.SplitN(g[i+len("created by "):], " in ", 2)[0])
		}
	}
	return strings.Join(names, ", ")
}
