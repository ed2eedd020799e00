// Package wire is what the load generator and the backends have agreed on: the exact bytes of a request and of its
// response, and the small protocol of bulk streams. Because both ends know every byte in advance, the generator compares
// instead of parsing, and a single wrong byte anywhere is seen.
//
// The requests are honest HTTP/1.1, so curl works against the backends too.
package wire

import (
	"bytes"
	"fmt"
	"strconv"
)

// DefaultBody is what "GET /" answers: 13 bytes, the smallest body that looks like one.
const DefaultBody = "hello, world\n"

// MaxResponseBytes bounds the body a request may ask for.
const MaxResponseBytes = 64 << 20

// Request returns a GET for a body of responseBytes (the default body when it is as long as that), padded by a header to
// requestBytes in total; a request that is longer anyway stays as it is. With close set it asks the backend to close.
func Request(requestBytes, responseBytes int, close bool) []byte {
	path := "/"
	if responseBytes != len(DefaultBody) {
		path = "/bytes/" + strconv.Itoa(responseBytes)
	}
	head := "GET " + path + " HTTP/1.1\r\nHost: bench\r\n"
	if close {
		head += "Connection: close\r\n"
	}
	const pad = "X-Pad: \r\n"
	if missing := requestBytes - len(head) - len("\r\n"); missing >= len(pad) {
		head += "X-Pad: " + string(bytes.Repeat([]byte{'p'}, missing-len(pad))) + "\r\n"
	}
	return []byte(head + "\r\n")
}

// Response returns the whole answer to such a request: head and body. Bodies other than the default one are cut from the
// pattern of bulk streams.
func Response(responseBytes int, close bool) []byte {
	connection := "keep-alive"
	if close {
		connection = "close"
	}
	out := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n", responseBytes, connection)
	if responseBytes == len(DefaultBody) {
		return append(out, DefaultBody...)
	}
	for responseBytes > 0 {
		n := min(responseBytes, PatternChunk)
		out = append(out, Pattern(0, n)...)
		responseBytes -= n
	}
	return out
}

// Parsed is what a backend needs to know of a request.
type Parsed struct {
	Path          string
	ResponseBytes int // -1: the path is unknown
	Close         bool
}

var (
	headEnd     = []byte("\r\n\r\n")
	closeHeader = []byte("\r\nconnection: close\r\n")
	keepHeader  = []byte("\r\nconnection: keep-alive\r\n")
)

// ParseRequest reads the first request in b and returns it with its length in bytes. A length of 0 means that it is not
// complete yet; an error, that this is no GET of HTTP/1.x.
func ParseRequest(b []byte) (Parsed, int, error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		if len(b) > 0 && b[0] != 'G' {
			return Parsed{}, 0, fmt.Errorf("request begins with %q, want GET", b[:min(len(b), 8)])
		}
		return Parsed{}, 0, nil
	}
	head := b[:end+2]
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	fields := bytes.Fields(line)
	if len(fields) != 3 || string(fields[0]) != "GET" || !bytes.HasPrefix(fields[2], []byte("HTTP/1.")) {
		return Parsed{}, 0, fmt.Errorf("request line %q, want GET path HTTP/1.1", line)
	}
	lower := bytes.ToLower(head)
	p := Parsed{Path: string(fields[1]), ResponseBytes: -1}
	p.Close = bytes.Contains(lower, closeHeader) || string(fields[2]) == "HTTP/1.0" && !bytes.Contains(lower, keepHeader)
	if p.Path == "/" {
		p.ResponseBytes = len(DefaultBody)
	} else if n, ok := bytes.CutPrefix(fields[1], []byte("/bytes/")); ok {
		if size, err := strconv.Atoi(string(n)); err == nil && size >= 0 && size <= MaxResponseBytes {
			p.ResponseBytes = size
		}
	}
	return p, end + len(headEnd), nil
}
