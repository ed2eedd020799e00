//go:build real

package real

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// listeners are backends of this process.
type listeners struct {
	t    *testing.T
	host string

	// Guarded by mu.
	mu   sync.Mutex
	byNo map[int]string
	open []net.Listener
}

func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ln := range l.open {
		ln.Close()
	}
}

// address returns where backend n is, which begins to listen when it is first asked for, and does until the test ends.
func (l *listeners) address(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.byNo[n]; ok {
		return at
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(l.host, "0"))
	if err != nil {
		l.t.Fatal(err)
	}
	l.open = append(l.open, ln)
	at := ln.Addr().String()
	l.byNo[n] = at
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, at+"\n")
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return at
}

// outside is for worlds whose backends are listeners.
type outside struct {
	host func(*testing.T) string // where they listen; nil = loopback
	*listeners
}

func (o *outside) serve(t *testing.T) {
	o.listeners = &listeners{t: t, host: "127.0.0.1", byNo: map[int]string{}}
	if o.host != nil {
		o.listeners.host = o.host(t)
	}
	t.Cleanup(o.listeners.close) // as one of the first, so one of the last to run: clients come until the end
}

func (o *outside) within(argv ...string) []string   { return argv }
func (o *outside) dial(at string) (net.Conn, error) { return net.DialTimeout("tcp", at, 5*time.Second) }
func (o *outside) ends() (removed, changed bool)    { return false, false }

// reachable returns an address of this machine that is not of loopback.
func reachable(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Fatalf("got the addresses %v; want one of IPv4 beside loopback", all)
	return ""
}

// at is where backend n is; an address that nobody has when there is no traffic.
func (o *outside) at(n int) string {
	if o.listeners == nil {
		return fmt.Sprintf("10.0.0.%d:80", n)
	}
	return o.address(n)
}
