package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// A stream is what the web page and awe4lb top live on: server-sent events, a sample each second.
const (
	streamStep  = time.Second
	streamFirst = 250 * time.Millisecond // the first sample comes sooner: nobody waits a second to see that things move
	streamWrite = 10 * time.Second       // a client that takes nothing for so long is cut
	maxStreams  = 64
)

// streamQuery says what a stream has.
type streamQuery struct {
	Pools string `query:"pools" description:"names of pools whose backends are listed, with commas between; * is all"`
}

// stream answers with samples until the client goes, its credentials end, or the process does.
func (s *Server) stream(c *call) (any, error) {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return nil, problemf(fasthttp.StatusServiceUnavailable, "%d streams are open already", maxStreams)
	}
	wanted := wantedPools(string(c.QueryArgs().Peek("pools")))
	cookie, who, began := string(c.Request.Header.Cookie(cookieName)), c.who, s.access.Load()
	conn := c.Conn()
	c.SetContentType("text/event-stream")
	c.Response.Header.Set("X-Accel-Buffering", "no")
	c.SetBodyStreamWriter(func(w *bufio.Writer) {
		defer s.streams.Add(-1)
		s.sendSamples(w, conn, wanted, func() bool {
			return s.access.Load().holds(began, who) && (who.how != "cookie" || s.logins.isAlive(cookie, time.Now()))
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
