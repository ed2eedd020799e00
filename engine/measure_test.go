package engine

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestLeastTimeLearns: the backend that answers late is found out, whether it speaks first or is asked.
func TestLeastTimeLearns(t *testing.T) {
	const late = 100 * time.Millisecond
	for _, asked := range []bool{false, true} {
		answer := func(wait time.Duration) string {
			return lbtest.Serve(t, func(c *net.TCPConn) {
				if asked {
					_, _ = io.ReadFull(c, make([]byte, 1))
				}
				time.Sleep(wait)
				_, _ = io.WriteString(c, "x")
			})
		}
		r := newRig(t, []string{answer(0), answer(late)}, func(c *config.Config) { c.Pools[0].Policy = "leasttime" })
		for range 30 {
			c := r.dial()
			if asked {
				time.Sleep(2 * time.Millisecond) // the client's own time does not count
				say(t, c, "x")
			}
			hearEnd(t, c, "x")
			c.Close() // sessions that stay would count
		}
		m := r.d.Snapshot().Pools[0].Members
		if slow := m[1].Latency(); slow > 0 && slow < late/2 {
			t.Errorf("asked %v: the slow one counts as %v", asked, slow)
		}
		if slow := r.e.Stats().Backends[m[1].Backend]; slow != nil && slow.Sessions > 15 {
			t.Errorf("asked %v: the slow one has %d sessions of 30", asked, slow.Sessions)
		}
	}
}

// TestLeastTimeOfRefusals: a backend that refuses at once is not a quick one.
func TestLeastTimeOfRefusals(t *testing.T) {
	r := newRig(t, []string{lbtest.Named(t, "x"), lbtest.Refused(t)}, func(c *config.Config) { c.Pools[0].Policy = "leasttime" })
	for range 30 {
		c := r.dial()
		hearEnd(t, c, "x")
		c.Close() // sessions that stay would count
	}
	refused := r.d.Snapshot().Pools[0].Members[1]
	if l := refused.Latency(); l > 0 && l < time.Second/2 {
		t.Errorf("it counts as %v", l)
	}
	if st := r.e.Stats().Pools["p"]; st != nil && st.Retries > 15 {
		t.Errorf("it was tried first %d times of 30", st.Retries)
	}
}

// TestLeastTimeOfDatagrams: flows time the first answer.
func TestLeastTimeOfDatagrams(t *testing.T) {
	const late = 50 * time.Millisecond
	slow := lbtest.ServeDatagrams(t, func(_ netip.AddrPort, _ []byte, reply func([]byte)) {
		time.Sleep(late)
		reply([]byte("x"))
	})
	r := newUDPRig(t, []string{slow}, func(c *config.Config) { c.Pools[0].Policy = "leasttime" })
	r.client().ask("x")
	lbtest.Eventually(t, "latency is known", func() bool { return r.d.Snapshot().Pools[0].Members[0].Latency() >= late*9/10 })
}

// TestLeastBandwidthMeasures: who moves bytes is seen within seconds, also when the policy comes by a reload, and the next
// session goes elsewhere.
func TestLeastBandwidthMeasures(t *testing.T) {
	echo := []string{lbtest.Echo(t), lbtest.Echo(t)}
	r := newRig(t, echo, func(c *config.Config) { c.Pools[0].Policy = "roundrobin" })
	c := r.dial()
	say(t, c, "x")
	hear(t, c, "x")
	r.apply(testConfig(echo, func(c *config.Config) { c.Pools[0].Policy = "leastbandwidth" }))
	busy, idle := r.d.Snapshot().Pools[0].Members[0], r.d.Snapshot().Pools[0].Members[1]
	if busy.Active() == 0 {
		busy, idle = idle, busy
	}
	block := make([]byte, 64<<10)
	lbtest.Eventually(t, "the rate is measured", func() bool {
		go func() { _, _ = c.Write(block) }()
		if _, err := io.ReadFull(c, make([]byte, len(block))); err != nil {
			t.Fatal(err)
		}
		return busy.Rate() > 10_000
	})
	n := r.dial()
	say(t, n, "x")
	hear(t, n, "x")
	if busy.Active() != 1 || idle.Active() != 1 {
		t.Errorf("the busy one has %d sessions, the idle one %d", busy.Active(), idle.Active())
	}
}
