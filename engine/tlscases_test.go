package engine

import (
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
