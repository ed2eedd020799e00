package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// A stream is what the web page and awe4lb top live on: server-sent events, a sample each second.
const (
	streamStep  = time.Second
	streamFirst = 250 * time.Millisecond // the first sample comes sooner: nobody waits a second to see that things move
	streamWrite = 10 * time.Second       // a client that takes nothing for so long is cut
	maxStreams  = 64
	maxOwn      = 16 // of one identity at one source, so that nobody takes them all
)

// streams counts those that are open.
type streams struct {
	refused atomic.Uint64 // shared

	// Guarded by mu.
	mu    sync.Mutex
	open  map[watcher]int
	total int
}

// watcher is who watches, and from where.
type watcher struct {
	source netip.Prefix
	who    string
}

// begin counts a stream that is about to be opened, or says why it may not be.
func (ss *streams) begin(w watcher) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	switch {
	case ss.open[w] >= maxOwn:
		ss.refused.Add(1)
		from := "this address"
		if !w.source.IsValid() {
			from = "unix sockets"
		} else if !w.source.IsSingleIP() {
			from = "the network " + w.source.String()
		}
		return problemf(fasthttp.StatusTooManyRequests, "%s has %d streams open already from %s, which is the limit", w.who, maxOwn, from)
	case ss.total >= maxStreams:
		ss.refused.Add(1)
		return problemf(fasthttp.StatusServiceUnavailable, "%d streams are open already, which is the limit of all clients together", maxStreams)
	}
	if ss.open == nil {
		ss.open = map[watcher]int{}
	}
	ss.open[w]++
	ss.total++
	return nil
}

func (ss *streams) end(w watcher) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.total--
	if ss.open[w]--; ss.open[w] == 0 {
		delete(ss.open, w)
	}
}

func (ss *streams) count() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.total
}

// streamQuery says what a stream has.
type streamQuery struct {
	Pools string `query:"pools" description:"names of pools whose backends are listed, with commas between; * is all"`
}

// stream answers with samples until the client goes, its credentials end, or the process does.
func (s *Server) stream(c *call) (any, error) {
	w := watcher{sourceOf(from(c.RequestCtx)), c.who.String()}
	if err := s.streams.begin(w); err != nil {
		return nil, err
	}
	wanted := wantedPools(string(c.QueryArgs().Peek("pools")))
	cookie, who, began := string(c.Request.Header.Cookie(cookieName)), c.who, s.access.Load()
	conn, state := c.Conn(), c.TLSConnectionState()
	c.SetContentType("text/event-stream")
	c.Response.Header.Set("X-Accel-Buffering", "no")
	c.SetBodyStreamWriter(func(out *bufio.Writer) {
		defer s.streams.end(w)
		s.sendSamples(out, conn, wanted, func() bool {
			return s.access.Load().holds(began, who) && (who.how != "cookie" || s.logins.isAlive(cookie, time.Now())) &&
				(who.how != "certificate" || s.secure.trusts(state))
		})
	})
	return streamed{}, nil
}

// sendSamples writes events while whoever reads them may.
func (s *Server) sendSamples(w *bufio.Writer, conn net.Conn, wanted func(string) bool, may func() bool) {
	ticker := time.NewTicker(streamFirst)
	defer ticker.Stop()
	was, seen := s.count(), s.newestEvent()
	for first := true; may(); first = false {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		if first {
			ticker.Reset(streamStep)
		}
		now := s.count()
		sent := sendEvent(w, "sample", s.since(&was, &now, wanted))
		if newest := s.newestEvent(); sent && newest.After(seen) {
			sent, seen = sendEvent(w, "change", eventList{s.eventsSince(seen)}), newest
		}
		_ = conn.SetWriteDeadline(time.Now().Add(streamWrite))
		if !sent || w.Flush() != nil {
			return
		}
		was = now
	}
}

func sendEvent(w *bufio.Writer, name string, v any) bool {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("admin: cannot encode %T: %v", v, err)) // our own types
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, text)
	return err == nil
}

func wantedPools(list string) func(string) bool {
	if list == "*" {
		return func(string) bool { return true }
	}
	names := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		names[name] = true
	}
	return func(pool string) bool { return names[pool] }
}
