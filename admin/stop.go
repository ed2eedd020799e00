package admin

import (
	"context"
	"net"
	"sync"
	"time"

	"awe4lb/internal/socketfile"

	"github.com/valyala/fasthttp"
)

// stopGrace is how long Stop waits for the requests at hand. A client that has sent half of one would have it wait for
// readTimeout.
const stopGrace = time.Second

// clients are the connections that are open, so that Stop can end them.
type clients struct {
	mu   sync.Mutex
	open map[net.Conn]bool // guarded by mu
}

// note is told by fasthttp how a connection is.
func (cs *clients) note(c net.Conn, state fasthttp.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch state {
	case fasthttp.StateNew:
		if cs.open == nil {
			cs.open = map[net.Conn]bool{}
		}
		cs.open[c] = true
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		delete(cs.open, c)
	}
}

func (cs *clients) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		_ = c.Close()
	}
}

// Stop stops listening and waits for the requests at hand: a second at the most, and no longer than ctx lasts. Those not
// answered by then are cut.
func (s *Server) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.grace)
	defer cancel()
	s.stopping.Do(func() { close(s.quit) }) // streams end
	_ = s.listener.Close()                  // which Shutdown leaves open where Serve has not come as far as to tell of it
	var pushing sync.WaitGroup
	pushing.Go(func() { s.push.stop(ctx) }) // while the others are waited for
	_ = s.server.ShutdownWithContext(ctx)
	if ctx.Err() != nil {
		s.clients.closeAll()
	}
	if a := s.listener.Addr(); a.Network() == "unix" {
		socketfile.Remove(a.String())
	}
	pushing.Wait()
	<-s.done
}
