//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"

	"awe4lb/internal/lbtest"
)

// iperfSum is what iperf3 says of one direction at one end.
type iperfSum struct {
	Bytes         float64
	BitsPerSecond float64 `json:"bits_per_second"`
}

func TestIperf3(t *testing.T) {
	port := lbtest.FreePort(t)
	server := launch(t, nil, "iperf3", "-s", "-B", "127.0.0.1", "-p", fmt.Sprint(port), "--forceflush")
	server.waitFor("iperf3 listens", func() bool { return server.out.has("Server listening") })
	lb := start(t, balance(local(port)))

	for _, mode := range []struct {
		name     string
		args     []string
		up, down bool
	}{
		{"up", nil, true, false},
		{"down", []string{"-R"}, false, true},
		{"both ways", []string{"--bidir"}, true, true},
		{"up in 8 streams", []string{"-P", "8"}, true, false},
		{"down in 8 streams", []string{"-P", "8", "-R"}, false, true},
	} {
		t.Run(mode.name, func(t *testing.T) {
			before := lb.settled()
			args := append([]string{"-c", "127.0.0.1", "-p", lb.port("test"), "-t", "2", "-J"}, mode.args...)
			var said struct {
				Error string
				End   struct {
					SumSent         iperfSum `json:"sum_sent"`
					SumReceived     iperfSum `json:"sum_received"`
					SumSentBack     iperfSum `json:"sum_sent_bidir_reverse"`
					SumReceivedBack iperfSum `json:"sum_received_bidir_reverse"`
				}
			}
			out := run(t, "iperf3", args...)
			if err := json.Unmarshal([]byte(out), &said); err != nil || said.Error != "" {
				t.Fatalf("iperf3: %v, %q\n%s", err, said.Error, out)
			}
			lb.sessionsEnd()
			after := lb.bytes()
			c2b, b2c := float64(after.C2B-before.C2B), float64(after.B2C-before.B2C)
			switch {
			case mode.up && mode.down:
				compare(t, "up", c2b, said.End.SumSent, said.End.SumReceived)
				compare(t, "down", b2c, said.End.SumSentBack, said.End.SumReceivedBack)
			case mode.up:
				compare(t, "up", c2b, said.End.SumSent, said.End.SumReceived)
			case mode.down:
				compare(t, "down", b2c, said.End.SumSent, said.End.SumReceived)
			}
		})
	}
}

// compare wants the balancer's counter to be what the receiver says it got, or a little more: what is on its way when
// the time is over was sent, but nobody takes it any more. iperf3's own talk is a few kB.
func compare(t *testing.T, direction string, counted float64, sent, received iperfSum) {
	t.Helper()
	const talk = 64 << 10
	if received.Bytes == 0 || counted < 0.99*received.Bytes || counted > 1.01*sent.Bytes+talk {
		t.Errorf("%s: counted %.0f bytes; iperf3 sent %.0f, received %.0f", direction, counted, sent.Bytes, received.Bytes)
	}
	t.Logf("%s: %.1f Gbit/s; counted %+.3f %% of what was received, %+.3f %% of what was sent", direction,
		received.BitsPerSecond/1e9, 100*(counted/received.Bytes-1), 100*(counted/sent.Bytes-1))
}
