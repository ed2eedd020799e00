package lbtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Stream is n bytes that depend on seed and position, so that a lost, doubled or moved byte shows. It is an io.Reader
// that returns pieces of random sizes when Chunks is set.
type Stream struct {
	Chunks *rand.Rand // nil: as much as asked for

	seed, at, n uint64
}

// NewStream returns the stream of n bytes of a seed.
func NewStream(seed uint64, n int64) *Stream { return &Stream{seed: seed, n: uint64(n)} }

func (s *Stream) Read(b []byte) (int, error) {
	if s.at == s.n {
		return 0, io.EOF
	}
	if s.Chunks != nil {
		b = b[:1+s.Chunks.IntN(len(b))]
	}
	b = b[:min(uint64(len(b)), s.n-s.at)]
	s.fill(b)
	s.at += uint64(len(b))
	return len(b), nil
}

// fill writes the bytes from s.at on into b, a word at a time where it can.
func (s *Stream) fill(b []byte) {
	for i := 0; i < len(b); {
		at := s.at + uint64(i)
		word := (at>>3 + s.seed) * 0x9E3779B97F4A7C15
		if at&7 == 0 && len(b)-i >= 8 {
			binary.LittleEndian.PutUint64(b[i:], word)
			i += 8
			continue
		}
		b[i] = byte(word >> (at & 7 * 8))
		i++
	}
}

// Check reads r to its end and compares it with the stream. It returns nil when r is exactly the stream, else what is
// wrong and where.
func (s *Stream) Check(r io.Reader) error {
	b, want := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err := r.Read(b)
		if s.at+uint64(n) > s.n {
			return fmt.Errorf("more than the %d bytes that were sent", s.n)
		}
		s.fill(want[:n])
		if !bytes.Equal(b[:n], want[:n]) {
			for i := range n {
				if b[i] != want[i] {
					return fmt.Errorf("byte %d of %d: got %#x, want %#x", s.at+uint64(i), s.n, b[i], want[i])
				}
			}
		}
		s.at += uint64(n)
		if err == io.EOF {
			if s.at != s.n {
				return fmt.Errorf("ended after %d of %d bytes", s.at, s.n)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", s.at, s.n, err)
		}
	}
}
