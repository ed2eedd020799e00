package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// read on, and it is refused.
func TestHelloFillsLimit(t *testing.T) {
	for _, f := range []form{terminate, passthrough} {
		t.Run(f.name, func(t *testing.T) {
			r := newTLSRigOf(t, 1, f, unreached(t), nil)
			const want = 2733 // bytes of the message; in records of a byte each it just stays under the limit as it goes on
			message := "\x01\x00" + string([]byte{(want - 4) >> 8, (want - 4) & 0xff}) + strings.Repeat("x", want-4)
			var hello strings.Builder
			for i := range message {
				hello.WriteString("\x16\x03\x01\x00\x01" + message[i:i+1])
			}
			c := r.dial()
			_, _ = io.WriteString(c, hello.String())
			got, _ := io.ReadAll(c)
			if string(got) != "\x15\x03\x03\x00\x02\x02\x32" {
				t.Errorf("the client heard %q", got)
			}
			r.wantEnds(BadHello)
		})
	}
}

// TestHelloThenFIN: a client that says nothing more after its ClientHello cannot finish the handshake, and ends at once.
func TestHelloThenFIN(t *testing.T) {
	r := newTLSRig(t, terminate, unreached(t), nil)
	raw := r.dial()
	_ = tls.Client(writer{raw, func(b []byte) (int, error) {
		cork(t, raw) // so that FIN is in the same segment
		n, err := raw.Write(b)
		_ = raw.CloseWrite()
		return n, errors.Join(err, io.ErrClosedPipe)
	}}, r.client).Handshake()
	_, _ = io.Copy(io.Discard, raw)
	r.wantEnds(HandshakeFailed)
}

// cork has c send nothing but full segments.
func cork(t testing.TB, c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { sysSetInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
}

// TestChallengeAmongOthers: only a client that offers nothing but acme-tls/1 comes for a challenge.
func TestChallengeAmongOthers(t *testing.T) {
	for _, protocols := range [][]string{{acmeTLS, "h2"}, {"\x0a\x0a", acmeTLS}, {acmeTLS}} {
		r := newTLSRig(t, terminate, echoTLS, nil)
		r.client.NextProtos = protocols
		c := tls.Client(r.dial(), r.client)
		if len(protocols) == 2 && protocols[1] == "h2" {
			say(t, c, "x")
			hear(t, c, "x")
			continue
		}
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("%q: the client heard %q, %v", protocols, got, err)
		}
		r.wantEnds(Challenge)
	}
}
