package lbtest

import (
	"crypto/tls"
	"errors"
	"net"
)

// ClientHello returns what a TLS client that asks for a name says first: the record with its ClientHello.
func ClientHello(name string) []byte {
	var heard ear
	_ = tls.Client(&heard, &tls.Config{ServerName: name}).Handshake() // which ends with the first read
	return heard.first
}

// ear is a connection that keeps what is written first, and says nothing.
type ear struct {
	net.Conn
	first []byte
}

func (e *ear) Write(b []byte) (int, error) {
	if e.first == nil {
		e.first = append(e.first, b...)
	}
	return len(b), nil
}

func (e *ear) Read([]byte) (int, error) { return 0, errors.New("nothing to hear") }

func (e *ear) Close() error { return nil }
