package backend

import (
	"io"
	"net"
	"sync"
)

// Naive is the proxy that every Go programmer would write first: two goroutines and io.Copy per connection. It is a rival
// and a floor: what a data plane of our own must beat to be worth its code. io.Copy between two TCP connections uses
// splice(2), so it is hard to beat in bulk.
type Naive struct {
	listener net.Listener
	backend  string
	sessions sync.WaitGroup
}

// StartNaive listens on address and relays every connection to backend until Close.
func StartNaive(address, backend string) (*Naive, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &Naive{listener: ln, backend: backend}
	p.sessions.Go(p.acceptLoop)
	return p, nil
}

// Addr returns the address listened on.
func (p *Naive) Addr() string { return p.listener.Addr().String() }

// Close stops accepting and waits for the sessions to end by themselves.
func (p *Naive) Close() {
	p.listener.Close()
	p.sessions.Wait()
}

func (p *Naive) acceptLoop() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.sessions.Go(func() { p.relay(client) })
	}
}

func (p *Naive) relay(client net.Conn) {
	defer client.Close()
	backend, err := net.Dial("tcp", p.backend)
	if err != nil {
		return
	}
	defer backend.Close()
	done := make(chan struct{})
	go func() {
		copyThenFIN(backend, client)
		close(done)
	}()
	copyThenFIN(client, backend)
	<-done
}

func copyThenFIN(dst, src net.Conn) {
	io.Copy(dst, src)
	dst.(*net.TCPConn).CloseWrite()
}
