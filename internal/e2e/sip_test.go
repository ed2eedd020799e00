//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"testing"

	"awe4lb/internal/lbtest"
)

// startSIP starts a SIP server that takes calls over UDP. It knows the calls it has taken, and no others.
func startSIP(t *testing.T) string {
	t.Helper()
	port := lbtest.FreePort(t)
	s := launch(t, func(cmd *exec.Cmd) { cmd.Dir = openDir(t) }, "sipp", "-sn", "uas", "-i", "127.0.0.1", "-p", fmt.Sprint(port), "-nostdin")
	s.waitFor("sipp listens", func() bool { return !udpFree(port) })
	return local(port)
}

// A call is five datagrams over 200 ms, INVITE to BYE: were one of them to go to the other server, which does not know the
// call, it would fail. sipp's exit code is 0 when every call succeeded.
func TestSIP(t *testing.T) {
	const calls = 400
	for _, test := range []struct {
		name, sockets string
		flows         int
	}{
		{"all calls from one port", "u1", 1},
		{"each call from a port of its own", "un", calls},
	} {
		t.Run(test.name, func(t *testing.T) {
			lb := start(t, balanceDatagrams("", startSIP(t), startSIP(t)))
			run(t, "sipp", "-sn", "uac", lb.address("test"), "-i", "127.0.0.1", "-t", test.sockets, "-m", fmt.Sprint(calls),
				"-r", "100", "-d", "200", "-max_retrans", "3", "-timeout", "60s", "-max_socket", "1000", "-nostdin")
			f := lb.frontend("test")
			t.Logf("%d flows, %d datagrams up, %d down", f.Accepted, f.UDP.Datagrams.C2B, f.UDP.Datagrams.B2C)
			// INVITE, ACK and BYE; 180, 200 and 200.
			if f.UDP.Datagrams.C2B < 3*calls || f.UDP.Datagrams.B2C < 3*calls {
				t.Errorf("%d datagrams up and %d down; want at least three of a call each", f.UDP.Datagrams.C2B, f.UDP.Datagrams.B2C)
			}
			if f.Accepted > int64(test.flows) || f.Accepted < int64(test.flows*9/10) { // a port may come twice
				t.Errorf("%d flows, want %d", f.Accepted, test.flows)
			}
			if len(f.UDP.DroppedC2B)+len(f.UDP.DroppedB2C) > 0 {
				t.Errorf("dropped %v and %v", f.UDP.DroppedC2B, f.UDP.DroppedB2C)
			}
			for _, b := range lb.status().Pools[0].Backends {
				t.Logf("%s: %d flows", b.Address, b.Connected)
				if test.flows == calls && b.Connected < calls/2-40 {
					t.Errorf("%s had %d of %d flows; want half", b.Address, b.Connected, calls)
				}
			}
		})
	}
}

// udpFree reports whether nobody takes datagrams at a port of 127.0.0.1.
func udpFree(port int) bool {
	c, err := net.ListenPacket("udp", local(port))
	if err == nil {
		c.Close()
	}
	return err == nil
}
