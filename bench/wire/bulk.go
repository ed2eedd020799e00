package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// A bulk stream:
//
//	client                                    backend
//	  | -- header, 16 bytes ------------------> |
//	  | -- pattern (upload) ------------------> |  counts, compares if asked
//	  | <------------------ pattern (download)- |  until its length, or without end
//	  | -- FIN --------------------------------> |  "enough": the download stops here if it has no end
//	  | <------------- trailer, 48 bytes, FIN - |
//
// Each run so ends by a half-close through the proxy, and the trailer says what the backend got and gave: a proxy that
// loses, repeats or invents a byte, or turns a FIN into a close, fails the run.
const (
	HeaderBytes  = 16
	TrailerBytes = 48

	// PatternPeriod is the length after which the pattern repeats: a prime near 1 MiB, so that no buffer size divides it
	// and two swapped or repeated buffers do not compare equal.
	PatternPeriod = 1048573
	// PatternChunk is the most bytes Pattern can return at once.
	PatternChunk = PatternPeriod
)

// pattern holds two periods, so that any chunk of up to one period is contiguous.
var pattern = makePattern()

func makePattern() []byte {
	p := make([]byte, 2*PatternPeriod)
	rnd := rand.NewChaCha8([32]byte{'a', 'w', 'e', '4', 'l', 'b'})
	rnd.Read(p[:PatternPeriod])
	copy(p[PatternPeriod:], p[:PatternPeriod])
	return p
}

// Pattern returns the n bytes (at most PatternChunk) of the endless pattern that begin at offset. Shared: do not write.
func Pattern(offset uint64, n int) []byte {
	at := int(offset % PatternPeriod)
	return pattern[at : at+n : at+n]
}

// Matches reports whether b (at most PatternChunk bytes) is the pattern at offset. About 10 GB/s.
func Matches(b []byte, offset uint64) bool {
	return bytes.Equal(b, Pattern(offset, len(b)))
}

// Header opens a bulk stream.
type Header struct {
	Up     bool   // the client sends
	Down   bool   // the backend sends
	Verify bool   // the backend compares what it gets
	Bytes  uint64 // length of the download; 0 = until the client's FIN
}

// Append writes the header's 16 bytes: a letter, the verify flag, 13 hexadecimal digits, a newline.
func (h Header) Append(b []byte) []byte {
	letter, verify := byte('N'), byte('0')
	switch {
	case h.Up && h.Down:
		letter = 'B'
	case h.Up:
		letter = 'U'
	case h.Down:
		letter = 'D'
	}
	if h.Verify {
		verify = '1'
	}
	return fmt.Appendf(b, "%c%c%013x\n", letter, verify, h.Bytes)
}

// ParseHeader reads 16 bytes; anything but a header is an error.
func ParseHeader(b []byte) (Header, error) {
	n, err := strconv.ParseUint(string(b[2:HeaderBytes-1]), 16, 52)
	h := Header{Verify: b[1] == '1', Bytes: n}
	switch b[0] {
	case 'B':
		h.Up, h.Down = true, true
	case 'U':
		h.Up = true
	case 'D':
		h.Down = true
	default:
		err = strconv.ErrSyntax
	}
	if err != nil || b[HeaderBytes-1] != '\n' {
		return Header{}, fmt.Errorf("bulk header %q: want U, D or B, 0 or 1, 13 hexadecimal digits and a newline", b)
	}
	return h, nil
}

// Trailer ends a bulk stream: the backend's account of it.
type Trailer struct {
	Received   uint64 // bytes of pattern the backend got
	Sent       uint64 // bytes of pattern the backend gave
	Mismatches uint64 // chunks that did not compare equal; 0 when not asked to verify
}

// Append writes the trailer's 48 bytes: three numbers of 15 hexadecimal digits, each followed by a newline.
func (t Trailer) Append(b []byte) []byte {
	return fmt.Appendf(b, "%015x\n%015x\n%015x\n", t.Received, t.Sent, t.Mismatches)
}

// ParseTrailer reads 48 bytes.
func ParseTrailer(b []byte) (Trailer, error) {
	var v [3]uint64
	if len(b) != TrailerBytes {
		return Trailer{}, fmt.Errorf("bulk trailer of %d bytes, want %d", len(b), TrailerBytes)
	}
	for i := range v {
		n, err := strconv.ParseUint(string(b[i*16:i*16+15]), 16, 60)
		if err != nil || b[i*16+15] != '\n' {
			return Trailer{}, fmt.Errorf("bulk trailer %q: want three lines of 15 hexadecimal digits", b)
		}
		v[i] = n
	}
	return Trailer{v[0], v[1], v[2]}, nil
}
