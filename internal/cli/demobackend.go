package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/dns/dnsmessage"
)

func newDemoBackend() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-backend NAME NETWORK",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			signals := make(chan os.Signal, 2)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin) // until our parent ends
				signals <- syscall.SIGTERM
			}()
			socket := os.NewFile(3, "socket")
			if args[1] == "udp" {
				return demoDNS(args[0], socket, signals)
			}
			return demoHTTP(args[0], socket, signals)
		},
	}
}

// demoHTTP serves HTTP on a socket until a signal comes.
func demoHTTP(name string, socket *os.File, signals <-chan os.Signal) error {
	l, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	var n atomic.Int64
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s on %s, request %d\n", name, l.Addr(), n.Add(1))
	})}
	go func() {
		<-signals
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// demoDNS answers DNS questions, and echoes what is none, on a socket until a signal comes.
func demoDNS(name string, socket *os.File, signals <-chan os.Signal) error {
	c, err := net.FilePacketConn(socket)
	if err != nil {
		return err
	}
	go func() {
		<-signals
		c.Close()
	}()
	b := make([]byte, 1<<16)
	for n := 1; ; n++ {
		size, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an ICMP error about a client that has gone
		}
		hello := fmt.Sprintf("hello from %s on %s, datagram %d", name, c.LocalAddr(), n)
		answer := dnsAnswer(b[:size], hello)
		if answer == nil {
			answer = append([]byte(hello+": "), b[:size]...)
		}
		_, _ = c.WriteTo(answer, from)
	}
}

// dnsAnswer returns the answer to a DNS question: text to TXT, 127.0.0.1 to A and ::1 to AAAA, whatever the name. It is nil
// when b holds no question.
func dnsAnswer(b []byte, text string) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response {
		return nil
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return nil
	}
	q := questions[0]
	m := dnsmessage.Message{Questions: questions,
		Header: dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RecursionDesired: h.RecursionDesired}}
	var body dnsmessage.ResourceBody
	switch q.Type {
	case dnsmessage.TypeTXT:
		body = &dnsmessage.TXTResource{TXT: []string{text}}
	case dnsmessage.TypeA:
		body = &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
	case dnsmessage.TypeAAAA:
		body = &dnsmessage.AAAAResource{AAAA: [16]byte{15: 1}}
	}
	if body != nil {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, Body: body}}
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}
