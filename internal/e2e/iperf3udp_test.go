//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

// iperf3 talks over TCP about the test and sends the test's datagrams to the same port: two frontends on one port, before
// the same backend.
func TestIperf3Datagrams(t *testing.T) {
	backend := lbtest.FreePort(t)
	server := launch(t, nil, "iperf3", "-s", "-B", "127.0.0.1", "-p", fmt.Sprint(backend), "--forceflush")
	server.waitFor("iperf3 listens", func() bool { return server.out.has("Server listening") })
	port := lbtest.FreePort(t)
	lb := start(t, datagramFrontend(local(port), `idle_timeout = "1s"`)+fmt.Sprintf(`
[frontends.control]
bind = [%q]
pool = "test"
[pools.test]
backends = [%s]
`, local(port), addresses(local(backend))))

	for _, mode := range []struct {
		name string
		args []string
		up   bool
	}{
		{"up", nil, true},
		{"down", []string{"-R"}, false},
		{"up in 4 flows", []string{"-P", "4", "-b", "25M"}, true},
		{"down in 4 flows", []string{"-P", "4", "-R", "-b", "25M"}, false},
	} {
		t.Run(mode.name, func(t *testing.T) {
			loss := 100.0
			// Others use the machine too: there is to be one run in which they leave enough of it to the three programs.
			for end := time.Now().Add(45 * time.Second); loss >= 1 && time.Now().Before(end); {
				loss = iperfDatagrams(t, lb, port, mode.up, mode.args...)
			}
			if loss >= 1 {
				t.Errorf("lost %.2f %% of the datagrams at the least disturbed time; want less than 1", loss)
			}
		})
	}
}

// iperfDatagrams sends datagrams of 1200 bytes for two seconds, 100 Mbit/s, accounts for each with the balancer's counters and
// what iperf3 says, and returns what was lost on the whole way, in percent: also in queues of iperf3's own sockets.
func iperfDatagrams(t *testing.T, lb *awe4lb, port int, up bool, args ...string) float64 {
	t.Helper()
	before := lb.settledDatagrams()
	args = append([]string{"-c", "127.0.0.1", "-p", fmt.Sprint(port), "-u", "-l", "1200", "-b", "100M", "-t", "2", "-J"}, args...)
	var said struct {
		Error string
		End   struct {
			Sum struct {
				Packets       int64
				Lost          int64   `json:"lost_packets"`
				Percent       float64 `json:"lost_percent"`
				BitsPerSecond float64 `json:"bits_per_second"`
			}
		}
	}
	out := run(t, "iperf3", args...)
	if err := json.Unmarshal([]byte(out), &said); err != nil || said.Error != "" {
		t.Fatalf("iperf3: %v, %q\n%s", err, said.Error, out)
	}
	after := lb.settledDatagrams()
	sum := said.End.Sum
	received := sum.Packets - sum.Lost
	moved := after.UDP.Datagrams.C2B - before.UDP.Datagrams.C2B
	if !up {
		moved = after.UDP.Datagrams.B2C - before.UDP.Datagrams.B2C
	}
	dropped := dropsOf(after) - dropsOf(before)
	t.Logf("%.0f Mbit/s; iperf3 sent %d and lost %d (%.3f %%); awe4lb moved %d and dropped %d in %d flows", sum.BitsPerSecond/1e6,
		sum.Packets, sum.Lost, sum.Percent, moved, dropped, after.Accepted-before.Accepted)
	// Beside the test's own there are a datagram of greeting for each flow, and those under way when the time is over.
	const beside = 100
	if sum.Packets == 0 || moved < received || moved > sum.Packets+beside {
		t.Errorf("counted %d datagrams; iperf3 sent %d, received %d", moved, sum.Packets, received)
	}
	if missing := sum.Packets - moved - dropped; missing > 0 {
		t.Errorf("%d datagrams were neither moved nor dropped: iperf3 sent %d, awe4lb moved %d and dropped %d", missing, sum.Packets, moved, dropped)
	}
	return sum.Percent
}

// dropsOf returns how many datagrams a frontend has dropped.
func dropsOf(f frontendStatus) (n int64) {
	for _, by := range []map[string]int64{f.UDP.DroppedC2B, f.UDP.DroppedB2C} {
		for _, k := range by {
			n += k
		}
	}
	return n
}

// settledDatagrams waits until the flows of the frontend "test" have ended and returns its state: what the kernel has dropped of
// the answers of a flow is counted at its end.
func (lb *awe4lb) settledDatagrams() frontendStatus {
	lb.t.Helper()
	lbtest.Eventually(lb.t, "the control connection has ended", func() bool { return lb.status().Sessions.Open == 0 })
	lbtest.Eventually(lb.t, "the flows have ended", func() bool { return lb.status().Flows.Open == 0 })
	return lb.frontend("test")
}
