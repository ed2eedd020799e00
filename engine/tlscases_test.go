package engine

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
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
