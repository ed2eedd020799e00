package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// FuzzBridge plays a session through the engine, in one of the forms of TLS. Both ends send a stream, in segments, records
// and reads of sizes that script says, handshake included, and end in one of the ways of cut. What arrives is what was
// sent; a stream that is cut never looks as if it had ended.
func FuzzBridge(f *testing.F) {
	f.Add([]byte(nil), uint32(0), uint32(0), uint8(0), uint8(0))
	f.Add([]byte{0}, uint32(200), uint32(100), uint8(1), uint8(0))
	f.Add([]byte{200, 0, 3}, uint32(150_000), uint32(1), uint8(2), uint8(0))
	f.Add([]byte{4, 0, 255, 130}, uint32(70_000), uint32(90_000), uint8(3), uint8(0))
	f.Add([]byte{100}, uint32(20_000), uint32(300), uint8(4), uint8(1))
	f.Add([]byte{255, 0}, uint32(30_000), uint32(16_385), uint8(6), uint8(2))
	f.Add([]byte{1, 160}, uint32(7), uint32(100_000), uint8(5), uint8(3))
	f.Add([]byte{180, 20}, uint32(0), uint32(50_000), uint8(2), uint8(4))
	f.Add([]byte{9, 140}, uint32(40_000), uint32(50_000), uint8(0), uint8(1))
	f.Add([]byte{131, 0, 0}, uint32(40_000), uint32(0), uint8(4), uint8(2))
	interrupts := make(chan os.Signal, 1) // so that the runtime's goroutine for signals, which fuzzing wants too, is no leak
	signal.Notify(interrupts, os.Interrupt)
	signal.Stop(interrupts)
	var rigs []*bridgeRig
	for _, form := range forms {
		rigs = append(rigs, newBridgeRig(f, form))
	}
	f.Fuzz(func(t *testing.T, script []byte, up, down uint32, form, cut uint8) {
		const most = 300_000 // bytes of a stream
		x := &bridged{script: script, up: int64(up % most), down: int64(down % most), cut: bridgeCut(cut % 5), version: tls.VersionTLS13,
			ready: make(chan error, 1), begin: make(chan bool), heard: make(chan error, 1)}
		if form&4 != 0 {
			x.version = tls.VersionTLS12
		}
		rigs[form&3].play(t, x)
	})
}

// bridgeCut is who ends a session before its time, and how. Where TLS is not ours, those who truncate reset: crypto/tls,
// who would be the judge, lets a FIN between two records pass.
type bridgeCut uint8

const (
	cutNever bridgeCut = iota
	clientTruncates
	clientResets
	backendTruncates
	backendResets
)

// bridged is what happens in a session.
type bridged struct {
	script   []byte
	up, down int64 // bytes to the backend, to the client
	cut      bridgeCut
	version  uint16

	ready chan error // how the backend's handshake went
	begin chan bool  // closed when both ends are there
	heard chan error // what became of the stream to the backend
}

// bridgeRig is an engine for one form, and a backend that does its part of the session at hand.
type bridgeRig struct {
	*tlsRig
	now chan *bridged
}

func newBridgeRig(f *testing.F, form form) *bridgeRig {
	ca := lbtest.NewCA(f)
	pair := ca.Pair("backend.test")
	r := &bridgeRig{now: make(chan *bridged, 1)}
	backend := lbtest.Serve(f, func(raw *net.TCPConn) {
		x := <-r.now
		_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
		pieces := &cutter{TCPConn: raw, script: x.script, at: 1}
		var c duplex = pieces
		if form.backTLS {
			tc := tls.Server(pieces, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: x.version})
			if err := tc.Handshake(); err != nil {
				x.ready <- err
				return
			}
			c = form.end(tc)
		}
		x.ready <- nil
		<-x.begin
		x.heard <- x.talk(c, raw, [2]int64{2, x.down}, [2]int64{1, x.up}, x.cut == backendTruncates && form.originate, x.cut >= backendTruncates)
	})
	r.tlsRig = newTLSRigOn(f, 1, form, ca, []string{backend}, nil)
	return r
}

