package sys

import (
	"bytes"
	"syscall"
	"testing"
	"time"
)

func TestClientAddr(t *testing.T) {
	seen := map[[4]byte]bool{}
	for _, i := range []int{0, 1, 255, 256, 65535, 65536, 1<<22 - 1} {
		a := ClientAddr(i)
		if ip := a.IP(); ClientIndex(ip) != i || seen[ip] {
			t.Errorf("client %d has the address %v, which reads back as %d", i, a, ClientIndex(ip))
		}
		seen[a.IP()] = true
	}
	for _, ip := range [][4]byte{{127, 0, 0, 1}, {127, 128, 0, 1}, {10, 64, 0, 1}} {
		if i := ClientIndex(ip); i != -1 {
			t.Errorf("%v is no client, but reads as %d", ip, i)
		}
	}
}

// TestDatagramsFromManyAddresses sends from three addresses through one socket, alone and as a train, and answers each.
func TestDatagramsFromManyAddresses(t *testing.T) {
	loopback, _ := ParseAddr("127.0.0.1:0")
	server, at, err := ListenDatagrams(loopback, false, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(server)
	client, _, err := ListenDatagrams(AnyAddr(0), true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(client)

	out, in := NewOutbox(4, 4), NewInbox(8, 100)
	one, two, three := ClientAddr(1), ClientAddr(2), ClientAddr(70000)
	out.Open(&at, &one, 0)
	out.Put([]byte("head"))
	out.Put([]byte("tail"))
	out.Open(&at, &two, 0)
	out.Put(bytes.Repeat([]byte{'x'}, 150)) // more than a slot of the inbox
	out.Open(&at, &three, 3)
	out.Put([]byte("abcdefgh"))
	if n, errno := out.Send(client); n != 3 || errno != 0 || out.Len() != 0 {
		t.Fatalf("sent %d messages, %v; want 3", n, errno)
	}
	got := receive(t, server, in, 5)
	want := []struct {
		from, text string
		cut        bool
	}{{"127.64.0.1", "headtail", false}, {"127.64.0.2", "", true}, {"127.65.17.112", "abc", false}, {"127.65.17.112", "def", false}, {"127.65.17.112", "gh", false}}
	for i, w := range want {
		from := *in.From(i)
		if in.Truncated(i) != w.cut || !w.cut && string(in.Payload(i)) != w.text || from.IP() != mustIP(t, w.from) {
			t.Errorf("datagram %d of %d: %q from %v, truncated %v; want %+v", i, got, in.Payload(i), from, in.Truncated(i), w)
		}
	}

	reply := *in.From(2)
	out.Open(&reply, nil, 0)
	out.Put([]byte("back"))
	if n, errno := out.Send(server); n != 1 || errno != 0 {
		t.Fatalf("answered %d, %v", n, errno)
	}
	receive(t, client, in, 1)
	if to := in.To(0); to != three.IP() || string(in.Payload(0)) != "back" || !in.From(0).Same(&at) {
		t.Errorf("answer %q from %v arrived at %v, want it at %v", in.Payload(0), in.From(0), to, three)
	}
	if n, errno := in.Receive(client); n != 0 || errno != syscall.EAGAIN {
		t.Errorf("empty socket: %d, %v", n, errno)
	}
}

func TestOutboxLeavesOutWhatCannotBeSent(t *testing.T) {
	loopback, _ := ParseAddr("127.0.0.1:0")
	fd, at, err := ListenDatagrams(loopback, false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	out, in := NewOutbox(3, 1), NewInbox(4, 100)
	for i := range 3 {
		out.Open(&at, nil, 0)
		out.Put(make([]byte, []int{10, 70000, 20}[i]))
	}
	if n, errno := out.Send(fd); n != 2 || errno != syscall.EMSGSIZE {
		t.Errorf("sent %d, %v; want 2 and EMSGSIZE", n, errno)
	}
	receive(t, fd, in, 2)
}

func receive(t *testing.T, fd int, in *Inbox, want int) int {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		n, errno := in.Receive(fd)
		if n == want {
			return n
		}
		if errno != syscall.EAGAIN || time.Now().After(deadline) {
			t.Fatalf("received %d datagrams, %v; want %d", n, errno, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func mustIP(t *testing.T, s string) [4]byte {
	a, err := ParseAddr(s + ":1")
	if err != nil {
		t.Fatal(err)
	}
	return a.IP()
}
