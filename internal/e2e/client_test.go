//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// echo is a backend that answers every byte with itself and the end with the end. lbtest.Echo does so too, but by
// splice, with a pipe per connection: too many descriptors for thousands.
func echo(t *testing.T) string {
	t.Helper()
	return lbtest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 2048)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	})
}

// request is what the clients here ask and what echo answers.
var request = bytes.Repeat([]byte("question"), 8)

// clients are connections to an echo through the balancer.
type clients []net.Conn

// dial makes n connections, each of which has had one answer. They are closed with the test if not before.
func dial(t *testing.T, address string, n int) clients {
	t.Helper()
	var cs clients
	t.Cleanup(func() { cs.close() })
	for range n {
		c, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	if err := cs.ask(n); err != nil {
		t.Fatal(err)
	}
	return cs
}

func (cs clients) close() {
	for _, c := range cs {
		c.Close()
	}
}

// ask has n requests answered over the connections, all of them at work at once.
func (cs clients) ask(n int) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(cs))
	for i, c := range cs {
		share := n / len(cs)
		if i < n%len(cs) {
			share++
		}
		wg.Go(func() {
			for range share {
				if err := ask(c); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// ask sends the request and reads the answer, within a minute.
func ask(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(request); err != nil {
		return err
	}
	answer := make([]byte, len(request))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, request) {
		return fmt.Errorf("got %q, want %q", answer, request)
	}
	return nil
}

// short makes n connections, each for one request, so many at a time.
func short(address string, n, atOnce int) error {
	var wg sync.WaitGroup
	todo, failed := make(chan bool), make(chan error, n)
	for range atOnce {
		wg.Go(func() {
			for range todo {
				if err := once(address); err != nil {
					failed <- err
				}
			}
		})
	}
	for range n {
		todo <- true
	}
	close(todo)
	wg.Wait()
	close(failed)
	return <-failed
}

// once makes a connection for one request, and returns when the balancer has closed it too.
func once(address string) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := ask(c); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return fmt.Errorf("after the answer: %d bytes, %v; want the end", n, err)
	}
	return nil
}