// play plays a session.
func (r *bridgeRig) play(t *testing.T, x *bridged) {
	r.now <- x
	begin := sync.OnceFunc(func() { close(x.begin) })
	defer begin()
	conn, err := net.DialTimeout("tcp", r.address(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	raw := conn.(*net.TCPConn)
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	pieces := &cutter{TCPConn: raw, script: x.script}
	var c duplex = pieces
	if r.form.clientTLS {
		config := r.client.Clone()
		config.MaxVersion = x.version
		tc := tls.Client(pieces, config)
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c = r.form.end(tc)
	}
	select {
	case err := <-x.ready: // so that a cut is one of a session
		if err != nil {
			t.Fatal(err)
		}
		begin()
	case <-time.After(20 * time.Second):
		t.Fatal("the backend is not reached")
	}
	byClient := x.cut == clientTruncates || x.cut == clientResets
	toClient := x.talk(c, raw, [2]int64{1, x.up}, [2]int64{2, x.down}, x.cut == clientTruncates && r.form.terminate, byClient)
	toBackend := <-x.heard
	raw.Close()

	for who, err := range map[string]error{"client": toClient, "backend": toBackend} {
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			t.Errorf("the %s waits for ever: %v", who, err)
		case err != nil && errors.Unwrap(err) == nil:
			t.Errorf("the %s heard what was not said: %v", who, err)
		case err != nil && x.cut == cutNever:
			t.Errorf("the %s did not hear all: %v", who, err)
		case err == nil && (who == "client" && x.cut >= backendTruncates || who == "backend" && byClient):
			t.Errorf("the %s took a cut for an end", who)
		}
	}
	var ended []Record
	lbtest.Eventually(t, "the session has ended", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		ended = r.ended
		return len(ended) > 0
	})
	r.mu.Lock()
	r.ended = nil
	r.mu.Unlock()
	if want := x.reasons(r.form); ended[0].Reason != want[0] && ended[0].Reason != want[len(want)-1] {
		t.Errorf("ended for %v %q; want %v", ended[0].Reason, ended[0].Detail, want)
	}
}

// reasons are those for which the session may end, where its TLS is ours.
func (x *bridged) reasons(f form) []Reason {
	switch {
	case x.cut == clientTruncates && f.terminate:
		return []Reason{ClientTruncated, BackendEOF} // the backend may have been done
	case x.cut == clientTruncates || x.cut == clientResets:
		return []Reason{ClientRST}
	case x.cut == backendTruncates && f.originate:
		return []Reason{BackendTruncated}
	case x.cut != cutNever:
		return []Reason{BackendRST, ConnectRefused} // the latter when the reset comes before we know of the connection
	}
	return []Reason{ClientEOF, BackendEOF}
}

// talk sends a stream, and returns what became of the other: streams are seeds and lengths. At the end of its own the end
// is told so, or the connection is cut, with a FIN that TLS does not know of or a reset.
func (x *bridged) talk(c duplex, raw *net.TCPConn, out, in [2]int64, truncate, cut bool) error {
	sent := make(chan error, 1)
	go func() {
		var failed error
		defer func() { sent <- failed }()
		script := &cutter{script: x.script, at: int(out[0])}
		stream := lbtest.NewStream(uint64(out[0]), out[1])
		for b := make([]byte, 40<<10); ; {
			n, err := stream.Read(b[:script.next(len(b))])
			if err != nil {
				break
			}
			if _, failed = c.Write(b[:n]); failed != nil {
				break
			}
		}
		switch {
		case truncate:
			_ = raw.CloseWrite()
		case cut:
			_ = raw.SetLinger(0)
			_ = raw.Close()
		default:
			if err := c.CloseWrite(); failed == nil {
				failed = err
			}
		}
	}()
	err := lbtest.NewStream(uint64(in[0]), in[1]).Check(struct{ io.Reader }{c})
	// Linux tells of a reset once: when it tells the one who writes, the one who reads hears an end.
	if failed := <-sent; failed != nil && x.cut != cutNever && (err == nil || strings.HasPrefix(err.Error(), "ended after")) {
		return fmt.Errorf("%v: %w", err, failed)
	}
	return err
}

// cutter writes and reads in pieces whose sizes a script says, over and over, but for maxPieces of them at the most.
type cutter struct {
	*net.TCPConn
	script []byte
	at     int
	pieces int
}

const maxPieces = 500

// next returns the size of the next piece of n bytes.
func (c *cutter) next(n int) int {
	if len(c.script) == 0 || c.pieces == maxPieces || n == 0 {
		return n
	}
	size := int(c.script[c.at%len(c.script)])
	c.at++
	c.pieces++
	if size >= 128 {
		size = (size - 127) * 300
	}
	return min(size+1, n)
}

func (c *cutter) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.TCPConn.Write(b[n : n+c.next(len(b)-n)])
		n += m
	}
	return n, err
}
