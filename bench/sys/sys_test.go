package sys

import (
	"syscall"
	"testing"
	"time"
)

func TestAddr(t *testing.T) {
	a, err := ParseAddr("127.0.0.1:8080")
	if err != nil || a.String() != "127.0.0.1:8080" || a.Port() != 8080 {
		t.Errorf("got %v, port %d, %v", a, a.Port(), err)
	}
	for _, bad := range []string{"", "localhost:80", "[::1]:80", "127.0.0.1", "127.0.0.1:99999"} {
		if a, err := ParseAddr(bad); err == nil {
			t.Errorf("%q: read as %v, want an error", bad, a)
		}
	}
	seen := map[string]bool{}
	for i := range 62500 {
		a := LoopbackSource(i)
		seen[a.String()] = true
	}
	if len(seen) != 62500 || LoopbackSource(62500).String() != LoopbackSource(0).String() {
		t.Errorf("%d different sources, want 62500 and then the first again", len(seen))
	}
}

func TestConnectSendAndEnd(t *testing.T) {
	a, _ := ParseAddr("127.0.0.1:0")
	ln, bound, err := Listen(a, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(ln)
	ep, err := NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	ep.Add(ln, In, 7, -1)

	client, _ := Socket()
	defer Close(client)
	from := LoopbackSource(5)
	if errno := BindSource(client, &from); errno != 0 {
		t.Fatal(errno)
	}
	if errno := Connect(client, &bound); errno != 0 && errno != syscall.EINPROGRESS {
		t.Fatal(errno)
	}
	events := make([]Event, 4)
	if n := ep.Wait(events, 5*time.Second); n != 1 || Slot(&events[0]) != 7 || Gen(&events[0]) != -1 {
		t.Fatalf("%d events, first %+v; want the listener's", n, events[0])
	}
	server, errno := Accept(ln)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer Close(server)
	if _, errno := Accept(ln); errno != syscall.EAGAIN {
		t.Errorf("a second accept: %v, want EAGAIN", errno)
	}
	if errno := SocketError(client); errno != 0 {
		t.Errorf("connect: %v", errno)
	}
	if n, errno := Send(client, []byte("hello")); n != 5 || errno != 0 {
		t.Errorf("send: %d, %v", n, errno)
	}
	ShutdownWrite(client)
	ep.Add(server, In, 8, 3)
	if n := ep.Wait(events, 5*time.Second); n != 1 || Slot(&events[0]) != 8 || Gen(&events[0]) != 3 {
		t.Fatalf("%d events, first %+v; want the connection's", n, events[0])
	}
	buf := make([]byte, 16)
	if n, errno := Read(server, buf); n != 5 || errno != 0 {
		t.Errorf("read: %d, %v", n, errno)
	}
	if n, errno := Read(server, buf); n != 0 || errno != 0 {
		t.Errorf("read at the end: %d, %v; want 0", n, errno)
	}
	ep.Change(server, 0, 8, 3)
	if n := ep.Wait(events, time.Millisecond); n != 0 {
		t.Errorf("%d events although nothing is watched", n)
	}
}

func TestWaitEndsAfterItsTimeout(t *testing.T) {
	ep, err := NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	for _, fallback := range []bool{false, true} { // with and without epoll_pwait2
		noPwait2.Store(fallback)
		began := time.Now()
		if n := ep.Wait(make([]Event, 1), 3*time.Millisecond); n != 0 || time.Since(began) < 2900*time.Microsecond {
			t.Errorf("fallback %v: %d events after %v", fallback, n, time.Since(began))
		}
	}
	noPwait2.Store(false)
}

func TestRaiseOpenFiles(t *testing.T) {
	hard, err := RaiseOpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	var lim syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim)
	if lim.Cur != hard || lim.Max != hard {
		t.Errorf("limits are %+v, want both %d", lim, hard)
	}
}

func TestPollWaits(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fds[1])
	if begun := time.Now(); Poll(fds[1], In, 20*time.Millisecond) || time.Since(begun) < 20*time.Millisecond {
		t.Errorf("something to read from nobody, after %v", time.Since(begun))
	}
	if Poll(fds[1], In, -time.Second) {
		t.Error("the time was over, and there was something to read")
	}
	if !Poll(fds[1], Out, time.Minute) {
		t.Error("no room to write to")
	}
	time.AfterFunc(10*time.Millisecond, func() { Send(fds[0], []byte("x")) })
	if !Poll(fds[1], In, time.Minute) {
		t.Error("a byte was not seen")
	}
	Close(fds[0])
	if !Poll(fds[1], In, time.Minute) {
		t.Error("an end was not seen")
	}
}
