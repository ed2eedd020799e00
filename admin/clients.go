package admin

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// clients are the connections that are open, so that Stop can end them, and so that somebody who comes when there are as many as
// may be still gets in (decision 0073): then one gives way, of the source that has the most the one of which there has been no news
// for longest. A change that somebody may make and that is being made stays, and so does a stream.
type clients struct {
	displaced atomic.Uint64 // shared: connections that gave way, or found no place

	// Guarded by mu.
	mu   sync.Mutex
	open map[net.Conn]*client
	most int // that may be open, those not counted that are giving way
	gone int // of open: that are giving way
}

// client is a connection.
type client struct {
	source netip.Prefix
	since  time.Time // when it came, when its last request began to be answered, or when that was done
	busy   bool      // it does not give way
	gone   bool      // it was closed, and its goroutine has not come to know yet
}

// enter adds a connection, and has another give way if need be. It reports false when there is no place.
func (cs *clients) enter(c net.Conn, now time.Time) bool {
	source := sourceOf(addressOf(c.RemoteAddr()))
	cs.mu.Lock()
	var way net.Conn
	if len(cs.open)-cs.gone >= cs.most {
		cs.displaced.Add(1)
		if way = cs.oneToGo(source); way == nil || len(cs.open) >= 2*cs.most {
			cs.mu.Unlock()
			return false
		}
		cs.open[way].gone = true
		cs.gone++
	}
	cs.open[c] = &client{source: source, since: now}
	cs.mu.Unlock()
	if way != nil {
		closeNow(way)
	}
	return true
}

// oneToGo returns the connection that gives way to one from a source, or nil: nobody gives way to who has as many. cs.mu is held.
func (cs *clients) oneToGo(to netip.Prefix) (way net.Conn) {
	count := map[netip.Prefix]int{}
	for _, o := range cs.open {
		if !o.gone {
			count[o.source]++
		}
	}
	var worst *client
	for c, o := range cs.open {
		if o.gone || o.busy || o.source != to && count[o.source] <= count[to] {
			continue
		}
		if worst == nil || count[o.source] > count[worst.source] || count[o.source] == count[worst.source] && o.since.Before(worst.since) {
			way, worst = c, o
		}
	}
	return way
}

// note is told by fasthttp how a connection is.
func (cs *clients) note(c net.Conn, state fasthttp.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	o := cs.open[c]
	if o == nil {
		return
	}
	switch state {
	case fasthttp.StateIdle: // a stream has ended
		o.busy, o.since = false, time.Now()
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		if o.gone {
			cs.gone--
		}
		delete(cs.open, c)
	}
}

// mark notes that there is news of a connection, and whether it gives way from now on.
func (cs *clients) mark(c net.Conn, busy bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if o := cs.open[c]; o != nil {
		o.busy, o.since = busy, time.Now()
	}
}

// hasGone reports whether a connection has given way, so that nobody waits for what is answered there.
func (cs *clients) hasGone(c net.Conn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	o := cs.open[c]
	return o == nil || o.gone
}

func (cs *clients) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		closeNow(c)
	}
}

// closeNow closes a connection without a word: that of TLS could wait for a client that does not read.
func closeNow(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	_ = c.Close()
}

func addressOf(a net.Addr) netip.Addr {
	p, _ := netip.ParseAddrPort(a.String()) // not of a unix socket
	return p.Addr().Unmap()
}

// door is a listener that lets in as many as clients has room for.
type door struct {
	net.Listener
	clients *clients
}

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil || d.clients.enter(c, time.Now()) {
			return c, err
		}
		closeNow(c)
	}
}
