package engine

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// Some of what docs/configuration.md calls in force at once, with sessions and flows that live.

func (r *rig) reload(edit func(c *config.Config, f *config.Frontend)) {
	r.t.Helper()
	c := *r.d.Snapshot().Config
	f := *c.Frontends[0]
	c.Frontends = []*config.Frontend{&f}
	edit(&c, &f)
	r.apply(&c)
}

// TestSpliceAtOnce: a session that lives moves bulk data in the kernel as soon as a reload lets it, and no more when that is over.
func TestSpliceAtOnce(t *testing.T) {
	const size = 32 << 20
	bulk := make([]byte, size) // written at once: what makes it piece by piece may be slower than what moves it
	backend := lbtest.Serve(t, func(c *net.TCPConn) {
		for b := make([]byte, 1); ; {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			_, _ = c.Write(bulk)
		}
	})
	r := newRigOf(t, 1, []string{backend}, func(c *config.Config) { c.Engine.Splice = false })
	c := r.dial()
	moved := func() uint64 {
		t.Helper()
		before := r.e.Stats().Shards[0].SplicedBytes
		say(t, c, "x")
		if _, err := io.CopyN(io.Discard, c, size); err != nil {
			t.Fatal(err)
		}
		return r.e.Stats().Shards[0].SplicedBytes - before
	}
	for i, on := range []bool{false, true, false, true} {
		if i > 0 {
			r.reload(func(c *config.Config, _ *config.Frontend) { c.Engine.Splice = on })
		}
		if on { // as soon as four reads in a row find much
			lbtest.Eventually(t, "bytes are spliced", func() bool { return moved() > 0 })
		} else if n := moved(); n > 0 {
			t.Errorf("%d: splice is off, and %d bytes were spliced", i, n)
		}
	}
	if n := r.e.Stats().Frontends["f"].Accepted; n != 1 {
		t.Errorf("%d sessions; want one that has seen all", n)
	}
}

// TestModeAtOnce: a client that has a flow is balanced by the new mode with its next datagram, and where replies are not wanted any
// more, it gets none to that.
func TestModeAtOnce(t *testing.T) {
	var quiet atomic.Uint64 // datagrams that want no answer
	serve := func(name string) string {
		return lbtest.ServeDatagrams(t, func(_ netip.AddrPort, data []byte, reply func([]byte)) {
			if string(data) == "quiet" {
				quiet.Add(1)
			}
			reply([]byte(name))
		})
	}
	r := newUDPRig(t, []string{serve("a"), serve("b")}, nil)
	c := r.client()
	seen := func() int {
		names := map[string]bool{}
		for range 10 {
			names[c.ask("?")] = true
		}
		return len(names)
	}
	if n := seen(); n != 1 {
		t.Fatalf("in mode flow %d backends answered", n)
	}
	r.reload(func(_ *config.Config, f *config.Frontend) { f.UDP.Mode = "datagram" })
	if n := seen(); n != 2 {
		t.Errorf("in mode datagram %d backends answered", n)
	}
	r.reload(func(_ *config.Config, f *config.Frontend) { f.UDP.Replies = false })
	before := r.e.Stats().Frontends["f"].Datagrams[ToClient]
	for range 10 {
		c.say("quiet")
	}
	lbtest.Eventually(t, "all have arrived", func() bool { return quiet.Load() == 10 })
	r.reload(func(_ *config.Config, f *config.Frontend) { f.UDP.Mode, f.UDP.Replies = "flow", true })
	if n := seen(); n != 1 {
		t.Errorf("in mode flow again %d backends answered", n)
	}
	if n := r.e.Stats().Frontends["f"].Datagrams[ToClient] - before; n != 10 {
		t.Errorf("%d answers; want the 10 that were asked for", n)
	}
}
