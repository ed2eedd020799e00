package engine

import (
	"io"
	"net"
	"sync"
	"testing"

	"awe4lb/config"
	"awe4lb/internal/lbtest"
)

// TestPipesAreBounded has more slow readers of spliced streams than there are pipes. The shard never has more pipes than
// its limit, those without one go on by reading and writing, and every byte arrives once they all read.
func TestPipesAreBounded(t *testing.T) {
	const readers, limit, size = 12, 4, 16 << 20
	r := newRigOf(t, 1, []string{lbtest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, lbtest.NewStream(7, size))
	})}, func(c *config.Config) { c.Engine.SplicePipes = limit })
	sh := r.e.shards[0]
	most := 0
	look := func() (held, stalled int) {
		sh.loop.Call(func() {
			most = max(most, sh.pipes.made)
			for s := sh.sessions.next; s != &sh.sessions; s = s.next {
				if p := s.client.pipe; p != nil {
					held++
				}
				if s.client.backlogged() {
					stalled++
				}
			}
		})
		return held, stalled
	}
	var clients []*net.TCPConn
	for range readers {
		c := r.dial()
		_ = c.SetReadBuffer(64 << 10)
		clients = append(clients, c)
	}
	lbtest.Eventually(t, "all are stalled", func() bool { _, stalled := look(); return stalled == readers })
	if held, _ := look(); held > limit {
		t.Errorf("%d sessions hold a pipe, of %d", held, limit)
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			if err := lbtest.NewStream(7, size).Check(c); err != nil {
				t.Error(err)
			}
			c.Close()
		})
	}
	wg.Wait()
	lbtest.Eventually(t, "all have ended", func() bool { look(); return r.e.sessions.Load() == 0 })
	if most == 0 || most > limit {
		t.Errorf("%d pipes at the most; want some, and no more than %d", most, limit)
	}
	if st := r.e.Stats().Shards[0]; st.SplicedBytes == 0 || st.Pipes > limit {
		t.Errorf("%d bytes spliced, %d pipes left", st.SplicedBytes, st.Pipes)
	}
}
