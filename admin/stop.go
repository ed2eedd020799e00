package admin

import (
	"context"
	"sync"
	"time"

	"awe4lb/internal/socketfile"
)

// stopGrace is how long Stop waits for the requests at hand. A client that has sent half of one would have it wait for
// readTimeout.
const stopGrace = time.Second

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
