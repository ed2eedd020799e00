package engine

// slab holds what few have, by number, in chunks that never move; 0 is none. It allocates only when more is held than ever
// before. Owned by the shard's goroutine.
type slab[T any] struct {
	chunks []*[slabChunk]T
	free   []uint32
	next   uint32 // the first number that was never given; 0 before the first
	used   int
}

const slabChunk = 256

// at returns what has that number, which is not 0.
func (s *slab[T]) at(n uint32) *T { return &s.chunks[n/slabChunk][n%slabChunk] }

// alloc returns the number of a zero T.
func (s *slab[T]) alloc() uint32 {
	s.used++
	if n := len(s.free); n > 0 {
		number := s.free[n-1]
		s.free = s.free[:n-1]
		return number
	}
	s.next = max(s.next, 1)
	if int(s.next/slabChunk) == len(s.chunks) {
		s.chunks = append(s.chunks, new([slabChunk]T))
	}
	s.next++
	return s.next - 1
}

// release gives back a number. What a peak has left behind goes with the last one.
func (s *slab[T]) release(n uint32) {
	var zero T
	*s.at(n) = zero
	s.free = append(s.free, n)
	if s.used--; s.used == 0 && len(s.chunks) > 1 {
		*s = slab[T]{}
	}
}
