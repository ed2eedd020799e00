package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// crowd opens n connections to the admin from a source address, "" for a unix socket, and writes what is given on each. Where that
// is a whole request it waits for the answer, so that the connection is idle then.
func (r *rig) crowd(n int, source, sent string) []net.Conn {
	r.t.Helper()
	var mu sync.Mutex
	var all []net.Conn
	var done sync.WaitGroup
	for range n {
		done.Go(func() {
			c, err := r.from(source)
			if err != nil {
				r.t.Error(err)
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			_, _ = io.WriteString(c, sent)
			if strings.HasSuffix(sent, "\r\n\r\n") {
				_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
				_, _ = c.Read(make([]byte, 1024)) // it may be the one that gives way
			}
		})
	}
	done.Wait()
	r.t.Cleanup(func() {
		for _, c := range all {
			c.Close()
		}
	})
	return all
}

func (r *rig) from(source string) (net.Conn, error) {
	if source == "" {
		return net.Dial("unix", strings.TrimPrefix(r.s.Address(), "unix:"))
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return d.Dial("tcp", r.s.Address())
}

// asks sends a request on a connection and returns the status of the answer.
func asks(c net.Conn, request string) (int, error) {
	_ = c.SetDeadline(time.Now().Add(readTimeout / 2)) // sooner than what is slow would end by itself
	if _, err := io.WriteString(c, request); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// The ways to hold a connection.
var holding = map[string]string{
	"silent":          "",
	"idle":            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"half a header":   "GET /healthz HTTP/1.1\r\nHost: loc",
	"half a body":     "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
	"an endless body": "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
	"reads nothing":   strings.Repeat("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000) + "GET",
}

const ping = "GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n"

// TestCrowdsGiveWay: whoever holds all connections there may be, an operator gets in, from the same address too; and who was there
// before, from another address, stays.
func TestCrowdsGiveWay(t *testing.T) {
	for name, sent := range holding {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, most := newRig(t), maxClients
			if name == "reads nothing" { // the kernel buffers some MB of each
				most = 20
				r.s.clients.mu.Lock()
				r.s.clients.most = most
				r.s.clients.mu.Unlock()
			}
			early, err := r.from("127.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			defer early.Close()
			if status, err := asks(early, ping); status != 200 {
				t.Fatalf("before: %d %v", status, err)
			}
			r.crowd(most+most/5, "127.0.0.2", sent)
			for _, source := range []string{"127.0.0.1", "127.0.0.2"} {
				c, err := r.from(source)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if status, err := asks(c, ping); status != 200 {
					t.Errorf("from %s: %d %v", source, status, err)
				}
			}
			if status, err := asks(early, ping); status != 200 {
				t.Errorf("who was there before: %d %v", status, err)
			}
			lbtest.Eventually(t, "the rest has gone", func() bool {
				r.s.clients.mu.Lock()
				defer r.s.clients.mu.Unlock()
				return len(r.s.clients.open) <= most
			})
			if r.hits("admin_connections") == 0 {
				t.Error("not counted")
			}
		})
	}
}

// TestCrowdsOnUnixSocketsGiveWay: the same where nobody has an address.
func TestCrowdsOnUnixSocketsGiveWay(t *testing.T) {
	r := newRig(t)
	s, err := Start(open(config.Address{Path: filepath.Join(t.TempDir(), "admin.sock")}), r.s.o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(t.Context()) })
	r.s = s
	r.crowd(maxClients+100, "", holding["idle"])
	c, err := r.from("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if status, err := asks(c, ping); status != 200 {
		t.Errorf("%d %v", status, err)
	}
}

// TestCrowdsDoNotMatterToTraffic: while the admin is held, data goes through.
func TestCrowdsDoNotMatterToTraffic(t *testing.T) {
	r := newRig(t, lbtest.Echo(t))
	session := r.traffic()
	r.crowd(maxClients+100, "127.0.0.2", holding["half a body"])
	for _, c := range []net.Conn{session, r.traffic()} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Error(err)
		}
	}
}

// TestWhatIsAtWorkDoesNotGiveWay: a change gets its answer however many come while it is worked on, and so does a stream.
func TestWhatIsAtWorkDoesNotGiveWay(t *testing.T) {
	r := newRig(t)
	stream := bufio.NewReader(r.open("/api/v1/stream", nil).Body)
	nextEvent(t, stream)
	working, finish := make(chan struct{}), make(chan struct{})
	r.reload = func() (*balancer.Report, error) {
		close(working)
		<-finish
		return new(balancer.Report), nil
	}
	c, err := r.from("127.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-working
	r.crowd(maxClients+100, "127.0.0.2", "")
	close(finish)
	if status, err := asks(c, ""); status != 200 {
		t.Errorf("%d %v", status, err)
	}
	nextEvent(t, stream)
	nextEvent(t, stream)
}

// TestSlowRequestsEnd: a byte now and then does not prolong what a request may take, neither in the header nor in the body.
func TestSlowRequestsEnd(t *testing.T) {
	for _, name := range []string{"silent", "half a header", "half a body", "an endless body"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c := r.crowd(1, "127.0.0.1", holding[name])[0]
			_ = c.SetDeadline(time.Now().Add(2 * readTimeout))
			ended := make(chan struct{})
			go func() {
				drip := map[string]string{"half a header": "x", "half a body": "x", "an endless body": "1\r\nx\r\n"}[name]
				ticker := time.NewTicker(readTimeout / 20)
				defer ticker.Stop()
				for {
					select {
					case <-ended:
						return
					case <-ticker.C:
						_, _ = io.WriteString(c, drip)
					}
				}
			}()
			begun := time.Now()
			got, err := next(bufio.NewReader(c))
			close(ended)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if err == nil && got.status != 408 {
				t.Errorf("%d %s; want 408", got.status, got.body)
			}
			if took := time.Since(begun); took > readTimeout*3/2 {
				t.Errorf("it took %v; want about %v", took, readTimeout)
			}
		})
	}
}

// TestHugeBodies: they are refused by what they say they are, and else by what they are, before they are read.
func TestHugeBodies(t *testing.T) {
	r := newRig(t)
	head := "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	chunks := strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10)), maxBody/(64<<10)+1)
	for name, sent := range map[string]string{
		"declared":      head + fmt.Sprintf("Content-Length: %d\r\n\r\n{", maxBody+1),
		"chunked":       head + "Transfer-Encoding: chunked\r\n\r\n" + chunks,
		"one chunk":     head + "Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n{",
		"if you please": head + fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", maxBody+1),
	} {
		c, err := r.from("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(readTimeout / 2))
		go func() { _, _ = io.WriteString(c, sent) }()
		if got, err := next(bufio.NewReader(c)); err != nil || got.status != 413 {
			t.Errorf("%s: %+v %v; want 413", name, got, err)
		}
	}
	if status, err := asks(r.crowd(1, "127.0.0.1", "")[0], ping); status != 200 {
		t.Errorf("the next client: %d %v", status, err)
	}
}
