package backend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"syscall"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

// maxHead bounds a request's head; a client that sends more is refused.
const maxHead = 64 << 10

// serveHTTP runs on every event of an HTTP connection: flush, then read and answer until the socket is drained.
func (l *loop) serveHTTP(c *conn) {
	if !l.flush(c) {
		return
	}
	if len(c.carry) > 0 && !l.answer(c, nil) { // requests that waited behind a full socket
		return
	}
	for {
		n, errno := sys.Read(c.fd, l.buf)
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 || n == 0 {
			l.close(c)
			return
		}
		if !l.answer(c, l.buf[:n]) {
			return
		}
		if n < len(l.buf) && !c.hup {
			return // short read: drained, and the next byte brings an event
		}
	}
}

// answer serves every complete request in in (after what was carried over). It returns false when nothing more is to
// be read now: the connection is closed, or its socket is full.
func (l *loop) answer(c *conn, in []byte) bool {
	if len(c.carry) == 0 && len(in) > 0 && bytes.Equal(in, l.lastRequest) {
		l.s.requests.Add(1)
		return l.send(c, l.lastResponse, l.lastClose)
	}
	if len(c.carry) > 0 {
		c.carry = append(c.carry, in...)
		in = c.carry
	}
	for len(in) > 0 {
		req, n, err := wire.ParseRequest(in)
		if err != nil || n == 0 && len(in) > maxHead {
			l.refuse(c)
			return false
		}
		if n == 0 {
			break
		}
		response, cacheable := l.response(req)
		if cacheable {
			l.lastRequest = append(l.lastRequest[:0], in[:n]...)
			l.lastResponse, l.lastClose = response, req.Close
		}
		l.s.requests.Add(1)
		in = in[n:]
		if !l.send(c, response, req.Close) {
			if l.conns[c.fd] == c {
				c.carry = append(c.carry[:0], in...)
			}
			return false
		}
	}
	c.carry = append(c.carry[:0], in...)
	return true
}

// response returns the answer to req and whether it is always the same.
func (l *loop) response(req wire.Parsed) ([]byte, bool) {
	if req.ResponseBytes >= 0 {
		return wire.Response(req.ResponseBytes, req.Close), true
	}
	status, body := "404 Not Found", []byte("404: want /, /bytes/N or /counters\n")
	if req.Path == "/counters" {
		body, _ = json.Marshal(l.s.Counters())
		status, body = "200 OK", append(body, '\n')
	}
	head := fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n", status, len(body))
	return append(head, body...), false
}

// send writes b, keeping what does not fit, and closes after it when asked to. It returns false when the connection is
// closed or full. b is kept, not copied: it must not change.
func (l *loop) send(c *conn, b []byte, close bool) bool {
	c.pending, c.closing = b, close
	return l.flush(c)
}

// flush writes what is pending and returns whether all of it is out and the connection still open.
func (l *loop) flush(c *conn) bool {
	for len(c.pending) > 0 {
		n, errno := sys.Send(c.fd, c.pending)
		if errno == syscall.EAGAIN {
			return false
		}
		if errno != 0 {
			l.close(c)
			return false
		}
		c.pending = c.pending[n:]
	}
	if c.closing {
		l.close(c)
		return false
	}
	return true
}

// serveEcho sends back what comes, byte by byte in order, and closes after the client's end.
func (l *loop) serveEcho(c *conn) {
	if !l.flush(c) {
		return
	}
	for {
		n, errno := sys.Read(c.fd, l.buf)
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 || n == 0 {
			l.close(c)
			return
		}
		sent, errno := sys.Send(c.fd, l.buf[:n])
		if errno != 0 && errno != syscall.EAGAIN {
			l.close(c)
			return
		}
		if sent < n {
			c.carry = append(c.carry[:0], l.buf[sent:n]...)
			c.pending = c.carry
			return // the next EPOLLOUT goes on
		}
		if n < len(l.buf) && !c.hup {
			return
		}
	}
}
